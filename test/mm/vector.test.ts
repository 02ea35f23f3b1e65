/**
 * remap_file_pages with a page for each entry: over every kind of entry, under both policies, and what an error leaves.
 */
import { describe, expect, test } from 'vitest'
import { EACCES, EINVAL, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_ACCERR } from '../../src/abi/fault.ts'
import { PTE_FILE_MAX_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_FILEPAGES, MM_MAP_COUNT, MM_NR_TABLES } from '../../src/frame/mm-table.ts'
import { NR_MLOCK, REMAP_CALLS, REMAP_PAGES } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { pteFile, pteSoftDirty } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import { sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { VM_LOCKED, VM_NONLINEAR } from '../../src/vma/flags.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_NONBLOCK, MAP_PAGE_PROT } = abi

function vector(r: Rig, at: number, pages: readonly number[], flags = 0, prot = 0): number {
  return sys_remap_file_pages_vec(r.mm, at, Int32Array.from(pages), prot, flags)
}

function counts(r: Rig): [number, number] {
  return [r.m.vmstat[REMAP_CALLS], r.m.vmstat[REMAP_PAGES]]
}

describe('a vector', () => {
  test('goes over empty, remembered and present entries, in several tables, each counted right', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, faultAroundPages: 1 })
    const P = r.pageSize
    const at = r.map(r.memory(300), 300, MAP_SHARED)
    for (const i of [0, 5, 200]) r.load(at + i * P)
    r.remap(at + 6 * P, 2, 100, MAP_NONBLOCK)
    const pages = Array.from({ length: 300 }, (_, i) => (i * 7 + 3) % 300)
    const before = counts(r)
    expect(vector(r, at, pages, MAP_NONBLOCK)).toBe(0)
    expect(counts(r)).toEqual([before[0] + 1, before[1] + 300])
    expect(r.row(MM_FILEPAGES)).toBe(0)
    for (const i of [0, 5, 6, 127, 128, 299]) {
      expect([pteFile(r.pte(at + i * P)), pteSoftDirty(r.pte(at + i * P)) !== 0]).toEqual([true, true])
      expect(r.load(at + i * P)).toBe(pages[i] + 1)
    }
  })

  test('and a single remap are counted by calls and by pages that changed, also when memory runs out', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const at = r.map(r.memory(8), 200, MAP_SHARED)
    expect(r.remap(at, 3, 4, MAP_NONBLOCK)).toBe(0)
    expect(counts(r)).toEqual([1, 3])
    expect(r.remap(at + 190 * P, 1, 190, MAP_NONBLOCK)).toBe(0)
    expect(counts(r)).toEqual([2, 4])
    const other = r.map(r.memory(8), 200, MAP_SHARED)
    expect(r.remap(other, 1, 0)).toBe(0)
    expect(counts(r)).toEqual([3, 4])
    r.m.allocator.setFail(() => true)
    expect(r.remap(at + 100 * P, 100, 0, MAP_NONBLOCK)).toBe(0)
    expect(counts(r)).toEqual([4, 104])
    expect(r.remap(other + 120 * P, 20, 1, MAP_NONBLOCK)).toBe(-ENOMEM)
    expect(counts(r)).toEqual([5, 112])
    expect([pteFile(r.pte(other + 127 * P)), r.pte(other + 128 * P)]).toEqual([true, 0])
  })

  test('populates unless told not to, and always in a locked mapping', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    expect(vector(r, at, [3, 2])).toBe(0)
    expect([0, 1].map(i => pteFile(r.pte(at + i * P)))).toEqual([false, false])
    sys_mlock(r.mm, at + 4 * P, 2 * P)
    expect(r.m.vmstat[NR_MLOCK]).toBe(2)
    expect(vector(r, at + 4 * P, [0, 7], MAP_NONBLOCK)).toBe(0)
    expect([r.m.vmstat[NR_MLOCK], r.vmaFlags(at + 4 * P) & (VM_LOCKED | VM_NONLINEAR)]).toEqual([
      2,
      VM_LOCKED | VM_NONLINEAR
    ])
    expect(r.loads(at, 6)).toEqual([4, 3, 3, 4, 1, 8])
  })

  test('tells a secondary MMU once, of its range', () => {
    const r = rig()
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    const told: number[][] = []
    sys_mmu_notifier_register(r.mm, {
      invalidateRangeStart: (_mm, start, end) => told.push([0, start, end]),
      invalidateRangeEnd: (_mm, start, end) => told.push([1, start, end])
    })
    const vpn = at / r.pageSize
    expect(vector(r, at + r.pageSize, [3, 2, 1], MAP_NONBLOCK)).toBe(0)
    expect(told).toEqual([
      [0, vpn + 1, vpn + 4],
      [1, vpn + 1, vpn + 4]
    ])
  })

  test('without memory for its second table has changed what lies in the first', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const at = r.map(r.memory(8), 256, MAP_SHARED)
    let left = r.m.tables.find(r.mm.id, at / P) === 0 ? 3 : 1
    const tables = r.row(MM_NR_TABLES)
    r.m.allocator.setFail(() => --left === 0)
    expect(vector(r, at, new Array(256).fill(7), MAP_NONBLOCK)).toBe(-ENOMEM)
    r.m.allocator.setFail(undefined)
    expect(counts(r)[1]).toBe(128)
    expect([r.load(at + 127 * P), r.pte(at + 128 * P)]).toEqual([8, 0])
    expect(r.row(MM_NR_TABLES)).toBeGreaterThan(tables)
  })

  test('is refused as a whole: bad pages, ranges, protections', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(8), 4, MAP_SHARED)
    for (const bad of [-1, PTE_FILE_MAX_PAGES - 1, PTE_FILE_MAX_PAGES, 2 ** 31 - 1]) {
      expect(vector(r, at, [3, bad])).toBe(-EINVAL)
    }
    expect(vector(r, at, [3, PTE_FILE_MAX_PAGES - 2], MAP_NONBLOCK)).toBe(0)
    expect(vector(r, at + 3 * P, [1, 2])).toBe(-EINVAL)
    expect(vector(r, at - P, [1, 2])).toBe(-EINVAL)
    expect(vector(r, at, [])).toBe(0)
    expect(vector(r, at, [1], MAP_PAGE_PROT, abi.PROT_EXEC)).toBe(-EINVAL)
    expect(vector(r, at, [1], 0, abi.PROT_READ)).toBe(-EINVAL)
    const only = r.map(r.file(4, f.O_RDONLY).fd, 4, MAP_SHARED, 1)
    expect(vector(r, only, [1], MAP_PAGE_PROT, abi.PROT_WRITE)).toBe(-EACCES)
    expect(sys_remap_file_pages(r.mm, only, P, abi.PROT_WRITE, 1, MAP_PAGE_PROT)).toBe(-EACCES)
    expect([vector(r, only, [2], MAP_PAGE_PROT, abi.PROT_READ), r.load(only)]).toEqual([0, 3])
    expect(counts(r)).toEqual([2, 3])
  })

  test('with a protection of their own, its pages have that one', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(8), 4, MAP_SHARED, 0)
    expect(vector(r, at, [7, 6], MAP_PAGE_PROT, abi.PROT_READ)).toBe(0)
    expect(vector(r, at + 2 * P, [5], MAP_PAGE_PROT, abi.PROT_READ | abi.PROT_WRITE)).toBe(0)
    expect([...r.loads(at, 4), r.store(at, 1), r.store(at + 2 * P, 50)]).toEqual([
      8,
      7,
      6,
      -FAULT_ACCERR,
      -FAULT_ACCERR,
      0
    ])
    expect(vector(r, at, [4], MAP_PAGE_PROT, abi.PROT_NONE)).toBe(0)
    expect([r.load(at), r.load(at + P), r.load(at + 2 * P)]).toEqual([-FAULT_ACCERR, 7, 50])
  })
})

