/**
 * After a thread: what it held goes back, so that the others need not wait for it for ever.
 *
 *   it had            then
 *   the machine lock  nothing is known of the tables: the machine is broken (-EOWNERDEAD), for all and for good
 *   a page it read    the page leaves the cache, its swap slot stays; who waited for it reads it himself
 *   pages it wrote    they are dirty again; the swap slot of one goes back if no entry names it
 *   an inode lock     free; pages that were to be cut away stay, and are dirty if the store was asked to cut already:
 *                     those in the cache keep their bytes, the others have them or are zero. The file has its old size,
 *                     and the next sync the store
 *   a write lock      free; of what was to be written a part is, page by page
 *   an mmap lock      free: verbs give the machine lock back only where the vmas are whole
 *   an open file      given back: this may be its last close
 *   files that it was letting go of  whoever finds out goes on with that, at the end of its verb
 *   frames in reserve  free
 *   pins, a hazard    given back; pages that it may have been storing to are dirty
 *   a guest           is in it no longer; translations of its own (mmu/tlb) go
 *   a pager's stores  every page asked of them fails with EOWNERDEAD
 *
 * Called when the platform says that the thread has ended, or the operating system says so to one that waits for it, so
 * nothing of it runs any more; also with an orderly detach, where there is nothing to give back but its row.
 */
import { EIO, EOWNERDEAD } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { CLEAN, CUT_ASKS, CUT_NONE, PAGER_GONE } from '../cache/inodes.ts'
import { F_FLAGS, FRAME_SHIFT, PG_WRITEBACK } from '../frame/frame-table.ts'
import { MM_MMAP_LOCK, MM_SHIFT, MM_WAITING_WRITERS } from '../frame/mm-table.ts'
import {
  READ_LOCKED,
  UNLOCKED,
  WAIT_ARRIVALS,
  WAIT_INODE,
  WAIT_MMAP,
  WAIT_PAGE,
  WRITE_LOCKED
} from '../sync/lock-order.ts'
import {
  IO_FILL,
  IO_NONE,
  IO_SWAP_IN,
  IO_WRITEBACK,
  NR_RECORDED_PINS,
  NR_RESERVE,
  S_STARVING,
  T_FILE,
  T_INODE,
  T_IO_FIRST,
  T_IO_INODE,
  T_IO_KIND,
  T_IO_PAGES,
  T_MMAP,
  T_MMAP_MODE,
  T_OUT_FRAME,
  T_OUT_SLOT,
  T_PINS,
  T_PLATFORM_ID,
  T_RESERVE,
  T_RUN_FIRST,
  T_RUN_PAGES,
  T_STARVING,
  T_WRITES
} from '../sync/threads.ts'
import { inheritGoing, putFile } from './files.ts'
import type { Machine } from './machine.ts'
import { withdrawSwapIn } from './swap-in.ts'
import { redirty } from './truncate.ts'

/**
 * Gives back what a thread that has ended held, unless another thread does it or has done it: `platformId` tells it
 * from the one that has its row next. → 0, or EOWNERDEAD when the machine is broken by its end.
 */
export function recoverThread(m: Machine, thread: number, platformId: number): number {
  const { sync } = m
  const { threads } = sync
  // From here on nobody waits for a store of it.
  if (!threads.declareDead(thread, platformId)) return 0
  if (sync.lockOwner === thread) sync.declareBroken(EOWNERDEAD)
  // Whoever has the machine lock may be waiting for the guest that ran in it.
  endGuest(m, thread)
  if (!m.reenter()) return sync.broken
  try {
    giveBackAll(m, thread)
    m.leave()
    return 0
  } catch (thrown) {
    return -m.abandon(thrown)
  }
}

/** The same in the middle of a wait, with the machine lock held, for a thread that the operating system has no more. */
export function recoverWaited(m: Machine, thread: number): void {
  const { threads } = m.sync
  // Whoever frees the row needs the lock: it is still that thread's.
  if (!threads.declareDead(thread, threads.w[threads.at(thread, T_PLATFORM_ID)])) return
  const wasInside = m.inside
  m.inside = true
  endGuest(m, thread)
  giveBackAll(m, thread)
  m.inside = wasInside
}

function endGuest(m: Machine, thread: number): void {
  const { threads } = m.sync
  threads.endGuest(thread)
}

