/**
 * The frame table: one row of words for each page frame (Linux: struct page).
 *
 * Read `frames.row(f, F_X)`, in hot code `frames.w[(f << FRAME_SHIFT) + F_X]`; write the latter. A row is 32 bytes, so
 * it lies in one cache line: mapping and unmapping a random page touches one line of the table. Only the links of an
 * inode's list of pages, which change when a page comes, goes, or gets dirty, are apart: `frames.own[(f << OWN_SHIFT) +
 * OWN_X]`. Against a column for each word, over 2 GiB on a Xeon with 2 MiB of L2: a fault in random order takes a tenth
 * less; what reads three words or fewer (a remap that does not populate, unmapping in order) a tenth more, or even a
 * third.
 *
 * flags word          read with                  written with
 *  bits 0-16  PG_*     `flags & PG_X`             `w[row + F_FLAGS] |= PG_X`, `w[row + F_FLAGS] &= ~PG_X`
 *  bits 17-29 pins     `flags >>> PIN_SHIFT`      `pin`, `unpin`
 *
 * Word              file or shared page        anonymous page         page table            rmap slab
 *  F_MAPCOUNT       ptes that map it           the same               entries not none      nodes in use
 *  F_MAPPING        inode                      0 (swap cache) or -1   mm                    -
 *  F_INDEX          file page                  swap slot or -1        first vpn covered     first free node
 *  F_RMAP_HEAD      first reverse-map node     the same               word of parent entry  -
 *  F_CACHE_NEXT     hash chain                 hash chain (swap)      level (0 = leaf)      -
 *  F_LRU_NEXT/PREV  LRU list                   LRU list               -                     partial slabs
 *  OWN_NEXT/PREV    list of the inode's pages  -                      -                     -
 *
 * That is 40 bytes a frame. Life of a data frame:
 *
 *   free --alloc--> private to its allocator --insert in cache / map--> in use --last of (cache, ptes, pins)--> free
 */
export const FRAME_SHIFT = 3 as const
export const F_FLAGS = 0 as const
export const F_MAPCOUNT = 1 as const
export const F_MAPPING = 2 as const
export const F_INDEX = 3 as const
export const F_RMAP_HEAD = 4 as const
export const F_CACHE_NEXT = 5 as const
export const F_LRU_NEXT = 6 as const
export const F_LRU_PREV = 7 as const

export const OWN_SHIFT = 1 as const
export const OWN_NEXT = 0 as const
export const OWN_PREV = 1 as const

export const PG_LOCKED = 1 as const
export const PG_UPTODATE = 2 as const
export const PG_DIRTY = 4 as const
export const PG_WRITEBACK = 8 as const
export const PG_REFERENCED = 0x10 as const
export const PG_ACTIVE = 0x20 as const
export const PG_LRU = 0x40 as const
/** Found in a locked vma, or of a kind that is never evicted: on the unevictable list. */
export const PG_UNEVICTABLE = 0x80 as const
export const PG_SWAPBACKED = 0x100 as const
export const PG_ANON = 0x200 as const
/** Counted in `nrMlocked`. */
export const PG_MLOCKED = 0x400 as const
/** Brought in by readahead and not asked for yet. */
export const PG_READAHEAD = 0x800 as const
export const PG_TABLE = 0x1000 as const
export const PG_SLAB = 0x2000 as const
export const PG_RESERVED = 0x4000 as const
/** In the page cache, or the swap cache for an anonymous page. */
export const PG_CACHED = 0x8000 as const
/** An anonymous page that no other address space can map or bring back from swap (Linux: PageAnonExclusive). */
export const PG_EXCLUSIVE = 0x10000 as const

export const PIN_SHIFT = 17 as const
export const PIN_ONE: number = 1 << PIN_SHIFT
export const MAX_PINS = 0x1fff as const

/** What `mapping` says for an anonymous page outside the swap cache. */
export const MAPPING_ANON = -1 as const

/** A structural view of `Arena`, so that rooms take columns without caring where they lie. */
export interface ColumnSource {
  int32(name: string, length: number): Int32Array
  float64(name: string, length: number): Float64Array
}

export class FrameTable {
  readonly w: Int32Array
  readonly own: Int32Array

  constructor(columns: ColumnSource, nrFrames: number) {
    this.w = columns.int32('frame table', nrFrames << FRAME_SHIFT)
    this.own = columns.int32('frame table', nrFrames << OWN_SHIFT)
  }

  row(frame: number, word: number): number {
    return this.w[(frame << FRAME_SHIFT) + word]
  }

  pins(frame: number): number {
    return this.w[(frame << FRAME_SHIFT) + F_FLAGS] >>> PIN_SHIFT
  }

  /** Keeps the frame from being reused until `unpin`. False when it already has MAX_PINS. */
  pin(frame: number): boolean {
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    if (this.w[at] >>> PIN_SHIFT >= MAX_PINS) return false
    this.w[at] += PIN_ONE
    return true
  }

  unpin(frame: number): void {
    this.w[(frame << FRAME_SHIFT) + F_FLAGS] -= PIN_ONE
  }

  /** Whether the frame has the contents of its page: false while they are on their way from the store. */
  isUptodate(frame: number): boolean {
    return (this.w[(frame << FRAME_SHIFT) + F_FLAGS] & PG_UPTODATE) !== 0
  }

  isDirty(frame: number): boolean {
    return (this.w[(frame << FRAME_SHIFT) + F_FLAGS] & PG_DIRTY) !== 0
  }

  /** Whether the page is neither on its way from a store nor to one. */
  isAtRest(frame: number): boolean {
    return (this.w[(frame << FRAME_SHIFT) + F_FLAGS] & (PG_UPTODATE | PG_WRITEBACK)) === PG_UPTODATE
  }

  /** True when nothing holds the frame any more: not cached, not mapped, not pinned, not locked. */
  isUnused(frame: number): boolean {
    const row = frame << FRAME_SHIFT
    const flags = this.w[row + F_FLAGS]
    return (
      (flags & (PG_CACHED | PG_LOCKED | PG_WRITEBACK)) === 0 &&
      flags >>> PIN_SHIFT === 0 &&
      this.w[row + F_MAPCOUNT] === 0
    )
  }
}
