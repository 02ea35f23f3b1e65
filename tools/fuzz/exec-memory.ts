/** The fuzzer's operations on address spaces, applied to the machine and the model. */
import { EAGAIN, EFAULT, EINVAL, EIO, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { INODE_STORE } from '../../src/cache/inodes.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import {
  lastCopyFault,
  sys_copy_from_user,
  sys_copy_to_user,
  sys_read_user,
  sys_write_user
} from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { VM_LOCKED, VM_NONLINEAR, VM_SHARED } from '../../src/vma/flags.ts'
import { excused, noteOutOfMemory, pattern } from './exec-files.ts'
import { bytesOf, isPastEnd, knownBytes, ModelFile, type ModelPage, mayRead, mayWrite } from './model.ts'
import type { Op } from './ops.ts'
import { type FuzzSpace, Mismatch, type World } from './world.ts'

type OpOf<K extends Op['op']> = Extract<Op, { op: K }>

const READ = 0
const WRITE = 1

/** The fault that an access to a page comes to when memory and I/O do not fail. */
function expectedFault(page: ModelPage | undefined, access: number): number {
  if (page === undefined) return FAULT_MAPERR
  if (!(access === WRITE ? mayWrite(page) : mayRead(page))) return FAULT_ACCERR
  return isPastEnd(page) ? FAULT_BUS : FAULT_OK
}

export function faultExcused(w: World, code: number): boolean {
  if (code === FAULT_OOM) {
    if (!w.armed) noteOutOfMemory(w)
    return w.armed || w.isTight
  }
  return code === FAULT_BUS && w.armed && w.m.lastError === EIO
}

/** What a store of bytes does to the model's page. */
function storeToPage(w: World, page: ModelPage, off: number, data: Uint8Array): void {
  if (page.file !== null && page.shared) {
    page.file.store(page.pgoff * w.pageSize + off, data)
    return
  }
  makeCopy(w, page)
  page.copy?.set(data, off)
  page.lazy = false
}

/** The page gets a copy of its own, as by the first store to a private one. */
function makeCopy(w: World, page: ModelPage): void {
  if (page.copy !== null || page.shared) return
  page.known = knownBytes(page, w.pageSize)
  page.copy = (bytesOf(page, w.zeros) ?? w.zeros).slice()
}

/** Private file pages that the machine has copied by populating: what they were a moment ago is what they stay. */
export function syncCopies(w: World, space: FuzzSpace): void {
  for (const [vpn, page] of space.pages) {
    if (page.file === null || page.shared || page.copy !== null) continue
    if (w.peeker.hasCopy(space.mm.id, vpn)) makeCopy(w, page)
  }
}

/** A space after a call that failed half way: what is mapped no longer goes from the model. */
function dropUnmapped(w: World, space: FuzzSpace, start: number, end: number): void {
  for (let vpn = start; vpn < end; vpn++) if (w.m.vmas.at(space.mm.id, vpn) === 0) space.pages.delete(vpn)
}

function flagsAt(w: World, space: FuzzSpace, vpn: number): number {
  const vma = w.m.vmas.at(space.mm.id, vpn)
  return vma === 0 ? 0 : w.m.vmas.flags[vma]
}

export function mmap(w: World, space: FuzzSpace, op: OpOf<'mmap'>): void {
  const { m } = w
  const vpn = w.vpnOf(op.p)
  const file = op.f < 0 ? undefined : w.files[op.f]
  const flags = op.flags | abi.MAP_FIXED | (file === undefined ? abi.MAP_ANONYMOUS : 0)
  const at = mem.sys_mmap(
    space.mm,
    w.address(vpn),
    w.address(op.n),
    op.prot,
    flags,
    file?.fd ?? -1,
    w.address(op.pgoff)
  )
  if (at < 0) {
    if (!excused(w, at)) throw new Mismatch(`mmap gives ${at}`)
    dropUnmapped(w, space, vpn, vpn + op.n)
    return
  }
  if (at !== w.address(vpn)) throw new Mismatch(`mmap gives ${at}, not ${w.address(vpn)}`)
  const shared = (op.flags & abi.MAP_TYPE) === abi.MAP_SHARED
  let model = file?.model ?? null
  if (model === null && shared) {
    model = new ModelFile(op.n * w.pageSize, w.pageSize, true)
    model.truncate(op.n * w.pageSize)
    model.inode = m.vmas.inode[m.vmas.at(space.mm.id, vpn)]
  }
  const base = file === undefined ? 0 : op.pgoff
  for (let i = 0; i < op.n; i++) {
    space.pages.set(vpn + i, {
      file: model,
      shared,
      linear: base + i,
      pgoff: base + i,
      prot: op.prot,
      own: -1,
      copy: null,
      known: 0,
      lazy: false
    })
  }
  syncCopies(w, space)
}

