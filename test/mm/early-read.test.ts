/**
 * The early read (mm/early-read) in one thread: which page it guesses, when it leaves a fault alone, and what another
 * thread, called from within the read itself, may do to the page meanwhile. `test/threads/early-read.test.ts` has real
 * threads.
 */
import { beforeEach, describe, expect, test } from 'vitest'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { attachKernel, createKernel } from '../../src/kernel.ts'
import { giveUpReserve } from '../../src/mm/early-read.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { recoverThread } from '../../src/mm/recover.ts'
import { checkMachine } from '../../src/observe/check.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { T_NR_RESERVED } from '../../src/sync/threads.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'
import { type FaultyStore, faultyStore } from '../support/faulty-store.ts'

const P = 4096
const PAGES = 64

let m: Machine
/** Another thread, which the test runs from within a read. */
let other: Machine
let store: FaultyStore
let fd: number
let mm: Mm
let at: number

/**
 * Page i of the file is full of byte i + 1; the mapping is four pages longer than the file, whose last page is half.
 */
function begin(readaheadBytes = 0): void {
  const contents = new Uint8Array((PAGES - 1) * P + P / 2).map((_, i) => i / P + 1)
  store = faultyStore(memoryStore({ contents }))
  // The other thread has the same bytes, by a handle.
  Object.assign(store, { close: () => 0, handle: { kind: 'same' } })
  const few = { maxInodes: 4, maxFiles: 8, maxSpaces: 2, maxVmas: 16 }
  const kernel = createKernel({ nrFrames: 1024, threads: 2, faultAroundPages: 1, readaheadBytes, poison: true, ...few })
  m = kernel.machine
  other = attachKernel(kernel.handle, undefined, 77).machine
  other.inodes.stores.addOpener({ kind: 'same', open: () => store })
  fd = f.sys_open(m, store, f.O_RDWR)
  mm = sys_mm_create(m) as Mm
  at = mem.sys_mmap(mm, 0, (PAGES + 4) * P, 3, abi.MAP_SHARED, fd, 0)
}

beforeEach(() => begin())

function load(page: number): number {
  const bytes = new Uint8Array(1)
  return f.sys_copy_from_user(mm, at + page * P, bytes) === 1 ? bytes[0] : -f.lastCopyFault()
}

const reserved = (): number => m.sync.threads.w[m.sync.threads.at(m.sync.me, T_NR_RESERVED)]

/** How many reads of the store a load makes that gives this. */
function reads(page: number, value: number): number {
  const before = store.calls.read
  expect(load(page), `page ${page}`).toBe(value)
  expect(checkMachine(m)).toEqual([])
  return store.calls.read - before
}

/** Everything comes back, the reserve too. */
function end(): void {
  sys_exit(mm)
  f.sys_close(m, fd)
  giveUpReserve(m)
  expect(recoverThread(m, other.sync.me, 77)).toBe(0)
  expect(m.allocator.nrFree).toBe(m.ram.nrFrames - 1)
  expect(checkMachine(m)).toEqual([])
}

test('pages in any order are read once each, into frames that are kept for that', () => {
  expect(reserved()).toBe(0)
  for (let i = 0; i < 40; i++) {
    const page = (i * 23 + 5) % (PAGES - 1)
    expect(reads(page, page + 1)).toBe(1)
    expect(reserved()).toBeGreaterThan(0)
  }
  expect(reads(5, 6)).toBe(0)
  end()
})

test('the page that an entry remembers is guessed, not the one of its place', () => {
  load(1)
  sys_remap_file_pages(mm, at + 10 * P, 3 * P, 0, 40, abi.MAP_NONBLOCK)
  expect([reads(10, 41), reads(12, 43), reads(40, 41)]).toEqual([1, 1, 0])
  end()
})

