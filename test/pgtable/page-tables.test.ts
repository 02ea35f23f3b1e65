/** Page tables: trees that grow and shrink, and what windows remember of them. */
import { describe, expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import { MM_HEIGHT, MM_NR_TABLES } from '../../src/frame/mm-table.ts'
import { assertMachine } from '../../src/observe/check.ts'
import type { PageWindow } from '../../src/pgtable/page-tables.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit } from '../../src/syscall/process.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const ANON = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS
/** Pages that one table covers with pages of 512 bytes. */
const LEAF = 128

function mapAt(r: Rig, vpn: number, pages: number): number {
  const at = vpn * r.pageSize
  expect(mem.sys_mmap(r.mm, at, pages * r.pageSize, RW, ANON | abi.MAP_FIXED, -1, 0)).toBe(at)
  return at
}

describe('a tree', () => {
  test('is as high as its highest page needs, whatever comes first, and is gone with the last entry', () => {
    const r = rig({ pageShift: 9 })
    const P = r.pageSize
    const low = mapAt(r, 16, 1)
    const middle = mapAt(r, LEAF * 5, 1)
    const high = mapAt(r, LEAF ** 3 * 3, 1)
    r.store(low, 1)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([1, 1])
    r.store(middle, 2)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([2, 3])
    r.store(high, 3)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([4, 8])
    assertMachine(r.m)
    expect([low, middle, high].map(at => r.load(at))).toEqual([1, 2, 3])
    expect(mem.sys_munmap(r.mm, low, P)).toBe(0)
    expect(r.row(MM_NR_TABLES)).toBe(7)
    expect(mem.sys_munmap(r.mm, high, P)).toBe(0)
    expect(r.row(MM_NR_TABLES)).toBe(4)
    expect(mem.sys_munmap(r.mm, middle, P)).toBe(0)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([0, 0])
    mapAt(r, LEAF ** 3 * 3, 1)
    r.store(high, 4)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES), r.load(high)]).toEqual([4, 4, 4])
  })

  test('says where the next table is, across any gap, and where none is', () => {
    const r = rig({ pageShift: 9 })
    const places = [20, LEAF - 1, LEAF * 7, LEAF ** 2 * 2 + 5, LEAF ** 3 + LEAF ** 2]
    const { tables } = r.m
    const end = LEAF ** 4
    expect(tables.nextLeaf(r.mm.id, 0, end)).toBe(end)
    for (const vpn of places) r.store(mapAt(r, vpn, 1), vpn)
    const met: number[] = []
    for (let vpn = tables.nextLeaf(r.mm.id, 0, end); vpn < end; ) {
      met.push(vpn)
      expect(tables.slot).toBe(tables.find(r.mm.id, vpn))
      vpn = tables.nextLeaf(r.mm.id, tables.leafEnd(vpn, end), end)
    }
    expect(met).toEqual([0, LEAF * 7, LEAF ** 2 * 2, LEAF ** 3 + LEAF ** 2])
    expect(tables.nextLeaf(r.mm.id, LEAF + 3, LEAF * 7)).toBe(LEAF * 7)
    expect(tables.nextLeaf(r.mm.id, LEAF * 7 + 3, LEAF * 8)).toBe(LEAF * 7 + 3)
    expect(tables.nextLeaf(r.mm.id, LEAF ** 4 * 3, LEAF ** 4 * 3 + 9)).toBe(LEAF ** 4 * 3 + 9)
    expect(tables.find(r.mm.id, LEAF ** 4 * 3)).toBe(0)
    expect(tables.find(r.mm.id, LEAF)).toBe(0)
    expect([tables.leafEnd(0, LEAF), tables.leafEnd(0, LEAF - 1), tables.leafEnd(LEAF, 5 * LEAF)]).toEqual([
      LEAF,
      LEAF - 1,
      2 * LEAF
    ])
  })

  test.each([1, 2, 3, 4])('that cannot have its table number %i stays as it was', nth => {
    const r = rig({ pageShift: 9 })
    r.store(mapAt(r, 16, 1), 1)
    const free = r.m.allocator.nrFree
    let left = nth
    r.m.allocator.setFail(() => --left === 0)
    expect(r.m.tables.ensure(r.mm.id, LEAF ** 3)).toBe(0)
    r.m.allocator.setFail(undefined)
    expect([r.m.allocator.nrFree, r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([free, 1, 1])
    assertMachine(r.m)
    const slot = r.m.tables.ensure(r.mm.id, LEAF ** 3)
    expect(slot).toBeGreaterThan(0)
    expect([r.row(MM_HEIGHT), r.row(MM_NR_TABLES)]).toEqual([4, 7])
    r.m.tables.releaseIfEmpty(slot)
    expect(r.row(MM_NR_TABLES)).toBe(4)
  })

  test('two pages whose tables are remembered in one place do not get each other’s', () => {
    const r = rig({ pageShift: 9, nrFrames: 128 })
    const apart = 256 * LEAF
    const one = mapAt(r, 5 * LEAF, 2)
    const two = mapAt(r, 5 * LEAF + apart, 2)
    r.store(one, 1)
    r.store(two, 2)
    expect([r.load(one), r.load(two), r.load(one)]).toEqual([1, 2, 1])
    mem.sys_munmap(r.mm, two, 2 * r.pageSize)
    expect(r.load(one)).toBe(1)
    mapAt(r, 5 * LEAF + apart, 2)
    expect([r.load(two), r.load(one)]).toEqual([0, 1])
  })
})

