/** mincore and msync, over every kind of entry and with holes. */
import { describe, expect, test } from 'vitest'
import { EBUSY, EIO, ENOMEM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK } = abi

function mincore(r: Rig, at: number, pages: number): number[] {
  const vec = new Uint8Array(pages).fill(9)
  expect(mem.sys_mincore(r.mm, at, pages * r.pageSize, vec)).toBe(0)
  return [...vec]
}

describe('mincore', () => {
  test('of private memory: present, in the swap cache, in swap, never touched', () => {
    const r = rig({ swapSlots: 16 })
    const P = r.pageSize
    const at = r.map(-1, 5, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 3; i++) r.store(at + i * P, i + 1)
    r.m.reclaim.shrinkAll()
    r.load(at + 3 * P)
    mem.sys_madvise(r.mm, at + P, P, abi.MADV_WILLNEED)
    r.load(at + 2 * P)
    expect(mincore(r, at, 5)).toEqual([0, 1, 1, 1, 0])
  })

  test('of files: the page that each entry shows, in memory or not', () => {
    const r = rig({ readaheadBytes: 0, faultAroundPages: 1 })
    const P = r.pageSize
    const { fd } = r.file(8)
    const at = r.map(fd, 4, MAP_SHARED)
    const other = r.map(fd, 4, MAP_SHARED, 3, 4)
    r.load(other + 2 * P)
    expect([mincore(r, at, 4), mincore(r, other, 4)]).toEqual([
      [0, 0, 0, 0],
      [0, 0, 1, 0]
    ])
    r.remap(at + P, 1, 6, MAP_NONBLOCK)
    r.remap(at + 2 * P, 1, 7, MAP_NONBLOCK)
    expect(mincore(r, at, 4)).toEqual([0, 1, 0, 0])
    expect(mincore(r, at, 8)).toEqual([0, 1, 0, 0, 0, 0, 1, 0])
    expect(mincore(r, at, 0)).toEqual([])
  })

  test('a migration entry is in neither place', () => {
    const r = rig()
    const at = r.map(r.memory(2), 2, MAP_SHARED)
    r.load(at)
    const frame = r.pte(at) >>> 8
    r.m.migration.begin(frame)
    expect(mincore(r, at, 1)).toEqual([0])
    r.m.migration.end(frame, r.m.allocator.alloc())
    expect(mincore(r, at, 1)).toEqual([1])
  })
})

describe('msync', () => {
  /** A linear mapping of all eight pages, dirty. */
  function dirty(): { r: Rig; P: number; fd: number; at: number; stored: () => number[] } {
    const r = rig()
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    for (let i = 0; i < 8; i++) r.store(at + i * r.pageSize, 100 + i)
    const stored = (): number[] => Array.from({ length: 8 }, (_, i) => r.storedWord(store, i))
    return { r, P: r.pageSize, fd, at, stored }
  }

  test('writes the pages of its range and no other', () => {
    const { r, P, at, stored } = dirty()
    expect(mem.sys_msync(r.mm, at + 2 * P, 3 * P, abi.MS_SYNC)).toBe(0)
    expect(stored()).toEqual([1, 2, 102, 103, 104, 6, 7, 8])
    expect(mem.sys_msync(r.mm, at + 7 * P, 1, abi.MS_SYNC)).toBe(0)
    expect(stored()).toEqual([1, 2, 102, 103, 104, 6, 7, 107])
    expect(mem.sys_msync(r.mm, at, 8 * P, abi.MS_ASYNC)).toBe(0)
    expect(mem.sys_msync(r.mm, at, 8 * P, 0)).toBe(0)
    expect(mem.sys_msync(r.mm, at, 0, abi.MS_SYNC)).toBe(0)
    expect(stored()).toEqual([1, 2, 102, 103, 104, 6, 7, 107])
  })

  test('of a range with holes does the rest, and says ENOMEM', () => {
    const { r, P, at, stored } = dirty()
    mem.sys_munmap(r.mm, at, P)
    mem.sys_munmap(r.mm, at + 4 * P, P)
    expect(mem.sys_msync(r.mm, at, 6 * P, abi.MS_SYNC)).toBe(-ENOMEM)
    expect(stored()).toEqual([1, 102 - 1, 102, 103, 5, 105, 7, 8])
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(-ENOMEM)
    expect(mem.sys_msync(r.mm, at + 6 * P, 9 * P, abi.MS_SYNC)).toBe(-ENOMEM)
    expect(stored().slice(6)).toEqual([106, 107])
  })

  test('MS_INVALIDATE is busy with locked pages, after what is before them is done', () => {
    const { r, P, at, stored } = dirty()
    sys_mlock(r.mm, at + 4 * P, P)
    expect(mem.sys_msync(r.mm, at, 8 * P, abi.MS_SYNC | abi.MS_INVALIDATE)).toBe(-EBUSY)
    expect(stored().map(word => word >= 100)).toEqual([true, true, true, true, false, false, false, false])
    expect(mem.sys_msync(r.mm, at, 8 * P, abi.MS_SYNC)).toBe(0)
    sys_munlockall(r.mm)
    expect(mem.sys_msync(r.mm, at, 8 * P, abi.MS_INVALIDATE)).toBe(0)
  })

  test('leaves private mappings and memory without a store alone, and ends with the store’s error', () => {
    const { r, P, fd, stored } = dirty()
    const own = r.map(fd, 8, MAP_PRIVATE)
    expect(mem.sys_msync(r.mm, own, 8 * P, abi.MS_SYNC)).toBe(0)
    expect(stored()[0]).toBe(1)
    const anonymous = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    const shared = r.map(r.memory(1), 1, MAP_SHARED)
    expect([anonymous, shared].map(at => mem.sys_msync(r.mm, at, P, abi.MS_SYNC))).toEqual([0, 0])
    const { fd: bad, store } = r.file(2)
    const at = r.map(bad, 2, MAP_SHARED)
    r.store(at, 5)
    store.arm({ kind: 'error-once', op: 'write' })
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(-EIO)
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(0)
    expect(f.sys_fsync(r.m, bad)).toBe(0)
  })
})
