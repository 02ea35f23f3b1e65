/**
 * The line of threads that wait for a page frame: every frame that could be freed is being read into, written out or
 * copied by others, who will be done in a moment.
 *
 *  join      takes a place, by a number that grows: whoever has waited longest is first
 *  isFirst   the first one tries whenever a frame may be had (`noteRoom`)
 *  mustWait  the others let it go first, also those that come anew, while free frames are few: else a thread that is
 *            running takes what it has just given back, before one that sleeps has woken
 *  goOn      it has frames, and goes on to a store: the next one is first meanwhile; its number stays, should it need
 *            more
 *  leave     it needs none any more, or gives up
 *  keep      stays in the line over several verbs, until `release`: for an access that needs two pages at once
 *
 * Waiting for the first one has an end: others that work on pages go on with them, and when nobody does, the first one
 * fails (ENOMEM) and the next one is first. While it sleeps for anything else than a frame, it is not the first
 * (`Sync.waitFor`): whoever has that may be in the line behind it. Nobody lets others go first who has an mmap lock.
 *
 * Lock: machine lock.
 */
import {
  S_LINE,
  S_ROOM,
  S_TICKETS,
  T_IN_LINE,
  T_PROGRESS,
  T_TICKET,
  THREAD_SHIFT,
  type ThreadTable
} from './threads.ts'

/** So many waits that ended without any frame are enough. */
const MOST_FUTILE_WAITS = 100

export class FrameLine {
  readonly #words: Int32Array
  readonly #threads: ThreadTable
  readonly #me: number
  readonly #row: number
  readonly #wake: (thread: number) => void
  /** Whether this thread has a place in it. */
  isIn = false
  #room = 0
  #giver = -1
  #progress = 0
  #nrFutile = 0
  #isKept = false

  constructor(words: Int32Array, threads: ThreadTable, me: number, wake: (thread: number) => void) {
    this.#words = words
    this.#threads = threads
    this.#me = me
    this.#row = me << THREAD_SHIFT
    this.#wake = wake
  }

  /** The first thread's number, or -1. */
  get first(): number {
    return this.#words[S_LINE] - 1
  }

  get isFirst(): boolean {
    return this.first === this.#me
  }

  /** Whether this thread has to let another one go first. */
  mustWait(nrFree: number): boolean {
    const { first } = this
    if (first < 0 || first === this.#me || nrFree >= this.#threads.maxThreads) return false
    return !this.isIn || this.#isBefore(first, this.#me)
  }

  /** Takes a place, or the one that it had. */
  join(): void {
    const { w } = this.#threads
    if (!this.isIn) {
      this.isIn = true
      w[this.#row + T_TICKET] = ++this.#words[S_TICKETS]
      this.#nrFutile = 0
      this.#giver = -1
    }
    if (w[this.#row + T_IN_LINE] !== 0) return
    w[this.#row + T_IN_LINE] = 1
    const { first } = this
    if (first < 0 || this.#isBefore(this.#me, first)) this.#words[S_LINE] = this.#me + 1
  }

  /** Whether it is worth waiting for what `giver` is at: not if many such waits have ended without a frame. */
  isHopeful(giver: number): boolean {
    const room = this.#words[S_ROOM]
    const progress = this.#threads.w[(giver << THREAD_SHIFT) + T_PROGRESS]
    if (room !== this.#room) this.#nrFutile = 0
    else if (this.#giver >= 0 && (giver !== this.#giver || progress !== this.#progress)) this.#nrFutile++
    this.#room = room
    this.#giver = giver
    this.#progress = progress
    return this.#nrFutile < MOST_FUTILE_WAITS
  }

  /** Before it waits for something else. */
  stepOut(): void {
    if (this.isIn) this.#stepOut(this.#me)
  }

  /** Before a store is called, or pages are copied. */
  goOn(): void {
    if (this.isIn && !this.#isKept) this.#stepOut(this.#me)
  }

  keep(): void {
    this.#isKept = true
    this.join()
  }

  release(): void {
    this.#isKept = false
    this.leave()
  }

  leave(): void {
    if (!this.isIn || this.#isKept) return
    this.isIn = false
    this.forget(this.#me)
  }

  /** `leave` for a thread that has ended. */
  forget(thread: number): void {
    this.#stepOut(thread)
    this.#threads.w[(thread << THREAD_SHIFT) + T_TICKET] = 0
  }

  #stepOut(thread: number): void {
    const { w, maxThreads } = this.#threads
    w[(thread << THREAD_SHIFT) + T_IN_LINE] = 0
    if (this.first !== thread) return
    let next = -1
    for (let t = 0; t < maxThreads; t++) {
      if (w[(t << THREAD_SHIFT) + T_IN_LINE] !== 0 && (next < 0 || this.#isBefore(t, next))) next = t
    }
    this.#words[S_LINE] = next + 1
    if (next >= 0) this.#wake(next)
  }

  #isBefore(one: number, other: number): boolean {
    const { w } = this.#threads
    return ((w[(one << THREAD_SHIFT) + T_TICKET] - w[(other << THREAD_SHIFT) + T_TICKET]) | 0) < 0
  }
}
