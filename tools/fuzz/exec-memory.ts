/** The fuzzer's operations on address spaces, applied to the machine and the model. */
import { EACCES, EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOMEM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlock2, sys_mlockall, sys_munlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { VM_LOCKED, VM_NONLINEAR } from '../../src/vma/flags.ts'
import { dropUnmapped, firstWith, flagsAt, hasHole, syncCopies } from './effects.ts'
import { excused, mayHaveToWait } from './excuses.ts'
import { cutBorrowed } from './held.ts'
import { Mismatch } from './mismatch.ts'
import { ModelFile, type ModelPage, mayWrite, notSoft } from './model.ts'
import type { OpOf } from './ops.ts'
import { fileMayBeGone, isGone, mayBeGone, noteJoined, noteMapped, notePopulated } from './soft-dirty.ts'
import type { FuzzSpace, World } from './world.ts'

export function mmap(w: World, space: FuzzSpace, op: OpOf<'mmap'>): void {
  const { m } = w
  const vpn = w.vpnOf(op.p)
  const file = op.f < 0 ? undefined : w.files[op.f]
  const shared = (op.flags & abi.MAP_TYPE) === abi.MAP_SHARED
  const replaces = (op.flags & abi.MAP_FIXED_NOREPLACE) === 0
  const flags = op.flags | (replaces ? abi.MAP_FIXED : 0) | (file === undefined ? abi.MAP_ANONYMOUS : 0)
  const at = mem.sys_mmap(
    space.mm,
    w.address(vpn),
    w.address(op.n),
    op.prot,
    flags,
    file?.fd ?? -1,
    w.address(op.pgoff)
  )
  const isForbidden = shared && file?.model.isLater === true && (op.prot & abi.PROT_WRITE) !== 0
  const refusal = !replaces && firstMapped(space, vpn, op.n) < op.n ? -EEXIST : isForbidden ? -EACCES : 0
  if (refusal !== 0) {
    if (at !== refusal) throw new Mismatch(`mmap gives ${at}, not ${refusal}`)
    return
  }
  if (at < 0) {
    if (!excused(w, at)) throw new Mismatch(`mmap gives ${at}`)
    dropUnmapped(w, space, vpn, vpn + op.n)
    return
  }
  if (at !== w.address(vpn)) throw new Mismatch(`mmap gives ${at}, not ${w.address(vpn)}`)
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
      lazy: false,
      soft: notSoft()
    })
  }
  afterMapping(w, space, vpn, op.n)
}

function afterMapping(w: World, space: FuzzSpace, vpn: number, n: number): void {
  noteMapped(w, space, vpn, n)
  notePopulated(space)
  syncCopies(w, space)
}

function firstMapped(space: FuzzSpace, vpn: number, n: number): number {
  for (let i = 0; i < n; i++) if (space.pages.has(vpn + i)) return i
  return n
}

/** brk tells the end of the heap: the new one, or the old one where it could not be moved. */
export function brk(w: World, space: FuzzSpace, op: OpOf<'brk'>): void {
  const start = w.address(w.heapVpn)
  const before = space.heapBytes
  const oldEnd = Math.ceil(before / w.pageSize)
  const newEnd = Math.ceil(op.bytes / w.pageSize)
  // A page stays free below the next mapping.
  const room = newEnd - oldEnd + 1
  const blocked = newEnd > oldEnd && firstMapped(space, w.heapVpn + oldEnd, room) < room
  const end = mem.sys_brk(space.mm, start + op.bytes) - start
  if (end !== (blocked ? before : op.bytes) && !(end === before && (w.armed || w.isTight))) {
    throw new Mismatch(`brk gives ${end}, not ${blocked ? before : op.bytes}`)
  }
  dropUnmapped(w, space, w.heapVpn, w.heapVpn + oldEnd)
  if (end === before) return
  space.heapBytes = op.bytes
  for (let i = newEnd; i < oldEnd; i++) space.pages.delete(w.heapVpn + i)
  const prot = abi.PROT_READ | abi.PROT_WRITE
  const fresh = { file: null, shared: false, linear: 0, pgoff: 0, prot, own: -1, copy: null, known: 0, lazy: false }
  for (let i = oldEnd; i < newEnd; i++) space.pages.set(w.heapVpn + i, { ...fresh, soft: notSoft() })
  if (newEnd > oldEnd) afterMapping(w, space, w.heapVpn + oldEnd, newEnd - oldEnd)
}

/**
 * Which pages are in memory: those of entries, those in the cache at the place that is shown, copies in the swap cache.
 */
export function mincore(w: World, space: FuzzSpace, op: OpOf<'mincore'>): void {
  const vpn = w.vpnOf(op.p)
  const vec = new Uint8Array(op.n).fill(7)
  const result = mem.sys_mincore(space.mm, w.address(vpn), w.address(op.n), vec)
  const expected = hasHole(space, vpn, op.n) ? -ENOMEM : 0
  if (result !== expected) throw new Mismatch(`mincore gives ${result}, not ${expected}`)
  const whole = firstWith(w, space, vpn, op.n, (_flags, page) => page === undefined)
  for (let i = 0; i < whole; i++) {
    const resident = w.peeker.isResident(space.mm.id, vpn + i) ? 1 : 0
    if (vec[i] !== resident) throw new Mismatch(`mincore gives ${vec[i]} for page ${vpn + i}, not ${resident}`)
  }
}

