/** The reverse map: it finds every entry of a page, and no other; its nodes come and go with the entries. */
import { describe, expect, test } from 'vitest'
import { FAULT_ACCERR, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_ANONPAGES, MM_SWAPENTS } from '../../src/frame/mm-table.ts'
import { NR_ANON_PAGES, NR_DIRTY } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { assertMachine } from '../../src/observe/check.ts'
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  PTE_YOUNG,
  pteFile,
  pteFrame,
  pteMigration,
  pteToPgoff
} from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlock } from '../../src/syscall/mlock.ts'
import { sys_clear_refs } from '../../src/syscall/process.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

interface Crossed {
  readonly r: Rig
  readonly P: number
  /** Shows pages 0 to 7 in order. */
  readonly linear: number
  /** Shows page 5 where page 2 would be, page 2 where page 6 would be. */
  readonly crossed: number
  readonly fd: number
  /** Where page 2 lies. */
  readonly frame: number
}

/** A file that is mapped twice; every page was loaded and stored to through both. */
function crossed(): Crossed {
  const r = rig({ faultAroundPages: 1, swapSlots: 32 })
  const P = r.pageSize
  const { fd } = r.file(8)
  // First, so that who looks by place in the file comes to it first.
  const other = r.map(fd, 8, MAP_SHARED, 3)
  const linear = r.map(fd, 8, MAP_SHARED)
  r.remap(other + 2 * P, 1, 5)
  r.remap(other + 6 * P, 1, 2)
  for (const at of [linear, other]) {
    for (let i = 0; i < 8; i++) {
      r.load(at + i * P)
      r.store(at + i * P, 100 + i)
      r.load(at + i * P)
    }
  }
  return { r, P, linear, crossed: other, fd, frame: pteFrame(r.pte(linear + 2 * P)) }
}

describe('the mappers of a page are', () => {
  test('asked whether they used it, each once, and no entry of another page', () => {
    const { r, P, linear, crossed: other, frame } = crossed()
    expect(r.m.rmap.pageReferenced(frame)).toBe(2)
    expect(r.m.rmap.pageReferenced(frame)).toBe(0)
    expect([linear + 2 * P, other + 6 * P].map(at => r.pte(at) & PTE_YOUNG)).toEqual([0, 0])
    expect([other + 2 * P, linear + 5 * P, linear + P].map(at => r.pte(at) & PTE_YOUNG)).toEqual([8, 8, 8])
    r.load(other + 6 * P)
    expect([r.m.rmap.pageReferenced(frame), r.m.rmap.locked]).toEqual([1, false])
  })

  test('made clean and read-only, those that were not', () => {
    const { r, P, linear, crossed: other, frame } = crossed()
    expect(r.m.rmap.pageMkclean(frame)).toBe(2)
    expect(r.m.rmap.pageMkclean(frame)).toBe(0)
    const rights = PTE_WRITE | PTE_DIRTY
    expect([linear + 2 * P, other + 6 * P].map(at => r.pte(at) & rights)).toEqual([0, 0])
    expect([other + 2 * P, linear + 5 * P].map(at => r.pte(at) & rights)).toEqual([rights, rights])
    r.store(linear + 2 * P, 7)
    expect(r.m.rmap.pageMkclean(frame)).toBe(1)
  })

  test('unmapped, but for locked ones', () => {
    const { r, P, linear, crossed: other, frame } = crossed()
    sys_mlock(r.mm, other + 6 * P, P)
    expect([r.m.rmap.mappedLocked(frame), r.m.rmap.locked]).toEqual([true, true])
    expect(r.m.rmap.tryToUnmap(frame, 0)).toBe(false)
    expect([r.pte(linear + 2 * P), r.pte(other + 6 * P) & PTE_PRESENT]).toEqual([0, 1])
    expect(r.pte(other + 2 * P) & PTE_PRESENT).toBe(1)
    sys_munlock(r.mm, other + 6 * P, P)
    expect(r.m.rmap.mappedLocked(frame)).toBe(false)
    expect(r.m.rmap.tryToUnmap(frame, 0)).toBe(true)
    expect([pteFile(r.pte(other + 6 * P)), pteToPgoff(r.pte(other + 6 * P))]).toEqual([true, 2])
    expect([r.load(linear + 2 * P), r.load(other + 2 * P), r.load(other + 6 * P)]).toEqual([106, 105, 106])
  })

  test('locked only if one of them is, not if the mapping that would show it linearly is', () => {
    const { r, P, linear, crossed: other, frame } = crossed()
    sys_mlock(r.mm, other + 2 * P, P)
    expect(r.m.rmap.mappedLocked(frame)).toBe(false)
    expect(r.m.rmap.mappedLocked(pteFrame(r.pte(linear + 5 * P)))).toBe(true)
  })

  test('moved to another frame, and only they', () => {
    const { r, P, linear, crossed: other, frame } = crossed()
    const before = pteFrame(r.pte(other + 2 * P))
    expect(r.m.migration.begin(frame)).toBe(true)
    expect([linear + 2 * P, other + 6 * P].map(at => pteMigration(r.pte(at)))).toEqual([true, true])
    const target = r.m.allocator.alloc()
    r.m.migration.end(frame, target)
    expect([linear + 2 * P, other + 6 * P].map(at => pteFrame(r.pte(at)))).toEqual([target, target])
    expect(pteFrame(r.pte(other + 2 * P))).toBe(before)
    expect(r.m.rmap.pageMkclean(target)).toBe(2)
  })
})

