/**
 * The thread table: one row for each thread that is attached to a machine, and the words that all of them share.
 *
 * A row says what its thread holds, in words that change only under the machine lock. So when a thread dies, the others
 * can give back what it held, unless it held the machine lock itself: then nothing is known of the tables, and the
 * machine is broken.
 *
 *   free --attach--> attached --detach--> free
 *                       |  ^
 *                       |  +-- its slot is taken again
 *                       +-- its end was noticed: dead --what it held is given back--> free
 *
 * Four cache lines a row. The second one begins with the hazard word, which its thread writes at every store through an
 * accessor, as it does T_CHANGES at every load; nothing else may lie beside them that others read often. The fourth one
 * is for what is seldom looked at.
 */
import type { Arena } from '../base/arena.ts'

/** Most threads of one machine: a thread's number + 1 fits into the low byte of the machine lock's word. */
export const MAX_THREADS = 64 as const

export const THREAD_SHIFT = 6 as const

export const THREAD_FREE = 0 as const
export const THREAD_ATTACHED = 1 as const
export const THREAD_DEAD = 2 as const

/** THREAD_*. */
export const T_STATE = 0 as const
/** Grows each time the machine lock is taken and a store comes back: a sign of life. */
export const T_PROGRESS = 1 as const
/** 1 while the thread is in a store, or copies, with the machine lock given back as a rule. */
export const T_IN_IO = 2 as const
/** The address space whose mmap lock it holds, and how. */
export const T_MMAP = 3 as const
export const T_MMAP_MODE = 4 as const
/** The inode whose lock it holds. */
export const T_INODE = 5 as const
/** Locked or written pages: inode, first file page, how many; and what for. */
export const T_IO_INODE = 6 as const
export const T_IO_FIRST = 7 as const
export const T_IO_PAGES = 8 as const
export const T_IO_KIND = 9 as const
/** The platform's number for the thread (Node: `threadId`), -1 when unknown. */
export const T_PLATFORM_ID = 10 as const
/** How often it had to wait for the machine lock, for another lock or page, and how often a read was repeated. */
export const T_LOCK_WAITS = 11 as const
export const T_WAITS = 12 as const
export const T_RETRIES = 13 as const
/** The thread whose pages it sleeps for (a pager), + 1; 0 for none. */
export const T_PAGER = 14 as const
/** 1 while it is counted in S_STARVING. */
export const T_STARVING = 15 as const
/** Frame that a store through an accessor is going to, + 1; 0 between stores. */
export const T_HAZARD = 16 as const
/** Frames that it has pinned for a bulk copy: the first one and how many, negative when it stores to them. */
export const T_RUN_FIRST = 17 as const
export const T_RUN_PAGES = 18 as const
/**
 * Frames that it has pinned for views, negative for those that it may store to, 0 for none; those that find no room
 * here stay pinned if the thread dies.
 */
export const T_PINS = 19 as const
export const NR_RECORDED_PINS = 11 as const
/**
 * Grows whenever a frame is given back or a call has changed entries: what the thread loaded across a change it loads
 * again.
 */
export const T_CHANGES = 30 as const
/**
 * Id of the secondary MMU whose guest runs in this thread, 0 while none does: who clears translations waits
 * (mmu/guests).
 */
export const T_GUEST = 31 as const
/**
 * Frames that it keeps for the next pages that it reads, pinned: the first `T_NR_RESERVED` of these words, the others
 * are 0.
 */
export const T_RESERVE = 32 as const
export const NR_RESERVE = 8 as const
export const T_NR_RESERVED = 40 as const
/** The open file that it holds for the call it is in. */
export const T_FILE = 41 as const

/** The operating system's number for the thread, 0 where it is not known, and when it started (`Sync.hasEnded`). */
export const T_OS_THREAD = 48 as const
export const T_OS_START = 49 as const
/** The inode whose write lock it holds. */
export const T_WRITES = 50 as const
/** How often it found the machine lock taken, and how often it tried again before it had it or went to sleep. */
export const T_LOCK_CONTENDED = 51 as const
export const T_LOCK_TRIES = 52 as const
/**
 * The first inode of those that nobody has open any more and that it has yet to write, close and free
 * (`inodes.goingNext`).
 */
export const T_GOING = 53 as const
/**
 * The frame that it writes to the swap area, and the slot if that is known to nobody else yet (shared memory); 0 for
 * none.
 */
export const T_OUT_FRAME = 54 as const
export const T_OUT_SLOT = 55 as const

/** Its number in the line for frames (sync/frame-line), 0 if it needs none, and 1 while it waits for one. */
export const T_TICKET = 56 as const
export const T_IN_LINE = 57 as const

