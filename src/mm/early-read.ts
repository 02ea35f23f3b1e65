/**
 * The early read: in a memory that threads share, the page of a fault is read from its store before any lock is taken,
 * where it can be foretold which page that is.
 *
 * A fault that reads takes the machine lock twice otherwise, before the store is called and after it, and each time the
 * processors pass the cache lines of the page cache, the lists and the address space to and fro. So a thread keeps a
 * few frames in reserve, and remembers the mapping that its last read was for. The next fault there reads into the
 * reserve first, takes the locks once, and enters the frame in the page cache if all that it took for granted is so. If
 * not, the fault goes on as if nothing had been read. (Linux has the same aim with its faults under the lock of one
 * vma: look first, take locks late, check again.)
 *
 *  readEarly      before the locks: guesses the page, reads it
 *  takeEarly      under them: the page, cached, or 0 when it was not read or may have changed since
 *  rememberRead   under them: what the next guess goes by
 *  giveUpReserve  under them: the frame goes back
 *
 * What is looked at without a lock only makes the guess; a wrong one costs a read. What was read is the page's contents
 * if the page is in no cache now, as it was not before the read, and the store was not written to, cut or replaced in
 * between: a write that goes on has its page in the cache, one that is done has moved `inodes.storeSeq`. Two threads
 * that want one page within the same moment may both read it; the second one finds it cached.
 *
 * Only for pages that are read alone: what is read in order is better read ahead (cache/fill).
 */
import { RA_NORMAL, RA_RANDOM } from '../cache/fill.ts'
import { F_FLAGS, FRAME_SHIFT, PG_UPTODATE } from '../frame/frame-table.ts'
import { TRACE_READ } from '../frame/trace.ts'
import { PGPGIN, STORE_READS } from '../frame/vmstat.ts'
import { pteFile, pteToPgoff } from '../pgtable/pte.ts'
import { NR_RESERVE, T_NR_RESERVED, T_RESERVE } from '../sync/threads.ts'
import type { Machine } from './machine.ts'

/** A thread keeps one frame for so many that would be its share: in a small memory none, since it would be missed. */
const FRAMES_PER_RESERVED = 256
const NOTHING = -1

/** What one thread remembers: the mapping that its last read was for, and the page that it has read. */
export class EarlyRead {
  mm = 0
  startVpn = 0
  endVpn = 0
  pgoff = 0
  inode = 0
  file = 0
  advice: number = RA_NORMAL
  /** The page in the reserve, NOTHING if none; what had to stay as it was since. */
  index: number = NOTHING
  storeSeq = 0
  generation = 0

  forget(): void {
    this.mm = 0
    this.index = NOTHING
  }
}

/**
 * Reads the page of `vpn` into this thread's reserve, if it can be foretold. Takes no lock, and changes nothing that
 * others see.
 */
export function readEarly(m: Machine, mm: number, vpn: number): void {
  const { early, sync, inodes, ram } = m
  early.index = NOTHING
  if (early.mm !== mm || vpn < early.startVpn || vpn >= early.endVpn || m.inside || sync.broken !== 0) return
  const { w } = sync.threads
  const nrReserved = w[sync.row + T_NR_RESERVED]
  if (nrReserved === 0) return
  const index = guessPage(m, mm, vpn)
  if (index < 0) return
  const { inode } = early
  const store = inodes.stores.known(inode)
  const end = (index + 1) * ram.pageSize
  if (store === undefined || end > inodes.sizeBytes[inode] || end > inodes.storeBytes[inode]) return
  if (m.cache.mayHave(inode, index)) return
  early.generation = inodes.stores.generation(inode)
  early.storeSeq = Atomics.load(inodes.storeSeq, inode)
  const reserve = w[sync.row + T_RESERVE + nrReserved - 1]
  let done = 0
  m.inside = true
  try {
    done = store.read(index * ram.pageSize, ram.u8, reserve * ram.pageSize, ram.pageSize)
  } finally {
    m.inside = false
  }
  m.vmstat[STORE_READS]++
  m.vmstat[PGPGIN]++
  if (done === ram.pageSize) early.index = index
}

