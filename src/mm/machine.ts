/**
 * The machine: every room's part, wired together, for the verbs of mm/ to work on. `kernel` assembles one.
 *
 * A verb is a function (machine, mm, ...) over these; nothing here holds state of its own but `lastError` and the
 * options. Page numbers are virtual (vpn) or file pages (pgoff, index); frames are frame numbers.
 */

import type { Filler } from '../cache/fill.ts'
import { type FileTable, INODE_RAMFS, type InodeTable } from '../cache/inodes.ts'
import type { PageCache } from '../cache/page-cache.ts'
import type { Writeback } from '../cache/writeback.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  FRAME_SHIFT,
  type FrameTable,
  PG_ANON,
  PG_CACHED,
  PG_LRU,
  PG_MLOCKED
} from '../frame/frame-table.ts'
import type { Lru } from '../frame/lru.ts'
import { MM_MMAP_LOCK, MM_SHIFT, type MmTable } from '../frame/mm-table.ts'
import type { Ram } from '../frame/ram.ts'
import type { Trace } from '../frame/trace.ts'
import { NR_MLOCK } from '../frame/vmstat.ts'
import type { Notifiers } from '../notify/notifier.ts'
import type { PageTables } from '../pgtable/page-tables.ts'
import type { Migration } from '../reclaim/migrate.ts'
import type { Reclaim } from '../reclaim/reclaim.ts'
import type { RmapNodes } from '../rmap/nodes.ts'
import type { Rmap } from '../rmap/rmap.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import type { VmaTable } from '../vma/vma-table.ts'

/** True nonlinear mappings of every file, with exact dirty accounting. */
export const POLICY_NONLINEAR = 0 as const
/** As Linux 3.19: files with dirty accounting are remapped by linear vmas, one for each run. */
export const POLICY_LINUX = 1 as const

export interface MachineParts {
  readonly ram: Ram
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly mms: MmTable
  readonly vmstat: Float64Array
  readonly tables: PageTables
  readonly notifiers: Notifiers
  readonly vmas: VmaTable
  readonly inodes: InodeTable
  readonly files: FileTable
  readonly cache: PageCache
  readonly filler: Filler
  readonly writeback: Writeback
  readonly swap: SwapArea
  readonly nodes: RmapNodes
  readonly rmap: Rmap
  readonly reclaim: Reclaim
  readonly migration: Migration
  readonly trace: Trace
  /** File descriptors: file row by number, 0 for a closed one. */
  readonly fds: Int32Array
  /** Page limits and use of accounting groups, two words each. */
  readonly quotas: Int32Array
  readonly policy: number
  readonly maxMapCount: number
  /** Pages that one read fault may map around itself; a power of two, 1 = off. */
  readonly faultAroundPages: number
}

export class Machine implements MachineParts {
  readonly ram: Ram
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly mms: MmTable
  readonly vmstat: Float64Array
  readonly tables: PageTables
  readonly notifiers: Notifiers
  readonly vmas: VmaTable
  readonly inodes: InodeTable
  readonly files: FileTable
  readonly cache: PageCache
  readonly filler: Filler
  readonly writeback: Writeback
  readonly swap: SwapArea
  readonly nodes: RmapNodes
  readonly rmap: Rmap
  readonly reclaim: Reclaim
  readonly migration: Migration
  readonly trace: Trace
  readonly fds: Int32Array
  readonly quotas: Int32Array
  readonly policy: number
  maxMapCount: number
  faultAroundPages: number
  /** The store's errno behind the last FAULT_BUS or FAULT_OOM, 0 when it was the end of the file. */
  lastError = 0
  /** This thread is within a verb that changes the machine. */
  inside = false
  /** False after the machine was closed. */
  open = true
  /** Adds to or takes from a file's references; bound once, for the vma room. */
  readonly onFile: (file: number, delta: number) => void

  constructor(parts: MachineParts) {
    this.ram = parts.ram
    this.frames = parts.frames
    this.allocator = parts.allocator
    this.lru = parts.lru
    this.mms = parts.mms
    this.vmstat = parts.vmstat
    this.tables = parts.tables
    this.notifiers = parts.notifiers
    this.vmas = parts.vmas
    this.inodes = parts.inodes
    this.files = parts.files
    this.cache = parts.cache
    this.filler = parts.filler
    this.writeback = parts.writeback
    this.swap = parts.swap
    this.nodes = parts.nodes
    this.rmap = parts.rmap
    this.reclaim = parts.reclaim
    this.migration = parts.migration
    this.trace = parts.trace
    this.fds = parts.fds
    this.quotas = parts.quotas
    this.policy = parts.policy
    this.maxMapCount = parts.maxMapCount
    this.faultAroundPages = parts.faultAroundPages
    this.onFile = (file, delta) => {
      this.files.refs[file] += delta
    }
  }

  /** Gives a data frame back if nothing holds it any more. */
  putFrame(frame: number): void {
    const { frames } = this
    if (frame === 0 || !frames.isUnused(frame)) return
    if ((frames.row(frame, F_FLAGS) & PG_LRU) !== 0) this.lru.remove(frame)
    this.allocator.free(frame)
  }

  /** An entry of the frame went away: forgets its lock and its swap slot with the last one, and frees it. */
  afterUnmap(frame: number): void {
    const { frames } = this
    if (frames.row(frame, F_MAPCOUNT) !== 0) return
    // A page of a file stays in the cache.
    if ((frames.row(frame, F_FLAGS) & (PG_CACHED | PG_ANON | PG_MLOCKED)) !== PG_CACHED) this.#afterLastUnmap(frame)
  }

  #afterLastUnmap(frame: number): void {
    const { frames } = this
    const flags = frames.row(frame, F_FLAGS)
    if ((flags & PG_MLOCKED) !== 0) this.clearMlocked(frame)
    if ((flags & PG_ANON) !== 0 && (flags & PG_CACHED) !== 0) {
      const slot = frames.row(frame, F_INDEX)
      if (this.swap.count[slot] === 0) {
        this.cache.remove(frame)
        this.swap.free(slot)
      }
    }
    this.putFrame(frame)
  }

  /** The page is in no locked vma any more: back to the lists that reclaim looks at. */
  clearMlocked(frame: number): void {
    this.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_MLOCKED
    this.vmstat[NR_MLOCK]--
    const flags = this.frames.row(frame, F_FLAGS)
    const stays = (flags & PG_ANON) === 0 && this.inodes.kind[this.frames.row(frame, F_MAPPING)] === INODE_RAMFS
    if (!stays && (flags & PG_LRU) !== 0) this.lru.setEvictable(frame)
  }

  /**
   * Begins a verb that changes the machine. False when this thread is inside one already: a notifier or store that was
   * called in the middle of it calls back, which gives EDEADLK.
   */
  enter(): boolean {
    if (this.inside) return false
    this.inside = true
    return true
  }

  leave(): void {
    this.inside = false
  }

  /** Begins a verb and takes the mmap lock for writing. False when either cannot be had. */
  tryLock(mm: number): boolean {
    const at = (mm << MM_SHIFT) + MM_MMAP_LOCK
    if (this.mms.w[at] !== 0 || this.inside) return false
    this.mms.w[at] = -1
    this.inside = true
    return true
  }

  unlock(mm: number): void {
    this.mms.w[(mm << MM_SHIFT) + MM_MMAP_LOCK] = 0
    this.inside = false
  }

  /** Pages of an inode, the last partial one included. */
  nrFilePages(inode: number): number {
    return Math.ceil(this.inodes.sizeBytes[inode] * this.ram.pagesPerByte)
  }
}
