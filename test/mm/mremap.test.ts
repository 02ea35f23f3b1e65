/** mremap: growing, moving, leaving the source in place; what is counted, and what is refused. */
import { describe, expect, test } from 'vitest'
import { EAGAIN, EFAULT, EINVAL, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_MAPERR } from '../../src/abi/fault.ts'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_HIWATER_VM, MM_LOCKED_VM, MM_MAP_COUNT, MM_NR_TABLES, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { PTE_PRESENT, pteFile, pteSoftDirty, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlock2 } from '../../src/syscall/mlock.ts'
import { RLIMIT_AS, RLIMIT_MEMLOCK, sys_clear_refs, sys_setrlimit } from '../../src/syscall/process.ts'
import { VM_LOCKED, VM_NONLINEAR } from '../../src/vma/flags.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS
const TO = MREMAP_MAYMOVE | MREMAP_FIXED

function mremap(r: Rig, at: number, old: number, now: number, flags: number, to = 0): number {
  return mem.sys_mremap(r.mm, at, old * r.pageSize, now * r.pageSize, flags, to)
}

describe('growing', () => {
  test('in place counts the pages, and fits what lies behind', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    const wall = at + 5 * P
    expect(mem.sys_mmap(r.mm, wall, P, 1, ANON | MAP_FIXED, -1, 0)).toBe(wall)
    expect(mremap(r, at, 2, 6, 0)).toBe(-ENOMEM)
    expect(mremap(r, at, 2, 5, 0)).toBe(at)
    expect([r.row(MM_TOTAL_VM), r.row(MM_HIWATER_VM), r.row(MM_MAP_COUNT)]).toEqual([6, 6, 2])
    expect(r.store(at + 4 * P, 9)).toBe(0)
    expect(mremap(r, at, 5, 6, 0)).toBe(-ENOMEM)
    const moved = mremap(r, at, 5, 6, MREMAP_MAYMOVE)
    expect(moved).toBeGreaterThan(wall)
    expect([r.load(moved + 4 * P), r.load(at + 4 * P), r.row(MM_TOTAL_VM)]).toEqual([9, -FAULT_MAPERR, 7])
  })

  test('of a part cannot happen in place; at the end of the space not at all', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 4, ANON)
    expect(mremap(r, at, 2, 5, 0)).toBe(-ENOMEM)
    r.store(at, 1)
    r.store(at + 2 * P, 3)
    const moved = mremap(r, at, 2, 5, MREMAP_MAYMOVE)
    expect([r.load(moved), r.load(at), r.load(at + 2 * P)]).toEqual([1, -FAULT_MAPERR, 3])
    const top = (TASK_PAGES - 1) * P
    expect(mem.sys_mmap(r.mm, top, P, RW, ANON | MAP_FIXED, -1, 0)).toBe(top)
    expect(mremap(r, top, 1, 2, 0)).toBe(-ENOMEM)
    expect(mremap(r, at + 2 * P, 2, TASK_PAGES, MREMAP_MAYMOVE)).toBe(-ENOMEM)
  })

  test('of a locked mapping locks and populates what it grows by, in place and when it moves', () => {
    const r = rig({ nrFrames: 96 })
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    sys_mlock(r.mm, at, 2 * P)
    expect(mremap(r, at, 2, 4, 0)).toBe(at)
    expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK]]).toEqual([4, 4])
    expect(mremap(r, at, 4, 6, TO, at + 100 * P)).toBe(at + 100 * P)
    expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK], r.row(MM_TOTAL_VM)]).toEqual([6, 6, 6])
    expect(r.vmaFlags(at + 105 * P) & VM_LOCKED).toBe(VM_LOCKED)
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 7)).toBe(0)
    expect(mremap(r, at + 100 * P, 6, 8, MREMAP_MAYMOVE)).toBe(-EAGAIN)
    expect(mremap(r, at + 100 * P, 6, 7, MREMAP_MAYMOVE)).toBe(at + 100 * P)
    expect(mremap(r, at + 100 * P, 7, 3, TO, at + 200 * P)).toBe(at + 200 * P)
    expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK], r.row(MM_TOTAL_VM)]).toEqual([3, 3, 3])
  })

  test('of a mapping that is not locked does not ask for the limit of locked memory, and populates nothing', () => {
    const r = rig()
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 1)).toBe(0)
    const at = r.map(-1, 2, ANON)
    expect(mremap(r, at, 2, 4, 0)).toBe(at)
    const to = mremap(r, at, 4, 6, TO, at + 4096 * 50)
    expect([to, r.pte(to), r.pte(to + 4096 * 5)]).toEqual([at + 4096 * 50, 0, 0])
  })

  test('keeps within the limit of address space, also for the time that both places are there', () => {
    const r = rig()
    const at = r.map(-1, 4, ANON)
    expect(sys_setrlimit(r.mm, RLIMIT_AS, 6)).toBe(0)
    expect(mremap(r, at, 4, 7, MREMAP_MAYMOVE)).toBe(-ENOMEM)
    expect(mremap(r, at, 4, 6, MREMAP_MAYMOVE)).toBe(at)
    expect(mremap(r, at, 0, 1, MREMAP_MAYMOVE)).toBe(-ENOMEM)
  })

  test('is refused where file pages would pass 2^64 bytes', () => {
    const r = rig()
    const { fd } = r.file(1)
    const at = mem.sys_mmap(r.mm, 0, r.pageSize, RW, MAP_SHARED, fd, 2n ** 64n - 4096n)
    expect(mremap(r, at, 1, 2, MREMAP_MAYMOVE)).toBe(-EINVAL)
    const linux = rig({ policy: POLICY_LINUX })
    const other = mem.sys_mmap(linux.mm, 0, r.pageSize, RW, MAP_SHARED, linux.file(1).fd, 2n ** 64n - 4096n)
    expect(mremap(linux, other, 1, 2, MREMAP_MAYMOVE)).toBe(other)
  })
})

