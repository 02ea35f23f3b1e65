/**
 * Filling the page cache from a store: one page, or a run when the file is being read in order.
 *
 * Order is seen by file page, not by address: a window that shows the file shuffled, read front to back, is random
 * access; one that is walked in file order is sequential, wherever its pages lie.
 *
 * The window doubles from 4 pages up to `maxWindowPages` while each fill begins where the last one ended (Linux:
 * ondemand readahead, without its asynchronous half; `readOn` is that half, for stores that answer later). Readahead
 * takes free frames and what reclaim can give, and never fails a fault: only the page that was asked for can.
 *
 * A page that is being read is in the cache already, PG_LOCKED and not PG_UPTODATE: it is read once, however many want
 * it.
 *
 * Lock: machine lock, given back while a store reads. The run and the bounce buffer are this thread's.
 */
import { EIO, EOWNERDEAD } from '../abi/errno.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import { F_FLAGS, F_MAPPING, FRAME_SHIFT, PG_LOCKED, PG_READAHEAD, PG_UPTODATE } from '../frame/frame-table.ts'
import type { Lru } from '../frame/lru.ts'
import { TRACE_READ, type Trace } from '../frame/trace.ts'
import { PGPGIN, READ_ERRORS, READAHEAD_HITS, READAHEAD_PAGES, STORE_READS } from '../frame/vmstat.ts'
import { WAIT_PAGE } from '../sync/lock-order.ts'
import type { Sync } from '../sync/sync.ts'
import { IO_FILL } from '../sync/threads.ts'
import type { FetchQueue } from './fetch-queue.ts'
import { type FileTable, type InodeTable, PAGER_GONE } from './inodes.ts'
import type { PageCache } from './page-cache.ts'

/** What a fault says about how the file is used (madvise). */
export const RA_NORMAL = 0 as const
export const RA_RANDOM = 1 as const
export const RA_SEQUENTIAL = 2 as const

/** What `fill` gives when the page is on its way. Below every -errno. */
export const FILL_PARKED = -0x10000
/**
 * The same when it could not even be asked for: so many pages are on their way that there is no room for it until some
 * came.
 */
export const FILL_CROWDED = -0x10001

const FIRST_WINDOW_PAGES = 4
/** For stores that answer later, where each read costs a journey: windows begin, grow and end larger. */
const LATER_FIRST_PAGES = 32
const LATER_GROWTH = 4
const LATER_FACTOR = 8
/** Runs of frames shorter than this on average are read through the bounce buffer. */
const MIN_RUN_PAGES = 4

export class Filler {
  readonly cache: PageCache
  readonly inodes: InodeTable
  readonly files: FileTable
  readonly allocator: FrameAllocator
  readonly lru: Lru
  readonly maxWindowPages: number
  /** The same for stores that answer later. */
  readonly maxLaterPages: number
  readonly bounce: Uint8Array
  /** Pages that stores which answer later are asked for. */
  readonly requests: FetchQueue
  readonly #trace: Trace
  readonly #sync: Sync
  readonly #run: Int32Array
  #firstIndex = 0
  #nrLocked = 0

  constructor(
    cache: PageCache,
    files: FileTable,
    allocator: FrameAllocator,
    lru: Lru,
    maxWindowPages: number,
    trace: Trace,
    sync: Sync,
    requests: FetchQueue
  ) {
    this.cache = cache
    this.inodes = cache.inodes
    this.files = files
    this.allocator = allocator
    this.lru = lru
    this.maxWindowPages = maxWindowPages
    this.#trace = trace
    this.#sync = sync
    this.requests = requests
    // Shared memory: the stores that it is given to cannot take it away.
    this.bounce = new Uint8Array(new SharedArrayBuffer(Math.max(1, maxWindowPages) * allocator.ram.pageSize))
    const { nrFrames } = allocator.ram
    this.maxLaterPages = Math.max(1, Math.min(maxWindowPages > 1 ? maxWindowPages * LATER_FACTOR : 1, nrFrames >>> 2))
    this.#run = new Int32Array(Math.max(maxWindowPages, this.maxLaterPages))
  }

  /** Notes that a cached page was used, for the count of readahead that was worth it. */
  noteHit(frame: number): void {
    const { w } = this.cache.frames
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    if ((w[at] & PG_READAHEAD) === 0) return
    w[at] &= ~PG_READAHEAD
    this.cache.vmstat[READAHEAD_HITS]++
  }

  /**
   * Reads a page that is not in the cache, which lies below the end of the file. → frame, or -errno (0: no memory);
   * FILL_PARKED when a store that answers later was asked for it, FILL_CROWDED when it could not be. Gives the machine
   * lock back while the store reads.
   */
  fill(inode: number, file: number, index: number, advice: number): number {
    if (this.inodes.pager[inode] !== 0) return this.#fillLater(inode, file, index, advice)
    const n = this.#begin(inode, index, this.#window(inode, file, index, advice))
    if (n === 0) return 0
    this.files.raNext[file] = index + n
    const error = this.#read(inode, index, n)
    if (error === 0) return this.#finish(n)
    if (n === 1) {
      this.#abandon(0, 1)
      return error
    }
    // Readahead must not fail a page that can be read: try that one alone.
    const first = this.#run[0]
    this.#abandon(1, n)
    this.#nrLocked = 1
    const alone = this.#read(inode, index, 1)
    if (alone === 0) return this.#finish(1)
    this.#run[0] = first
    this.#abandon(0, 1)
    return alone
  }

