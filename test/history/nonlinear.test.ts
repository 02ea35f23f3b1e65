/**
 * The bugs that Linux's nonlinear mappings are remembered for, each as a test that fails with the bug in it. In
 * brackets the year and the kernel that had it.
 */
import { describe, expect, test } from 'vitest'
import { EDEADLK, EIO, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_SWAPENTS } from '../../src/frame/mm-table.ts'
import { NR_DIRTY, NR_MLOCK } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { PopulateCursor, populateStep } from '../../src/mm/populate.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { PTE_PRESENT, PTE_WRITE, pteFile, pteFrame, pteMigration, pteSoftDirty } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock2, sys_munlock } from '../../src/syscall/mlock.ts'
import { sys_clear_refs, sys_exit, sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK } = abi

/** Locks the page that an address shows, and turns its entries into migration entries. → its frame. */
function beginMigration(r: Rig, at: number): number {
  const frame = pteFrame(r.pte(at))
  expect(r.pte(at) & PTE_PRESENT).toBe(PTE_PRESENT)
  expect(r.m.migration.begin(frame)).toBe(true)
  expect(pteMigration(r.pte(at))).toBe(true)
  return frame
}

function endMigration(r: Rig, ...frames: number[]): void {
  for (const frame of frames) r.m.migration.end(frame, r.m.allocator.alloc())
  assertMachine(r.m)
}

describe('bad rss-counter state: a page of a nonlinear mapping is taken away while it migrates (2014, Linux 3.14)', () => {
  const ways: readonly (readonly [string, (r: Rig, at: number) => number])[] = [
    ['remapped', (r, at) => r.remap(at, 1, 5, MAP_NONBLOCK)],
    ['unmapped', (r, at) => mem.sys_munmap(r.mm, at, r.pageSize)],
    ['given up', (r, at) => mem.sys_madvise(r.mm, at, r.pageSize, abi.MADV_DONTNEED)]
  ]
  test.each(ways)('%s: the resident counters are zero at the end', (_way, takeAway) => {
    const r = rig({ swapSlots: 16 })
    const shared = r.map(r.memory(8), 8, MAP_SHARED)
    expect(r.remap(shared, 4, 4)).toBe(0)
    const own = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(own, 7)
    expect([r.row(MM_FILEPAGES), r.row(MM_ANONPAGES)]).toEqual([4, 1])
    const frame = beginMigration(r, shared)
    expect(takeAway(r, shared)).toBe(0)
    expect(r.row(MM_FILEPAGES)).toBe(3)
    endMigration(r, frame)
    const ownFrame = beginMigration(r, own)
    expect(mem.sys_munmap(r.mm, own, r.pageSize)).toBe(0)
    expect(r.row(MM_ANONPAGES)).toBe(0)
    endMigration(r, ownFrame)
    expect(mem.sys_munmap(r.mm, shared, 8 * r.pageSize)).toBe(0)
    expect([r.row(MM_FILEPAGES), r.row(MM_ANONPAGES), r.row(MM_SWAPENTS)]).toEqual([0, 0, 0])
  })

  test('the address space ends: nothing is left of it', () => {
    const r = rig()
    const fd = r.memory(8)
    const child = r.fork()
    const at = r.map(fd, 8, MAP_SHARED, RW, 0, child)
    expect(r.remap(at, 4, 4, 0, child)).toBe(0)
    const frame = pteFrame(r.pte(at, child))
    expect(r.m.migration.begin(frame)).toBe(true)
    expect(sys_exit(child)).toBe(0)
    endMigration(r, frame)
    expect(r.fileWord(fd, 4)).toBe(5)
  })
})

