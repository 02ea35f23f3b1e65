/**
 * Memory under pressure: eviction and return of every kind of page, locked pages, and what happens when nothing can go.
 */
import { describe, expect, test } from 'vitest'
import { EAGAIN, EIO, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_BUS, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { F_FLAGS, PG_ACTIVE, PG_LRU } from '../../src/frame/frame-table.ts'
import { LRU_ACTIVE_FILE } from '../../src/frame/lru.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_SWAPENTS } from '../../src/frame/mm-table.ts'
import { NR_DIRTY, NR_MLOCK } from '../../src/frame/vmstat.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { PTE_PRESENT, pteFile, pteSoftDirty, pteSwap } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlockall, sys_munlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { RLIMIT_MEMLOCK, sys_clear_refs, sys_exit, sys_setrlimit } from '../../src/syscall/process.ts'
import { useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK } = abi

describe('eviction and return', () => {
  test('of anonymous pages, by swap entries that keep soft-dirty', () => {
    const r = rig({ swapSlots: 64 })
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, 10 + i)
    sys_clear_refs(r.mm, 4)
    r.store(at, 20)
    r.m.reclaim.shrinkAll()
    expect(pteSwap(r.pte(at))).toBe(true)
    expect([r.row(MM_ANONPAGES), r.row(MM_SWAPENTS), r.m.swap.nrUsed]).toEqual([0, 4, 4])
    expect([pteSoftDirty(r.pte(at)) !== 0, pteSoftDirty(r.pte(at + r.pageSize)) !== 0]).toEqual([true, false])
    expect(r.loads(at, 4)).toEqual([20, 11, 12, 13])
    expect([r.row(MM_ANONPAGES), r.row(MM_SWAPENTS), r.m.swap.nrUsed]).toEqual([4, 0, 0])
    expect(pteSoftDirty(r.pte(at + r.pageSize))).toBe(0)
  })

  test('of anonymous pages that forked spaces share, one slot for all', () => {
    const r = rig({ swapSlots: 64 })
    const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(at, 10)
    const child = r.fork()
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(1)
    expect(r.load(at)).toBe(10)
    assertMachine(r.m)
    expect(r.store(at, 11)).toBe(0)
    assertMachine(r.m)
    expect([r.load(at), r.load(at, child)]).toEqual([11, 10])
    r.m.reclaim.shrinkAll()
    expect(sys_exit(child)).toBe(0)
    expect(r.load(at)).toBe(11)
  })

  test('of shared memory, by its place in the file', () => {
    const r = rig({ swapSlots: 64 })
    const fd = r.memory(8)
    const at = r.map(fd, 8, MAP_SHARED)
    r.remap(at, 4, 4)
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(8)
    expect(pteFile(r.pte(at))).toBe(true)
    expect(r.fileWord(fd, 5)).toBe(6)
    expect(r.loads(at, 8)).toEqual([5, 6, 7, 8, 5, 6, 7, 8])
    expect(r.m.swap.nrUsed).toBe(4)
  })

  test('of file pages: clean ones are dropped, dirty ones written first', () => {
    const r = rig()
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    r.remap(at, 8, 0)
    r.loads(at, 8)
    r.m.reclaim.shrinkAll()
    expect(store.calls.write).toBe(0)
    r.remap(at, 1, 7)
    r.store(at, 70)
    r.m.reclaim.shrinkAll()
    expect(store.calls.write).toBe(1)
    expect([r.storedWord(store, 7), r.m.vmstat[NR_DIRTY], r.row(MM_FILEPAGES)]).toEqual([70, 0, 0])
    expect(r.load(at)).toBe(70)
  })

  test('of a page that is mapped at many places, all of them', () => {
    const r = rig({ nrFrames: 48 })
    const { fd } = r.file(64)
    const at = r.map(fd, 64, MAP_SHARED)
    for (let i = 0; i < 64; i++) r.remap(at + i * r.pageSize, 1, 63)
    const child = r.fork()
    expect(new Set([...r.loads(at, 64), ...r.loads(at, 64, child)])).toEqual(new Set([64]))
    r.m.reclaim.shrinkAll()
    expect([r.row(MM_FILEPAGES), r.row(MM_FILEPAGES, child)]).toEqual([0, 0])
    expect(r.load(at + 9 * r.pageSize)).toBe(64)
  })
})

