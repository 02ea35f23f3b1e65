/** remap_file_pages: the checks in their order, what becomes of each kind of entry, locked mappings, failures. */
import { describe, expect, test } from 'vitest'
import { EACCES, EINVAL, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_HIWATER_RSS } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { PTE_PRESENT, pteFile, pteSoftDirty, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import { sys_clear_refs } from '../../src/syscall/process.ts'
import { VM_LOCKED, VM_NONLINEAR } from '../../src/vma/flags.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_NONBLOCK, MAP_PAGE_PROT, MAP_ANONYMOUS } = abi

function window(pages = 8): { r: Rig; at: number; fd: number; P: number } {
  const r = rig({ swapSlots: 64 })
  const fd = r.memory(pages)
  return { r, at: r.map(fd, pages, MAP_SHARED), fd, P: r.pageSize }
}

describe('checks, in order', () => {
  test('prot comes first, whatever else is wrong', () => {
    const { r } = window()
    expect(sys_remap_file_pages(r.mm, 12345, 0, 1, 2 ** 40, 0)).toBe(-EINVAL)
  })

  test('start and size are rounded down, so less than a page is nothing', () => {
    const { r, at, P } = window()
    expect(sys_remap_file_pages(r.mm, at, P - 1, 0, 3, 0)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at + P - 1, P, 0, 3, 0)).toBe(0)
    expect(r.load(at)).toBe(4)
    expect(sys_remap_file_pages(r.mm, at, 2 * P - 1, 0, 5, 0)).toBe(0)
    expect(r.loads(at, 2)).toEqual([6, 2])
  })

  test('ranges that wrap', () => {
    const { r, at, P } = window()
    expect(sys_remap_file_pages(r.mm, 2n ** 64n - BigInt(P), P, 0, 0, 0)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at, 2n ** 64n - BigInt(at), 0, 0, 0)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at, P, 0, 2n ** 64n - 1n, 0)).toBe(-EINVAL)
  })

  test('the last page that an entry can remember', () => {
    const { r, at, P } = window()
    expect(sys_remap_file_pages(r.mm, at, P, 0, 2 ** 28 - 1, MAP_NONBLOCK)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at, 2 * P, 0, 2 ** 28 - 2, MAP_NONBLOCK)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at, P, 0, 2 ** 28 - 2, MAP_NONBLOCK)).toBe(0)
    expect(pteToPgoff(r.pte(at))).toBe(2 ** 28 - 2)
    expect(r.load(at)).toBe(-FAULT_BUS)
  })

  test('only one shared mapping that contains the range', () => {
    const { r, at, fd, P } = window()
    expect(r.remap(at + 6 * P, 3, 0)).toBe(-EINVAL)
    expect(mem.sys_munmap(r.mm, at, P)).toBe(0)
    expect(r.remap(at, 2, 0)).toBe(-EINVAL)
    expect(mem.sys_mprotect(r.mm, at + 4 * P, 4 * P, 1)).toBe(0)
    expect(r.remap(at + 3 * P, 2, 0)).toBe(-EINVAL)
    const anonymous = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
    expect(r.remap(anonymous, 1, 0)).toBe(-EINVAL)
    expect(r.remap(r.map(fd, 2, MAP_PRIVATE), 1, 1)).toBe(-EINVAL)
    expect(r.remap(2 ** 40, 1, 0)).toBe(-EINVAL)
  })

  test('a kind of memory without remap_pages', () => {
    const r = rig()
    const fd = r.memory(4, 0, f.MEMORY_NOREMAP)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(r.remap(at, 1, 2)).toBe(-EINVAL)
    expect(r.load(at)).toBe(1)
  })

  test('a range at its linear place stays linear, and is populated', () => {
    const { r, at, P } = window()
    expect(r.remap(at + 2 * P, 2, 2)).toBe(0)
    expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(0)
    expect(r.pte(at + 3 * P) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect(r.remap(at, 1, 1)).toBe(0)
    expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(VM_NONLINEAR)
    expect(r.remap(at, 1, 0, MAP_NONBLOCK)).toBe(0)
    expect(pteFile(r.pte(at))).toBe(true)
    expect(pteToPgoff(r.pte(at))).toBe(0)
  })

  test('flags other than MAP_NONBLOCK are ignored', () => {
    const { r, at } = window()
    expect(r.remap(at, 1, 5, 0x7e0ffff & ~MAP_PAGE_PROT)).toBe(0)
    expect(r.pte(at) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect(r.load(at)).toBe(6)
  })

  test('beyond the end of the file the call succeeds and the access does not', () => {
    const { r, at, fd, P } = window()
    expect(r.remap(at, 1, 100)).toBe(0)
    expect(r.load(at)).toBe(-FAULT_BUS)
    expect(f.sys_ftruncate(r.m, fd, 101 * P)).toBe(0)
    expect(r.load(at)).toBe(0)
  })
})

