/** brk: the heap's end, to the byte, and what keeps it from moving. */
import { expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import { MM_LOCKED_VM, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { PTE_PRESENT } from '../../src/pgtable/pte.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlockall } from '../../src/syscall/mlock.ts'
import { RLIMIT_AS, RLIMIT_MEMLOCK, sys_setrlimit } from '../../src/syscall/process.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()

test('moves to the byte; pages come and go with it', () => {
  const r = rig()
  const P = r.pageSize
  const heap = mem.sys_brk(r.mm, 0)
  expect(mem.sys_brk(r.mm, heap + 10)).toBe(heap + 10)
  expect(r.row(MM_TOTAL_VM)).toBe(1)
  expect(mem.sys_brk(r.mm, heap + P)).toBe(heap + P)
  expect(r.row(MM_TOTAL_VM)).toBe(1)
  expect(mem.sys_brk(r.mm, heap + P + 1)).toBe(heap + P + 1)
  expect(r.row(MM_TOTAL_VM)).toBe(2)
  r.store(heap, 7)
  r.store(heap + P, 8)
  expect(mem.sys_brk(r.mm, heap + P)).toBe(heap + P)
  expect([r.load(heap), r.row(MM_TOTAL_VM)]).toEqual([7, 1])
  expect(mem.sys_brk(r.mm, heap + 2 * P)).toBe(heap + 2 * P)
  expect(r.load(heap + P)).toBe(0)
  expect(mem.sys_brk(r.mm, heap)).toBe(heap)
  expect(r.row(MM_TOTAL_VM)).toBe(0)
})

test('does not move below its beginning, past the last page, or into a mapping', () => {
  const r = rig()
  const P = r.pageSize
  const heap = mem.sys_brk(r.mm, 0)
  const end = mem.sys_brk(r.mm, heap + 2 * P)
  expect(mem.sys_brk(r.mm, heap - 1)).toBe(end)
  expect(mem.sys_brk(r.mm, 0x7fffffff * P + 1)).toBe(end)
  const wall = heap + 5 * P
  expect(mem.sys_mmap(r.mm, wall, P, RW, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS | abi.MAP_FIXED, -1, 0)).toBe(wall)
  expect(mem.sys_brk(r.mm, wall + 1)).toBe(end)
  // One page below it stays free.
  expect(mem.sys_brk(r.mm, wall)).toBe(end)
  expect(mem.sys_brk(r.mm, wall - P + 1)).toBe(end)
  expect(mem.sys_brk(r.mm, wall - P)).toBe(wall - P)
})

test('keeps within the limits, and cannot shrink when that needs a mapping too many', () => {
  const r = rig({ maxMapCount: 1 })
  const P = r.pageSize
  const heap = mem.sys_brk(r.mm, 0)
  expect(sys_setrlimit(r.mm, RLIMIT_AS, 3)).toBe(0)
  expect(mem.sys_brk(r.mm, heap + 4 * P)).toBe(heap)
  expect(mem.sys_brk(r.mm, heap + 3 * P)).toBe(heap + 3 * P)
  expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 1)).toBe(0)
  expect(mem.sys_brk(r.mm, heap)).toBe(heap)
  expect(mem.sys_brk(r.mm, heap + 3 * P)).toBe(heap + 3 * P)
  expect(r.pte(heap)).toBe(0)
  const full = rig({ maxVmas: 1 })
  const start = mem.sys_brk(full.mm, 0)
  full.map(-1, 1, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS)
  expect(mem.sys_brk(full.mm, start + P)).toBe(start)
})

test('under mlockall of what is to come the heap is locked and populated, within the limit of locked memory', () => {
  const r = rig()
  const P = r.pageSize
  const heap = mem.sys_brk(r.mm, 0)
  expect(sys_mlockall(r.mm, abi.MCL_FUTURE)).toBe(0)
  expect(mem.sys_brk(r.mm, heap + P + 5)).toBe(heap + P + 5)
  expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK]]).toEqual([2, 2])
  expect([0, 1].map(i => r.pte(heap + i * P) & PTE_PRESENT)).toEqual([1, 1])
  expect(mem.sys_brk(r.mm, heap + 3 * P)).toBe(heap + 3 * P)
  expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK]]).toEqual([3, 3])
  expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 4)).toBe(0)
  expect(mem.sys_brk(r.mm, heap + 5 * P)).toBe(heap + 3 * P)
  expect(mem.sys_brk(r.mm, heap + P)).toBe(heap + P)
  expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK]]).toEqual([1, 1])
})
