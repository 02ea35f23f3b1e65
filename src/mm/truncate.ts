/**
 * Truncation, hole punching, and taking file pages from all address spaces (Linux: mm/truncate.c,
 * unmap_mapping_range).
 *
 * What an address shows survives: an entry off its linear place turns into a file entry with the page it had, and
 * shows that page again when the file grows back.
 *
 * Linux searches every nonlinear vma of the file, whole; here the pages themselves say who maps them (rmap).
 *
 * Where threads share the machine, the store cuts in a window, with the write lock and the inode lock of the file held.
 * It is asked first, and pages and size change once it has done so, as Linux does for file systems whose bytes are
 * elsewhere (fuse_do_setattr, nfs_setattr): if the store refuses, nothing has changed. Until then the pages are what
 * they were, for whoever has them mapped; those that are not in the cache are not sent for. An allocation may have to
 * write one of them meanwhile, perhaps behind the cut: then the store is asked again. (FUSE holds such writes back,
 * fuse_set_nowrite. An allocation can't wait.)
 */
import { EFBIG, EINVAL, EIO, ENOMEM, EOPNOTSUPP } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { CLEAN, CUT_AGAIN, CUT_ASKS, CUT_NONE, CUT_TORN, CUT_WAITS, INODE_RAMFS, INODE_STORE } from '../cache/inodes.ts'
import { F_FLAGS, F_INDEX, F_MAPCOUNT, F_MAPPING, PG_ANON, PG_DIRTY } from '../frame/frame-table.ts'
import { TRACE_TRUNCATE } from '../frame/trace.ts'
import { NR_SHMEM } from '../frame/vmstat.ts'
import { pteFile, pteMappedFrame, pteMaps } from '../pgtable/pte.ts'
import type { GuardedStore } from '../store/guard.ts'
import { IO_NONE } from '../sync/threads.ts'
import { makeRoomWithin } from './balance.ts'
import { FILL_HOLES, getPage, KEEP_HOLES, uncharge } from './filemap.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'
import { zeroTail } from './rw.ts'
import { remembered, zapEntry } from './zap.ts'

/** Private copies of the pages go too (truncate), or stay (punch, invalidate). */
export const EVEN_COWS = 1 as const
export const KEEP_COWS = 0 as const

/** Takes file pages [first, last] out of every address space. */
export function unmapMappingRange(
  m: Machine,
  inode: number,
  first: number,
  last: number,
  cows: typeof EVEN_COWS | typeof KEEP_COWS
): void {
  if (last < first) return
  const { vmas } = m
  let vma = vmas.imapFirst(inode, first, last)
  while (vma !== 0) {
    const pgoff = vmas.pgoff[vma]
    const start = vmas.start[vma] + Math.max(0, first - pgoff)
    const end = Math.min(vmas.end[vma], vmas.start[vma] + (last - pgoff) + 1)
    const mm = vmas.mm[vma]
    m.notifiers.rangeStart(mm, start, end)
    unmapLinear(m, mm, vma, start, end, inode, first, last, cows)
    m.notifiers.rangeEnd(mm, start, end)
    vma = vmas.imapAfter(inode, vma, first, last)
  }
  if (m.nodes.nrNodes === 0) return
  const pages = m.cache.collect(inode, first, last, CLEAN)
  for (const frame of pages) {
    if (m.frames.row(frame, F_MAPCOUNT) === 0) continue
    m.rmap.unmapAll(frame)
    m.afterUnmap(frame)
  }
}

function unmapLinear(
  m: Machine,
  mm: number,
  vma: number,
  start: number,
  end: number,
  inode: number,
  first: number,
  last: number,
  cows: number
): void {
  const { tables, frames } = m
  const { i32 } = m.ram
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    let slot = tables.slot
    const table = slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = i32[slot]
      if (pte === 0 || pteFile(pte)) continue
      if (pteMaps(pte)) {
        const frame = pteMappedFrame(pte)
        if (frame !== 0 && (frames.row(frame, F_FLAGS) & PG_ANON) === 0) {
          const index = frames.row(frame, F_INDEX)
          if (frames.row(frame, F_MAPPING) !== inode || index < first || index > last) continue
        } else if (cows === KEEP_COWS) continue
      } else if (cows === KEEP_COWS) continue
      const left = remembered(m, vma, vpn, pte)
      tables.set(slot, left)
      zapEntry(m, mm, vma, vpn, pte)
    }
    tables.releaseIfEmpty(table)
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}