/** The file page that the entry of `vpn` stands for, if it stands for one that would be read alone; else -1. */
function guessPage(m: Machine, mm: number, vpn: number): number {
  const { early } = m
  const slot = m.tables.peek(mm, vpn)
  if (slot === 0) return -1
  const pte = m.ram.i32[slot]
  if (pte !== 0 && !pteFile(pte)) return -1
  const index = pte === 0 ? early.pgoff + (vpn - early.startVpn) : pteToPgoff(pte)
  return isReadAlone(m, early.file, index, early.advice) ? index : -1
}

/** Whether a fault on the page reads no others ahead. */
function isReadAlone(m: Machine, file: number, index: number, advice: number): boolean {
  if (advice === RA_RANDOM || m.filler.maxWindowPages <= 1) return true
  return advice === RA_NORMAL && index !== 0 && index !== m.files.raNext[file]
}

/**
 * The page, in the page cache and not yet mapped, if this thread has just read it and it is still what it was; else 0.
 */
export function takeEarly(m: Machine, inode: number, file: number, index: number, advice: number): number {
  const { early, sync, inodes, files } = m
  if (early.index !== index || early.inode !== inode) return 0
  early.index = NOTHING
  if (early.storeSeq !== inodes.storeSeq[inode] || early.generation !== inodes.stores.generation(inode)) return 0
  if (!isReadAlone(m, file, index, advice)) return 0
  const { w } = sync.threads
  const left = --w[sync.row + T_NR_RESERVED]
  const frame = w[sync.row + T_RESERVE + left]
  w[sync.row + T_RESERVE + left] = 0
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_UPTODATE
  m.cache.add(frame, inode, index)
  m.lru.add(frame)
  files.raNext[file] = index + 1
  files.raPages[file] = 1
  m.trace.add(TRACE_READ, inode, index, 1, 0)
  if (left === 0) reserveFrames(m)
  return frame
}

/** A fault of the vma has read one page of a store alone: the next one may do so early. */
export function rememberRead(m: Machine, mm: number, vma: number, advice: number): void {
  const { early, sync, vmas, ram } = m
  if (!sync.isShared || ram.nrFrames < FRAMES_PER_RESERVED * sync.threads.maxThreads) return
  early.mm = mm
  early.startVpn = vmas.start[vma]
  early.endVpn = vmas.end[vma]
  early.pgoff = vmas.pgoff[vma]
  early.inode = vmas.inode[vma]
  early.file = vmas.file[vma]
  early.advice = advice
  if (sync.threads.w[sync.row + T_NR_RESERVED] === 0) reserveFrames(m)
}

/** Gives this thread's reserve back, until its next read. With the machine lock. */
export function giveUpReserve(m: Machine): void {
  const { w } = m.sync.threads
  const { row } = m.sync
  for (let i = w[row + T_NR_RESERVED] - 1; i >= 0; i--) {
    const frame = w[row + T_RESERVE + i]
    w[row + T_RESERVE + i] = 0
    m.frames.unpin(frame)
    m.putFrame(frame)
  }
  w[row + T_NR_RESERVED] = 0
}

/** Keeps free frames for this thread, as far as there are some: pinned, so that they are nobody else's. */
function reserveFrames(m: Machine): void {
  const { sync, ram } = m
  const { w, maxThreads } = sync.threads
  const wanted = Math.min(NR_RESERVE, Math.floor(ram.nrFrames / (FRAMES_PER_RESERVED * maxThreads)))
  for (let n = w[sync.row + T_NR_RESERVED]; n < wanted; n++) {
    const frame = m.allocator.allocNoReclaim()
    if (frame === 0) return
    m.frames.pin(frame)
    w[sync.row + T_RESERVE + n] = frame
    w[sync.row + T_NR_RESERVED] = n + 1
  }
}
