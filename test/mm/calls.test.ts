/** The calls around a nonlinear mapping: munmap, mprotect, madvise, mincore, msync, fork, mremap. */
import { describe, expect, test } from 'vitest'
import { EACCES, EBUSY, EFAULT, EINVAL, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_MAP_COUNT } from '../../src/frame/mm-table.ts'
import { PTE_NONE, PTE_PRESENT, PTE_WRITE, pteFile, pteSoftDirty, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlock } from '../../src/syscall/mlock.ts'
import { sys_clear_refs, sys_exit } from '../../src/syscall/process.ts'
import { VM_LOCKED, VM_NONLINEAR } from '../../src/vma/flags.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK, MAP_FIXED, MREMAP_MAYMOVE, MREMAP_FIXED } = abi

/** Eight pages of a file in reverse order. */
function reversed(): { r: Rig; at: number; fd: number; P: number } {
  const r = rig({ swapSlots: 32, nrFrames: 96 })
  const { fd } = r.file(8)
  const at = r.map(fd, 8, MAP_SHARED)
  for (let i = 0; i < 8; i++) expect(r.remap(at + i * r.pageSize, 1, 7 - i)).toBe(0)
  return { r, at, fd, P: r.pageSize }
}

describe('munmap', () => {
  test('forgets; both halves of a split stay as they were', () => {
    const { r, at, fd, P } = reversed()
    expect(mem.sys_munmap(r.mm, at + 3 * P, 2 * P)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(2)
    expect(r.loads(at, 8)).toEqual([8, 7, 6, -FAULT_MAPERR, -FAULT_MAPERR, 3, 2, 1])
    expect(mem.sys_mmap(r.mm, at + 3 * P, 2 * P, RW, MAP_SHARED | MAP_FIXED, fd, 3 * P)).toBe(at + 3 * P)
    expect(r.loads(at, 8)).toEqual([8, 7, 6, 4, 5, 3, 2, 1])
    expect(r.row(MM_MAP_COUNT)).toBe(3)
  })

  test('two nonlinear neighbours become one again', () => {
    const { r, at, P } = reversed()
    expect(mem.sys_mprotect(r.mm, at, 4 * P, 1)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(2)
    expect(mem.sys_mprotect(r.mm, at, 4 * P, RW)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
    expect(r.loads(at, 8)).toEqual([8, 7, 6, 5, 4, 3, 2, 1])
  })

  test('that would need one mapping too many changes nothing', () => {
    const r = rig({ maxMapCount: 2 })
    const { fd } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    expect(mem.sys_munmap(r.mm, at + r.pageSize, r.pageSize)).toBe(-ENOMEM)
    expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  })
})

test('mprotect keeps what is shown and applies to what comes later', () => {
  const { r, at, P } = reversed()
  r.m.reclaim.shrinkAll()
  expect(mem.sys_mprotect(r.mm, at, 8 * P, 1)).toBe(0)
  expect(r.load(at)).toBe(8)
  expect(r.store(at, 1)).toBe(-FAULT_ACCERR)
  expect(mem.sys_mprotect(r.mm, at + P, P, 8 * 16)).toBe(-EINVAL)
  expect(mem.sys_mprotect(r.mm, at + 1, P, 1)).toBe(-EINVAL)
  expect(mem.sys_mprotect(r.mm, at, 9 * P, RW)).toBe(-ENOMEM)
  expect(r.store(at, 80)).toBe(0)
  const { fd } = r.file(2, f.O_RDONLY)
  const readOnly = r.map(fd, 2, MAP_SHARED, 1)
  expect(mem.sys_mprotect(r.mm, readOnly, P, RW)).toBe(-EACCES)
})

describe('madvise', () => {
  test('DONTNEED keeps what each address shows', () => {
    const { r, at, P } = reversed()
    r.store(at, 80)
    expect(mem.sys_madvise(r.mm, at, 8 * P, abi.MADV_DONTNEED)).toBe(0)
    expect(Array.from({ length: 8 }, (_, i) => pteToPgoff(r.pte(at + i * P)))).toEqual([7, 6, 5, 4, 3, 2, 1, 0])
    expect(r.loads(at, 8)).toEqual([80, 7, 6, 5, 4, 3, 2, 1])
    sys_mlock(r.mm, at, P)
    expect(mem.sys_madvise(r.mm, at, P, abi.MADV_DONTNEED)).toBe(-EINVAL)
  })

  test('REMOVE is refused, WILLNEED reads ahead by the linear place', () => {
    const { r, at, P } = reversed()
    expect(mem.sys_madvise(r.mm, at, P, abi.MADV_REMOVE)).toBe(-EINVAL)
    expect(mem.sys_madvise(r.mm, at, 8 * P, abi.MADV_WILLNEED)).toBe(0)
    expect(mem.sys_mincore(r.mm, at, 8 * P, new Uint8Array(8))).toBe(0)
  })

  test('does the rest and says ENOMEM where something is unmapped', () => {
    const { r, at, P } = reversed()
    mem.sys_munmap(r.mm, at + 2 * P, P)
    expect(mem.sys_madvise(r.mm, at, 8 * P, abi.MADV_DONTNEED)).toBe(-ENOMEM)
    expect(pteFile(r.pte(at + 7 * P)) || r.pte(at + 7 * P) === PTE_NONE).toBe(true)
    expect(mem.sys_madvise(r.mm, at, P, 99)).toBe(-EINVAL)
    expect(mem.sys_madvise(r.mm, at + 1, P, abi.MADV_NORMAL)).toBe(-EINVAL)
    expect(mem.sys_madvise(r.mm, at, 0, abi.MADV_NORMAL)).toBe(0)
  })

  test('FREE lets pages go unless they are stored to again', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, 10 + i)
    expect(mem.sys_madvise(r.mm, at, 4 * r.pageSize, abi.MADV_FREE)).toBe(0)
    expect(r.loads(at, 4)).toEqual([10, 11, 12, 13])
    expect(r.store(at + r.pageSize, 21)).toBe(0)
    r.m.reclaim.shrinkAll()
    expect(r.loads(at, 4)).toEqual([0, 21, 0, 0])
    sys_mlock(r.mm, at, r.pageSize)
    expect(mem.sys_madvise(r.mm, at, r.pageSize, abi.MADV_FREE)).toBe(-EINVAL)
  })

  test('FREE leaves pages alone that a forked space shares', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(at, 10)
    const child = r.fork()
    expect(mem.sys_madvise(r.mm, at, r.pageSize, abi.MADV_FREE)).toBe(0)
    r.m.reclaim.shrinkAll()
    expect([r.load(at), r.load(at, child)]).toEqual([10, 10])
  })
})

