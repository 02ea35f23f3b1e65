/**
 * The page cache: (inode, file page) → frame, a hash over the frame table's columns, and each inode's pages on one of
 * two lists, clean and dirty.
 *
 * Inode 0 is the swap cache: its "file pages" are swap slots, its pages are anonymous and on no list.
 *
 * Offers lookup, add, remove, and the dirty state of a page. Does no I/O and frees no frame: fill.ts reads,
 * writeback.ts writes, and whoever removes a page asks `FrameTable.isUnused`.
 */
import { broken } from '../base/assert.ts'
import { Lists } from '../base/lists.ts'
import {
  type ColumnSource,
  F_CACHE_NEXT,
  F_FLAGS,
  F_INDEX,
  F_MAPPING,
  FRAME_SHIFT,
  type FrameTable,
  MAPPING_ANON,
  OWN_NEXT,
  OWN_PREV,
  OWN_SHIFT,
  PG_CACHED,
  PG_DIRTY
} from '../frame/frame-table.ts'
import { NR_DIRTY, NR_FILE_PAGES } from '../frame/vmstat.ts'
import type { Sync } from '../sync/sync.ts'
import { CLEAN, DIRTY, type InodeTable } from './inodes.ts'

/** Frames of a chain that are looked at without the lock. */
const PEEK_STEPS = 16

export class PageCache {
  readonly frames: FrameTable
  readonly inodes: InodeTable
  readonly vmstat: Float64Array
  /** List `inode * 2 + CLEAN` and `inode * 2 + DIRTY`. */
  readonly own: Lists
  readonly #keepsApart: boolean
  /** The page that this thread entered last. */
  #near = 0
  readonly #buckets: Int32Array
  readonly #mask: number

  /**
   * `near`: whether a thread's pages go next to each other on an inode's list, where the order of clean pages says
   * nothing.
   */
  constructor(
    columns: ColumnSource,
    frames: FrameTable,
    inodes: InodeTable,
    vmstat: Float64Array,
    nrBuckets: number,
    sync: Sync,
    near: 'near' | 'first'
  ) {
    this.frames = frames
    this.inodes = inodes
    this.vmstat = vmstat
    this.#buckets = columns.int32('page cache', nrBuckets)
    this.#mask = nrBuckets - 1
    this.#keepsApart = near === 'near'
    const counts = columns.int32('inodes', Lists.countWords(2 * (inodes.capacity + 1), sync.threads.maxThreads))
    this.own = new Lists(frames.own, OWN_SHIFT, OWN_NEXT, OWN_PREV, inodes.pageLists, counts, sync.me)
  }

  /** First frame of each hash chain (F_CACHE_NEXT links it), for checks: read only. */
  get buckets(): Int32Array {
    return this.#buckets
  }

  /** Where the hash chain of a page begins: a frame, or 0. */
  chainOf(inode: number, index: number): number {
    return this.#buckets[this.#bucket(inode, index)]
  }

  /** The frame that holds a page, or 0. */
  lookup(inode: number, index: number): number {
    const { w } = this.frames
    let frame = this.#buckets[this.#bucket(inode, index)]
    while (frame !== 0) {
      const row = frame << FRAME_SHIFT
      if (w[row + F_INDEX] === index && w[row + F_MAPPING] === inode) break
      frame = w[row + F_CACHE_NEXT]
    }
    return frame
  }

  /**
   * `lookup` without the lock: whether the page seems to be here. Chains may change meanwhile, so the walk is bounded.
   */
  mayHave(inode: number, index: number): boolean {
    const { w } = this.frames
    let frame = this.#buckets[this.#bucket(inode, index)]
    for (let step = 0; frame !== 0 && step < PEEK_STEPS; step++) {
      const row = frame << FRAME_SHIFT
      if (w[row + F_INDEX] === index && w[row + F_MAPPING] === inode) return true
      frame = w[row + F_CACHE_NEXT]
    }
    return false
  }

  /** Enters a frame. The page is not in the cache yet; an anonymous frame keeps its flags. */
  add(frame: number, inode: number, index: number): void {
    const bucket = this.#bucket(inode, index)
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    // Before the frame is one of them itself.
    const isNear = this.#keepsApart && this.#isClean(this.#near, inode)
    w[row + F_MAPPING] = inode
    w[row + F_INDEX] = index
    w[row + F_CACHE_NEXT] = this.#buckets[bucket]
    w[row + F_FLAGS] |= PG_CACHED
    this.#buckets[bucket] = frame
    if (inode === 0) return
    if (isNear) this.own.addAfter(inode * 2 + CLEAN, this.#near, frame)
    else this.own.addHead(inode * 2 + CLEAN, frame)
    this.#near = frame
    this.vmstat[NR_FILE_PAGES]++
  }

  /** Whether a frame is on the list of the inode's clean pages. */
  #isClean(frame: number, inode: number): boolean {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    return (w[row + F_FLAGS] & (PG_CACHED | PG_DIRTY)) === PG_CACHED && w[row + F_MAPPING] === inode
  }

