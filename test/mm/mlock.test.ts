/** The mlock family: which pages are locked, what is counted, where it stops. */
import { describe, expect, test } from 'vitest'
import { EAGAIN, EINVAL, ENOMEM, EPERM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_LOCKED_VM, MM_MAP_COUNT } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { PTE_PRESENT } from '../../src/pgtable/pte.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlock2, sys_mlockall, sys_munlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { RLIMIT_MEMLOCK, sys_setrlimit } from '../../src/syscall/process.ts'
import { VM_LOCKED, VM_LOCKONFAULT } from '../../src/vma/flags.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

function lockFlags(r: Rig, at: number, pages: number): number[] {
  return Array.from({ length: pages }, (_, i) => r.vmaFlags(at + i * r.pageSize) & (VM_LOCKED | VM_LOCKONFAULT))
}

function counts(r: Rig): [number, number, number] {
  return [r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK], r.row(MM_MAP_COUNT)]
}

describe('mlock', () => {
  test('locks the whole pages that the bytes touch, and munlock unlocks them', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(6), 6, MAP_SHARED)
    expect(sys_mlock(r.mm, at + P + P - 1, 2)).toBe(0)
    expect(lockFlags(r, at, 6)).toEqual([0, VM_LOCKED, VM_LOCKED, 0, 0, 0])
    expect(counts(r)).toEqual([2, 2, 3])
    expect(sys_mlock(r.mm, at + 2 * P, P)).toBe(0)
    expect(counts(r)).toEqual([2, 2, 3])
    expect(sys_munlock(r.mm, at + 2 * P + 1, 1)).toBe(0)
    expect(counts(r)).toEqual([1, 1, 3])
    expect(sys_munlock(r.mm, at, 6 * P)).toBe(0)
    expect(counts(r)).toEqual([0, 0, 1])
    expect([sys_mlock(r.mm, at, 0), sys_munlock(r.mm, at, 0)]).toEqual([0, 0])
  })

  test('stops at the first hole; what is before is locked, and not populated', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 6, ANON)
    mem.sys_munmap(r.mm, at + 3 * P, P)
    expect(sys_mlock(r.mm, at + P, 5 * P)).toBe(-ENOMEM)
    expect(lockFlags(r, at, 6)).toEqual([0, VM_LOCKED, VM_LOCKED, 0, 0, 0])
    expect(counts(r)).toEqual([2, 0, 3])
    expect(sys_mlock(r.mm, at + 3 * P, P)).toBe(-ENOMEM)
    expect(sys_mlock(r.mm, at + 4 * P, 4 * P)).toBe(-ENOMEM)
    expect(lockFlags(r, at + 4 * P, 2)).toEqual([VM_LOCKED, VM_LOCKED])
    expect(sys_munlock(r.mm, at, 6 * P)).toBe(-ENOMEM)
    expect(lockFlags(r, at, 6)).toEqual([0, 0, 0, 0, VM_LOCKED, VM_LOCKED])
    expect(r.row(MM_LOCKED_VM)).toBe(2)
  })

  test('says how populating failed: past the end ENOMEM, no memory EAGAIN', () => {
    const r = rig()
    const at = r.map(r.file(2).fd, 4, MAP_SHARED)
    expect(sys_mlock(r.mm, at, 4 * r.pageSize)).toBe(-ENOMEM)
    expect(counts(r)).toEqual([4, 2, 1])
    const own = r.map(-1, 2, ANON)
    r.m.allocator.setFail(() => true)
    expect(sys_mlock(r.mm, own, r.pageSize)).toBe(-EAGAIN)
    r.m.allocator.setFail(undefined)
    expect(lockFlags(r, own, 2)).toEqual([VM_LOCKED, 0])
  })

  test('of one page in the middle needs two mappings more', () => {
    for (const maxMapCount of [1, 2]) {
      const r = rig({ maxMapCount })
      const at = r.map(-1, 5, ANON)
      expect(sys_mlock(r.mm, at + 2 * r.pageSize, r.pageSize)).toBe(-ENOMEM)
      expect([lockFlags(r, at, 5), r.row(MM_LOCKED_VM)]).toEqual([[0, 0, 0, 0, 0], 0])
    }
    const r = rig({ maxMapCount: 3 })
    expect(sys_mlock(r.mm, r.map(-1, 5, ANON) + 2 * r.pageSize, r.pageSize)).toBe(0)
    const full = rig({ maxVmas: 2 })
    expect(sys_mlock(full.mm, full.map(-1, 5, ANON) + 2 * r.pageSize, r.pageSize)).toBe(-ENOMEM)
  })

  test('of pages that another locked mapping shows as well: unlocking one keeps them', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(4)
    const one = r.map(fd, 4, MAP_SHARED)
    const two = r.map(fd, 4, MAP_SHARED, 1)
    r.remap(two, 1, 2)
    expect(sys_mlock(r.mm, one + 2 * P, P)).toBe(0)
    expect(sys_mlock(r.mm, two, P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(1)
    expect(sys_munlock(r.mm, one + 2 * P, P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(1)
    expect(sys_munlock(r.mm, two, P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  })

  test('of a page that is mapped unlocked as well: remapping or unmapping the locked place unlocks it', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(4)
    r.loads(r.map(fd, 4, MAP_SHARED, 1), 4)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(sys_mlock(r.mm, at, 3 * P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(3)
    expect(r.remap(at, 1, 3)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(3)
    expect(mem.sys_munmap(r.mm, at, 2 * P)).toBe(0)
    expect([r.m.vmstat[NR_MLOCK], r.row(MM_LOCKED_VM)]).toEqual([1, 1])
    expect(mem.sys_munmap(r.mm, at, 4 * P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  })

  test('of pages in two page tables, with a hole between them', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const at = r.map(r.memory(300), 300, MAP_SHARED)
    expect(sys_mlock2(r.mm, at, 300 * P, abi.MLOCK_ONFAULT)).toBe(0)
    for (const i of [0, 127, 299]) r.load(at + i * P)
    r.m.reclaim.shrinkAll()
    const mlocked = r.m.vmstat[NR_MLOCK]
    expect(mlocked).toBeGreaterThanOrEqual(3)
    expect(sys_munlock(r.mm, at + P, 299 * P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(1)
    expect(sys_munlock(r.mm, at, P)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  })
})

test('mlock2 with MLOCK_ONFAULT locks pages as they are touched, and never populates', () => {
  const r = rig({ swapSlots: 16 })
  const P = r.pageSize
  const at = r.map(-1, 4, ANON)
  expect(sys_mlock2(r.mm, at, 4 * P, 2)).toBe(-EINVAL)
  expect(sys_mlock2(r.mm, at, 4 * P, abi.MLOCK_ONFAULT)).toBe(0)
  expect(lockFlags(r, at, 1)).toEqual([VM_LOCKED | VM_LOCKONFAULT])
  expect(counts(r)).toEqual([4, 0, 1])
  expect(r.pte(at) & PTE_PRESENT).toBe(0)
  r.store(at, 5)
  r.m.reclaim.shrinkAll()
  expect([r.pte(at) & PTE_PRESENT, r.m.vmstat[NR_MLOCK]]).toEqual([1, 1])
  expect(sys_mlock2(r.mm, at, 2 * P, 0)).toBe(0)
  expect(lockFlags(r, at, 3)).toEqual([VM_LOCKED, VM_LOCKED, VM_LOCKED | VM_LOCKONFAULT])
  expect(counts(r)).toEqual([4, 2, 2])
})

describe('mlockall', () => {
  test('of now locks and populates everything there is; munlockall unlocks it', () => {
    const r = rig()
    const at = r.map(-1, 3, ANON)
    const shared = r.map(r.memory(2), 2, MAP_SHARED)
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT)).toBe(0)
    expect(counts(r)).toEqual([5, 5, 2])
    const later = r.map(-1, 2, ANON, 1)
    expect(lockFlags(r, later, 2)).toEqual([0, 0])
    expect(sys_munlockall(r.mm)).toBe(0)
    expect(counts(r)).toEqual([0, 0, 3])
    expect([lockFlags(r, at, 1), lockFlags(r, shared, 1)]).toEqual([[0], [0]])
  })

  test('of what comes later leaves alone what there is, until it is taken back', () => {
    const r = rig()
    const at = r.map(-1, 2, ANON)
    expect(sys_mlockall(r.mm, abi.MCL_FUTURE)).toBe(0)
    expect(counts(r)).toEqual([0, 0, 1])
    const later = r.map(-1, 2, ANON, 1)
    expect([lockFlags(r, at, 1), lockFlags(r, later, 1)]).toEqual([[0], [VM_LOCKED]])
    expect(counts(r)).toEqual([2, 0, 2])
    expect(r.pte(later) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT)).toBe(0)
    expect(counts(r)).toEqual([4, 2, 2])
    expect(lockFlags(r, r.map(-1, 1, ANON, 0), 1)).toEqual([0])
  })

  test('ONFAULT of both kinds populates nothing', () => {
    const r = rig()
    const at = r.map(-1, 2, ANON)
    expect(sys_mlockall(r.mm, abi.MCL_FUTURE | abi.MCL_ONFAULT)).toBe(0)
    expect(lockFlags(r, at, 1)).toEqual([0])
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT | abi.MCL_FUTURE | abi.MCL_ONFAULT)).toBe(0)
    const later = r.map(-1, 2, ANON, 1)
    const both = VM_LOCKED | VM_LOCKONFAULT
    expect([...lockFlags(r, at, 1), ...lockFlags(r, later, 1)]).toEqual([both, both])
    expect([r.pte(at), r.pte(later)]).toEqual([0, 0])
    expect(sys_munlockall(r.mm)).toBe(0)
    expect(lockFlags(r, r.map(-1, 1, ANON, 0), 1)).toEqual([0])
  })

  test('errors', () => {
    const r = rig()
    r.map(-1, 4, ANON)
    for (const flags of [0, abi.MCL_ONFAULT, 8, abi.MCL_CURRENT | 8]) expect(sys_mlockall(r.mm, flags)).toBe(-EINVAL)
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 3)).toBe(0)
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT)).toBe(-ENOMEM)
    expect(sys_mlockall(r.mm, abi.MCL_FUTURE)).toBe(0)
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 0)).toBe(0)
    expect(sys_mlockall(r.mm, abi.MCL_FUTURE)).toBe(-EPERM)
    expect(sys_munlockall(r.mm)).toBe(0)
    for (const [resource, pages] of [
      [7, 1],
      [RLIMIT_MEMLOCK, -2],
      [RLIMIT_MEMLOCK, 0.5],
      [RLIMIT_MEMLOCK, 2 ** 31]
    ]) {
      expect(sys_setrlimit(r.mm, resource, pages)).toBe(-EINVAL)
    }
  })
})
