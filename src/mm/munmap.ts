/**
 * munmap and the end of an address space (Linux: do_munmap, exit_mmap).
 *
 * The range is cut out at page borders: vmas at its ends are split first, so that a full table or the map-count limit
 * is found before anything is unmapped. Entries, file entries too, are forgotten.
 */
import { ENOMEM } from '../abi/errno.ts'
import { MM_DEF_FLAGS, MM_FREE_HINT, MM_LOCKED_VM, MM_MAP_COUNT, MM_SHIFT, MM_TOTAL_VM } from '../frame/mm-table.ts'
import { VM_LOCKED } from '../vma/flags.ts'
import { splitVma } from '../vma/merge.ts'
import { putFile } from './files.ts'
import type { Machine } from './machine.ts'
import { munlockPages } from './mlock-pages.ts'
import { ZAP_FORGET, zapRange } from './zap.ts'

/** Unmaps pages [start, end). → 0 or -errno. The mmap lock is held for writing. */
export function doMunmap(m: Machine, mm: number, start: number, end: number): number {
  const error = isolateRange(m, mm, start, end)
  if (error < 0) return error
  const first = m.vmas.find(mm, start)
  if (first === 0 || m.vmas.start[first] >= end) return 0
  m.notifiers.rangeStart(mm, start, end)
  let result = 0
  let vma = first
  while (vma !== 0 && m.vmas.start[vma] < end) {
    const next = m.vmas.next[vma]
    const closed = removeVma(m, mm, vma)
    if (result === 0) result = closed
    vma = next
  }
  m.notifiers.rangeEnd(mm, start, end)
  const hint = (mm << MM_SHIFT) + MM_FREE_HINT
  if (start < m.mms.w[hint]) m.mms.w[hint] = start
  return result
}

/**
 * Splits the vmas that the ends of a range lie in. → 0, or -ENOMEM with the vmas as they were (or split, unchanged).
 */
export function isolateRange(m: Machine, mm: number, start: number, end: number): number {
  const { vmas } = m
  const first = vmas.find(mm, start)
  if (first === 0 || vmas.start[first] >= end) return 0
  if (vmas.start[first] < start) {
    // Cutting a hole needs one vma more than there are.
    if (end < vmas.end[first] && m.mms.row(mm, MM_MAP_COUNT) >= m.maxMapCount) return -ENOMEM
    if (splitVma(vmas, first, start, m.onFile) === 0) return -ENOMEM
  }
  const last = vmas.at(mm, end)
  if (last !== 0 && vmas.start[last] < end && splitVma(vmas, last, end, m.onFile) === 0) return -ENOMEM
  return 0
}

/** Unmaps and frees one vma. → 0, or the error of the last close of its file. */
function removeVma(m: Machine, mm: number, vma: number): number {
  const { vmas } = m
  const row = mm << MM_SHIFT
  const pages = vmas.end[vma] - vmas.start[vma]
  if ((vmas.flags[vma] & VM_LOCKED) !== 0) {
    m.mms.w[row + MM_LOCKED_VM] -= pages
    vmas.flags[vma] &= ~VM_LOCKED
    munlockPages(m, mm, vmas.start[vma], vmas.end[vma])
  }
  zapRange(m, mm, vma, vmas.start[vma], vmas.end[vma], ZAP_FORGET)
  m.mms.w[row + MM_TOTAL_VM] -= pages
  vmas.unlink(vma)
  const file = vmas.file[vma]
  vmas.free(vma)
  return putFile(m, file)
}

/**
 * Takes everything out of an address space; its notifiers are released first. → 0, or the first error of the last close
 * of a file: everything is gone all the same.
 */
export function exitMmap(m: Machine, mm: number): number {
  m.notifiers.release(mm)
  m.mms.w[(mm << MM_SHIFT) + MM_DEF_FLAGS] = 0
  m.tables.dropWindows(mm)
  let result = 0
  let vma = m.vmas.first(mm)
  while (vma !== 0) {
    const closed = removeVma(m, mm, vma)
    if (result === 0) result = closed
    vma = m.vmas.first(mm)
  }
  return result
}
