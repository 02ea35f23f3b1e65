/**
 * Whom reclaim takes: the kind there is too much of, the oldest of it, and nobody who was used since it last looked.
 */
import { describe, expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE } from '../../src/frame/lru.ts'
import { NR_SHMEM, PGACTIVATE, PGSCAN, PGSTEAL, PSWPIN, PSWPOUT } from '../../src/frame/vmstat.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { PTE_PRESENT, pteFrame } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS
/** Of so few frames a single one is reclaimed when a single one is asked for. */
const FEW = { nrFrames: 63, readaheadBytes: 0, faultAroundPages: 1, swapSlots: 64 }

function present(r: Rig, at: number, pages: number): number[] {
  return Array.from({ length: pages }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT)
}

function anonymous(r: Rig, pages: number): number {
  const at = r.map(-1, pages, ANON)
  for (let i = 0; i < pages; i++) r.store(at + i * r.pageSize, i + 1)
  return at
}

function ofFile(r: Rig, pages: number): number {
  const at = r.map(r.file(pages).fd, pages, MAP_SHARED)
  for (let i = 0; i < pages; i++) r.load(at + i * r.pageSize)
  return at
}

describe('between files and private memory', () => {
  test.each([
    [4, 'file'],
    [8, 'file'],
    [9, 'private']
  ])('%i private pages beside 4 of files: a %s page goes', (pages, kind) => {
    const r = rig(FEW)
    const own = anonymous(r, pages)
    const file = ofFile(r, 4)
    expect(r.m.reclaim.shrink(1)).toBe(1)
    const left = [present(r, own, pages), present(r, file, 4)].map(bits => bits.reduce((a, b) => a + b))
    expect(left).toEqual(kind === 'file' ? [pages, 3] : [pages - 1, 4])
  })

  test('those on the active lists are counted as well', () => {
    const r = rig(FEW)
    const own = anonymous(r, 9)
    const file = ofFile(r, 4)
    // Used again: the private ones become active when reclaim looks at them.
    for (let i = 0; i < 9; i++) r.store(own + i * r.pageSize, 1)
    for (let i = 0; i < 4; i++) r.load(file + i * r.pageSize)
    for (let tries = 0; tries < 3 && r.m.lru.count(LRU_ACTIVE_ANON) === 0; tries++) r.m.reclaim.shrink(1)
    expect(r.m.lru.count(LRU_ACTIVE_ANON)).toBeGreaterThan(0)
    expect(r.m.lru.count(LRU_INACTIVE_FILE) + r.m.lru.count(LRU_ACTIVE_FILE)).toBe(4)
    expect(present(r, file, 4)).toEqual([1, 1, 1, 1])
  })

  test('when one kind is not enough, the other goes too, and no more than was asked for', () => {
    const r = rig(FEW)
    const own = anonymous(r, 4)
    const file = ofFile(r, 4)
    expect(r.m.reclaim.shrink(6)).toBe(6)
    expect([present(r, own, 4), present(r, file, 4)]).toEqual([
      [0, 0, 1, 1],
      [0, 0, 0, 0]
    ])
    expect(r.m.vmstat[PGSTEAL]).toBe(6)
  })
})

