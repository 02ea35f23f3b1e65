/**
 * mincore: which pages of a range are in memory (Linux: mm/mincore.c, 3.19).
 *
 * Present entries are; an empty one is when the page at its linear place is in the cache; a file entry when the page
 * that it remembers is. Anonymous pages in swap count when the swap cache has them.
 */
import { ENOMEM } from '../abi/errno.ts'
import { PTE_PRESENT, pteFile, pteSwap, pteSwapOffset, pteToPgoff } from '../pgtable/pte.ts'
import type { Machine } from './machine.ts'

/** Writes 1 or 0 for each page of [start, end) to `vec`. → 0, or -ENOMEM when some page is not mapped. */
export function doMincore(m: Machine, mm: number, start: number, end: number, vec: Uint8Array): number {
  const { vmas, tables } = m
  let at = start
  while (at < end) {
    const vma = vmas.at(mm, at)
    if (vma === 0) return -ENOMEM
    const stop = Math.min(end, vmas.end[vma])
    const inode = vmas.inode[vma]
    for (; at < stop; at++) {
      const pte = tables.get(mm, at)
      let resident = false
      if ((pte & PTE_PRESENT) !== 0) resident = true
      else if (pte === 0) resident = inode !== 0 && inCore(m, inode, vmas.linearIndex(vma, at))
      else if (pteFile(pte)) resident = inCore(m, inode, pteToPgoff(pte))
      else if (pteSwap(pte)) resident = inCore(m, 0, pteSwapOffset(pte))
      vec[at - start] = resident ? 1 : 0
    }
  }
  return 0
}

function inCore(m: Machine, inode: number, index: number): boolean {
  const frame = m.cache.lookup(inode, index)
  return frame !== 0 && m.frames.isUptodate(frame)
}
