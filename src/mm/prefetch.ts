/**
 * Prefetching in the order of a window: a fault on a store that answers later also asks for the pages that the next entries of a nonlinear
 * mapping remember. The file's own order, which readahead follows, says nothing about what such a window shows next.
 */
import { pteFile, pteToPgoff } from '../pgtable/pte.ts'
import { VM_NONLINEAR, VM_RAND_READ } from '../vma/flags.ts'
import type { Machine } from './machine.ts'

/** Entries looked at after the one that faulted. */
const AHEAD = 16

export function prefetchAlong(m: Machine, mm: number, vma: number, vpn: number): void {
  const { vmas, tables } = m
  const flags = vmas.flags[vma]
  if ((flags & VM_NONLINEAR) === 0 || (flags & VM_RAND_READ) !== 0) return
  const inode = vmas.inode[vma]
  const nrPages = m.nrFilePages(inode)
  const end = Math.min(vmas.end[vma], vpn + 1 + AHEAD)
  for (let page = vpn + 1; page < end; page++) {
    const pte = tables.get(mm, page)
    if (!pteFile(pte)) continue
    const index = pteToPgoff(pte)
    if (index < nrPages && m.allocator.nrFree > 0) m.filler.request(inode, index, index)
  }
}