describe('of one kind', () => {
  test('the oldest goes first, in order', () => {
    const r = rig(FEW)
    const at = ofFile(r, 6)
    for (let i = 1; i <= 3; i++) {
      expect(r.m.reclaim.shrink(1)).toBe(1)
      expect(present(r, at, 6)).toEqual(Array.from({ length: 6 }, (_, p) => (p < i ? 0 : 1)))
    }
    expect([r.m.vmstat[PGSCAN], r.m.vmstat[PGSTEAL], r.m.vmstat[PGACTIVATE]]).toEqual([3, 3, 0])
  })

  test('a page that was used since it was faulted in gets another round', () => {
    const r = rig(FEW)
    const at = ofFile(r, 4)
    r.load(at)
    r.load(at + r.pageSize)
    expect(r.m.reclaim.shrink(2)).toBe(2)
    expect(present(r, at, 4)).toEqual([1, 1, 0, 0])
    expect([r.m.vmstat[PGSCAN], r.m.vmstat[PGACTIVATE]]).toEqual([4, 0])
    // Not used in that round: now they go.
    expect(r.m.reclaim.shrink(1)).toBe(1)
    expect(r.m.vmstat[PGACTIVATE]).toBe(0)
    expect(present(r, at, 2).reduce((a, b) => a + b)).toBe(1)
  })

  test('one that was used in two rounds, or by two at once, becomes active; a private one after the first', () => {
    const r = rig(FEW)
    const at = ofFile(r, 6)
    r.load(at)
    expect(r.m.reclaim.shrink(1)).toBe(1)
    expect(r.m.reclaim.shrink(4)).toBe(4)
    r.load(at)
    r.load(at + r.pageSize)
    expect([r.m.reclaim.shrink(1), present(r, at, 2)]).toEqual([1, [1, 0]])
    expect([r.m.lru.count(LRU_ACTIVE_FILE), r.m.vmstat[PGACTIVATE], present(r, at, 1)]).toEqual([1, 1, [1]])

    const two = rig(FEW)
    const once = ofFile(two, 4)
    two.remap(once + 3 * two.pageSize, 1, 0)
    for (const i of [0, 3]) two.load(once + i * two.pageSize)
    expect(two.m.reclaim.shrink(1)).toBe(1)
    expect([two.m.lru.count(LRU_ACTIVE_FILE), present(two, once, 4)]).toEqual([1, [1, 0, 1, 1]])

    const own = rig(FEW)
    const page = anonymous(own, 3)
    own.store(page, 9)
    expect(own.m.reclaim.shrink(1)).toBe(1)
    expect([own.m.lru.count(LRU_ACTIVE_ANON), present(own, page, 3)]).toEqual([1, [1, 0, 1]])
  })

  test('when all were used they go all the same', () => {
    const r = rig(FEW)
    const at = ofFile(r, 4)
    for (let i = 0; i < 4; i++) r.load(at + i * r.pageSize)
    expect(r.m.reclaim.shrink(4)).toBe(4)
    expect(present(r, at, 4)).toEqual([0, 0, 0, 0])
  })

  test('active ones grow old when there are more of them than of the others', () => {
    const r = rig(FEW)
    const at = anonymous(r, 6)
    for (let i = 0; i < 6; i++) r.store(at + i * r.pageSize, 1)
    r.m.reclaim.shrink(1)
    const active = r.m.lru.count(LRU_ACTIVE_ANON)
    const inactive = r.m.lru.count(LRU_INACTIVE_ANON)
    expect(active + inactive).toBe(5)
    expect(r.m.reclaim.shrink(5)).toBe(5)
    expect([r.m.lru.count(LRU_ACTIVE_ANON), r.m.lru.count(LRU_INACTIVE_ANON)]).toEqual([0, 0])
    expect(r.loads(at, 6)).toEqual([1, 1, 1, 1, 1, 1])
  })
})

describe('what becomes of them', () => {
  test('a private page is written to swap once, and not again while it is only read', () => {
    const r = rig(FEW)
    const at = anonymous(r, 3)
    expect(r.m.reclaim.shrinkAll()).toBeGreaterThanOrEqual(3)
    expect([r.m.vmstat[PSWPOUT], r.swapStore?.calls.write]).toEqual([3, 3])
    const child = r.fork()
    expect([r.loads(at, 3), r.m.vmstat[PSWPIN]]).toEqual([[1, 2, 3], 3])
    r.m.reclaim.shrinkAll()
    expect([r.m.vmstat[PSWPOUT], r.swapStore?.calls.write, r.m.swap.nrUsed]).toEqual([3, 3, 3])
    expect(r.loads(at, 3, child)).toEqual([1, 2, 3])
    r.store(at, 9)
    r.m.reclaim.shrinkAll()
    expect([r.m.vmstat[PSWPOUT], r.load(at), r.load(at, child)]).toEqual([4, 9, 1])
  })

  test('a dirty page of a file is written and goes; one whose write fails stays, and the next one goes', () => {
    const r = rig(FEW)
    const { fd, store } = r.file(3)
    const at = r.map(fd, 3, MAP_SHARED)
    r.store(at, 10)
    r.store(at + 2 * r.pageSize, 30)
    expect(r.m.reclaim.shrink(1)).toBe(1)
    expect([f.sys_fpages(r.m, fd), r.storedWord(store, 0), store.calls.write]).toEqual([1, 10, 1])
    store.arm({ kind: 'error-for-good', op: 'write' })
    expect(r.m.reclaim.shrink(1)).toBe(0)
    expect([f.sys_fpages(r.m, fd), r.load(at + 2 * r.pageSize)]).toEqual([1, 30])
    r.load(at + r.pageSize)
    expect(r.m.reclaim.shrink(1)).toBe(1)
    expect(f.sys_fpages(r.m, fd)).toBe(1)
    store.heal()
  })

  test('shared memory that was never stored to is dropped, the rest goes to swap', () => {
    const r = rig(FEW)
    const fd = f.sys_memory(r.m, 'shared', f.MEMORY_SHMEM, 4 * r.pageSize, 0)
    const at = r.map(fd, 4, MAP_SHARED)
    r.loads(at, 3)
    r.store(at, 7)
    expect([f.sys_fpages(r.m, fd), r.m.vmstat[NR_SHMEM]]).toEqual([3, 3])
    expect(r.m.reclaim.shrinkAll()).toBeGreaterThanOrEqual(3)
    expect([f.sys_fpages(r.m, fd), r.m.vmstat[NR_SHMEM], r.m.vmstat[PSWPOUT], r.m.swap.nrUsed]).toEqual([1, 0, 1, 1])
    expect(r.loads(at, 4)).toEqual([7, 0, 0, 0])
  })

  test('of a locked mapping it is counted as locked, once, and not looked at again', () => {
    const r = rig(FEW)
    const at = ofFile(r, 3)
    sys_mlock(r.mm, at, r.pageSize)
    expect(r.m.reclaim.shrinkAll()).toBe(2)
    const scanned = r.m.vmstat[PGSCAN]
    expect(r.m.reclaim.shrinkAll()).toBe(0)
    expect([r.m.vmstat[PGSCAN], present(r, at, 3)]).toEqual([scanned, [1, 0, 0]])
    sys_munlockall(r.mm)
  })

  test('after MADV_FREE it is dropped and counted, without swap', () => {
    const r = rig(FEW)
    const at = anonymous(r, 2)
    mem.sys_madvise(r.mm, at, 2 * r.pageSize, abi.MADV_FREE)
    const free = r.m.allocator.nrFree
    expect(r.m.reclaim.shrink(2)).toBe(2)
    expect([r.m.vmstat[PGSTEAL], r.m.vmstat[PSWPOUT], r.m.swap.nrUsed]).toEqual([2, 0, 0])
    expect(r.m.allocator.nrFree).toBeGreaterThanOrEqual(free + 2)
    expect(r.loads(at, 2)).toEqual([0, 0])
  })
})

