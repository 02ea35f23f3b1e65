/**
 * The page of an inode, wherever it is: in the cache, in swap, in the store, or nowhere yet (Linux: filemap_fault and
 * shmem_getpage).
 *
 * Results: a frame > 0, 0 for a hole that was not to be filled and for a page that was cut away while it was waited
 * for, or -errno (ENOMEM, EIO and the store's own, ENOSPC). The caller pins the frame if it allocates anything before
 * it is done with it.
 *
 * Lock: machine lock, given back while a store reads and while another thread's read of the page is waited for. The
 * frame that comes back is in the cache and valid, with the lock held.
 */
import { ENOMEM, ENOSPC } from '../abi/errno.ts'
import { FILL_CROWDED, FILL_PARKED, RA_RANDOM } from '../cache/fill.ts'
import { INODE_RAMFS, INODE_STORE } from '../cache/inodes.ts'
import { F_FLAGS, FRAME_SHIFT, PG_SWAPBACKED, PG_UNEVICTABLE, PG_UPTODATE } from '../frame/frame-table.ts'
import { NR_SHMEM } from '../frame/vmstat.ts'
import { UNLOCKED } from '../sync/lock-order.ts'
import { T_MMAP_MODE } from '../sync/threads.ts'
import { takeEarly } from './early-read.ts'
import type { Machine } from './machine.ts'
import { swapInShared } from './swap-in.ts'

/** Fills holes of shared memory with a new zero page, counted against its quota. */
export const FILL_HOLES = 1 as const
export const KEEP_HOLES = 0 as const

export function getPage(
  m: Machine,
  inode: number,
  file: number,
  index: number,
  advice: number,
  holes: typeof FILL_HOLES | typeof KEEP_HOLES
): number {
  const page = awaitPage(m, inode, file, index, advice, holes)
  if (m.sync.line.isIn) m.sync.line.leave()
  return page
}

function awaitPage(
  m: Machine,
  inode: number,
  file: number,
  index: number,
  advice: number,
  holes: typeof FILL_HOLES | typeof KEEP_HOLES
): number {
  const since = m.filler.requests.nrFailures
  let isInFile = false
  for (let round = 0; ; round++) {
    const cached = m.cache.lookup(inode, index)
    if (cached !== 0 && m.frames.isUptodate(cached)) {
      m.filler.noteHit(cached)
      return cached
    }
    const isPastEnd = index >= m.nrFilePages(inode)
    if (round === 0) isInFile = !isPastEnd
    if (cached === 0) {
      if (m.isOthersTurn && m.sync.threads.w[m.sync.row + T_MMAP_MODE] === UNLOCKED) {
        if (round === 0) m.sync.beginWait()
        m.queueForFrame()
        m.waitForPageInside()
        continue
      }
      // Cut away meanwhile: there is no such page any more. (A write past the end of shared memory makes one.)
      if (round > 0 && isPastEnd && (isInFile || m.inodes.kind[inode] === INODE_STORE)) return 0
      const failed = fetchError(m, since, inode, index)
      if (failed !== 0) return -failed
      const frame = bringPage(m, inode, file, index, advice, holes)
      if (frame === -ENOMEM) {
        const error = m.waitForFrame()
        if (error !== 0) return -error
        continue
      }
      if (frame > FILL_PARKED) return frame
      if (round === 0) m.sync.beginWait()
      if (frame === FILL_CROWDED) {
        const error = m.waitForArrivals()
        if (error !== 0) return -error
        continue
      }
    } else if (round === 0) m.sync.beginWait()
    m.waitFrame = m.cache.lookup(inode, index)
    m.waitInode = inode
    const error = m.waitForPageInside()
    if (error !== 0) return -error
  }
}

/** The errno for which a page that was waited for could not be had, of failures after the first `since`; 0 for none. */
export function fetchError(m: Machine, since: number, inode: number, index: number): number {
  if (m.inodes.pager[inode] === 0) return 0
  const { requests } = m.filler
  const failure = requests.failureSince(since, inode, index)
  m.lastFailure = failure
  return failure < 0 ? 0 : requests.errnoOf(failure)
}

/**
 * `getPage` of a page that is known not to be in the cache. FILL_PARKED when its store was asked and will answer later,
 * or when another thread is about to cut pages away: faults that kept pages coming would keep it from that for good
 * (Linux 3.16, shmem's punch). FILL_CROWDED when its store cannot be asked before other pages came.
 */
export function bringPage(
  m: Machine,
  inode: number,
  file: number,
  index: number,
  advice: number,
  holes: typeof FILL_HOLES | typeof KEEP_HOLES
): number {
  const kind = m.inodes.kind[inode]
  if (m.inodes.isCutByOthers(inode, index)) return FILL_PARKED
  if (kind === INODE_STORE) {
    const early = takeEarly(m, inode, file, index, advice)
    if (early !== 0) return early
    const frame = m.filler.fill(inode, file, index, advice)
    return frame === 0 ? -ENOMEM : frame
  }
  const slot = m.swap.nrUsed === 0 ? 0 : m.swap.find(inode, index)
  if (slot !== 0) return swapInShared(m, inode, index, slot)
  if (holes === KEEP_HOLES && kind !== INODE_RAMFS) return 0
  if (!charge(m, inode)) return -ENOSPC
  const frame = m.allocator.allocZeroed()
  if (frame === 0) {
    uncharge(m, inode, 1)
    return -ENOMEM
  }
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] =
    PG_UPTODATE | PG_SWAPBACKED | (kind === INODE_RAMFS ? PG_UNEVICTABLE : 0)
  m.cache.add(frame, inode, index)
  m.lru.add(frame)
  m.vmstat[NR_SHMEM]++
  return frame
}

/** A page of a store's file that will be overwritten whole: no read, whatever it was. → frame, or -errno. */
export function getPageForOverwrite(m: Machine, inode: number, index: number): number {
  const cached = m.cache.lookup(inode, index)
  if (cached !== 0) {
    if (m.frames.isUptodate(cached)) return cached
    // It is being read: what comes is overwritten.
    const page = getPage(m, inode, 0, index, RA_RANDOM, KEEP_HOLES)
    if (page !== 0) return page
  }
  const frame = m.allocator.allocZeroed()
  if (frame === 0) {
    const error = m.waitForFrame()
    return error === 0 ? getPageForOverwrite(m, inode, index) : -error
  }
  if (m.sync.line.isIn) m.sync.line.leave()
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_UPTODATE
  m.cache.add(frame, inode, index)
  m.lru.add(frame)
  return frame
}

/** Counts a page of shared memory against its inode's group. False when the group is full. */
function charge(m: Machine, inode: number): boolean {
  const quota = m.inodes.quota[inode]
  if (quota !== 0) {
    if (m.quotas[quota * 2 + 1] >= m.quotas[quota * 2]) return false
    m.quotas[quota * 2 + 1]++
  }
  m.inodes.nrHeld[inode]++
  return true
}

export function uncharge(m: Machine, inode: number, pages: number): void {
  const quota = m.inodes.quota[inode]
  if (quota !== 0) m.quotas[quota * 2 + 1] -= pages
  m.inodes.nrHeld[inode] -= pages
}