export function munmap(w: World, space: FuzzSpace, op: OpOf<'munmap' | 'mlock' | 'munlock'>): void {
  const vpn = w.vpnOf(op.p)
  const result = mem.sys_munmap(space.mm, w.address(vpn), w.address(op.n))
  // The last user of a file that was closed writes it back, and says so if that fails.
  if (result !== 0 && !(result === -EIO && w.armed)) throw new Mismatch(`munmap gives ${result}`)
  for (let i = 0; i < op.n; i++) space.pages.delete(vpn + i)
}

/** How many bytes of an access go well, and the fault that ends it. */
function predict(w: World, space: FuzzSpace, vpn: number, off: number, len: number, access: number): [number, number] {
  let done = 0
  while (done < len) {
    const page = vpn + Math.floor((off + done) / w.pageSize)
    const fault = expectedFault(space.pages.get(page), access)
    if (fault !== FAULT_OK) return [done, fault]
    done += Math.min(len - done, w.pageSize - ((off + done) % w.pageSize))
  }
  return [len, FAULT_OK]
}

function checkCopied(w: World, name: string, got: number, expected: number, fault: number): number {
  const done = got === -EFAULT ? 0 : got
  const code = lastCopyFault()
  if (done === expected && code === fault) return done
  if (done >= 0 && done < expected && faultExcused(w, code)) return done
  throw new Mismatch(`${name} gives ${got} and fault ${code}, not ${expected} and ${fault}`)
}

export function mapRead(w: World, space: FuzzSpace, op: OpOf<'mapread'>): void {
  const vpn = w.vpnOf(op.p)
  const buffer = new Uint8Array(op.len)
  const [expected, fault] = predict(w, space, vpn, op.off, op.len, READ)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const got = sys_copy_from_user(space.mm, w.address(vpn) + op.off, buffer)
  const done = checkCopied(w, 'mapread', got, expected, fault)
  for (let at = 0; at < done; ) {
    const pageVpn = vpn + Math.floor((op.off + at) / w.pageSize)
    const from = (op.off + at) % w.pageSize
    const n = Math.min(done - at, w.pageSize - from)
    const page = space.pages.get(pageVpn) as ModelPage
    const bytes = bytesOf(page, w.zeros) ?? w.zeros
    const length = Math.min(n, knownBytes(page, w.pageSize) - from)
    if (length > 0)
      w.compare(`page ${pageVpn} from byte ${from}`, buffer.subarray(at, at + n), bytes.subarray(from), length)
    at += n
  }
}

export function mapWrite(w: World, space: FuzzSpace, op: OpOf<'mapwrite'>): void {
  const vpn = w.vpnOf(op.p)
  const data = pattern(op.fill, op.len)
  const [expected, fault] = predict(w, space, vpn, op.off, op.len, WRITE)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const got = sys_copy_to_user(space.mm, w.address(vpn) + op.off, data)
  const done = checkCopied(w, 'mapwrite', got, expected, fault)
  applyStore(w, space, vpn, op.off, data.subarray(0, done))
}

/**
 * Pages given up by MADV_FREE may have turned into zeros since the last look. → whether all is certain now: a page after
 * the first could still turn in the middle of the copy, when an earlier one's fault reclaims it.
 */
