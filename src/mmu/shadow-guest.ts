/**
 * The thread that runs a guest beside others: when it is in the guest, and when those who clear translations may go on.
 *
 * A thread that attached gets one by `table.guest()` and serves its own faults:
 *
 *     const guest = table.guest()
 *     imports:  fault: (page, access) => table.fault(page, access)      passed: () => guest.passed()
 *     guest.run(() => instance.exports.sum(0, length))
 *
 * Another one needs a word that the host has admitted it to, and asks the host's thread:
 *
 *     const guest = new ShadowGuest({ buffer, byteOffset }, slot)       slot: of ShadowTable.admit, in the host's
 *                                                                       thread
 *     imports:  fault: (page, access) => guest.outside(() => ask the host's thread)      passed: as above
 *
 * Whatever else the guest imports that may wait, for a lock of the memory above all, must be called `outside`: others
 * wait for a guest that is inside. The protocol stands at the head of guests.ts. Needs a thread that may wait: a
 * worker.
 */
const KICK = 0
const OUTSIDE = 0
/** Inside, in a thread that does not know its number in the operating system. */
const INSIDE = 1
/** Longer than whoever raised KICK may wait for others before it declares the machine broken. */
const GIVE_UP_MS = 120_000
const SLICE_MS = 50

/** Where a thread says that it is in the guest, other than in a word of the table. */
export interface GuestSeat {
  readonly words: Int32Array
  readonly at: number
  /** What the word is while the guest runs. */
  readonly inside: number
  /** Throws when nobody is left who would let the guest in again. */
  check(): void
}

export class ShadowGuest {
  readonly #kick: Int32Array
  readonly #words: Int32Array
  readonly #at: number
  readonly #inside: number
  readonly #check: () => void

  constructor(
    place: { readonly buffer: ArrayBufferLike; readonly byteOffset: number },
    slot: number,
    seat?: GuestSeat
  ) {
    this.#kick = new Int32Array(place.buffer, place.byteOffset, 16)
    this.#words = seat?.words ?? this.#kick
    this.#at = seat?.at ?? slot
    this.#inside = seat?.inside ?? insideWord()
    this.#check = seat === undefined ? () => {} : () => seat.check()
  }

  /** Whether this thread is in the guest, which has called its host if you can ask. */
  get isInside(): boolean {
    return Atomics.load(this.#words, this.#at) === this.#inside
  }

  /** Calls the guest. */
  run<T>(guest: () => T): T {
    this.#check()
    if (Atomics.load(this.#words, this.#at) !== OUTSIDE) throw new Error('a guest runs in this thread already')
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
      Atomics.store(this.#words, this.#at, this.#inside)
      if (Atomics.load(this.#kick, KICK) === 0) return
      this.#leave()
      let slices = 0
      while (Atomics.wait(this.#kick, KICK, 1, SLICE_MS) === 'timed-out') {
        this.#check()
        if (++slices * SLICE_MS > GIVE_UP_MS)
          throw new Error('nobody lets the guest in again: the thread that changed its pages has ended')
      }
    }
  }

  #leave(): void {
    Atomics.store(this.#words, this.#at, OUTSIDE)
    if (Atomics.load(this.#kick, KICK) !== 0) Atomics.notify(this.#words, this.#at)
  }
}

/**
 * What an admitted thread's word is while it is inside: its number in the operating system + 1, so that a host can see
 * that it has ended.
 */
function insideWord(): number {
  const { process } = globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } }
  try {
    const fs = process?.getBuiltinModule?.('node:fs') as { readlinkSync(path: string): string } | undefined
    const id = Number(fs?.readlinkSync('/proc/thread-self').split('/').pop())
    return Number.isSafeInteger(id) && id > 0 ? id + 1 : INSIDE
  } catch {
    return INSIDE
  }
}
