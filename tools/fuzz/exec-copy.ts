/** The fuzzer's copies: out of and into address spaces, between them and files, and past their protection. */
import { EBADF, EFAULT, EIO } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { sys_copy_from_user, sys_copy_to_user, sys_read_user, sys_write_user } from '../../src/syscall/file.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import {
  applyStore,
  checkCopied,
  compareBytes,
  expectedFault,
  loadBytes,
  predict,
  READ,
  settleAll,
  storeToPage,
  syncCopies,
  WRITE
} from './effects.ts'
import { excused, mayHaveToWait, pattern } from './excuses.ts'
import { Mismatch } from './mismatch.ts'
import { isPastEnd, knownBytes, type ModelFile, type ModelPage } from './model.ts'
import type { OpOf } from './ops.ts'
import type { FuzzSpace, World } from './world.ts'

export function mapRead(w: World, space: FuzzSpace, op: OpOf<'mapread'>): void {
  const vpn = w.vpnOf(op.p)
  const buffer = new Uint8Array(op.len)
  const [expected, fault] = predict(w, space, vpn, op.off, op.len, READ)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const got = sys_copy_from_user(space.mm, w.address(vpn) + op.off, buffer)
  const done = checkCopied(w, space, vpn, op.off, op.op, got, expected, fault)
  compareBytes(w, space, vpn, op.off, buffer.subarray(0, done))
}

export function mapWrite(w: World, space: FuzzSpace, op: OpOf<'mapwrite'>): void {
  const vpn = w.vpnOf(op.p)
  const data = pattern(op.fill, op.len)
  const [expected, fault] = predict(w, space, vpn, op.off, op.len, WRITE)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const got = sys_copy_to_user(space.mm, w.address(vpn) + op.off, data)
  const done = checkCopied(w, space, vpn, op.off, op.op, got, expected, fault)
  applyStore(w, space, vpn, op.off, data.subarray(0, done))
}

/** Whether /proc/PID/mem may: loads always; stores where the owner could, and to any private page, which is copied. */
function mayForce(page: ModelPage | undefined, access: number): boolean {
  if (page === undefined || isPastEnd(page)) return false
  return access === READ || !page.shared || (page.prot & abi.PROT_WRITE) !== 0
}

export function mem(w: World, space: FuzzSpace, op: OpOf<'memread'> | OpOf<'memwrite'>): void {
  const vpn = w.vpnOf(op.p)
  const access = op.op === 'memread' ? READ : WRITE
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  let expected = 0
  while (expected < op.len && mayForce(space.pages.get(vpn + Math.floor((op.off + expected) / w.pageSize)), access)) {
    expected = Math.min(op.len, expected + w.pageSize - ((op.off + expected) % w.pageSize))
  }
  const bytes = op.op === 'memread' ? new Uint8Array(op.len) : pattern(op.fill, op.len)
  const call = op.op === 'memread' ? sys_mem_read : sys_mem_write
  const got = call(space.mm, w.address(vpn) + op.off, bytes)
  const done = got === -EIO ? 0 : got
  const isExcused = done >= 0 && done < expected && (w.armed || w.isTight || mayHaveToWait(w))
  if ((done !== expected || got < 0 !== (expected === 0)) && !isExcused) {
    throw new Mismatch(`${op.op} gives ${got}, not ${expected}`)
  }
  if (op.op === 'memread') compareBytes(w, space, vpn, op.off, bytes.subarray(0, done))
  else applyStore(w, space, vpn, op.off, bytes.subarray(0, done))
}

/**
 * Reads from a file into memory, file page by file page as the machine does: both may be the same bytes. Linux stores a
 * zero to both ends of each part of the destination before it reads the file, which shows when both are one page, or
 * when the read fails.
 */
