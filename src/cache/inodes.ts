/**
 * Inodes and open files, as columns.
 *
 * An inode is the thing with pages: a store's bytes, or memory that has no store. A file is one open of an inode
 * (Linux: struct file): its mode, its readahead state, and the write error it saw last. Vmas hold files, files hold
 * inodes; rows are freed when the last reference goes. Rows are numbers from 1; inode 0 is the swap cache.
 *
 * Sizes are bytes, as doubles. The store objects themselves are per thread and kept outside the columns (store-table).
 */
import { EAGAIN } from '../abi/errno.ts'
import { Lists } from '../base/lists.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import type { GuardedStore } from '../store/guard.ts'
import { WAIT_INODE } from '../sync/lock-order.ts'
import type { Sync } from '../sync/sync.ts'
import { T_INODE, T_WRITES } from '../sync/threads.ts'
import { StoreTable } from './store-table.ts'

/** Bytes live in a store; pages are a cache of it. Dirty pages are accounted (page_mkwrite, page_mkclean). */
export const INODE_STORE = 1 as const
/** Shared memory: pages are the only copy and go to swap (Linux: tmpfs, shared anonymous memory). */
export const INODE_SHMEM = 2 as const
/** Memory that never leaves RAM (Linux: ramfs). */
export const INODE_RAMFS = 3 as const
/** Shared memory whose mappings have no remap_pages operation (Linux: hugetlbfs, SysV segments, devices). */
export const INODE_NOREMAP = 4 as const

export const FILE_READ = 1 as const
export const FILE_WRITE = 2 as const

/** In place of a pager's number: the thread that had the store has ended. */
export const PAGER_GONE = 0x7fffffff as const

/**
 * What goes on with the pages that a truncation or punch is about to cut away. From CUT_WAITS on no more of them are
 * sent for; from CUT_ASKS on the store is asked to cut; with CUT_AGAIN one of them was written to the store meanwhile,
 * so it is to be asked again; CUT_TORN says that it has cut when it was asked first, and then failed.
 */
export const CUT_NONE = 0 as const
export const CUT_WAITS = 1 as const
export const CUT_ASKS = 2 as const
export const CUT_AGAIN = 3 as const
export const CUT_TORN = 4 as const

/** The list of an inode's pages that a page is on. */
export const CLEAN = 0 as const
export const DIRTY = 1 as const

/** The first row, from 1 on, whose word is 0; 0 for none. `hint[0]`: all rows before it are taken. */
export function takeFirst(column: Int32Array, hint: Int32Array): number {
  const row = column.indexOf(0, Math.max(1, hint[0]))
  hint[0] = row < 0 ? column.length : row + 1
  return Math.max(0, row)
}

export function giveBack(hint: Int32Array, row: number): void {
  if (row < hint[0]) hint[0] = row
}

export class InodeTable {
  readonly capacity: number
  readonly kind: Int32Array
  /** Grows each time the row is given away: tells an inode from another one that has its row later. */
  readonly seq: Int32Array
  readonly refs: Int32Array
  /**
   * Ends of the lists of an inode's pages in the cache, list `inode * 2 + CLEAN` and `inode * 2 + DIRTY`
   * (page-cache.ts), and in the word that the first leaves free how many are on their way from the store. Together,
   * because each page that comes may change all of them, and threads bring pages of one file at the same time.
   */
  readonly pageLists: Int32Array
  /** Accounting group of shared memory, 0 for none. */
  readonly quota: Int32Array
  /** Pages held: in the cache or in swap (shared memory only). */
  readonly nrHeld: Int32Array
  /** Errors on writeback: how many there were, and the errno of the last. */
  readonly wbErrSeq: Int32Array
  readonly wbErrno: Int32Array
  readonly sizeBytes: Float64Array
  /** Bytes that the store has at least: less than `sizeBytes` while pages written past its end are not written back. */
  readonly storeBytes: Float64Array
  /**
   * Grows after each call that changed what the store holds (not to be confused with its generation, which tells stores
   * apart).
   */
  readonly storeSeq: Int32Array
  /** The inode lock: 0 free, else the number of the thread that has it + 1. Changed under the machine lock. */
  readonly lock: Int32Array
  /** The same for the write lock. */
  readonly writeLock: Int32Array
  /** CUT_* for pages [cutFirst, cutLast]. Always CUT_NONE in a machine of one thread. */
  readonly cutting: Int32Array
  readonly cutFirst: Int32Array
  readonly cutLast: Int32Array
  /**
   * 1 while nobody knows how long the store is: it is being cut, or a thread ended, or the store failed, in the middle
   * of that.
   */
  readonly isUnsized: Int32Array
  /**
   * Of an inode that nobody has open any more: the number of the thread that writes what is dirty, closes the store and
   * frees the row, + 1; negative if nobody wants to know how that ended. 0 else. And the next one that this thread has
   * to see to.
   */
  readonly going: Int32Array
  readonly goingNext: Int32Array
  /**
   * For a store that answers later: the number of the thread that has it + 1, or PAGER_GONE. 0 for one that answers at
   * once.
   */
  readonly pager: Int32Array
  readonly stores: StoreTable
  readonly #dirtyOfStores: Int32Array
  readonly #firstFree: Int32Array
  readonly #sync: Sync

