/**
 * Access that does not ask the mapping's protection: debuggers' and /proc/PID/mem (Linux: get_user_pages with
 * FOLL_FORCE,
 * 3.19).
 *
 * A load works on any mapping that could be made readable. A store to a mapping that is not writable works only on a
 * private one, by a copy that the owner can still not store to; on a shared one it is refused.
 */
import { ACCESS_WRITE, FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OK, FAULT_RETRY, FAULT_WAIT } from '../abi/fault.ts'
import { PGFAULT } from '../frame/vmstat.ts'
import {
  PAGE_PROT_DEFAULT,
  PAGE_PROT_WRITE,
  PTE_PRESENT,
  PTE_READ,
  PTE_WRITE,
  pteFrame,
  ptePageProt
} from '../pgtable/pte.ts'
import { VM_MAYREAD, VM_MAYWRITE, VM_PROT_MASK, VM_READ, VM_SHARED, VM_WRITE } from '../vma/flags.ts'
import { resolveFault } from './fault.ts'
import { fetchError } from './filemap.ts'
import type { Machine } from './machine.ts'

/** → the frame behind a page, borrowed until the mmap lock, which the caller has, is let go; or -(fault code). */
export function forcedFrame(m: Machine, mm: number, vpn: number, access: number): number {
  const since = m.filler.requests.nrFailures
  m.sync.beginWait()
  for (;;) {
    const vma = m.vmas.at(mm, vpn)
    if (vma === 0) return -FAULT_MAPERR
    if (!mayForce(m.vmas.flags[vma], access)) return -FAULT_ACCERR
    const slot = m.tables.find(mm, vpn)
    const pte = slot === 0 ? 0 : m.ram.i32[slot]
    const need = access === ACCESS_WRITE ? PTE_PRESENT | PTE_WRITE : PTE_PRESENT
    if ((pte & need) === need) return pteFrame(pte)
    m.vmstat[PGFAULT]++
    m.grants = grantsOf(m.vmas.flags[vma], ptePageProt(pte))
    let code: number
    try {
      code = resolveFault(m, mm, vma, vpn, slot, pte, access)
    } finally {
      m.grants = -1
    }
    if (code === FAULT_RETRY) continue
    if (code === FAULT_WAIT) {
      const { waitInode, waitIndex } = m
      if ((m.waitForPageInside() || fetchError(m, since, waitInode, waitIndex)) !== 0) return -FAULT_BUS
      continue
    }
    return code === FAULT_OK ? pteFrame(m.tables.get(mm, vpn)) : -code
  }
}

function mayForce(vmFlags: number, access: number): boolean {
  if (access !== ACCESS_WRITE) return (vmFlags & (VM_READ | VM_MAYREAD)) !== 0
  return (vmFlags & VM_WRITE) !== 0 || (vmFlags & (VM_SHARED | VM_MAYWRITE)) === VM_MAYWRITE
}

/**
 * What the entry may have that the fault makes: never a right that the mapping, or the page's own protection, does not
 * give. Other threads look at entries at any moment.
 */
function grantsOf(vmFlags: number, pageProt: number): number {
  let denied = 0
  if (pageProt !== PAGE_PROT_DEFAULT) denied = pageProt === PAGE_PROT_WRITE ? 0 : PTE_WRITE
  else if ((vmFlags & VM_WRITE) === 0) denied = (vmFlags & VM_PROT_MASK) === 0 ? PTE_READ | PTE_WRITE : PTE_WRITE
  return ~denied
}
