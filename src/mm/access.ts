/**
 * Access to memory: the look-up by virtual page that every load and store makes, and bulk copies over it, by address in
 * bytes.
 *
 *  translate        the frame behind a page for one access, faulting if need be
 *  copyFromUser     bytes out of an address space      copyToUser   bytes into one
 *  fillUser         one byte value over a range
 *
 * Frames are borrowed: good until the next call that can fault or reclaim. Bulk copies go on over pages that lie next
 * to each other in RAM, so that a window over a file read in order is copied in large pieces. They stop at the first
 * page that faults and say how far they came; `result.fault` has the code. `generation` is that of the address space,
 * which other threads may end in the middle of a copy; 0 for whatever has its row.
 *
 * Hot: one shape, no allocation but the views that a bulk copy needs.
 */
import { EFAULT } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_BUS, FAULT_OK } from '../abi/fault.ts'
import { PTE_READ_HIT, PTE_WRITE_HIT, PTE_YOUNG, pteFrame } from '../pgtable/pte.ts'
import { handleMmFault } from './fault.ts'
import { runLength } from './frame-run.ts'
import type { Machine } from './machine.ts'
import { beginRun, endRun, run } from './shared-access.ts'

/** → frame (0 is the zero page), or -(fault code). */
export function translate(m: Machine, mm: number, vpn: number, access: number): number {
  const need = (access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT) & ~PTE_YOUNG
  const slot = m.tables.find(mm, vpn)
  let pte = m.ram.i32[slot]
  if ((pte & need) === need) {
    // Used again since it was faulted in, or since reclaim looked: that is what YOUNG says.
    if ((pte & PTE_YOUNG) === 0) m.tables.rewrite(slot, pte | PTE_YOUNG)
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

/** What a bulk access does with a run of frames. */
const LOAD = 0
const STORE = 1
const FILL = 2
type Bulk = typeof LOAD | typeof STORE | typeof FILL

const NO_BYTES = new Uint8Array(0)

/** Copies bytes from `address` on to `target`, made by base/bytes. → bytes copied, `length` unless a page faulted. */
export function copyFromUser(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  target: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  return bulk(m, mm, generation, address, target, offset, length, result, LOAD)
}

/** Copies bytes of `source`, made by base/bytes, to `address` on. → bytes copied. */
export function copyToUser(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  source: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult
): number {
  return bulk(m, mm, generation, address, source, offset, length, result, STORE)
}

/** Stores `value` (0-255) to `length` bytes from `address` on. → bytes stored. */
export function fillUser(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  value: number,
  length: number,
  result: BulkResult
): number {
  // A number now, and not with frames in hand: what is none runs code of its own.
  return bulk(m, mm, generation, address, NO_BYTES, +value, length, result, FILL)
}

/** `offset` is where in `bytes` the first one is, or the value to fill with. */
function bulk(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  result: BulkResult,
  what: Bulk
): number {
  const { pageSize, u8 } = m.ram
  const { isShared } = m.sync
  const access = what === LOAD ? ACCESS_READ : ACCESS_WRITE
  result.fault = FAULT_OK
  let page = Math.floor(address * m.ram.pagesPerByte)
  let at = address - page * pageSize
  let done = 0
  while (done < length) {
    const pagesLeft = Math.ceil((at + length - done) / pageSize)
    try {
      const code = isShared
        ? beginRun(m, mm, generation, page, pagesLeft, access)
        : findRun(m, mm, page, pagesLeft, access)
      if (code !== FAULT_OK) {
        result.fault = code
        return done
      }
      const n = Math.min(length - done, run.pages * pageSize - at)
      if (what !== FILL && offset + done + n > bytes.length) {
        // A store that was called for the page has taken the caller's buffer away.
        if (isShared) endRun(m, mm, access)
        m.lastError = EFAULT
        result.fault = FAULT_BUS
        return done
      }
      const base = run.frame * pageSize + at
      if (what === LOAD) bytes.set(u8.subarray(base, base + n), offset + done)
      else if (what === STORE) u8.set(bytes.subarray(offset + done, offset + done + n), base)
      else u8.fill(offset, base, base + n)
      page += run.pages
      if (isShared) endRun(m, mm, access)
      done += n
    } catch (thrown) {
      m.lastError = -m.abandon(thrown)
      result.fault = FAULT_BUS
      return done
    }
    at = 0
  }
  return done
}

/** The frames of `vpn` and of what follows it in RAM, in `run`: good until something else is called. → a fault code. */
function findRun(m: Machine, mm: number, vpn: number, maxPages: number, access: number): number {
  const frame = translate(m, mm, vpn, access)
  if (frame < 0) return -frame
  run.frame = frame
  const need = access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT
  run.pages = frame === 0 ? 1 : runLength(m, mm, vpn, frame, maxPages, need)
  return FAULT_OK
}