describe('moving', () => {
  test('over something unmaps that; onto itself, to nowhere, and past the end are refused', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(8)
    const at = r.map(fd, 4, MAP_SHARED)
    const other = r.map(-1, 8, ANON)
    for (let i = 0; i < 8; i++) r.store(other + i * P, 90 + i)
    expect(mremap(r, at, 4, 4, TO, other + 2 * P)).toBe(other + 2 * P)
    expect(r.loads(other, 8)).toEqual([90, 91, 1, 2, 3, 4, 96, 97])
    const place = other + 2 * P
    for (const to of [place, place + 3 * P, place - 3 * P]) expect(mremap(r, place, 4, 4, TO, to)).toBe(-EINVAL)
    expect(mremap(r, place, 4, 4, TO, (TASK_PAGES - 3) * P)).toBe(-EINVAL)
    expect(mremap(r, place, 4, 4, TO, place + 4 * P)).toBe(place + 4 * P)
    expect(mremap(r, place + 4 * P, 4, 4, TO, place)).toBe(place)
    expect(r.loads(other, 6)).toEqual([90, 91, 1, 2, 3, 4])
  })

  test('smaller cuts the tail off first, whatever comes then', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.file(8).fd, 8, MAP_SHARED)
    expect(mremap(r, at, 8, 3, TO, at + 100 * P)).toBe(at + 100 * P)
    expect(r.loads(at + 100 * P, 4)).toEqual([1, 2, 3, -FAULT_MAPERR])
    expect([r.load(at), r.load(at + 7 * P), r.row(MM_TOTAL_VM)]).toEqual([-FAULT_MAPERR, -FAULT_MAPERR, 3])
    expect(mremap(r, at + 100 * P, TASK_PAGES, 1, TO, at)).toBe(-EINVAL)
    expect(mremap(r, at + 100 * P, TASK_PAGES, 1, 0)).toBe(-EINVAL)
    expect(mremap(r, at + 103 * P, 1, 1, TO, at)).toBe(-EFAULT)
    expect(mremap(r, at + 102 * P, 2, 2, TO, at)).toBe(-EFAULT)
    expect(r.load(at + 100 * P)).toBe(1)
  })

  test('next to its continuation makes one mapping of both', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(8)
    const low = r.map(fd, 4, MAP_SHARED, RW, 0)
    const high = mem.sys_mmap(r.mm, low + 100 * P, 4 * P, RW, MAP_SHARED, fd, 4 * P)
    expect(r.row(MM_MAP_COUNT)).toBe(2)
    expect(mremap(r, high, 4, 4, TO, low + 4 * P)).toBe(low + 4 * P)
    expect([r.row(MM_MAP_COUNT), r.row(MM_TOTAL_VM)]).toEqual([1, 8])
    expect(r.loads(low, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  })

  test('private memory that was never stored to belongs to its new place', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    const to = at + 100 * P
    expect(mremap(r, at, 2, 2, TO, to)).toBe(to)
    expect(mem.sys_mmap(r.mm, to + 2 * P, P, RW, ANON | MAP_FIXED, -1, 0)).toBe(to + 2 * P)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
    r.store(to, 1)
    expect(mremap(r, to, 3, 3, TO, at)).toBe(at)
    expect(mem.sys_mmap(r.mm, at + 3 * P, P, RW, ANON | MAP_FIXED, -1, 0)).toBe(at + 3 * P)
    expect(r.row(MM_MAP_COUNT)).toBe(2)
    expect(r.load(at)).toBe(1)
  })

  test('needs three mappings to spare, a row, and tables', () => {
    const limited = rig({ maxMapCount: 4 })
    const at = limited.map(-1, 1, ANON)
    expect(mremap(limited, at, 1, 1, TO, at + 4096 * 50)).toBe(-ENOMEM)
    const enough = rig({ maxMapCount: 5 })
    const there = enough.map(-1, 1, ANON)
    expect(mremap(enough, there, 1, 1, TO, there + 4096 * 50)).toBe(there + 4096 * 50)
    const full = rig({ maxVmas: 1 })
    const only = full.map(-1, 2, ANON)
    full.store(only, 5)
    expect(mremap(full, only, 2, 2, TO, only + 4096 * 50)).toBe(-ENOMEM)
    expect(full.load(only)).toBe(5)
  })

  test('without memory for tables gives everything back, locks counted as before', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 3, ANON)
    sys_mlock(r.mm, at, 3 * P)
    r.store(at, 5)
    r.m.allocator.setFail(() => true)
    expect(mremap(r, at, 3, 4, TO, at + 5000 * P)).toBe(-ENOMEM)
    r.m.allocator.setFail(undefined)
    expect([r.row(MM_LOCKED_VM), r.row(MM_TOTAL_VM), r.row(MM_MAP_COUNT)]).toEqual([3, 3, 1])
    expect(r.load(at)).toBe(5)
  })

  test.each([0, 1, 60, 127])('entries in several tables, %i pages off the borders', shift => {
    const r = rig({ pageShift: 9, nrFrames: 1024, swapSlots: 400, faultAroundPages: 1 })
    const P = r.pageSize
    const from = 1280 * P
    const to = (2560 + shift) * P
    expect(mem.sys_mmap(r.mm, from, 400 * P, RW, MAP_SHARED | MAP_FIXED, r.memory(400), 0)).toBe(from)
    const places = [0, 1, 66, 67, 127, 128, 130, 255, 399]
    r.remap(from + 66 * P, 1, 300)
    r.remap(from + 67 * P, 1, 301, abi.MAP_NONBLOCK)
    r.remap(from + 399 * P, 1, 0)
    for (const i of places) if (i !== 67) r.load(from + i * P)
    sys_clear_refs(r.mm, 4)
    const expected = places.map(i => r.load(from + i * P))
    sys_clear_refs(r.mm, 4)
    const tables = r.row(MM_NR_TABLES)
    expect(mremap(r, from, 400, 400, TO, to)).toBe(to)
    for (const i of places) expect(pteSoftDirty(r.pte(to + i * P))).not.toBe(0)
    expect(r.pte(to + 300 * P)).toBe(0)
    expect(places.map(i => r.load(to + i * P))).toEqual(expected)
    expect(r.vmaFlags(to) & VM_NONLINEAR).toBe(VM_NONLINEAR)
    r.m.reclaim.shrinkAll()
    expect(places.map(i => r.load(to + i * P))).toEqual(expected)
    expect(mremap(r, to, 400, 400, TO, from)).toBe(from)
    expect(r.row(MM_NR_TABLES)).toBeLessThanOrEqual(tables)
  })
})