describe('under Linux’s policy', () => {
  test('files are remapped by mappings, one for each run; shared memory by entries', () => {
    const r = rig({ policy: POLICY_LINUX })
    const P = r.pageSize
    const at = r.map(r.file(8).fd, 8, MAP_SHARED)
    expect(vector(r, at, [4, 5, 6, 0, 7])).toBe(0)
    expect([r.loads(at, 8), r.row(MM_MAP_COUNT)]).toEqual([[5, 6, 7, 1, 8, 6, 7, 8], 4])
    expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(0)
    const shared = r.map(r.memory(8), 8, MAP_SHARED)
    expect([vector(r, shared, [4, 5]), r.loads(shared, 2)]).toEqual([0, [5, 6]])
    expect(r.vmaFlags(shared) & VM_NONLINEAR).toBe(VM_NONLINEAR)
    expect(r.remap(at + 7 * P, 1, 7)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(5)
  })

  test('what comes before the mapping that is one too many is done', () => {
    const r = rig({ policy: POLICY_LINUX, maxMapCount: 2 })
    const at = r.map(r.file(8).fd, 8, MAP_SHARED)
    expect(vector(r, at, [4, 1, 6])).toBe(-ENOMEM)
    expect([r.loads(at, 3), r.row(MM_MAP_COUNT)]).toEqual([[5, 2, 3], 2])
  })

  test('pages beyond what an entry remembers can be shown by a mapping, as on Linux', () => {
    const r = rig({ policy: POLICY_LINUX })
    const at = r.map(r.file(8).fd, 2, MAP_SHARED)
    expect(r.remap(at, 1, PTE_FILE_MAX_PAGES, MAP_NONBLOCK)).toBe(0)
    expect(r.remap(at, 1, 2 ** 46 - 1, MAP_NONBLOCK)).toBe(-EINVAL)
    expect(r.remap(at, 1, 2 ** 46 - 2, MAP_NONBLOCK)).toBe(0)
    const shared = r.map(r.memory(8), 2, MAP_SHARED)
    expect(r.remap(shared, 1, PTE_FILE_MAX_PAGES, MAP_NONBLOCK)).toBe(-EINVAL)
    const flags = MAP_PAGE_PROT | MAP_NONBLOCK
    expect(sys_remap_file_pages(r.mm, at, r.pageSize, abi.PROT_READ, 1, flags)).toBe(-EINVAL)
  })
})
