/**
 * What can be saved of a broken machine: dirty pages of files whose contents are whole, to their stores.
 *
 * A thread that ended with the machine lock, or an exception in the middle of a verb, leaves tables of which any may be
 * half changed. So nothing is looked up by lists, trees or counters here. The frame table is walked from end to end; a
 * row counts as a page of a file if all that is said of it elsewhere agrees:
 *
 *   flags       in the cache, with its contents, and no page table, slab or private page
 *   dirty       by its mark; or on its way to its store (PG_WRITEBACK, set before the mark goes); or some thread may be
 *               storing to it: by a view, a bulk copy or an accessor. An entry that allows stores comes after the mark
 *               and goes before it (mm/fault, writeback)
 *   inode       has a store, and the page lies below its size
 *   hash chain  leads to this frame. Another one may claim the page only with the very same bytes (a page that was
 *               being moved)
 *
 * What fails the last two tests, what was being cut away, and what a thread that lives is writing just now is in doubt,
 * and not written: no wrong page ever reaches a store. Nothing is changed in the tables, so any thread may do this, and
 * again; threads that still store to pages by accessors, which need no lock, are not in the way: it is as if they did
 * so before or after.
 */
import { ENXIO } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { CUT_ASKS, INODE_STORE } from '../cache/inodes.ts'
import {
  F_CACHE_NEXT,
  F_FLAGS,
  F_INDEX,
  F_MAPPING,
  FRAME_SHIFT,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_RESERVED,
  PG_SLAB,
  PG_TABLE,
  PG_UPTODATE,
  PG_WRITEBACK
} from '../frame/frame-table.ts'
import { GuardedStore } from '../store/guard.ts'
import {
  IO_WRITEBACK,
  NR_RECORDED_PINS,
  T_HAZARD,
  T_IN_IO,
  T_IO_FIRST,
  T_IO_INODE,
  T_IO_KIND,
  T_IO_PAGES,
  T_PINS,
  T_RUN_FIRST,
  T_RUN_PAGES
} from '../sync/threads.ts'
import { Watch } from '../sync/vigil.ts'
import type { Machine } from './machine.ts'

const KIND_MASK = PG_CACHED | PG_UPTODATE | PG_ANON | PG_TABLE | PG_SLAB | PG_RESERVED
const FILE_PAGE = PG_CACHED | PG_UPTODATE

/** What became of a file's changed pages. */
export interface SalvagedFile {
  readonly name: string
  /** Pages that its store has now, and their bytes. */
  readonly pages: number
  readonly bytes: number
  /** File pages whose contents may not be what they should be: left as the store has them. */
  readonly doubtful: readonly number[]
  /** File pages that are whole but could not be written, and the errno of that, 0 for none. */
  readonly unwritten: readonly number[]
  readonly errno: number
}

/** Takes the bytes of a page that is whole, in place of the store: a copy. */
export type TakePage = (name: string, position: number, bytes: Uint8Array) => void

interface Found {
  readonly whole: { index: number; frame: number }[]
  readonly doubtful: Set<number>
}

/** Writes what is whole, or hands it to `take`, and has the stores flush. Throws what `take` throws. */
export function salvageFiles(m: Machine, take?: TakePage): SalvagedFile[] {
  settleWriters(m)
  const files: SalvagedFile[] = []
  for (const [inode, found] of findPages(m)) files.push(saveFile(m, inode, found, take))
  return files
}

/** A thread that lives may be in a write of its store, with older bytes than those that follow it. */
function settleWriters(m: Machine): void {
  const { sync } = m
  const watch = new Watch()
  watch.begin()
  for (let t = 0; t < sync.threads.maxThreads; t++) {
    while (isWriting(m, t) && sync.maySleep && watch.look() < sync.patienceMs) {
      const at = sync.threads.at(t, T_IN_IO)
      Atomics.wait(sync.threads.w, at, 1, 1)
    }
  }
}

function isWriting({ sync }: Machine, thread: number): boolean {
  const { threads } = sync
  if (thread === sync.me || !sync.isAttached(thread)) return false
  if (threads.w[threads.at(thread, T_IN_IO)] === 0 || threads.w[threads.at(thread, T_IO_KIND)] !== IO_WRITEBACK)
    return false
  return !sync.hasEnded(thread)
}

function findPages(m: Machine): Map<number, Found> {
  const { frames, inodes } = m
  const { w } = frames
  const stored = storedFrames(m)
  const claims = new Map<number, number>()
  const found = new Map<number, Found>()
  for (let frame = 1; frame < m.ram.nrFrames; frame++) {
    const row = frame << FRAME_SHIFT
    const flags = w[row + F_FLAGS]
    const inode = w[row + F_MAPPING]
    const index = w[row + F_INDEX]
    if ((flags & KIND_MASK) !== FILE_PAGE || inode < 1 || inode > inodes.capacity) continue
    if (inodes.kind[inode] !== INODE_STORE || inodes.pager[inode] !== 0) continue
    if ((flags & (PG_DIRTY | PG_WRITEBACK)) === 0 && !stored.has(frame)) continue
    const size = inodes.sizeBytes[inode]
    if (!Number.isSafeInteger(size) || index < 0 || index >= MAX_FILE_PAGES || index * m.ram.pageSize >= size) continue
    const file = found.get(inode) ?? { whole: [], doubtful: new Set() }
    found.set(inode, file)
    const key = inode * MAX_FILE_PAGES + index
    const other = claims.get(key)
    if (other !== undefined) {
      if (!isSame(m, frame, other)) file.doubtful.add(index)
      continue
    }
    claims.set(key, frame)
    file.whole.push({ index, frame })
    if (isInDoubt(m, inode, index, frame)) file.doubtful.add(index)
  }
  for (const file of found.values()) {
    const whole = file.whole.filter(({ index }) => !file.doubtful.has(index)).sort((a, b) => a.index - b.index)
    file.whole.splice(0, file.whole.length, ...whole)
  }
  return found
}