export const IO_NONE = 0 as const
export const IO_FILL = 1 as const
export const IO_WRITEBACK = 2 as const
/** A swap slot: `T_IO_FIRST`, of inode 0. */
export const IO_SWAP_IN = 3 as const
/** A page on its way to a swap slot: `T_OUT_FRAME`. */
export const IO_SWAP_OUT = 4 as const

/** Words of the shared block: the machine lock alone on its line, then what is read often, then what is not. */
export const S_LOCK = 0 as const
/** Threads that the machine lock was kept from for long; the others let them go first. */
export const S_STARVING = 1 as const
/**
 * The first thread of those that wait for a frame, + 1; how often frames could be had since there is one; numbers given
 * so far.
 */
export const S_LINE = 2 as const
export const S_ROOM = 3 as const
export const S_TICKETS = 4 as const
/** 0, or why the machine is broken (an errno). */
export const S_BROKEN = 32 as const
/** 1 while the machine is open. */
export const S_OPEN = 33 as const
export const S_QUEUES = 48 as const
export const NR_QUEUES = 64 as const
/** How many sleep in each queue. */
export const S_SLEEPERS: number = S_QUEUES + NR_QUEUES
export const NR_SYNC_WORDS: number = S_SLEEPERS + NR_QUEUES

export class ThreadTable {
  readonly w: Int32Array
  readonly maxThreads: number

  constructor(columns: Pick<Arena, 'int32'>, maxThreads: number) {
    this.maxThreads = maxThreads
    this.w = columns.int32('threads', maxThreads << THREAD_SHIFT)
  }

  at(thread: number, word: number): number {
    return (thread << THREAD_SHIFT) + word
  }

  /** Takes a free row, all zero. → its number, or -1 when there is none. */
  attach(platformId: number): number {
    for (let t = 0; t < this.maxThreads; t++) {
      if (Atomics.compareExchange(this.w, this.at(t, T_STATE), THREAD_FREE, THREAD_ATTACHED) !== THREAD_FREE) continue
      const at = this.at(t, 0)
      this.w.fill(0, at + 1, at + (1 << THREAD_SHIFT))
      Atomics.store(this.w, at + T_PLATFORM_ID, platformId)
      return t
    }
    return -1
  }

  /**
   * The attached thread with this platform's number has ended. False when another thread has said so, or it has another
   * row.
   */
  declareDead(thread: number, platformId: number): boolean {
    const at = this.at(thread, 0)
    if (this.w[at + T_PLATFORM_ID] !== platformId) return false
    return Atomics.compareExchange(this.w, at + T_STATE, THREAD_ATTACHED, THREAD_DEAD) === THREAD_ATTACHED
  }

  /** The attached thread with a platform's number, or -1; also for -1, which is that of every thread without one. */
  find(platformId: number): number {
    if (platformId < 0) return -1
    for (let t = 0; t < this.maxThreads; t++) {
      const at = this.at(t, 0)
      if (Atomics.load(this.w, at + T_STATE) === THREAD_ATTACHED && this.w[at + T_PLATFORM_ID] === platformId) return t
    }
    return -1
  }

  /** How many threads hold an open file for the call that they are in. */
  holdersOfFile(file: number): number {
    let n = 0
    for (let t = 0; t < this.maxThreads; t++) if (this.w[this.at(t, T_FILE)] === file) n++
    return n
  }

  /** Whether some thread writes the frame to the swap area. */
  writes(frame: number): boolean {
    return this.#some(T_OUT_FRAME, frame)
  }

  /** Whether some thread writes a page to the swap slot that nothing else knows yet. */
  writesTo(slot: number): boolean {
    return this.#some(T_OUT_SLOT, slot)
  }

  #some(word: number, value: number): boolean {
    for (let t = 0; t < this.maxThreads; t++) if (this.w[this.at(t, word)] === value) return true
    return false
  }

  /** Notes a pin of a thread, for whoever cleans up after it: the frame, negative if the thread may store to it. */
  notePin(thread: number, pin: number): void {
    this.#replacePin(thread, 0, pin)
  }

  forgetPin(thread: number, pin: number): void {
    this.#replacePin(thread, pin, 0)
  }

  #replacePin(thread: number, from: number, to: number): void {
    const first = this.at(thread, T_PINS)
    const at = this.w.subarray(first, first + NR_RECORDED_PINS).indexOf(from)
    if (at >= 0) this.w[first + at] = to
  }

  /** A thread's guest runs no more, whether it left it or not: whoever waits for that goes on. */
  endGuest(thread: number): void {
    const at = this.at(thread, T_GUEST)
    Atomics.store(this.w, at, 0)
    Atomics.notify(this.w, at)
  }

  /** The thread is gone and holds nothing. */
  free(thread: number): void {
    const at = this.at(thread, 0)
    this.w.fill(0, at + 1, at + (1 << THREAD_SHIFT))
    Atomics.store(this.w, this.at(thread, T_STATE), THREAD_FREE)
  }
}
