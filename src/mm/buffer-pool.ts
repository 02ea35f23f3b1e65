/**
 * Buffers that stores which answer later read into, kept for the next read: a fresh one costs as much as filling it.
 *
 * They lie beside the budget: together no more than `maxBytes`, or than what reads under way need. All are let go when
 * no read is under way any more. `FetchQueue.bufferBytes` counts them, for `stats`.
 *
 * What a buffer had when it was made is what is counted: a store may have given its memory away, or taken it for
 * itself.
 */
import { asBytes } from '../base/bytes.ts'
import type { FetchQueue } from '../cache/fetch-queue.ts'

export class BufferPool {
  readonly #account: FetchQueue
  readonly #thread: number
  readonly #maxBytes: number
  #bytes = 0
  readonly #spare: Uint8Array[] = []
  /** Bytes of each buffer, lent or spare. */
  readonly #sizes = new Map<Uint8Array, number>()
  #nrTaken = 0

  constructor(account: FetchQueue, thread: number, maxBytes: number) {
    this.#maxBytes = maxBytes
    this.#account = account
    this.#thread = thread
  }

  /** A buffer of at least so many bytes, with whatever in it. */
  take(lengthBytes: number): Uint8Array {
    this.#nrTaken++
    const at = this.#spare.findIndex(one => this.#sizeOf(one) >= lengthBytes)
    if (at >= 0) return this.#spare.splice(at, 1)[0]
    while (this.#spare.length > 0 && this.#bytes + lengthBytes > this.#maxBytes) {
      this.#forget(this.#spare.shift() as Uint8Array)
    }
    this.#note(lengthBytes)
    const buffer = new Uint8Array(lengthBytes)
    this.#sizes.set(buffer, lengthBytes)
    return buffer
  }

  /** What a lent buffer has in it, as a plain array; undefined when its memory is gone. */
  bytesOf(buffer: Uint8Array): Uint8Array | undefined {
    const bytes = asBytes(buffer)
    return bytes?.length === this.#sizeOf(buffer) ? bytes : undefined
  }

  giveBack(buffer: Uint8Array): void {
    if (this.bytesOf(buffer) === undefined) this.#forget(buffer)
    else this.#spare.push(buffer)
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

  #sizeOf(buffer: Uint8Array): number {
    return this.#sizes.get(buffer) ?? 0
  }

  #forget(buffer: Uint8Array): void {
    this.#note(-this.#sizeOf(buffer))
    this.#sizes.delete(buffer)
  }

  #note(deltaBytes: number): void {
    this.#bytes += deltaBytes
    this.#account.noteBuffers(this.#thread, deltaBytes)
  }
}
