/**
 * LRU lists: which data frames reclaim may take, oldest at the tail (Linux: mm/swap.c).
 *
 *   new --add--> inactive --referenced twice--> active --aged--> inactive --taken--> free
 *                     locked or of a kind that stays --> unevictable
 *
 * A frame is on a list exactly when PG_LRU is set; PG_ACTIVE, PG_SWAPBACKED and PG_UNEVICTABLE say which one.
 */
import { Lists } from '../base/lists.ts'
import {
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

  /** `ends` has LRU_WORDS words. */
  constructor(frames: FrameTable, ends: Int32Array) {
    this.#w = frames.w
    this.lists = new Lists(frames.w, FRAME_SHIFT, F_LRU_NEXT, F_LRU_PREV, ends)
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
    this.#change(frame, 0, PG_LRU)
    this.lists.addHead(this.listOf(frame), frame)
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