/** Drops cached pages [first, last] and swapped-out ones, dirty or not. They are mapped nowhere. */
function dropPages(m: Machine, inode: number, first: number, last: number): void {
  if (last < first) return
  const held = m.cache.inodes.isShmem(inode) || m.inodes.kind[inode] === INODE_RAMFS
  const pages = m.cache.collect(inode, first, last, CLEAN)
  for (const frame of pages) {
    m.cache.remove(frame)
    m.putFrame(frame)
  }
  if (!held) return
  m.vmstat[NR_SHMEM] -= pages.length
  uncharge(m, inode, pages.length + m.swap.dropRange(inode, first, last))
}

/** Sets the size of a file in bytes. → 0 or -errno, with nothing changed. */
export function truncateInode(m: Machine, inode: number, sizeBytes: number): number {
  if (sizeBytes > MAX_FILE_PAGES * m.ram.pageSize) return -EFBIG
  if (m.inodes.pager[inode] !== 0) return -EOPNOTSUPP
  const error = beginCut(m, inode, Math.floor(sizeBytes / m.ram.pageSize), MAX_FILE_PAGES)
  if (error !== 0) return -error
  const result = truncateLocked(m, inode, sizeBytes)
  endCut(m, inode)
  return result
}

/**
 * The store of an open file was opened once more: what it has by now is true for all. `isCut`: opening it has cut off
 * all bytes, so that nothing of what is in memory is left, also of what was never written. → 0 or -errno.
 */
export function followStore(m: Machine, inode: number, isCut: boolean): number {
  const { sizeBytes, storeBytes, pager } = m.inodes
  if (pager[inode] !== 0 || (!isCut && m.inodes.store(inode)?.size() === storeBytes[inode])) return 0
  const error = beginCut(m, inode, 0, MAX_FILE_PAGES)
  if (error !== 0) return -error
  // Not before: others may have been writing.
  const size = Math.min(m.inodes.store(inode)?.size() ?? 0, MAX_FILE_PAGES * m.ram.pageSize)
  let result = Math.min(size, 0)
  if (size >= 0 && (isCut || size < storeBytes[inode])) {
    storeBytes[inode] = Math.min(size, storeBytes[inode])
    result = truncateLocked(m, inode, isCut ? 0 : size, false)
  }
  if (result === 0) {
    if (size > sizeBytes[inode]) {
      zeroTail(m, inode)
      dropTail(m, inode)
      sizeBytes[inode] = size
    }
    storeBytes[inode] = size
  }
  endCut(m, inode)
  return result
}

/**
 * The store has more by now than the page that the end of the file was in: it is read again, unless it is to be
 * written.
 */
