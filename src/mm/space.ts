/** Address spaces: made, ended, and their heap (Linux: mm_alloc, mmput, brk). */
import { ENOMEM } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import { MM_BRK_OFF, MM_BRK_PAGE, MM_DEF_FLAGS, MM_SHIFT, MM_START_BRK } from '../frame/mm-table.ts'
import { VM_LOCKED, VM_MAYEXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE } from '../vma/flags.ts'
import type { Machine } from './machine.ts'
import { closeReplaced, lockedBeyondLimit, mayExpand, mmapRegion } from './mmap.ts'
import { doMunmap, exitMmap } from './munmap.ts'

/** The heap of a new address space begins here: the middle, with room for mappings below and growth above. */
const HEAP_START = 0x40000000

/** → the row of a new, empty address space, or -ENOMEM. */
export function newMm(m: Machine): number {
  const mm = m.mms.alloc()
  if (mm === 0) return -ENOMEM
  m.mms.w[(mm << MM_SHIFT) + MM_START_BRK] = HEAP_START
  m.mms.w[(mm << MM_SHIFT) + MM_BRK_PAGE] = HEAP_START
  return mm
}

/**
 * Ends an address space: notifiers released, everything unmapped, the row free. → 0, or the error of writing what was
 * dirty in a file that only it still had open.
 */
export function endMm(m: Machine, mm: number): number {
  const result = exitMmap(m, mm)
  m.mms.free(mm)
  return result
}

/**
 * Moves the end of the heap to byte `page * pageSize + off`. As brk does, it tells the new end, or the old one when it
 * could not be moved: the caller compares. → pages that a locked heap grew by and that are to be populated, else 0.
 */
export function doBrk(m: Machine, mm: number, page: number, off: number): number {
  const row = mm << MM_SHIFT
  const w = m.mms.w
  const start = w[row + MM_START_BRK]
  const oldEnd = w[row + MM_BRK_PAGE] + (w[row + MM_BRK_OFF] > 0 ? 1 : 0)
  const newEnd = page + (off > 0 ? 1 : 0)
  if (page < start || newEnd > TASK_PAGES) return 0
  if (newEnd < oldEnd) {
    if ((doMunmap(m, mm, newEnd, oldEnd) || closeReplaced(m, 0)) < 0) return 0
  } else if (newEnd > oldEnd) {
    const pages = newEnd - oldEnd
    const next = m.vmas.find(mm, oldEnd)
    // A page stays free below the next mapping.
    if (next !== 0 && m.vmas.start[next] <= newEnd) return 0
    const flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | w[row + MM_DEF_FLAGS]
    if ((flags & VM_LOCKED) !== 0 && lockedBeyondLimit(m, mm, pages)) return 0
    if (!mayExpand(m, mm, pages) || mmapRegion(m, mm, oldEnd, pages, flags, 0, oldEnd) < 0) return 0
  }
  w[row + MM_BRK_PAGE] = page
  w[row + MM_BRK_OFF] = off
  return newEnd > oldEnd && (w[row + MM_DEF_FLAGS] & VM_LOCKED) !== 0 ? newEnd - oldEnd : 0
}