describe('migration entries are lost when their mapping becomes nonlinear (swapops.h:131, 2014, Linux 3.14)', () => {
  test('each one outside the remapped range is found again', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    const frames = [3, 5, 7].map(page => beginMigration(r, at + page * r.pageSize))
    expect(r.remap(at, 2, 6)).toBe(0)
    endMigration(r, ...frames)
    for (let i = 0; i < 8; i++) expect(pteMigration(r.pte(at + i * r.pageSize))).toBe(false)
    expect(r.loads(at, 8)).toEqual([7, 8, 3, 4, 5, 6, 7, 8])
  })

  test('also one that was off its linear place, split off and moved meanwhile, and its twin in a child', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(8), 8, MAP_SHARED)
    r.remap(at + 4 * P, 1, 1)
    const frame = beginMigration(r, at + 4 * P)
    const child = r.fork()
    expect(pteMigration(r.pte(at + 4 * P, child))).toBe(true)
    expect(mem.sys_mprotect(r.mm, at + 4 * P, P, abi.PROT_READ)).toBe(0)
    const to = at + 5000 * P
    expect(mem.sys_mremap(r.mm, at + 4 * P, P, P, abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED, to)).toBe(to)
    endMigration(r, frame)
    expect([r.load(to), r.load(at + P), r.load(at + 4 * P, child)]).toEqual([2, 2, 2])
    r.store(at + 4 * P, 22, child)
    expect([r.load(to), r.load(at + P)]).toEqual([22, 22])
  })
})

test('reclaim locks a page in memory that another one is at work on (mlock.c:82, try_to_unmap_cluster, 2014, Linux 3.14)', () => {
  const r = rig()
  const P = r.pageSize
  const at = r.map(r.memory(8), 8, MAP_SHARED)
  r.remap(at, 4, 4, MAP_NONBLOCK)
  expect(sys_mlock2(r.mm, at, 4 * P, abi.MLOCK_ONFAULT)).toBe(0)
  // Faults do not count pages of locked mappings; reclaim does, when it comes across them.
  expect(r.loads(at, 4)).toEqual([5, 6, 7, 8])
  expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  const busy = beginMigration(r, at)
  r.m.reclaim.shrinkAll()
  expect(r.m.vmstat[NR_MLOCK]).toBe(3)
  expect(pteMigration(r.pte(at))).toBe(true)
  endMigration(r, busy)
  expect(r.m.vmstat[NR_MLOCK]).toBe(3)
  r.m.reclaim.shrinkAll()
  expect(r.m.vmstat[NR_MLOCK]).toBe(4)
  for (let i = 0; i < 4; i++) expect(r.pte(at + i * P) & PTE_PRESENT).toBe(PTE_PRESENT)
  expect(sys_munlock(r.mm, at, 4 * P)).toBe(0)
  expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  r.m.reclaim.shrinkAll()
  expect(pteFile(r.pte(at))).toBe(true)
})

describe('the soft-dirty bit of an entry is dropped (2013, Linux 3.13)', () => {
  /** A nonlinear page, its entry soft-dirty or not. */
  function remapped(soft: 'stored to' | 'only read'): { r: Rig; at: number; fd: number; expected: boolean } {
    const r = rig({ swapSlots: 16, faultAroundPages: 1 })
    const fd = r.memory(8)
    const at = r.map(fd, 8, MAP_SHARED)
    r.remap(at, 1, 5)
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    expect(pteSoftDirty(r.pte(at))).toBe(0)
    if (soft === 'stored to') r.store(at, 66)
    else r.load(at)
    const expected = soft === 'stored to'
    expect(pteSoftDirty(r.pte(at)) !== 0).toBe(expected)
    return { r, at, fd, expected }
  }

  function isSoft(r: Rig, at: number): boolean {
    return pteSoftDirty(r.pte(at)) !== 0
  }

  test('by remap_file_pages (fremap.c): what it writes is soft-dirty, whatever was there', () => {
    const { r, at } = remapped('only read')
    expect(r.remap(at, 2, 6, MAP_NONBLOCK)).toBe(0)
    expect([isSoft(r, at), isSoft(r, at + r.pageSize)]).toEqual([true, true])
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    expect([isSoft(r, at), isSoft(r, at + r.pageSize)]).toEqual([false, false])
    expect(pteFile(r.pte(at))).toBe(true)
  })

  test.each(['stored to', 'only read'] as const)('by truncation and by the fault after it (memory.c): %s', soft => {
    const { r, at, fd, expected } = remapped(soft)
    expect(f.sys_ftruncate(r.m, fd, r.pageSize)).toBe(0)
    expect([pteFile(r.pte(at)), isSoft(r, at)]).toEqual([true, expected])
    expect(f.sys_ftruncate(r.m, fd, 8 * r.pageSize)).toBe(0)
    expect(r.load(at)).toBe(0)
    expect([r.pte(at) & PTE_PRESENT, isSoft(r, at)]).toEqual([PTE_PRESENT, expected])
  })

  test.each(['stored to', 'only read'] as const)('by MADV_DONTNEED and by the fault after it (memory.c): %s', soft => {
    const { r, at, expected } = remapped(soft)
    expect(mem.sys_madvise(r.mm, at, r.pageSize, abi.MADV_DONTNEED)).toBe(0)
    expect([pteFile(r.pte(at)), isSoft(r, at)]).toEqual([true, expected])
    expect(r.load(at)).toBe(soft === 'stored to' ? 66 : 6)
    expect(isSoft(r, at)).toBe(expected)
  })

  test.each(['stored to', 'only read'] as const)('by reclaim (rmap.c): %s', soft => {
    const { r, at, expected } = remapped(soft)
    r.m.reclaim.shrinkAll()
    expect([pteFile(r.pte(at)), isSoft(r, at)]).toEqual([true, expected])
    expect(r.load(at)).toBe(soft === 'stored to' ? 66 : 6)
    expect(isSoft(r, at)).toBe(expected)
  })
})