/** Frames that some thread may have stored to since they were clean. */
function storedFrames({ sync }: Machine): Set<number> {
  const { threads } = sync
  const stored = new Set<number>()
  for (let t = 0; t < threads.maxThreads; t++) {
    const row = threads.at(t, 0)
    if (threads.w[row + T_HAZARD] !== 0) stored.add(threads.w[row + T_HAZARD] - 1)
    const pages = threads.w[row + T_RUN_PAGES]
    for (let i = 0; i < -pages; i++) stored.add(threads.w[row + T_RUN_FIRST] + i)
    for (let i = 0; i < NR_RECORDED_PINS; i++) {
      const pin = threads.w[row + T_PINS + i]
      if (pin < 0) stored.add(-pin)
    }
  }
  return stored
}

function isInDoubt(m: Machine, inode: number, index: number, frame: number): boolean {
  const { inodes, sync } = m
  const isCut = inodes.cutting[inode] >= CUT_ASKS && index >= inodes.cutFirst[inode] && index <= inodes.cutLast[inode]
  if (isCut) return true
  const { threads } = sync
  for (let t = 0; t < threads.maxThreads; t++) {
    const row = threads.at(t, 0)
    const offset = index - threads.w[row + T_IO_FIRST]
    const isOfIts = threads.w[row + T_IO_INODE] === inode && offset >= 0 && offset < threads.w[row + T_IO_PAGES]
    if (isOfIts && isWriting(m, t)) return true
  }
  const cached = chained(m, inode, index)
  return cached === 0 || (cached !== frame && !isSame(m, cached, frame))
}

/** `PageCache.lookup` in chains that may lead anywhere. → the frame, 0 for none. */
function chained(m: Machine, inode: number, index: number): number {
  const { w } = m.frames
  const { nrFrames } = m.ram
  let frame = m.cache.chainOf(inode, index)
  for (let step = 0; step < nrFrames && frame > 0 && frame < nrFrames; step++) {
    const row = frame << FRAME_SHIFT
    if (w[row + F_INDEX] === index && w[row + F_MAPPING] === inode && (w[row + F_FLAGS] & PG_CACHED) !== 0) return frame
    frame = w[row + F_CACHE_NEXT]
  }
  return 0
}

function isSame({ ram }: Machine, frame: number, other: number): boolean {
  const words = ram.pageSize >>> 2
  for (let i = 0; i < words; i++) if (ram.i32[frame * words + i] !== ram.i32[other * words + i]) return false
  return true
}

function saveFile(m: Machine, inode: number, found: Found, take: TakePage | undefined): SalvagedFile {
  const { pageSize, u8 } = m.ram
  const store = storeOf(m, inode)
  const size = m.inodes.sizeBytes[inode]
  const unwritten: number[] = []
  let pages = 0
  let bytes = 0
  let errno = 0
  for (const { index, frame } of found.whole) {
    const position = index * pageSize
    const length = Math.min(pageSize, size - position)
    // Also for the store: others may go on storing to the page itself.
    const copy = u8.slice(frame * pageSize, frame * pageSize + length)
    if (take !== undefined) take(store.name, position, copy)
    else {
      const done = store.write(position, copy, 0, length)
      if (done !== length) {
        if (errno === 0) errno = done < 0 ? -done : ENXIO
        unwritten.push(index)
        continue
      }
    }
    pages++
    bytes += length
  }
  if (take === undefined) {
    const error = finish(m, inode, store, size)
    if (errno === 0 && error < 0) errno = -error
  }
  const doubtful = [...found.doubtful].sort((a, b) => a - b)
  return { name: store.name, pages, bytes, doubtful, unwritten, errno }
}

/** The store as long as the file, if that was not being changed, and flushed. → 0 or -errno. */
function finish(m: Machine, inode: number, store: GuardedStore, size: number): number {
  const { inodes } = m
  const isSettled = inodes.cutting[inode] < CUT_ASKS && inodes.isUnsized[inode] === 0
  const now = isSettled ? store.size() : size
  const error = now < 0 ? now : now < size ? store.truncate(size) : 0
  return error < 0 ? error : store.flush()
}

/** This thread's store, also where what stands there about it cannot be read. */
function storeOf(m: Machine, inode: number): GuardedStore {
  try {
    const store = m.inodes.stores.get(inode)
    if (store !== undefined) return store
  } catch {}
  return GuardedStore.unreachable(`file ${inode}`, new Error('what is known of it is half changed'), m.sync)
}