test('mincore looks where each entry points', () => {
  const r = rig({ readaheadBytes: 0, faultAroundPages: 1 })
  const { fd } = r.file(8)
  const at = r.map(fd, 8, MAP_SHARED)
  const P = r.pageSize
  r.load(at + 2 * P)
  r.remap(at, 1, 2, MAP_NONBLOCK)
  r.remap(at + P, 1, 5, MAP_NONBLOCK)
  const vec = new Uint8Array(8)
  expect(mem.sys_mincore(r.mm, at, 8 * P, vec)).toBe(0)
  expect([...vec]).toEqual([1, 0, 1, 0, 0, 0, 0, 0])
  expect(mem.sys_mincore(r.mm, at + 1, P, vec)).toBe(-EINVAL)
  expect(mem.sys_mincore(r.mm, at, 9 * P, new Uint8Array(9))).toBe(-ENOMEM)
  expect(mem.sys_mincore(r.mm, at, 8 * P, new Uint8Array(7))).toBe(-EFAULT)
})

test('msync of a nonlinear range writes the whole file', () => {
  const r = rig()
  const { fd, store } = r.file(8)
  const at = r.map(fd, 8, MAP_SHARED)
  r.remap(at, 1, 7)
  r.store(at, 70)
  r.store(at + 3 * r.pageSize, 30)
  expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_ASYNC)).toBe(0)
  expect(store.calls.write).toBe(0)
  expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_SYNC)).toBe(0)
  expect([r.storedWord(store, 7), r.storedWord(store, 3)]).toEqual([70, 30])
  expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_ASYNC | abi.MS_SYNC)).toBe(-EINVAL)
  expect(mem.sys_msync(r.mm, at + 1, r.pageSize, abi.MS_SYNC)).toBe(-EINVAL)
  expect(mem.sys_msync(r.mm, at, 9 * r.pageSize, abi.MS_SYNC)).toBe(-ENOMEM)
  sys_mlock(r.mm, at, r.pageSize)
  expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_INVALIDATE)).toBe(-EBUSY)
  sys_munlock(r.mm, at, r.pageSize)
})

