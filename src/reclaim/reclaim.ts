/**
 * Page reclaim: makes free frames out of used ones (Linux: mm/vmscan.c, direct reclaim only).
 *
 * Takes pages from the old end of the inactive lists; pages that were used since the last look get another round, and
 * the active list when that happens twice. What a page becomes:
 *
 *   clean file page        dropped; its entries turn into file ptes or empty ones
 *   dirty file page        written to its store first, with its dirty neighbours
 *   shared memory          written to a swap slot held by (inode, page); never-written pages are dropped (they are
 *                          zero)
 *   anonymous page         written to a swap slot, named by swap ptes; after MADV_FREE dropped, if not stored to since
 *
 * Reaches address spaces only through the reverse map. Never allocates a frame. The machine lock is given back while a
 * store writes by `makeRoom`, which threads call where nothing is half done (mm/balance.ts), and by `shrinkAll` if
 * asked to. `shrink` keeps it throughout: it runs in the middle of anything, so in a memory that threads share it takes
 * clean pages first. A page that is pinned, locked, being written, or whose write fails stays; when nothing goes, the
 * allocation that called fails with ENOMEM and nothing was lost.
 */

import type { PageCache } from '../cache/page-cache.ts'
import { IN_WINDOWS, UNDER_LOCK, type Writeback } from '../cache/writeback.ts'
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
  PG_LRU,
  PG_MLOCKED,
  PG_READAHEAD,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_UNEVICTABLE,
  PG_UPTODATE,
  PG_WRITEBACK,
  PIN_SHIFT
} from '../frame/frame-table.ts'
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, type Lru } from '../frame/lru.ts'
import { TRACE_EVICT, type Trace } from '../frame/trace.ts'
import {
  NR_MLOCK,
  NR_SHMEM,
  PGACTIVATE,
  PGSCAN,
  PGSTEAL,
  PSWPOUT,
  RECLAIM_WRITES,
  RECLAIM_WRITES_LOCKED
} from '../frame/vmstat.ts'
import type { Rmap } from '../rmap/rmap.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import type { Sync } from '../sync/sync.ts'
import { FREED, type Outcome, SETTLED, STAYS, SwapOut } from './swap-out.ts'

/** Frames freed at a time when more than one is worth it. */
const BATCH = 32

/** How hard one pass tries. */
const HONOUR_REFERENCED = 0
const IGNORE_REFERENCED = 1
/** Honours them too, and writes nothing. */
const CLEAN_ONLY = 2
/** Honours them, and ends at a page that is clean: an allocation that is short of frames takes that without any I/O. */
const AHEAD = 3

const ALL: number = Number.MAX_SAFE_INTEGER
/** Pages of each kind that a pass looks at that is not to go on for long. */
const LOOKS = 512

