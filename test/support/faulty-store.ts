/**
 * A store that fails on demand: wraps another one, and carries out the faults a test has armed, each at the n-th
 * call of one operation.
 *
 * Offers `faultyStore(inner)`: `arm(fault)` plans a fault, `calls` counts and `log` lists what was asked of the store.
 * Nothing here depends on time: a test that wants I/O to stand still runs its other half from a `hook`.
 *
 * Calls are counted when they begin, so a call made from a hook has the higher number. When several faults fall on
 * one call, all the hooks run and the fault that was armed first decides the result.
 *
 * The caller must not wrap it in a recording store (the recorder's own reads would meet the faults and be
 * counted): put the recorder inside, `faultyStore(recordingStore(inner))`.
 */
import { EIO, ENOSPC } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'

export type FaultyOp = 'read' | 'write' | 'flush' | 'truncate' | 'punch'

/** What is planned. `call` counts the calls of `op` from the moment of arming: 1, the default, is the next one. */
export type Fault =
  /** One call gives `-errno` (EIO when absent) and does nothing; the next one works again. */
  | { readonly kind: 'error-once'; readonly op: FaultyOp; readonly call?: number; readonly errno?: number }
  /** That call and all later ones give `-errno` (EIO when absent), until disarmed. */
  | { readonly kind: 'error-for-good'; readonly op: FaultyOp; readonly call?: number; readonly errno?: number }
  /** From the `call`-th write on, a write or truncate that would grow the store gives -ENOSPC, until disarmed. */
  | { readonly kind: 'no-space'; readonly call?: number }
  /** One read gives `bytes` bytes at most and leaves the rest of the range alone, as if the store ended there. */
  | { readonly kind: 'short-read'; readonly call?: number; readonly bytes: number }
  /**
   * One write stores the part of its range in the first `sectors` of the 512-byte sectors (of the store, not of the
   * buffer) that it touches, and then gives `-errno` (EIO when absent).
   */
  | { readonly kind: 'partial-write'; readonly call?: number; readonly sectors: number; readonly errno?: number }
  /** Runs `run` before (the default) or after the inner store does the work. What it throws reaches the caller. */
  | {
      readonly kind: 'hook'
      readonly op: FaultyOp
      readonly call?: number
      readonly when?: 'before' | 'after'
      readonly run: () => void
    }

export interface ArmedFault {
  /** How many calls it has met. A test should expect this to be what it planned. */
  readonly fired: number
  /** Takes it back; it meets no further call. */
  disarm(): void
}

export interface FaultyCall {
  readonly op: FaultyOp
  /** Where: for `truncate` the new size, for `flush` 0. */
  readonly position: number
  /** How many bytes: for `truncate` and `flush` 0. */
  readonly length: number
  /** What the caller got, or undefined while the call is under way. */
  readonly result: number | undefined
}

export interface FaultyStore extends Store {
  readonly inner: Store
  /** Calls begun so far. */
  readonly calls: Readonly<Record<FaultyOp, number>>
  /** Every call in the order they began. */
  readonly log: readonly FaultyCall[]
  arm(fault: Fault): ArmedFault
  /** Disarms everything. The counters and the log stay. */
  heal(): void
}

const SECTOR_BYTES = 512

export function faultyStore(inner: Store): FaultyStore {
  return new FaultInjector(inner)
}

class Plan implements ArmedFault {
  readonly fault: Fault
  readonly op: FaultyOp
  readonly #firstCall: number
  readonly #lastCall: number
  readonly #disarm: (plan: Plan) => void
  fired = 0

  constructor(fault: Fault, callsSoFar: Readonly<Record<FaultyOp, number>>, disarm: (plan: Plan) => void) {
    this.fault = fault
    this.op = opOf(fault)
    this.#firstCall = callsSoFar[this.op] + (fault.call ?? 1)
    this.#lastCall = fault.kind === 'error-for-good' || fault.kind === 'no-space' ? Infinity : this.#firstCall
    this.#disarm = disarm
  }

