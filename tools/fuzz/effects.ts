/** What accesses do to the model, what fault they must come to, and which failures can be explained. */
import { EAGAIN, EFAULT, EIO } from '../../src/abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../../src/abi/fault.ts'
import { lastCopyFault } from '../../src/syscall/file.ts'
import { noteOutOfMemory } from './excuses.ts'
import { Mismatch } from './mismatch.ts'
import { bytesOf, isPastEnd, knownBytes, type ModelPage, mayRead, mayWrite } from './model.ts'
import { mustBeSoft } from './soft-dirty.ts'
import type { FuzzSpace, World } from './world.ts'

export const READ = 0 as const
export const WRITE = 1 as const

/** The fault that an access to a page comes to when memory and I/O do not fail. */
export function expectedFault(page: ModelPage | undefined, access: number): number {
  if (page === undefined) return FAULT_MAPERR
  if (!(access === WRITE ? mayWrite(page) : mayRead(page))) return FAULT_ACCERR
  return isPastEnd(page) ? FAULT_BUS : FAULT_OK
}

/** Whether a fault on a page can be explained: no memory, an I/O error that was planned, a page that is on its way. */
export function faultExcused(w: World, space: FuzzSpace, vpn: number, code: number): boolean {
  const waits = code === FAULT_BUS && w.m.lastError === EAGAIN
  if (waits && isOnItsWay(w, space, vpn)) return true
  // Who brings the pages of a store does not wait for a frame while some are on their way: EAGAIN in place of ENOMEM.
  if (code === FAULT_OOM || (waits && w.m.filler.requests.nrUnderWay > 0)) {
    if (!w.armed) noteOutOfMemory(w)
    return w.armed || w.isTight
  }
  if (waits) return false
  return code === FAULT_BUS && w.armed && w.m.lastError === EIO
}

/** Whether a page must be waited for: it is between two frames, or its store has not answered yet. */
export function isOnItsWay(w: World, space: FuzzSpace, vpn: number): boolean {
  if (w.peeker.isMoving(space.mm.id, vpn)) return true
  const page = space.pages.get(vpn)
  if (page === undefined || page.copy !== null || page.file?.isLater !== true) return false
  return !w.peeker.isCached(page.file.inode, page.pgoff)
}

/** What a store of bytes does to the model's page. */
export function storeToPage(w: World, page: ModelPage, off: number, data: Uint8Array): void {
  if (page.file !== null && page.shared) page.file.store(page.pgoff * w.pageSize + off, data)
  else {
    makeCopy(w, page)
    page.copy?.set(data, off)
    page.lazy = false
  }
  mustBeSoft(w, page)
}

/** The page gets a copy of its own, as by the first store to a private one. */
export function makeCopy(w: World, page: ModelPage): void {
  if (page.copy !== null || page.shared) return
  page.known = knownBytes(page, w.pageSize)
  page.copy = (bytesOf(page, w.zeros) ?? w.zeros).slice()
}

/** Private file pages that the machine has copied by populating: what they were a moment ago is what they stay. */
export function syncCopies(w: World, space: FuzzSpace): void {
  for (const [vpn, page] of space.pages) {
    if (page.file === null || page.shared || page.copy !== null) continue
    if (!w.peeker.hasCopy(space.mm.id, vpn)) continue
    makeCopy(w, page)
    page.soft.may = true
  }
}

/** A space after a call that failed half way: what is mapped no longer goes from the model. */
export function dropUnmapped(w: World, space: FuzzSpace, start: number, end: number): void {
  for (let vpn = start; vpn < end; vpn++) if (w.m.vmas.at(space.mm.id, vpn) === 0) space.pages.delete(vpn)
}

export function flagsAt(w: World, space: FuzzSpace, vpn: number): number {
  const vma = w.m.vmas.at(space.mm.id, vpn)
  return vma === 0 ? 0 : w.m.vmas.flags[vma]
}