export function readUser(w: World, space: FuzzSpace, op: OpOf<'readuser'>): void {
  const { fd, model } = w.files[op.f]
  const vpn = w.vpnOf(op.p)
  // What a read finds in a page that it has stored to depends on how the destination's pages lie in memory, if they are
  // two.
  if (op.off + op.len > w.pageSize && readsItself(w, space, vpn, op.off, op.len, model, op.pos)) return
  const inFile = Math.max(0, Math.min(op.len, model.size - op.pos))
  const [expected] = predict(w, space, vpn, op.off, inFile, WRITE)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const touches = w.config.policy === POLICY_LINUX
  const got = sys_read_user(space.mm, w.address(vpn) + op.off, op.len, fd, op.pos)
  checkMoved(w, op.op, got, expected, inFile > 0 && expected === 0)
  const done = Math.max(0, got)
  for (let at = 0; at < done; ) {
    const part = Math.min(done - at, w.pageSize - ((op.pos + at) % w.pageSize))
    if (touches) for (const end of endsOf(w, op.off + at, part)) applyStore(w, space, vpn, end, Uint8Array.of(0))
    for (let end = at + part; at < end; ) {
      const n = Math.min(end - at, w.pageSize - ((op.off + at) % w.pageSize))
      applyStore(w, space, vpn, op.off + at, model.bytes.slice(op.pos + at, op.pos + at + n))
      at += n
    }
  }
  if (touches && done < inFile) {
    const part = Math.min(inFile - done, w.pageSize - ((op.pos + done) % w.pageSize))
    for (const end of endsOf(w, op.off + done, part)) settleTouched(w, space, vpn, end)
  }
  syncCopies(w, space)
}

/**
 * The bytes that Linux stores zeros to before it reads `n` bytes to byte `to`: the first, and the last if it is in
 * another page.
 */
function endsOf(w: World, to: number, n: number): number[] {
  const last = to + n - 1
  return Math.floor(to / w.pageSize) === Math.floor(last / w.pageSize) ? [to] : [to, last]
}

/** A byte of a part that was not read: zero if it was touched, else as it was. */
function settleTouched(w: World, space: FuzzSpace, vpn: number, off: number): void {
  const at = vpn + Math.floor(off / w.pageSize)
  const page = space.pages.get(at)
  if (page === undefined || expectedFault(page, WRITE) !== 0) return
  const inPage = off % w.pageSize
  page.soft.may = true
  if (w.peeker.userPage(space.mm.id, at)[inPage] === 0 && loadBytes(w, space, at, inPage, 1)[0] !== 0) {
    storeToPage(w, page, inPage, Uint8Array.of(0))
  }
}

export function writeUser(w: World, space: FuzzSpace, op: OpOf<'writeuser'>): void {
  const { fd, model } = w.files[op.f]
  const vpn = w.vpnOf(op.p)
  if (model.isLater) {
    const got = sys_write_user(space.mm, w.address(vpn) + op.off, op.len, fd, op.pos)
    if (got !== -EBADF) throw new Mismatch(`writeuser to a file that can only be read gives ${got}`)
    return
  }
  const [readable] = predict(w, space, vpn, op.off, op.len, READ)
  // Each file page is taken as a whole or not at all.
  const expected = readable === op.len ? readable : Math.max(0, readable - ((op.pos + readable) % w.pageSize))
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  // Unknown bytes past the end of a mapped file must not become known ones of this; nor must the file grow under its
  // own mapping half way.
  if (touchesUnknown(w, space, vpn, op.off, op.len, model)) return
  const got = sys_write_user(space.mm, w.address(vpn) + op.off, op.len, fd, op.pos)
  checkMoved(w, 'writeuser', got, expected, op.len > 0 && expected === 0)
  for (let at = 0; at < got; ) {
    const n = Math.min(got - at, w.pageSize - ((op.pos + at) % w.pageSize))
    model.write(op.pos + at, loadBytes(w, space, vpn, op.off + at, n))
    at += n
  }
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
  if (got === -EFAULT && (faults || w.armed || w.isTight || mayHaveToWait(w))) return
  if (
    got < 0
      ? excused(w, got) || (got === -EFAULT && expected === 0)
      : got < expected && (w.armed || w.isTight || mayHaveToWait(w))
  )
    return
  throw new Mismatch(`${name} gives ${got}, not ${faults ? -EFAULT : expected}`)
}