describe('fork', () => {
  test('copies what a nonlinear mapping shows; stores are seen by both', () => {
    const { r, at, P } = reversed()
    r.store(at, 80)
    r.m.reclaim.shrinkAll()
    sys_mlock(r.mm, at + P, P)
    const child = r.fork()
    expect(r.loads(at, 8, child)).toEqual([80, 7, 6, 5, 4, 3, 2, 1])
    expect(r.vmaFlags(at + P, child) & VM_LOCKED).toBe(0)
    expect(r.vmaFlags(at + P) & VM_LOCKED).toBe(VM_LOCKED)
    expect(r.vmaFlags(at, child) & VM_NONLINEAR).toBe(VM_NONLINEAR)
    expect(r.store(at + 4 * P, 44, child)).toBe(0)
    expect(r.load(at + 4 * P)).toBe(44)
    expect(r.remap(at, 1, 3, 0, child)).toBe(0)
    expect([r.load(at), r.load(at, child)]).toEqual([80, 44])
  })

  test('shares private pages until one side stores', () => {
    const r = rig({ swapSlots: 32 })
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, 10 + i)
    const child = r.fork()
    const grandchild = r.fork(child)
    expect(r.pte(at) & PTE_WRITE).toBe(0)
    r.store(at, 1)
    r.store(at + r.pageSize, 2, child)
    r.m.reclaim.shrinkAll()
    r.store(at + 2 * r.pageSize, 3, grandchild)
    expect(r.loads(at, 4)).toEqual([1, 11, 12, 13])
    expect(r.loads(at, 4, child)).toEqual([10, 2, 12, 13])
    expect(r.loads(at, 4, grandchild)).toEqual([10, 11, 3, 13])
    expect(sys_exit(child)).toBe(0)
    r.m.reclaim.shrinkAll()
    expect(r.loads(at, 4, grandchild)).toEqual([10, 11, 3, 13])
  })

  test('without memory gives no child and takes nothing', () => {
    const r = rig({ nrFrames: 32 })
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, 10 + i)
    const free = r.m.allocator.nrFree
    for (let nth = 1; nth <= 3; nth++) {
      let left = nth
      r.m.allocator.setFail(() => --left === 0)
      expect(() => sys_exit(r.fork())).not.toThrow(TypeError)
      r.m.allocator.setFail(undefined)
      expect(r.m.allocator.nrFree).toBe(free)
    }
    expect(r.loads(at, 4)).toEqual([10, 11, 12, 13])
  })

  test('leaves out what MADV_DONTFORK says', () => {
    const { r, at, P } = reversed()
    expect(mem.sys_madvise(r.mm, at, 2 * P, abi.MADV_DONTFORK)).toBe(0)
    const child = r.fork()
    expect(r.loads(at, 4, child)).toEqual([-FAULT_MAPERR, -FAULT_MAPERR, 6, 5])
  })
})

