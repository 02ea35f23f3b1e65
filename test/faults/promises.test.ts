/** What single calls promise about failure, one case each. */
import { afterEach, expect, test } from 'vitest'
import { EIO, EMFILE, ENOSPC } from '../../src/abi/errno.ts'
import { MAP_FIXED, MAP_PRIVATE, MAP_SHARED, MS_SYNC } from '../../src/abi/mman.ts'
import { Memory } from '../../src/api/memory.ts'
import { createKernel, type MachineOptions } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { checkMachine } from '../../src/observe/check.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_mmap, sys_msync, sys_munmap } from '../../src/syscall/memory.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'
import { pattern } from '../../tools/crash/program.ts'
import { faultyStore } from '../support/faulty-store.ts'
import { InjectingStore, Injector } from './injector.ts'

const PAGE = 1024
let m: Machine

function machine(options: Partial<MachineOptions> = {}): Mm {
  m = createKernel({ nrFrames: 40, pageShift: 10, maxVmas: 64, maxSpaces: 2, poison: true, ...options }).machine
  return sys_mm_create(m) as Mm
}

function map(mm: Mm, fd: number, pages: number): number {
  const at = sys_mmap(mm, 0, pages * PAGE, 3, MAP_SHARED, fd, 0)
  expect(at).toBeGreaterThan(0)
  return at
}

const disk = (pages: number) => faultyStore(memoryStore({ contents: pattern(9, pages * PAGE) }))

afterEach(() => {
  expect(checkMachine(m)).toEqual([])
})

test('exit tells of changes that could not be written at the last close', () => {
  const mm = machine()
  const store = disk(4)
  const fd = f.sys_open(m, store, f.O_RDWR)
  const at = map(mm, fd, 4)
  expect(f.sys_copy_to_user(mm, at, pattern(1, 8))).toBe(8)
  expect(f.sys_close(m, fd)).toBe(0)
  store.arm({ kind: 'error-once', op: 'write', errno: ENOSPC })
  expect(sys_exit(mm)).toBe(-ENOSPC)
  expect(mm.isAlive).toBe(false)
})

test('a mapping made over the last one of a file tells of changes that could not be written', () => {
  const mm = machine()
  const store = disk(4)
  const fd = f.sys_open(m, store, f.O_RDWR)
  const at = map(mm, fd, 4)
  expect(f.sys_copy_to_user(mm, at, pattern(1, 8))).toBe(8)
  expect(f.sys_close(m, fd)).toBe(0)
  store.arm({ kind: 'error-once', op: 'write' })
  expect(sys_mmap(mm, at, 4 * PAGE, 3, MAP_PRIVATE | MAP_FIXED | 0x20, -1, 0)).toBe(-EIO)
  // As after any error past the checks, the old range is gone.
  expect(f.sys_copy_from_user(mm, at, new Uint8Array(1))).toBeLessThan(0)
})

test('Memory.close tells of changes that only an address space still held', () => {
  const store = disk(4)
  const memory = new Memory({ size: 80 * 4096 })
  m = memory.machine
  const file = memory.open(store)
  const mapping = memory.space().map(file, { writable: true })
  mapping.setUint32(0, 7)
  file.close()
  store.arm({ kind: 'error-once', op: 'write' })
  expect(() => memory.close()).toThrow(expect.objectContaining({ code: 'EIO' }))
})

test('an open that fails closes the store', () => {
  machine({ maxFiles: 1, maxInodes: 2 })
  const injector = new Injector({ target: 'a.size', kind: 'EIO', call: 1, lasting: 'once' })
  const stores = ['a', 'b', 'c'].map(name => new InjectingStore(name, memoryStore(), injector))
  expect(f.sys_open(m, stores[0], f.O_RDWR)).toBe(-EIO)
  expect(f.sys_open(m, stores[1], f.O_RDWR)).toBeGreaterThanOrEqual(0)
  const refused = f.sys_open(m, stores[2], f.O_RDWR)
  expect([-EMFILE, -23]).toContain(refused)
  expect(stores.map(store => store.nrOpen)).toEqual([-1, 0, -1])
})