function dropTail(m: Machine, inode: number): void {
  const index = Math.floor(m.inodes.sizeBytes[inode] / m.ram.pageSize)
  const frame = m.cache.lookup(inode, index)
  if (frame === 0 || (m.frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0) return
  unmapMappingRange(m, inode, index, index, KEEP_COWS)
  dropPages(m, inode, index, index)
}

/**
 * Takes the write lock and the inode lock to cut [first, last] away; faults that would bring in more of them wait. → 0
 * or an errno.
 */
function beginCut(m: Machine, inode: number, first: number, last: number): number {
  const busy = m.inodes.acquireWrite(inode)
  if (busy !== 0) return busy
  const error = m.inodes.acquire(inode)
  if (error !== 0) m.inodes.releaseWrite(inode)
  else setCut(m, inode, CUT_WAITS, first, last)
  return error
}

function setCut(m: Machine, inode: number, state: number, first: number, last: number): void {
  if (!m.sync.isShared) return
  m.inodes.cutting[inode] = state
  m.inodes.cutFirst[inode] = first
  m.inodes.cutLast[inode] = Math.min(last, MAX_FILE_PAGES)
}

function endCut(m: Machine, inode: number): void {
  m.inodes.noteStored(inode)
  m.inodes.cutting[inode] = CUT_NONE
  m.inodes.release(inode)
  m.inodes.releaseWrite(inode)
}

/** Waits until none of the pages [first, last] is on its way from the store. → 0 or an errno. */
function waitForFills(m: Machine, inode: number, first: number, last: number): number {
  m.sync.beginWait()
  while (m.inodes.nrFilling(inode) !== 0) {
    const busy = m.cache.collect(inode, first, last, CLEAN).find(frame => !m.frames.isUptodate(frame))
    if (busy === undefined) return 0
    m.waitInode = inode
    m.waitFrame = busy
    const error = m.waitForPageInside()
    if (error !== 0) return error
  }
  return 0
}

/**
 * Has the store cut away pages [first, last], in a window. Meanwhile reclaim may have written some of them: then it is
 * asked once more, so that nothing is left of them; each time there are fewer, since none are sent for. → 0 or -errno,
 * with CUT_TORN if it had cut before it failed.
 */
function askStore(m: Machine, inode: number, first: number, last: number, ask: () => number): number {
  if (!m.sync.isShared) return ask()
  const { cutting } = m.inodes
  for (let round = 0; ; round++) {
    let result = -waitForFills(m, inode, first, last)
    if (result === 0) {
      setCut(m, inode, CUT_ASKS, first, last)
      m.sync.openWindow(IO_NONE, inode, 0, 0)
      result = ask()
      m.sync.closeWindow()
      if (result >= 0 && cutting[inode] === CUT_AGAIN) continue
    }
    if (result < 0 && round > 0) cutting[inode] = CUT_TORN
    return result
  }
}

/** What is in the cache of pages whose bytes in the store nobody knows any more is written back. */
export function redirty(m: Machine, inode: number, first: number, last: number): void {
  for (const frame of m.cache.collect(inode, first, last, CLEAN)) {
    if (m.frames.isUptodate(frame)) m.cache.setDirty(frame)
  }
}

/**
 * → 0, or -errno: then nothing has changed, or, with CUT_TORN, each byte behind the new end is what it was, or zero.
 */
function truncateStore(m: Machine, inode: number, store: GuardedStore, sizeBytes: number): number {
  if (!m.sync.isShared) return store.truncate(sizeBytes)
  const { cutting, storeBytes, isUnsized } = m.inodes
  const first = Math.floor(sizeBytes / m.ram.pageSize)
  const stored = storeBytes[inode]
  const wasUnsized = isUnsized[inode]
  // If this thread ends within: what the store may not have any more reads as zero, and the next sync makes it as long
  // as the file.
  isUnsized[inode] = 1
  if (sizeBytes < stored) storeBytes[inode] = sizeBytes
  const result = askStore(m, inode, first, MAX_FILE_PAGES, () => store.truncate(sizeBytes))
  if (result >= 0) isUnsized[inode] = 0
  else if (cutting[inode] === CUT_TORN) redirty(m, inode, first, MAX_FILE_PAGES)
  else {
    isUnsized[inode] = wasUnsized
    storeBytes[inode] = Math.max(storeBytes[inode], stored)
  }
  return result
}

function truncateLocked(m: Machine, inode: number, sizeBytes: number, asksStore = true): number {
  const { pageSize } = m.ram
  const busy = waitForFills(m, inode, Math.floor(sizeBytes / pageSize), MAX_FILE_PAGES)
  if (busy !== 0) return -busy
  const store = m.inodes.store(inode)
  const before = m.inodes.sizeBytes[inode]
  const tail = sizeBytes % pageSize
  const tailIndex = Math.floor(sizeBytes / pageSize)
  let tailPage = 0
  if (sizeBytes < before && tail !== 0) {
    // The page that the new end is in must be in hand before anything changes.
    tailPage = getPage(m, inode, 0, tailIndex, 0, KEEP_HOLES)
    if (tailPage < 0) return tailPage
  }
  if (tailPage !== 0 && !m.frames.pin(tailPage)) return -ENOMEM
  if (tailPage !== 0 && m.sync.isShared) m.sync.threads.notePin(m.sync.me, tailPage)
  const result = store === undefined || !asksStore ? 0 : truncateStore(m, inode, store, sizeBytes)
  if (tailPage !== 0 && m.sync.isShared) m.sync.threads.forgetPin(m.sync.me, tailPage)
  if (tailPage !== 0) m.frames.unpin(tailPage)
  if (result < 0) return result
  // Not before: others may store behind the end as long as that is the end.
  if (sizeBytes > before) zeroTail(m, inode)
  m.inodes.sizeBytes[inode] = sizeBytes
  m.inodes.storeBytes[inode] = sizeBytes
  m.trace.add(TRACE_TRUNCATE, inode, Math.ceil(before / pageSize), Math.ceil(sizeBytes / pageSize), 0)
  const isShmem = m.inodes.isShmem(inode)
  if (sizeBytes > before || (sizeBytes === before && !isShmem)) return 0
  const first = Math.ceil(sizeBytes / pageSize)
  unmapMappingRange(m, inode, first, MAX_FILE_PAGES, EVEN_COWS)
  dropPages(m, inode, first, MAX_FILE_PAGES)
  if (tailPage !== 0) {
    // A store zeroed its own copy. Linux writes the page, unless it is a hole.
    if (store === undefined || (m.policy === POLICY_LINUX && !m.ram.isZero(tailPage))) m.cache.setDirty(tailPage)
    m.ram.zeroPart(tailPage, tail, pageSize)
  }
  return 0
}

/**
 * Makes bytes [from, from + length) read as zero, without changing the size. → 0 or -errno; after an error each byte of
 * the range is what it was, or zero.
 */
export function punchHole(m: Machine, inode: number, from: number, length: number): number {
  if (length <= 0 || from < 0) return -EINVAL
  if (m.inodes.kind[inode] === INODE_RAMFS || m.inodes.pager[inode] !== 0) return -EOPNOTSUPP
  const { pageSize } = m.ram
  const error = beginCut(m, inode, Math.floor(from / pageSize), Math.ceil((from + length) / pageSize) - 1)
  if (error !== 0) return -error
  const result = punchLocked(m, inode, from, length)
  endCut(m, inode)
  return result
}

/** `punchHole` of a file that has at least `from + length` bytes afterwards if it `grows`. */
export function zeroRange(m: Machine, inode: number, from: number, length: number, grows: boolean): number {
  if (m.inodes.kind[inode] === INODE_RAMFS || m.inodes.pager[inode] !== 0) return -EOPNOTSUPP
  // 3.19's tmpfs punches, but does not zero.
  if (m.policy === POLICY_LINUX && m.inodes.isShmem(inode)) return -EOPNOTSUPP
  const error = beginCut(m, inode, Math.floor(from / m.ram.pageSize), MAX_FILE_PAGES)
  if (error !== 0) return -error
  // First of all, so that what stores through mappings left past the end is zeroed as well.
  let result = 0
  if (grows && from + length > m.inodes.sizeBytes[inode]) result = truncateLocked(m, inode, from + length)
  if (result >= 0) result = punchLocked(m, inode, from, length)
  endCut(m, inode)
  return result
}

/**
 * Gives shared memory the pages of bytes [from, from + length) that it lacks, also past its end; the file has at least
 * `from + length` bytes afterwards if it `grows`. → 0 or -errno, with the pages that it had (Linux: shmem_fallocate; a
 * file system with a store of its own would reserve blocks).
 */
export function allocateRange(
  m: Machine,
  inode: number,
  file: number,
  from: number,
  length: number,
  grows: boolean
): number {
  if (m.inodes.kind[inode] === INODE_RAMFS || m.inodes.pager[inode] !== 0) return -EOPNOTSUPP
  const { pageSize } = m.ram
  const end = from + length
  const error = beginCut(m, inode, Math.ceil(end / pageSize), MAX_FILE_PAGES)
  if (error !== 0) return -error
  let result = 0
  if (m.inodes.isShmem(inode))
    result = fillHoles(m, inode, file, Math.floor(from / pageSize), Math.ceil(end / pageSize))
  if (result === 0 && grows && end > m.inodes.sizeBytes[inode]) result = truncateLocked(m, inode, end)
  endCut(m, inode)
  return result
}

/** Makes the holes of pages [first, stop) pages, or none of them. → 0 or -errno. */
function fillHoles(m: Machine, inode: number, file: number, first: number, stop: number): number {
  const made: number[] = []
  for (let index = first; index < stop; index++) {
    if (m.cache.lookup(inode, index) !== 0 || m.swap.find(inode, index) !== 0) continue
    const frame = getPage(m, inode, file, index, 0, FILL_HOLES)
    if (frame < 0) {
      for (const one of made) dropUnused(m, inode, one)
      return frame
    }
    // Reclaim drops pages that nobody has written: these were promised.
    m.cache.setDirty(frame)
    made.push(index)
    makeRoomWithin(m)
  }
  return 0
}

/** Takes a page back that nobody has used: it is mapped nowhere, and zeros. */
function dropUnused(m: Machine, inode: number, index: number): void {
  const frame = m.cache.lookup(inode, index)
  if (frame === 0 || !m.frames.isAtRest(frame) || m.frames.row(frame, F_MAPCOUNT) !== 0) return
  if (m.ram.isZero(frame)) dropPages(m, inode, index, index)
}

function punchLocked(m: Machine, inode: number, from: number, length: number): number {
  const { pageSize } = m.ram
  const busy = waitForFills(m, inode, Math.floor(from / pageSize), Math.ceil((from + length) / pageSize) - 1)
  if (busy !== 0) return -busy
  const size = m.inodes.sizeBytes[inode]
  const end = from + length
  const firstWhole = Math.ceil(from / pageSize)
  const lastWhole = Math.floor(end / pageSize) - 1
  const stop = Math.min(end, size)
  if (from < stop) {
    const error = zeroEdges(m, inode, from, stop, firstWhole, lastWhole)
    if (error < 0) return error
  }
  if (m.policy === POLICY_LINUX && m.cache.inodes.isShmem(inode) && end < pageSize) {
    // A wrap in tmpfs of 3.19 (measured): a punch inside page 0 unmaps all the others. Contents stay.
    unmapMappingRange(m, inode, from === 0 ? 0 : 1, MAX_FILE_PAGES, KEEP_COWS)
  }
  if (lastWhole < firstWhole) return 0
  const store = m.inodes.store(inode)
  if (store !== undefined && from < size) {
    const storeEnd = Math.min((lastWhole + 1) * pageSize, size)
    const position = firstWhole * pageSize
    const ask = () => punchStore(store, position, storeEnd - position)
    const error = askStore(m, inode, firstWhole, lastWhole, ask)
    if (error < 0) {
      // The store may have zeros for part of it by now: what the cache shows is written back rather than dropped.
      redirty(m, inode, firstWhole, lastWhole)
      return error
    }
  }
  unmapMappingRange(m, inode, firstWhole, lastWhole, KEEP_COWS)
  dropPages(m, inode, firstWhole, lastWhole)
  return 0
}

/** Zeroes the parts of pages at both ends of the range, in the cache. */
function zeroEdges(
  m: Machine,
  inode: number,
  from: number,
  stop: number,
  firstWhole: number,
  lastWhole: number
): number {
  const { pageSize } = m.ram
  const headIndex = Math.floor(from / pageSize)
  if (headIndex < firstWhole) {
    const to = Math.min(stop, firstWhole * pageSize) - headIndex * pageSize
    const error = zeroInPage(m, inode, headIndex, from - headIndex * pageSize, to)
    if (error < 0) return error
  }
  const tailIndex = Math.floor(stop / pageSize)
  const tail = stop - tailIndex * pageSize
  if (tail === 0 || tailIndex <= lastWhole || (tailIndex === headIndex && headIndex < firstWhole)) return 0
  return zeroInPage(m, inode, tailIndex, 0, tail)
}

function zeroInPage(m: Machine, inode: number, index: number, from: number, to: number): number {
  const holes = m.inodes.kind[inode] === INODE_STORE ? FILL_HOLES : KEEP_HOLES
  const frame = getPage(m, inode, 0, index, 0, holes)
  if (frame <= 0) return frame
  m.ram.zeroPart(frame, from, to)
  m.cache.setDirty(frame)
  return 0
}

function punchStore(store: GuardedStore, position: number, length: number): number {
  if (length <= 0) return 0
  const result = store.punch(position, length)
  if (result !== -EOPNOTSUPP) return result
  const zeros = new Uint8Array(Math.min(length, 1 << 20))
  for (let at = 0; at < length; at += zeros.length) {
    const n = Math.min(zeros.length, length - at)
    const done = store.write(position + at, zeros, 0, n)
    if (done !== n) return done < 0 ? done : -EIO
  }
  return 0
}
