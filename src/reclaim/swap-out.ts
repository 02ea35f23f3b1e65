/**
 * Pages on their way to the swap area, with the machine lock given back while the store writes (Linux: pageout).
 *
 *   in use --unmapped, a slot taken--> being written --nobody wanted it meanwhile--> free, its slot has it
 *     ^                                  |
 *     +-- stored to, mapped or pinned ---+   (or the write failed)
 *
 * The page is PG_WRITEBACK and clean meanwhile, stays in its cache and on its list of reclaim's, and can be used,
 * stored to and truncated. Its frame and slot are this thread's until the write is over, whoever lets go of them:
 * T_OUT_FRAME and T_OUT_SLOT say which they are, and `end` gives back what nobody wants, also on behalf of a thread
 * that has ended.
 *
 * Lock: machine lock, given back while the store writes. The caller holds nothing that others wait for.
 */
import type { PageCache } from '../cache/page-cache.ts'
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
  PG_DIRTY,
  PG_WRITEBACK
} from '../frame/frame-table.ts'
import type { Lru } from '../frame/lru.ts'
import { freeUnused } from '../frame/release.ts'
import { TRACE_EVICT, type Trace } from '../frame/trace.ts'
import { NR_SHMEM, PSWPOUT, RECLAIM_WRITES } from '../frame/vmstat.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import { WAIT_PAGE } from '../sync/lock-order.ts'
import type { Sync } from '../sync/sync.ts'
import { IO_SWAP_OUT, T_OUT_FRAME, T_OUT_SLOT } from '../sync/threads.ts'

/**
 * What became of a page that reclaim looked at: it stays, and is on no list; it is free; it stays, and is where it
 * belongs.
 */
export const STAYS = 0 as const
export const FREED = 1 as const
export const SETTLED = 2 as const
export type Outcome = typeof STAYS | typeof FREED | typeof SETTLED

export class SwapOut {
  readonly #frames: FrameTable
  readonly #allocator: FrameAllocator
  readonly #lru: Lru
  readonly #cache: PageCache
  readonly #swap: SwapArea
  readonly #trace: Trace
  readonly #sync: Sync

  constructor(allocator: FrameAllocator, lru: Lru, cache: PageCache, swap: SwapArea, trace: Trace, sync: Sync) {
    this.#frames = cache.frames
    this.#allocator = allocator
    this.#lru = lru
    this.#cache = cache
    this.#swap = swap
    this.#trace = trace
    this.#sync = sync
  }

  /**
   * Writes a dirty page that no entry maps and no thread stores to, to `slot`, which is the page's in the swap cache
   * or, for shared memory, fresh. The frame is on no list.
   */
  write(frame: number, slot: number): Outcome {
    const row = frame << FRAME_SHIFT
    const { w } = this.#frames
    const sync = this.#sync
    const isAnon = (w[row + F_FLAGS] & PG_ANON) !== 0
    this.#cache.clearDirty(frame)
    w[row + F_FLAGS] |= PG_WRITEBACK
    this.#lru.add(frame)
    sync.threads.w[sync.row + T_OUT_FRAME] = frame
    sync.threads.w[sync.row + T_OUT_SLOT] = isAnon ? 0 : slot
    sync.openWindow(IO_SWAP_OUT, w[row + F_MAPPING], w[row + F_INDEX], 1)
    const error = this.#swap.write(slot, frame)
    sync.closeWindow()
    sync.threads.w[sync.row + T_OUT_FRAME] = 0
    sync.threads.w[sync.row + T_OUT_SLOT] = 0
    this.#cache.vmstat[RECLAIM_WRITES]++
    return this.end(frame, isAnon ? 0 : slot, error)
  }

  /** The write is over, with 0 or an -errno. `slot` is 0 for an anonymous page. */
  end(frame: number, slot: number, error: number): Outcome {
    const { w } = this.#frames
    w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_WRITEBACK
    this.#sync.wakeAll(WAIT_PAGE, frame)
    this.#sync.noteRoom()
    if (error === 0) this.#cache.vmstat[PSWPOUT]++
    return slot === 0 ? this.#endAnon(frame, error) : this.#endShared(frame, slot, error)
  }

  #endAnon(frame: number, error: number): Outcome {
    const { w } = this.#frames
    const row = frame << FRAME_SHIFT
    const slot = w[row + F_INDEX]
    if (error < 0) w[row + F_FLAGS] |= PG_DIRTY
    if (this.#swap.count[slot] === 0) {
      // No swap entry needs the slot any more. If somebody has the page, that is the only copy.
      this.#cache.remove(frame)
      this.#swap.free(slot)
      w[row + F_FLAGS] |= PG_DIRTY
    } else if ((w[row + F_FLAGS] & PG_DIRTY) === 0 && this.#isUnwanted(frame)) {
      this.#trace.add(TRACE_EVICT, 0, slot, frame, 0)
      this.#cache.remove(frame)
    }
    return this.#freeUnused(frame)
  }

  #endShared(frame: number, slot: number, error: number): Outcome {
    const { w } = this.#frames
    const row = frame << FRAME_SHIFT
    if ((w[row + F_FLAGS] & PG_CACHED) === 0) {
      // Truncated meanwhile.
      this.#swap.free(slot)
      return this.#freeUnused(frame)
    }
    if (error < 0 || (w[row + F_FLAGS] & PG_DIRTY) !== 0 || !this.#isUnwanted(frame)) {
      this.#swap.free(slot)
      this.#cache.setDirty(frame)
      return SETTLED
    }
    const inode = w[row + F_MAPPING]
    const index = w[row + F_INDEX]
    this.#trace.add(TRACE_EVICT, inode, index, frame, 0)
    this.#cache.remove(frame)
    this.#swap.setOwner(slot, inode, index)
    this.#cache.vmstat[NR_SHMEM]--
    return this.#freeUnused(frame)
  }

  /** Nobody but the cache has it. */
  #isUnwanted(frame: number): boolean {
    return this.#frames.row(frame, F_MAPCOUNT) === 0 && this.#frames.pins(frame) === 0
  }

  #freeUnused(frame: number): Outcome {
    return freeUnused(this.#allocator, this.#lru, frame) ? FREED : SETTLED
  }
}