test('after a failed punch what is seen stays what it is', () => {
  for (const sectors of [0, 1, 2, 3, 4, 5]) {
    machine()
    const store = disk(8)
    const zeros = { ...bare(store), punch: () => -95 }
    const fd = f.sys_open(m, zeros, f.O_RDWR)
    const before = new Uint8Array(8 * PAGE)
    expect(f.sys_pread(m, fd, before, 0)).toBe(8 * PAGE)
    store.arm({ kind: 'partial-write', sectors })
    expect(f.sys_fallocate(m, fd, 3, PAGE, 3 * PAGE)).toBe(-EIO)
    const seen = new Uint8Array(8 * PAGE)
    expect(f.sys_pread(m, fd, seen, 0)).toBe(8 * PAGE)
    expect(m.reclaim.shrinkAll()).toBeGreaterThan(0)
    const later = new Uint8Array(8 * PAGE)
    expect(f.sys_pread(m, fd, later, 0)).toBe(8 * PAGE)
    expect(later).toEqual(seen)
    expect(seen.subarray(0, PAGE)).toEqual(before.subarray(0, PAGE))
    expect(seen.subarray(4 * PAGE)).toEqual(before.subarray(4 * PAGE))
    expect(f.sys_close(m, fd)).toBe(0)
  }
})

test('a sync of any range makes the size durable, also where the end was never written', () => {
  const mm = machine()
  const store = disk(2)
  const fd = f.sys_open(m, store, f.O_RDWR)
  const at = map(mm, fd, 2)
  expect(f.sys_pwrite(m, fd, pattern(1, 100), 9 * PAGE)).toBe(100)
  expect(f.sys_fallocate(m, fd, 3, 9 * PAGE, PAGE)).toBe(0)
  expect(sys_msync(mm, at, PAGE, MS_SYNC)).toBe(0)
  expect(store.inner.size()).toBe(9 * PAGE + 100)
})

test('bytes read from a file into a mapping are not lost when their page is cleaned meanwhile', () => {
  // Read pages of one file into a mapping of another, on a machine where each needs the eviction of a dirty page.
  const mm = machine({ nrFrames: 24, readaheadBytes: 2 * PAGE, faultAroundPages: 1 })
  const source = f.sys_open(m, disk(64), f.O_RDWR)
  const target = disk(64)
  const fd = f.sys_open(m, target, f.O_RDWR)
  const at = map(mm, fd, 64)
  const expected = pattern(9, 64 * PAGE)
  for (let page = 0; page < 64; page++) {
    const from = (page * 37) % 64
    // Whole and in order, so that the page being filled has dirty neighbours that are written with it.
    expect(f.sys_read_user(mm, at + page * PAGE, PAGE, source, from * PAGE)).toBe(PAGE)
    expected.set(pattern(9, 64 * PAGE).subarray(from * PAGE, (from + 1) * PAGE), page * PAGE)
  }
  m.reclaim.shrinkAll()
  expect(f.sys_fsync(m, fd)).toBe(0)
  const found = new Uint8Array(64 * PAGE)
  target.inner.read(0, found, 0, found.length)
  expect(found).toEqual(expected)
  expect(sys_munmap(mm, at, 64 * PAGE)).toBe(0)
})

test('MappedFile.write and read do not pass a failure off as a short count', () => {
  const store = disk(12)
  const memory = new Memory({ size: 80 * 4096, readahead: 0 })
  m = memory.machine
  const file = memory.open(store)
  const bytes = new Uint8Array(12 * PAGE)
  store.arm({ kind: 'error-for-good', op: 'read', call: 2 })
  expect(() => file.read(bytes, 0)).toThrow(expect.objectContaining({ code: 'EIO' }))
  // Both ends of the range are parts of pages that must be read first; the second cannot be.
  store.heal()
  memory.shrink()
  store.arm({ kind: 'error-for-good', op: 'read', call: 2 })
  expect(() => file.write(new Uint8Array(8000), 100)).toThrow(expect.objectContaining({ code: 'EIO' }))
  store.heal()
  expect(file.read(bytes, 0)).toBe(12 * PAGE)
  expect(file.read(bytes, 10 * PAGE)).toBe(2 * PAGE)
  memory.close()
})

/** A store object that can be changed: its functions, not its prototype's. */
function bare(store: ReturnType<typeof disk>) {
  return {
    name: 'file',
    identity: undefined,
    readOnly: false,
    durable: true,
    size: () => store.size(),
    read: (position: number, buffer: Uint8Array, offset: number, length: number) =>
      store.read(position, buffer, offset, length),
    write: (position: number, buffer: Uint8Array, offset: number, length: number) =>
      store.write(position, buffer, offset, length),
    flush: () => store.flush(),
    truncate: (sizeBytes: number) => store.truncate(sizeBytes),
    close: () => store.close()
  }
}
