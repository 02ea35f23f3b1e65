/**
 * remap_file_pages: any pages of a file anywhere in a window, by page-table entries alone (Linux: mm/fremap.c, 3.19).
 *
 *   before   none: linear    file     present        swap             migration
 *   action   -               -        page dirty if  slot freed       page's RSS - 1
 *                                     entry is; RSS - 1,
 *                                     rmap off
 *   after    a file entry with the new page, soft-dirty; read or written only when touched, or populated after the call
 *
 * Differences from Linux, by design: with POLICY_NONLINEAR files with dirty accounting stay nonlinear too (the exact
 * reverse map makes that possible); MAP_PAGE_PROT gives the pages a protection of their own; `remapVector` takes a page
 * for each entry.
 *
 * Kept as it is there: the first real remap makes the vma VM_NONLINEAR for good; on a linear vma a range already at its
 * linear place succeeds without that; ENOMEM half way leaves the entries written so far.
 *
 * Lock: mmap lock for writing.
 */
import { EACCES, EINVAL, ENOMEM } from '../abi/errno.ts'
import { PTE_FILE_MAX_PAGES } from '../abi/limits.ts'
import { INODE_NOREMAP, INODE_STORE } from '../cache/inodes.ts'
import { TRACE_REMAP } from '../frame/trace.ts'
import { REMAP_CALLS, REMAP_PAGES } from '../frame/vmstat.ts'
import { PAGE_PROT_DEFAULT, PAGE_PROT_WRITE, pgoffToPte, pteFile } from '../pgtable/pte.ts'
import { VM_LOCKED, VM_MAYWRITE, VM_NONLINEAR, VM_PAGE_PROT, VM_SHARED } from '../vma/flags.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'
import { munlockPages } from './mlock-pages.ts'
import { mmapRegion } from './mmap.ts'
import { zapEntry } from './zap.ts'

const SOFT = 1
/** Linux's limit on x86-64, for Linux's emulation: no entry has to remember the page there. */
const EMULATED_MAX_PAGES = 2 ** 46

/** The vma that a remap of [start, end) is for, or -EINVAL: one shared vma, with remap_pages, containing the range. */
function findRemapVma(m: Machine, mm: number, start: number, end: number): number {
  const { vmas } = m
  const vma = vmas.find(mm, start)
  if (vma === 0 || (vmas.flags[vma] & VM_SHARED) === 0) return -EINVAL
  if (m.inodes.kind[vmas.inode[vma]] === INODE_NOREMAP) return -EINVAL
  if (start < vmas.start[vma] || end > vmas.end[vma]) return -EINVAL
  return vma
}

/** Linux 3.19 remaps files with dirty accounting by linear vmas; so does the policy of that name. */
function isEmulated(m: Machine, vma: number): boolean {
  return m.policy === POLICY_LINUX && m.inodes.kind[m.vmas.inode[vma]] === INODE_STORE
}

/**
 * Makes [start, start + pages) show file pages from `pgoff`. `pageProt` is PAGE_PROT_*.
 * → 0 or -errno. Populating is the caller's.
 */
export function doRemap(m: Machine, mm: number, start: number, pages: number, pgoff: number, pageProt: number): number {
  const end = start + pages
  const vma = findRemapVma(m, mm, start, end)
  if (vma < 0) return vma
  if (pgoff + pages >= PTE_FILE_MAX_PAGES && !(isEmulated(m, vma) && pgoff + pages < EMULATED_MAX_PAGES)) return -EINVAL
  const { vmas } = m
  const flags = vmas.flags[vma]
  if (pageProt === PAGE_PROT_WRITE && (flags & VM_MAYWRITE) === 0) return -EACCES
  m.vmstat[REMAP_CALLS]++
  m.trace.add(TRACE_REMAP, mm, start, pages, pgoff)
  if ((flags & VM_NONLINEAR) === 0) {
    const linear = vmas.linearIndex(vma, start) === pgoff
    if (linear && pageProt === PAGE_PROT_DEFAULT) return 0
    if (isEmulated(m, vma)) return emulate(m, mm, vma, start, pages, pgoff, pageProt)
  }
  beginRemap(m, mm, vma, start, end, pageProt)
  let error = 0
  let done = 0
  for (; done < pages && error === 0; done++) {
    error = installFilePte(m, mm, vma, start + done, pgoff + done, pageProt)
  }
  m.notifiers.rangeEnd(mm, start, end)
  m.vmstat[REMAP_PAGES] += error === 0 ? done : done - 1
  return error
}

