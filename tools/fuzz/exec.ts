/** Applies one operation to the machine and the model. */
import { FAULT_BUS, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { FaultError } from '../../src/api/errors.ts'
import { SHADOW_READ, SHADOW_WRITE } from '../../src/mmu/shadow-mmu.ts'
import { sys_mremap } from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlockall, sys_munlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { sys_clear_refs, sys_exit, sys_fork } from '../../src/syscall/process.ts'
import { VM_DONTCOPY } from '../../src/vma/flags.ts'
import { excused, execFile } from './exec-files.ts'
import * as on from './exec-memory.ts'
import { clonePage, isPastEnd, type ModelPage, type ModelSpace, mayRead, mayWrite } from './model.ts'
import type { Op } from './ops.ts'
import { type FuzzSpace, MAX_SPACES, Mismatch, type World } from './world.ts'

type OpOf<K extends Op['op']> = Extract<Op, { op: K }>

/** Does `op`. Throws Mismatch when the machine does not do what the model does. */
export function execute(w: World, op: Op): void {
  if (op.op === 'nomem' || op.op === 'ioerror') {
    arm(w, op)
    return
  }
  if (op.op === 'reclaim') w.m.reclaim.shrink(op.n)
  else if ('s' in op) {
    const space = w.spaces[op.s]
    if (space !== undefined) execSpace(w, space, op)
  } else execFile(w, op)
  w.heal()
}

/** Before pages are brought in: those that MADV_FREE gave up, and reclaim took, come back as zeros. */
function settleSpace(w: World, space: FuzzSpace): void {
  for (const [vpn, page] of space.pages) w.settleLazy(space.mm.id, vpn, page)
}

function arm(w: World, op: OpOf<'nomem' | 'ioerror'>): void {
  w.armed = true
  if (op.op === 'nomem') {
    let left = op.n
    w.m.allocator.setFail(() => --left === 0)
    return
  }
  for (const { store } of w.files) {
    if (store === undefined) continue
    store.failRead = op.read
    store.failWrite = op.write
  }
}

function execSpace(w: World, space: FuzzSpace, op: Extract<Op, { s: number }>): void {
  switch (op.op) {
    case 'mmap':
      on.mmap(w, space, op)
      break
    case 'munmap':
      on.munmap(w, space, op)
      break
    case 'mapread':
      on.mapRead(w, space, op)
      break
    case 'mapwrite':
      on.mapWrite(w, space, op)
      break
    case 'readuser':
      on.readUser(w, space, op)
      break
    case 'writeuser':
      on.writeUser(w, space, op)
      break
    case 'remap':
      on.remap(w, space, op)
      break
    case 'remapv':
      on.remapVector(w, space, op)
      break
    case 'madvise':
      if (op.advice === abi.MADV_REMOVE) w.heal()
      on.madvise(w, space, op)
      break
    case 'mprotect':
      on.mprotect(w, space, op)
      break
    case 'msync':
      on.msync(w, space, op)
      break
    case 'mremap':
      mremap(w, space, op)
      break
    case 'mlock':
      settleSpace(w, space)
      on.afterLock(w, space, op.op, sys_mlock(space.mm, w.address(w.vpnOf(op.p)), w.address(op.n)))
      break
    case 'munlock':
      on.afterLock(w, space, op.op, sys_munlock(space.mm, w.address(w.vpnOf(op.p)), w.address(op.n)))
      break
    case 'mlockall':
      settleSpace(w, space)
      on.afterLock(w, space, op.op, sys_mlockall(space.mm, abi.MCL_CURRENT))
      break
    case 'munlockall':
      on.afterLock(w, space, op.op, sys_munlockall(space.mm))
      break
    case 'fork':
      fork(w, space)
      break
    case 'exit':
      exit(w, op.s, space)
      break
    case 'clearrefs':
      if (sys_clear_refs(space.mm, 4) !== 0) throw new Mismatch('clear_refs fails')
      break
    case 'devread':
    case 'devwrite':
      device(w, space, op)
      break
  }
}

/** A child has what its parent has, private pages as copies. */
function fork(w: World, space: FuzzSpace): void {
  const free = w.spaces.indexOf(undefined)
  if (free < 0) return
  const { vmas } = w.m
  const pages: ModelSpace = new Map()
  const child = sys_fork(space.mm)
  if (typeof child === 'number') {
    if (!excused(w, child)) throw new Mismatch(`fork gives ${child}`)
    return
  }
  for (const [vpn, page] of space.pages) {
    const flags = vmas.flags[vmas.at(space.mm.id, vpn)]
    if ((flags & VM_DONTCOPY) !== 0) continue
    w.settleLazy(space.mm.id, vpn, page)
    pages.set(vpn, clonePage(page))
  }
  w.adopt(free, child, pages)
}

function exit(w: World, s: number, space: FuzzSpace): void {
  const result = sys_exit(space.mm)
  if (result !== 0) throw new Mismatch(`exit gives ${result}`)
  if (!space.device.released) throw new Mismatch('exit did not release the device')
  w.spaces[s] = undefined
  if (w.spaces.every(other => other === undefined)) w.makeSpace(s % MAX_SPACES)
}

function mremap(w: World, space: FuzzSpace, op: OpOf<'mremap'>): void {
  const from = w.vpnOf(op.p)
  const to = w.vpnOf(op.to)
  const fixed = (op.flags & abi.MREMAP_FIXED) !== 0
  const source = space.pages.get(from)
  const at = sys_mremap(space.mm, w.address(from), w.address(op.n), w.address(op.newn), op.flags, w.address(to))
  const { vmas } = w.m
  if (at < 0) {
    // With MREMAP_FIXED the target goes, and a shrinking tail is cut off, before the source is looked at.
    for (const [start, n] of [
      [to, fixed ? op.newn : 0],
      [from, op.n]
    ]) {
      for (let i = 0; i < n; i++) if (vmas.at(space.mm.id, start + i) === 0) space.pages.delete(start + i)
    }
    return
  }
  const target = at / w.pageSize
  if (!Number.isInteger(target) || (fixed && target !== to)) throw new Mismatch(`mremap gives ${at}`)
  const moves = target !== from || fixed
  const kept = Math.min(op.n, op.newn)
  if (!moves) {
    // Shrinking does not look at what stays (as on Linux).
    for (let i = op.newn; i < op.n; i++) space.pages.delete(from + i)
    for (let i = op.n; i < op.newn; i++) if (source !== undefined) space.pages.set(from + i, grown(source, i))
    on.syncCopies(w, space)
    return
  }
  if (source === undefined) throw new Mismatch('mremap moves what is not mapped')
  const taken: ModelPage[] = []
  for (let i = 0; i < op.newn; i++) {
    const page = i < kept ? space.pages.get(from + i) : undefined
    if (page !== undefined) taken.push(page)
    else taken.push(grown(source, i))
  }
  for (let i = 0; i < op.n; i++) space.pages.delete(from + i)
  if ((op.flags & abi.MREMAP_DONTUNMAP) !== 0) {
    // The source goes on showing its file pages; private copies have moved.
    for (let i = 0; i < op.n; i++) space.pages.set(from + i, { ...taken[i], copy: null, lazy: false })
  }
  for (let i = 0; i < op.newn; i++) space.pages.set(target + i, taken[i])
  on.syncCopies(w, space)
}

/** The page that continues a mapping at its linear place, `i` pages after `first`. */
function grown(first: ModelPage, i: number): ModelPage {
  const linear = first.linear + i
  return { ...first, linear, pgoff: linear, own: -1, copy: null, lazy: false }
}

function device(w: World, space: FuzzSpace, op: OpOf<'devread' | 'devwrite'>): void {
  const vpn = w.vpnOf(op.p)
  const page = space.pages.get(vpn)
  if (page !== undefined) w.settleLazy(space.mm.id, vpn, page)
  const allowed = page !== undefined && (op.op === 'devwrite' ? mayWrite(page) : mayRead(page)) && !isPastEnd(page)
  const value = (op.off * 5 + 1) & 0xff
  const write = op.op === 'devwrite'
  let got = 0
  // Two secondary MMUs take turns: one that mirrors the page tables, and a TLB.
  if (op.off % 2 === 1) got = throughTlb(w, space, vpn, op.off, write ? value : -1)
  else got = write ? space.device.write(vpn, op.off, value) : space.device.read(vpn, op.off)
  if (got < 0) {
    if (allowed && !on.faultExcused(w, -got)) throw new Mismatch(`the device faults with ${-got} on page ${vpn}`)
    return
  }
  if (page === undefined || !allowed) throw new Mismatch(`the device reaches page ${vpn}, fault ${FAULT_OK}`)
  if (op.op === 'devwrite') on.applyStore(w, space, vpn, op.off, Uint8Array.of(value))
  else on.checkByte(w, vpn, page, op.off, got)
}

/** Stores a byte, or loads one if `value` is -1. → the byte, or -(fault code). */
function throughTlb(w: World, space: FuzzSpace, vpn: number, off: number, value: number): number {
  const bytes = new Uint8Array(w.m.ram.buffer)
  try {
    const at = space.tlb.translate(vpn, value < 0 ? SHADOW_READ : SHADOW_WRITE) + off
    if (value >= 0) bytes[at] = value
    return bytes[at]
  } catch (error) {
    if (!(error instanceof FaultError)) throw error
    return error.code === 'SIGBUS' ? -FAULT_BUS : error.code === 'ENOMEM' ? -FAULT_OOM : -FAULT_MAPERR
  }
}