describe('a window', () => {
  interface Windowed {
    readonly r: Rig
    readonly window: PageWindow
    readonly drops: { n: number }
  }

  function windowed(nrFrames: number, vpn: number, pages: number): Windowed {
    const r = rig({ pageShift: 9, nrFrames })
    mapAt(r, vpn, pages)
    const drops = { n: 0 }
    const window = r.m.tables.addWindow(r.mm.id, vpn, pages, () => drops.n++)
    return { r, window, drops }
  }

  test('of one table holds that table, empty or not, until it is dropped', () => {
    const { r, window, drops } = windowed(64, 5 * LEAF + 3, 20)
    expect(window.base).toBe(r.m.tables.find(r.mm.id, 5 * LEAF + 3))
    expect([window.nrLeaves, window.bases.length]).toEqual([1, 0])
    const at = (5 * LEAF + 3) * r.pageSize
    r.store(at + 4 * r.pageSize, 7)
    expect(r.m.ram.i32[window.base + 4]).toBe(r.pte(at + 4 * r.pageSize))
    mem.sys_munmap(r.mm, at, 20 * r.pageSize)
    r.m.reclaim.shrinkAll()
    expect(r.m.tables.find(r.mm.id, 5 * LEAF + 3)).toBe(window.base)
    assertMachine(r.m)
    r.m.tables.dropWindow(r.mm.id, window)
    expect([window.base, drops.n, r.row(MM_NR_TABLES)]).toEqual([0, 1, 0])
    r.m.tables.dropWindow(r.mm.id, window)
    expect(drops.n).toBe(1)
  })

  test('of several tables has them side by side', () => {
    const { r, window, drops } = windowed(640, 5 * LEAF, 4 * LEAF - 2)
    expect([window.nrLeaves, r.row(MM_NR_TABLES)]).toEqual([4, 5])
    for (let leaf = 0; leaf < 4; leaf++) {
      expect(r.m.tables.find(r.mm.id, (5 + leaf) * LEAF)).toBe(window.base + leaf * LEAF)
    }
    for (const page of [0, LEAF, 4 * LEAF - 3]) r.store((5 * LEAF + page) * r.pageSize, page + 1)
    expect([0, LEAF, 4 * LEAF - 3].map(page => r.load((5 * LEAF + page) * r.pageSize))).toEqual([
      1,
      LEAF + 1,
      4 * LEAF - 2
    ])
    assertMachine(r.m)
    r.m.tables.dropWindows(r.mm.id)
    expect([window.base, drops.n, r.row(MM_NR_TABLES)]).toEqual([0, 1, 4])
  })

  test('gets no more than a 64th of memory held, all windows together', () => {
    const { r, window } = windowed(640, 5 * LEAF, 10 * LEAF)
    expect(window.base).toBeGreaterThan(0)
    const more = r.m.tables.addWindow(r.mm.id, 50 * LEAF, LEAF, () => {})
    expect([more.base, more.bases.length]).toEqual([0, 1])
    r.m.tables.dropWindow(r.mm.id, window)
    const again = r.m.tables.addWindow(r.mm.id, 50 * LEAF, LEAF, () => {})
    expect(again.base).toBeGreaterThan(0)
    const large = r.m.tables.addWindow(r.mm.id, 60 * LEAF, 10 * LEAF, () => {})
    expect(large.base).toBe(0)
    for (const other of [more, again, large]) r.m.tables.dropWindow(r.mm.id, other)
  })

  test('over tables that are there already finds them one by one, and forgets those that go', () => {
    const r = rig({ pageShift: 9, nrFrames: 640 })
    const P = r.pageSize
    const at = mapAt(r, 5 * LEAF, 3 * LEAF)
    r.store(at, 1)
    r.store(at + LEAF * P, 1)
    const window = r.m.tables.addWindow(r.mm.id, 5 * LEAF, 3 * LEAF, () => {})
    expect([window.base, window.bases.length, window.nrLeaves]).toEqual([0, 3, 3])
    window.bases[1] = r.m.tables.find(r.mm.id, 6 * LEAF)
    window.bases[0] = r.m.tables.find(r.mm.id, 5 * LEAF)
    window.bases[2] = 77
    mem.sys_munmap(r.mm, at + LEAF * P, P)
    expect([...window.bases]).toEqual([r.m.tables.find(r.mm.id, 5 * LEAF), 0, 77])
    mem.sys_munmap(r.mm, at, P)
    expect([...window.bases]).toEqual([0, 0, 77])
    r.m.tables.dropWindow(r.mm.id, window)
  })

  test.each([1, 2, 3, 4, 5])('that cannot have its frame number %i is one without held tables', nth => {
    const r = rig({ pageShift: 9, nrFrames: 640 })
    mapAt(r, 5 * LEAF, 4 * LEAF)
    const free = r.m.allocator.nrFree
    let left = nth
    r.m.allocator.setFail(() => --left === 0)
    const window = r.m.tables.addWindow(r.mm.id, 5 * LEAF, 4 * LEAF, () => {})
    r.m.allocator.setFail(undefined)
    assertMachine(r.m)
    if (window.base === 0) expect(r.m.allocator.nrFree).toBe(free)
    else expect(nth).toBeGreaterThan(2)
    r.m.tables.dropWindow(r.mm.id, window)
    expect([r.m.allocator.nrFree, r.row(MM_NR_TABLES)]).toEqual([free, 0])
  })

  test('of one table that cannot be had pins nothing', () => {
    const r = rig({ pageShift: 9, nrFrames: 64 })
    r.m.allocator.setFail(() => true)
    const window = r.m.tables.addWindow(r.mm.id, 5 * LEAF, 20, () => {})
    r.m.allocator.setFail(undefined)
    expect([window.base, window.bases.length, r.m.frames.pins(0)]).toEqual([0, 1, 0])
    const other = r.m.tables.addWindow(r.mm.id, 7 * LEAF, 20, () => {})
    expect(other.base).toBeGreaterThan(0)
    for (const each of [window, other]) r.m.tables.dropWindow(r.mm.id, each)
  })

  test('is told when its address space ends', () => {
    const { r, window, drops } = windowed(640, 5 * LEAF, 2 * LEAF)
    const other = r.m.tables.addWindow(r.mm.id, 50 * LEAF, 40 * LEAF, () => drops.n++)
    expect(other.base).toBe(0)
    expect(sys_exit(r.mm)).toBe(0)
    expect([drops.n, window.base]).toEqual([2, 0])
  })
})
