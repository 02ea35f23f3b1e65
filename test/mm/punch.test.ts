/** Truncation and punching by what they touch: which entries go, which bytes, and what a failing store leaves. */
import { describe, expect, test } from 'vitest'
import { EFBIG, EINVAL, EIO, EOPNOTSUPP } from '../../src/abi/errno.ts'
import { MAX_FILE_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { NR_DIRTY, NR_SHMEM } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX, POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import { punchHole } from '../../src/mm/truncate.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { PTE_PRESENT, pteFile, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE } = abi
const PUNCH = abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_KEEP_SIZE
const P = 4096

function punch(r: Rig, fd: number, from: number, length: number): number {
  return f.sys_fallocate(r.m, fd, PUNCH, from, length)
}

function present(r: Rig, at: number, pages: number): number[] {
  return Array.from({ length: pages }, (_, i) => r.pte(at + i * P) & PTE_PRESENT)
}

function bytes(r: Rig, fd: number, position: number, length: number): number[] {
  const buffer = new Uint8Array(length)
  f.sys_pread(r.m, fd, buffer, position)
  return [...buffer]
}

describe('truncation takes from address spaces', () => {
  test('what shows pages that go, wherever it is, and nothing that stands at their place', () => {
    const r = rig({ faultAroundPages: 1 })
    const { fd } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    const part = r.map(fd, 3, MAP_SHARED, RW, 4)
    r.remap(at + 6 * P, 1, 1)
    r.remap(at, 1, 7)
    r.loads(at, 8)
    r.loads(part, 3)
    expect(f.sys_ftruncate(r.m, fd, 5 * P)).toBe(0)
    expect(present(r, at, 8)).toEqual([0, 1, 1, 1, 1, 0, 1, 0])
    expect(present(r, part, 3)).toEqual([1, 0, 0])
    expect([pteFile(r.pte(at)), pteToPgoff(r.pte(at))]).toEqual([true, 7])
    expect(r.load(at + 6 * P)).toBe(2)
    assertMachine(r.m)
  })

  test('private copies too, in swap as well; a punch leaves both', () => {
    const r = rig({ swapSlots: 16, faultAroundPages: 1 })
    const { fd } = r.file(6)
    const at = r.map(fd, 6, MAP_PRIVATE)
    for (const i of [1, 2, 3, 4]) r.store(at + i * P, 50 + i)
    r.load(at + 5 * P)
    expect(punch(r, fd, 0, 6 * P)).toBe(0)
    expect([r.loads(at, 6)]).toEqual([[0, 51, 52, 53, 54, 0]])
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(4)
    expect(punch(r, fd, 0, 6 * P)).toBe(0)
    expect(r.m.swap.nrUsed).toBe(4)
    expect(f.sys_ftruncate(r.m, fd, 3 * P)).toBe(0)
    expect(r.m.swap.nrUsed).toBe(2)
    expect(f.sys_ftruncate(r.m, fd, 6 * P)).toBe(0)
    expect(r.loads(at, 6)).toEqual([0, 51, 52, 0, 0, 0])
  })

  test('the pages of each mapping that it tells a secondary MMU of, and only those', () => {
    const r = rig()
    const fd = r.memory(8)
    const at = r.map(fd, 4, MAP_SHARED, RW, 2)
    const vpn = at / P
    const told: number[][] = []
    sys_mmu_notifier_register(r.mm, { invalidateRangeStart: (_mm, start, end) => told.push([start - vpn, end - vpn]) })
    punch(r, fd, 3 * P, 2 * P)
    punch(r, fd, 0, 3 * P)
    punch(r, fd, 6 * P, 2 * P)
    f.sys_ftruncate(r.m, fd, 5 * P)
    expect(told).toEqual([
      [1, 3],
      [0, 1],
      [3, 4]
    ])
  })

  test('a page at its linear place with a protection of its own keeps that', () => {
    const r = rig()
    const fd = r.memory(4)
    const at = r.map(fd, 4, MAP_SHARED)
    sys_remap_file_pages(r.mm, at + P, P, abi.PROT_READ, 1, abi.MAP_PAGE_PROT)
    expect(punch(r, fd, 0, 4 * P)).toBe(0)
    expect([r.load(at + P), r.store(at + P, 1) < 0, r.store(at, 1)]).toEqual([0, true, 0])
    expect(mem.sys_madvise(r.mm, at, 4 * P, abi.MADV_DONTNEED)).toBe(0)
    expect(r.store(at + P, 1)).toBeLessThan(0)
  })
})

describe('the end of a file', () => {
  test('that moves within a page makes zeros of what is behind it, in memory and in the store', () => {
    const r = rig()
    const { fd, store } = r.file(3)
    f.sys_pwrite(r.m, fd, new Uint8Array(3 * P).fill(7), 0)
    expect(f.sys_ftruncate(r.m, fd, P + 10)).toBe(0)
    expect(f.sys_ftruncate(r.m, fd, 3 * P)).toBe(0)
    expect(bytes(r, fd, P + 8, 4)).toEqual([7, 7, 0, 0])
    expect(bytes(r, fd, 2 * P, 2)).toEqual([0, 0])
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    const stored = new Uint8Array(4)
    store.inner.read(P + 8, stored, 0, 4)
    expect([...stored]).toEqual([7, 7, 0, 0])
  })

  test.each([
    ['ours', POLICY_NONLINEAR, 0],
    ['Linux’s', POLICY_LINUX, 1]
  ])('whose page the store cut as well is dirty by policy, not need: %s', (_who, policy, dirty) => {
    const r = rig({ policy })
    const { fd } = r.file(3)
    expect(f.sys_ftruncate(r.m, fd, P + 10)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(dirty)
    f.sys_fsync(r.m, fd)
    const hole = r.file(1).fd
    f.sys_ftruncate(r.m, hole, 4 * P)
    f.sys_fsync(r.m, hole)
    expect(f.sys_ftruncate(r.m, hole, 2 * P + 5)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
  })

  test('of memory: what was behind it stays zero, also after swap', () => {
    const r = rig({ swapSlots: 16 })
    const fd = r.memory(3)
    f.sys_pwrite(r.m, fd, new Uint8Array(3 * P).fill(7), 0)
    r.m.reclaim.shrinkAll()
    expect(f.sys_ftruncate(r.m, fd, P + 10)).toBe(0)
    expect([f.sys_fpages(r.m, fd), r.m.swap.nrUsed]).toEqual([2, 1])
    r.m.reclaim.shrinkAll()
    f.sys_ftruncate(r.m, fd, 3 * P)
    expect(bytes(r, fd, P + 8, 4)).toEqual([7, 7, 0, 0])
    expect(f.sys_ftruncate(r.m, fd, 2 * P + 5)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(2)
  })

  test('that does not move leaves what a mapping stored behind it; one that grows does not show it', () => {
    const r = rig()
    const { fd } = r.file(2)
    f.sys_ftruncate(r.m, fd, P + 100)
    const at = r.map(fd, 2, MAP_SHARED)
    r.store(at + P + 200, 5)
    expect(f.sys_ftruncate(r.m, fd, P + 100)).toBe(0)
    expect(r.load(at + P + 200)).toBe(5)
    expect(f.sys_ftruncate(r.m, fd, 2 * P)).toBe(0)
    expect(r.load(at + P + 200)).toBe(0)
    r.store(at + P + 200, 6)
    f.sys_ftruncate(r.m, fd, P + 204)
    f.sys_pwrite(r.m, fd, new Uint8Array(0), 2 * P)
    expect(r.load(at + P + 200)).toBe(6)
    r.store(at + P + 300, 7)
    f.sys_pwrite(r.m, fd, Uint8Array.of(1), P + 204)
    expect(r.load(at + P + 300)).toBe(7)
    f.sys_pwrite(r.m, fd, Uint8Array.of(1), P + 500)
    expect([r.load(at + P + 300), r.load(at + P + 200)]).toEqual([0, 6])
  })

  test('that cannot be read, or that the store refuses, stays where it was', () => {
    const r = rig({ readaheadBytes: 0 })
    const { fd, store } = r.file(3)
    store.arm({ kind: 'error-once', op: 'read' })
    expect(f.sys_ftruncate(r.m, fd, P + 10)).toBe(-EIO)
    store.arm({ kind: 'error-once', op: 'truncate' })
    expect(f.sys_ftruncate(r.m, fd, P + 10)).toBe(-EIO)
    expect([f.sys_fsize(r.m, fd), r.fileWord(fd, 1), r.fileWord(fd, 2)]).toEqual([3 * P, 2, 3])
    expect(f.sys_ftruncate(r.m, fd, MAX_FILE_PAGES * P + 1)).toBe(-EFBIG)
    expect(f.sys_ftruncate(r.m, r.memory(1), MAX_FILE_PAGES * P)).toBe(0)
  })
})

describe('a punch', () => {
  test.each([
    [100, 200],
    [100, P],
    [P, 100],
    [P - 50, 100],
    [P, P],
    [50, 3 * P],
    [0, 2 * P + 1],
    [2 * P - 1, 2 * P + 2],
    [3 * P + 10, 5 * P]
  ])('of %i bytes %i on zeroes them and no other', (from, length) => {
    for (const make of [(r: Rig) => r.memory(4), (r: Rig) => r.file(4).fd]) {
      const r = rig()
      const fd = make(r)
      f.sys_pwrite(r.m, fd, new Uint8Array(4 * P).fill(7), 0)
      expect(punch(r, fd, from, length)).toBe(0)
      const found = bytes(r, fd, 0, 4 * P)
      expect(found.indexOf(0)).toBe(from)
      const last = Math.min(from + length, 4 * P)
      expect(found.lastIndexOf(0)).toBe(last - 1)
      expect(found.filter(byte => byte === 0).length).toBe(last - from)
      expect(f.sys_fsize(r.m, fd)).toBe(4 * P)
    }
  })

  test('gives whole pages back, and makes none of holes', () => {
    const r = rig()
    const fd = r.memory(8)
    expect([f.sys_fpages(r.m, fd), r.m.vmstat[NR_SHMEM]]).toEqual([8, 8])
    expect(punch(r, fd, P + 1, 3 * P)).toBe(0)
    expect([f.sys_fpages(r.m, fd), r.m.vmstat[NR_SHMEM]]).toEqual([6, 6])
    expect(punch(r, fd, 2 * P + 5, 10)).toBe(0)
    expect(punch(r, fd, 2 * P + 5, P)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(6)
    expect(punch(r, fd, 20 * P, P)).toBe(0)
    expect(punch(r, r.memory(1, 0, f.MEMORY_RAMFS), 0, P)).toBe(-EOPNOTSUPP)
  })

  test('past the end of a store asks it nothing', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    expect(punch(r, fd, 4 * P, 4 * P)).toBe(0)
    expect(punch(r, fd, 2 * P, 9 * P)).toBe(0)
    expect(store.log.filter(call => call.op === 'punch').map(call => [call.position / P, call.length / P])).toEqual([
      [2, 2]
    ])
    expect([r.fileWord(fd, 1), r.fileWord(fd, 2), f.sys_fsize(r.m, fd)]).toEqual([2, 0, 4 * P])
  })

  test('by a store that cannot is done with zeros, in pieces', () => {
    const r = rig({ nrFrames: 128 })
    const { fd, store } = r.file(600)
    store.punch = () => -EOPNOTSUPP
    expect(punch(r, fd, 10 * P, 580 * P)).toBe(0)
    expect(store.log.filter(call => call.op === 'write').map(call => [call.position / P, call.length / P])).toEqual([
      [10, 256],
      [266, 256],
      [522, 68]
    ])
    expect([9, 10, 265, 266, 589, 590].map(i => r.storedWord(store, i))).toEqual([10, 0, 0, 0, 0, 591])
    store.arm({ kind: 'error-once', op: 'write' })
    expect(punch(r, fd, 0, 2 * P)).toBe(-EIO)
  })

  test('that the store fails says so; what the cache shows is written back', () => {
    const r = rig({ readaheadBytes: 0, faultAroundPages: 1 })
    const { fd, store } = r.file(6)
    const at = r.map(fd, 6, MAP_SHARED)
    r.loads(at, 3)
    store.arm({ kind: 'error-once', op: 'punch' })
    expect(punch(r, fd, P, 3 * P)).toBe(-EIO)
    expect([r.loads(at, 4), r.m.vmstat[NR_DIRTY]]).toEqual([[1, 2, 3, 4], 2])
    store.arm({ kind: 'error-once', op: 'read' })
    expect(punch(r, fd, 4 * P + 10, 20)).toBe(-EIO)
    store.arm({ kind: 'error-once', op: 'read' })
    expect(punch(r, fd, 0, 5 * P + 20)).toBe(-EIO)
    expect([r.fileWord(fd, 4), r.fileWord(fd, 5)]).toEqual([5, 6])
    expect([punchHole(r.m, 1, 0, 0), punchHole(r.m, 1, -1, 5)]).toEqual([-EINVAL, -EINVAL])
  })

  test.each([
    ['from its first byte', 0, [0, 0, 0, 0]],
    ['within it', 10, [1, 0, 0, 0]]
  ])('of tmpfs inside page 0 unmaps the others under Linux’s policy, contents stay: %s', (_where, from, left) => {
    const r = rig({ policy: POLICY_LINUX })
    const fd = r.memory(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.loads(at, 4)
    expect(punch(r, fd, from, 100)).toBe(0)
    expect([present(r, at, 4), r.loads(at + P, 3)]).toEqual([left, [2, 3, 4]])
    r.loads(at, 4)
    expect(punch(r, fd, P + from, 100)).toBe(0)
    expect(punch(r, fd, from, P - from)).toBe(0)
    expect(present(r, at, 4).slice(1)).toEqual([1, 1, 1])
    const ours = rig()
    const memory = ours.memory(4)
    const shown = ours.map(memory, 4, MAP_SHARED)
    ours.loads(shown, 4)
    expect(punch(ours, memory, from, 100)).toBe(0)
    expect(present(ours, shown, 4)).toEqual([1, 1, 1, 1])
    const file = r.file(4).fd
    const mapped = r.map(file, 4, MAP_SHARED)
    r.loads(mapped, 4)
    expect(punch(r, file, from, 100)).toBe(0)
    expect(present(r, mapped, 4)).toEqual([1, 1, 1, 1])
  })
})