export function munmap(w: World, space: FuzzSpace, op: OpOf<'munmap'>): void {
  const vpn = w.vpnOf(op.p)
  const result = mem.sys_munmap(space.mm, w.address(vpn), w.address(op.n))
  // The last user of a file that was closed writes it back, and says so if that fails.
  if (result !== 0 && !(result === -EIO && w.armed)) throw new Mismatch(`munmap gives ${result}`)
  for (let i = 0; i < op.n; i++) space.pages.delete(vpn + i)
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
  const refuses = UNLOCKED_ONLY.includes(op.advice)
  if (result === 0 && (hole || (refuses && lockedFrom < op.n)))
    throw new Mismatch('madvise gives 0 for what it must refuse')
  noteJoined(w, space)
  if (op.advice === abi.MADV_DONTNEED || op.advice === abi.MADV_DONTNEED_LOCKED) {
    const end = op.advice === abi.MADV_DONTNEED ? lockedFrom : op.n
    for (let i = 0; i < end; i++) dropCopy(space.pages.get(vpn + i))
  } else if (op.advice === abi.MADV_FREE) {
    const fileFrom = firstWith(w, space, vpn, op.n, (_flags, page) => page?.file != null)
    for (let i = 0; i < Math.min(lockedFrom, fileFrom); i++) {
      const page = space.pages.get(vpn + i)
      if (page === undefined || page.copy === null) continue
      page.lazy = true
      mayBeGone(page)
      w.settleLazy(space.mm.id, vpn + i, page)
    }
  } else if (op.advice === abi.MADV_REMOVE) {
    for (const { file, pgoff } of before) {
      file.punch(pgoff * w.pageSize, w.pageSize)
      fileMayBeGone(w, file)
      cutBorrowed(w, file)
    }
    if (result < 0 && w.armed) throw new Mismatch('MADV_REMOVE must not meet planned failures')
  } else if (op.advice === abi.MADV_POPULATE_READ || op.advice === abi.MADV_POPULATE_WRITE) {
    for (let i = 0; i < op.n && op.advice === abi.MADV_POPULATE_WRITE; i++) {
      const page = space.pages.get(vpn + i)
      if (page !== undefined && mayWrite(page)) page.soft.may = true
    }
    syncCopies(w, space)
  }
  if (result === 0 || result === -ENOMEM || result === -EINVAL || result === -EFAULT) return
  if (op.advice === abi.MADV_REMOVE || op.advice === abi.MADV_WILLNEED) return
  if (result === -EAGAIN && mayHaveToWait(w)) return
  throw new Mismatch(`madvise gives ${result}`)
}

const UNLOCKED_ONLY: readonly number[] = [
  abi.MADV_DONTNEED,
  abi.MADV_FREE,
  abi.MADV_REMOVE,
  abi.MADV_COLD,
  abi.MADV_PAGEOUT
]

function dropCopy(page: ModelPage | undefined): void {
  if (page === undefined) return
  if (page.copy !== null || page.file === null) isGone(page)
  else mayBeGone(page)
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

export function mprotect(w: World, space: FuzzSpace, op: OpOf<'mprotect'>): void {
  const vpn = w.vpnOf(op.p)
  const forbids = (page: ModelPage): boolean =>
    page.shared && page.file?.isLater === true && (op.prot & abi.PROT_WRITE) !== 0
  const stop = firstWith(w, space, vpn, op.n, (_flags, page) => page === undefined || forbids(page))
  const expected = stop === op.n ? 0 : space.pages.has(vpn + stop) ? -EACCES : -ENOMEM
  const result = mem.sys_mprotect(space.mm, w.address(vpn), w.address(op.n), op.prot)
  if (result !== expected) throw new Mismatch(`mprotect gives ${result}, not ${expected}`)
  for (let i = 0; i < stop; i++) {
    const page = space.pages.get(vpn + i) as ModelPage
    page.prot = op.prot
    page.own = -1
  }
  noteJoined(w, space)
}

export function msync(w: World, space: FuzzSpace, op: OpOf<'msync'>): void {
  const vpn = w.vpnOf(op.p)
  const isLocked = firstWith(w, space, vpn, op.n, flags => (flags & VM_LOCKED) !== 0) < op.n
  const isBusy = (op.flags & abi.MS_INVALIDATE) !== 0 && isLocked
  const result = mem.sys_msync(space.mm, w.address(vpn), w.address(op.n), op.flags)
  if (result === -EIO && (w.armed || w.writesFailed)) return
  const expected = isBusy ? -EBUSY : hasHole(space, vpn, op.n) ? -ENOMEM : 0
  if (result !== expected) throw new Mismatch(`msync gives ${result}, not ${expected}`)
}

export function lock(
  w: World,
  space: FuzzSpace,
  op: OpOf<'mlock'> | OpOf<'munlock'> | OpOf<'mlockall'> | OpOf<'munlockall'>
): void {
  // Before pages are brought in: those that MADV_FREE gave up, and reclaim took, come back as zeros.
  for (const [vpn, page] of space.pages) w.settleLazy(space.mm.id, vpn, page)
  const result = callLock(w, space, op)
  notePopulated(space)
  noteJoined(w, space)
  syncCopies(w, space)
  if (result !== 0 && result !== -ENOMEM && result !== -EAGAIN) throw new Mismatch(`${op.op} gives ${result}`)
}

function callLock(
  w: World,
  { mm }: FuzzSpace,
  op: OpOf<'mlock'> | OpOf<'munlock'> | OpOf<'mlockall'> | OpOf<'munlockall'>
): number {
  if (op.op === 'munlockall') return sys_munlockall(mm)
  if (op.op === 'mlockall') return sys_mlockall(mm, op.flags)
  const start = w.address(w.vpnOf(op.p))
  const length = w.address(op.n)
  if (op.op === 'munlock') return sys_munlock(mm, start, length)
  return op.flags < 0 ? sys_mlock(mm, start, length) : sys_mlock2(mm, start, length, op.flags)
}
