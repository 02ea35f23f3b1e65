/**
 * Page reclaim: makes free frames out of used ones (Linux: mm/vmscan.c, direct reclaim only).
 *
 * Takes pages from the old end of the inactive lists; pages that were used since the last look get another round, and
 * the active list when that happens twice. What a page becomes:
 *
 *   clean file page        dropped; its entries turn into file ptes or empty ones
 *   dirty file page        written to its store first, with its dirty neighbours
 *   shared memory          written to a swap slot held by (inode, page); never-written pages are dropped (they are zero)
 *   anonymous page         written to a swap slot, named by swap ptes; after MADV_FREE dropped, if not stored to since
 *
 * Reaches address spaces only through the reverse map. Never allocates a frame. Keeps the machine lock throughout, also while a store
 * writes: it runs in the middle of anything. A page that is pinned, locked, or whose
 * write fails stays; when nothing goes, the allocation that called fails with ENOMEM and nothing was lost.
 */

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
  PG_ACTIVE,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_LOCKED,
  PG_MLOCKED,
  PG_READAHEAD,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_WRITEBACK,
  PIN_SHIFT
} from '../frame/frame-table.ts'
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, type Lru } from '../frame/lru.ts'
import { TRACE_EVICT, type Trace } from '../frame/trace.ts'
import { NR_MLOCK, NR_SHMEM, PGACTIVATE, PGSCAN, PGSTEAL, PSWPOUT } from '../frame/vmstat.ts'
import type { Rmap } from '../rmap/rmap.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import type { Sync } from '../sync/sync.ts'

/** Frames freed at a time when more than one is worth it. */
const BATCH = 32

/** How hard one pass tries. */
const HONOUR_REFERENCED = 0
const IGNORE_REFERENCED = 1

/** A page of shared memory is held no longer, in RAM or swap: its inode and its quota have one less. */
export type UnchargeHook = (inode: number) => void

export class Reclaim {
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly cache: PageCache
  readonly writeback: Writeback
  readonly rmap: Rmap
  readonly swap: SwapArea
  readonly vmstat: Float64Array
  readonly #trace: Trace
  readonly #sync: Sync
  #running = false
  #uncharge: UnchargeHook = () => {}

  constructor(
    allocator: FrameAllocator,
    lru: Lru,
    cache: PageCache,
    writeback: Writeback,
    rmap: Rmap,
    swap: SwapArea,
    trace: Trace,
    sync: Sync
  ) {
    this.frames = cache.frames
    this.allocator = allocator
    this.lru = lru
    this.cache = cache
    this.writeback = writeback
    this.rmap = rmap
    this.swap = swap
    this.vmstat = cache.vmstat
    this.#trace = trace
    this.#sync = sync
  }

  setUncharge(hook: UnchargeHook): void {
    this.#uncharge = hook
  }

  /** Tries to free at least `wanted` frames. → how many it freed. */
  shrink(wanted: number): number {
    // A notifier or store that allocates while we reclaim gets nothing: it would reclaim within itself.
    if (this.#running) return 0
    this.#running = true
    try {
      const want = Math.max(wanted, Math.min(BATCH, this.allocator.ram.nrFrames >>> 5))
      let freed = this.#pass(want, HONOUR_REFERENCED)
      if (freed < wanted) freed += this.#pass(want - freed, HONOUR_REFERENCED)
      if (freed < wanted) freed += this.#pass(want - freed, IGNORE_REFERENCED)
      return freed
    } finally {
      this.#running = false
    }
  }

  /** Frees every page that can be freed. What a test or a snapshot wants, and memory pressure from outside. */
  shrinkAll(): number {
    let total = 0
    for (let round = 0; round < 8; round++) {
      const freed = this.shrink(this.allocator.ram.nrFrames)
      total += freed
      if (freed === 0) break
    }
    return total
  }

  #pass(want: number, mode: number): number {
    const { lru } = this
    const nrFile = lru.count(LRU_INACTIVE_FILE) + lru.count(LRU_ACTIVE_FILE)
    const nrAnon = lru.count(LRU_INACTIVE_ANON) + lru.count(LRU_ACTIVE_ANON)
    // File pages cost less to bring back than to write out and bring back; large unused memory still has to go.
    const anonFirst = nrAnon > 2 * nrFile
    let freed = this.#shrinkPair(anonFirst ? LRU_INACTIVE_ANON : LRU_INACTIVE_FILE, want, mode)
    if (freed < want) freed += this.#shrinkPair(anonFirst ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON, want - freed, mode)
    return freed
  }

  /** Shrinks an inactive list and, as it runs low, refills it from its active one. */
  #shrinkPair(inactive: number, want: number, mode: number): number {
    const { lru } = this
    const active = inactive + 1
    let budget = lru.count(inactive) + lru.count(active)
    let freed = 0
    while (freed < want && budget > 0) {
      if (lru.count(inactive) < lru.count(active)) this.#age(active, BATCH)
      const frame = lru.lists.last(inactive)
      if (frame === 0) break
      budget--
      this.vmstat[PGSCAN]++
      if (this.#take(frame, mode)) freed++
    }
    return freed
  }

