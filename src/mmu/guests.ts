/**
 * The host's side of guests in other threads: returns when none of them uses a translation that was cleared before.
 *
 *  wait     raises KICK, waits until no guest's word says that it is inside, takes KICK back
 *
 * A guest runs with plain loads and stores, so it may be between its translation and its access when the translation is
 * cleared. Its thread (mmu/shadow-guest) has a word that says whether it is inside:
 *
 *     a thread that attached          T_GUEST of its row in the thread table: the id of the secondary MMU, or 0
 *     another one, that was admitted  one of the words 1 to 15 beside KICK: 0, or its number in the operating system +
 *                                     1, 1 if it does not know that
 *
 *     guest   enter       its word = inside; if KICK: its word = 0, wake the host, wait until KICK is 0, again
 *             leave       its word = 0; if KICK: wake the host
 *             safe point  if KICK: leave, enter. At least once in each loop, keeping no translation across it
 *             fault       leave, ask the host, enter
 *     host    clears translations; KICK = 1; waits until no word is inside; KICK = 0, wakes the guests
 *
 * Either the guest's `enter` saw KICK, or the host sees its word: each writes its own word before it reads the other's,
 * all by Atomics, which are in one order that both see. What the guest stored before it left is there when the host
 * goes on, and the guest sees what was cleared when it enters again.
 *
 * Why nobody waits for ever. The host holds the machine lock (and may hold others) while it waits. A guest that is
 * inside waits for nothing: its word is 0 before it asks for any lock. So it comes to a safe point, unless
 *  - its thread has ended: `recoverThread` writes its word for it, before it asks for the machine lock that this thread
 *    holds; and a row that was given to another thread is zero;
 *  - the operating system says that its thread is no more, where it can be asked (after a slice of waiting);
 *  - it loops without a safe point, or nobody can tell that its thread has ended: after `patienceMs` the machine is
 *    declared broken, as for a thread that holds a lock (sync/sync.ts), also one of one thread. The translation stays
 *    cleared; no verb goes on (BrokenMachine).
 * The host's own thread is not waited for: its guest is in a call of the host, across which it keeps no translation.
 *
 * Lock: the machine lock, where threads share the machine. So there is one host at a time.
 */
import { EOWNERDEAD } from '../abi/errno.ts'
import { BrokenMachine, type Sync } from '../sync/sync.ts'
import { T_GUEST } from '../sync/threads.ts'
import { SLICE_MS, Watch } from '../sync/vigil.ts'

/** Words before a table's entries: KICK and those of admitted threads. */
export const NR_GUEST_WORDS = 16 as const
export const KICK = 0 as const
export const OUTSIDE = 0 as const

const SPINS = 300

export class Guests {
  readonly #sync: Sync
  readonly #watch = new Watch()
  /** KICK and the words of admitted threads. */
  readonly #words: Int32Array
  /** What T_GUEST is in a thread whose guest uses this table. */
  readonly #mark: number

  constructor(sync: Sync, words: Int32Array, mark: number) {
    this.#sync = sync
    this.#words = words
    this.#mark = mark
  }

  /** `admitted` has a bit for each word that is in use. → guests that had to be waited for. */
  wait(admitted: number): number {
    const sync = this.#sync
    if (admitted === 0 && !sync.isShared) return 0
    const words = this.#words
    Atomics.store(words, KICK, 1)
    try {
      let nrWaits = 0
      for (let slot = KICK + 1; slot < NR_GUEST_WORDS && admitted !== 0; slot++) {
        const inside = (admitted & (1 << slot)) === 0 ? OUTSIDE : Atomics.load(words, slot)
        if (inside !== OUTSIDE && this.#outlast(words, slot, inside, -1)) nrWaits++
      }
      const { threads } = sync
      for (let t = 0; t < threads.maxThreads && sync.isShared; t++) {
        if (t !== sync.me && this.#outlast(threads.w, threads.at(t, T_GUEST), this.#mark, t)) nrWaits++
      }
      return nrWaits
    } finally {
      Atomics.store(words, KICK, 0)
      Atomics.notify(words, KICK)
    }
  }

  /** Returns when the word is not `inside`, or whoever wrote it is no more. → whether it was. Throws BrokenMachine. */
  #outlast(words: Int32Array, at: number, inside: number, thread: number): boolean {
    if (Atomics.load(words, at) !== inside) return false
    const sync = this.#sync
    for (let spin = 0; spin < SPINS; spin++) if (Atomics.load(words, at) !== inside) return true
    const watch = this.#watch
    watch.begin()
    while (Atomics.load(words, at) === inside) {
      if (sync.broken !== 0) throw new BrokenMachine(sync.broken)
      if (thread >= 0 && !sync.isAttached(thread)) break
      const isLong = watch.look() > sync.patienceMs
      if (watch.isTime()) {
        // Nobody else writes an admitted thread's word once it is gone: the next one that waits is not to ask again.
        if (thread < 0 && sync.hasSystemThreadEnded(inside - 1)) Atomics.compareExchange(words, at, inside, OUTSIDE)
        else if (sync.hasEnded(thread)) break
      }
      if (isLong && !this.#isAlive(inside, thread)) sync.declareBroken(EOWNERDEAD)
      else if (sync.maySleep) Atomics.wait(words, at, inside, SLICE_MS)
    }
    return true
  }

  #isAlive(inside: number, thread: number): boolean {
    return thread < 0 ? this.#sync.hasSystemThreadEnded(inside - 1) === false : this.#sync.isAlive(thread)
  }
}