describe('while a page moves', () => {
  test('a sync takes the right to store that its entries will have', () => {
    const { r, P, linear, crossed: other, fd, frame } = crossed()
    r.m.migration.begin(frame)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    r.m.migration.end(frame, r.m.allocator.alloc())
    for (const at of [linear + 2 * P, other + 6 * P]) expect(r.pte(at) & (PTE_WRITE | PTE_DIRTY)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    r.store(other + 6 * P, 9)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
  })

  test('looking at it changes nothing', () => {
    const { r, P, linear, frame } = crossed()
    r.m.migration.begin(frame)
    const away = r.pte(linear + 2 * P)
    expect([r.m.rmap.pageReferenced(frame), r.m.rmap.mappedLocked(frame), r.m.rmap.tryToUnmap(frame, 0)]).toEqual([
      0,
      false,
      false
    ])
    expect(r.pte(linear + 2 * P)).toBe(away)
    r.m.migration.end(frame, r.m.allocator.alloc())
    expect(r.pte(linear + 2 * P) & (PTE_PRESENT | PTE_WRITE)).toBe(PTE_PRESENT | PTE_WRITE)
  })

  test('truncation takes it from its entries, which remember where they were', () => {
    const { r, P, linear, crossed: other, fd, frame } = crossed()
    r.m.migration.begin(frame)
    expect(f.sys_ftruncate(r.m, fd, 0)).toBe(0)
    r.m.migration.end(frame, r.m.allocator.alloc())
    expect([r.pte(linear + 2 * P), pteToPgoff(r.pte(other + 6 * P))]).toEqual([0, 2])
    assertMachine(r.m)
  })
})

describe('an entry that alone knows of a store (Linux’s policy, shared memory)', () => {
  function unseen(): { r: Rig; at: number; fd: number } {
    const r = rig({ policy: POLICY_LINUX, swapSlots: 16, faultAroundPages: 1 })
    const fd = f.sys_memory(r.m, 'fresh', f.MEMORY_SHMEM, 2 * r.pageSize, 0)
    const at = r.map(fd, 2, MAP_SHARED)
    r.load(at)
    r.store(at, 5)
    expect([r.pte(at) & PTE_DIRTY, r.m.vmstat[NR_DIRTY]]).toEqual([PTE_DIRTY, 0])
    return { r, at, fd }
  }

  test('tells the page when it is reclaimed', () => {
    const { r, at } = unseen()
    r.m.reclaim.shrinkAll()
    expect([r.pte(at), r.m.swap.nrUsed, r.load(at)]).toEqual([0, 1, 5])
  })

  test('tells the page when it moves, and not when there was no store', () => {
    const { r, at } = unseen()
    const frame = pteFrame(r.pte(at))
    expect(r.m.migration.move(frame, r.m.allocator.alloc())).toBe(true)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    r.load(at + r.pageSize)
    expect(r.m.migration.move(pteFrame(r.pte(at + r.pageSize)), r.m.allocator.alloc())).toBe(true)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
  })
})

test('a page at its linear place with a protection of its own keeps that when it is reclaimed', () => {
  const r = rig({ swapSlots: 16 })
  const at = r.map(r.memory(4), 4, MAP_SHARED)
  const flags = abi.MAP_PAGE_PROT
  expect(sys_remap_file_pages(r.mm, at + r.pageSize, r.pageSize, abi.PROT_READ, 1, flags)).toBe(0)
  expect(r.load(at + r.pageSize)).toBe(2)
  r.m.reclaim.shrinkAll()
  expect(r.store(at + r.pageSize, 9)).toBe(-FAULT_ACCERR)
  expect(r.load(at + r.pageSize)).toBe(2)
})

describe('anonymous pages', () => {
  test('are counted once, however many spaces share them', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 4, ANON)
    for (let i = 0; i < 3; i++) r.store(at + i * r.pageSize, i + 1)
    const child = r.fork()
    expect([r.m.vmstat[NR_ANON_PAGES], r.row(MM_ANONPAGES), r.row(MM_ANONPAGES, child)]).toEqual([3, 3, 3])
    r.store(at, 9, child)
    expect([r.m.vmstat[NR_ANON_PAGES], r.row(MM_ANONPAGES, child)]).toEqual([4, 3])
    r.store(at, 8)
    expect(r.m.vmstat[NR_ANON_PAGES]).toBe(4)
    mem.sys_munmap(child, at, 4 * r.pageSize)
    expect(r.m.vmstat[NR_ANON_PAGES]).toBe(3)
    r.m.reclaim.shrinkAll()
    expect([r.m.vmstat[NR_ANON_PAGES], r.row(MM_ANONPAGES), r.row(MM_SWAPENTS)]).toEqual([0, 0, 3])
    expect(r.loads(at, 3)).toEqual([8, 2, 3])
  })

  test('whose nodes share a hash chain are told apart, by page and by space', () => {
    const r = rig({ nrFrames: 128, swapSlots: 64 })
    const P = r.pageSize
    // As many pages apart as there are buckets for the nodes of so few frames.
    const places = [0, 32, 64, 96]
    const at = r.map(-1, 100, ANON)
    for (const i of places) r.store(at + i * P, i + 1)
    const child = r.fork()
    r.store(at + 64 * P, 7, child)
    r.store(at + 32 * P, 8)
    assertMachine(r.m)
    expect(mem.sys_munmap(child, at + 32 * P, P)).toBe(0)
    expect(mem.sys_munmap(r.mm, at, P)).toBe(0)
    assertMachine(r.m)
    const to = mem.sys_mremap(r.mm, at + 96 * P, P, P, 3, at + 1000 * P)
    r.m.reclaim.shrinkAll()
    assertMachine(r.m)
    expect([r.load(at + 32 * P), r.load(at + 64 * P), r.load(to)]).toEqual([8, 65, 97])
    expect([0, 64, 96].map(i => r.load(at + i * P, child))).toEqual([1, 7, 97])
  })

  test.each([1, 2, 3])(
    'a copy that cannot have its allocation number %i is out of memory, and nothing changed',
    nth => {
      for (const flags of [ANON, MAP_PRIVATE]) {
        const r = rig()
        const at = r.map(flags === ANON ? -1 : r.file(1).fd, 1, flags)
        r.load(at)
        const before = r.pte(at)
        const free = r.m.allocator.nrFree
        let left = nth
        r.m.allocator.setFail(() => --left === 0)
        const code = r.store(at, 5)
        r.m.allocator.setFail(undefined)
        if (nth <= 2) {
          expect(code).toBe(-FAULT_OOM)
          expect([r.pte(at), r.m.allocator.nrFree]).toEqual([before, free])
        }
        expect([r.store(at, 6), r.load(at)]).toEqual([0, 6])
      }
    }
  )
})