  /** Whether the `call`-th call of its operation is one of those that it was planned for. */
  meets(call: number): boolean {
    return call >= this.#firstCall && call <= this.#lastCall
  }

  disarm(): void {
    this.#disarm(this)
  }
}

class FaultInjector implements FaultyStore {
  readonly inner: Store
  readonly calls: Record<FaultyOp, number> = { read: 0, write: 0, flush: 0, truncate: 0, punch: 0 }
  readonly log: FaultyCall[] = []
  #plans: Plan[] = []

  constructor(inner: Store) {
    this.inner = inner
  }

  get name(): string {
    return this.inner.name
  }

  get identity(): string | undefined {
    return this.inner.identity
  }

  get readOnly(): boolean {
    return this.inner.readOnly
  }

  get durable(): boolean {
    return this.inner.durable
  }

  arm(fault: Fault): ArmedFault {
    if (!Number.isInteger(fault.call ?? 1) || (fault.call ?? 1) < 1) {
      throw new RangeError(`faultyStore: calls are counted from 1, not ${fault.call}`)
    }
    const plan = new Plan(fault, this.calls, p => {
      this.#plans = this.#plans.filter(other => other !== p)
    })
    this.#plans.push(plan)
    return plan
  }

  heal(): void {
    this.#plans = []
  }

  size(): number {
    return this.inner.size()
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    return this.#call('read', position, length, fault =>
      this.inner.read(position, buffer, offset, fault?.kind === 'short-read' ? Math.min(fault.bytes, length) : length)
    )
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    return this.#call('write', position, length, fault => {
      if (fault?.kind !== 'partial-write') return this.inner.write(position, buffer, offset, length)
      const tear = (Math.floor(position / SECTOR_BYTES) + fault.sectors) * SECTOR_BYTES
      const kept = Math.max(0, Math.min(length, tear - position))
      const result = this.inner.write(position, buffer, offset, kept)
      return result < 0 ? result : -(fault.errno ?? EIO)
    })
  }

  flush(): number {
    return this.#call('flush', 0, 0, () => this.inner.flush())
  }

  truncate(sizeBytes: number): number {
    return this.#call('truncate', sizeBytes, 0, () => this.inner.truncate(sizeBytes))
  }

  punch(position: number, length: number): number {
    return this.#call('punch', position, length, () => this.inner.punch(position, length))
  }

  close(): number {
    return this.inner.close()
  }

  #call(op: FaultyOp, position: number, length: number, work: (fault: Fault | undefined) => number): number {
    const entry: { -readonly [K in keyof FaultyCall]: FaultyCall[K] } = { op, position, length, result: undefined }
    this.log.push(entry)
    const call = ++this.calls[op]
    const met = this.#plans.filter(plan => this.#applies(plan, op, call, position, length))
    for (const plan of met) plan.fired++
    for (const { fault } of met) if (fault.kind === 'hook' && fault.when !== 'after') fault.run()
    const fault = met.find(plan => plan.fault.kind !== 'hook')?.fault
    if (fault?.kind === 'error-once' || fault?.kind === 'error-for-good') entry.result = -(fault.errno ?? EIO)
    else if (fault?.kind === 'no-space') entry.result = -ENOSPC
    else entry.result = work(fault)
    for (const { fault } of met) if (fault.kind === 'hook' && fault.when === 'after') fault.run()
    return entry.result
  }

  #applies(plan: Plan, op: FaultyOp, call: number, position: number, length: number): boolean {
    if (plan.fault.kind !== 'no-space') return plan.op === op && plan.meets(call)
    if (op !== 'write' && op !== 'truncate') return false
    // A truncate belongs to the calls after the writes begun so far.
    return plan.meets(op === 'write' ? call : this.calls.write + 1) && position + length > this.inner.size()
  }
}

function opOf(fault: Fault): FaultyOp {
  if (fault.kind === 'short-read') return 'read'
  if (fault.kind === 'partial-write' || fault.kind === 'no-space') return 'write'
  return fault.op
}
