/**
 * Page migration: a page goes to another frame, and every entry follows (Linux: mm/migrate.c).
 *
 *   begin   the page is locked; present entries become migration entries, which still count as mapping it
 *   end     the bytes, the frame's row and its place in cache, lists and reverse map go to the new frame; the migration
 *           entries that are still there become present again
 *
 * In between, remap, munmap and truncate may drop entries (they count them off as those of the old frame), mprotect may
 * take their write permission, mremap may move them, fork may copy them: each is found again through the reverse map,
 * nonlinear ones too. A fault on one is SIGBUS with EAGAIN.
 *
 * `makeRun` uses it to clear neighbouring frames, for tables that must lie side by side.
 */
import type { PageCache } from '../cache/page-cache.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  FRAME_SHIFT,
  type FrameTable,
  PG_CACHED,
  PG_DIRTY,
  PG_LOCKED,
  PG_LRU,
  PG_WRITEBACK,
  PIN_SHIFT
} from '../frame/frame-table.ts'
import type { Lru } from '../frame/lru.ts'
import type { Rmap } from '../rmap/rmap.ts'
import type { Sync } from '../sync/sync.ts'

export class Migration {
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly cache: PageCache
  readonly rmap: Rmap
  readonly #sync: Sync

  constructor(allocator: FrameAllocator, lru: Lru, cache: PageCache, rmap: Rmap, sync: Sync) {
    this.frames = cache.frames
    this.allocator = allocator
    this.lru = lru
    this.cache = cache
    this.rmap = rmap
    this.#sync = sync
  }

  /** Whether the frame is a page that may move: on an LRU list, neither pinned nor locked. */
  canMove(frame: number): boolean {
    const flags = this.frames.row(frame, F_FLAGS)
    return (flags & PG_LRU) !== 0 && (flags & (PG_LOCKED | PG_WRITEBACK)) === 0 && flags >>> PIN_SHIFT === 0
  }

  /** Locks the page and replaces its entries. False when it cannot move. */
  begin(frame: number): boolean {
    if (!this.canMove(frame)) return false
    this.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_LOCKED
    this.rmap.toMigration(frame)
    if (this.#sync.isShared) {
      this.#sync.changed()
      this.#sync.settle(frame)
    }
    return true
  }

  /**
   * Moves a page that `begin` took to `target`, a frame fresh from the allocator. The old frame is free afterwards.
   * False when somebody has mapped it at another address meanwhile and pinned it: it stays, and `target` is still the
   * caller's (Linux: -EAGAIN).
   */
  end(frame: number, target: number): boolean {
    const { cache, lru } = this
    const { w } = this.frames
    const from = frame << FRAME_SHIFT
    const to = target << FRAME_SHIFT
    w[from + F_FLAGS] &= ~PG_LOCKED
    const flags = w[from + F_FLAGS]
    if (flags >>> PIN_SHIFT !== 0) {
      this.rmap.fromMigration(frame, frame)
      return false
    }
    if ((flags & PG_CACHED) === 0 && w[from + F_MAPCOUNT] === 0) {
      // Truncated, or unmapped by its last user, meanwhile.
      this.allocator.free(target)
      if ((flags & PG_LRU) !== 0) lru.remove(frame)
      this.allocator.free(frame)
      return true
    }
    this.allocator.ram.copyFrame(target, frame)
    lru.remove(frame)
    const inode = w[from + F_MAPPING]
    const index = w[from + F_INDEX]
    if ((flags & PG_CACHED) !== 0) {
      // In this order: at any time one of them is the page, and says if it is dirty (mm/salvage).
      w[to + F_FLAGS] = flags & ~(PG_CACHED | PG_DIRTY | PG_LRU)
      cache.add(target, inode, index)
      if ((flags & PG_DIRTY) !== 0) cache.setDirty(target)
      cache.remove(frame)
    } else {
      w[to + F_FLAGS] = flags & ~PG_LRU
      w[to + F_MAPPING] = inode
      w[to + F_INDEX] = index
    }
    w[to + F_MAPCOUNT] = w[from + F_MAPCOUNT]
    w[to + F_RMAP_HEAD] = w[from + F_RMAP_HEAD]
    w[from + F_MAPCOUNT] = 0
    w[from + F_RMAP_HEAD] = 0
    lru.add(target)
    this.rmap.fromMigration(target, frame)
    this.allocator.free(frame)
    return true
  }

  /** Both phases. False when the page cannot move. */
  move(frame: number, target: number): boolean {
    return this.begin(frame) && this.end(frame, target)
  }

  /**
   * Makes `n` neighbouring frames free by moving the pages in them elsewhere. Needs `n` free frames for that. → true
   * when `allocator.allocRun(n)` will find a run.
   */
  makeRun(n: number): boolean {
    const { allocator } = this
    if (!allocator.ensureFree(n)) return false
    let first = 1
    for (let f = 1; f < allocator.ram.nrFrames; f++) {
      if (!allocator.isFree(f) && !this.canMove(f)) first = f + 1
      else if (f - first + 1 === n) return this.#clear(first, n)
    }
    return false
  }

  #clear(first: number, n: number): boolean {
    const { allocator } = this
    for (let f = first; f < first + n; f++) {
      if (allocator.isFree(f)) continue
      const target = allocator.allocOutside(first, first + n)
      if (target === 0) return false
      if (!this.move(f, target)) {
        allocator.free(target)
        return false
      }
    }
    return true
  }
}
