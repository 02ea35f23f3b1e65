/**
 * What happens at a limit: as many mappings as there may be, no row for one more, no address left, options that are out
 * of range.
 */
import { describe, expect, test } from 'vitest'
import { EINVAL, EIO, ENOMEM, ESRCH } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_MAP_COUNT, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import { attachKernel, createKernel, MAX_RAM_BYTES, OptionError } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import * as proc from '../../src/syscall/process.ts'
import { faultyStore } from '../support/faulty-store.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const ANON = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS
const { PROT_READ } = abi

/** Two threads of one memory, which the test runs in turn. */
function twoThreads(): [Machine, Machine] {
  const few = { maxInodes: 4, maxFiles: 8, maxSpaces: 2, maxVmas: 16 }
  const kernel = createKernel({ nrFrames: 32, threads: 2, readaheadBytes: 0, ...few })
  return [kernel.machine, attachKernel(kernel.handle, undefined, -1).machine]
}

describe('as many mappings as there may be', () => {
  /** Twelve pages as one mapping, and so many others that no cut in the middle of one is possible. */
  function full(r: Rig): number {
    const P = r.pageSize
    const at = r.map(-1, 12, ANON)
    for (let i = 0; i < 12; i++) r.store(at + i * P, i + 1)
    for (let i = 0; r.row(MM_MAP_COUNT) < r.m.maxMapCount; i++) r.map(-1, 1, ANON, i % 2 === 0 ? PROT_READ : RW)
    return at
  }

  test('mremap that would cut a hole into its source, or into its target, changes nothing', () => {
    const r = rig({ maxMapCount: 8 })
    const P = r.pageSize
    const at = full(r)
    const total = r.row(MM_TOTAL_VM)
    const fixed = abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED
    const free = 0x10000 * P
    // Eight of twelve pages become four: pages 4 to 7 would have to go from the middle.
    expect(mem.sys_mremap(r.mm, at, 8 * P, 4 * P, 0, 0)).toBe(-ENOMEM)
    expect(mem.sys_mremap(r.mm, at, 8 * P, 4 * P, fixed, free)).toBe(-ENOMEM)
    expect(mem.sys_mremap(r.mm, at + 10 * P, P, P, fixed, at + 4 * P)).toBe(-ENOMEM)
    expect(mem.sys_munmap(r.mm, at + 4 * P, P)).toBe(-ENOMEM)
    expect(r.row(MM_TOTAL_VM)).toBe(total)
    expect(r.loads(at, 12)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
    // From the end it can.
    expect(mem.sys_mremap(r.mm, at, 12 * P, 4 * P, 0, 0)).toBe(at)
    expect(r.loads(at, 4)).toEqual([1, 2, 3, 4])
  })

  test('a heap that cannot be cut stays as it is', () => {
    const r = rig({ maxMapCount: 8 })
    const P = r.pageSize
    const start = mem.sys_brk(r.mm, 0)
    expect(mem.sys_brk(r.mm, start + 12 * P)).toBe(start + 12 * P)
    // One mapping that reaches beyond the heap's end, which the heap is then cut out of the middle of.
    const on = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS | abi.MAP_FIXED
    expect(mem.sys_mmap(r.mm, start + 12 * P, 4 * P, RW, on, -1, 0)).toBe(start + 12 * P)
    full(r)
    r.store(start + 8 * P, 88)
    expect(mem.sys_brk(r.mm, start + 4 * P)).toBe(start + 12 * P)
    expect(r.load(start + 8 * P)).toBe(88)
  })

  test('rows for mappings are used up: what needs one more is refused before anything changes', () => {
    const r = rig({ maxVmas: 4, maxSpaces: 2 })
    const P = r.pageSize
    const at = r.map(-1, 6, ANON)
    for (let i = 0; i < 6; i++) r.store(at + i * P, i + 1)
    r.map(-1, 1, ANON, PROT_READ)
    r.map(r.memory(1), 1, abi.MAP_SHARED)
    r.map(r.memory(1), 1, abi.MAP_SHARED)
    expect(mem.sys_munmap(r.mm, at + 3 * P, 3 * P)).toBe(-ENOMEM)
    expect(mem.sys_munmap(r.mm, at, 3 * P)).toBe(-ENOMEM)
    expect(mem.sys_mprotect(r.mm, at + 2 * P, P, PROT_READ)).toBe(-ENOMEM)
    expect(mem.sys_madvise(r.mm, at, P, abi.MADV_RANDOM)).toBeLessThan(0)
    expect(proc.sys_fork(r.mm)).toBe(-ENOMEM)
    expect(r.loads(at, 6)).toEqual([1, 2, 3, 4, 5, 6])
    expect(r.store(at + 5 * P, 60)).toBe(0)
  })

  test('no address is left to move a mapping to', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 4, ANON)
    r.store(at, 5)
    // All that is free below and above, but for less than it needs.
    for (let pages = 2 ** 30; pages >= 4; ) {
      const got = mem.sys_mmap(r.mm, 0, pages * P, abi.PROT_NONE, ANON | abi.MAP_NORESERVE, -1, 0)
      if (got < 0) pages = Math.floor(pages / 2)
    }
    const more = abi.MREMAP_MAYMOVE | abi.MREMAP_DONTUNMAP
    expect(mem.sys_mremap(r.mm, at, 4 * P, 4 * P, more, 0)).toBe(-ENOMEM)
    expect(r.load(at)).toBe(5)
  })
})

