/**
 * A store that answers later: wraps one that answers now, and lets each call wait for what the test wants.
 *
 * Offers `laterStore(inner, options)`. By default a call waits for a turn of the event loop. `hold()` makes all calls
 * from then on wait, until `release()` lets some or all of them go; `pending` lists those that wait, `log` all that
 * were asked; `whenPending(n)` resolves when n of them wait. `options.before` has a call wait for something else, such
 * as a timer, or fail.
 *
 * The inner store is called when the wait is over, in one go with the settling of the promise. A call that is given up,
 * or that is still waiting when the store is closed, never reaches it.
 */
import { setMaxListeners } from 'node:events'
import { EBADF, ECANCELED, errnoName } from '../../src/abi/errno.ts'
import type { AsyncStore } from '../../src/store/async-store.ts'
import type { Store } from '../../src/store/store.ts'

export type LaterOp = 'size' | 'read' | 'write' | 'flush' | 'truncate' | 'punch'

export interface LaterCall {
  readonly op: LaterOp
  /** Where: for `truncate` the new size, for `size` and `flush` 0. */
  readonly position: number
  /** How many bytes: for `size`, `flush` and `truncate` 0. */
  readonly length: number
}

export interface LaterStoreOptions {
  /** Awaited before a call reaches the inner store. What it throws, the call rejects with. */
  readonly before?: (call: LaterCall) => Promise<void> | void
}

export interface LaterStore extends AsyncStore {
  /** All calls so far, in order. */
  readonly log: readonly LaterCall[]
  /** Those that `hold` keeps waiting, oldest first. */
  readonly pending: readonly LaterCall[]
  /** From now on calls wait. */
  hold(): void
  /** Lets the `count` oldest go and keeps holding; without a count, lets all go and holds no more. */
  release(count?: number): void
  /** Resolves when at least `count` calls wait. */
  whenPending(count: number): Promise<void>
}

export function laterStore(inner: Store, options: LaterStoreOptions = {}): LaterStore {
  return new HeldStore(inner, options)
}

interface Waiting {
  readonly call: LaterCall
  readonly go: () => void
}

class HeldStore implements LaterStore {
  readonly name: string
  readonly identity: string | undefined
  readonly readOnly: boolean
  readonly durable: boolean
  readonly log: LaterCall[] = []
  readonly #inner: Store
  readonly #options: LaterStoreOptions
  readonly #life = new AbortController()
  #holds = false
  #waiting: Waiting[] = []
  #watchers: (() => void)[] = []

  constructor(inner: Store, options: LaterStoreOptions) {
    this.#inner = inner
    this.#options = options
    this.name = inner.name
    this.identity = inner.identity
    this.readOnly = inner.readOnly
    this.durable = inner.durable
  }

  get pending(): readonly LaterCall[] {
    return this.#waiting.map(({ call }) => call)
  }

  hold(): void {
    this.#holds = true
  }

  release(count?: number): void {
    if (count === undefined) this.#holds = false
    for (const { go } of this.#waiting.splice(0, count ?? this.#waiting.length)) go()
  }

  whenPending(count: number): Promise<void> {
    return new Promise(resolve => {
      const look = (): void => {
        if (this.#waiting.length >= count) resolve()
        else this.#watchers.push(look)
      }
      look()
    })
  }

  size(signal?: AbortSignal): Promise<number> {
    return this.#later({ op: 'size', position: 0, length: 0 }, signal, () => this.#inner.size())
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number, signal?: AbortSignal): Promise<number> {
    const act = (): number => this.#inner.read(position, buffer, offset, length)
    return this.#later({ op: 'read', position, length }, signal, act)
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number, signal?: AbortSignal): Promise<number> {
    const act = (): number => this.#inner.write(position, buffer, offset, length)
    return this.#later({ op: 'write', position, length }, signal, act)
  }

  flush(signal?: AbortSignal): Promise<number> {
    return this.#later({ op: 'flush', position: 0, length: 0 }, signal, () => this.#inner.flush())
  }

  truncate(sizeBytes: number, signal?: AbortSignal): Promise<number> {
    const act = (): number => this.#inner.truncate(sizeBytes)
    return this.#later({ op: 'truncate', position: sizeBytes, length: 0 }, signal, act)
  }

  punch(position: number, length: number, signal?: AbortSignal): Promise<number> {
    return this.#later({ op: 'punch', position, length }, signal, () => this.#inner.punch(position, length))
  }

  /** Calls that still wait reject with ECANCELED. */
  async close(): Promise<number> {
    if (this.#life.signal.aborted) return -EBADF
    const code = errnoName(ECANCELED)
    this.#life.abort(Object.assign(new Error(`${code}: the store was closed`), { code }))
    return this.#inner.close()
  }

  async #later(call: LaterCall, signal: AbortSignal | undefined, act: () => number): Promise<number> {
    if (this.#life.signal.aborted) return -EBADF
    signal?.throwIfAborted()
    this.log.push(call)
    await this.#unless([signal, this.#life.signal], this.#turn(call, signal))
    return act()
  }

  async #turn(call: LaterCall, signal: AbortSignal | undefined): Promise<void> {
    if (this.#holds) await this.#wait(call, signal)
    else await new Promise<void>(resolve => setImmediate(resolve))
    await this.#options.before?.(call)
  }

  #wait(call: LaterCall, signal: AbortSignal | undefined): Promise<void> {
    return new Promise(resolve => {
      const waiting: Waiting = { call, go: resolve }
      const drop = (): void => {
        this.#waiting = this.#waiting.filter(other => other !== waiting)
      }
      for (const giveUp of [signal, this.#life.signal]) giveUp?.addEventListener('abort', drop, { once: true })
      this.#waiting.push(waiting)
      for (const look of this.#watchers.splice(0)) look()
    })
  }

  /** Waits for `turn`, unless one of the signals comes first. */
  #unless(signals: readonly (AbortSignal | undefined)[], turn: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      for (const signal of signals) {
        if (signal === undefined) continue
        setMaxListeners(0, signal)
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      }
      turn.then(resolve, reject)
    })
  }
}