function settleAll(w: World, space: FuzzSpace, vpn: number, bytes: number): boolean {
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

/** Reads from a file into memory, file page by file page as the machine does: both may be the same bytes. */
export function readUser(w: World, space: FuzzSpace, op: OpOf<'readuser' | 'writeuser'>): void {
  const { fd, model } = w.files[op.f]
  const vpn = w.vpnOf(op.p)
  // Linux stores a zero to the destination before it reads, which shows when both are one page.
  if (w.config.policy === POLICY_LINUX) return
  // Where a read stores to a page that it has yet to read, what it finds there depends on the order of single bytes.
  if (readsItself(w, space, vpn, op.off, op.len, model, op.pos)) return
  const inFile = Math.max(0, Math.min(op.len, model.size - op.pos))
  const [expected] = predict(w, space, vpn, op.off, inFile, WRITE)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const got = sys_read_user(space.mm, w.address(vpn) + op.off, op.len, fd, op.pos)
  checkMoved(w, 'readuser', got, expected, inFile > 0 && expected === 0)
  for (let at = 0; at < got; ) {
    const inPage = w.pageSize - Math.max((op.pos + at) % w.pageSize, (op.off + at) % w.pageSize)
    const n = Math.min(got - at, inPage)
    applyStore(w, space, vpn, op.off + at, model.bytes.slice(op.pos + at, op.pos + at + n))
    at += n
  }
  syncCopies(w, space)
}

export function writeUser(w: World, space: FuzzSpace, op: OpOf<'readuser' | 'writeuser'>): void {
  const { fd, model } = w.files[op.f]
  const vpn = w.vpnOf(op.p)
  const [readable] = predict(w, space, vpn, op.off, op.len, READ)
  // Each file page is taken as a whole or not at all.
  const expected = readable === op.len ? readable : Math.max(0, readable - ((op.pos + readable) % w.pageSize))
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  // Unknown bytes past the end of a mapped file must not become known ones of this; nor must the file grow under its own
  // mapping half way.
  if (touchesUnknown(w, space, vpn, op.off, op.len, model)) return
  const got = sys_write_user(space.mm, w.address(vpn) + op.off, op.len, fd, op.pos)
  checkMoved(w, 'writeuser', got, expected, op.len > 0 && expected === 0)
  for (let at = 0; at < got; ) {
    const n = Math.min(got - at, w.pageSize - ((op.pos + at) % w.pageSize))
    model.write(op.pos + at, loadBytes(w, space, vpn, op.off + at, n))
    at += n
  }
}

function loadBytes(w: World, space: FuzzSpace, vpn: number, off: number, length: number): Uint8Array {
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

function touchesUnknown(w: World, space: FuzzSpace, vpn: number, off: number, len: number, target: ModelFile): boolean {
  for (let i = 0; i * w.pageSize < off + len; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined || page.file === null) continue
    if (page.file.tailUnknown || knownBytes(page, w.pageSize) < w.pageSize) return true
    if (page.file === target && isPastEnd(page)) return true
  }
  return false
}

/** Whether [vpn, off, len] shows one of the file pages that [position, position + len) lies in. */
function readsItself(
  w: World,
  space: FuzzSpace,
  vpn: number,
  off: number,
  len: number,
  file: ModelFile,
  position: number
): boolean {
  const first = Math.floor(position / w.pageSize)
  const last = Math.floor((position + len - 1) / w.pageSize)
  for (let i = 0; i * w.pageSize < off + len; i++) {
    const page = space.pages.get(vpn + i)
    if (page?.file === file && page.pgoff >= first && page.pgoff <= last) return true
  }
  return false
}

function checkMoved(w: World, name: string, got: number, expected: number, faults: boolean): void {
  if (got === expected && !faults) return
  if (got === -EFAULT && (faults || w.armed || w.isTight)) return
  if (got < 0 ? excused(w, got) || (got === -EFAULT && expected === 0) : got < expected && (w.armed || w.isTight))
    return
  throw new Mismatch(`${name} gives ${got}, not ${faults ? -EFAULT : expected}`)
}

export function remap(w: World, space: FuzzSpace, op: OpOf<'remap'>): void {
  const pgoffs = Array.from({ length: op.n }, (_, i) => op.pgoff + i)
  remapTo(w, space, w.vpnOf(op.p), pgoffs, op.prot, (address, prot, flags) =>
    sys_remap_file_pages(space.mm, address, w.address(op.n), prot, op.pgoff, flags | op.flags)
  )
}

export function remapVector(w: World, space: FuzzSpace, op: OpOf<'remapv'>): void {
  remapTo(w, space, w.vpnOf(op.p), op.pgoffs, op.prot, (address, prot, flags) =>
    sys_remap_file_pages_vec(space.mm, address, Int32Array.from(op.pgoffs), prot, flags | op.flags)
  )
}

function remapTo(
  w: World,
  space: FuzzSpace,
  vpn: number,
  pgoffs: readonly number[],
  prot: number,
  call: (address: number, prot: number, flags: number) => number
): void {
  // Linux knows no protection of a page's own, and no flag that would allow it.
  const knows = w.config.policy !== POLICY_LINUX
  const own = knows ? prot : -1
  let expected = expectedRemap(w, space, vpn, pgoffs.length)
  if (!knows && prot > 0) expected = -EINVAL
  const emulated = isEmulated(w, space, vpn)
  const result = call(w.address(vpn), Math.max(0, prot), prot < 0 ? 0 : abi.MAP_PAGE_PROT)
  afterRemap(w, space, vpn, pgoffs, own, result, expected, emulated)
}

/** Linux's emulation moves the linear place; ours never does. */
function isEmulated(w: World, space: FuzzSpace, vpn: number): boolean {
  const vma = w.m.vmas.at(space.mm.id, vpn)
  if (vma === 0 || w.config.policy !== POLICY_LINUX) return false
  return w.m.inodes.kind[w.m.vmas.inode[vma]] === INODE_STORE
}

function expectedRemap(w: World, space: FuzzSpace, vpn: number, n: number): number {
  const { vmas } = w.m
  const vma = vmas.at(space.mm.id, vpn)
  return vma === 0 || (vmas.flags[vma] & VM_SHARED) === 0 || vpn + n > vmas.end[vma] ? -EINVAL : 0
}

function afterRemap(
  w: World,
  space: FuzzSpace,
  vpn: number,
  pgoffs: readonly number[],
  prot: number,
  result: number,
  expected: number,
  emulated: boolean
): void {
  if (result !== expected && !(expected === 0 && result < 0 && excused(w, result))) {
    throw new Mismatch(`remap gives ${result}, not ${expected}`)
  }
  if (expected !== 0) return
  if (emulated) dropUnmapped(w, space, vpn, vpn + pgoffs.length)
  for (let i = 0; i < pgoffs.length; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined) continue
    if (emulated) {
      const vma = w.m.vmas.at(space.mm.id, vpn + i)
      if (result < 0 && w.m.vmas.linearIndex(vma, vpn + i) === page.linear) continue
      page.linear = pgoffs[i]
    }
    // ENOMEM half way: the entries that were written are.
    if (result < 0 && !emulated && !w.peeker.remembers(space.mm.id, vpn + i, pgoffs[i], prot)) continue
    page.pgoff = pgoffs[i]
    page.own = prot < 0 ? -1 : prot === abi.PROT_WRITE ? abi.PROT_READ | abi.PROT_WRITE : prot
  }
}

