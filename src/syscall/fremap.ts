/** remap_file_pages(2) and our two additions to it. Checks and their order: Linux 3.16-3.19, mm/fremap.c. */
import { EINVAL, ESRCH } from '../abi/errno.ts'
import { MAP_NONBLOCK, MAP_PAGE_PROT, PROT_NONE, PROT_READ, PROT_WRITE } from '../abi/mman.ts'
import { asPageNumbers } from '../base/bytes.ts'
import { doRemap, remapVector } from '../mm/fremap.ts'
import { type Machine, POLICY_LINUX } from '../mm/machine.ts'
import { mmPopulate } from '../mm/populate.ts'
import { PAGE_PROT_DEFAULT, PAGE_PROT_NONE, PAGE_PROT_READ, PAGE_PROT_WRITE } from '../pgtable/pte.ts'
import { VM_LOCKED } from '../vma/flags.ts'
import { BAD, countOf, intOf, type Mm, machineOf, offOf, pageOf, pagesIn64Bits, type Quantity } from './args.ts'

/**
 * Makes the pages of [start, start + size) show file pages from `pgoff`. Start and size are rounded down to pages.
 *
 * `prot` must be 0, unless `flags` has MAP_PAGE_PROT (ours): then it is the protection of these pages. MAP_NONBLOCK
 * leaves them to be faulted when touched; without it, or in a locked mapping, they are populated, errors ignored.
 * All other flags are ignored, with POLICY_LINUX that one too.
 *
 * → 0, or -EINVAL (prot, an empty or wrapping range, pgoff beyond PTE_FILE_MAX_BITS, not within one shared mapping,
 * a mapping without remap_pages), -ENOMEM (page tables; what was remapped before stays so), -EACCES (MAP_PAGE_PROT
 * asking for more than the file allows).
 */
export function sys_remap_file_pages(
  mm: Mm,
  start: Quantity,
  size: Quantity,
  prot: Quantity,
  pgoff: Quantity,
  flags: Quantity
): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  if (Number.isNaN(f)) return -EINVAL
  const pageProt = hasPageProt(m, f) ? pageProtOf(prot) : prot === 0 || prot === 0n ? PAGE_PROT_DEFAULT : BAD
  if (pageProt === BAD) return -EINVAL
  const vpn = pageOf(m, start)
  const pages = pageOf(m, size)
  const first = countOf(pgoff)
  if (vpn === BAD || pages === BAD || first === BAD) return -EINVAL
  if (pages === 0 || vpn + pages >= pagesIn64Bits(m)) return -EINVAL
  let populates = false
  let result: number
  let refused: number
  do {
    refused = m.allocator.nrRefused
    if (!m.lockMm(mm.id, mm.generation)) return -m.refused
    try {
      result = doRemap(m, mm.id, vpn, pages, first, pageProt)
      populates = result >= 0 && isPopulated(m, mm.id, vpn, f)
      m.unlock(mm.id)
    } catch (thrown) {
      return m.abandon(thrown)
    }
  } while (result < 0 && m.mayTryAgain(result, refused))
  if (result < 0) return result
  if (populates) mmPopulate(m, mm.id, vpn, vpn + pages, m.vmas.clock)
  return 0
}

/**
 * remap_file_pages with a file page for each entry: page i of the window from `start` shows `pgoffs[i]`. Ours.
 *
 * All arguments are checked before any entry is written. `start` must be page-aligned. Flags and errors as above;
 * an empty vector does nothing.
 */
export function sys_remap_file_pages_vec(
  mm: Mm,
  start: Quantity,
  pgoffs: Int32Array,
  prot: Quantity,
  flags: Quantity
): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  const numbers = asPageNumbers(pgoffs)
  if (Number.isNaN(f) || numbers === undefined) return -EINVAL
  const pageProt = hasPageProt(m, f) ? pageProtOf(prot) : prot === 0 || prot === 0n ? PAGE_PROT_DEFAULT : BAD
  const vpn = pageOf(m, start)
  if (pageProt === BAD || vpn === BAD || offOf(m, start) !== 0) return -EINVAL
  const pages = numbers.length
  if (pages === 0) return 0
  let populates = false
  let result: number
  let refused: number
  do {
    refused = m.allocator.nrRefused
    if (!m.lockMm(mm.id, mm.generation)) return -m.refused
    try {
      result = remapVector(m, mm.id, vpn, numbers, pageProt)
      populates = result >= 0 && isPopulated(m, mm.id, vpn, f)
      m.unlock(mm.id)
    } catch (thrown) {
      return m.abandon(thrown)
    }
  } while (result < 0 && m.mayTryAgain(result, refused))
  if (result < 0) return result
  if (populates) mmPopulate(m, mm.id, vpn, vpn + pages, m.vmas.clock)
  return 0
}

/** Whether the remapped pages are brought in, errors ignored: always in a locked mapping, else without MAP_NONBLOCK. */
function isPopulated(m: Machine, mm: number, vpn: number, flags: number): boolean {
  return (flags & MAP_NONBLOCK) === 0 || (m.vmas.flags[m.vmas.at(mm, vpn)] & VM_LOCKED) !== 0
}

/** Linux ignores all flags but MAP_NONBLOCK, so with its policy this one is none. */
function hasPageProt(m: Machine, flags: number): boolean {
  return (flags & MAP_PAGE_PROT) !== 0 && m.policy !== POLICY_LINUX
}

function pageProtOf(prot: Quantity): number {
  const p = intOf(prot)
  if (p === PROT_NONE) return PAGE_PROT_NONE
  if (p === PROT_READ) return PAGE_PROT_READ
  if (p === PROT_WRITE || p === (PROT_READ | PROT_WRITE)) return PAGE_PROT_WRITE
  return BAD
}