  /** Brings in [first, last], whatever can be had without an error; what madvise(WILLNEED) asks for. */
  readahead(inode: number, first: number, last: number): void {
    if (this.inodes.pager[inode] !== 0) {
      this.request(inode, first, last)
      return
    }
    let index = first
    while (index <= last) {
      // While the lock was given back, others may have cut pages away, or have begun to.
      const left = this.inodes.endOfFill(inode, index, Math.min(last + 1, this.#nrFilePages(inode))) - index
      if (left <= 0 || this.inodes.isCutByOthers(inode, index)) return
      if (this.cache.lookup(inode, index) !== 0) {
        index++
        continue
      }
      const n = this.#begin(inode, index, Math.min(left, Math.max(1, this.maxWindowPages)))
      if (n === 0) return
      if (this.#read(inode, index, n) < 0) {
        this.#abandon(0, n)
        return
      }
      this.#finish(n)
      index += n
    }
  }

  #fillLater(inode: number, file: number, index: number, advice: number): number {
    if (this.inodes.pager[inode] === PAGER_GONE) return -EOWNERDEAD
    const n = this.#beginLater(inode, index, this.#window(inode, file, index, advice))
    if (n === 0) return this.requests.nrUnderWay > 0 ? FILL_CROWDED : 0
    this.files.raNext[file] = index + n
    return FILL_PARKED
  }

  /**
   * A page of a store that answers later was used while the file is read in order: asks for the next window before the
   * pages of this one run out (Linux: the asynchronous half of readahead).
   */
  readOn(inode: number, file: number, index: number): void {
    const { raNext, raPages } = this.files
    const next = raNext[file]
    const pages = raPages[file]
    if (pages <= 1 || index >= next || next - index > pages) return
    if (next >= this.#nrFilePages(inode)) return
    if (this.inodes.pager[inode] === PAGER_GONE || this.cache.lookup(inode, next) !== 0) return
    const n = this.#beginLater(inode, next, this.#window(inode, file, next, RA_NORMAL))
    if (n === 0) return
    raNext[file] = next + n
    this.#markAhead()
  }

  /**
   * Asks a store that answers later for pages [first, last], those that are not in the cache, as far as there is room.
   * Errors show when they are used. → the first page that was not asked for; last + 1 when all were.
   */
  request(inode: number, first: number, last: number): number {
    let index = first
    while (index <= last) {
      if (this.cache.lookup(inode, index) !== 0) {
        index++
        continue
      }
      if (this.inodes.pager[inode] === PAGER_GONE) return index
      const n = this.#beginLater(inode, index, Math.min(last - index + 1, this.#run.length))
      if (n === 0) return index
      this.#markAhead()
      index += n
    }
    return index
  }

  /** Makes a page that was read known to those who wait for it. */
  deliver(frame: number): void {
    this.arrive(frame)
    this.wake(frame)
  }

  /** The same without waking them. */
  arrive(frame: number): void {
    const { w } = this.cache.frames
    const at = (frame << FRAME_SHIFT) + F_FLAGS
    w[at] = (w[at] | PG_UPTODATE) & ~PG_LOCKED
    this.#arrived(w[(frame << FRAME_SHIFT) + F_MAPPING])
    this.lru.add(frame)
    if (this.#sync.isShared) this.#sync.noteRoom()
  }

  wake(frame: number): void {
    if (this.#sync.isShared) this.#sync.wakeAll(WAIT_PAGE, frame)
  }

  /** A page that could not be had leaves the cache; those who wait for it look again. */
  withdraw(frame: number): void {
    this.#arrived(this.cache.frames.row(frame, F_MAPPING))
    this.cache.remove(frame)
    this.allocator.free(frame)
    this.wake(frame)
  }

  #arrived(inode: number): void {
    this.inodes.addFilling(inode, -1)
    if (this.inodes.pager[inode] !== 0) this.requests.noteUnderWay(-1)
  }

  /** How many pages to read at `index`, itself included. */
  #window(inode: number, file: number, index: number, advice: number): number {
    const { raNext, raPages } = this.files
    const isLater = this.inodes.pager[inode] !== 0
    const max = isLater ? this.maxLaterPages : this.maxWindowPages
    let pages = 1
    if (max > 1 && advice !== RA_RANDOM) {
      const first = isLater ? LATER_FIRST_PAGES : FIRST_WINDOW_PAGES
      const inOrder = raNext[file] === index && index !== 0
      if (advice === RA_SEQUENTIAL) pages = max
      else if (inOrder) pages = Math.max(first, raPages[file] * (isLater ? LATER_GROWTH : 2))
      else if (index === 0) pages = first
      if (pages > max) pages = max
    }
    if (raPages[file] !== pages) raPages[file] = pages
    const left = this.inodes.endOfFill(inode, index, this.#nrFilePages(inode)) - index
    return pages > left ? left : pages
  }

  #nrFilePages(inode: number): number {
    return Math.ceil(this.inodes.sizeBytes[inode] / this.allocator.ram.pageSize)
  }

  /**
   * Frames for up to `want` pages from `index`, ending before the first one that is cached, entered in the cache:
   * locked, without contents, and on no list of reclaim's, so that others who want them wait. → how many.
   */
  #begin(inode: number, index: number, want: number): number {
    const { cache, allocator } = this
    let n = 1
    while (n < want && cache.lookup(inode, index + n) === 0) n++
    if (n > 1) allocator.ensureFree(n)
    const first = allocator.alloc()
    if (first === 0) return 0
    this.#run[0] = first
    let got = 1
    while (got < n) {
      const frame = allocator.allocNoReclaim()
      if (frame === 0) break
      this.#run[got++] = frame
    }
    const { w } = cache.frames
    for (let i = got - 1; i >= 0; i--) {
      const frame = this.#run[i]
      w[(frame << FRAME_SHIFT) + F_FLAGS] = i === 0 ? PG_LOCKED : PG_LOCKED | PG_READAHEAD
      cache.add(frame, inode, index + i)
    }
    this.inodes.addFilling(inode, got)
    this.#firstIndex = index
    this.#nrLocked = got
    return got
  }

  /** The first n pages of the run have their contents. → the frame of the first. */
  #finish(n: number): number {
    const first = this.#run[0]
    for (let i = n - 1; i >= 0; i--) this.deliver(this.#run[i])
    if (n > 1) this.cache.vmstat[READAHEAD_PAGES] += n - 1
    return first
  }

  /** Pages [from, to) of the run could not be read, or are not wanted. */
  #abandon(from: number, to: number): void {
    for (let i = from; i < to; i++) this.withdraw(this.#run[i])
  }

  /**
   * `#begin` for a store that answers later, and asks it. Half of the frames at most are on their way at a time:
   * nothing can be had of them meanwhile. → how many pages; 0 when there is no room, or no memory.
   */
  #beginLater(inode: number, index: number, want: number): number {
    const { requests } = this
    const room = (this.allocator.ram.nrFrames >>> 1) - requests.nrUnderWay
    if (room <= 0 || requests.isFull) return 0
    const n = this.#begin(inode, index, Math.min(want, room))
    if (n === 0) return 0
    requests.noteUnderWay(n)
    requests.push(inode, index, n)
    return n
  }