  /** Takes a page out, whatever its dirty state; the frame keeps its other flags. */
  remove(frame: number): void {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    const inode = w[row + F_MAPPING]
    const bucket = this.#bucket(inode, w[row + F_INDEX])
    let at = this.#buckets[bucket]
    if (at === frame) this.#buckets[bucket] = w[row + F_CACHE_NEXT]
    else {
      while (at !== 0 && w[(at << FRAME_SHIFT) + F_CACHE_NEXT] !== frame) at = w[(at << FRAME_SHIFT) + F_CACHE_NEXT]
      if (at === 0) broken(`frame ${frame} is not in its hash chain`)
      w[(at << FRAME_SHIFT) + F_CACHE_NEXT] = w[row + F_CACHE_NEXT]
    }
    w[row + F_CACHE_NEXT] = 0
    w[row + F_FLAGS] &= ~PG_CACHED
    w[row + F_MAPPING] = MAPPING_ANON
    if (inode === 0) {
      w[row + F_INDEX] = -1
      return
    }
    const dirty = (w[row + F_FLAGS] & PG_DIRTY) !== 0
    this.own.remove(inode * 2 + (dirty ? DIRTY : CLEAN), frame)
    if (dirty) {
      this.vmstat[NR_DIRTY]--
      this.inodes.noteDirty(inode, -1)
    }
    w[row + F_FLAGS] &= ~PG_DIRTY
    this.vmstat[NR_FILE_PAGES]--
  }

  /** Marks a page dirty. An anonymous page, and one that left its file, just get the flag. */
  setDirty(frame: number): void {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    const flags = w[row + F_FLAGS]
    if ((flags & PG_DIRTY) !== 0) return
    w[row + F_FLAGS] = flags | PG_DIRTY
    const inode = w[row + F_MAPPING]
    if (inode <= 0) return
    this.own.remove(inode * 2 + CLEAN, frame)
    this.own.addTail(inode * 2 + DIRTY, frame)
    this.vmstat[NR_DIRTY]++
    this.inodes.noteDirty(inode, 1)
  }

  clearDirty(frame: number): void {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    const flags = w[row + F_FLAGS]
    if ((flags & PG_DIRTY) === 0) return
    w[row + F_FLAGS] = flags & ~PG_DIRTY
    const inode = w[row + F_MAPPING]
    if (inode <= 0) return
    this.own.remove(inode * 2 + DIRTY, frame)
    this.own.addHead(inode * 2 + CLEAN, frame)
    this.vmstat[NR_DIRTY]--
    this.inodes.noteDirty(inode, -1)
  }

  /** Some page of the inode, or 0. */
  anyPage(inode: number): number {
    const clean = this.own.first(inode * 2 + CLEAN)
    return clean !== 0 ? clean : this.own.first(inode * 2 + DIRTY)
  }

  /** Pages of an inode that are in the cache. */
  nrPages(inode: number): number {
    return this.own.count(inode * 2 + CLEAN) + this.own.count(inode * 2 + DIRTY)
  }

  nrDirty(inode: number): number {
    return this.own.count(inode * 2 + DIRTY)
  }

  /**
   * The pages of an inode with index in [first, last], in ascending order, as a fresh array of frames.
   * `which` is CLEAN | DIRTY list numbers: pass DIRTY for dirty ones only, CLEAN for all.
   */
  collect(inode: number, first: number, last: number, which: typeof CLEAN | typeof DIRTY): Int32Array {
    const dirtyOnly = which === DIRTY
    const nr = dirtyOnly ? this.nrDirty(inode) : this.nrPages(inode)
    if (nr === 0) return new Int32Array(0)
    if (last - first + 1 <= nr) return this.#collectByLookup(inode, first, last, dirtyOnly)
    const found = new Float64Array(nr)
    let n = 0
    for (let list = dirtyOnly ? DIRTY : CLEAN; list <= DIRTY; list++) {
      for (let f = this.own.first(inode * 2 + list); f !== 0; f = this.own.next(f)) {
        const index = this.frames.row(f, F_INDEX)
        // Index and frame in one double: 31 + 22 bits, so that a plain numeric sort orders by index.
        if (index >= first && index <= last) found[n++] = index * 0x400000 + f
      }
    }
    const sorted = found.subarray(0, n).sort()
    const frames = new Int32Array(n)
    for (let i = 0; i < n; i++) frames[i] = sorted[i] % 0x400000
    return frames
  }

  #collectByLookup(inode: number, first: number, last: number, dirtyOnly: boolean): Int32Array {
    const frames = new Int32Array(last - first + 1)
    let n = 0
    for (let index = first; index <= last; index++) {
      const f = this.lookup(inode, index)
      if (f !== 0 && (!dirtyOnly || (this.frames.row(f, F_FLAGS) & PG_DIRTY) !== 0)) frames[n++] = f
    }
    return frames.subarray(0, n)
  }

  #bucket(inode: number, index: number): number {
    // Neighbouring pages of a file get neighbouring buckets; files start at places far apart.
    return (index + (index >>> 16) + Math.imul(inode, 0x9e3779b1)) & this.#mask
  }
}
