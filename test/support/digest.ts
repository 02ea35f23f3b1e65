/**
 * What of a machine a refused call must not change, as text: address spaces, vmas, entries, frames and their bytes,
 * files, swap. Counters of events and what only remembers where to look (caches, hints) are left out.
 */
import { createHash } from 'node:crypto'
import { MM_FREE_HINT, MM_SHIFT, MM_VMA_CACHE } from '../../src/frame/mm-table.ts'
import type { Machine } from '../../src/mm/machine.ts'

const MEMORY_ONLY = [MM_VMA_CACHE, MM_FREE_HINT]

export function digest(m: Machine): string {
  const hash = createHash('sha1')
  const words = m.mms.w.slice()
  for (let mm = 0; mm <= m.mms.maxMms; mm++) for (const word of MEMORY_ONLY) words[(mm << MM_SHIFT) + word] = 0
  const { frames, vmas, inodes, files, swap, lru, cache } = m
  const columns: readonly ArrayLike<number>[] = [
    words,
    frames.flags,
    frames.mapcount,
    frames.mapping,
    frames.index,
    frames.rmapHead,
    vmas.start,
    vmas.end,
    vmas.flags,
    vmas.file,
    vmas.pgoff,
    vmas.anon,
    inodes.kind,
    inodes.refs,
    inodes.nrPages,
    inodes.nrHeld,
    inodes.sizeBytes,
    files.refs,
    files.mode,
    files.inode,
    swap.count,
    swap.ownerInode,
    lru.lists.count,
    cache.own.count,
    m.fds,
    m.quotas
  ]
  for (const column of columns) hash.update(Array.from(column).join())
  return hash.update(m.ram.u8.slice()).digest('hex')
}