  /** Nobody has touched the first page of the run either. */
  #markAhead(): void {
    this.cache.frames.w[(this.#run[0] << FRAME_SHIFT) + F_FLAGS] |= PG_READAHEAD
  }

  /** Reads n pages from `index` into the run's frames. → 0 or -errno. */
  #read(inode: number, index: number, n: number): number {
    let runs = 1
    for (let i = 1; i < n; i++) if (this.#run[i] !== this.#run[i - 1] + 1) runs++
    if (runs > 1 && n / runs < MIN_RUN_PAGES) return this.#readBounced(inode, index, n)
    let from = 0
    while (from < n) {
      let to = from + 1
      while (to < n && this.#run[to] === this.#run[to - 1] + 1) to++
      const { u8, pageSize } = this.allocator.ram
      const error = this.#readStore(inode, index + from, u8, this.#run[from] * pageSize, to - from)
      if (error < 0) return error
      from = to
    }
    return 0
  }

  #readBounced(inode: number, index: number, n: number): number {
    const { u8, pageSize } = this.allocator.ram
    const error = this.#readStore(inode, index, this.bounce, 0, n)
    if (error < 0) return error
    for (let i = 0; i < n; i++) {
      u8.set(this.bounce.subarray(i * pageSize, (i + 1) * pageSize), this.#run[i] * pageSize)
    }
    return 0
  }

  #readStore(inode: number, index: number, buffer: Uint8Array, offset: number, pages: number): number {
    const { pageSize } = this.allocator.ram
    const { vmstat } = this.cache
    const store = this.inodes.store(inode)
    if (store === undefined) return -EIO
    const position = index * pageSize
    const length = pages * pageSize
    const expected = Math.min(length, Math.min(this.inodes.sizeBytes[inode], this.inodes.storeBytes[inode]) - position)
    // All pages that are locked for it are named: another thread gives them back if this one dies.
    this.#sync.openWindow(IO_FILL, inode, this.#firstIndex, this.#nrLocked)
    const done = store.read(position, buffer, offset, length)
    this.#sync.closeWindow()
    vmstat[STORE_READS]++
    this.#trace.add(TRACE_READ, inode, index, pages, done < 0 ? done : 0)
    vmstat[PGPGIN] += pages
    if (done === length) return 0
    if (done < 0) {
      vmstat[READ_ERRORS]++
      return done
    }
    // Short: right at the end of the store, wrong before it (somebody cut the file behind our back).
    if (done < expected) {
      vmstat[READ_ERRORS]++
      return -EIO
    }
    buffer.fill(0, offset + done, offset + length)
    return 0
  }
}
