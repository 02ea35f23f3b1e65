/**
 * Prefetching in the order of a window: a fault on a store that answers later also asks for the pages that the next
 * entries of a nonlinear mapping remember. The file's own order, which readahead follows, says nothing about what such
 * a window shows next.
 *
 *  prefetchAlong   after a page that was missing: asks for those of the next AHEAD entries
 *  prefetchOn      after a page that was there: the same, once the entry AHEAD / 2 further on is missing too, so that
 *                  who goes on through the window does not come to the end of what was asked for
 *
 * Both may reclaim: an entry or a page that is not pinned is to be looked up again.
 */
import { pteFile, pteToPgoff } from '../pgtable/pte.ts'
import { VM_NONLINEAR, VM_RAND_READ } from '../vma/flags.ts'
import type { Machine } from './machine.ts'

/**
 * Entries looked at after the one that faulted; fewer in a small memory, where prefetched pages would push each other
 * out.
 */
const AHEAD = 16

function reach(m: Machine, vma: number): number {
  const flags = m.vmas.flags[vma]
  return (flags & (VM_NONLINEAR | VM_RAND_READ)) === VM_NONLINEAR ? Math.min(AHEAD, m.ram.nrFrames >>> 3) : 0
}

export function prefetchAlong(m: Machine, mm: number, vma: number, vpn: number): void {
  const { vmas } = m
  const inode = vmas.inode[vma]
  const end = Math.min(vmas.end[vma], vpn + 1 + reach(m, vma))
  for (let page = vpn + 1; page < end; page++) {
    const index = missingAt(m, mm, inode, page)
    if (index >= 0 && m.filler.request(inode, index, index) === index) return
  }
}

export function prefetchOn(m: Machine, mm: number, vma: number, vpn: number): void {
  const ahead = reach(m, vma)
  const halfway = vpn + (ahead >>> 1)
  if (ahead < 2 || halfway >= m.vmas.end[vma] || missingAt(m, mm, m.vmas.inode[vma], halfway) < 0) return
  prefetchAlong(m, mm, vma, vpn)
}

/** The file page that an entry remembers, if it lies within the file and is not in the cache; else -1. */
function missingAt(m: Machine, mm: number, inode: number, vpn: number): number {
  const pte = m.tables.get(mm, vpn)
  if (!pteFile(pte)) return -1
  const index = pteToPgoff(pte)
  return index < m.nrFilePages(inode) && m.cache.lookup(inode, index) === 0 ? index : -1
}
