/**
 * Time and signs of life of what one waits for.
 *
 *  Watch    for how long somebody has watched
 *  Vigil    watches a thread: as long as it shows signs of life the wait goes on, however long it takes
 *
 * Whether a thread still exists, the operating system says, where it can be asked, and its word counts
 * (`Sync.isPatient`). Elsewhere a sign of life is the thread's progress word, which grows each time it takes the
 * machine lock. A thread that is in a store's call has ten times the patience: disks and servers may be slow.
 */
import { T_IN_IO, T_PROGRESS, THREAD_SHIFT, type ThreadTable } from './threads.ts'

/** The platform's, named here for floors that compile without its types. */
declare const performance: { now(): number }

const IO_PATIENCE = 10
/**
 * The longest sleep of a thread that waits for another one; after it, the thread looks whether there is still something
 * to wait for.
 */
export const SLICE_MS = 50 as const

/** A clock that nobody sets. */
export function nowMs(): number {
  return performance.now()
}

/**
 * How long somebody has watched, in looks. Between two of them no more than a slice counts: when a laptop was asleep,
 * or the process stopped, the others have not had that time either.
 */
export class Watch {
  #ms = 0
  #lastMs = 0
  #askedMs = 0

  begin(): void {
    this.#ms = 0
    this.#lastMs = nowMs()
    this.#askedMs = this.#lastMs
  }

  /** → milliseconds since `begin`, up to this look. */
  look(): number {
    const now = nowMs()
    this.#ms += Math.min(now - this.#lastMs, SLICE_MS)
    this.#lastMs = now
    return this.#ms
  }

  /** Whether it is time to ask something that costs more than a look: not more often than every slice. */
  isTime(): boolean {
    const now = nowMs()
    if (now - this.#askedMs < SLICE_MS) return false
    this.#askedMs = now
    return true
  }
}

export class Vigil {
  readonly #w: Int32Array
  readonly #watch = new Watch()
  #thread = -1
  #progress = 0
  /** The watch when the thread showed its last sign of life. */
  #sinceMs = 0

  constructor(threads: ThreadTable) {
    this.#w = threads.w
  }

  /** A wait begins. */
  begin(): void {
    this.#thread = -1
    this.#sinceMs = 0
    this.#watch.begin()
  }

  /** `Watch.isTime`. */
  isTime(): boolean {
    return this.#watch.isTime()
  }

  /** Whether `thread` (-1: nobody is known to have what is waited for) moved within the last `patienceMs`. */
  isHopeful(thread: number, patienceMs: number): boolean {
    const row = thread << THREAD_SHIFT
    const progress = thread < 0 ? 0 : this.#w[row + T_PROGRESS]
    const ms = this.#watch.look()
    if (thread !== this.#thread || progress !== this.#progress) {
      this.#thread = thread
      this.#progress = progress
      this.#sinceMs = ms
      return true
    }
    const inIo = thread >= 0 && this.#w[row + T_IN_IO] !== 0
    return ms - this.#sinceMs <= patienceMs * (inIo ? IO_PATIENCE : 1)
  }
}
