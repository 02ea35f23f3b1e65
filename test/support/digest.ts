/**
 * What of a machine a refused call must not change, as text: address spaces, vmas, entries, frames and their bytes,
 * files, swap. Counters of events and what only remembers where to look (caches, hints) are left out.
 */
import { createHash } from 'node:crypto'
import { F_CACHE_NEXT, F_LRU_NEXT, F_LRU_PREV, FRAME_SHIFT } from '../../src/frame/frame-table.ts'
import { MM_FREE_HINT, MM_SHIFT, MM_VMA_CACHE } from '../../src/frame/mm-table.ts'
import type { Machine } from '../../src/mm/machine.ts'

const MEMORY_ONLY = [MM_VMA_CACHE, MM_FREE_HINT]
const ORDER_ONLY = [F_CACHE_NEXT, F_LRU_NEXT, F_LRU_PREV]

export function digest(m: Machine): string {
  const hash = createHash('sha1')
  const words = m.mms.w.slice()
  for (let mm = 0; mm <= m.mms.maxMms; mm++) for (const word of MEMORY_ONLY) words[(mm << MM_SHIFT) + word] = 0
  const frameWords = m.frames.w.slice()
  for (let f = 0; f < m.ram.nrFrames; f++) for (const word of ORDER_ONLY) frameWords[(f << FRAME_SHIFT) + word] = 0
  const { vmas, inodes, files, swap, lru, cache } = m
  const columns: readonly ArrayLike<number>[] = [
    words,
    frameWords,
    vmas.start,
    vmas.end,
    vmas.flags,
    vmas.file,
    vmas.pgoff,
    vmas.anon,
    inodes.kind,
    inodes.refs,
    inodes.nrHeld,
    inodes.sizeBytes,
    files.refs,
    files.mode,
    files.inode,
    swap.count,
    swap.ownerInode,
    lru.lists.ends,
    lru.lists.counts,
    cache.own.ends,
    cache.own.counts,
    m.fds,
    m.quotas
  ]
  for (const column of columns) hash.update(Array.from(column).join())
  return hash.update(m.ram.u8.slice()).digest('hex')
}
