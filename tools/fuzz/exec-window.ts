/**
 * The fuzzer's accesses through windows: accessors, borrowed pages, and secondary MMUs, which keep translations of
 * their own.
 */
import { FAULT_BUS, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../../src/abi/fault.ts'
import { PROT_WRITE } from '../../src/abi/mman.ts'
import { FremapError } from '../../src/api/errors.ts'
import { SHADOW_READ, SHADOW_WRITE } from '../../src/mmu/translation.ts'
import {
  applyStore,
  compareBytes,
  expectedFault,
  faultExcused,
  makeCopy,
  predict,
  READ,
  settleAll,
  syncCopies,
  WRITE
} from './effects.ts'
import { pattern } from './excuses.ts'
import { Mismatch } from './mismatch.ts'
import type { OpOf } from './ops.ts'
import { type FuzzSpace, LOW_PAGES, type World } from './world.ts'

/** Tries of a guest before it gives up: each finds the entry cleared again. */
const MAX_TRIES = 100
const MOST_BORROWED = 3

const value = new DataView(new ArrayBuffer(8))
const valueBytes = new Uint8Array(value.buffer)

/** Runs an access. → FAULT_OK, or the fault that it was thrown for. */
function faultOf(access: () => void): number {
  try {
    access()
    return FAULT_OK
  } catch (error) {
    if (!(error instanceof FremapError)) throw error
    if (error.code === 'SIGBUS' || error.code === 'EAGAIN') return FAULT_BUS
    if (error.code === 'ENOMEM') return FAULT_OOM
    if (error.code === 'SIGSEGV') return FAULT_MAPERR
    throw error
  }
}

/** Which page of an access faulted is not told: some page of it must explain the fault. */
function checkFault(
  w: World,
  space: FuzzSpace,
  name: string,
  vpn: number,
  pages: number,
  code: number,
  expected: number
): void {
  const kind = expected === FAULT_BUS || expected === FAULT_OK ? expected : FAULT_MAPERR
  if (code === kind) return
  for (let i = 0; i < pages && code !== FAULT_OK; i++) if (faultExcused(w, space, vpn + i, code)) return
  throw new Mismatch(`${name} comes to fault ${code}, not ${kind}`)
}

/** A typed load or store: little-endian, or big-endian where `fill` is odd. */
export function accessor(w: World, space: FuzzSpace, op: OpOf<'load'> | OpOf<'store'>): void {
  if (op.p >= LOW_PAGES) return
  const offset = w.address(op.p) + op.off
  if (offset + op.len > w.address(LOW_PAGES)) return
  const vpn = w.vpnOf(op.p)
  if (!settleAll(w, space, vpn, op.off + op.len)) return
  const access = op.op === 'load' ? READ : WRITE
  const [, expected] = predict(w, space, vpn, op.off, op.len, access)
  if (op.op === 'store') valueBytes.set(pattern(op.fill, op.len))
  const code = faultOf(() => (op.op === 'load' ? load(space, offset, op.len) : store(space, offset, op.len)))
  const pages = Math.ceil((op.off + op.len) / w.pageSize)
  checkFault(w, space, op.op, vpn, pages, code, expected)
  if (code === FAULT_OK && op.op === 'load') compareBytes(w, space, vpn, op.off, valueBytes.slice(0, op.len))
  else if (code === FAULT_OK) applyStore(w, space, vpn, op.off, valueBytes.slice(0, op.len))
  else if (op.op === 'store') {
    // A store is whole or not at all, but the first page has been made ready for it.
    for (let i = 0; i < pages; i++) {
      const page = space.pages.get(vpn + i)
      if (page !== undefined) page.soft.may = true
    }
    syncCopies(w, space)
  }
}

function load({ map }: FuzzSpace, offset: number, len: number): void {
  if (len === 1) value.setUint8(0, map.getUint8(offset))
  else if (len === 2) value.setUint16(0, map.getUint16(offset, offset % 3 !== 0), offset % 3 !== 0)
  else if (len === 4) value.setUint32(0, map.getUint32(offset, offset % 3 !== 0), offset % 3 !== 0)
  else value.setBigUint64(0, map.getBigUint64(offset, offset % 3 !== 0), offset % 3 !== 0)
}

function store({ map }: FuzzSpace, offset: number, len: number): void {
  if (len === 1) map.setUint8(offset, value.getUint8(0))
  else if (len === 2) map.setUint16(offset, value.getUint16(0, offset % 3 !== 0), offset % 3 !== 0)
  else if (len === 4) map.setUint32(offset, value.getUint32(0, offset % 3 !== 0), offset % 3 !== 0)
  else if (offset % 8 === 0 && !Number.isNaN(value.getFloat64(0, true))) {
    map.setFloat64(offset, value.getFloat64(0, true))
  } else map.setBigUint64(offset, value.getBigUint64(0, offset % 3 !== 0), offset % 3 !== 0)
}

export function borrow(w: World, space: FuzzSpace, op: OpOf<'borrow'>): void {
  if (op.p >= LOW_PAGES || w.held.borrowed.length >= MOST_BORROWED) return
  const vpn = w.vpnOf(op.p)
  settleAll(w, space, vpn, w.pageSize)
  const page = space.pages.get(vpn)
  const expected = expectedFault(page, op.write ? WRITE : READ)
  let lent: ReturnType<FuzzSpace['map']['borrow']> | undefined
  const code = faultOf(() => {
    lent = space.map.borrow(op.p, op.write ? 'write' : 'read')
  })
  checkFault(w, space, op.op, vpn, 1, code, expected)
  if (lent === undefined || page === undefined) return
  compareBytes(w, space, vpn, 0, lent.bytes)
  const first = (op.off * 3 + 1) & 0xff
  if (op.write) {
    lent.bytes[op.off] = first
    applyStore(w, space, vpn, op.off, Uint8Array.of(first))
  } else if (!page.shared && (page.prot & PROT_WRITE) !== 0) makeCopy(w, page)
  // Memory without a name goes with its last mapping.
  const isShared = page.shared && w.files.some(({ model }) => model === page.file)
  const of =
    isShared && page.file !== null
      ? { file: page.file, pgoff: page.pgoff, frame: w.peeker.frameAt(space.mm.id, vpn) }
      : undefined
  const off = op.write && isShared ? op.off : -1
  const { copy, known } = page
  w.held.borrowed.push({ page: lent, of, copy, known, off, value: first ^ 2, until: w.tick + op.ops, isCut: false })
}

/** A byte of a page, through a secondary MMU. */
export function device(w: World, space: FuzzSpace, op: OpOf<'devread'> | OpOf<'devwrite'>): void {
  const vpn = w.vpnOf(op.p)
  const page = space.pages.get(vpn)
  if (page !== undefined) w.settleLazy(space.mm.id, vpn, page)
  const write = op.op === 'devwrite'
  const isInTable = op.via !== 'shadow' || op.p < Math.min(LOW_PAGES, space.table.nrEntries)
  const expected = isInTable ? expectedFault(page, write ? WRITE : READ) : FAULT_MAPERR
  const stored = write ? (op.off * 5 + 1) & 0xff : -1
  let got = 0
  const code = faultOf(() => {
    got = through(w, space, op, vpn, stored)
  })
  checkFault(w, space, `${op.op} through the ${op.via}`, vpn, 1, code, expected)
  if (code !== FAULT_OK) return
  if (write) applyStore(w, space, vpn, op.off, Uint8Array.of(stored))
  else compareBytes(w, space, vpn, op.off, Uint8Array.of(got))
}

/** Stores a byte, or loads one if `stored` is -1. → the byte. */
function through(
  w: World,
  space: FuzzSpace,
  op: OpOf<'devread'> | OpOf<'devwrite'>,
  vpn: number,
  stored: number
): number {
  if (op.via === 'mirror' && space.mirror !== undefined) {
    const { mirror } = space
    const got = stored < 0 ? mirror.read(vpn, op.off) : mirror.write(vpn, op.off, stored)
    if (got < 0)
      throw new FremapError(got === -FAULT_BUS ? 'SIGBUS' : got === -FAULT_OOM ? 'ENOMEM' : 'SIGSEGV', 0, '', '')
    return got
  }
  const bytes = new Uint8Array(w.m.ram.buffer)
  const access = stored < 0 ? SHADOW_READ : SHADOW_WRITE
  const viaTable = op.via === 'shadow'
  // The TLB is the first thread's own.
  if (!viaTable) w.turn = 0
  const guest = viaTable ? space.table.guest() : space.tlb.guest()
  const reach = (): number => {
    const at = (viaTable ? entryFor(space, op.p, access, w.pageSize) : space.tlb.translate(vpn, access)) + op.off
    if (stored >= 0) bytes[at] = stored
    return bytes[at]
  }
  return w.m.sync.isShared ? guest.run(reach) : reach()
}

/** As a guest does it: looks at the entry, and asks the host until it allows the access. → the address of the frame. */
function entryFor({ table }: FuzzSpace, page: number, access: number, pageSize: number): number {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const entry = page < table.nrEntries ? table.entry(page) : 0
    if ((entry & access) !== 0) return entry - (entry % pageSize)
    table.fault(page, access)
  }
  throw new Mismatch(`the guest's fault on page ${page} does not come to an end`)
}
