/**
 * The limit of dirty pages (Linux: balance_dirty_pages): whoever is about to dirty one more page of a store's file than
 * may be dirty writes some back first. So a store that fails or hangs fills three quarters of what files can have of
 * memory at most, and every other file can be read. If the store fails, the access does, with the store's error; what
 * is dirty stays.
 *
 *  isHeldBack   whether a page of the file has to be written before another one gets dirty
 *  writeSome    writes the pages around the one that has been dirty for longest
 *
 * What files can have is what is free or on their lists of reclaim's: not private and shared memory, tables, locked
 * pages. A store may have three quarters of it dirty, all together seven eighths, where one that has less than a
 * sixteenth goes on nevertheless.
 */
import { DIRTY, INODE_STORE } from '../cache/inodes.ts'
import { IN_WINDOWS, UNDER_LOCK } from '../cache/writeback.ts'
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE } from '../frame/lru.ts'
import type { Machine } from './machine.ts'

/** `frame` is the page if it is in memory, else 0. */
export function isHeldBack(m: Machine, inode: number, frame: number): boolean {
  const { inodes, cache, allocator } = m
  if (inodes.kind[inode] !== INODE_STORE || (frame !== 0 && m.frames.isDirty(frame))) return false
  const all = inodes.nrDirtyOfStores
  // Most often so: no need to count.
  if (2 * all < allocator.nrFree) return false
  const pages = allocator.nrFree + m.lru.count(LRU_INACTIVE_FILE) + m.lru.count(LRU_ACTIVE_FILE)
  const own = cache.nrDirty(inode)
  if (own === 0) return false
  const isOver = own >= Math.max(1, (pages * 3) >>> 2) || (all >= (pages * 7) >>> 3 && own >= pages >>> 4)
  return isOver && inodes.store(inode)?.isReachable === true
}

/** Within a verb; waits for another thread that writes the file. → 0 or an errno. */
export function writeSome(m: Machine, inode: number): number {
  const error = m.inodes.acquire(inode)
  if (error !== 0) return error
  const frame = m.cache.own.first(inode * 2 + DIRTY)
  const result = frame === 0 ? 0 : m.writeback.writeAround(frame, m.sync.isShared ? IN_WINDOWS : UNDER_LOCK)
  m.inodes.release(inode)
  return -result
}

/** `writeSome` of `waitInode` in the middle of a fault. → 0 or an errno, which is in `writeRefused`, too. */
export function writeFirst(m: Machine): number {
  const wasInside = m.inside
  // A store is called.
  m.inside = true
  m.writeRefused = writeSome(m, m.waitInode)
  m.inside = wasInside
  return m.writeRefused
}
