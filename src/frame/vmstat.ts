/** What the machine counts (Linux: /proc/vmstat), as doubles so that a long life does not overflow. */
import type { ColumnSource } from './frame-table.ts'

export const PGFAULT = 0 as const
export const PGMAJFAULT = 1 as const
/** Pages read from stores, and by how many reads. */
export const PGPGIN = 2 as const
export const STORE_READS = 3 as const
/** Pages written to stores, and by how many writes. */
export const PGPGOUT = 4 as const
export const STORE_WRITES = 5 as const
export const STORE_FLUSHES = 6 as const
/** Pages taken from their users by reclaim. */
export const PGSTEAL = 7 as const
/** Pages that reclaim looked at. */
export const PGSCAN = 8 as const
export const PGACTIVATE = 9 as const
export const PSWPIN = 10 as const
export const PSWPOUT = 11 as const
/** Pages brought in before they were asked for, and those of them that were asked for later. */
export const READAHEAD_PAGES = 12 as const
export const READAHEAD_HITS = 13 as const
export const COW_COPIES = 14 as const
export const FAULT_AROUND_PAGES = 15 as const
export const REMAP_CALLS = 16 as const
export const REMAP_PAGES = 17 as const
export const NR_DIRTY = 18 as const
export const NR_MLOCK = 19 as const
export const NR_FILE_PAGES = 20 as const
export const NR_ANON_PAGES = 21 as const
export const NR_SHMEM = 22 as const
export const READ_ERRORS = 23 as const
export const WRITE_ERRORS = 24 as const
/**
 * Writes of stores and of the swap area that reclaim made, and those that it made with the machine lock held, of a
 * memory that threads share.
 */
export const RECLAIM_WRITES = 25 as const
export const RECLAIM_WRITES_LOCKED = 26 as const
export const NR_VMSTAT = 27 as const

export const VMSTAT_NAMES: readonly string[] = [
  'pgfault',
  'pgmajfault',
  'pgpgin',
  'store_reads',
  'pgpgout',
  'store_writes',
  'store_flushes',
  'pgsteal',
  'pgscan',
  'pgactivate',
  'pswpin',
  'pswpout',
  'readahead_pages',
  'readahead_hits',
  'cow_copies',
  'fault_around_pages',
  'remap_calls',
  'remap_pages',
  'nr_dirty',
  'nr_mlock',
  'nr_file_pages',
  'nr_anon_pages',
  'nr_shmem',
  'read_errors',
  'write_errors',
  'reclaim_writes',
  'reclaim_writes_locked'
]

/** Doubles of one thread's counters: four cache lines. */
const ROW = 32

/**
 * Each thread counts in a row of its own, so that counting costs no traffic between processors; what the machine has is
 * the sum. A row outlives its thread.
 */
export class Vmstat {
  readonly #all: Float64Array
  /** This thread's row: what code adds to. On a machine of one thread also what it has. */
  readonly mine: Float64Array

  constructor(columns: ColumnSource, maxThreads: number, me: number) {
    this.#all = columns.float64('counters', maxThreads * ROW)
    this.mine = this.#all.subarray(me * ROW, me * ROW + NR_VMSTAT)
  }

  total(counter: number): number {
    let sum = 0
    for (let at = counter; at < this.#all.length; at += ROW) sum += this.#all[at]
    return sum
  }
}
