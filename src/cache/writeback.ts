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
 */
import { EIO } from '../abi/errno.ts'
import { F_FLAGS, F_INDEX, F_MAPPING, type FrameTable, PG_DIRTY } from '../frame/frame-table.ts'
import type { Ram } from '../frame/ram.ts'
import { TRACE_WRITEBACK, type Trace } from '../frame/trace.ts'
import { PGPGOUT, STORE_FLUSHES, STORE_WRITES, WRITE_ERRORS } from '../frame/vmstat.ts'
import { DIRTY, type FileTable, type InodeTable } from './inodes.ts'
import type { PageCache } from './page-cache.ts'

/** Makes every pte of a frame clean and read-only, so that the next store faults (rmap's page_mkclean). */
export type CleanHook = (frame: number) => void

export class Writeback {
  readonly cache: PageCache
  readonly inodes: InodeTable
  readonly files: FileTable
  readonly ram: Ram
  readonly #frames: FrameTable
  readonly #bounce: Uint8Array
  readonly #trace: Trace
  readonly #maxRunPages: number
  #clean: CleanHook = () => {}

  constructor(cache: PageCache, files: FileTable, ram: Ram, bounce: Uint8Array, trace: Trace) {
    this.cache = cache
    this.inodes = cache.inodes
    this.files = files
    this.ram = ram
    this.#frames = cache.frames
    this.#bounce = bounce
    this.#trace = trace
    this.#maxRunPages = bounce.length / ram.pageSize
  }

  setClean(hook: CleanHook): void {
    this.#clean = hook
  }

  /** Writes the dirty pages with index in [first, last]; goes on after a failed run. → 0 or the first -errno. */
  writeRange(inode: number, first: number, last: number): number {
    if (this.inodes.stores[inode] === undefined) return 0
    const dirty = this.cache.collect(inode, first, last, DIRTY)
    let error = 0
    let from = 0
    while (from < dirty.length) {
      let to = from + 1
      while (to < dirty.length && to - from < this.#maxRunPages && this.#follows(dirty[to], dirty[to - 1])) to++
      const result = this.#writeRun(inode, dirty, from, to)
      if (result < 0 && error === 0) error = result
      from = to
    }
    return error
  }

  /** Writes one dirty page and the dirty pages around it in the file; what reclaim asks for. → 0 or -errno. */
  writeAround(frame: number): number {
    const inode = this.#frames.row(frame, F_MAPPING)
    const index = this.#frames.row(frame, F_INDEX)
    let first = index
    let last = index
    while (index - first < this.#maxRunPages / 2 && this.#isDirty(inode, first - 1)) first--
    while (last - first + 1 < this.#maxRunPages && this.#isDirty(inode, last + 1)) last++
    return this.writeRange(inode, first, last)
  }

  /** Writes all dirty pages of [first, last], and the size, and has the store flush. → 0 or the first -errno. */
  sync(inode: number, first: number, last: number): number {
    const store = this.inodes.stores[inode]
    if (store === undefined || store.readOnly) return 0
    let written = this.writeRange(inode, first, last)
    if (written === 0) written = this.extendStore(inode)
    this.cache.vmstat[STORE_FLUSHES]++
    const flushed = store.flush()
    if (flushed < 0) this.#noteError(inode, flushed)
    return written < 0 ? written : flushed
  }

  /**
   * Makes the store as long as the file, where no written page did: the last ones are holes, or dirty and outside of the
   * range that was synced. → 0 or -errno.
   */
  extendStore(inode: number): number {
    const size = this.inodes.sizeBytes[inode]
    const store = this.inodes.stores[inode]
    if (store === undefined || this.inodes.storeBytes[inode] >= size) return 0
    const result = store.truncate(size)
    if (result < 0) this.#noteError(inode, result)
    else this.inodes.storeBytes[inode] = size
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

  #follows(frame: number, before: number): boolean {
    return this.#frames.row(frame, F_INDEX) === this.#frames.row(before, F_INDEX) + 1
  }

  #isDirty(inode: number, index: number): boolean {
    if (index < 0) return false
    const frame = this.cache.lookup(inode, index)
    return frame !== 0 && (this.#frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0
  }

  #writeRun(inode: number, dirty: Int32Array, from: number, to: number): number {
    const { pageSize, u8 } = this.ram
    const firstIndex = this.#frames.row(dirty[from], F_INDEX)
    const position = firstIndex * pageSize
    const sizeBytes = this.inodes.sizeBytes[inode]
    const length = Math.min((to - from) * pageSize, sizeBytes - position)
    let contiguous = true
    for (let i = from; i < to; i++) {
      this.#clean(dirty[i])
      this.cache.clearDirty(dirty[i])
      if (i > from && dirty[i] !== dirty[i - 1] + 1) contiguous = false
    }
    if (length <= 0) return 0
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
    const store = this.inodes.stores[inode]
    const done = store === undefined ? -EIO : store.write(position, buffer, offset, length)
    this.cache.vmstat[STORE_WRITES]++
    this.#trace.add(TRACE_WRITEBACK, inode, firstIndex, to - from, done < 0 ? done : 0)
    if (done === length) {
      this.cache.vmstat[PGPGOUT] += to - from
      if (position + length > this.inodes.storeBytes[inode]) this.inodes.storeBytes[inode] = position + length
      return 0
    }
    const error = done < 0 ? done : -EIO
    for (let i = from; i < to; i++) this.cache.setDirty(dirty[i])
    this.#noteError(inode, error)
    return error
  }

  #noteError(inode: number, error: number): void {
    this.cache.vmstat[WRITE_ERRORS]++
    this.inodes.wbErrSeq[inode]++
    this.inodes.wbErrno[inode] = -error
  }
}