export function madvise(w: World, space: FuzzSpace, op: OpOf<'madvise'>): void {
  const vpn = w.vpnOf(op.p)
  const lockedFrom = firstWith(w, space, vpn, op.n, flags => (flags & VM_LOCKED) !== 0)
  const hole = hasHole(space, vpn, op.n)
  const before = removable(w, space, vpn, op)
  for (let i = 0; i < op.n; i++) {
    const page = space.pages.get(vpn + i)
    if (page !== undefined) w.settleLazy(space.mm.id, vpn + i, page)
  }
  const result = mem.sys_madvise(space.mm, w.address(vpn), w.address(op.n), op.advice)
  const refuses = op.advice === abi.MADV_DONTNEED || op.advice === abi.MADV_FREE || op.advice === abi.MADV_REMOVE
  if (result === 0 && (hole || (refuses && lockedFrom < op.n)))
    throw new Mismatch('madvise gives 0 for what it must refuse')
  if (op.advice === abi.MADV_DONTNEED) {
    for (let i = 0; i < lockedFrom; i++) dropCopy(space.pages.get(vpn + i))
  } else if (op.advice === abi.MADV_FREE) {
    const fileFrom = firstWith(w, space, vpn, op.n, (_flags, page) => page?.file != null)
    for (let i = 0; i < Math.min(lockedFrom, fileFrom); i++) {
      const page = space.pages.get(vpn + i)
      if (page === undefined || page.copy === null) continue
      page.lazy = true
      w.settleLazy(space.mm.id, vpn + i, page)
    }
  } else if (op.advice === abi.MADV_REMOVE) {
    for (const { file, pgoff } of before) file.punch(pgoff * w.pageSize, w.pageSize)
    if (result < 0 && w.armed) throw new Mismatch('MADV_REMOVE must not meet planned failures')
  } else if (op.advice === abi.MADV_POPULATE_READ || op.advice === abi.MADV_POPULATE_WRITE) syncCopies(w, space)
  if (result === 0 || result === -ENOMEM || result === -EINVAL || result === -EFAULT) return
  if (op.advice === abi.MADV_REMOVE || op.advice === abi.MADV_WILLNEED) return
  throw new Mismatch(`madvise gives ${result}`)
}

