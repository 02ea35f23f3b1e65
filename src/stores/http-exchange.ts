/**
 * What a request needs around it: a watch for silence, a place among those under way, and another try when it fails.
 *
 * Offers
 *  - `Watch`: aborts one request when the server is silent for too long, or when its caller gives up;
 *  - `Slots`: lets a limited number of callers in, first come, first served;
 *  - `persist(attempt, plan, signal)`: tries again, after growing waits, until it works or can't;
 *  - `whenAborted(signal, act)`: an abort listener of which a signal can have many.
 *
 * The platform's `fetch` rejects soon after its signal says so; all that is here rests on that.
 */
import { HttpRangeError, networkTrouble, type RequestFacts, type Trouble } from './http-error.ts'

/** So much starts the count of failures anew, however it came. */
export const WORTH_BYTES = 65_536

/**
 * What an answer must bring to be worth a request: a server that gives a byte at a time is not asked a million times.
 * The smallest page.
 */
export const LEAST_BYTES = 512

export class Watch {
  /** True once the server was silent for too long. */
  timedOut = false
  readonly #controller = new AbortController()
  readonly #timeoutMs: number
  readonly #outer: AbortSignal
  #timer: ReturnType<typeof setTimeout>
  #heardAt: number

  constructor(timeoutMs: number, outer: AbortSignal) {
    this.#timeoutMs = timeoutMs
    this.#outer = outer
    this.#heardAt = performance.now()
    this.#timer = setTimeout(this.#look, timeoutMs)
    if (outer.aborted) this.#giveUp()
    else outer.addEventListener('abort', this.#giveUp)
  }

  /** For the request: aborted when it must end. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Something came. Cheap: a timer set anew for every piece of a body would cost more than the piece. */
  heard(): void {
    this.#heardAt = performance.now()
  }

  /** To be called when the request has ended, whichever way. */
  end(): void {
    clearTimeout(this.#timer)
    this.#outer.removeEventListener('abort', this.#giveUp)
  }

  /** What a failure of the request under watch means. Throws the outer signal's reason if that is why. */
  explain(error: unknown, facts: RequestFacts): Trouble {
    if (this.#outer.aborted) throw this.#outer.reason
    if (!this.timedOut) return networkTrouble(error, facts)
    const what = `nothing came for ${this.#timeoutMs} ms`
    return { error: new HttpRangeError('ETIMEDOUT', what, facts, error), remedy: 'retry', retryAfterMs: 0 }
  }

  readonly #giveUp = (): void => this.#controller.abort(this.#outer.reason)

  readonly #look = (): void => {
    const leftMs = this.#heardAt + this.#timeoutMs - performance.now()
    if (leftMs > 0) {
      this.#timer = setTimeout(this.#look, Math.ceil(leftMs))
      return
    }
    this.timedOut = true
    this.#controller.abort(new DOMException(`nothing came for ${this.#timeoutMs} ms`, 'TimeoutError'))
  }
}

export class Slots {
  #free: number
  /** Those who wait, in order. */
  readonly #queue: Set<() => void> = new Set()

  constructor(nrSlots: number) {
    this.#free = nrSlots
  }

  /** Resolves with a slot, to be given back by `leave`; rejects with the signal's reason, without one. */
  async enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#free > 0) {
      this.#free--
      return
    }
    await new Promise<void>((resolve, reject) => {
      const giveUp = (): void => {
        this.#queue.delete(begin)
        reject(signal.reason)
      }
      const begin = (): void => {
        signal.removeEventListener('abort', giveUp)
        resolve()
      }
      this.#queue.add(begin)
      signal.addEventListener('abort', giveUp, { once: true })
    })
  }

  /** Hands the slot to the one who has waited longest. */
  leave(): void {
    for (const begin of this.#queue) {
      this.#queue.delete(begin)
      begin()
      return
    }
    this.#free++
  }
}

export interface RetryPlan {
  /** Tries after the first, as long as none gets anywhere. */
  readonly retries: number
  /** The first wait; each next one is twice as long. */
  readonly backoffMs: number
  /** No wait is longer. A server that asks for a longer one is not asked again. */
  readonly maxWaitMs: number
}

/** What an attempt came to: all is done, it did what it could and there is more, or it failed. */
export type Outcome = 'done' | 'more' | Trouble

/**
 * Calls `attempt` until it is done. `progress` counts what it has brought so far; `more`, and much progress, start the
 * count of failures anew.
 *
 * @throws the error of the last attempt; the reason of `signal`, which also ends a wait.
 */
export async function persist(
  attempt: () => Promise<Outcome>,
  progress: () => number,
  plan: RetryPlan,
  signal: AbortSignal
): Promise<void> {
  let failures = 0
  let before = progress()
  for (;;) {
    const outcome = await attempt()
    if (outcome === 'done') return
    if (outcome === 'more' || progress() - before >= WORTH_BYTES) {
      failures = 0
      before = progress()
    }
    if (outcome === 'more') continue
    if (outcome.remedy !== 'retry' || failures >= plan.retries || outcome.retryAfterMs > plan.maxWaitMs) {
      throw outcome.error
    }
    const backoffMs = Math.min(plan.backoffMs * 2 ** failures++, plan.maxWaitMs)
    // Half of it is left to chance, so that those who failed together do not come back together.
    await pause(Math.max(outcome.retryAfterMs, backoffMs * (0.5 + Math.random() / 2)), signal)
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const giveUp = (): void => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', giveUp)
      resolve()
    }, ms)
    signal.addEventListener('abort', giveUp, { once: true })
  })
}

const listeners: WeakMap<AbortSignal, Set<() => void>> = new WeakMap()

/**
 * Calls `act` when `signal`, which is not aborted yet, is; unless the function it gives back was called before. However
 * many do so, the signal has one listener: callers may share a signal among more calls than Node lets add a listener
 * each without a warning.
 */
export function whenAborted(signal: AbortSignal, act: () => void): () => void {
  const known = listeners.get(signal)
  const acts = known ?? new Set()
  if (known === undefined) {
    listeners.set(signal, acts)
    const all = (): void => {
      for (const each of acts) each()
    }
    signal.addEventListener('abort', all, { once: true })
  }
  acts.add(act)
  return () => acts.delete(act)
}
