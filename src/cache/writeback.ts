/**
 * Writeback: dirty pages of a store's inode to the store, in file order, neighbours in one write.
 *
 * A page's life under dirty accounting:
 *
 *   clean --store through a pte, or write()--> dirty --cleaned in all ptes (hook), PG_DIRTY off--> being written
 *     ^                                          ^                                                  |      |
 *     |                                          +------------------ the write failed --------------+      |
 *     +---------------------------------------------------- written ---------------------------------------+
 *
 * A page whose write failed is dirty again and stays in memory: nothing is lost while the store is full or away, and
 * the next sync tries again. (Linux drops it after reporting.) Each failure is also recorded in the inode, and every
 * open file learns of it once, at its next sync (Linux 4.13's errseq_t).
 *
 * Bytes past the end of the file in the last page are zeroed before the write and never reach the store.
 *
 * Lock: machine lock. `sync`, and reclaim in windows, take the inode lock, so that one thread at a time writes a file,
 * and give the machine lock back while the store writes and flushes; the pages are PG_WRITEBACK meanwhile: they can be
 * used and stored to, but not evicted, truncated or written by somebody else.
 */
import { EIO, EROFS } from '../abi/errno.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_MAPPING,
  FRAME_SHIFT,
  type FrameTable,
  PG_CACHED,
  PG_DIRTY,
  PG_WRITEBACK
} from '../frame/frame-table.ts'
import type { Ram } from '../frame/ram.ts'
import { TRACE_WRITEBACK, type Trace } from '../frame/trace.ts'
import { PGPGOUT, STORE_FLUSHES, STORE_WRITES, WRITE_ERRORS } from '../frame/vmstat.ts'
import type { GuardedStore } from '../store/guard.ts'
import { WAIT_PAGE } from '../sync/lock-order.ts'
import type { Sync } from '../sync/sync.ts'
import { IO_NONE, IO_WRITEBACK } from '../sync/threads.ts'
import { DIRTY, type FileTable, type InodeTable } from './inodes.ts'
import type { PageCache } from './page-cache.ts'

/** Makes every pte of a frame clean and read-only, so that the next store faults (rmap's page_mkclean). */
export type CleanHook = (frame: number) => void

/**
 * Whether the machine lock is held while the store writes: reclaim keeps it where it runs in the middle of anything.
 */
export const UNDER_LOCK = 0 as const
export const IN_WINDOWS = 1 as const

export class Writeback {
  readonly cache: PageCache
  readonly inodes: InodeTable
  readonly files: FileTable
  readonly ram: Ram
  readonly #frames: FrameTable
  readonly #bounce: Uint8Array
  readonly #trace: Trace
  readonly #sync: Sync
  readonly #maxRunPages: number
  #clean: CleanHook = () => {}

  constructor(cache: PageCache, files: FileTable, ram: Ram, bounce: Uint8Array, trace: Trace, sync: Sync) {
    this.cache = cache
    this.inodes = cache.inodes
    this.files = files
    this.ram = ram
    this.#frames = cache.frames
    this.#bounce = bounce
    this.#trace = trace
    this.#sync = sync
    this.#maxRunPages = bounce.length / ram.pageSize
  }

  setClean(hook: CleanHook): void {
    this.#clean = hook
  }