describe('the entry before', () => {
  test('none and file entries are written over, soft-dirty', () => {
    const { r, at } = window()
    expect(r.remap(at, 1, 3, MAP_NONBLOCK)).toBe(0)
    const first = r.pte(at)
    expect([pteFile(first), pteToPgoff(first), pteSoftDirty(first) !== 0]).toEqual([true, 3, true])
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    expect(pteSoftDirty(r.pte(at))).toBe(0)
    expect(r.remap(at, 1, 4, MAP_NONBLOCK)).toBe(0)
    expect(pteToPgoff(r.pte(at))).toBe(4)
    expect(pteSoftDirty(r.pte(at))).not.toBe(0)
  })

  test('soft-dirty goes from the file entry to the present one', () => {
    const { r, at } = window()
    r.remap(at, 2, 3, MAP_NONBLOCK)
    sys_clear_refs(r.mm, 4)
    r.remap(at, 1, 3, MAP_NONBLOCK)
    expect([r.load(at), r.load(at + r.pageSize)]).toEqual([4, 5])
    expect(pteSoftDirty(r.pte(at))).not.toBe(0)
    expect(pteSoftDirty(r.pte(at + r.pageSize))).toBe(0)
  })

  test('a present page leaves the RSS and keeps its stores', () => {
    const { r, at, fd } = window()
    expect(r.store(at, 77)).toBe(0)
    const before = r.row(MM_FILEPAGES)
    expect(r.remap(at, 1, 5, MAP_NONBLOCK)).toBe(0)
    expect(r.row(MM_FILEPAGES)).toBe(before - 1)
    expect(r.row(MM_HIWATER_RSS)).toBe(before)
    expect(r.fileWord(fd, 0)).toBe(77)
    expect(r.m.reclaim.shrinkAll()).toBeGreaterThan(0)
    expect(r.fileWord(fd, 0)).toBe(77)
  })

  test('the last mapper that goes lets a page of a closed, unlinked file go', () => {
    const { r, at, fd } = window()
    expect(f.sys_close(r.m, fd)).toBe(0)
    expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(r.remap(at, 4, 4)).toBe(0)
    expect(r.loads(at, 8)).toEqual([5, 6, 7, 8, 5, 6, 7, 8])
    expect(r.store(at, 99)).toBe(0)
    expect(r.load(at + 4 * r.pageSize)).toBe(99)
  })

  test('a swapped-out page is found again wherever it is mapped', () => {
    const { r, at } = window()
    r.remap(at, 8, 0)
    r.remap(at, 1, 7, MAP_NONBLOCK)
    expect(r.store(at, 700)).toBe(0)
    r.m.reclaim.shrinkAll()
    expect(pteFile(r.pte(at))).toBe(true)
    expect(r.m.swap.nrUsed).toBe(8)
    expect(r.remap(at + r.pageSize, 1, 7, MAP_NONBLOCK)).toBe(0)
    expect(r.loads(at, 3)).toEqual([700, 700, 3])
    expect(r.row(MM_ANONPAGES)).toBe(0)
  })
})

