/**
 * Stores by thread: one opens a store, others make their own over the same bytes when they meet the inode. The two
 * threads are two machines attached to one memory, which the test runs in turn.
 */
import { describe, expect, test } from 'vitest'
import { EIO, ENXIO } from '../../src/abi/errno.ts'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { attachKernel, createKernel, type Kernel } from '../../src/kernel.ts'
import { fileOf } from '../../src/mm/files.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { recoverThread } from '../../src/mm/recover.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { maps } from '../../src/observe/maps.ts'
import type { Store, StoreHandle, StoreOpener } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'

const P = 4096

/** A store whose first byte tells which one it is, and that counts how often it was closed. */
interface Counted extends Store {
  nrClosed: number
}

function counted(first: number, name: string, handle?: StoreHandle): Counted {
  const inner = memoryStore({ contents: Uint8Array.of(first, 0, 0, 0), name })
  const store: Counted = {
    ...{ name, identity: undefined, readOnly: false, durable: false, nrClosed: 0 },
    ...(handle === undefined ? {} : { handle }),
    size: () => inner.size(),
    read: (...args) => inner.read(...args),
    write: (...args) => inner.write(...args),
    flush: () => 0,
    truncate: size => inner.truncate(size),
    punch: (...args) => inner.punch(...args),
    close() {
      store.nrClosed++
      return 0
    }
  }
  return store
}

/** Opens, in the second thread, what handles of kind 'counted' name. */
function opener(made: Counted[]): StoreOpener {
  return {
    kind: 'counted',
    open(handle) {
      if (handle.fails === true) throw new Error('the disk is not plugged in')
      const store = counted(Number(handle.first), 'there')
      made.push(store)
      return store
    }
  }
}

const handleOf = (first: number): StoreHandle => ({ kind: 'counted', first })

interface Two {
  readonly a: Machine
  readonly b: Machine
  readonly kernel: Kernel
}

function twoThreads(openers: readonly StoreOpener[]): Two {
  const kernel = createKernel({ nrFrames: 64, threads: 2, maxInodes: 4, maxFiles: 8, maxSpaces: 2, maxVmas: 16 })
  const b = attachKernel(kernel.handle, undefined, -1).machine
  for (const one of openers) b.inodes.stores.addOpener(one)
  return { a: kernel.machine, b, kernel }
}

function firstByte(m: Machine, fd: number): number {
  const bytes = new Uint8Array(1)
  const got = f.sys_pread(m, fd, bytes, 0)
  return got === 1 ? bytes[0] : got
}

test('a thread reaches the bytes through a store of its own, and closes that one when it leaves', () => {
  const made: Counted[] = []
  const { a, b } = twoThreads([opener(made)])
  const there = counted(7, 'here', handleOf(9))
  const fd = f.sys_open(a, there, f.O_RDWR)
  expect(firstByte(b, fd)).toBe(9)
  expect(made.length).toBe(1)
  // The page is in the cache that both have: the first one's own store is not asked.
  expect(firstByte(a, fd)).toBe(9)
  const mm = sys_mm_create(a) as Mm
  const at = mem.sys_mmap(mm, 0, P, 1, abi.MAP_SHARED, fd, 0)
  expect(maps(b, mm.id).map(({ name }) => name)).toEqual(['here'])
  expect(mem.sys_munmap(mm, at, P)).toBe(0)
  expect(made.length).toBe(1)
  b.inodes.stores.closeAll()
  expect([there.nrClosed, made[0].nrClosed]).toEqual([0, 1])
  expect(recoverThread(a, b.sync.me, -1)).toBe(0)
  sys_exit(mm)
  expect(f.sys_close(a, fd)).toBe(0)
  expect([there.nrClosed, made[0].nrClosed]).toEqual([1, 1])
  assertMachine(a)
})

