/**
 * Page migration: entries are found again wherever they went meanwhile (the bad rss-counter and lost migration entries
 * of Linux 3.14).
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createKernel, type Machine, type Mm } from '../../src/index.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { pteMigration, pteSoftDirty } from '../../src/pgtable/pte.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import * as file from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as memory from '../../src/syscall/memory.ts'
import { sys_clear_refs, sys_exit, sys_fork, sys_mm_create } from '../../src/syscall/process.ts'

const PAGE = 4096
const RW = 3
const SHARED = 1
const NONBLOCK = 0x10000

let m: Machine
let mm: Mm
let at: number
let fd: number

beforeEach(() => {
  m = createKernel({ nrFrames: 128, swap: { store: memoryStore(), nrSlots: 64 }, faultAroundPages: 1 }).machine
  mm = sys_mm_create(m) as Mm
  fd = file.sys_memory(m, 'shm', file.MEMORY_SHMEM, 16 * PAGE, 0)
  at = memory.sys_mmap(mm, 0, 16 * PAGE, RW, SHARED, fd, 0)
  for (let i = 0; i < 16; i++) store(mm, at + i * PAGE, 100 + i)
})

afterEach(() => {
  assertMachine(m)
  if (mm.isAlive) sys_exit(mm)
  file.sys_close(m, fd)
  expect(m.allocator.nrFree).toBe(m.ram.nrFrames - 1)
})

function store(space: Mm, address: number, value: number): number {
  return file.sys_copy_to_user(space, address, Uint8Array.of(value))
}

function load(space: Mm, address: number): number {
  const byte = new Uint8Array(1)
  expect(file.sys_copy_from_user(space, address, byte)).toBe(1)
  return byte[0]
}

function pteAt(address: number): number {
  return m.tables.get(mm.id, address / PAGE)
}

/** The frame that an address shows, its entry made young by a load. */
function frameAt(address: number): number {
  load(mm, address)
  return pteAt(address) >>> 8
}

function finish(frame: number): number {
  const target = m.allocator.alloc()
  m.migration.end(frame, target)
  return target
}

test('a page moves: contents, dirtiness, every mapper at a linear or nonlinear place', () => {
  expect(sys_remap_file_pages(mm, at + 8 * PAGE, PAGE, 0, 2, 0)).toBe(0)
  const before = frameAt(at + 2 * PAGE)
  expect(frameAt(at + 8 * PAGE)).toBe(before)
  expect(m.migration.begin(before)).toBe(true)
  expect(pteMigration(pteAt(at + 2 * PAGE)) && pteMigration(pteAt(at + 8 * PAGE))).toBe(true)
  expect(file.sys_copy_from_user(mm, at + 8 * PAGE, new Uint8Array(1))).toBe(-14)
  const after = finish(before)
  expect(m.allocator.isFree(before)).toBe(true)
  expect([frameAt(at + 2 * PAGE), frameAt(at + 8 * PAGE)]).toEqual([after, after])
  expect([load(mm, at + 2 * PAGE), load(mm, at + 8 * PAGE)]).toEqual([102, 102])
  store(mm, at + 8 * PAGE, 7)
  expect(load(mm, at + 2 * PAGE)).toBe(7)
})

test('remap over a migration entry: resident counters exact, the old page still reachable', () => {
  const frame = frameAt(at + 3 * PAGE)
  expect(m.migration.begin(frame)).toBe(true)
  expect(sys_remap_file_pages(mm, at + 3 * PAGE, PAGE, 0, 9, NONBLOCK)).toBe(0)
  finish(frame)
  assertMachine(m)
  expect(load(mm, at + 3 * PAGE)).toBe(109)
  expect(sys_remap_file_pages(mm, at + 3 * PAGE, PAGE, 0, 3, 0)).toBe(0)
  expect(load(mm, at + 3 * PAGE)).toBe(103)
})

test('a vma turned nonlinear while one of its pages moves: the entry outside the remapped range is found', () => {
  const frame = frameAt(at + 5 * PAGE)
  expect(m.migration.begin(frame)).toBe(true)
  expect(sys_remap_file_pages(mm, at, 2 * PAGE, 0, 10, 0)).toBe(0)
  finish(frame)
  expect(pteMigration(pteAt(at + 5 * PAGE))).toBe(false)
  expect(load(mm, at + 5 * PAGE)).toBe(105)
})

test('munmap, mprotect, mremap and fork while a page moves', () => {
  expect(sys_remap_file_pages(mm, at + 4 * PAGE, PAGE, 0, 12, 0)).toBe(0)
  const frame = frameAt(at + 4 * PAGE)
  expect(m.migration.begin(frame)).toBe(true)
  const child = sys_fork(mm) as Mm
  expect(memory.sys_mprotect(mm, at + 4 * PAGE, PAGE, 1)).toBe(0)
  const target = at + 1024 * PAGE
  expect(memory.sys_mremap(mm, at + 4 * PAGE, PAGE, PAGE, 3, target)).toBe(target)
  expect(memory.sys_munmap(mm, at + 12 * PAGE, PAGE)).toBe(0)
  finish(frame)
  assertMachine(m)
  expect(load(mm, target)).toBe(112)
  expect(store(mm, target, 1)).toBe(-14)
  expect(load(child, at + 4 * PAGE)).toBe(112)
  sys_exit(child)
})

