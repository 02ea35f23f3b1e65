/**
 * Taking entries away (Linux: zap_pte_range, and zap_pte of fremap.c).
 *
 *  zapRange        every entry of part of a vma, in one of two ways
 *  zapEntry        one entry; the caller has written what comes in its place
 *  dropSwapEntry   one hold on a swap slot
 *
 * Lock: mmap lock for writing (munmap), for reading (DONTNEED), or i_mmap lock (truncate).
 */

import { F_FLAGS, F_INDEX, F_MAPCOUNT, PG_ANON, PG_DIRTY } from '../frame/frame-table.ts'
import { MM_SHIFT, MM_SWAPENTS } from '../frame/mm-table.ts'
import {
  PAGE_PROT_DEFAULT,
  PTE_DIRTY,
  PTE_PRESENT,
  pgoffToPte,
  pteFile,
  pteMappedFrame,
  pteMaps,
  ptePageProt,
  pteSoftDirty,
  pteSwap,
  pteSwapOffset
} from '../pgtable/pte.ts'
import type { Machine } from './machine.ts'

/** Nothing remains: munmap, exit, MAP_FIXED over. */
export const ZAP_FORGET = 0 as const
/** What an address shows remains: a page off its linear place leaves a file entry, file entries stay (DONTNEED). */
export const ZAP_REMEMBER = 1 as const

/**
 * Undoes a present, migration or swap entry that stood in a slot: page, reverse map, counters. File entries need
 * nothing. The caller has written what comes in its place: this may free the frame, and no thread may find it in the
 * entry from then on.
 */
export function zapEntry(m: Machine, mm: number, vma: number, vpn: number, pte: number): void {
  if (pteMaps(pte)) {
    const frame = pteMappedFrame(pte)
    if (frame === 0) return
    // Nearly every page with a DIRTY entry is dirty itself already, and V8 does not inline `setDirty` here.
    const stored = (pte & (PTE_PRESENT | PTE_DIRTY)) === (PTE_PRESENT | PTE_DIRTY)
    if (stored && (m.frames.row(frame, F_FLAGS) & PG_DIRTY) === 0) m.cache.setDirty(frame)
    m.rmap.removeRmap(frame, mm, vma, vpn)
    m.afterUnmap(frame)
  } else if (pteSwap(pte)) {
    m.mms.w[(mm << MM_SHIFT) + MM_SWAPENTS]--
    dropSwapEntry(m, pteSwapOffset(pte))
  }
}

/**
 * One swap entry less names the slot: frees the slot, and its page in the swap cache, with the last. Whoever reads or
 * writes it does so himself.
 */
export function dropSwapEntry(m: Machine, slot: number): void {
  const { swap, cache, frames } = m
  if (--swap.count[slot] > 0) return
  const frame = cache.lookup(0, slot)
  if (frame !== 0) {
    if (frames.row(frame, F_MAPCOUNT) !== 0 || !frames.isAtRest(frame)) return
    cache.remove(frame)
    m.putFrame(frame)
  }
  swap.free(slot)
}

/** What an entry leaves behind under ZAP_REMEMBER. */
export function remembered(m: Machine, vma: number, vpn: number, pte: number): number {
  if (!pteMaps(pte)) return pteFile(pte) ? pte : 0
  const frame = pteMappedFrame(pte)
  if (frame === 0 || (m.frames.row(frame, F_FLAGS) & PG_ANON) !== 0) return 0
  const index = m.frames.row(frame, F_INDEX)
  const prot = ptePageProt(pte)
  if (prot === PAGE_PROT_DEFAULT && index === m.vmas.linearIndex(vma, vpn)) return 0
  return pgoffToPte(index, prot, pteSoftDirty(pte))
}

/** Zaps the entries of [start, end), which lies in the vma. The caller has told the notifiers. */
export function zapRange(
  m: Machine,
  mm: number,
  vma: number,
  start: number,
  end: number,
  mode: typeof ZAP_FORGET | typeof ZAP_REMEMBER
): void {
  const { tables } = m
  const { i32 } = m.ram
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    let slot = tables.slot
    const first = slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = i32[slot]
      if (pte === 0) continue
      const left = mode === ZAP_FORGET ? 0 : remembered(m, vma, vpn, pte)
      if (left === pte) continue
      tables.set(slot, left)
      zapEntry(m, mm, vma, vpn, pte)
    }
    tables.releaseIfEmpty(first)
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}
