/**
 * What /proc/PID/status and stat say of an address space: its size, what of it is in memory, locked or in swap, and its
 * faults.
 *
 * As in Linux, swapped-out shared memory does not count in `swapped`, and page tables do not in `resident`. Lock: none
 * is needed for counts that are each right by themselves; the machine lock for all of one moment. Costs nothing that
 * grows with the space.
 */
import {
  MM_ANONPAGES,
  MM_FILEPAGES,
  MM_HIWATER_RSS,
  MM_HIWATER_VM,
  MM_LOCKED_VM,
  MM_MAJ_FLT,
  MM_MAP_COUNT,
  MM_MIN_FLT,
  MM_NR_TABLES,
  MM_SWAPENTS,
  MM_TOTAL_VM
} from '../frame/mm-table.ts'
import type { Machine } from '../mm/machine.ts'

/** Sizes are bytes. */
export interface SpaceStatus {
  /** All mappings (VmSize), and the most that they ever were (VmPeak). */
  readonly size: number
  readonly peakSize: number
  /**
   * Pages that entries show (VmRSS), and the most at any time (VmHWM); how many of them are private, and of files or
   * shared memory.
   */
  readonly resident: number
  readonly peakResident: number
  readonly anonymous: number
  readonly ofFiles: number
  /** Locked mappings, whether their pages are there or not (VmLck). */
  readonly locked: number
  /** Private pages in swap (VmSwap). */
  readonly swapped: number
  /** Page tables (VmPTE). */
  readonly pageTables: number
  /** Number of mappings. */
  readonly mappings: number
  /** Faults that needed no I/O, and that did. */
  readonly minorFaults: number
  readonly majorFaults: number
}

export function spaceStatus(m: Machine, mm: number): SpaceStatus {
  const row = (word: number): number => m.mms.row(mm, word)
  const bytes = (pages: number): number => pages * m.ram.pageSize
  const rss = row(MM_FILEPAGES) + row(MM_ANONPAGES)
  return {
    size: bytes(row(MM_TOTAL_VM)),
    peakSize: bytes(row(MM_HIWATER_VM)),
    resident: bytes(rss),
    peakResident: bytes(Math.max(rss, row(MM_HIWATER_RSS))),
    anonymous: bytes(row(MM_ANONPAGES)),
    ofFiles: bytes(row(MM_FILEPAGES)),
    locked: bytes(row(MM_LOCKED_VM)),
    swapped: bytes(row(MM_SWAPENTS)),
    pageTables: bytes(row(MM_NR_TABLES)),
    mappings: row(MM_MAP_COUNT),
    minorFaults: row(MM_MIN_FLT),
    majorFaults: row(MM_MAJ_FLT)
  }
}

/** The lines of /proc/PID/status that are about memory. */
export function formatStatus(status: SpaceStatus): string {
  const lines: readonly (readonly [string, number])[] = [
    ['VmPeak', status.peakSize],
    ['VmSize', status.size],
    ['VmLck', status.locked],
    ['VmHWM', status.peakResident],
    ['VmRSS', status.resident],
    ['VmPTE', status.pageTables],
    ['VmSwap', status.swapped]
  ]
  return lines.map(([name, n]) => `${name}:\t${String(Math.floor(n / 1024)).padStart(8)} kB\n`).join('')
}
