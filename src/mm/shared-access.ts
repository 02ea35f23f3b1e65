/**
 * Access to memory that other threads use at the same time (mm/access is for a machine of one thread).
 *
 *  lockEntry (mm/fault)     the entry of a page allows an access, and stays so until `unlockMmRead`
 *  copyFromUserShared, copyToUserShared, fillUserShared   the bulk copies of mm/access
 *
 * A bulk copy goes in runs of pages that lie side by side, 16 at most. For each it finds the frames under the machine lock, pins them,
 * gives the machine lock back while it copies, and keeps the mmap lock for reading throughout: so the frames are not reused, and a
 * remap, munmap or mprotect that has returned is never followed by a copy from or to the old pages. What is stored to is marked dirty once
 * more after the copy: writeback may have cleaned it in the middle.
 */
import { ACCESS_READ, ACCESS_WRITE, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import { PTE_READ_HIT, PTE_WRITE_HIT, pteFrame } from '../pgtable/pte.ts'
import { IO_NONE, T_RUN_FIRST, T_RUN_PAGES } from '../sync/threads.ts'
import type { BulkResult } from './access.ts'
import { lockEntry } from './fault.ts'
import { runLength } from './frame-run.ts'
import type { Machine } from './machine.ts'

const MAX_RUN_PAGES = 16

/** The frames of the run in hand, set by `beginRun`. */
let runFrame = 0
let runPages = 0

/** Pins the frames of `vpn` and of what follows it in RAM, `maxPages` at most, and gives the machine lock back. → a fault code. */
function beginRun(m: Machine, mm: number, generation: number, vpn: number, maxPages: number, access: number): number {
  const code = lockEntry(m, mm, generation, vpn, access)
  if (code !== FAULT_OK) return code
  const need = access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT
  const { frames, sync } = m
  runFrame = pteFrame(m.tables.get(mm, vpn))
  runPages = runFrame === 0 ? 1 : runLength(m, mm, vpn, runFrame, Math.min(maxPages, MAX_RUN_PAGES), need)
  for (let i = 0; i < runPages && runFrame !== 0; i++) {
    if (frames.pin(runFrame + i)) continue
    runPages = i
  }
  if (runPages === 0) {
    m.unlockMmRead(mm)
    m.lastError = 0
    return FAULT_OOM
  }
  sync.threads.w[sync.row + T_RUN_FIRST] = runFrame
  sync.threads.w[sync.row + T_RUN_PAGES] = runFrame === 0 ? 0 : access === ACCESS_WRITE ? -runPages : runPages
  sync.openWindow(IO_NONE, 0, 0, 0)
  return FAULT_OK
}

function endRun(m: Machine, mm: number, access: number): void {
  const { frames, sync } = m
  sync.closeWindow()
  sync.threads.w[sync.row + T_RUN_PAGES] = 0
  for (let frame = runFrame; frame < runFrame + runPages && runFrame !== 0; frame++) {
    if (access === ACCESS_WRITE) m.cache.setDirty(frame)
    frames.unpin(frame)
    m.putFrame(frame)
  }
  m.unlockMmRead(mm)
}

/** Copies bytes from page `vpn`, byte `off` on. → bytes copied, `length` unless a page faulted. */
export function copyFromUserShared(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  target: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  const { pageSize, u8 } = m.ram
  result.fault = FAULT_OK
  let page = vpn
  let from = off
  let done = 0
  while (done < length) {
    const pagesLeft = Math.ceil((from + length - done) / pageSize)
    result.fault = beginRun(m, mm, generation, page, pagesLeft, ACCESS_READ)
    if (result.fault !== FAULT_OK) return done
    const n = Math.min(length - done, runPages * pageSize - from)
    const base = runFrame * pageSize + from
    target.set(u8.subarray(base, base + n), offset + done)
    page += runPages
    endRun(m, mm, ACCESS_READ)
    done += n
    from = 0
  }
  return done
}

/** Copies bytes to page `vpn`, byte `off` on. → bytes copied. */
export function copyToUserShared(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  source: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  const { pageSize, u8 } = m.ram
  result.fault = FAULT_OK
  let page = vpn
  let to = off
  let done = 0
  while (done < length) {
    const pagesLeft = Math.ceil((to + length - done) / pageSize)
    result.fault = beginRun(m, mm, generation, page, pagesLeft, ACCESS_WRITE)
    if (result.fault !== FAULT_OK) return done
    const n = Math.min(length - done, runPages * pageSize - to)
    u8.set(source.subarray(offset + done, offset + done + n), runFrame * pageSize + to)
    page += runPages
    endRun(m, mm, ACCESS_WRITE)
    done += n
    to = 0
  }
  return done
}

/** Stores `value` (0-255) to `length` bytes. → bytes stored. */
export function fillUserShared(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  value: number,
  length: number,
  result: BulkResult
): number {
  const { pageSize, u8 } = m.ram
  // Now, and not while frames are pinned: what is no number runs code of its own.
  const byte = +value
  result.fault = FAULT_OK
  let page = vpn
  let to = off
  let done = 0
  while (done < length) {
    const pagesLeft = Math.ceil((to + length - done) / pageSize)
    result.fault = beginRun(m, mm, generation, page, pagesLeft, ACCESS_WRITE)
    if (result.fault !== FAULT_OK) return done
    const n = Math.min(length - done, runPages * pageSize - to)
    const base = runFrame * pageSize + to
    u8.fill(byte, base, base + n)
    page += runPages
    endRun(m, mm, ACCESS_WRITE)
    done += n
    to = 0
  }
  return done
}