describe('protection of a page', () => {
  test('lasts through eviction until mprotect', () => {
    const r = rig()
    const { fd } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    const P = r.pageSize
    expect(sys_remap_file_pages(r.mm, at, P, 0, 3, MAP_PAGE_PROT)).toBe(0)
    expect(sys_remap_file_pages(r.mm, at + P, P, 1, 4, MAP_PAGE_PROT)).toBe(0)
    const seen = (): number[] => [
      r.load(at),
      r.store(at, 1),
      r.load(at + P),
      r.store(at + P, 1),
      r.store(at + 2 * P, 9)
    ]
    const expected = [-FAULT_ACCERR, -FAULT_ACCERR, 5, -FAULT_ACCERR, 0]
    expect(seen()).toEqual(expected)
    r.m.reclaim.shrinkAll()
    expect(pteFile(r.pte(at + P))).toBe(true)
    expect(seen()).toEqual(expected)
    expect(mem.sys_mprotect(r.mm, at, 8 * P, RW)).toBe(0)
    expect([r.load(at), r.store(at + P, 50), r.fileWord(fd, 4)]).toEqual([4, 0, 50])
  })

  test('never allows more than the file', () => {
    const r = rig()
    const { fd } = r.file(4, f.O_RDONLY)
    const at = r.map(fd, 4, MAP_SHARED, 1)
    expect(sys_remap_file_pages(r.mm, at, r.pageSize, RW, 2, MAP_PAGE_PROT)).toBe(-EACCES)
  })

  test('is EINVAL when it is none', () => {
    const { r, at, P } = window()
    expect(sys_remap_file_pages(r.mm, at, P, 8, 2, MAP_PAGE_PROT)).toBe(-EINVAL)
    expect(sys_remap_file_pages(r.mm, at, P, abi.PROT_EXEC, 2, MAP_PAGE_PROT)).toBe(-EINVAL)
  })
})

test('a vector is checked as a whole before anything is written', () => {
  const { r, at, P } = window()
  expect(sys_remap_file_pages_vec(r.mm, at, Int32Array.of(3, 2, 2 ** 28 - 1), 0, 0)).toBe(-EINVAL)
  expect(sys_remap_file_pages_vec(r.mm, at, Int32Array.of(3, -1), 0, 0)).toBe(-EINVAL)
  expect(sys_remap_file_pages_vec(r.mm, at + 1, Int32Array.of(3), 0, 0)).toBe(-EINVAL)
  expect(sys_remap_file_pages_vec(r.mm, at + 6 * P, Int32Array.of(3, 2, 1), 0, 0)).toBe(-EINVAL)
  expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(0)
  expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(sys_remap_file_pages_vec(r.mm, at, Int32Array.of(7, 6, 5, 4, 3, 2, 1, 0), 0, 0)).toBe(0)
  expect(r.loads(at, 8)).toEqual([8, 7, 6, 5, 4, 3, 2, 1])
})

test('in a locked mapping the old pages are unlocked, the new ones populated and locked', () => {
  const { r, at, P } = window()
  expect(sys_mlock(r.mm, at, 4 * P)).toBe(0)
  expect(r.m.vmstat[NR_MLOCK]).toBe(4)
  expect(r.remap(at, 2, 5, MAP_NONBLOCK)).toBe(0)
  expect(r.vmaFlags(at) & VM_LOCKED).toBe(VM_LOCKED)
  expect(r.pte(at) & PTE_PRESENT).toBe(PTE_PRESENT)
  expect(r.m.vmstat[NR_MLOCK]).toBe(4)
  r.m.reclaim.shrinkAll()
  expect(r.pte(at + P) & PTE_PRESENT).toBe(PTE_PRESENT)
  expect(pteFile(r.pte(at + 4 * P))).toBe(false)
  expect(r.loads(at, 4)).toEqual([6, 7, 3, 4])
})

test('without memory for a page table half is remapped, and said so', () => {
  const r = rig({ pageShift: 9 })
  const fd = r.memory(4)
  const at = 120 * r.pageSize
  expect(mem.sys_mmap(r.mm, at, 16 * r.pageSize, RW, MAP_SHARED | abi.MAP_FIXED, fd, 0)).toBe(at)
  let left = 2
  // The first table, and the root above both, can be had; the second one, for page 128, cannot.
  r.m.allocator.setFail(() => --left < 0)
  expect(r.remap(at, 16, 100)).toBe(-ENOMEM)
  r.m.allocator.setFail(undefined)
  expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(VM_NONLINEAR)
  expect(pteToPgoff(r.pte(at + 7 * r.pageSize))).toBe(107)
  expect(r.pte(at + 8 * r.pageSize)).toBe(0)
})
