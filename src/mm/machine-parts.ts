/** What a machine is made of: one part of each room, and its options. `kernel` wires them; `Machine` works on them. */
import type { Filler } from '../cache/fill.ts'
import type { FileTable, InodeTable } from '../cache/inodes.ts'
import type { PageCache } from '../cache/page-cache.ts'
import type { Writeback } from '../cache/writeback.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import type { FrameTable } from '../frame/frame-table.ts'
import type { Identity } from '../frame/identity.ts'
import type { Lru } from '../frame/lru.ts'
import type { MmTable } from '../frame/mm-table.ts'
import type { Ram } from '../frame/ram.ts'
import type { Trace } from '../frame/trace.ts'
import type { Vmstat } from '../frame/vmstat.ts'
import type { Notifiers } from '../notify/notifier.ts'
import type { PageTables } from '../pgtable/page-tables.ts'
import type { Migration } from '../reclaim/migrate.ts'
import type { Reclaim } from '../reclaim/reclaim.ts'
import type { RmapNodes } from '../rmap/nodes.ts'
import type { Rmap } from '../rmap/rmap.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import type { Sync } from '../sync/sync.ts'
import type { VmaTable } from '../vma/vma-table.ts'

/** What a thread reaches memory by without asking the machine. */
export interface Reach {
  /** Reaches nothing from here on. */
  leave(): void
}

export class MachineParts {
  readonly identity: Identity
  readonly sync: Sync
  readonly ram: Ram
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly mms: MmTable
  readonly counters: Vmstat
  /** This thread's counters: to add to. */
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
  /**
   * File descriptors: file row by slot, 0 for a closed one. A slot's number grows each time it is closed (mm/files).
   */
  readonly fds: Int32Array
  readonly fdSeqs: Int32Array
  /** Page limits and use of accounting groups, two words each. */
  readonly quotas: Int32Array
  readonly policy: number
  maxMapCount: number
  /** Pages that one read fault may map around itself; a power of two, 1 = off. */
  faultAroundPages: number

  constructor(parts: MachineParts) {
    this.identity = parts.identity
    this.sync = parts.sync
    this.ram = parts.ram
    this.frames = parts.frames
    this.allocator = parts.allocator
    this.lru = parts.lru
    this.mms = parts.mms
    this.counters = parts.counters
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
    this.fdSeqs = parts.fdSeqs
    this.quotas = parts.quotas
    this.policy = parts.policy
    this.maxMapCount = parts.maxMapCount
    this.faultAroundPages = parts.faultAroundPages
  }
}