describe.each([8, 12, 16, 32, 64])('within %i frames', nrFrames => {
  test('a window over a file of 300 pages reads and writes right', () => {
    const r = rig({ nrFrames })
    const { fd, store } = r.file(300)
    const at = r.map(fd, 300, MAP_SHARED)
    for (let i = 0; i < 300; i++) expect(r.remap(at + i * r.pageSize, 1, (i * 7) % 300, MAP_NONBLOCK)).toBe(0)
    for (let i = 0; i < 300; i++) {
      const page = (i * 7) % 300
      expect(r.load(at + i * r.pageSize)).toBe(page + 1)
      if (i % 3 === 0) expect(r.store(at + i * r.pageSize, 1000 + page)).toBe(0)
    }
    assertMachine(r.m)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    for (let i = 0; i < 300; i += 3) expect(r.storedWord(store, (i * 7) % 300)).toBe(1000 + ((i * 7) % 300))
  })

  test('anonymous and shared memory many times as large, with swap', () => {
    const r = rig({ nrFrames, swapSlots: 500 })
    const shared = r.map(r.memory(100), 100, MAP_SHARED)
    const own = r.map(-1, 100, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 100; i++) {
        expect(r.load(shared + i * r.pageSize)).toBe(round === 0 ? i + 1 : i + 500)
        expect(r.store(shared + i * r.pageSize, i + 500)).toBe(0)
        expect(r.load(own + i * r.pageSize)).toBe(round === 0 ? 0 : i + 900)
        expect(r.store(own + i * r.pageSize, i + 900)).toBe(0)
      }
    }
    assertMachine(r.m)
  })
})

test('pages that somebody has borrowed do not hide those that can go', () => {
  const r = rig({ nrFrames: 64 })
  const { fd } = r.file(40)
  const at = r.map(fd, 40, MAP_SHARED)
  for (let round = 0; round < 3; round++) {
    r.loads(at, 40)
    r.m.reclaim.shrink(1)
  }
  const { frames } = r.m
  const pinned: number[] = []
  for (let frame = 1; frame < 64; frame++) {
    if ((frames.row(frame, F_FLAGS) & (PG_LRU | PG_ACTIVE)) === PG_LRU && frames.pin(frame)) pinned.push(frame)
  }
  expect(r.m.lru.count(LRU_ACTIVE_FILE)).toBeGreaterThan(0)
  expect(pinned.length).toBeGreaterThanOrEqual(r.m.lru.count(LRU_ACTIVE_FILE))
  expect(r.m.reclaim.shrink(5)).toBeGreaterThanOrEqual(5)
  for (const frame of pinned) frames.unpin(frame)
})