describe('nothing is read early', () => {
  beforeEach(() => {
    load(1)
  })

  test('of a page that is cached, though nobody maps it', () => {
    expect(f.sys_pread(m, fd, new Uint8Array(1), 20 * P)).toBe(1)
    expect(reads(20, 21)).toBe(0)
    end()
  })

  test('of what lies beyond the end of the file, or across it', () => {
    const before = store.calls.read
    expect(load(PAGES)).toBe(-FAULT_BUS)
    expect(store.calls.read).toBe(before)
    expect(reads(PAGES - 1, PAGES)).toBe(1)
    expect(f.sys_pread(m, fd, new Uint8Array(P), (PAGES - 1) * P)).toBe(P / 2)
    end()
  })

  test('in another mapping, until that has read', () => {
    const second = mem.sys_mmap(mm, 0, PAGES * P, 1, abi.MAP_SHARED, fd, 0)
    const bytes = new Uint8Array(1)
    const before = store.calls.read
    expect(f.sys_copy_from_user(mm, second + 30 * P, bytes)).toBe(1)
    expect(f.sys_copy_from_user(mm, second + 33 * P, bytes)).toBe(1)
    expect([bytes[0], store.calls.read - before]).toEqual([34, 2])
    end()
  })

  test('where pages are said to be read in order', () => {
    expect(mem.sys_madvise(mm, at, PAGES * P, abi.MADV_SEQUENTIAL)).toBe(0)
    for (const page of [30, 20, 10]) expect(reads(page, page + 1)).toBe(1)
    expect(mem.sys_madvise(mm, at, PAGES * P, abi.MADV_RANDOM)).toBe(0)
    for (const page of [31, 21, 11]) expect(reads(page, page + 1)).toBe(1)
    end()
  })

  test('where no frame can be kept', () => {
    giveUpReserve(m)
    expect(reserved()).toBe(0)
    for (const page of [30, 20, 10]) expect(reads(page, page + 1)).toBe(1)
    expect(reserved()).toBeGreaterThan(0)
    end()
  })
})

test('with readahead, a page that follows the last one is read with others, one that does not alone', () => {
  begin(16 * P)
  load(40)
  expect([reads(20, 21), reads(10, 11)]).toEqual([1, 1])
  expect(reads(11, 12)).toBe(1)
  expect(reads(12, 13), 'read ahead').toBe(0)
  end()
})

test('a read that fails, or comes short, is made again by the fault itself', () => {
  load(1)
  store.arm({ kind: 'error-once', op: 'read' })
  expect(reads(20, 21)).toBe(2)
  store.arm({ kind: 'short-read', bytes: 100 })
  expect(reads(22, 23)).toBe(2)
  store.arm({ kind: 'error-for-good', op: 'read' })
  expect(load(24)).toBe(-FAULT_BUS)
  store.heal()
  expect(reads(24, 25)).toBe(1)
  end()
})

describe('what another thread does while the page is read', () => {
  const page = 20
  const there = (): Mm => new Mm(other, mm.id, mm.generation)
  const changes: [string, () => unknown, number, number][] = [
    ['nothing', () => 0, 0, page + 1],
    ['it reads the page too', () => f.sys_pread(other, fd, new Uint8Array(1), page * P), 1, page + 1],
    ['it writes the page', () => f.sys_pwrite(other, fd, new Uint8Array(P).fill(99), page * P), P, 99],
    [
      'it writes the page and has it written back, and dropped',
      () => {
        f.sys_pwrite(other, fd, new Uint8Array(P).fill(99), page * P)
        f.sys_fsync(other, fd)
        other.enter()
        other.reclaim.shrink(1000)
        other.leave()
        return other.cache.lookup(1, page)
      },
      0,
      99
    ],
    ['it punches the page', () => f.sys_fallocate(other, fd, 3, page * P, P), 0, 0],
    ['it cuts the file', () => f.sys_ftruncate(other, fd, 5 * P), 0, -FAULT_BUS],
    [
      'it cuts the file and makes it longer again',
      () => f.sys_ftruncate(other, fd, 5 * P) || f.sys_ftruncate(other, fd, PAGES * P),
      0,
      0
    ],
    ['it remaps the page', () => sys_remap_file_pages(there(), at + page * P, P, 0, 33, 0), 0, 34],
    ['it unmaps it', () => mem.sys_munmap(there(), at, (PAGES + 4) * P), 0, -1]
  ]

  test.each(changes)('%s', (_, change, result, value) => {
    load(1)
    let got: unknown
    store.arm({ kind: 'hook', op: 'read', run: () => (got = change()) })
    const loaded = load(page)
    expect(got).toBe(result)
    if (value === -1) expect(loaded).toBeLessThan(0)
    else expect(loaded).toBe(value)
    expect(checkMachine(m)).toEqual([])
    end()
  })
})
