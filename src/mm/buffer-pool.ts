/**
 * Buffers that stores which answer later read into, kept for the next read: a fresh one costs as much as filling it.
 *
 * They lie beside the budget: together no more than `maxBytes`, or than what reads under way need. All are let go when no read is
 * under way any more. `FetchQueue.bufferBytes` counts them, for `stats`.
 */
import type { FetchQueue } from '../cache/fetch-queue.ts'

export class BufferPool {
  readonly #account: FetchQueue
  readonly #thread: number
  readonly #maxBytes: number
  #bytes = 0
  readonly #spare: Uint8Array[] = []
  #nrTaken = 0

  constructor(account: FetchQueue, thread: number, maxBytes: number) {
    this.#maxBytes = maxBytes
    this.#account = account
    this.#thread = thread
  }

  /** A buffer of at least so many bytes, with whatever in it. */
  take(lengthBytes: number): Uint8Array {
    this.#nrTaken++
    const at = this.#spare.findIndex(one => one.length >= lengthBytes)
    if (at >= 0) return this.#spare.splice(at, 1)[0]
    while (this.#spare.length > 0 && this.#bytes + lengthBytes > this.#maxBytes) {
      this.#forget(this.#spare.shift() as Uint8Array)
    }
    this.#note(lengthBytes)
    return new Uint8Array(lengthBytes)
  }

  giveBack(buffer: Uint8Array): void {
    this.#spare.push(buffer)
    this.#returned()
  }

  /** Somebody may write to it still: it is not used again. */
  leave(buffer: Uint8Array): void {
    this.#forget(buffer)
    this.#returned()
  }

  #returned(): void {
    if (--this.#nrTaken > 0) return
    for (const buffer of this.#spare.splice(0)) this.#forget(buffer)
  }

  #forget(buffer: Uint8Array): void {
    this.#note(-buffer.length)
  }

  #note(deltaBytes: number): void {
    this.#bytes += deltaBytes
    this.#account.noteBuffers(this.#thread, deltaBytes)
  }
}
