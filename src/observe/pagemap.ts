/**
 * What /proc/PID/pagemap says about each page of a range, as one byte of flags a page.
 *
 * As Linux 3.19: a remembered file page counts as not present, and its own soft-dirty bit does not show, only the
 * mapping's; a page not mapped at all is 0. Lock: the address space's mmap lock for reading.
 */
import { F_FLAGS, PG_ANON } from '../frame/frame-table.ts'
import type { Machine } from '../mm/machine.ts'
import { PTE_PRESENT, pteFrame, pteMigration, pteSoftDirty, pteSwap, pteSwapOffset } from '../pgtable/pte.ts'
import { VM_SOFTDIRTY } from '../vma/flags.ts'

export const PM_PRESENT = 1 as const
export const PM_SWAP = 2 as const
/** A page of a file or of shared memory. */
export const PM_FILE = 4 as const
/** Of the entry, or of its mapping. */
export const PM_SOFT_DIRTY = 8 as const

const LETTERS = 'PSFD'

/** PM_* flags of `pages` pages from `vpn`. */
export function pagemap(m: Machine, mm: number, vpn: number, pages: number): Uint8Array {
  const flags = new Uint8Array(pages)
  const end = vpn + pages
  let vma = m.vmas.find(mm, vpn)
  while (vma !== 0 && m.vmas.start[vma] < end) {
    const from = Math.max(vpn, m.vmas.start[vma])
    const to = Math.min(end, m.vmas.end[vma])
    fillPart(m, mm, vma, from, to, flags.subarray(from - vpn, to - vpn))
    vma = m.vmas.next[vma]
  }
  return flags
}

/** One string a page out of the letters P, S, F, D. */
export function formatPagemap(flags: Uint8Array): string[] {
  return Array.from(flags, f => [...LETTERS].filter((_, bit) => (f & (1 << bit)) !== 0).join(''))
}

function fillPart(m: Machine, mm: number, vma: number, from: number, to: number, flags: Uint8Array): void {
  const { tables } = m
  const { i32 } = m.ram
  const ofVma = (m.vmas.flags[vma] & VM_SOFTDIRTY) === 0 ? 0 : PM_SOFT_DIRTY
  if (ofVma !== 0) flags.fill(ofVma)
  let vpn = tables.nextLeaf(mm, from, to)
  while (vpn < to) {
    let slot = tables.slot
    const stop = tables.leafEnd(vpn, to)
    for (; vpn < stop; vpn++, slot++) flags[vpn - from] |= entryFlags(m, i32[slot])
    if (vpn < to) vpn = tables.nextLeaf(mm, vpn, to)
  }
}

function entryFlags(m: Machine, pte: number): number {
  const soft = pteSoftDirty(pte) === 0 ? 0 : PM_SOFT_DIRTY
  if ((pte & PTE_PRESENT) !== 0) return PM_PRESENT | fileFlag(m, pteFrame(pte)) | soft
  if (pteMigration(pte)) return PM_SWAP | fileFlag(m, pteSwapOffset(pte)) | soft
  return pteSwap(pte) ? PM_SWAP | soft : 0
}

function fileFlag(m: Machine, frame: number): number {
  return frame === 0 || (m.frames.row(frame, F_FLAGS) & PG_ANON) !== 0 ? 0 : PM_FILE
}