describe('a store that this thread cannot reach gives ENXIO, for reads and for syncs, and the reason is kept', () => {
  const cases: [string, StoreHandle | undefined, boolean, RegExp][] = [
    ['it has no handle', undefined, true, /can be reached only by the thread that opened it/],
    ['nobody opens its kind', handleOf(1), false, /no opener for stores of kind 'counted'/],
    ['its opener fails', { ...handleOf(1), fails: true }, true, /not plugged in/]
  ]

  test.each(cases)('%s', (_, handle, hasOpener, why) => {
    const { a, b } = twoThreads(hasOpener ? [opener([])] : [])
    const there = counted(7, 'here', handle)
    const fd = f.sys_open(a, there, f.O_RDWR)
    expect(firstByte(b, fd)).toBe(-ENXIO)
    expect(String(b.inodes.store(1)?.lastThrown)).toMatch(why)
    const mm = sys_mm_create(a) as Mm
    const at = mem.sys_mmap(mm, 0, P, 3, abi.MAP_SHARED, fd, 0)
    const mmOfB = new Mm(b, mm.id, mm.generation)
    expect(f.sys_copy_from_user(mmOfB, at, new Uint8Array(1))).toBeLessThan(0)
    expect([f.lastCopyFault(), b.lastError]).toEqual([FAULT_BUS, ENXIO])
    // Who can reach it has its bytes, and what is in the cache all can use; but no sync there may succeed.
    expect(firstByte(a, fd)).toBe(7)
    expect(firstByte(b, fd)).toBe(7)
    expect(f.sys_pwrite(b, fd, Uint8Array.of(8), 0)).toBe(1)
    expect(f.sys_fsync(b, fd)).toBe(-ENXIO)
    expect(f.sys_ftruncate(b, fd, 2 * P)).toBe(-ENXIO)
    expect(f.sys_fsync(a, fd)).toBe(0)
    const bytes = new Uint8Array(1)
    there.read(0, bytes, 0, 1)
    expect(bytes[0]).toBe(8)
    assertMachine(b)
  })
})

test('a row that another file has next is learned anew, and the store of the file before is closed', () => {
  const made: Counted[] = []
  const { a, b } = twoThreads([opener(made)])
  a.inodes.stores.addOpener(opener(made))
  const first = f.sys_open(a, counted(1, 'first', handleOf(11)), f.O_RDWR)
  expect(firstByte(b, first)).toBe(11)
  expect(f.sys_close(a, first)).toBe(0)
  expect(made[0].nrClosed, 'the other thread still has it').toBe(0)
  const second = f.sys_open(a, counted(2, 'second', handleOf(12)), f.O_RDWR)
  expect(b.inodes.stores.name(1)).toBe('second')
  expect(made[0].nrClosed).toBe(1)
  expect(firstByte(b, second)).toBe(12)
  // The same where the other thread is the one that uses the row next.
  expect(f.sys_close(a, second)).toBe(0)
  const mine = counted(3, 'third', handleOf(13))
  const third = f.sys_open(b, mine, f.O_RDWR)
  expect(made.map(({ nrClosed }) => nrClosed)).toEqual([1, 1])
  expect(firstByte(b, third)).toBe(3)
  expect(a.inodes.stores.name(1)).toBe('third')
  expect(made.length).toBe(3)
  expect(f.sys_close(b, third)).toBe(0)
  expect(mine.nrClosed).toBe(1)
  // A row of nobody has no name and no store, and nothing is opened to find that out.
  expect(a.inodes.stores.name(1)).toBe('')
  expect(a.inodes.store(1)).toBeUndefined()
  expect(b.inodes.stores.name(3)).toBe('')
  expect(made.map(({ nrClosed }) => nrClosed)).toEqual([1, 1, 1])
})

