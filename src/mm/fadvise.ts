/**
 * posix_fadvise (Linux: mm/fadvise.c): how an open file will be used, or what of it is not needed for now.
 *
 * Lock: the machine lock, within `onFile`.
 */
import {
  POSIX_FADV_DONTNEED,
  POSIX_FADV_NOREUSE,
  POSIX_FADV_NORMAL,
  POSIX_FADV_RANDOM,
  POSIX_FADV_SEQUENTIAL,
  POSIX_FADV_WILLNEED
} from '../abi/mman.ts'
import { RA_NORMAL, RA_RANDOM, RA_SEQUENTIAL } from '../cache/fill.ts'
import { CLEAN, INODE_STORE } from '../cache/inodes.ts'
import { F_FLAGS, F_MAPCOUNT, PG_DIRTY, PG_MLOCKED } from '../frame/frame-table.ts'
import type { Machine } from './machine.ts'
import { fileWriteback } from './msync.ts'

export function isFileAdvice(advice: number): boolean {
  return Number.isInteger(advice) && advice >= POSIX_FADV_NORMAL && advice <= POSIX_FADV_NOREUSE
}

/** Advises bytes [from, end) of an open file. Memory that has no store takes it and does nothing, as tmpfs. → 0. */
export function fileAdvise(m: Machine, file: number, from: number, end: number, advice: number): 0 {
  const inode = m.files.inode[file]
  if (m.inodes.kind[inode] !== INODE_STORE) return 0
  const { pageSize } = m.ram
  const stop = Math.min(end, m.inodes.sizeBytes[inode])
  if (advice === POSIX_FADV_NORMAL) m.files.advice[file] = RA_NORMAL
  else if (advice === POSIX_FADV_RANDOM) m.files.advice[file] = RA_RANDOM
  else if (advice === POSIX_FADV_SEQUENTIAL) m.files.advice[file] = RA_SEQUENTIAL
  else if (advice === POSIX_FADV_WILLNEED) {
    if (from < stop) m.filler.readahead(inode, Math.floor(from / pageSize), Math.ceil(stop / pageSize) - 1)
  } else if (advice === POSIX_FADV_DONTNEED && from < end) {
    // The page that the range begins in, or ends in before the file does, is needed for its other part.
    const last = (end >= stop && stop === m.inodes.sizeBytes[inode] ? Math.ceil : Math.floor)(stop / pageSize) - 1
    dropUnneeded(m, file, inode, Math.ceil(from / pageSize), last)
  }
  return 0
}

/**
 * Writes what is dirty of pages [first, last], and drops those that are clean then and that nobody has mapped or holds.
 */
function dropUnneeded(m: Machine, file: number, inode: number, first: number, last: number): void {
  if (last < first) return
  // An error is the inode's, and told by the next sync.
  if (m.cache.nrDirty(inode) !== 0) fileWriteback(m, file, first, last)
  for (const frame of m.cache.collect(inode, first, last, CLEAN)) {
    if (!m.frames.isAtRest(frame) || m.frames.pins(frame) !== 0 || m.frames.row(frame, F_MAPCOUNT) !== 0) continue
    if ((m.frames.row(frame, F_FLAGS) & (PG_DIRTY | PG_MLOCKED)) !== 0) continue
    m.cache.remove(frame)
    m.putFrame(frame)
  }
}