/**
 * Makes page i of the range show file page `pgoffs[i]`. All pages are checked before any entry is written.
 * → 0 or -errno.
 */
export function remapVector(m: Machine, mm: number, start: number, pgoffs: Int32Array, pageProt: number): number {
  const pages = pgoffs.length
  const end = start + pages
  for (let i = 0; i < pages; i++) {
    // Also turns away negative pages: as unsigned they are beyond the limit.
    if (pgoffs[i] >>> 0 >= PTE_FILE_MAX_PAGES - 1) return -EINVAL
  }
  const vma = findRemapVma(m, mm, start, end)
  if (vma < 0) return vma
  if (pageProt === PAGE_PROT_WRITE && (m.vmas.flags[vma] & VM_MAYWRITE) === 0) return -EACCES
  m.trace.add(TRACE_REMAP, mm, start, pages, -1)
  if (isEmulated(m, vma)) {
    for (let i = 0; i < pages; i++) {
      const error = doRemap(m, mm, start + i, 1, pgoffs[i], pageProt)
      if (error < 0) return error
    }
    return 0
  }
  m.vmstat[REMAP_CALLS]++
  beginRemap(m, mm, vma, start, end, pageProt)
  const { tables } = m
  const { i32 } = m.ram
  let error = 0
  let i = 0
  while (i < pages) {
    const first = tables.ensure(mm, start + i)
    if (first === 0) {
      error = -ENOMEM
      break
    }
    // One table at a time: nothing below allocates, so its slots stay good, and what it holds is counted at the end.
    const stop = tables.leafEnd(start + i, end) - start
    let added = 0
    for (let slot = first; i < stop; i++, slot++) {
      const old = i32[slot]
      i32[slot] = pgoffToPte(pgoffs[i], pageProt, SOFT)
      if (old === 0) added++
      else if (!pteFile(old)) zapEntry(m, mm, vma, start + i, old)
    }
    tables.noteAdded(first, added)
  }
  m.notifiers.rangeEnd(mm, start, end)
  m.vmstat[REMAP_PAGES] += i
  return error
}

/** What every true remap does before its entries: flags, munlock, notifiers. */
function beginRemap(m: Machine, mm: number, vma: number, start: number, end: number, pageProt: number): void {
  const { vmas } = m
  vmas.flags[vma] |= VM_NONLINEAR
  if (pageProt !== PAGE_PROT_DEFAULT) vmas.flags[vma] |= VM_PAGE_PROT
  if ((vmas.flags[vma] & VM_LOCKED) !== 0) {
    // The pages that are mapped over are unlocked; the new ones are locked when the caller populates.
    vmas.flags[vma] &= ~VM_LOCKED
    munlockPages(m, mm, start, end)
    vmas.flags[vma] |= VM_LOCKED
  }
  m.notifiers.rangeStart(mm, start, end)
}

/** One entry. → 0 or -ENOMEM. */
function installFilePte(m: Machine, mm: number, vma: number, vpn: number, pgoff: number, pageProt: number): number {
  const slot = m.tables.ensure(mm, vpn)
  if (slot === 0) return -ENOMEM
  const old = m.ram.i32[slot]
  m.tables.set(slot, pgoffToPte(pgoff, pageProt, SOFT))
  if (old !== 0) zapEntry(m, mm, vma, vpn, old)
  return 0
}

/** The linear vma in the place of the range that stands for the remap (fremap.c's mmap_region branch). */
function emulate(
  m: Machine,
  mm: number,
  vma: number,
  start: number,
  pages: number,
  pgoff: number,
  pageProt: number
): number {
  if (pageProt !== PAGE_PROT_DEFAULT) return -EINVAL
  const result = mmapRegion(m, mm, start, pages, m.vmas.flags[vma], m.vmas.file[vma], pgoff)
  return result < 0 ? result : 0
}