describe('neighbours that become one with a part of a mapping', () => {
  test('before it and behind it: the pages keep what they hold', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 12, ANON)
    for (let i = 0; i < 12; i++) r.store(at + i * P, i + 1)
    mem.sys_mprotect(r.mm, at + 4 * P, 4 * P, PROT_READ)
    expect(r.row(MM_MAP_COUNT)).toBe(3)
    // The first two pages of the middle go over to the mapping before them, then the last one to the mapping behind.
    expect(mem.sys_mprotect(r.mm, at + 4 * P, 2 * P, RW)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(3)
    expect(r.store(at + 5 * P, 60)).toBe(0)
    expect(r.store(at + 6 * P, 70)).toBeLessThan(0)
    expect(mem.sys_mprotect(r.mm, at + 7 * P, P, RW)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(3)
    expect(r.store(at + 7 * P, 80)).toBe(0)
    expect(r.loads(at, 12)).toEqual([1, 2, 3, 4, 5, 60, 7, 80, 9, 10, 11, 12])
    expect(mem.sys_mprotect(r.mm, at + 6 * P, P, RW)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
  })

  test('of a file: each part goes on showing its pages', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(12)
    const at = r.map(fd, 12, abi.MAP_SHARED)
    mem.sys_mprotect(r.mm, at + 4 * P, 4 * P, PROT_READ)
    expect(mem.sys_mprotect(r.mm, at + 4 * P, P, RW)).toBe(0)
    expect(mem.sys_mprotect(r.mm, at + 7 * P, P, RW)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(3)
    expect(r.loads(at, 12)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
    expect(r.store(at + 7 * P, 80)).toBe(0)
    expect(r.fileWord(fd, 7)).toBe(80)
  })
})

test('pages of two files in swap whose numbers meet in one hash chain are told apart', () => {
  const r = rig({ nrFrames: 32, swapSlots: 64 })
  const P = r.pageSize
  const fds = [r.memory(20), r.memory(20), r.memory(20)]
  const maps = fds.map(fd => r.map(fd, 20, abi.MAP_SHARED))
  maps.forEach((at, file) => {
    for (let i = 0; i < 20; i++) r.store(at + i * P, file * 100 + i)
  })
  expect(r.m.swap.nrUsed).toBeGreaterThan(25)
  // In another order than they went in, so that some leave from the middle of their chains.
  for (let i = 19; i >= 0; i--) {
    for (const file of [1, 2, 0]) expect(r.load(maps[file] + i * P)).toBe(file * 100 + i)
  }
  expect(f.sys_ftruncate(r.m, fds[1], 3 * P)).toBe(0)
  expect(r.loads(maps[1], 3)).toEqual([100, 101, 102])
  expect(r.loads(maps[2], 20)).toEqual(Array.from({ length: 20 }, (_, i) => 200 + i))
})

test('a call that turns out to be the last close of its file says when that fails', () => {
  const store = faultyStore(memoryStore({ sizeBytes: 4 * 4096 }))
  const [a, b] = twoThreads()
  const fd = f.sys_open(a, store, f.O_RDWR)
  f.sys_pwrite(a, fd, Uint8Array.of(7), 0)
  store.arm({ kind: 'error-for-good', op: 'write' })
  // While one thread reads, the other one closes the descriptor.
  let closed = 1
  store.arm({ kind: 'hook', op: 'read', run: () => (closed = f.sys_close(b, fd)) })
  expect(f.sys_pread(a, fd, new Uint8Array(4), 2 * 4096)).toBe(-EIO)
  expect(closed).toBe(0)
  expect(f.sys_fsize(a, fd)).toBeLessThan(0)
  expect(a.inodes.kind[1]).toBe(0)
})

test('a space that ends while its msync writes: the msync says so, and what it wrote is written', () => {
  const store = faultyStore(memoryStore({ sizeBytes: 8 * 4096 }))
  const [a, b] = twoThreads()
  const fd = f.sys_open(a, store, f.O_RDWR)
  const mm = proc.sys_mm_create(a) as Mm
  const at = mem.sys_mmap(mm, 0, 4 * 4096, RW, abi.MAP_SHARED, fd, 0)
  f.sys_copy_to_user(mm, at, Uint8Array.of(5))
  let ended = 1
  store.arm({ kind: 'hook', op: 'flush', run: () => (ended = proc.sys_exit(new Mm(b, mm.id, mm.generation))) })
  expect(mem.sys_msync(mm, at, 4 * 4096, abi.MS_SYNC)).toBe(-ESRCH)
  expect(ended).toBe(0)
  const bytes = new Uint8Array(1)
  store.inner.read(0, bytes, 0, 1)
  expect(bytes[0]).toBe(5)
  expect(f.sys_close(a, fd)).toBe(0)
})

test('taking off a secondary MMU that was never registered', () => {
  const r = rig()
  expect(proc.sys_mmu_kind_unregister(r.mm, 12_345)).toBe(-EINVAL)
  expect(proc.sys_mmu_notifier_unregister(r.mm, {})).toBe(-EINVAL)
})

describe('a machine is not made with', () => {
  const cases: [string, Parameters<typeof createKernel>[0], string][] = [
    ['too few frames', { nrFrames: 7 }, 'nrFrames'],
    ['too many', { nrFrames: 2 ** 22 }, 'nrFrames'],
    ['half a frame', { nrFrames: 32.5 }, 'nrFrames'],
    ['more bytes than slots of page tables can be numbered', { nrFrames: 2 ** 17, pageShift: 16 }, 'nrFrames'],
    ['pages too small', { nrFrames: 32, pageShift: 8 }, 'pageShift'],
    ['fault-around that is no power of two', { nrFrames: 32, faultAroundPages: 3 }, 'faultAroundPages'],
    ['threads that there are no rows for', { nrFrames: 32, threads: 65 }, 'threads'],
    ['patience that is none', { nrFrames: 32, patienceMs: 0 }, 'patienceMs'],
    ['swap without slots', { nrFrames: 32, swap: { store: memoryStore(), nrSlots: 0 } }, 'swap.nrSlots']
  ]

  test.each(cases)('%s', (_, options, option) => {
    let error: unknown
    try {
      createKernel(options)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(OptionError)
    expect(error).toMatchObject({ name: 'OptionError', option })
    expect((error as Error).message).toMatch(/^(\S+ is|131072 frames)/)
  })

  test('the largest number of bytes is the one that the message names', () => {
    expect(() => createKernel({ nrFrames: 2 ** 17, pageShift: 16 })).toThrow(`more than ${MAX_RAM_BYTES} bytes`)
  })
})