describe('nodes', () => {
  test('live in slabs that go back when they are empty and others have room', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const { perSlab } = r.m.nodes
    expect(perSlab).toBe(25)
    const at = r.map(r.memory(4), 120, MAP_SHARED)
    for (let i = 0; i < 100; i++) r.remap(at + i * P, 1, (i + 1) % 4 === i ? 3 : (i + 1) % 4)
    const off = r.m.nodes.nrNodes
    expect([off, r.m.nodes.nrSlabs]).toEqual([100, 4])
    mem.sys_munmap(r.mm, at, 50 * P)
    expect(r.m.nodes.nrNodes).toBe(50)
    expect(r.m.nodes.nrSlabs).toBeLessThanOrEqual(3)
    mem.sys_munmap(r.mm, at + 50 * P, 49 * P)
    expect(r.m.nodes.nrNodes).toBe(1)
    expect(r.m.nodes.nrSlabs).toBeLessThanOrEqual(2)
    mem.sys_munmap(r.mm, at, 120 * P)
    expect([r.m.nodes.nrNodes, r.m.nodes.nrSlabs, r.m.nodes.nrFreeNodes]).toEqual([0, 0, 0])
  })

  test('are not made for entries at their linear place', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    r.loads(at, 8)
    expect([r.m.nodes.nrNodes, r.m.nodes.nrSlabs]).toEqual([0, 0])
    r.remap(at, 1, 4)
    expect([r.m.nodes.nrNodes, r.m.nodes.nrSlabs, r.m.nodes.isPrepared]).toEqual([1, 1, true])
    r.remap(at, 1, 0, MAP_NONBLOCK)
    expect([r.m.nodes.nrNodes, r.m.nodes.nrSlabs, r.m.nodes.isPrepared]).toEqual([0, 0, false])
  })
})

test('soft-dirty and used are told of each space for itself', () => {
  const r = rig()
  const fd = r.memory(2)
  const at = r.map(fd, 2, MAP_SHARED)
  r.remap(at, 1, 1)
  const child = r.fork()
  r.load(at, child)
  sys_clear_refs(r.mm, 1)
  r.load(at, child)
  expect([r.pte(at) & PTE_YOUNG, r.pte(at, child) & PTE_YOUNG]).toEqual([0, PTE_YOUNG])
  expect(r.m.rmap.pageReferenced(pteFrame(r.pte(at)))).toBe(1)
})
