/**
 * The rows of address spaces (Linux: struct mm_struct): page-table root, counters, and the words that the rooms
 * above keep for each address space. Row 0 is not used; a row is free while MM_ALIVE is 0.
 *
 * Read `row(mm, MM_X)`, write `mms.w[(mm << MM_SHIFT) + MM_X]`.
 */
import type { ColumnSource } from './frame-table.ts'

export const MM_SHIFT = 5 as const

/** 0 free, 1 in use. */
export const MM_ALIVE = 0 as const
/** Grows each time the row is given away, so that a stale handle is told from its successor. */
export const MM_GENERATION = 1 as const
/** Frame of the top page table, 0 for none, and the levels below and with it. */
export const MM_ROOT = 2 as const
export const MM_HEIGHT = 3 as const
/** Frames used for page tables. */
export const MM_NR_TABLES = 4 as const
/** Present ptes of file and shared pages; of anonymous pages; swap ptes. */
export const MM_FILEPAGES = 30 as const
export const MM_ANONPAGES = 31 as const
export const MM_SWAPENTS = 7 as const
/** High-water mark of file + anonymous pages. */
export const MM_HIWATER_RSS = 8 as const
/** Pages in locked vmas (VmLck), in all vmas (VmSize), and the high-water mark of that. */
export const MM_LOCKED_VM = 9 as const
export const MM_TOTAL_VM = 10 as const
export const MM_HIWATER_VM = 11 as const
export const MM_MAP_COUNT = 12 as const
/** Root of the vma tree, first vma by address, last vma found. */
export const MM_VMA_ROOT = 13 as const
export const MM_VMA_FIRST = 14 as const
export const MM_VMA_CACHE = 15 as const
/** VM_LOCKED after mlockall(MCL_FUTURE). */
export const MM_DEF_FLAGS = 16 as const
/** Heap: first page, and end in pages and bytes within the page. */
export const MM_START_BRK = 17 as const
export const MM_BRK_PAGE = 18 as const
export const MM_BRK_OFF = 19 as const
/** Ranges being invalidated now; and a number that grows with each that ends and each page invalidated alone. */
export const MM_NOTIFY_COUNT = 20 as const
export const MM_NOTIFY_SEQ = 21 as const
/** The mmap lock: 0 free, -1 taken for writing, else the number of readers. Changed under the machine lock. */
export const MM_MMAP_LOCK = 22 as const
/** Where the search for free address space begins. */
export const MM_FREE_HINT = 23 as const
/** Faults that needed no I/O; that did. */
export const MM_MIN_FLT = 24 as const
export const MM_MAJ_FLT = 25 as const
/** Limits in pages, or -1: locked memory and address space. */
export const MM_RLIMIT_MEMLOCK = 26 as const
export const MM_RLIMIT_AS = 27 as const

/** Threads that wait to take the mmap lock for writing: new readers wait for them. Outlives the address space. */
export const MM_WAITING_WRITERS = 28 as const
/** Grows when a leaf page table is given back: what threads remember of tables holds no longer. */
export const MM_TABLE_SEQ = 29 as const

export class MmTable {
  readonly w: Int32Array
  readonly maxMms: number

  constructor(columns: ColumnSource, maxMms: number) {
    this.maxMms = maxMms
    this.w = columns.int32('address spaces', (maxMms + 1) << MM_SHIFT)
  }

  row(mm: number, word: number): number {
    return this.w[(mm << MM_SHIFT) + word]
  }

  isAlive(mm: number): boolean {
    return this.w[(mm << MM_SHIFT) + MM_ALIVE] !== 0
  }

  /** Raises the high-water mark of resident pages to what is resident now. */
  updateHiwaterRss(mm: number): void {
    const at = mm << MM_SHIFT
    const rss = this.w[at + MM_FILEPAGES] + this.w[at + MM_ANONPAGES]
    if (rss > this.w[at + MM_HIWATER_RSS]) this.w[at + MM_HIWATER_RSS] = rss
  }

  /** A free row, set to zero but for its generation, or 0. */
  alloc(): number {
    for (let mm = 1; mm <= this.maxMms; mm++) {
      const at = mm << MM_SHIFT
      if (this.w[at + MM_ALIVE] !== 0) continue
      // Other threads look at the generation and at the words that outlive an address space, also while this goes on.
      this.w[at + MM_GENERATION]++
      this.w.fill(0, at + MM_ROOT, at + MM_WAITING_WRITERS)
      this.w[at + MM_ALIVE] = 1
      this.w[at + MM_RLIMIT_MEMLOCK] = -1
      this.w[at + MM_RLIMIT_AS] = -1
      return mm
    }
    return 0
  }

  free(mm: number): void {
    this.w[(mm << MM_SHIFT) + MM_ALIVE] = 0
  }
}
