/**
 * Access to memory by virtual page: the look-up that every load and store makes, and bulk copies over it.
 *
 *  translate        the frame behind a page for one access, faulting if need be
 *  copyFromUser     bytes out of an address space      copyToUser   bytes into one
 *  fillUser         one byte value over a range
 *
 * Frames are borrowed: good until the next call that can fault or reclaim. Bulk copies go on over pages that lie next to
 * each other in RAM, so that a window over a file read in order is copied in large pieces. They stop at the first page
 * that faults and say how far they came; `m.lastFault` has the code. `generation` is that of the address space, which
 * other threads may end in the middle of a copy; 0 for whatever has its row.
 *
 * Hot: one shape, no allocation but the views that a bulk copy needs.
 */
import { ACCESS_READ, ACCESS_WRITE, FAULT_OK } from '../abi/fault.ts'
import { PTE_READ_HIT, PTE_WRITE_HIT, PTE_YOUNG, pteFrame } from '../pgtable/pte.ts'
import { handleMmFault } from './fault.ts'
import { runLength } from './frame-run.ts'
import type { Machine } from './machine.ts'
import { copyFromUserShared, copyToUserShared, fillUserShared } from './shared-access.ts'

/** → frame (0 is the zero page), or -(fault code). */
export function translate(m: Machine, mm: number, vpn: number, access: number): number {
  const need = (access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT) & ~PTE_YOUNG
  const slot = m.tables.find(mm, vpn)
  let pte = m.ram.i32[slot]
  if ((pte & need) === need) {
    // Used again since it was faulted in, or since reclaim looked: that is what YOUNG says.
    if ((pte & PTE_YOUNG) === 0) m.ram.i32[slot] = pte | PTE_YOUNG
    return pteFrame(pte)
  }
  do {
    const code = handleMmFault(m, mm, vpn, access)
    if (code !== FAULT_OK) return -code
    pte = m.tables.get(mm, vpn)
  } while ((pte & need) !== need)
  return pteFrame(pte)
}

/** The fault code that ended the last bulk copy, FAULT_OK when none did. */
export interface BulkResult {
  fault: number
}

/** Copies bytes from page `vpn`, byte `off` on. → bytes copied, `length` unless a page faulted. */
export function copyFromUser(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  target: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  if (m.sync.isShared) return copyFromUserShared(m, mm, generation, vpn, off, target, offset, length, result)
  const { pageSize, u8 } = m.ram
  result.fault = FAULT_OK
  let page = vpn
  let from = off
  let done = 0
  while (done < length) {
    const frame = translate(m, mm, page, ACCESS_READ)
    if (frame < 0) {
      result.fault = -frame
      return done
    }
    const pagesLeft = Math.ceil((from + length - done) / pageSize)
    const pages = frame === 0 ? 1 : runLength(m, mm, page, frame, pagesLeft, PTE_READ_HIT)
    const n = Math.min(length - done, pages * pageSize - from)
    const base = frame * pageSize + from
    target.set(u8.subarray(base, base + n), offset + done)
    done += n
    page += pages
    from = 0
  }
  return done
}

/** Copies bytes to page `vpn`, byte `off` on. → bytes copied. */
export function copyToUser(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  source: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  if (m.sync.isShared) return copyToUserShared(m, mm, generation, vpn, off, source, offset, length, result)
  const { pageSize, u8 } = m.ram
  result.fault = FAULT_OK
  let page = vpn
  let to = off
  let done = 0
  while (done < length) {
    const frame = translate(m, mm, page, ACCESS_WRITE)
    if (frame < 0) {
      result.fault = -frame
      return done
    }
    const pages = runLength(m, mm, page, frame, Math.ceil((to + length - done) / pageSize), PTE_WRITE_HIT)
    const n = Math.min(length - done, pages * pageSize - to)
    u8.set(source.subarray(offset + done, offset + done + n), frame * pageSize + to)
    done += n
    page += pages
    to = 0
  }
  return done
}

/** Stores `value` (0-255) to `length` bytes. → bytes stored. */
export function fillUser(
  m: Machine,
  mm: number,
  generation: number,
  vpn: number,
  off: number,
  value: number,
  length: number,
  result: BulkResult
): number {
  if (m.sync.isShared) return fillUserShared(m, mm, generation, vpn, off, value, length, result)
  const { pageSize, u8 } = m.ram
  result.fault = FAULT_OK
  let page = vpn
  let to = off
  let done = 0
  while (done < length) {
    const frame = translate(m, mm, page, ACCESS_WRITE)
    if (frame < 0) {
      result.fault = -frame
      return done
    }
    const n = Math.min(length - done, pageSize - to)
    const base = frame * pageSize + to
    u8.fill(value, base, base + n)
    done += n
    page++
    to = 0
  }
  return done
}