function giveBackAll(m: Machine, thread: number): void {
  const { sync } = m
  const { threads } = sync
  const { w } = threads
  const row = threads.at(thread, 0)
  if (w[row + T_STARVING] !== 0) {
    Atomics.sub(sync.words, S_STARVING, 1)
    Atomics.notify(sync.words, S_STARVING)
  }
  sync.line.forget(thread)
  giveBackSwapOut(m, w[row + T_OUT_FRAME], w[row + T_OUT_SLOT])
  giveBackPages(m, w[row + T_IO_KIND], w[row + T_IO_INODE], w[row + T_IO_FIRST], w[row + T_IO_PAGES])
  giveBackInode(m, w[row + T_INODE])
  giveBackWriteLock(m, w[row + T_WRITES])
  giveBackMmap(m, w[row + T_MMAP], w[row + T_MMAP_MODE])
  for (let i = 0; i < NR_RECORDED_PINS; i++) giveBackPin(m, w[row + T_PINS + i])
  for (let i = 0; i < NR_RESERVE; i++) giveBackPin(m, w[row + T_RESERVE + i])
  giveBackRun(m, w[row + T_RUN_FIRST], w[row + T_RUN_PAGES])
  m.recovers = true
  giveBackFile(m, w[row + T_FILE])
  inheritGoing(m, thread)
  m.recovers = false
  endPager(m, thread)
  m.notifiers.forgetThread(thread)
  threads.free(thread)
}

function giveBackPages(m: Machine, kind: number, inode: number, first: number, pages: number): void {
  if (kind === IO_NONE) return
  for (let index = first; index < first + pages; index++) {
    const frame = m.cache.lookup(inode, index)
    if (frame === 0) continue
    if (kind === IO_FILL && !m.frames.isUptodate(frame)) m.filler.withdraw(frame)
    if (kind === IO_SWAP_IN && !m.frames.isUptodate(frame)) withdrawSwapIn(m, frame)
    if (kind === IO_WRITEBACK && (m.frames.row(frame, F_FLAGS) & PG_WRITEBACK) !== 0) {
      m.cache.setDirty(frame)
      m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_WRITEBACK
      m.sync.wakeAll(WAIT_PAGE, frame)
    }
  }
}

/** Whether it was written nobody knows. */
function giveBackSwapOut(m: Machine, frame: number, slot: number): void {
  if (frame !== 0) m.reclaim.swapOut.end(frame, slot, -EIO)
}

function giveBackInode(m: Machine, inode: number): void {
  if (inode === 0) return
  const { inodes } = m
  // Its store was being asked to cut pages, and may have done so in part.
  if (inodes.cutting[inode] >= CUT_ASKS) redirty(m, inode, inodes.cutFirst[inode], inodes.cutLast[inode])
  inodes.noteStored(inode)
  inodes.lock[inode] = 0
  inodes.cutting[inode] = CUT_NONE
  m.sync.wakeAll(WAIT_INODE, inode)
}

function giveBackWriteLock(m: Machine, inode: number): void {
  if (inode === 0) return
  m.inodes.writeLock[inode] = 0
  m.sync.wakeAll(WAIT_INODE, inode)
}

function giveBackMmap(m: Machine, mm: number, mode: number): void {
  const row = mm << MM_SHIFT
  if (mode === UNLOCKED) return
  if (mode === WRITE_LOCKED) {
    m.mms.w[row + MM_MMAP_LOCK] = 0
    m.notifiers.abandonRanges(mm)
  } else if (mode === READ_LOCKED) m.mms.w[row + MM_MMAP_LOCK]--
  else m.mms.w[row + MM_WAITING_WRITERS]--
  m.sync.wakeAll(WAIT_MMAP, mm)
}

function giveBackFile(m: Machine, file: number): void {
  if (file === 0) return
  m.sync.wakeAll(WAIT_INODE, m.files.inode[file])
  putFile(m, file)
}

function giveBackRun(m: Machine, first: number, pages: number): void {
  for (let i = 0; i < Math.abs(pages); i++) giveBackPin(m, pages < 0 ? -(first + i) : first + i)
}

/** A page that the thread may have stored to is dirty: writeback may have cleaned it meanwhile. */
function giveBackPin(m: Machine, pin: number): void {
  if (pin === 0) return
  const frame = Math.abs(pin)
  if (pin < 0) m.cache.setDirty(frame)
  m.frames.unpin(frame)
  m.putFrame(frame)
}

/** Nobody brings pages of its stores any more. */
function endPager(m: Machine, thread: number): void {
  m.filler.requests.forgetBuffers(thread)
  for (let inode = 1; inode <= m.inodes.capacity; inode++) {
    if (m.inodes.kind[inode] === 0 || m.inodes.pager[inode] !== thread + 1) continue
    const { requests } = m.filler
    // Not the row's number any more: another thread may have it next.
    m.inodes.pager[inode] = PAGER_GONE
    requests.fail(inode, 0, MAX_FILE_PAGES, EOWNERDEAD, 'the thread that had the store has ended')
    requests.drop(inode)
    if (m.inodes.nrFilling(inode) !== 0) {
      for (const frame of m.cache.collect(inode, 0, MAX_FILE_PAGES, CLEAN)) {
        if (!m.frames.isUptodate(frame)) m.filler.withdraw(frame)
      }
    }
    m.sync.wakeAll(WAIT_ARRIVALS, 0)
    requests.settled()
  }
}