  constructor(columns: ColumnSource, capacity: number, sync: Sync) {
    const n = capacity + 1
    this.capacity = capacity
    this.kind = columns.int32('inodes', n)
    this.seq = columns.int32('inodes', n)
    this.refs = columns.int32('inodes', n)
    this.pageLists = columns.int32('inodes', Lists.words(2 * n))
    this.quota = columns.int32('inodes', n)
    this.nrHeld = columns.int32('inodes', n)
    this.wbErrSeq = columns.int32('inodes', n)
    this.wbErrno = columns.int32('inodes', n)
    this.sizeBytes = columns.float64('inodes', n)
    this.storeBytes = columns.float64('inodes', n)
    this.storeSeq = columns.int32('inodes', n)
    this.lock = columns.int32('inodes', n)
    this.writeLock = columns.int32('inodes', n)
    this.pager = columns.int32('inodes', n)
    this.cutting = columns.int32('inodes', n)
    this.cutFirst = columns.int32('inodes', n)
    this.cutLast = columns.int32('inodes', n)
    this.isUnsized = columns.int32('inodes', n)
    this.going = columns.int32('inodes', n)
    this.goingNext = columns.int32('inodes', n)
    this.#dirtyOfStores = columns.int32('inodes', 1)
    this.#firstFree = columns.int32('inodes', 1)
    this.#sync = sync
    this.stores = new StoreTable(columns, capacity, sync)
  }

