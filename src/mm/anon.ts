/**
 * Anonymous pages, as faults and fork make them (Linux: mm/rmap.c, mm/swapfile.c).
 *
 *  prepareAnon      a vma's anonymous identity
 *  installAnon      a new page in an entry
 *  pteOfCopy        the entry of a copy that nothing was stored to
 *  takeAlone        whether a page is its space's own, or becomes it
 *
 * Nothing here allocates frames. Lock: machine lock.
 */
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  FRAME_SHIFT,
  MAPPING_ANON,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_EXCLUSIVE,
  PG_SWAPBACKED,
  PG_UPTODATE,
  PG_WRITEBACK
} from '../frame/frame-table.ts'
import { mkPte, PTE_DIRTY, PTE_READ, PTE_SOFT_DIRTY, PTE_WRITE, pteWithFrame } from '../pgtable/pte.ts'
import { VM_PROT_MASK, VM_SOFTDIRTY } from '../vma/flags.ts'
import type { Machine } from './machine.ts'

/**
 * The entry of a copy that nothing was stored to: as it was, but that the first store asks whether the vma allows it.
 */
export function pteOfCopy(pte: number, copy: number): number {
  return (pteWithFrame(pte, copy) & ~PTE_WRITE) | PTE_DIRTY
}

/**
 * Makes a frame that nobody knows an anonymous page, mapped writable and dirty, in the place of `old`, or with the node
 * that is ready if that is 0.
 */
export function installAnon(
  m: Machine,
  mm: number,
  vma: number,
  vpn: number,
  slot: number,
  frame: number,
  old: number
): void {
  const { w } = m.frames
  const row = frame << FRAME_SHIFT
  w[row + F_FLAGS] = PG_ANON | PG_UPTODATE | PG_SWAPBACKED | PG_DIRTY | PG_EXCLUSIVE
  w[row + F_MAPPING] = MAPPING_ANON
  w[row + F_INDEX] = -1
  if (old === 0) m.rmap.addRmap(frame, mm, vma, vpn)
  else m.rmap.replaceRmap(old, frame, mm, vma, vpn)
  m.lru.add(frame)
  m.tables.set(slot, mkPte(frame, (PTE_READ | PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY) & m.grants))
}

/** Gives the vma its anonymous identity: its neighbour's where they could be one vma (Linux: anon_vma_prepare). */
export function prepareAnon(m: Machine, vma: number): void {
  const t = m.vmas
  if (t.anon[vma] !== 0) return
  const near = reusableAnon(m, vma, t.next[vma]) || reusableAnon(m, t.prev[vma], vma)
  t.anon[vma] = near === 0 ? t.newAnonId() : near
  t.anonChain[vma] = 1
}

/** The identity of whichever of two neighbours has one, if the other may share it. */
function reusableAnon(m: Machine, low: number, high: number): number {
  if (low === 0 || high === 0) return 0
  const t = m.vmas
  if (t.end[low] !== t.start[high] || t.file[low] !== t.file[high]) return 0
  if (((t.flags[low] ^ t.flags[high]) & ~(VM_PROT_MASK | VM_SOFTDIRTY)) !== 0) return 0
  if (t.pgoff[high] !== t.linearIndex(low, t.end[low])) return 0
  const from = t.anon[low] !== 0 ? low : high
  return t.anonChain[from] === 1 ? t.anon[from] : 0
}

/**
 * Whether an anonymous page that one of our entries maps is, or becomes, our own. One that somebody pins and that is
 * not yet may be another space's, which has ended since, and whose thread still reads it.
 */
export function takeAlone(m: Machine, frame: number): boolean {
  const { frames } = m
  const flags = frames.row(frame, F_FLAGS)
  const alone = (flags & PG_EXCLUSIVE) !== 0 || (frames.row(frame, F_MAPCOUNT) === 1 && frames.pins(frame) === 0)
  if (!alone || !leaveSwapCache(m, frame)) return false
  frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_EXCLUSIVE
  return true
}

/**
 * Frees the slot behind an anonymous page if no swap entry needs it; the frame is then the only copy. While the page is
 * being written to it, whoever writes it frees it afterwards (Linux: reuse_swap_page).
 */
function leaveSwapCache(m: Machine, frame: number): boolean {
  const flags = m.frames.row(frame, F_FLAGS)
  if ((flags & PG_CACHED) === 0) return true
  const slot = m.frames.row(frame, F_INDEX)
  if (m.swap.count[slot] !== 0) return false
  if ((flags & PG_WRITEBACK) === 0) {
    m.cache.remove(frame)
    m.swap.free(slot)
  }
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= PG_DIRTY
  return true
}