const ANON_FIRST = [LRU_INACTIVE_ANON, LRU_INACTIVE_FILE] as const
const FILE_FIRST = [LRU_INACTIVE_FILE, LRU_INACTIVE_ANON] as const

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
  readonly swapOut: SwapOut
  #running = false
  #how: typeof UNDER_LOCK | typeof IN_WINDOWS = UNDER_LOCK
  /** What RECLAIM_WRITES is when `makeRoom` has written enough, whatever came of it. */
  #enoughWrites = 0
  /** Whether the last `makeRoom` ended at a clean page. */
  endedAtClean = false
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
    this.swapOut = new SwapOut(allocator, lru, cache, swap, trace, sync)
  }

  setUncharge(hook: UnchargeHook): void {
    this.#uncharge = hook
  }

  /** Tries to free at least `wanted` frames, with the machine lock held throughout. → how many it freed. */
  shrink(wanted: number): number {
    return this.#shrink(wanted, UNDER_LOCK)
  }

  #shrink(wanted: number, how: typeof UNDER_LOCK | typeof IN_WINDOWS): number {
    // A notifier or store that allocates while we reclaim gets nothing: it would reclaim within itself.
    if (this.#running) return 0
    this.#running = true
    this.#how = how
    try {
      let want = Math.max(wanted, Math.min(BATCH, this.allocator.ram.nrFrames >>> 5))
      let freed = 0
      if (how === UNDER_LOCK && this.#sync.isShared) {
        freed = this.#pass(want, CLEAN_ONLY, LOOKS)
        // Others are kept waiting while a store writes.
        want = wanted
      }
      if (freed < wanted) freed += this.#pass(want - freed, HONOUR_REFERENCED, ALL)
      if (freed < wanted) freed += this.#pass(want - freed, HONOUR_REFERENCED, ALL)
      if (freed < wanted) freed += this.#pass(want - freed, IGNORE_REFERENCED, ALL)
      return freed
    } finally {
      this.#running = false
      this.#how = UNDER_LOCK
    }
  }

  /**
   * Tries to free `wanted` frames ahead, as far as pages have to be written for it: the machine lock is given back
   * while stores do so, and the caller has no lock that others wait for long. A store that fails is not asked for every
   * page there is. → how many it freed.
   */
  makeRoom(wanted: number): number {
    if (this.#running) return 0
    this.#running = true
    this.#how = IN_WINDOWS
    this.endedAtClean = false
    this.#enoughWrites = this.vmstat[RECLAIM_WRITES] + 2 * wanted
    try {
      const freed = this.#pass(wanted, AHEAD, LOOKS)
      return freed > 0 || this.endedAtClean ? freed : this.#pass(wanted, AHEAD, LOOKS)
    } finally {
      this.#running = false
      this.#how = UNDER_LOCK
    }
  }

  /** Frees every page that can be freed. What a test or a snapshot wants, and memory pressure from outside. */
  shrinkAll(how: typeof UNDER_LOCK | typeof IN_WINDOWS = UNDER_LOCK): number {
    let total = 0
    for (let round = 0; round < 8; round++) {
      const freed = this.#shrink(this.allocator.ram.nrFrames, how)
      total += freed
      if (freed === 0) break
    }
    return total
  }

  /** The page, which one entry maps, counts as used no more: it is the next one of its kind to go. */
  makeOld(frame: number): void {
    const { lru } = this
    if (!this.#isListed(frame)) return
    this.rmap.pageReferenced(frame)
    if (this.rmap.locked) return
    lru.setInactive(frame)
    lru.remove(frame)
    lru.addOld(frame)
  }

  /**
   * Frees the page if it can be freed, used or not. If it has to be written for that, the machine lock is given back
   * meanwhile.
   */
  pageOut(frame: number): void {
    if (this.#running || !this.#isListed(frame) || this.#isInUse(frame)) return
    this.vmstat[PGSCAN]++
    this.#running = true
    this.#how = this.#sync.isShared ? IN_WINDOWS : UNDER_LOCK
    try {
      this.#take(frame, IGNORE_REFERENCED)
    } finally {
      this.#running = false
      this.#how = UNDER_LOCK
    }
  }

  /** Whether the page is on a list of those that may be taken. */
  #isListed(frame: number): boolean {
    return (this.frames.row(frame, F_FLAGS) & (PG_LRU | PG_UNEVICTABLE)) === PG_LRU
  }

  /** `most`: pages of each kind to look at. */
  #pass(want: number, mode: number, most: number): number {
    const { lru } = this
    const nrFile = lru.count(LRU_INACTIVE_FILE) + lru.count(LRU_ACTIVE_FILE)
    const nrAnon = lru.count(LRU_INACTIVE_ANON) + lru.count(LRU_ACTIVE_ANON)
    // File pages cost less to bring back than to write out and bring back; large unused memory still has to go.
    const anonFirst = nrAnon > 2 * nrFile
    const [one, other] = anonFirst ? ANON_FIRST : FILE_FIRST
    let freed = this.#shrinkPair(one, want, mode, most)
    // Ahead, the other kind goes only where this one gives nothing.
    if (freed >= want || (mode === AHEAD && (freed > 0 || this.endedAtClean))) return freed
    freed += this.#shrinkPair(other, want - freed, mode, most)
    return freed
  }

  /** Shrinks an inactive list and, as it runs low, refills it from its active one. */
  #shrinkPair(inactive: number, want: number, mode: number, most: number): number {
    const { lru } = this
    const active = inactive + 1
    let budget = Math.min(most, lru.count(inactive) + lru.count(active))
    let freed = 0
    while (freed < want && budget > 0) {
      if (lru.count(inactive) < lru.count(active)) this.#age(active, BATCH)
      const frame = lru.lists.last(inactive)
      if (frame === 0) break
      if (mode === AHEAD) {
        this.endedAtClean = !this.#isToWrite(frame) && !this.#isInUse(frame)
        if (this.endedAtClean || this.vmstat[RECLAIM_WRITES] >= this.#enoughWrites) break
      }
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
    if (this.#isInUse(frame)) {
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
    if (mode !== IGNORE_REFERENCED && this.#keep(frame, referenced)) return false
    if (mode === CLEAN_ONLY && this.#isToWrite(frame)) {
      lru.add(frame)
      return false
    }
    const outcome = (flags & PG_ANON) !== 0 ? this.#takeAnon(frame) : this.#takeCached(frame)
    if (outcome === FREED) this.vmstat[PGSTEAL]++
    else if (outcome === STAYS && (frames.row(frame, F_FLAGS) & (PG_CACHED | PG_ANON)) !== 0) {
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_ACTIVE
      lru.add(frame)
    }
    return outcome === FREED
  }

  /** Whether the page is on its way somewhere, or pinned. */
  #isInUse(frame: number): boolean {
    const flags = this.frames.row(frame, F_FLAGS)
    return (flags & (PG_LOCKED | PG_WRITEBACK)) !== 0 || flags >>> PIN_SHIFT !== 0
  }

  /** Whether the page has to be written before its frame is free. */
  #isToWrite(frame: number): boolean {
    const flags = this.frames.row(frame, F_FLAGS)
    return (flags & PG_DIRTY) !== 0 && (flags & (PG_ANON | PG_SWAPBACKED)) !== PG_ANON
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
   * A page that a store which answers later brought ahead, and that was not used yet, gets one more round. Without it,
   * what comes next in a file that is read in order would go before what was read already: that was used, after all, if
   * only once.
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

  #takeAnon(frame: number): Outcome {
    const { frames, swap, cache } = this
    if ((frames.row(frame, F_FLAGS) & PG_SWAPBACKED) === 0) return this.#takeLazyFree(frame)
    let slot = frames.row(frame, F_INDEX)
    const cached = (frames.row(frame, F_FLAGS) & PG_CACHED) !== 0
    if (!cached) {
      slot = swap.alloc()
      if (slot === 0) return STAYS
      cache.add(frame, 0, slot)
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_DIRTY
    }
    if (!this.rmap.tryToUnmap(frame, slot)) return STAYS
    if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) {
      this.#settle(frame)
      if (this.#how === IN_WINDOWS) return this.swapOut.write(frame, slot)
      this.#countLocked()
      if (swap.write(slot, frame) < 0) return STAYS
      this.vmstat[PSWPOUT]++
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_DIRTY
    }
    this.#trace.add(TRACE_EVICT, 0, slot, frame, 0)
    cache.remove(frame)
    this.allocator.free(frame)
    return FREED
  }

  /** After MADV_FREE: dropped if nothing was stored since, an ordinary page again if something was. */
  #takeLazyFree(frame: number): Outcome {
    const { frames, rmap } = this
    rmap.pageMkclean(frame)
    if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) {
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_SWAPBACKED
      return STAYS
    }
    if (!rmap.tryToUnmap(frame, 0)) return STAYS
    this.allocator.free(frame)
    return FREED
  }

  #takeCached(frame: number): Outcome {
    const { frames, rmap, cache } = this
    if ((frames.row(frame, F_FLAGS) & (PG_DIRTY | PG_SWAPBACKED)) === PG_DIRTY) {
      // Another thread can write it. Not an error of the file, which its next sync would tell.
      if (cache.inodes.store(frames.row(frame, F_MAPPING))?.isReachable === false) return STAYS
      if (this.#how === IN_WINDOWS) return this.#writeOfFile(frame)
    }
    if (frames.row(frame, F_MAPCOUNT) !== 0 && !rmap.tryToUnmap(frame, 0)) return STAYS
    const inode = frames.row(frame, F_MAPPING)
    const dirty = (frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0
    if (cache.inodes.isShmem(inode)) {
      if (dirty) {
        const outcome = this.#swapOutShared(frame, inode)
        if (outcome !== FREED || this.#how === IN_WINDOWS) return outcome
      } else {
        this.#uncharge(inode)
        this.vmstat[NR_SHMEM]--
      }
    } else if (dirty) {
      this.#countLocked()
      this.writeback.writeAround(frame, UNDER_LOCK)
      if ((frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) return STAYS
    }
    this.#trace.add(TRACE_EVICT, inode, frames.row(frame, F_INDEX), frame, 0)
    cache.remove(frame)
    this.allocator.free(frame)
    return FREED
  }

  /** Writes a dirty page of a store, with its neighbours, in a window. Then it is free if nobody has it again. */
  #writeOfFile(frame: number): Outcome {
    const { inodes } = this.cache
    const inode = this.frames.row(frame, F_MAPPING)
    if (!inodes.tryAcquire(inode)) return STAYS
    const outcome = this.#writeLocked(frame, inode)
    inodes.release(inode)
    return outcome
  }

  /** The same with the inode lock. */
  #writeLocked(frame: number, inode: number): Outcome {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    const index = w[row + F_INDEX]
    if (w[row + F_MAPCOUNT] !== 0 && !this.rmap.tryToUnmap(frame, 0)) return STAYS
    this.lru.add(frame)
    this.vmstat[RECLAIM_WRITES]++
    this.writeback.writeAround(frame, IN_WINDOWS)
    // By now the frame may be another page's.
    if (w[row + F_MAPPING] !== inode || w[row + F_INDEX] !== index) return SETTLED
    const state = w[row + F_FLAGS] & (PG_CACHED | PG_UPTODATE | PG_LRU | PG_LOCKED | PG_WRITEBACK | PG_DIRTY)
    if (state !== (PG_CACHED | PG_UPTODATE | PG_LRU)) return SETTLED
    if (w[row + F_MAPCOUNT] !== 0 || this.frames.pins(frame) !== 0) return SETTLED
    this.#trace.add(TRACE_EVICT, inode, index, frame, 0)
    this.lru.remove(frame)
    this.cache.remove(frame)
    this.allocator.free(frame)
    return FREED
  }

  #swapOutShared(frame: number, inode: number): Outcome {
    const slot = this.swap.alloc()
    if (slot === 0) return STAYS
    this.#settle(frame)
    if (this.#how === IN_WINDOWS) return this.swapOut.write(frame, slot)
    this.#countLocked()
    if (this.swap.write(slot, frame) < 0) {
      this.swap.free(slot)
      return STAYS
    }
    this.swap.setOwner(slot, inode, this.frames.row(frame, F_INDEX))
    this.vmstat[PSWPOUT]++
    this.vmstat[NR_SHMEM]--
    return FREED
  }

  #countLocked(): void {
    this.vmstat[RECLAIM_WRITES]++
    if (this.#sync.isShared) this.vmstat[RECLAIM_WRITES_LOCKED]++
  }

  /** The page is in no entry any more. Stores of other threads that are under way belong to what is written. */
  #settle(frame: number): void {
    if (!this.#sync.isShared) return
    this.#sync.changed()
    this.#sync.settle(frame)
  }
}
