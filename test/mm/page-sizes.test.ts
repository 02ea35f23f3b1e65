/** The same life at every page size: deep trees, remaps, eviction, fork, truncation. */
import { describe, expect, test } from 'vitest'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_NR_TABLES } from '../../src/frame/mm-table.ts'
import { assertMachine } from '../../src/observe/check.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED } = abi

describe.each([9, 10, 11, 12, 13, 14, 15, 16])('pages of 2^%i bytes', pageShift => {
  test('remap, evict, fork, truncate', () => {
    const r = rig({ pageShift, nrFrames: 40, swapSlots: 100 })
    const { fd, store } = r.file(60)
    const at = r.map(fd, 60, MAP_SHARED)
    const order = Int32Array.from({ length: 60 }, (_, i) => (i * 7) % 60)
    expect(sys_remap_file_pages_vec(r.mm, at, order, 0, abi.MAP_NONBLOCK)).toBe(0)
    expect(r.loads(at, 60)).toEqual([...order].map(page => page + 1))
    for (let i = 0; i < 60; i++) expect(r.store(at + i * r.pageSize, 200 + order[i])).toBe(0)
    const child = r.fork()
    expect(r.loads(at, 60, child)).toEqual([...order].map(page => page + 200))
    expect(f.sys_ftruncate(r.m, fd, 30 * r.pageSize)).toBe(0)
    expect(r.loads(at, 60).map(word => word > 0)).toEqual([...order].map(page => page < 30))
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect(Array.from({ length: 30 }, (_, i) => r.storedWord(store, i))).toEqual(
      Array.from({ length: 30 }, (_, i) => i + 200)
    )
    assertMachine(r.m)
  })

  test('a tree that grows from one table to its full height in one fault', () => {
    const r = rig({ pageShift, nrFrames: 64 })
    const P = r.pageSize
    const low = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
    expect(r.store(low, 1)).toBe(0)
    const tables = r.row(MM_NR_TABLES)
    const top = (TASK_PAGES - 2) * P
    expect(mem.sys_mmap(r.mm, top, 2 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)).toBe(top)
    expect(r.store(top + P, 2)).toBe(0)
    assertMachine(r.m)
    expect(r.row(MM_NR_TABLES)).toBeGreaterThan(tables)
    const heap = mem.sys_brk(r.mm, 0)
    expect(mem.sys_brk(r.mm, heap + 3 * P)).toBe(heap + 3 * P)
    expect(r.store(heap + 2 * P, 3)).toBe(0)
    expect([r.load(low), r.load(top + P), r.load(heap + 2 * P)]).toEqual([1, 2, 3])
    expect(mem.sys_munmap(r.mm, top, 2 * P)).toBe(0)
    expect(mem.sys_brk(r.mm, heap)).toBe(heap)
    assertMachine(r.m)
    expect(r.load(low)).toBe(1)
  })
})