describe('an emulated remap frees the file that it maps (2013, Linux 3.13; again in the first emulation of 2014)', () => {
  /** A file that only its mapping holds. */
  function heldByMapping(options: { maxMapCount?: number; maxVmas?: number } = {}) {
    const r = rig({ policy: POLICY_LINUX, ...options })
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    const closes = { n: 0 }
    store.close = () => {
      closes.n++
      return 0
    }
    expect(f.sys_close(r.m, fd)).toBe(0)
    return { r, at, store, closes }
  }

  test('the file outlives the only mapping that it had, and is closed once, with the last one', () => {
    const { r, at, closes } = heldByMapping()
    expect(r.remap(at, 8, 1)).toBe(0)
    expect(closes.n).toBe(0)
    expect(r.loads(at, 7)).toEqual([2, 3, 4, 5, 6, 7, 8])
    assertMachine(r.m)
    expect(r.remap(at + r.pageSize, 1, 7)).toBe(0)
    expect(r.load(at + r.pageSize)).toBe(8)
    expect(mem.sys_munmap(r.mm, at, 8 * r.pageSize)).toBe(0)
    expect(closes.n).toBe(1)
  })

  test.each([
    ['one mapping too many for the address space', { maxMapCount: 1 }],
    ['one mapping too many for the machine', { maxVmas: 2 }]
  ])('after an error as well: %s', (_why, limits) => {
    const { r, at, closes } = heldByMapping(limits)
    expect(r.remap(at + r.pageSize, 1, 6)).toBe(-ENOMEM)
    assertMachine(r.m)
    expect(r.load(at)).toBe(1)
    expect(closes.n).toBe(0)
    expect(mem.sys_munmap(r.mm, at, 8 * r.pageSize)).toBe(0)
    expect(closes.n).toBe(1)
  })
})

describe('page_mkclean does not see nonlinear mappings: syncs lose stores, dirty counts drift (2007, Linux 2.6.20)', () => {
  test.each([
    ['at one place', 1],
    ['at three places', 3]
  ])('a page shown %s: the store after a sync is noticed and written by the next', (_where, places) => {
    const r = rig()
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    for (let i = 0; i < places; i++) expect(r.remap(at + i * r.pageSize, 1, 6)).toBe(0)
    for (let round = 1; round <= 4; round++) {
      const place = at + (round % places) * r.pageSize
      expect(r.store(place, 100 * round)).toBe(0)
      expect(r.m.vmstat[NR_DIRTY]).toBe(1)
      expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_SYNC)).toBe(0)
      expect(r.storedWord(store, 6)).toBe(100 * round)
      expect(r.m.vmstat[NR_DIRTY]).toBe(0)
      for (let i = 0; i < places; i++) expect(r.pte(at + i * r.pageSize) & PTE_WRITE).toBe(0)
    }
    expect(store.calls.write).toBe(4)
  })

  test('what was stored before a write that failed is dirty still, and so is what was stored since', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.remap(at, 1, 3)
    r.store(at, 40)
    store.arm({ kind: 'error-once', op: 'write' })
    expect(f.sys_fsync(r.m, fd)).toBe(-EIO)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    r.store(at, 41)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect([r.storedWord(store, 3), r.m.vmstat[NR_DIRTY]]).toEqual([41, 0])
  })
})

