/** The end of a data frame's use: back to the allocator, off the list that reclaim finds it on. */
import type { FrameAllocator } from './allocator.ts'
import { F_FLAGS, PG_LRU } from './frame-table.ts'
import type { Lru } from './lru.ts'

/** Gives a frame back if nothing holds it any more. → whether it did. */
export function freeUnused(allocator: FrameAllocator, lru: Lru, frame: number): boolean {
  const { frames } = allocator
  if (!frames.isUnused(frame)) return false
  if ((frames.row(frame, F_FLAGS) & PG_LRU) !== 0) lru.remove(frame)
  allocator.free(frame)
  return true
}