/** How many bytes of an access go well, and the fault that ends it. */
export function predict(
  w: World,
  space: FuzzSpace,
  vpn: number,
  off: number,
  len: number,
  access: number
): [number, number] {
  let done = 0
  while (done < len) {
    const page = vpn + Math.floor((off + done) / w.pageSize)
    const fault = expectedFault(space.pages.get(page), access)
    if (fault !== FAULT_OK) return [done, fault]
    done += Math.min(len - done, w.pageSize - ((off + done) % w.pageSize))
  }
  return [len, FAULT_OK]
}

export function checkCopied(
  w: World,
  space: FuzzSpace,
  vpn: number,
  off: number,
  name: string,
  got: number,
  expected: number,
  fault: number
): number {
  const done = got === -EFAULT ? 0 : got
  const code = lastCopyFault()
  if (done === expected && code === fault) return done
  const at = vpn + Math.floor((off + done) / w.pageSize)
  if (done >= 0 && done < expected && faultExcused(w, space, at, code)) return done
  throw new Mismatch(`${name} gives ${got} and fault ${code}, not ${expected} and ${fault}`)
}

/**
 * Pages given up by MADV_FREE may have turned into zeros since the last look. → whether all is certain now: a page
 * after the first could still turn in the middle of the copy, when an earlier one's fault reclaims it.
 */
export function settleAll(w: World, space: FuzzSpace, vpn: number, bytes: number): boolean {
  let certain = true
  for (let i = 0; i * w.pageSize < bytes; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined) continue
    w.settleLazy(space.mm.id, vpn + i, page)
    if (i > 0 && page.lazy && page.copy !== null) certain = false
  }
  return certain
}

export function applyStore(w: World, space: FuzzSpace, vpn: number, off: number, data: Uint8Array): void {
  for (let at = 0; at < data.length; ) {
    const to = (off + at) % w.pageSize
    const n = Math.min(data.length - at, w.pageSize - to)
    const page = space.pages.get(vpn + Math.floor((off + at) / w.pageSize)) as ModelPage
    storeToPage(w, page, to, data.subarray(at, at + n))
    at += n
  }
}

export function loadBytes(w: World, space: FuzzSpace, vpn: number, off: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; ) {
    const from = (off + at) % w.pageSize
    const n = Math.min(length - at, w.pageSize - from)
    const page = space.pages.get(vpn + Math.floor((off + at) / w.pageSize)) as ModelPage
    bytes.set((bytesOf(page, w.zeros) ?? w.zeros).subarray(from, from + n), at)
    at += n
  }
  return bytes
}

/** Compares bytes that were read with the model, as far as they are known. */
export function compareBytes(w: World, space: FuzzSpace, vpn: number, off: number, found: Uint8Array): void {
  for (let at = 0; at < found.length; ) {
    const pageVpn = vpn + Math.floor((off + at) / w.pageSize)
    const from = (off + at) % w.pageSize
    const n = Math.min(found.length - at, w.pageSize - from)
    const page = space.pages.get(pageVpn) as ModelPage
    const bytes = bytesOf(page, w.zeros) ?? w.zeros
    const length = Math.min(n, knownBytes(page, w.pageSize) - from)
    if (length > 0)
      w.compare(`page ${pageVpn} from byte ${from}`, found.subarray(at, at + n), bytes.subarray(from), length)
    at += n
  }
}

export function firstWith(
  w: World,
  space: FuzzSpace,
  vpn: number,
  n: number,
  test: (flags: number, page: ModelPage | undefined) => boolean
): number {
  for (let i = 0; i < n; i++) if (test(flagsAt(w, space, vpn + i), space.pages.get(vpn + i))) return i
  return n
}

export function hasHole(space: FuzzSpace, vpn: number, n: number): boolean {
  for (let i = 0; i < n; i++) if (!space.pages.has(vpn + i)) return true
  return false
}
