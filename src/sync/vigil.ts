/**
 * Watches the thread that one waits for: as long as it shows signs of life the wait goes on, however long it takes.
 *
 * Whether a thread still exists, the operating system says, where it can be asked (`Sync.hasEnded`). Elsewhere a sign of life is the
 * thread's progress word, which grows each time it takes the machine lock. A thread that is in a store's call has ten times the patience:
 * disks and servers may be slow.
 */
import { T_IN_IO, T_PROGRESS, THREAD_SHIFT, type ThreadTable } from './threads.ts'

const IO_PATIENCE = 10

export class Vigil {
  readonly #w: Int32Array
  #thread = -1
  #progress = 0
  #sinceMs = 0
  #askedMs = 0

  constructor(threads: ThreadTable) {
    this.#w = threads.w
  }

  /** A wait begins. */
  begin(): void {
    this.#thread = -1
    this.#sinceMs = Date.now()
    this.#askedMs = this.#sinceMs
  }

  /** Whether it is time to ask something that costs more than a look: not more often than every `intervalMs`. */
  isTime(intervalMs: number): boolean {
    const now = Date.now()
    if (now - this.#askedMs < intervalMs) return false
    this.#askedMs = now
    return true
  }

  /** Whether `thread` (-1: nobody is known to have what is waited for) moved within the last `patienceMs`. */
  isHopeful(thread: number, patienceMs: number): boolean {
    const row = thread << THREAD_SHIFT
    const progress = thread < 0 ? 0 : this.#w[row + T_PROGRESS]
    if (thread !== this.#thread || progress !== this.#progress) {
      this.#thread = thread
      this.#progress = progress
      this.#sinceMs = Date.now()
      return true
    }
    const inIo = thread >= 0 && this.#w[row + T_IN_IO] !== 0
    return Date.now() - this.#sinceMs <= patienceMs * (inIo ? IO_PATIENCE : 1)
  }
}
