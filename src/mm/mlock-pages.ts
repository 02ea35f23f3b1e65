/**
 * The pages of locked vmas: counted while populated, found again by munlock (Linux: mlock_vma_page, munlock_vma_page).
 *
 * A page is PG_MLOCKED when populate, or reclaim, met it in a locked vma; plain faults there do not count it (measured
 * on
 * 3.19). Munlock asks the reverse map whether another locked vma maps the page, nonlinear ones included.
 */
import { F_FLAGS, FRAME_SHIFT, PG_LRU, PG_MLOCKED } from '../frame/frame-table.ts'
import { NR_MLOCK } from '../frame/vmstat.ts'
import { PTE_PRESENT, pteFrame } from '../pgtable/pte.ts'
import type { Machine } from './machine.ts'

/** Counts the page of a present entry in a locked vma and takes it off reclaim's lists. */
export function mlockPage(m: Machine, frame: number): void {
  if (frame === 0 || (m.frames.row(frame, F_FLAGS) & PG_MLOCKED) !== 0) return
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_MLOCKED
  m.vmstat[NR_MLOCK]++
  if ((m.frames.row(frame, F_FLAGS) & PG_LRU) !== 0) m.lru.setUnevictable(frame)
}

/**
 * Gives the present pages of [start, end) back to reclaim, unless some locked vma maps them. VM_LOCKED is off already.
 */
export function munlockPages(m: Machine, mm: number, start: number, end: number): void {
  const { tables } = m
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    let slot = tables.slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = m.ram.i32[slot]
      if ((pte & PTE_PRESENT) === 0) continue
      const frame = pteFrame(pte)
      if ((m.frames.row(frame, F_FLAGS) & PG_MLOCKED) !== 0 && !m.rmap.mappedLocked(frame)) m.clearMlocked(frame)
    }
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}
