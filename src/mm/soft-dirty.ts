/** clear_refs: forgets which pages were used or stored to (Linux: fs/proc/task_mmu.c, 3.19). */

import { TASK_PAGES } from '../abi/limits.ts'
import { F_FLAGS, FRAME_SHIFT, PG_ANON, PG_REFERENCED } from '../frame/frame-table.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_HIWATER_RSS, MM_SHIFT } from '../frame/mm-table.ts'
import { PTE_PRESENT, PTE_YOUNG, pteClearSoftDirty, pteFrame } from '../pgtable/pte.ts'
import { VM_SOFTDIRTY } from '../vma/flags.ts'
import type { Machine } from './machine.ts'

export const CLEAR_REFS_ALL = 1 as const
export const CLEAR_REFS_ANON = 2 as const
export const CLEAR_REFS_MAPPED = 3 as const
export const CLEAR_REFS_SOFT_DIRTY = 4 as const
export const CLEAR_REFS_MM_HIWATER_RSS = 5 as const

/** `kind` is one of CLEAR_REFS_*. */
export function clearRefs(m: Machine, mm: number, kind: number): void {
  const row = mm << MM_SHIFT
  if (kind === CLEAR_REFS_MM_HIWATER_RSS) {
    m.mms.w[row + MM_HIWATER_RSS] = m.mms.w[row + MM_FILEPAGES] + m.mms.w[row + MM_ANONPAGES]
    return
  }
  const soft = kind === CLEAR_REFS_SOFT_DIRTY
  if (soft) m.notifiers.rangeStart(mm, 0, TASK_PAGES)
  for (let vma = m.vmas.first(mm); vma !== 0; vma = m.vmas.next[vma]) {
    if (kind === CLEAR_REFS_ANON && m.vmas.inode[vma] !== 0) continue
    if (kind === CLEAR_REFS_MAPPED && m.vmas.inode[vma] === 0) continue
    if (soft) m.vmas.flags[vma] &= ~VM_SOFTDIRTY
    clearVma(m, mm, vma, soft ? CLEAR_REFS_SOFT_DIRTY : CLEAR_REFS_ALL)
  }
  if (soft) m.notifiers.rangeEnd(mm, 0, TASK_PAGES)
}

function clearVma(m: Machine, mm: number, vma: number, kind: number): void {
  const { tables, frames, vmas } = m
  const { i32 } = m.ram
  const end = vmas.end[vma]
  let vpn = tables.nextLeaf(mm, vmas.start[vma], end)
  while (vpn < end) {
    let slot = tables.slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = i32[slot]
      if (pte === 0) continue
      if (kind === CLEAR_REFS_SOFT_DIRTY) tables.rewrite(slot, pteClearSoftDirty(pte))
      else if ((pte & PTE_PRESENT) !== 0) {
        tables.rewrite(slot, pte & ~PTE_YOUNG)
        const frame = pteFrame(pte)
        if (frame !== 0 && (frames.row(frame, F_FLAGS) & PG_ANON) === 0) {
          frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_REFERENCED
        }
      }
    }
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}
