/**
 * mprotect (Linux: mm/mprotect.c, 3.19): the vmas' protection, and that of their present entries.
 *
 * File entries need no change: they take the vma's protection when they are faulted. Pages with a protection of their
 * own (MAP_PAGE_PROT) lose it: the last call wins. All vmas are checked as they are reached, so the part before an
 * error is changed.
 */
import { EACCES, EINVAL, ENOMEM } from '../abi/errno.ts'
import { PROT_GROWSDOWN } from '../abi/mman.ts'
import {
  mkMigrationPte,
  PAGE_PROT_DEFAULT,
  PTE_PAGE_PROT,
  PTE_PAGE_PROT_WRITE,
  PTE_PRESENT,
  PTE_READ,
  PTE_WRITE,
  pgoffToPte,
  pteFile,
  pteFromMigration,
  pteMigration,
  pteSoftDirty,
  pteSwapOffset,
  pteToPgoff
} from '../pgtable/pte.ts'
import {
  VM_ACCOUNT,
  VM_GROWSDOWN,
  VM_NORESERVE,
  VM_PAGE_PROT,
  VM_PROT_MASK,
  VM_SHARED,
  VM_WRITE
} from '../vma/flags.ts'
import { changeFlags } from './change-flags.ts'
import type { Machine } from './machine.ts'

/**
 * `prot` is VM_READ | VM_WRITE | VM_EXEC, which equal PROT_*; `grows` PROT_GROWSDOWN, PROT_GROWSUP or 0. → 0 or -errno.
 */
export function doMprotect(m: Machine, mm: number, start: number, end: number, prot: number, grows: number): number {
  const { vmas } = m
  let vma = vmas.find(mm, start)
  if (vma === 0 || vmas.start[vma] >= end) return -ENOMEM
  let at = start
  if ((grows & PROT_GROWSDOWN) !== 0) {
    if ((vmas.flags[vma] & VM_GROWSDOWN) === 0) return -EINVAL
    at = vmas.start[vma]
  } else {
    if (vmas.start[vma] > start) return -ENOMEM
    // Nothing grows upwards.
    if (grows !== 0) return -EINVAL
  }
  for (;;) {
    const old = vmas.flags[vma]
    const flags = (old & ~VM_PROT_MASK) | prot
    // VM_MAY* stand four bits above what they allow.
    if ((flags & ~(flags >>> 4) & VM_PROT_MASK) !== 0) return -EACCES
    const stop = Math.min(end, vmas.end[vma])
    const error = protectPart(m, mm, vma, at, stop, flags)
    if (error < 0) return error
    at = stop
    if (at >= end) return 0
    // The part may be one with what follows it now: then the rest is found to have its protection already.
    vma = vmas.at(mm, at)
    if (vma === 0) return -ENOMEM
  }
}

function protectPart(m: Machine, mm: number, vma: number, start: number, end: number, flags: number): number {
  const old = m.vmas.flags[vma]
  if (flags === old && (old & VM_PAGE_PROT) === 0) return 0
  let newFlags = flags
  if ((newFlags & VM_WRITE) !== 0 && (old & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE)) === 0) {
    newFlags |= VM_ACCOUNT
  }
  if (newFlags !== old && changeFlags(m, mm, vma, start, end, newFlags) === 0) return -ENOMEM
  m.notifiers.rangeStart(mm, start, end)
  changeProtection(m, mm, start, end, newFlags)
  m.notifiers.rangeEnd(mm, start, end)
  return 0
}

function protectPresent(pte: number, readable: boolean): number {
  const bare = pte & ~(PTE_READ | PTE_WRITE | PTE_PAGE_PROT | PTE_PAGE_PROT_WRITE)
  return readable ? bare | PTE_READ : bare
}

/** Entries lose WRITE (the next store asks again) and get or lose READ. */
function changeProtection(m: Machine, mm: number, start: number, end: number, flags: number): void {
  const { tables } = m
  const { i32 } = m.ram
  const readable = (flags & VM_PROT_MASK) !== 0
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    let slot = tables.slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = i32[slot]
      if ((pte & PTE_PRESENT) !== 0) tables.rewrite(slot, protectPresent(pte, readable))
      else if (pteMigration(pte)) {
        i32[slot] = mkMigrationPte(protectPresent(pteFromMigration(pte, pteSwapOffset(pte)), readable))
      } else if (pteFile(pte)) i32[slot] = pgoffToPte(pteToPgoff(pte), PAGE_PROT_DEFAULT, pteSoftDirty(pte))
    }
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}
