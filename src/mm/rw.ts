/**
 * read() and write() on a file, through the page cache, so that they agree with every mapping at every moment.
 *
 * Positions and lengths are bytes. A short count means the end of the file, a full quota, or an error after some bytes;
 * an error with nothing done is -errno. Writes past the end extend the file. Buffers are those of base/bytes.
 *
 * A write has the file's write lock throughout, as write(2) has i_rwsem: of two that overlap one comes after the other,
 * whole, and a truncation comes before it or after it. Reads take no lock, as in Linux: they may see a part of a write.
 */
import { EFAULT, EFBIG } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { INODE_STORE } from '../cache/inodes.ts'
import { F_FLAGS, F_MAPCOUNT, PG_DIRTY } from '../frame/frame-table.ts'
import { makeRoomWithin } from './balance.ts'
import { isHeldBack, writeSome } from './dirty-limit.ts'
import { FILL_HOLES, getPage, getPageForOverwrite, KEEP_HOLES } from './filemap.ts'
import type { Machine } from './machine.ts'

/** Copies bytes of the file to `target[offset, offset + length)`. → bytes, or -errno. */
export function fileRead(
  m: Machine,
  file: number,
  position: number,
  target: Uint8Array,
  offset: number,
  length: number
): number {
  const inode = m.files.inode[file]
  const { pageSize, u8 } = m.ram
  const end = position + length
  let at = position
  while (at < Math.min(end, m.inodes.sizeBytes[inode])) {
    const index = Math.floor(at / pageSize)
    const from = at - index * pageSize
    const frame = getPage(m, inode, file, index, m.files.advice[file], KEEP_HOLES)
    if (frame < 0) return at > position ? at - position : frame
    // Other threads may have cut the file while the page was read.
    const n = Math.min(pageSize - from, end - at, m.inodes.sizeBytes[inode] - at)
    if (n <= 0) break
    const to = offset + (at - position)
    // A store that was called for the page may have taken the caller's buffer away.
    if (to + n > target.length) return at > position ? at - position : -EFAULT
    if (frame === 0) target.fill(0, to, to + n)
    else {
      const base = frame * pageSize + from
      target.set(u8.subarray(base, base + n), to)
      m.lru.markAccessed(frame)
    }
    at += n
    // Here, since the file may be cut meanwhile.
    if (at < end) makeRoomWithin(m)
  }
  return Math.max(0, at - position)
}

/** `fileWrite` with the file's write lock. → bytes, or -errno. */
export function fileWriteWhole(m: Machine, file: number, position: number, source: Uint8Array): number {
  const inode = m.files.inode[file]
  const busy = m.inodes.acquireWrite(inode)
  if (busy !== 0) return -busy
  const result = fileWrite(m, file, position, source, 0, source.length)
  m.inodes.releaseWrite(inode)
  return result
}

/** Copies `source[offset, offset + length)` to the file, whose write lock the caller has. → bytes, or -errno. */
export function fileWrite(
  m: Machine,
  file: number,
  position: number,
  source: Uint8Array,
  offset: number,
  length: number
): number {
  const inode = m.files.inode[file]
  const { pageSize, u8 } = m.ram
  const end = position + length
  if (length === 0) return 0
  if (end > MAX_FILE_PAGES * pageSize) return -EFBIG
  let at = position
  while (at < end) {
    const index = Math.floor(at / pageSize)
    const from = at - index * pageSize
    const n = Math.min(pageSize - from, end - at)
    while (isHeldBack(m, inode, m.cache.lookup(inode, index))) {
      const error = writeSome(m, inode)
      if (error !== 0) return at > position ? at - position : -error
    }
    const frame = pageForWrite(m, inode, file, index, from, n)
    if (frame < 0) return at > position ? at - position : frame
    // Also after the first page: other threads may have cut the file while this one was read.
    if (at > m.inodes.sizeBytes[inode]) zeroTail(m, inode)
    const start = offset + (at - position)
    if (start + n > source.length) {
      dropUnwritten(m, frame, inode)
      return at > position ? at - position : -EFAULT
    }
    u8.set(source.subarray(start, start + n), frame * pageSize + from)
    m.cache.setDirty(frame)
    m.lru.markAccessed(frame)
    at += n
    if (at > m.inodes.sizeBytes[inode]) m.inodes.sizeBytes[inode] = at
    if (at < end) makeRoomWithin(m)
  }
  return length
}

/**
 * A store that was called for the page has taken the caller's buffer away: a page that was to be overwritten whole, and
 * so was not read, goes again.
 */
function dropUnwritten(m: Machine, frame: number, inode: number): void {
  const { frames, cache } = m
  const isClean = (frames.row(frame, F_FLAGS) & PG_DIRTY) === 0 && frames.row(frame, F_MAPCOUNT) === 0
  if (m.inodes.kind[inode] !== INODE_STORE || !isClean || !frames.isAtRest(frame)) return
  cache.remove(frame)
  m.putFrame(frame)
}

function pageForWrite(m: Machine, inode: number, file: number, index: number, from: number, n: number): number {
  const { pageSize } = m.ram
  const size = m.inodes.sizeBytes[inode]
  if (m.inodes.kind[inode] !== INODE_STORE) return getPage(m, inode, file, index, m.files.advice[file], FILL_HOLES)
  const whole = from === 0 && (n === pageSize || index * pageSize + n >= size)
  if (whole || index * pageSize >= size) return getPageForOverwrite(m, inode, index)
  const frame = getPage(m, inode, file, index, m.files.advice[file], KEEP_HOLES)
  return frame === 0 ? pageForWrite(m, inode, file, index, from, n) : frame
}

/**
 * Zeroes what stores through a mapping left past the end in the last page, before the end moves on. Shared memory
 * keeps it, as tmpfs does (measured on 3.19 and 6.18).
 */
export function zeroTail(m: Machine, inode: number): void {
  if (m.inodes.kind[inode] !== INODE_STORE) return
  const size = m.inodes.sizeBytes[inode]
  const from = size % m.ram.pageSize
  if (from === 0) return
  const frame = m.cache.lookup(inode, Math.floor(size / m.ram.pageSize))
  if (frame !== 0) m.ram.zeroPart(frame, from, m.ram.pageSize)
}