test('a handle that is too long to be told makes a store of one thread, with the beginning of its name', () => {
  const made: Counted[] = []
  const { a, b } = twoThreads([opener(made)])
  const name = 'n'.repeat(400)
  const fd = f.sys_open(a, counted(5, name, { ...handleOf(9), more: 'x'.repeat(400) }), f.O_RDWR)
  expect(b.inodes.stores.name(1)).toBe('n'.repeat(64))
  expect(firstByte(b, fd)).toBe(-ENXIO)
  expect(made).toEqual([])
  expect(a.inodes.stores.name(1)).toBe(name)
  expect(firstByte(a, fd)).toBe(5)
  // A name that JSON writes at six times its length still fits.
  const odd = '\u0001'.repeat(400)
  f.sys_open(a, counted(6, odd, handleOf(9)), f.O_RDWR)
  expect(b.inodes.stores.name(2)).toBe('\u0001'.repeat(64))
})

test('swap that this thread cannot reach: what is there cannot be had here, and is not lost', () => {
  const swap = { store: memoryStore(), nrSlots: 200 }
  const kernel = createKernel({ nrFrames: 40, threads: 2, maxInodes: 4, maxFiles: 8, maxSpaces: 2, maxVmas: 16, swap })
  const a = kernel.machine
  const b = attachKernel(kernel.handle, undefined, -1).machine
  const mm = sys_mm_create(a) as Mm
  const at = mem.sys_mmap(mm, 0, 80 * P, 3, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS, -1, 0)
  for (let i = 0; i < 80; i++) expect(f.sys_copy_to_user(mm, at + i * P, Uint8Array.of(i + 1))).toBe(1)
  const out = Array.from({ length: 80 }, (_, i) => i).filter(i => (a.tables.get(mm.id, at / P + i) & 1) === 0)
  expect(out.length).toBeGreaterThan(30)
  const there = new Mm(b, mm.id, mm.generation)
  const bytes = new Uint8Array(1)
  expect(f.sys_copy_from_user(there, at + out[0] * P, bytes)).toBeLessThan(0)
  expect([f.lastCopyFault(), b.lastError]).toEqual([FAULT_BUS, EIO])
  // Reclaim in that thread can push nothing out either; nothing is lost by the attempt.
  expect(b.reclaim.shrink(4)).toBe(0)
  for (let i = 0; i < 80; i++) {
    expect(f.sys_copy_from_user(mm, at + i * P, bytes)).toBe(1)
    expect(bytes[0]).toBe(i + 1)
  }
  sys_exit(mm)
  assertMachine(a)
})

test('an open finds the file by its identity, in whatever thread, and asks for the stores of no others', () => {
  let nrMade = 0
  const named = (first: number, handle?: StoreHandle): Store => ({
    ...counted(first, `store ${first}`, handle),
    identity: `disk/${first}`
  })
  const openNamed = (handle: StoreHandle): Store => {
    nrMade++
    return named(Number(handle.first))
  }
  const { a, b } = twoThreads([{ kind: 'counted', open: openNamed }])
  const open = (m: Machine, store: Store): number => f.sys_open(m, store, f.O_RDWR)
  const inodeOf = (fd: number): number => a.files.inode[fileOf(a, fd)]
  // More than there are rows, in changing order, so that each chain loses its first, its last and those between.
  const fds = new Map<number, number>()
  for (let i = 0; i < 200; i++) {
    const first = 1 + ((i * 7) % 11)
    const fd = fds.get(first)
    if (fd !== undefined) {
      const again = open(i % 2 === 0 ? a : b, named(first, handleOf(first)))
      expect(inodeOf(again)).toBe(inodeOf(fd))
      expect([f.sys_close(a, again), f.sys_close(a, fd)]).toEqual([0, 0])
      fds.delete(first)
    } else if (fds.size < 4) fds.set(first, open(a, named(first, handleOf(first))))
  }
  for (const fd of fds.values()) expect(f.sys_close(a, fd)).toBe(0)
  expect(new Set([1, 2, 3, 4].map(first => inodeOf(open(a, named(first, handleOf(first)))))).size).toBe(4)
  nrMade = 0
  expect(firstByte(b, open(b, named(3)))).toBe(3)
  expect(nrMade).toBe(1)
  assertMachine(a)
})