test('a page that is faulted in at other addresses while it moves: every entry has the new frame', () => {
  const frame = frameAt(at + 3 * PAGE)
  const other = memory.sys_mmap(mm, 0, 16 * PAGE, RW, SHARED, fd, 0)
  expect(m.migration.begin(frame)).toBe(true)
  expect(load(mm, other + 3 * PAGE)).toBe(103)
  expect(sys_remap_file_pages(mm, other + 9 * PAGE, PAGE, 0, 3, 0)).toBe(0)
  store(mm, other + 9 * PAGE, 33)
  const target = finish(frame)
  assertMachine(m)
  expect([at + 3 * PAGE, other + 3 * PAGE, other + 9 * PAGE].map(frameAt)).toEqual([target, target, target])
  expect([load(mm, at + 3 * PAGE), load(mm, other + 3 * PAGE)]).toEqual([33, 33])
})

test('a page that is mapped at another address and pinned while it moves stays where it is', () => {
  const frame = frameAt(at + 3 * PAGE)
  const other = memory.sys_mmap(mm, 0, 16 * PAGE, RW, SHARED, fd, 0)
  expect(m.migration.begin(frame)).toBe(true)
  store(mm, other + 3 * PAGE, 33)
  expect(m.frames.pin(frame)).toBe(true)
  const target = m.allocator.alloc()
  expect(m.migration.end(frame, target)).toBe(false)
  m.allocator.free(target)
  assertMachine(m)
  expect([at + 3 * PAGE, other + 3 * PAGE].map(frameAt)).toEqual([frame, frame])
  expect(load(mm, at + 3 * PAGE)).toBe(33)
  m.frames.unpin(frame)
  expect(m.migration.move(frame, m.allocator.alloc())).toBe(true)
  expect([load(mm, at + 3 * PAGE), load(mm, other + 3 * PAGE)]).toEqual([33, 33])
})

test('one that left its file and is pinned is nobody’s but the pin’s', () => {
  const frame = frameAt(at + 15 * PAGE)
  expect(m.migration.begin(frame)).toBe(true)
  const other = memory.sys_mmap(mm, 0, 16 * PAGE, RW, SHARED, fd, 0)
  expect(load(mm, other + 15 * PAGE)).toBe(115)
  expect(m.frames.pin(frame)).toBe(true)
  expect(file.sys_ftruncate(m, fd, 15 * PAGE)).toBe(0)
  const target = m.allocator.alloc()
  expect(m.migration.end(frame, target)).toBe(false)
  m.allocator.free(target)
  assertMachine(m)
  m.frames.unpin(frame)
  m.putFrame(frame)
  expect(m.allocator.isFree(frame)).toBe(true)
})

test('the address space ends while a page moves: both frames come back', () => {
  const linear = frameAt(at + 15 * PAGE)
  expect(m.migration.begin(linear)).toBe(true)
  sys_exit(mm)
  finish(linear)
  expect(m.allocator.isFree(linear)).toBe(true)
})

test('private pages move too, also between parent and child', () => {
  const own = memory.sys_mmap(mm, 0, PAGE, RW, 0x22, -1, 0)
  store(mm, own, 9)
  const child = sys_fork(mm) as Mm
  const frame = frameAt(own)
  expect(m.migration.move(frame, m.allocator.alloc())).toBe(true)
  store(child, own, 8)
  expect([load(mm, own), load(child, own)]).toEqual([9, 8])
  sys_exit(child)
})

test('soft-dirty is cleared while a page moves: the next store is seen', () => {
  const frame = frameAt(at + 3 * PAGE)
  expect(m.migration.begin(frame)).toBe(true)
  expect(sys_clear_refs(mm, 4)).toBe(0)
  finish(frame)
  expect(pteSoftDirty(pteAt(at + 3 * PAGE))).toBe(0)
  store(mm, at + 3 * PAGE, 1)
  expect(pteSoftDirty(pteAt(at + 3 * PAGE))).not.toBe(0)
})

test('a run of frames is cleared by moving what lies in it', () => {
  const fd = file.sys_memory(m, 'filler', file.MEMORY_SHMEM, 64 * PAGE, 0)
  const filler = memory.sys_mmap(mm, 0, 64 * PAGE, RW, SHARED, fd, 0)
  for (let i = 0; i < 64; i++) store(mm, filler + i * PAGE, i)
  for (let i = 0; i < 64; i += 2) expect(file.sys_fallocate(m, fd, 3, i * PAGE, PAGE)).toBe(0)
  file.sys_close(m, fd)
  const run = m.allocator.allocRun(60)
  expect(run).toBeGreaterThan(0)
  for (let i = 1; i < 64; i += 2) expect(load(mm, filler + i * PAGE)).toBe(i)
  for (let f = run; f < run + 60; f++) m.allocator.free(f)
})
