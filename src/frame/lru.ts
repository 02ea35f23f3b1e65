/**
 * LRU lists: which data frames reclaim may take, oldest at the tail (Linux: mm/swap.c).
 *
 *   new --add--> inactive --referenced twice--> active --aged--> inactive --taken--> free
 *                     locked or of a kind that stays --> unevictable
 *
 * In a large memory of several threads, a thread puts a batch of pages next to each other before it looks at the head
 * of the list again: the head, and the page that is there, are what the threads would pass to and fro (Linux adds pages
 * in batches, too). The order is exact but for the batch.
 *
 * A frame is on a list exactly when PG_LRU is set; PG_ACTIVE, PG_SWAPBACKED and PG_UNEVICTABLE say which one.
 */
import { Lists } from '../base/lists.ts'
import type { Sync } from '../sync/sync.ts'
import {
  type ColumnSource,
  F_FLAGS,
  F_LRU_NEXT,
  F_LRU_PREV,
  FRAME_SHIFT,
  type FrameTable,
  PG_ACTIVE,
  PG_LRU,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_UNEVICTABLE
} from './frame-table.ts'

export const LRU_INACTIVE_ANON = 0 as const
export const LRU_ACTIVE_ANON = 1 as const
export const LRU_INACTIVE_FILE = 2 as const
export const LRU_ACTIVE_FILE = 3 as const
export const LRU_UNEVICTABLE = 4 as const
export const NR_LRU = 5 as const
export const LRU_WORDS: number = Lists.words(NR_LRU)

export class Lru {
  readonly lists: Lists
  readonly #w: Int32Array
  readonly #batch: number
  /** The page that this thread's batch is behind, and how many more may go there. */
  #near = 0
  #left = 0

  /**
   * `ends` has LRU_WORDS words. `batch`: how many pages a thread puts behind one that it has put at the head; 0 for
   * exact order.
   */
  constructor(columns: ColumnSource, frames: FrameTable, ends: Int32Array, sync: Sync, batch: number) {
    const counts = columns.int32('lru', Lists.countWords(NR_LRU, sync.threads.maxThreads))
    this.#w = frames.w
    this.#batch = batch
    this.lists = new Lists(frames.w, FRAME_SHIFT, F_LRU_NEXT, F_LRU_PREV, ends, counts, sync.me)
  }

  count(list: number): number {
    return this.lists.count(list)
  }

  listOf(frame: number): number {
    const flags = this.#w[(frame << FRAME_SHIFT) + F_FLAGS]
    if ((flags & PG_UNEVICTABLE) !== 0) return LRU_UNEVICTABLE
    return ((flags & PG_SWAPBACKED) === 0 ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON) + ((flags & PG_ACTIVE) === 0 ? 0 : 1)
  }

  /** Puts a frame at the young end of the list that its flags say. */
  add(frame: number): void {
    const list = this.listOf(frame)
    // Before the frame is listed itself: it may be the one that the last batch began with.
    const isNear = this.#left > 0 && this.#isListed(this.#near) && this.listOf(this.#near) === list
    this.#change(frame, 0, PG_LRU)
    if (isNear) {
      this.#left--
      this.lists.addAfter(list, this.#near, frame)
      return
    }
    this.lists.addHead(list, frame)
    this.#near = frame
    this.#left = this.#batch
  }

  /** Puts a frame at the old end: the next to be taken. */
  addOld(frame: number): void {
    this.#change(frame, 0, PG_LRU)
    this.lists.addTail(this.listOf(frame), frame)
  }

  /** Takes a frame off its list. It must be on one. */
  remove(frame: number): void {
    this.lists.remove(this.listOf(frame), frame)
    this.#change(frame, PG_LRU, 0)
  }

  setActive(frame: number): void {
    this.remove(frame)
    this.#change(frame, PG_REFERENCED, PG_ACTIVE)
    this.add(frame)
  }

  setInactive(frame: number): void {
    this.remove(frame)
    this.#change(frame, PG_ACTIVE | PG_REFERENCED, 0)
    this.add(frame)
  }

  setUnevictable(frame: number): void {
    if (this.#isListed(frame)) this.remove(frame)
    this.#change(frame, PG_ACTIVE, PG_UNEVICTABLE)
    this.add(frame)
  }

  setEvictable(frame: number): void {
    if (this.#isListed(frame)) this.remove(frame)
    this.#change(frame, PG_UNEVICTABLE | PG_ACTIVE, 0)
    this.add(frame)
  }

  /** The page must not be dropped but swapped out from now on. */
  setSwapBacked(frame: number): void {
    const listed = this.#isListed(frame)
    if (listed) this.remove(frame)
    this.#change(frame, 0, PG_SWAPBACKED)
    if (listed) this.add(frame)
  }

  /** A use that no page-table entry records, such as read(): twice makes the page active. */
  markAccessed(frame: number): void {
    const flags = this.#w[(frame << FRAME_SHIFT) + F_FLAGS]
    if ((flags & (PG_REFERENCED | PG_ACTIVE | PG_UNEVICTABLE)) === PG_REFERENCED && (flags & PG_LRU) !== 0) {
      this.setActive(frame)
    } else this.#change(frame, 0, PG_REFERENCED)
  }

  #isListed(frame: number): boolean {
    return (this.#w[(frame << FRAME_SHIFT) + F_FLAGS] & PG_LRU) !== 0
  }

  #change(frame: number, clear: number, set: number): void {
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    this.#w[at] = (this.#w[at] & ~clear) | set
  }
}