test('who is called while it runs and asks for more gets nothing', () => {
  const r = rig(FEW)
  ofFile(r, 4)
  const got: number[] = []
  sys_mmu_notifier_register(r.mm, { invalidatePage: () => got.push(r.m.reclaim.shrink(2)) })
  expect(r.m.reclaim.shrink(2)).toBe(2)
  expect(got).toEqual([0, 0])
  expect(r.m.reclaim.shrink(1)).toBe(1)
})

describe('moving pages', () => {
  test('is refused to pinned ones, to those that move already, and to what is no page', () => {
    const r = rig(FEW)
    const at = anonymous(r, 1)
    const frame = pteFrame(r.pte(at))
    const { migration, frames } = r.m
    const target = r.m.allocator.alloc()
    expect(frames.pin(frame)).toBe(true)
    expect([migration.canMove(frame), migration.begin(frame), migration.move(frame, target)]).toEqual([
      false,
      false,
      false
    ])
    frames.unpin(frame)
    const table = r.m.tables.find(r.mm.id, at / r.pageSize) >>> r.m.tables.leafShift
    expect([migration.canMove(table), migration.begin(table)]).toEqual([false, false])
    expect(migration.begin(frame)).toBe(true)
    expect([migration.canMove(frame), migration.begin(frame)]).toEqual([false, false])
    migration.end(frame, target)
    expect([pteFrame(r.pte(at)), r.load(at)]).toEqual([target, 1])
  })

  test('takes the dirtiness with them, and nothing else makes them dirty', () => {
    const r = rig(FEW)
    const { fd, store } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED)
    r.load(at)
    r.store(at + r.pageSize, 5)
    for (let i = 0; i < 2; i++) {
      expect(r.m.migration.move(pteFrame(r.pte(at + i * r.pageSize)), r.m.allocator.alloc())).toBe(true)
    }
    expect([f.sys_fsync(r.m, fd), store.calls.write, r.storedWord(store, 1)]).toEqual([0, 1, 5])
  })

  test('makes a run of frames around what cannot move, if there is one', () => {
    const r = rig({ ...FEW, nrFrames: 40 })
    const at = anonymous(r, 30)
    const frames = Array.from({ length: 30 }, (_, i) => pteFrame(r.pte(at + i * r.pageSize)))
    const pinned = frames.filter(frame => frame % 8 === 0)
    for (const frame of pinned) r.m.frames.pin(frame)
    expect(r.m.allocator.allocRun(9)).toBe(0)
    assertMachine(r.m)
    const run = r.m.allocator.allocRun(6)
    expect(run).toBeGreaterThan(0)
    for (let frame = run; frame < run + 6; frame++) r.m.allocator.free(frame)
    for (const frame of pinned) r.m.frames.unpin(frame)
    expect(r.loads(at, 30)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1))
  })

  test('makes no run where memory cannot be had', () => {
    const r = rig({ nrFrames: 40 })
    const at = anonymous(r, 30)
    expect(r.m.allocator.allocRun(12)).toBe(0)
    assertMachine(r.m)
    expect(r.loads(at, 30)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1))
  })
})
