/**
 * Failures by name and number: the n-th call of one kind fails, once or until lifted.
 *
 * A target is what is called: a store's operation, named by the store (`file.write`, `swap.read`), or `frame` for the
 * allocation of a frame. `InjectingStore` asks before each of its calls; it also counts how often it is open.
 */
import { EIO, ENOSPC, EOPNOTSUPP } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'

export type Kind = 'EIO' | 'ENOSPC' | 'EOPNOTSUPP' | 'short' | 'torn' | 'none'
export type Lasting = 'once' | 'for good'

export interface Plan {
  readonly target: string
  readonly kind: Kind
  /** From 1. */
  readonly call: number
  readonly lasting: Lasting
}

export class Injector {
  readonly plan: Plan | undefined
  /** Calls until the failures were lifted, by target. */
  readonly calls: Map<string, number> = new Map()
  fired = 0
  /** Targets that failed in the step under way. */
  readonly firedInStep: Set<string> = new Set()
  #lifted = false
  #suspended = false

  constructor(plan: Plan | undefined) {
    this.plan = plan
  }

  lift(): void {
    this.#lifted = true
  }

  /** Runs `work` with nothing failing and nothing counted. */
  suspended<T>(work: () => T): T {
    this.#suspended = true
    try {
      return work()
    } finally {
      this.#suspended = false
    }
  }

  /** How the call that begins now is to fail, or undefined. */
  meet(target: string): Kind | undefined {
    if (this.#suspended || this.#lifted) return undefined
    const call = (this.calls.get(target) ?? 0) + 1
    this.calls.set(target, call)
    const { plan } = this
    if (plan === undefined || plan.target !== target || call < plan.call) return undefined
    if (call > plan.call && plan.lasting === 'once') return undefined
    this.fired++
    this.firedInStep.add(target)
    return plan.kind
  }
}

const ERRORS: Partial<Record<Kind, number>> = { EIO: -EIO, ENOSPC: -ENOSPC, EOPNOTSUPP: -EOPNOTSUPP }

/** A store whose bytes outlive its closing. */
export class InjectingStore implements Store {
  readonly name: string
  readonly identity: string
  readonly readOnly = false
  readonly durable = true
  readonly inner: Store
  /** 'zeros' for a store that cannot punch: the machine writes zeros. */
  readonly punches: 'punch' | 'zeros'
  nrOpen = 0
  readonly #injector: Injector

  constructor(name: string, inner: Store, injector: Injector, punches: 'punch' | 'zeros' = 'punch') {
    this.name = name
    this.identity = name
    this.inner = inner
    this.punches = punches
    this.#injector = injector
  }

  /** All the bytes, behind the failures' back. */
  contents(): Uint8Array {
    const bytes = new Uint8Array(this.inner.size())
    this.inner.read(0, bytes, 0, bytes.length)
    return bytes
  }

  size(): number {
    return this.#fail('size') ?? this.inner.size()
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const kind = this.#injector.meet(`${this.name}.read`)
    if (kind === 'short') return this.inner.read(position, buffer, offset, Math.floor(length / 3))
    if (kind === undefined) return this.inner.read(position, buffer, offset, length)
    // A read that fails may have put anything into the buffer.
    buffer.fill(0xee, offset, offset + length)
    return ERRORS[kind] ?? -EIO
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const kind = this.#injector.meet(`${this.name}.write`)
    if (kind === undefined) return this.inner.write(position, buffer, offset, length)
    // Torn: the second half arrives, the first does not; in whole sectors.
    const half = Math.ceil(length / 1024) * 512
    if (kind === 'torn' && half < length) this.inner.write(position + half, buffer, offset + half, length - half)
    return ERRORS[kind] ?? -EIO
  }

  flush(): number {
    return this.#fail('flush') ?? this.inner.flush()
  }

  truncate(sizeBytes: number): number {
    return this.#fail('truncate') ?? this.inner.truncate(sizeBytes)
  }

  punch(position: number, length: number): number {
    if (this.punches === 'zeros') return -EOPNOTSUPP
    return this.#fail('punch') ?? this.inner.punch(position, length)
  }

  /** As with files, a close that fails has closed nevertheless. */
  close(): number {
    this.nrOpen--
    return this.#fail('close') ?? 0
  }

  #fail(op: string): number | undefined {
    const kind = this.#injector.meet(`${this.name}.${op}`)
    return kind === undefined ? undefined : (ERRORS[kind] ?? -EIO)
  }
}