describe('with DONTUNMAP', () => {
  test('private pages go, the source stays and is empty', () => {
    const r = rig({ swapSlots: 16 })
    const P = r.pageSize
    const at = r.map(-1, 3, ANON)
    r.store(at, 1)
    r.store(at + 2 * P, 3)
    const to = mremap(r, at, 3, 3, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
    expect(to).toBeGreaterThan(at)
    expect([r.loads(to, 3), r.loads(at, 3)]).toEqual([
      [1, 0, 3],
      [0, 0, 0]
    ])
    expect(r.row(MM_TOTAL_VM)).toBe(6)
    r.store(at, 9)
    expect([r.load(at), r.load(to)]).toEqual([9, 1])
  })

  test('a nonlinear window goes on showing what it showed, at both places', () => {
    const r = rig({ faultAroundPages: 1 })
    const P = r.pageSize
    const at = r.map(r.memory(8), 4, MAP_SHARED)
    r.remap(at, 1, 7)
    r.remap(at + P, 1, 6, abi.MAP_NONBLOCK)
    r.load(at + 2 * P)
    const to = at + 50 * P
    expect(mremap(r, at, 4, 4, TO | MREMAP_DONTUNMAP, to)).toBe(to)
    expect(r.pte(to) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect([pteFile(r.pte(at)), pteToPgoff(r.pte(at)), r.pte(at + 2 * P)]).toEqual([true, 7, 0])
    expect([r.loads(at, 4), r.loads(to, 4)]).toEqual([
      [8, 7, 3, 4],
      [8, 7, 3, 4]
    ])
    r.store(at, 80)
    expect(r.load(to)).toBe(80)
  })

  test('gives back the tables that it empties, and takes no change of size', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const at = r.map(-1, 300, ANON)
    for (const i of [0, 299]) r.store(at + i * P, i + 1)
    const tables = r.row(MM_NR_TABLES)
    for (const [old, now] of [
      [300, 299],
      [299, 300],
      [0, 300]
    ]) {
      expect(mremap(r, at, old, now, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)).toBe(-EINVAL)
    }
    const to = mremap(r, at, 300, 300, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
    expect([r.load(to), r.load(to + 299 * P)]).toEqual([1, 300])
    expect(r.row(MM_NR_TABLES)).toBe(tables)
    expect(mremap(r, to, 300, 300, MREMAP_DONTUNMAP)).toBe(-EINVAL)
  })

  test('leaves the lock with the source, and locks the copy', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    sys_mlock2(r.mm, at, 2 * P, abi.MLOCK_ONFAULT)
    r.store(at, 4)
    const to = mremap(r, at, 2, 2, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
    expect([r.vmaFlags(at) & VM_LOCKED, r.vmaFlags(to) & VM_LOCKED]).toEqual([VM_LOCKED, VM_LOCKED])
    expect([r.row(MM_LOCKED_VM), r.load(to), r.load(at)]).toEqual([4, 4, 0])
  })
})

describe('DONTUNMAP without FIXED', () => {
  const KEEP = MREMAP_MAYMOVE | MREMAP_DONTUNMAP

  test('takes the address as a hint, and looks at it first', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    r.store(at, 5)
    const hint = at + 4096 * P
    for (const bad of [hint + 1, at, at + P, at - P, TASK_PAGES * P, (TASK_PAGES - 1) * P]) {
      expect(mremap(r, at, 2, 2, KEEP, bad), `${bad}`).toBe(-EINVAL)
      expect(mremap(r, 3 * P, 2, 2, KEEP, hint + 1)).toBe(-EINVAL)
    }
    expect(mremap(r, at, 2, 2, KEEP, hint)).toBe(hint)
    expect([r.load(hint), r.load(at)]).toEqual([5, 0])
    const elsewhere = mremap(r, hint, 2, 2, KEEP, at)
    expect([at, at + P, hint]).not.toContain(elsewhere)
    expect(r.load(elsewhere)).toBe(5)
  })

  test('needs room for all of the copy within the limits, since the source stays', () => {
    const r = rig()
    const at = r.map(-1, 4, ANON)
    expect(sys_setrlimit(r.mm, RLIMIT_AS, 7)).toBe(0)
    expect(mremap(r, at, 4, 4, KEEP)).toBe(-ENOMEM)
    expect(mremap(r, at, 4, 4, TO, at + 64 * r.pageSize)).toBe(at + 64 * r.pageSize)
    expect(mremap(r, at + 64 * r.pageSize, 4, 4, TO | MREMAP_DONTUNMAP, at)).toBe(-ENOMEM)
    expect(sys_setrlimit(r.mm, RLIMIT_AS, 8)).toBe(0)
    expect(mremap(r, at + 64 * r.pageSize, 4, 4, KEEP)).toBeGreaterThan(0)
    const locked = rig()
    const there = locked.map(-1, 4, ANON | abi.MAP_LOCKED)
    expect(sys_setrlimit(locked.mm, RLIMIT_MEMLOCK, 7)).toBe(0)
    expect(mremap(locked, there, 4, 4, KEEP)).toBe(-EAGAIN)
    expect(sys_setrlimit(locked.mm, RLIMIT_MEMLOCK, 8)).toBe(0)
    expect(mremap(locked, there, 4, 4, KEEP)).toBeGreaterThan(0)
    expect(locked.row(MM_LOCKED_VM)).toBe(8)
  })
})

describe('without memory', () => {
  /** Eight pages of a file, and room behind their first four where the next four would continue them. */
  function neighbours(maxVmas: number) {
    const r = rig({ maxVmas, pageShift: 9, nrFrames: 128 })
    const P = r.pageSize
    const fd = r.memory(8)
    const first = 128 * 1000 * P
    const source = 128 * 2000 * P
    const put = (at: number, pgoff: number, pages: number) =>
      expect(mem.sys_mmap(r.mm, at, pages * P, RW, MAP_SHARED | MAP_FIXED, fd, pgoff * P)).toBe(at)
    put(first - 4 * P, 0, 4)
    put(source, 2, 6)
    expect(r.loads(source, 6)).toEqual([3, 4, 5, 6, 7, 8])
    return { r, P, first, move: () => mremap(r, source + 2 * P, 4, 4, TO, first), source }
  }

  test('for tables the target stays unmapped, and source and neighbours are as they were', () => {
    const { r, P, first, move, source } = neighbours(16)
    r.m.allocator.setFail(() => true)
    const before = [r.row(MM_TOTAL_VM), r.row(MM_MAP_COUNT)]
    expect(move()).toBe(-ENOMEM)
    r.m.allocator.setFail(undefined)
    expect([r.row(MM_TOTAL_VM), r.row(MM_MAP_COUNT)]).toEqual(before)
    expect(r.loads(first, 4)).toEqual([-FAULT_MAPERR, -FAULT_MAPERR, -FAULT_MAPERR, -FAULT_MAPERR])
    expect([...r.loads(first - 4 * P, 4), ...r.loads(source, 6)]).toEqual([1, 2, 3, 4, 3, 4, 5, 6, 7, 8])
    expect(move()).toBe(first)
    expect(r.loads(first, 4)).toEqual([5, 6, 7, 8])
  })

  test.each([2, 3, 4])('and with %i rows for mappings as well; nothing is left mapped twice', maxVmas => {
    const { r, P, first, move, source } = neighbours(maxVmas)
    r.m.allocator.setFail(() => true)
    expect(move()).toBe(-ENOMEM)
    r.m.allocator.setFail(undefined)
    expect(move()).toBe(-ENOMEM)
    expect([r.load(first), r.row(MM_TOTAL_VM), r.row(MM_MAP_COUNT)]).toEqual([-FAULT_MAPERR, 10, 2])
    expect([...r.loads(first - 4 * P, 4), ...r.loads(source, 6)]).toEqual([1, 2, 3, 4, 3, 4, 5, 6, 7, 8])
  })
})
