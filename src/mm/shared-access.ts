/**
 * Access to memory that other threads use at the same time (mm/access is for a machine of one thread).
 *
 *  lockEntry (mm/fault)   the entry of a page allows an access, and stays so until `unlockMmRead`
 *  beginRun, endRun       around each part of a bulk copy (mm/access)
 *
 * A bulk copy goes in runs of pages that lie side by side, 16 at most. For each it finds the frames under the machine
 * lock, pins them, gives the machine lock back while it copies, and keeps the mmap lock for reading throughout: so the
 * frames are not reused, and a remap, munmap or mprotect that has returned is never followed by a copy from or to the
 * old pages. What is stored to is marked dirty once more after the copy: writeback may have cleaned it in the middle.
 */
import { ACCESS_WRITE, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import { PTE_READ_HIT, PTE_WRITE_HIT, pteFrame } from '../pgtable/pte.ts'
import { IO_NONE, T_RUN_FIRST, T_RUN_PAGES } from '../sync/threads.ts'
import { lockEntry } from './fault.ts'
import { runLength } from './frame-run.ts'
import type { Machine } from './machine.ts'

const MAX_RUN_PAGES = 16

/** The frames of the run in hand. */
export const run: { frame: number; pages: number } = { frame: 0, pages: 0 }

/**
 * Pins the frames of `vpn` and of what follows it in RAM, `maxPages` at most, and gives the machine lock back. → a
 * fault code.
 */
export function beginRun(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  maxPages: number,
  access: number
): number {
  const code = lockEntry(m, mm, generation, vpn, access)
  if (code !== FAULT_OK) return code
  const need = access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT
  const { frames, sync } = m
  run.frame = pteFrame(m.tables.get(mm, vpn))
  run.pages = run.frame === 0 ? 1 : runLength(m, mm, vpn, run.frame, Math.min(maxPages, MAX_RUN_PAGES), need)
  for (let i = 0; i < run.pages && run.frame !== 0; i++) {
    if (frames.pin(run.frame + i)) continue
    run.pages = i
  }
  if (run.pages === 0) {
    m.unlockMmRead(mm)
    m.lastError = 0
    return FAULT_OOM
  }
  sync.threads.w[sync.row + T_RUN_FIRST] = run.frame
  sync.threads.w[sync.row + T_RUN_PAGES] = run.frame === 0 ? 0 : access === ACCESS_WRITE ? -run.pages : run.pages
  sync.openWindow(IO_NONE, 0, 0, 0)
  return FAULT_OK
}

/** Gives the run back, and all locks. Throws BrokenMachine. */
export function endRun(m: Machine, mm: number, access: number): void {
  const { frames, sync } = m
  sync.closeWindow()
  sync.threads.w[sync.row + T_RUN_PAGES] = 0
  for (let frame = run.frame; frame < run.frame + run.pages && run.frame !== 0; frame++) {
    if (access === ACCESS_WRITE) m.cache.setDirty(frame)
    frames.unpin(frame)
    m.putFrame(frame)
  }
  m.unlockMmRead(mm)
}