describe('faults starve a hole punch (trinity, 2014, Linux 3.16)', () => {
  const PAGES = 32

  test('a punch ends, and the fault after it sees zeros', () => {
    const r = rig({ nrFrames: 128, faultAroundPages: 16 })
    const fd = r.memory(PAGES)
    const at = r.map(fd, PAGES, MAP_SHARED)
    r.remap(at, 8, 16)
    for (let round = 1; round <= 3; round++) {
      for (let i = 0; i < PAGES; i++) r.store(at + i * r.pageSize, round)
      expect(punch(r, fd, 4, 24)).toBe(0)
      expect(f.sys_fpages(r.m, fd)).toBe(PAGES - 8 - 16)
      expect(r.loads(at, PAGES)).toEqual(
        Array.from({ length: PAGES }, (_, i) => ((i < 8 ? i + 16 : i) >= 4 && (i < 8 ? i + 16 : i) < 28 ? 0 : round))
      )
    }
  })

  test('punches while a populate is half-way: neither keeps the other from its end', () => {
    const r = rig({ nrFrames: 128, faultAroundPages: 1 })
    const fd = r.memory(PAGES)
    const at = r.map(fd, PAGES, MAP_SHARED)
    r.remap(at, 8, 16, MAP_NONBLOCK)
    const first = at / r.pageSize
    const cursor = new PopulateCursor(first, first + PAGES, r.m.vmas.clock)
    let steps = 0
    for (; !cursor.done; steps++) {
      populateStep(r.m, r.mm.id, cursor, 4)
      expect(punch(r, fd, 0, PAGES)).toBe(0)
      expect(f.sys_fpages(r.m, fd)).toBe(0)
      assertMachine(r.m)
    }
    expect([steps, cursor.populated, cursor.error]).toEqual([PAGES / 4, PAGES, 0])
    expect(r.loads(at, PAGES)).toEqual(new Array(PAGES).fill(0))
  })

  test('a secondary MMU that faults the pages in again while they are punched is turned away', () => {
    const r = rig({ nrFrames: 128 })
    const fd = r.memory(PAGES)
    const at = r.map(fd, PAGES, MAP_SHARED)
    r.remap(at, 8, 16)
    expect(r.loads(at, PAGES).length).toBe(PAGES)
    const got: number[] = []
    const again = (_mm: number, vpn: number): void => {
      got.push(r.load(vpn * r.pageSize), -r.m.lastError)
    }
    sys_mmu_notifier_register(r.mm, {
      invalidateRangeStart: again,
      invalidateRangeEnd: again,
      invalidatePage: again,
      release: () => {}
    })
    mem.sys_madvise(r.mm, at, PAGES * r.pageSize, abi.MADV_DONTNEED)
    got.length = 0
    expect(punch(r, fd, 0, PAGES)).toBe(0)
    expect(got.length).toBeGreaterThan(0)
    expect(got.every((value, i) => value === (i % 2 === 0 ? -FAULT_BUS : -EDEADLK))).toBe(true)
    expect(f.sys_fpages(r.m, fd)).toBe(0)
    expect(r.loads(at, PAGES)).toEqual(new Array(PAGES).fill(0))
  })

  function punch(r: Rig, fd: number, page: number, pages: number): number {
    const mode = abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_KEEP_SIZE
    return f.sys_fallocate(r.m, fd, mode, page * r.pageSize, pages * r.pageSize)
  }
})