  /** A free row with one reference, or 0. */
  alloc(kind: number, name: string, store: GuardedStore | undefined): number {
    const i = takeFirst(this.kind, this.#firstFree)
    if (i === 0) return 0
    this.kind[i] = kind
    this.seq[i]++
    this.refs[i] = 1
    this.quota[i] = 0
    this.nrHeld[i] = 0
    this.wbErrSeq[i] = 0
    this.wbErrno[i] = 0
    this.sizeBytes[i] = 0
    this.storeBytes[i] = 0
    this.lock[i] = 0
    this.writeLock[i] = 0
    this.pager[i] = 0
    this.addFilling(i, -this.nrFilling(i))
    this.cutting[i] = CUT_NONE
    this.isUnsized[i] = 0
    this.going[i] = 0
    this.goingNext[i] = 0
    this.stores.set(i, name, store)
    return i
  }

  free(inode: number): void {
    this.kind[inode] = 0
    giveBack(this.#firstFree, inode)
    this.stores.forget(inode)
  }

  /**
   * Takes the inode lock, waiting for another thread that has it (the machine lock is given back meanwhile). → 0 or an
   * errno.
   */
  acquire(inode: number): number {
    return this.#sync.isShared ? this.#acquire(this.lock, inode, T_INODE) : 0
  }

  /** Takes the inode lock if nobody has it, and this thread none. */
  tryAcquire(inode: number): boolean {
    const { isShared, threads, row } = this.#sync
    return isShared && this.lock[inode] === 0 && threads.w[row + T_INODE] === 0 && this.acquire(inode) === 0
  }

  release(inode: number): void {
    if (this.#sync.isShared) this.#release(this.lock, inode, T_INODE)
  }

  /** The same for the write lock: whoever changes the file's bytes or its size by a call has it (Linux: i_rwsem). */
  acquireWrite(inode: number): number {
    return this.#sync.isShared ? this.#acquire(this.writeLock, inode, T_WRITES) : 0
  }

  /** Takes the write lock if nobody has it; also with the inode lock, since it does not wait. */
  tryAcquireWrite(inode: number): boolean {
    return this.#sync.isShared && this.writeLock[inode] === 0 && this.#acquire(this.writeLock, inode, T_WRITES) === 0
  }

  releaseWrite(inode: number): void {
    if (this.#sync.isShared) this.#release(this.writeLock, inode, T_WRITES)
  }

  #acquire(lock: Int32Array, inode: number, word: number): number {
    const sync = this.#sync
    if (lock[inode] !== 0) {
      if (!sync.maySleep) return EAGAIN
      sync.beginWait()
      while (lock[inode] !== 0) {
        sync.isPatient(lock[inode] - 1)
        sync.waitWithin(WAIT_INODE, inode)
      }
    }
    lock[inode] = sync.me + 1
    sync.threads.w[sync.row + word] = inode
    return 0
  }

  #release(lock: Int32Array, inode: number, word: number): void {
    const sync = this.#sync
    lock[inode] = 0
    sync.threads.w[sync.row + word] = 0
    sync.wakeAll(WAIT_INODE, inode)
  }

  /** Whether another thread is about to cut the page away: it is not to be sent for until that is done. */
  isCutByOthers(inode: number, index: number): boolean {
    if (this.cutting[inode] === CUT_NONE || this.lock[inode] === this.#sync.me + 1) return false
    return index >= this.cutFirst[inode] && index <= this.cutLast[inode]
  }

  /**
   * The end of the pages from `index` on that may be sent for together: `end`, or where pages are about to be cut away.
   */
  endOfFill(inode: number, index: number, end: number): number {
    return this.cutting[inode] === CUT_NONE || index >= this.cutFirst[inode] ? end : Math.min(end, this.cutFirst[inode])
  }

  /**
   * Pages [first, last] were written, or are about to be: a store that is being asked to cut them has to be asked once
   * more.
   */
  noteWritten(inode: number, first: number, last: number): void {
    if (this.cutting[inode] < CUT_ASKS || last < this.cutFirst[inode] || first > this.cutLast[inode]) return
    this.cutting[inode] = CUT_AGAIN
  }

  /** This thread's store for the inode; undefined for memory that has none. */
  store(inode: number): GuardedStore | undefined {
    return this.stores.get(inode)
  }

  /**
   * The store holds other bytes by now: what was read before that is not to be taken for them. Ordered after the bytes.
   */
  noteStored(inode: number): void {
    Atomics.add(this.storeSeq, inode, 1)
  }

  /** Dirty pages of all files that have a store. */
  get nrDirtyOfStores(): number {
    return this.#dirtyOfStores[0]
  }

  /** A page of the inode got dirty (1), or is so no longer (-1). */
  noteDirty(inode: number, delta: 1 | -1): void {
    if (this.kind[inode] === INODE_STORE) this.#dirtyOfStores[0] += delta
  }

  /** Pages that are on their way from the store. */
  nrFilling(inode: number): number {
    return this.pageLists[Lists.spare(inode * 2 + CLEAN)]
  }

  addFilling(inode: number, pages: number): void {
    this.pageLists[Lists.spare(inode * 2 + CLEAN)] += pages
  }

  isShmem(inode: number): boolean {
    return this.kind[inode] === INODE_SHMEM || this.kind[inode] === INODE_NOREMAP
  }
}

export class FileTable {
  readonly capacity: number
  readonly inode: Int32Array
  readonly mode: Int32Array
  readonly refs: Int32Array
  /**
   * This thread's readahead: the page after the last one that a fill brought in, and how many pages that fill wanted.
   */
  readonly raNext: Int32Array
  readonly raPages: Int32Array
  readonly wbErrSeen: Int32Array
  /** How it will be read (RA_* of `fill`), where a mapping has no advice of its own. */
  readonly advice: Int32Array
  readonly #firstFree: Int32Array

  constructor(columns: ColumnSource, capacity: number, sync: Sync) {
    const n = capacity + 1
    // Threads that read one file in order, each its own part, do not disturb each other.
    const own = (): Int32Array =>
      columns.int32('files', n * sync.threads.maxThreads).subarray(sync.me * n, sync.me * n + n)
    this.capacity = capacity
    this.inode = columns.int32('files', n)
    this.mode = columns.int32('files', n)
    this.refs = columns.int32('files', n)
    this.raNext = own()
    this.raPages = own()
    this.wbErrSeen = columns.int32('files', n)
    this.advice = columns.int32('files', n)
    this.#firstFree = columns.int32('files', 1)
  }

  /** A free row with one reference, or 0. */
  alloc(inode: number, mode: number, wbErrSeen: number): number {
    const f = takeFirst(this.refs, this.#firstFree)
    if (f === 0) return 0
    this.refs[f] = 1
    this.inode[f] = inode
    this.mode[f] = mode
    this.raNext[f] = 0
    this.raPages[f] = 0
    this.wbErrSeen[f] = wbErrSeen
    this.advice[f] = 0
    return f
  }

  /** Without references. */
  free(file: number): void {
    this.inode[file] = 0
    giveBack(this.#firstFree, file)
  }
}
