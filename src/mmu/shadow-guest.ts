/**
 * The thread that runs a guest beside the machine's own: when it is in the guest, and when the host may go on.
 *
 *     const guest = new ShadowGuest({ buffer, byteOffset }, slot)      slot: of ShadowTable.admit, in the host's thread
 *     imports:  fault: (page, access) => guest.outside(() => ask the host's thread)      passed: () => guest.passed()
 *     guest.run(() => instance.exports.sum(0, length))
 *
 * The protocol stands at the head of shadow-table.ts. Needs a thread that may wait: a worker.
 */
const KICK = 0
const OUTSIDE = 0
const INSIDE = 1

export class ShadowGuest {
  readonly #words: Int32Array
  readonly #slot: number

  constructor(place: { readonly buffer: ArrayBufferLike; readonly byteOffset: number }, slot: number) {
    this.#words = new Int32Array(place.buffer, place.byteOffset, 16)
    this.#slot = slot
  }

  /** Calls the guest. */
  run<T>(guest: () => T): T {
    this.#enter()
    try {
      return guest()
    } finally {
      this.#leave()
    }
  }

  /** Leaves the guest for what its host is asked; within `run`. */
  outside<T>(ask: () => T): T {
    this.#leave()
    try {
      return ask()
    } finally {
      this.#enter()
    }
  }

  /** The guest is at a safe point and has seen that the host waits. */
  passed(): void {
    this.#leave()
    this.#enter()
  }

  #enter(): void {
    for (;;) {
      Atomics.store(this.#words, this.#slot, INSIDE)
      if (Atomics.load(this.#words, KICK) === 0) return
      this.#leave()
      Atomics.wait(this.#words, KICK, 1)
    }
  }

  #leave(): void {
    Atomics.store(this.#words, this.#slot, OUTSIDE)
    if (Atomics.load(this.#words, KICK) !== 0) Atomics.notify(this.#words, this.#slot)
  }
}
