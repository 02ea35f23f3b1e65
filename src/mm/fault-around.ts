/**
 * Fault-around: a load that faults on an empty entry also maps the linear neighbours that are in the cache already
 * (Linux 3.15+, do_fault_around and filemap_map_pages; window as measured on 3.19).
 *
 * The window is [max(vpn rounded down to its size, vma start), + size), cut at the end of the vma, of the page table
 * and of the file. Only empty entries are filled, only with pages that need no I/O; entries that remember a page stay.
 */
import { FAULT_AROUND_PAGES } from '../frame/vmstat.ts'
import { mkPte, PTE_READ, PTE_YOUNG } from '../pgtable/pte.ts'
import { VM_PROT_MASK } from '../vma/flags.ts'
import type { Machine } from './machine.ts'

/**
 * Fault-around before the page itself is looked for, as Linux does it: the neighbours are mapped even if the page turns
 * out to lie past the end of the file. → whether the page was mapped with them.
 */
export function faultAroundFirst(m: Machine, mm: number, vma: number, vpn: number): boolean {
  const slot = m.tables.ensure(mm, vpn)
  if (slot === 0) return false
  faultAround(m, mm, vma, vpn)
  if (m.ram.i32[slot] === 0) {
    m.tables.releaseIfEmpty(slot)
    return false
  }
  m.tables.rewrite(slot, m.ram.i32[slot] | PTE_YOUNG)
  return true
}

/** The table of the page is there. */
export function faultAround(m: Machine, mm: number, vma: number, vpn: number): void {
  const { vmas, tables, cache, ram } = m
  const pages = m.faultAroundPages
  const inode = vmas.inode[vma]
  const first = Math.max(vpn & -pages, vmas.start[vma])
  const tableFirst = vpn & ~tables.leafMask
  const from = Math.max(first, tableFirst)
  const end = Math.min(first + pages, vmas.end[vma], tableFirst + tables.leafMask + 1)
  const base = tables.find(mm, vpn) - vpn
  const { i32 } = ram
  // A forced load can come to a mapping that its owner may not read.
  const flags = (vmas.flags[vma] & VM_PROT_MASK) === 0 ? 0 : PTE_READ
  const firstIndex = vmas.linearIndex(vma, from)
  const stop = Math.min(end, from + m.nrFilePages(inode) - firstIndex)
  for (let page = from, index = firstIndex; page < stop; page++, index++) {
    const slot = base + page
    if (i32[slot] !== 0) continue
    const frame = cache.lookup(inode, index)
    if (frame === 0 || !m.frames.isUptodate(frame)) continue
    m.filler.noteHit(frame)
    m.rmap.addRmap(frame, mm, vma, page)
    tables.set(slot, mkPte(frame, flags))
    m.vmstat[FAULT_AROUND_PAGES]++
  }
}