function dropCopy(page: ModelPage | undefined): void {
  if (page === undefined) return
  page.copy = null
  page.lazy = false
}

/** The file pages that MADV_REMOVE punches: those before the first part that it refuses. */
function removable(w: World, space: FuzzSpace, vpn: number, op: OpOf<'madvise'>): { file: ModelFile; pgoff: number }[] {
  const pages: { file: ModelFile; pgoff: number }[] = []
  if (op.advice !== abi.MADV_REMOVE) return pages
  for (let i = 0; i < op.n; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined) continue
    const flags = flagsAt(w, space, vpn + i)
    if ((flags & (VM_LOCKED | VM_NONLINEAR)) !== 0 || page.file === null) break
    if (!page.shared || (page.prot & abi.PROT_WRITE) === 0) break
    pages.push({ file: page.file, pgoff: page.linear })
  }
  return pages
}

function firstWith(
  w: World,
  space: FuzzSpace,
  vpn: number,
  n: number,
  test: (flags: number, page: ModelPage | undefined) => boolean
): number {
  for (let i = 0; i < n; i++) if (test(flagsAt(w, space, vpn + i), space.pages.get(vpn + i))) return i
  return n
}

function hasHole(space: FuzzSpace, vpn: number, n: number): boolean {
  for (let i = 0; i < n; i++) if (!space.pages.has(vpn + i)) return true
  return false
}

export function mprotect(w: World, space: FuzzSpace, op: OpOf<'mprotect'>): void {
  const vpn = w.vpnOf(op.p)
  const hole = firstWith(w, space, vpn, op.n, (_flags, page) => page === undefined)
  const result = mem.sys_mprotect(space.mm, w.address(vpn), w.address(op.n), op.prot)
  if (result !== (hole < op.n ? -ENOMEM : 0)) throw new Mismatch(`mprotect gives ${result}`)
  for (let i = 0; i < hole; i++) {
    const page = space.pages.get(vpn + i) as ModelPage
    page.prot = op.prot
    page.own = -1
  }
}

export function msync(w: World, space: FuzzSpace, op: OpOf<'msync'>): void {
  const vpn = w.vpnOf(op.p)
  const result = mem.sys_msync(space.mm, w.address(vpn), w.address(op.n), op.flags)
  if (result === -EIO && (w.armed || w.writesFailed)) return
  if (result !== (hasHole(space, vpn, op.n) ? -ENOMEM : 0)) throw new Mismatch(`msync gives ${result}`)
}

export function afterLock(w: World, space: FuzzSpace, name: string, result: number): void {
  syncCopies(w, space)
  if (result !== 0 && result !== -ENOMEM && result !== -EAGAIN) throw new Mismatch(`${name} gives ${result}`)
}

export function checkByte(w: World, vpn: number, page: ModelPage, off: number, got: number): void {
  if (off >= knownBytes(page, w.pageSize)) return
  const expected = (bytesOf(page, w.zeros) ?? w.zeros)[off]
  if (got !== expected) throw new Mismatch(`the device reads ${got} from page ${vpn}, not ${expected}`)
}
