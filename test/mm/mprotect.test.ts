/** mprotect: entries of every kind, in several tables; what is accounted; where it stops. */
import { describe, expect, test } from 'vitest'
import { EACCES, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_ACCERR } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_MAP_COUNT } from '../../src/frame/mm-table.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE, pteFrame, pteSoftDirty } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { VM_ACCOUNT } from '../../src/vma/flags.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, PROT_READ, PROT_NONE } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

function protect(r: Rig, at: number, pages: number, prot: number): number {
  return mem.sys_mprotect(r.mm, at, pages * r.pageSize, prot)
}

describe('the entries', () => {
  test('of every table of the range lose and get their rights', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, swapSlots: 64 })
    const P = r.pageSize
    const at = r.map(-1, 400, ANON)
    const places = [0, 1, 127, 300, 399]
    for (const i of places) r.store(at + i * P, i + 1)
    expect(protect(r, at + P, 398, PROT_NONE)).toBe(0)
    expect(places.map(i => r.load(at + i * P))).toEqual([1, -FAULT_ACCERR, -FAULT_ACCERR, -FAULT_ACCERR, 400])
    expect(places.map(i => r.pte(at + i * P) & (PTE_PRESENT | PTE_READ | PTE_WRITE))).toEqual([7, 1, 1, 1, 7])
    expect(protect(r, at, 400, PROT_READ)).toBe(0)
    expect(places.map(i => r.load(at + i * P))).toEqual(places.map(i => i + 1))
    expect(places.map(i => r.store(at + i * P, 1))).toEqual(places.map(() => -FAULT_ACCERR))
    r.m.reclaim.shrinkAll()
    expect(protect(r, at, 400, RW)).toBe(0)
    for (const i of places)
      expect([r.load(at + i * P), r.store(at + i * P, 9), r.load(at + i * P)]).toEqual([i + 1, 0, 9])
  })

  test('of a page on its way to another frame have the new rights when it arrives', () => {
    const r = rig()
    const at = r.map(-1, 1, ANON)
    r.store(at, 5)
    for (const prot of [PROT_READ, PROT_NONE, RW]) {
      const frame = pteFrame(r.pte(at))
      r.m.migration.begin(frame)
      expect(protect(r, at, 1, prot)).toBe(0)
      r.m.migration.end(frame, r.m.allocator.alloc())
      expect(r.pte(at) & PTE_WRITE).toBe(0)
      expect(r.load(at)).toBe(prot === PROT_NONE ? -FAULT_ACCERR : 5)
      expect(r.store(at, 5)).toBe(prot === RW ? 0 : -FAULT_ACCERR)
    }
  })

  test('that had a protection of their own lose it, present or remembered, and stay soft-dirty', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(4), 4, MAP_SHARED)
    sys_remap_file_pages(r.mm, at, 2 * P, PROT_NONE, 2, abi.MAP_PAGE_PROT | abi.MAP_NONBLOCK)
    sys_remap_file_pages(r.mm, at + 2 * P, P, PROT_READ, 0, abi.MAP_PAGE_PROT)
    expect([r.load(at), r.store(at + 2 * P, 1)]).toEqual([-FAULT_ACCERR, -FAULT_ACCERR])
    expect(protect(r, at, 3, RW)).toBe(0)
    expect(pteSoftDirty(r.pte(at))).not.toBe(0)
    expect([r.load(at), r.load(at + P), r.store(at + 2 * P, 1), r.load(at + 2 * P)]).toEqual([3, 4, 0, 1])
  })
})

test('memory that may be stored to now is accounted, once, if it is private and not asked to be left out', () => {
  const r = rig()
  const accounted = (at: number): boolean => (r.vmaFlags(at) & VM_ACCOUNT) !== 0
  const own = r.map(-1, 2, ANON, PROT_READ)
  expect(accounted(own)).toBe(false)
  expect([protect(r, own, 2, RW), accounted(own)]).toEqual([0, true])
  expect([protect(r, own, 2, PROT_READ), accounted(own)]).toEqual([0, true])
  const file = r.map(r.file(2).fd, 2, MAP_PRIVATE, PROT_READ)
  expect([protect(r, file, 2, abi.PROT_EXEC), accounted(file)]).toEqual([0, false])
  expect([protect(r, file, 2, RW), accounted(file)]).toEqual([0, true])
  const shared = r.map(r.memory(2), 2, MAP_SHARED, PROT_READ)
  expect([protect(r, shared, 2, RW), accounted(shared)]).toEqual([0, false])
  const left = r.map(-1, 2, ANON | abi.MAP_NORESERVE, PROT_READ)
  expect([protect(r, left, 2, RW), accounted(left)]).toEqual([0, false])
})

describe('it stops', () => {
  test('at a hole, at a mapping that may not have it, at one mapping too many; what is before is changed', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 6, ANON)
    mem.sys_munmap(r.mm, at + 2 * P, P)
    expect(protect(r, at, 6, PROT_READ)).toBe(-ENOMEM)
    expect([r.store(at, 1), r.store(at + 3 * P, 1)]).toEqual([-FAULT_ACCERR, 0])
    expect(protect(r, at + 2 * P, 2, PROT_READ)).toBe(-ENOMEM)
    expect(protect(r, at + 3 * P, 9, PROT_READ)).toBe(-ENOMEM)
    expect(r.store(at + 5 * P, 1)).toBe(-FAULT_ACCERR)
    const only = r.map(r.file(2, f.O_RDONLY).fd, 2, MAP_SHARED, PROT_NONE)
    expect([protect(r, only, 2, RW), protect(r, only, 2, PROT_READ), r.load(only)]).toEqual([-EACCES, 0, 1])
    for (const maxMapCount of [1, 2]) {
      const limited = rig({ maxMapCount })
      const own = limited.map(-1, 5, ANON)
      expect(protect(limited, own + 2 * P, 1, PROT_READ)).toBe(-ENOMEM)
      expect([limited.store(own + 2 * P, 1), limited.row(MM_MAP_COUNT) <= maxMapCount]).toEqual([0, true])
    }
  })

  test('not where the range becomes one with what follows', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    protect(r, at + 2 * P, 2, PROT_READ)
    protect(r, at + 5 * P, 1, PROT_READ)
    expect(r.row(MM_MAP_COUNT)).toBe(5)
    expect(protect(r, at, 8, PROT_READ)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
    for (let i = 0; i < 8; i++) expect(r.store(at + i * P, 1)).toBe(-FAULT_ACCERR)
    expect([protect(r, at, 8, RW), r.row(MM_MAP_COUNT), r.store(at + 7 * P, 1)]).toEqual([0, 1, 0])
  })
})