describe('locked pages', () => {
  test('stay, wherever they are mapped', () => {
    const r = rig({ swapSlots: 64 })
    const { fd } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    r.remap(at, 4, 4)
    expect(sys_mlock(r.mm, at + r.pageSize, 2 * r.pageSize)).toBe(0)
    const own = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
    expect(sys_mlock(r.mm, own, 1)).toBe(0)
    r.loads(at, 8)
    r.m.reclaim.shrinkAll()
    const present = Array.from({ length: 8 }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT)
    expect(present[1] + present[2]).toBe(2)
    expect(present[0] + present[3] + present[4]).toBe(0)
    expect(r.pte(own) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect(r.m.vmstat[NR_MLOCK]).toBe(3)
    expect(sys_munlock(r.mm, at, 8 * r.pageSize)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(1)
    r.m.reclaim.shrinkAll()
    expect(r.pte(at + r.pageSize) & PTE_PRESENT).toBe(0)
    expect(r.loads(at, 4)).toEqual([5, 6, 7, 8])
  })

  test('of memory that never leaves RAM stay after munlock, too', () => {
    const r = rig({ swapSlots: 64 })
    const fd = r.memory(4, 0, f.MEMORY_RAMFS)
    const at = r.map(fd, 4, MAP_SHARED)
    sys_mlock(r.mm, at, 4 * r.pageSize)
    sys_munlock(r.mm, at, 4 * r.pageSize)
    r.m.reclaim.shrinkAll()
    expect(f.sys_fpages(r.m, fd)).toBe(4)
    expect(r.loads(at, 4)).toEqual([1, 2, 3, 4])
  })

  test('fill memory: faults are OOM, calls ENOMEM or EAGAIN, and nothing is lost', () => {
    const r = rig({ nrFrames: 24, swapSlots: 64 })
    const { fd, store } = r.file(64)
    const own = r.map(-1, 40, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(own, 7)
    expect(sys_mlock(r.mm, own, 40 * r.pageSize)).toBe(-EAGAIN)
    const at = r.map(fd, 64, MAP_SHARED)
    expect(r.load(at)).toBe(-FAULT_OOM)
    expect(r.m.lastError).toBe(ENOMEM)
    expect(f.sys_pread(r.m, fd, new Uint8Array(4), 0)).toBe(-ENOMEM)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(4), 0)).toBe(-ENOMEM)
    expect(r.load(own)).toBe(7)
    assertMachine(r.m)
    expect(sys_munlockall(r.mm)).toBe(0)
    expect(r.loads(at, 64)).toEqual(Array.from({ length: 64 }, (_, i) => i + 1))
    expect(r.load(own)).toBe(7)
    expect(store.calls.write).toBe(0)
  })

  test('limits', () => {
    const r = rig()
    const at = r.map(-1, 8, MAP_PRIVATE | MAP_ANONYMOUS)
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 4)).toBe(0)
    expect(sys_mlock(r.mm, at, 5 * r.pageSize)).toBe(-ENOMEM)
    expect(sys_mlock(r.mm, at, 4 * r.pageSize)).toBe(0)
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT)).toBe(-ENOMEM)
    expect(mem.sys_mmap(r.mm, 0, r.pageSize, 3, MAP_PRIVATE | MAP_ANONYMOUS | abi.MAP_LOCKED, -1, 0)).toBe(-EAGAIN)
  })
})

describe('swap', () => {
  test('that is full keeps pages in memory', () => {
    const r = rig({ nrFrames: 32, swapSlots: 4 })
    const at = r.map(-1, 20, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 20; i++) expect(r.store(at + i * r.pageSize, i + 1)).toBe(0)
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(4)
    expect(r.loads(at, 20)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
  })

  test('whose store cannot be written keeps them, too, and later lets them go', () => {
    const r = rig({ swapSlots: 64 })
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    const shared = r.map(r.memory(4), 4, MAP_SHARED)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, i + 1)
    r.swapStore?.arm({ kind: 'error-for-good', op: 'write' })
    expect(r.m.reclaim.shrinkAll()).toBe(0)
    assertMachine(r.m)
    expect([r.loads(at, 4), r.loads(shared, 4)]).toEqual([
      [1, 2, 3, 4],
      [1, 2, 3, 4]
    ])
    r.swapStore?.heal()
    expect(r.m.reclaim.shrinkAll()).toBeGreaterThanOrEqual(8)
    expect(r.loads(at, 4)).toEqual([1, 2, 3, 4])
  })

  test('whose store cannot be read is SIGBUS, and keeps the slot', () => {
    const r = rig({ swapSlots: 64 })
    const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    const shared = r.map(r.memory(1), 1, MAP_SHARED)
    r.store(at, 5)
    r.m.reclaim.shrinkAll()
    r.swapStore?.arm({ kind: 'error-for-good', op: 'read' })
    expect([r.load(at), r.m.lastError]).toEqual([-FAULT_BUS, EIO])
    expect(r.load(shared)).toBe(-FAULT_BUS)
    assertMachine(r.m)
    r.swapStore?.heal()
    expect([r.load(at), r.load(shared)]).toEqual([5, 1])
  })
})
