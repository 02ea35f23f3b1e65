/** Applies one operation to the machine and the model. */
import * as abi from '../../src/abi/mman.ts'
import { sys_mremap } from '../../src/syscall/memory.ts'
import { sys_clear_refs, sys_exit, sys_fork } from '../../src/syscall/process.ts'
import { VM_DONTCOPY, VM_WIPEONFORK } from '../../src/vma/flags.ts'
import { syncCopies } from './effects.ts'
import { excused } from './excuses.ts'
import * as copy from './exec-copy.ts'
import { execFile } from './exec-files.ts'
import { arrive, ready } from './exec-later.ts'
import * as on from './exec-memory.ts'
import { remap, remapVector } from './exec-remap.ts'
import { accessor, borrow, device } from './exec-window.ts'
import { endDue, startMove } from './held.ts'
import { Mismatch } from './mismatch.ts'
import { clonePage, type ModelPage, type ModelSpace, notSoft } from './model.ts'
import type { Op, OpOf } from './ops.ts'
import { clearSoft, isGone, mustBeSoft, noteJoined, notePopulated, staysKnown } from './soft-dirty.ts'
import { type FuzzSpace, LOW_PAGES, MAX_SPACES, type World } from './world.ts'

const CLEAR_SOFT_DIRTY = 4

/** Does `op`. Throws Mismatch when the machine does not do what the model does. Most are done when it returns. */
export function execute(w: World, op: Op): void | Promise<void> {
  w.begin(op.t ?? 0)
  endDue(w)
  if (op.op === 'nomem' || op.op === 'ioerror') {
    arm(w, op)
    return
  }
  if (op.op === 'ready') {
    const space = w.spaces[op.s]
    return space === undefined ? undefined : ready(w, space, op).finally(() => w.heal())
  }
  if (op.op === 'reclaim') w.m.quietly(() => w.m.reclaim.shrink(op.n))
  else if (op.op === 'run') takeRun(w, op.n)
  else if (op.op === 'arrive') arrive(w, op)
  else if ('s' in op) {
    const space = w.spaces[op.s]
    if (space !== undefined) execSpace(w, space, op)
  } else execFile(w, op)
  w.heal()
}

/** Neighbouring frames: pages move out of their way. */
function takeRun(w: World, n: number): void {
  w.m.quietly(() => {
    const first = w.m.allocator.allocRun(n)
    for (let frame = first; first !== 0 && frame < first + n; frame++) w.m.allocator.free(frame)
  })
}

function arm(w: World, op: OpOf<'nomem'> | OpOf<'ioerror'>): void {
  w.armed = true
  if (op.op === 'nomem') {
    let left = op.n
    for (const { allocator } of w.machines) allocator.setFail(() => --left === 0)
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
      on.munmap(w, space, { ...op, op: 'munmap' })
      break
    case 'brk':
      on.brk(w, space, op)
      break
    case 'mincore':
      on.mincore(w, space, { ...op, op: 'mincore' })
      break
    case 'mapread':
      copy.mapRead(w, space, { ...op, op: 'mapread' })
      break
    case 'mapwrite':
      copy.mapWrite(w, space, { ...op, op: 'mapwrite' })
      break
    case 'memread':
      copy.mem(w, space, { ...op, op: 'memread' })
      break
    case 'memwrite':
      copy.mem(w, space, { ...op, op: 'memwrite' })
      break
    case 'readuser':
      copy.readUser(w, space, { ...op, op: 'readuser' })
      break
    case 'writeuser':
      copy.writeUser(w, space, { ...op, op: 'writeuser' })
      break
    case 'load':
    case 'store':
      accessor(w, space, op)
      break
    case 'borrow':
      borrow(w, space, op)
      break
    case 'remap':
      remap(w, space, op)
      break
    case 'remapv':
      remapVector(w, space, op)
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
    case 'mlockall':
      on.lock(w, space, op)
      break
    case 'munlock':
      on.lock(w, space, { ...op, op: 'munlock' })
      break
    case 'munlockall':
      on.lock(w, space, { ...op, op: 'munlockall' })
      break
    case 'fork':
      fork(w, space)
      break
    case 'exit':
      exit(w, op.s, space)
      break
    case 'clearrefs':
      if (sys_clear_refs(space.mm, op.kind) !== 0) throw new Mismatch('clear_refs fails')
      if (op.kind === CLEAR_SOFT_DIRTY) clearSoft(space)
      break
    case 'devread':
      device(w, space, { ...op, op: 'devread' })
      break
    case 'devwrite':
      device(w, space, { ...op, op: 'devwrite' })
      break
    case 'retable':
      space.retable(Math.min(LOW_PAGES, op.n))
      break
    case 'migrate':
      startMove(w, w.peeker.frameAt(space.mm.id, w.vpnOf(op.p)), op.ops)
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
    const copied = clonePage(page)
    // Entries are copied where they know something; others are found by a fault.
    if (!staysKnown(page)) copied.soft.must = false
    if ((flags & VM_WIPEONFORK) !== 0) {
      isGone(copied)
      copied.copy = null
      copied.lazy = false
    }
    pages.set(vpn, copied)
  }
  w.adopt(free, child, pages, space.heapBytes)
}

function exit(w: World, s: number, space: FuzzSpace): void {
  const result = sys_exit(space.mm)
  if (result !== 0) throw new Mismatch(`exit gives ${result}`)
  if (space.mirror?.released === false) throw new Mismatch('exit did not release the device')
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
    afterGrowth(w, space)
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
    for (let i = 0; i < op.n; i++) space.pages.set(from + i, leftBehind(taken[i]))
  }
  for (let i = 0; i < op.newn; i++) {
    space.pages.set(target + i, taken[i])
    const { soft } = taken[i]
    if (i >= kept) continue
    // Every entry that moves is soft-dirty afterwards.
    if (staysKnown(taken[i])) mustBeSoft(w, taken[i])
    else soft.may = true
  }
  afterGrowth(w, space)
}

function afterGrowth(w: World, space: FuzzSpace): void {
  notePopulated(space)
  noteJoined(w, space)
  syncCopies(w, space)
}

/** With MREMAP_DONTUNMAP: what is at the source of a page that was moved. */
function leftBehind(page: ModelPage): ModelPage {
  const soft = { ...page.soft }
  if (page.copy !== null || page.file === null) soft.may = false
  if (page.copy !== null || !staysKnown(page)) soft.must = false
  return { ...page, copy: null, lazy: false, soft }
}

/** The page that continues a mapping at its linear place, `i` pages after `first`. */
function grown(first: ModelPage, i: number): ModelPage {
  const linear = first.linear + i
  const soft = { ...notSoft(), ofMapping: first.soft.ofMapping }
  return { ...first, linear, pgoff: linear, own: -1, copy: null, lazy: false, soft }
}