  /** Moves pages from the old end of an active list to the inactive one; uses from now on count there. */
  #age(active: number, nr: number): void {
    const { lru } = this
    for (let i = 0; i < nr; i++) {
      const frame = lru.lists.last(active)
      if (frame === 0) return
      this.rmap.pageReferenced(frame)
      lru.setInactive(frame)
    }
  }

  /** Tries to free one page; puts it where it belongs if it stays. */
  #take(frame: number, mode: number): boolean {
    const { frames, lru, rmap } = this
    lru.remove(frame)
    const flags = frames.row(frame, F_FLAGS)
    if ((flags & (PG_LOCKED | PG_WRITEBACK)) !== 0 || flags >>> PIN_SHIFT !== 0) {
      // Out of the way: an inactive list of pages in use would hide the active one.
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_ACTIVE
      lru.add(frame)
      return false
    }
    const referenced = rmap.pageReferenced(frame)
    if (rmap.locked) {
      this.#cull(frame)
      return false
    }
    if (mode === HONOUR_REFERENCED && this.#keep(frame, referenced)) return false
    const freed = (flags & PG_ANON) !== 0 ? this.#takeAnon(frame) : this.#takeCached(frame)
    if (freed) this.vmstat[PGSTEAL]++
    else if ((frames.row(frame, F_FLAGS) & (PG_CACHED | PG_ANON)) !== 0) {
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_ACTIVE
      lru.add(frame)
    }
    return freed
  }

  /** The page is in a locked vma: off to the unevictable list, counted as locked (Linux: SWAP_MLOCK). */
  #cull(frame: number): void {
    const { w } = this.frames
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    if ((w[at] & PG_MLOCKED) === 0) {
      w[at] |= PG_MLOCKED
      this.vmstat[NR_MLOCK]++
    }
    this.lru.setUnevictable(frame)
  }

  /** Second chance (Linux: page_check_references). True when the page was put back. */
  #keep(frame: number, referenced: number): boolean {
    const { w } = this.frames
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    const before = w[at] & PG_REFERENCED
    if (referenced === 0 && before === 0) return this.#keepPrefetched(frame)
    w[at] &= ~PG_REFERENCED
    if (referenced === 0) return false
    if ((w[at] & PG_SWAPBACKED) !== 0 || before !== 0 || referenced > 1) {
      w[at] |= PG_ACTIVE
      this.vmstat[PGACTIVATE]++
    } else w[at] |= PG_REFERENCED
    this.lru.add(frame)
    return true
  }

  /**
   * A page that a store which answers later brought ahead, and that was not used yet, gets one more round. Without it, what comes next in a file
   * that is read in order would go before what was read already: that was used, after all, if only once.
   */
  #keepPrefetched(frame: number): boolean {
    const { frames, cache, lru } = this
    const flags = frames.row(frame, F_FLAGS)
    if ((flags & (PG_READAHEAD | PG_ANON)) !== PG_READAHEAD) return false
    if (cache.inodes.pager[frames.row(frame, F_MAPPING)] === 0) return false
    frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = flags & ~PG_READAHEAD
    lru.add(frame)
    return true
  }

  #takeAnon(frame: number): boolean {
    const { frames, swap, cache } = this
    if ((frames.row(frame, F_FLAGS) & PG_SWAPBACKED) === 0) return this.#takeLazyFree(frame)
    let slot = frames.row(frame, F_INDEX)
    const cached = (frames.row(frame, F_FLAGS) & PG_CACHED) !== 0
    if (!cached) {
      slot = swap.alloc()
      if (slot === 0) return false
      cache.add(frame, 0, slot)
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_DIRTY
    }
    if (!this.rmap.tryToUnmap(frame, slot)) return false
    if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) {
      this.#settle(frame)
      if (swap.write(slot, frame) < 0) return false
      this.vmstat[PSWPOUT]++
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_DIRTY
    }
    this.#trace.add(TRACE_EVICT, 0, slot, frame, 0)
    cache.remove(frame)
    this.allocator.free(frame)
    return true
  }

  /** After MADV_FREE: dropped if nothing was stored since, an ordinary page again if something was. */
  #takeLazyFree(frame: number): boolean {
    const { frames, rmap } = this
    rmap.pageMkclean(frame)
    if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) {
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_SWAPBACKED
      return false
    }
    if (!rmap.tryToUnmap(frame, 0)) return false
    this.allocator.free(frame)
    return true
  }

  #takeCached(frame: number): boolean {
    const { frames, rmap, cache } = this
    if (frames.row(frame, F_MAPCOUNT) !== 0 && !rmap.tryToUnmap(frame, 0)) return false
    const inode = frames.row(frame, F_MAPPING)
    const dirty = (frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0
    if (cache.inodes.isShmem(inode)) {
      if (dirty) {
        if (!this.#swapOutShared(frame, inode)) return false
      } else {
        this.#uncharge(inode)
        this.vmstat[NR_SHMEM]--
      }
    } else if (dirty) {
      this.writeback.writeAround(frame)
      if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) return false
    }
    this.#trace.add(TRACE_EVICT, inode, frames.row(frame, F_INDEX), frame, 0)
    cache.remove(frame)
    this.allocator.free(frame)
    return true
  }

  #swapOutShared(frame: number, inode: number): boolean {
    const slot = this.swap.alloc()
    if (slot === 0) return false
    this.#settle(frame)
    if (this.swap.write(slot, frame) < 0) {
      this.swap.free(slot)
      return false
    }
    this.swap.setOwner(slot, inode, this.frames.row(frame, F_INDEX))
    this.vmstat[PSWPOUT]++
    this.vmstat[NR_SHMEM]--
    return true
  }

  /** The page is in no entry any more. Stores of other threads that are under way belong to what is written. */
  #settle(frame: number): void {
    if (!this.#sync.isShared) return
    this.#sync.changed()
    this.#sync.settle(frame)
  }
}
