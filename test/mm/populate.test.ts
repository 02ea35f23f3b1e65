/** mm_populate in steps: what is populated when mappings change between them, and what an error skips. */
import { describe, expect, test } from 'vitest'
import { EFAULT, ENOMEM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { NR_DIRTY } from '../../src/frame/vmstat.ts'
import { ERROR_ENDS, ERROR_SKIPS_VMA, mmPopulate, PopulateCursor, populateStep } from '../../src/mm/populate.ts'
import { PTE_PRESENT, PTE_WRITE } from '../../src/pgtable/pte.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock2 } from '../../src/syscall/mlock.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

function present(r: Rig, at: number, pages: number): string {
  return Array.from({ length: pages }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT).join('')
}

test('goes so many pages a step, skips holes, and ends at its end', () => {
  const r = rig()
  const P = r.pageSize
  const at = r.map(-1, 12, ANON)
  mem.sys_munmap(r.mm, at + 3 * P, 2 * P)
  mem.sys_munmap(r.mm, at, P)
  const first = at / P
  const cursor = new PopulateCursor(first, first + 10, r.m.vmas.clock)
  const seen: [number, number, boolean][] = []
  while (!cursor.done) {
    populateStep(r.m, r.mm.id, cursor, 3)
    seen.push([cursor.vpn - first, cursor.populated, cursor.done])
  }
  expect(seen).toEqual([
    [6, 3, false],
    [9, 6, false],
    [10, 7, true]
  ])
  expect(present(r, at, 12)).toBe('011001111100')
  const beyond = new PopulateCursor(first + 100, first + 200, r.m.vmas.clock)
  populateStep(r.m, r.mm.id, beyond, 1)
  expect([beyond.done, beyond.populated]).toEqual([true, 0])
})

test('leaves alone what was mapped in the place of its range since, and what is locked as it is touched', () => {
  const r = rig()
  const P = r.pageSize
  const at = r.map(-1, 8, ANON)
  const cursor = new PopulateCursor(at / P, at / P + 8, r.m.vmas.clock)
  populateStep(r.m, r.mm.id, cursor, 2)
  expect(mem.sys_mmap(r.mm, at + 3 * P, 2 * P, RW, MAP_SHARED | MAP_FIXED, r.memory(2), 0)).toBe(at + 3 * P)
  sys_mlock2(r.mm, at + 6 * P, P, abi.MLOCK_ONFAULT)
  while (!cursor.done) populateStep(r.m, r.mm.id, cursor, 2)
  expect([present(r, at, 8), cursor.populated]).toEqual(['11100101', 5])
})

test('private memory that may be stored to gets its own pages, the rest is only read', () => {
  const r = rig({ faultAroundPages: 1 })
  const P = r.pageSize
  const own = r.map(-1, 1, ANON)
  const read = r.map(-1, 1, ANON, 1)
  const shared = r.map(r.file(1).fd, 1, MAP_SHARED)
  for (const at of [own, read, shared]) expect(mmPopulate(r.m, r.mm.id, at / P, at / P + 1, r.m.vmas.clock)).toBe(0)
  expect([own, read, shared].map(at => r.pte(at) & (PTE_PRESENT | PTE_WRITE))).toEqual([5, 1, 1])
  expect(r.m.vmstat[NR_DIRTY]).toBe(0)
})

describe('an error', () => {
  /** Two mappings side by side, the first of which ends in pages past the end of its file. */
  function failing(): { r: Rig; at: number; first: number } {
    const r = rig({ faultAroundPages: 1 })
    const P = r.pageSize
    const at = r.map(r.file(2).fd, 4, MAP_SHARED)
    expect(mem.sys_mmap(r.mm, at + 4 * P, 2 * P, RW, ANON | MAP_FIXED, -1, 0)).toBe(at + 4 * P)
    return { r, at, first: at / P }
  }

  test('skips the rest of its mapping, and is the one that is told', () => {
    const { r, at, first } = failing()
    expect(mmPopulate(r.m, r.mm.id, first, first + 6, r.m.vmas.clock, ERROR_SKIPS_VMA)).toBe(-EFAULT)
    expect(present(r, at, 6)).toBe('110011')
  })

  test('ends it where that is asked for', () => {
    const { r, at, first } = failing()
    expect(mmPopulate(r.m, r.mm.id, first, first + 6, r.m.vmas.clock, ERROR_ENDS)).toBe(-EFAULT)
    expect(present(r, at, 6)).toBe('110000')
  })

  test('the first of two is told', () => {
    const { r, at, first } = failing()
    r.loads(at, 2)
    r.m.allocator.setFail(() => true)
    expect(mmPopulate(r.m, r.mm.id, first, first + 6, r.m.vmas.clock)).toBe(-EFAULT)
    expect(mmPopulate(r.m, r.mm.id, first + 4, first + 6, r.m.vmas.clock)).toBe(-ENOMEM)
    expect(present(r, at, 6)).toBe('110000')
  })
})
