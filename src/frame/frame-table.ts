/**
 * The frame table: one row for each page frame, kept as columns (Linux: struct page).
 *
 * flags word          read with                        written with
 *  bits 0-15  PG_*     `flags[f] & PG_X`                `flags[f] |= PG_X`, `flags[f] &= ~PG_X`
 *  bits 16-29 pins     `flags[f] >>> PIN_SHIFT`         `pin`, `unpin`
 *
 * Column            file or shared page        anonymous page         page table            rmap slab
 *  mapcount         ptes that map it           the same               entries not none      nodes in use
 *  mapping          inode                      0 (swap cache) or -1   mm                    -
 *  index            file page                  swap slot or -1        first vpn covered     first free node
 *  rmapHead         first reverse-map node     the same               word of parent entry  -
 *  lruNext/lruPrev  LRU list                   LRU list               -                     partial slabs
 *  cacheNext        hash chain                 hash chain (swap)      level (0 = leaf)      -
 *  ownNext/ownPrev  list of the inode's pages  -                      -                     -
 *
 * That is 40 bytes a frame. Life of a data frame:
 *
 *   free --alloc--> private to its allocator --insert in cache / map--> in use --last of (cache, ptes, pins)--> free
 */
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

export const PIN_SHIFT = 16 as const
export const PIN_ONE: number = 1 << PIN_SHIFT
export const MAX_PINS = 0x3fff as const

/** What `mapping` says for an anonymous page outside the swap cache. */
export const MAPPING_ANON = -1 as const

/** A structural view of `Arena`, so that rooms take columns without caring where they lie. */
export interface ColumnSource {
  int32(name: string, length: number): Int32Array
  float64(name: string, length: number): Float64Array
}

export class FrameTable {
  readonly flags: Int32Array
  readonly mapcount: Int32Array
  readonly mapping: Int32Array
  readonly index: Int32Array
  readonly rmapHead: Int32Array
  readonly lruNext: Int32Array
  readonly lruPrev: Int32Array
  readonly cacheNext: Int32Array
  readonly ownNext: Int32Array
  readonly ownPrev: Int32Array

  constructor(columns: ColumnSource, nrFrames: number) {
    this.flags = columns.int32('frame table', nrFrames)
    this.mapcount = columns.int32('frame table', nrFrames)
    this.mapping = columns.int32('frame table', nrFrames)
    this.index = columns.int32('frame table', nrFrames)
    this.rmapHead = columns.int32('frame table', nrFrames)
    this.lruNext = columns.int32('frame table', nrFrames)
    this.lruPrev = columns.int32('frame table', nrFrames)
    this.cacheNext = columns.int32('frame table', nrFrames)
    this.ownNext = columns.int32('frame table', nrFrames)
    this.ownPrev = columns.int32('frame table', nrFrames)
  }

  pins(frame: number): number {
    return this.flags[frame] >>> PIN_SHIFT
  }

  /** Keeps the frame from being reused until `unpin`. False when it already has MAX_PINS. */
  pin(frame: number): boolean {
    if (this.flags[frame] >>> PIN_SHIFT >= MAX_PINS) return false
    this.flags[frame] += PIN_ONE
    return true
  }

  unpin(frame: number): void {
    this.flags[frame] -= PIN_ONE
  }

  /** True when nothing holds the frame any more: not cached, not mapped, not pinned, not locked. */
  isUnused(frame: number): boolean {
    const flags = this.flags[frame]
    return (flags & (PG_CACHED | PG_LOCKED)) === 0 && flags >>> PIN_SHIFT === 0 && this.mapcount[frame] === 0
  }
}