describe('mremap', () => {
  test('moves what is shown, soft-dirty; what grows is linear', () => {
    const { r, at, P } = reversed()
    r.m.reclaim.shrinkAll()
    r.load(at)
    sys_clear_refs(r.mm, 4)
    const to = mem.sys_mremap(r.mm, at, 8 * P, 10 * P, MREMAP_MAYMOVE | MREMAP_FIXED, at + 100 * P)
    expect(to).toBe(at + 100 * P)
    expect(pteSoftDirty(r.pte(to))).not.toBe(0)
    expect(pteSoftDirty(r.pte(to + P))).not.toBe(0)
    expect(r.vmaFlags(to) & VM_NONLINEAR).toBe(VM_NONLINEAR)
    expect(r.loads(to, 10)).toEqual([8, 7, 6, 5, 4, 3, 2, 1, -FAULT_BUS, -FAULT_BUS])
    expect(r.load(at)).toBe(-FAULT_MAPERR)
    r.m.reclaim.shrinkAll()
    expect(r.load(to)).toBe(8)
  })

  test('grows in place, shrinks, and doubles a shared mapping with an old length of 0', () => {
    const { r, at, P } = reversed()
    expect(mem.sys_mremap(r.mm, at, 8 * P, 9 * P, 0, 0)).toBe(at)
    expect(r.load(at + 8 * P)).toBe(-FAULT_BUS)
    expect(mem.sys_mremap(r.mm, at, 9 * P, 2 * P, 0, 0)).toBe(at)
    expect(r.loads(at, 3)).toEqual([8, 7, -FAULT_MAPERR])
    const twin = mem.sys_mremap(r.mm, at, 0, 4 * P, MREMAP_MAYMOVE, 0)
    expect(r.loads(twin, 4)).toEqual([1, 2, 3, 4])
    expect(r.loads(at, 2)).toEqual([8, 7])
  })

  test('errors', () => {
    const { r, at, P } = reversed()
    const call = (addr: number, old: number, now: number, flags: number, to = 0): number =>
      mem.sys_mremap(r.mm, addr, old, now, flags, to)
    expect(call(at, P, P, 8)).toBe(-EINVAL)
    expect(call(at, P, P, MREMAP_FIXED)).toBe(-EINVAL)
    expect(call(at + 1, P, P, 0)).toBe(-EINVAL)
    expect(call(at, P, 0, 0)).toBe(-EINVAL)
    expect(call(at, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, at + 2 * P)).toBe(-EINVAL)
    expect(call(at, 9 * P, 10 * P, MREMAP_MAYMOVE)).toBe(-EFAULT)
    expect(call(at + 4 * P, 2 * P, 4 * P, 0)).toBe(-ENOMEM)
    expect(r.loads(at, 8)).toEqual([8, 7, 6, 5, 4, 3, 2, 1])
  })

  test('that fails half way puts everything back', () => {
    const r = rig({ pageShift: 9, nrFrames: 128, swapSlots: 200 })
    const { fd } = r.file(8)
    const P = r.pageSize
    const from = 1020 * P
    const to = 5116 * P
    expect(mem.sys_mmap(r.mm, from, 8 * P, RW, MAP_SHARED | MAP_FIXED, fd, 0)).toBe(from)
    for (let i = 0; i < 8; i++) r.remap(from + i * P, 1, 7 - i)
    const anonymous = 1028 * P
    mem.sys_mmap(r.mm, anonymous, 8 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
    for (let i = 0; i < 8; i++) r.store(anonymous + i * P, 100 + i)
    let failures = 0
    for (let nth = 1; nth <= 4; nth++) {
      for (const start of [from, anonymous]) {
        let left = nth
        r.m.allocator.setFail(() => --left <= 0)
        const flags = MREMAP_MAYMOVE | MREMAP_FIXED
        const result = mem.sys_mremap(r.mm, start, 8 * P, 8 * P, flags, to)
        r.m.allocator.setFail(undefined)
        if (result === -ENOMEM) failures++
        else expect(mem.sys_mremap(r.mm, to, 8 * P, 8 * P, flags, start)).toBe(start)
        expect(r.loads(from, 8)).toEqual([8, 7, 6, 5, 4, 3, 2, 1])
        expect(r.loads(anonymous, 8)).toEqual([100, 101, 102, 103, 104, 105, 106, 107])
      }
    }
    expect(failures).toBeGreaterThan(2)
    expect(r.pte(from) & PTE_PRESENT).toBe(PTE_PRESENT)
  })
})