  /**
   * Writes the dirty pages with index in [first, last]; goes on after a failed run. With IN_WINDOWS the machine lock is
   * given back while the store works, and the caller holds the inode lock. → 0 or the first -errno.
   */
  writeRange(inode: number, first: number, last: number, how: typeof UNDER_LOCK | typeof IN_WINDOWS): number {
    const store = this.inodes.store(inode)
    if (store === undefined) return 0
    const dirty = this.cache.collect(inode, first, last, DIRTY)
    const indexes = dirty.map(frame => this.#frames.row(frame, F_INDEX))
    let error = 0
    let from = 0
    while (from < dirty.length) {
      // Pages may have been written, cleaned or dropped by others since they were collected, while the lock was given
      // back.
      if (!this.#isToWrite(dirty[from], inode, indexes[from])) {
        from++
        continue
      }
      let to = from + 1
      while (to < dirty.length && to - from < this.#maxRunPages && indexes[to] === indexes[to - 1] + 1) {
        if (!this.#isToWrite(dirty[to], inode, indexes[to])) break
        to++
      }
      const result = this.#writeRun(store, inode, dirty, from, to, how)
      if (result < 0 && error === 0) error = result
      from = to
    }
    return error
  }

  /**
   * Writes one dirty page and the dirty pages around it in the file; what reclaim asks for. `how` as for `writeRange`.
   * → 0 or -errno.
   */
  writeAround(frame: number, how: typeof UNDER_LOCK | typeof IN_WINDOWS): number {
    const inode = this.#frames.row(frame, F_MAPPING)
    const index = this.#frames.row(frame, F_INDEX)
    let first = index
    let last = index
    while (index - first < this.#maxRunPages / 2 && this.#isDirty(inode, first - 1)) first--
    while (last - first + 1 < this.#maxRunPages && this.#isDirty(inode, last + 1)) last++
    return this.writeRange(inode, first, last, how)
  }

  /**
   * Writes all dirty pages of [first, last], and the size, and has the store flush, with the inode lock; gives the
   * machine lock back meanwhile. → 0 or the first -errno.
   */
  sync(inode: number, first: number, last: number): number {
    if (this.inodes.store(inode)?.readOnly !== false) return this.unwritten(inode)
    const error = this.inodes.acquire(inode)
    if (error !== 0) return -error
    let written = this.writeRange(inode, first, last, IN_WINDOWS)
    if (written === 0) written = this.#extendInSync(inode)
    this.cache.vmstat[STORE_FLUSHES]++
    this.#sync.openWindow(IO_NONE, inode, 0, 0)
    const flushed = this.inodes.store(inode)?.flush() ?? -EIO
    this.#sync.closeWindow()
    if (flushed < 0) this.#noteError(inode, flushed)
    this.inodes.release(inode)
    return written < 0 ? written : flushed
  }

  /**
   * Makes the store as long as the file, where no written page did: the last ones are holes, or dirty and outside of
   * the range that was synced; or it was not cut to the end. In a window only where nobody can write behind `size`
   * meanwhile. → 0 or -errno.
   */
  extendStore(inode: number, how: typeof UNDER_LOCK | typeof IN_WINDOWS): number {
    const size = this.inodes.sizeBytes[inode]
    const store = this.inodes.store(inode)
    if (store === undefined) return 0
    if (this.inodes.storeBytes[inode] >= size && this.inodes.isUnsized[inode] === 0) return 0
    if (how === IN_WINDOWS) this.#sync.openWindow(IO_NONE, inode, 0, 0)
    const result = store.truncate(size)
    if (how === IN_WINDOWS) this.#sync.closeWindow()
    if (result < 0) {
      this.#noteError(inode, result)
      return result
    }
    this.inodes.storeBytes[inode] = size
    this.inodes.isUnsized[inode] = 0
    return result
  }

  /**
   * 0 if an inode that this thread cannot write has nothing to be written, else -EROFS: nothing succeeds with that left
   * behind.
   */
  unwritten(inode: number): number {
    const { inodes } = this
    if (inodes.store(inode) === undefined) return 0
    const isLonger = inodes.storeBytes[inode] < inodes.sizeBytes[inode] || inodes.isUnsized[inode] !== 0
    return isLonger || this.cache.nrDirty(inode) !== 0 ? -EROFS : 0
  }

  /** A sync does not wait for writers. While one is at it, which may make the file longer, the machine lock is kept. */
  #extendInSync(inode: number): number {
    if (!this.inodes.tryAcquireWrite(inode)) return this.extendStore(inode, UNDER_LOCK)
    const result = this.extendStore(inode, IN_WINDOWS)
    this.inodes.releaseWrite(inode)
    return result
  }

  /** `sync` on behalf of an open file: also reports, once, errors recorded since its last sync. → 0 or -errno. */
  syncFile(file: number, first: number, last: number): number {
    const inode = this.files.inode[file]
    const result = this.sync(inode, first, last)
    const pending = this.takeError(file)
    return result < 0 ? result : pending
  }

  /** The error recorded since this file last asked, as -errno, or 0. */
  takeError(file: number): number {
    const inode = this.files.inode[file]
    const seq = this.inodes.wbErrSeq[inode]
    if (this.files.wbErrSeen[file] === seq) return 0
    this.files.wbErrSeen[file] = seq
    return -this.inodes.wbErrno[inode]
  }

  #isToWrite(frame: number, inode: number, index: number): boolean {
    const { w } = this.#frames
    const row = frame << FRAME_SHIFT
    const state = w[row + F_FLAGS] & (PG_CACHED | PG_DIRTY | PG_WRITEBACK)
    return state === (PG_CACHED | PG_DIRTY) && w[row + F_MAPPING] === inode && w[row + F_INDEX] === index
  }

  #isDirty(inode: number, index: number): boolean {
    if (index < 0) return false
    const frame = this.cache.lookup(inode, index)
    return frame !== 0 && (this.#frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0
  }

  #writeRun(
    store: GuardedStore,
    inode: number,
    dirty: Int32Array,
    from: number,
    to: number,
    how: typeof UNDER_LOCK | typeof IN_WINDOWS
  ): number {
    const { pageSize, u8 } = this.ram
    const { w } = this.#frames
    const firstIndex = this.#frames.row(dirty[from], F_INDEX)
    const position = firstIndex * pageSize
    const sizeBytes = this.inodes.sizeBytes[inode]
    const length = Math.min((to - from) * pageSize, sizeBytes - position)
    let contiguous = true
    for (let i = from; i < to; i++) {
      // First, and also under the lock: a page that the store does not have yet is marked in one way or the other at
      // any time (mm/salvage).
      if (length > 0) w[(dirty[i] << FRAME_SHIFT) + F_FLAGS] |= PG_WRITEBACK
      this.#clean(dirty[i])
      this.cache.clearDirty(dirty[i])
      if (i > from && dirty[i] !== dirty[i - 1] + 1) contiguous = false
    }
    if (length <= 0) return 0
    if (this.#sync.isShared) {
      this.inodes.noteWritten(inode, firstIndex, firstIndex + (to - from) - 1)
      // No entry allows stores any more; those that are under way belong to what is written.
      this.#sync.changed()
      for (let i = from; i < to; i++) this.#sync.settle(dirty[i])
    }
    const tail = (position + length) % pageSize
    if (tail !== 0) this.ram.zeroPart(dirty[to - 1], tail, pageSize)
    let buffer = u8
    let offset = dirty[from] * pageSize
    if (!contiguous) {
      buffer = this.#bounce
      offset = 0
      for (let i = from; i < to; i++) {
        const base = dirty[i] * pageSize
        buffer.set(u8.subarray(base, base + pageSize), (i - from) * pageSize)
      }
    }
    if (how === IN_WINDOWS) this.#sync.openWindow(IO_WRITEBACK, inode, firstIndex, to - from)
    const done = store.write(position, buffer, offset, length)
    if (how === IN_WINDOWS) this.#sync.closeWindow()
    this.inodes.noteStored(inode)
    for (let i = from; i < to; i++) {
      if (done !== length) this.cache.setDirty(dirty[i])
      w[(dirty[i] << FRAME_SHIFT) + F_FLAGS] &= ~PG_WRITEBACK
      if (how === IN_WINDOWS && this.#sync.isShared) this.#sync.wakeAll(WAIT_PAGE, dirty[i])
    }
    if (how === IN_WINDOWS && this.#sync.isShared) this.#sync.noteRoom()
    this.cache.vmstat[STORE_WRITES]++
    this.#trace.add(TRACE_WRITEBACK, inode, firstIndex, to - from, done < 0 ? done : 0)
    if (done === length) {
      this.cache.vmstat[PGPGOUT] += to - from
      // Not while the store is being cut, perhaps behind this write.
      const isLonger = position + length > this.inodes.storeBytes[inode]
      if (isLonger && this.inodes.isUnsized[inode] === 0) this.inodes.storeBytes[inode] = position + length
      return 0
    }
    const error = done < 0 ? done : -EIO
    this.#noteError(inode, error)
    return error
  }

  #noteError(inode: number, error: number): void {
    this.cache.vmstat[WRITE_ERRORS]++
    this.inodes.wbErrSeq[inode]++
    this.inodes.wbErrno[inode] = -error
  }
}
