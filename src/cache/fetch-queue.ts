/**
 * Pages that stores which answer later are asked for: a ring of requests in shared memory, and of what became of those
 * that failed.
 *
 * Whoever misses such a page enters it in the cache, locked and without contents, and pushes a request. The store's
 * pager (mm/pager.ts; the thread that has the store) takes requests, joins neighbours, reads, and unlocks the pages. A
 * page that could not be had leaves the cache, and the failure is noted here for those who waited for it.
 *
 * Lock: machine lock, but for the bell.
 */
import { readText, textUnits, writeText } from '../base/text.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import { MAX_THREADS } from '../sync/threads.ts'

const NR_REQUESTS = 1024
const REQUEST_WORDS = 3
const NR_FAILURES = 64
const FAILURE_WORDS = 5
const TEXT_WORDS = 128

const Q_HEAD = 0
const Q_TAIL = 1
const Q_FAILURES = 2
/** Grows with each request; pagers sleep on it. */
export const Q_BELL = 3 as const
/** Grows whenever pages were delivered or given up; who waits without blocking sleeps on it. */
export const Q_SETTLED = 4 as const
/** Pages that are on their way, of all pagers. */
const Q_UNDER_WAY = 5

export class FetchQueue {
  readonly state: Int32Array
  readonly #ring: Int32Array
  readonly #failures: Int32Array
  readonly #texts: Int32Array
  /** What each thread's pager has for buffers, in units of 512 bytes. */
  readonly #buffers: Int32Array
  /** Result of the last `shift`. */
  inode = 0
  first = 0
  pages = 0
  #onPush: (() => void) | undefined

  constructor(columns: ColumnSource) {
    this.#ring = columns.int32('fetch queue', NR_REQUESTS * REQUEST_WORDS)
    this.#failures = columns.int32('fetch queue', NR_FAILURES * FAILURE_WORDS)
    this.#texts = columns.int32('fetch queue', NR_FAILURES * TEXT_WORDS)
    this.#buffers = columns.int32('fetch queue', MAX_THREADS)
    this.state = columns.int32('fetch queue', 8)
  }

  /** Called after each push in this thread: its own pager need not be woken through shared memory. */
  setOnPush(hook: (() => void) | undefined): void {
    this.#onPush = hook
  }

  get length(): number {
    return this.state[Q_TAIL] - this.state[Q_HEAD]
  }

  /** Pages that are on their way: locked frames, which nobody can have meanwhile. */
  get nrUnderWay(): number {
    return this.state[Q_UNDER_WAY]
  }

  noteUnderWay(delta: number): void {
    this.state[Q_UNDER_WAY] += delta
  }

  /** What pagers have for buffers, beside the frames. */
  get bufferBytes(): number {
    return this.#buffers.reduce((sum, units) => sum + units, 0) * 512
  }

  /** A thread's buffers are more, or fewer; written by that thread alone, while it lives. */
  noteBuffers(thread: number, deltaBytes: number): void {
    this.#buffers[thread] += deltaBytes / 512
  }

  forgetBuffers(thread: number): void {
    this.#buffers[thread] = 0
  }

  get isFull(): boolean {
    return this.length >= NR_REQUESTS
  }

  /** Asks for pages [first, first + pages) of an inode. The ring is not full. */
  push(inode: number, first: number, pages: number): void {
    const at = (this.state[Q_TAIL] % NR_REQUESTS) * REQUEST_WORDS
    this.#ring[at] = inode
    this.#ring[at + 1] = first
    this.#ring[at + 2] = pages
    this.state[Q_TAIL]++
    this.ring()
  }

  /**
   * Takes the oldest request for which `isMine(inode)` holds into `inode`, `first`, `pages`. False when there is none.
   * Requests taken from the middle leave an empty one, of no pages.
   */
  shift(isMine: (inode: number) => boolean): boolean {
    const { state } = this
    for (let n = state[Q_HEAD]; n < state[Q_TAIL]; n++) {
      const at = (n % NR_REQUESTS) * REQUEST_WORDS
      if (this.#ring[at + 2] === 0 || !isMine(this.#ring[at])) continue
      this.inode = this.#ring[at]
      this.first = this.#ring[at + 1]
      this.pages = this.#ring[at + 2]
      this.#ring[at + 2] = 0
      this.#trim()
      return true
    }
    return false
  }

  /** Forgets what was asked of an inode whose pages nobody will bring. */
  drop(inode: number): void {
    const { state } = this
    for (let n = state[Q_HEAD]; n < state[Q_TAIL]; n++) {
      const at = (n % NR_REQUESTS) * REQUEST_WORDS
      if (this.#ring[at] === inode) this.#ring[at + 2] = 0
    }
    this.#trim()
  }

  #trim(): void {
    const { state } = this
    while (state[Q_HEAD] < state[Q_TAIL] && this.#ring[(state[Q_HEAD] % NR_REQUESTS) * REQUEST_WORDS + 2] === 0) {
      state[Q_HEAD]++
    }
    if (state[Q_HEAD] === state[Q_TAIL]) {
      state[Q_HEAD] = 0
      state[Q_TAIL] = 0
    }
  }

  /** Wakes the pagers, which look at their stores again: one may be closed. */
  ring(): void {
    Atomics.add(this.state, Q_BELL, 1)
    Atomics.notify(this.state, Q_BELL)
    this.#onPush?.()
  }

  /** Tells those who wait without blocking that pages came, or will not come. */
  settled(): void {
    Atomics.add(this.state, Q_SETTLED, 1)
    Atomics.notify(this.state, Q_SETTLED)
  }

  /** Failures noted so far. */
  get nrFailures(): number {
    return this.state[Q_FAILURES]
  }

  /** Pages [first, first + pages) could not be had, and why in words. → the failure's number. */
  fail(inode: number, first: number, pages: number, errno: number, why: string): number {
    const nr = this.state[Q_FAILURES]++
    const at = (nr % NR_FAILURES) * FAILURE_WORDS
    this.#failures[at] = nr
    this.#failures[at + 1] = inode
    this.#failures[at + 2] = first
    this.#failures[at + 3] = pages
    this.#failures[at + 4] = errno
    writeText(this.#texts, (nr % NR_FAILURES) * TEXT_WORDS, why.slice(0, textUnits(TEXT_WORDS)))
    return nr
  }

  /** The number of a failure of this page that was noted after the first `since`, or -1. Old ones are forgotten. */
  failureSince(since: number, inode: number, index: number): number {
    const end = this.state[Q_FAILURES]
    for (let nr = Math.max(since, end - NR_FAILURES); nr < end; nr++) {
      const at = (nr % NR_FAILURES) * FAILURE_WORDS
      const offset = index - this.#failures[at + 2]
      if (this.#failures[at + 1] === inode && offset >= 0 && offset < this.#failures[at + 3]) return nr
    }
    return -1
  }

  /** A failure in words, '' when it had none or is forgotten. */
  whyOf(nr: number): string {
    if (this.#failures[(nr % NR_FAILURES) * FAILURE_WORDS] !== nr) return ''
    return readText(this.#texts, (nr % NR_FAILURES) * TEXT_WORDS)
  }

  errnoOf(nr: number): number {
    return this.#failures[(nr % NR_FAILURES) * FAILURE_WORDS + 4]
  }
}
