/** Dirty accounting of nonlinear mappings, and stores that fail. */
import { describe, expect, test } from 'vitest'
import { EBADF, EIO, ENOSPC } from '../../src/abi/errno.ts'
import { FAULT_OK } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { NR_DIRTY } from '../../src/frame/vmstat.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { PTE_DIRTY, PTE_WRITE } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED } = abi

describe('a sync', () => {
  test('makes every entry of a page clean and read-only, nonlinear ones and those of others too', () => {
    const r = rig()
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    for (let i = 0; i < 3; i++) r.remap(at + i * r.pageSize, 1, 6)
    const child = r.fork()
    r.store(at, 60)
    r.store(at + r.pageSize, 61)
    r.store(at + 6 * r.pageSize, 62)
    r.store(at + 2 * r.pageSize, 63, child)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect([r.m.vmstat[NR_DIRTY], r.storedWord(store, 6), store.calls.write]).toEqual([0, 63, 1])
    for (const page of [0, 1, 2, 6]) {
      expect(r.pte(at + page * r.pageSize) & (PTE_WRITE | PTE_DIRTY)).toBe(0)
      expect(r.pte(at + page * r.pageSize, child) & (PTE_WRITE | PTE_DIRTY)).toBe(0)
    }
    r.store(at + r.pageSize, 64)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    expect(mem.sys_msync(r.mm, at, r.pageSize, abi.MS_SYNC)).toBe(0)
    expect(r.storedWord(store, 6)).toBe(64)
  })

  test('writes neighbours together, and never past the end of the file', () => {
    const r = rig()
    const { fd, store } = r.file(8)
    f.sys_ftruncate(r.m, fd, 5 * r.pageSize + 10)
    const at = r.map(fd, 8, MAP_SHARED)
    for (let i = 0; i < 6; i++) r.store(at + i * r.pageSize, i + 50)
    r.store(at + 5 * r.pageSize + 100, 1)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect(store.calls.write).toBe(1)
    expect(store.inner.size()).toBe(5 * r.pageSize + 10)
  })

  test('of a store that only reads is no error, and it is never written', () => {
    const r = rig()
    const { fd } = r.file(2, f.O_RDONLY)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(1), 0)).toBe(-EBADF)
  })
})

describe('a store that fails', () => {
  test('to write keeps the page dirty; the next sync writes it; each opener hears of it once', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    const other = f.sys_reopen(r.m, fd, f.O_RDWR)
    const at = r.map(fd, 4, MAP_SHARED)
    r.store(at + r.pageSize, 20)
    store.arm({ kind: 'error-once', op: 'write' })
    expect(f.sys_fsync(r.m, fd)).toBe(-EIO)
    assertMachine(r.m)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    expect(r.load(at + r.pageSize)).toBe(20)
    expect(f.sys_fsync(r.m, other)).toBe(-EIO)
    expect(r.storedWord(store, 1)).toBe(20)
    expect([f.sys_fsync(r.m, fd), f.sys_fsync(r.m, other)]).toEqual([0, 0])
    const late = f.sys_reopen(r.m, fd, f.O_RDWR)
    expect(f.sys_fsync(r.m, late)).toBe(0)
  })

  test('behind reclaim keeps the page, and the error comes with the next sync', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.store(at, 10)
    store.arm({ kind: 'error-for-good', op: 'write' })
    r.m.reclaim.shrinkAll()
    assertMachine(r.m)
    expect(r.load(at)).toBe(10)
    store.heal()
    expect(f.sys_fsync(r.m, fd)).toBe(-EIO)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect(r.storedWord(store, 0)).toBe(10)
  })

  test('to flush is an error of the sync, once', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    store.arm({ kind: 'error-once', op: 'flush' })
    expect([f.sys_fsync(r.m, fd), f.sys_fsync(r.m, fd)]).toEqual([-EIO, 0])
  })

  test('for want of space keeps what was written until there is some', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    const fault = store.arm({ kind: 'no-space' })
    const page = new Uint8Array(r.pageSize).fill(9)
    for (let i = 2; i < 6; i++) expect(f.sys_pwrite(r.m, fd, page, i * r.pageSize)).toBe(r.pageSize)
    expect(f.sys_fsync(r.m, fd)).toBe(-ENOSPC)
    r.m.reclaim.shrinkAll()
    const at = r.map(fd, 6, MAP_SHARED)
    expect(r.loads(at, 6)).toEqual([1, 2, 0x09090909, 0x09090909, 0x09090909, 0x09090909])
    fault.disarm()
    f.sys_fsync(r.m, fd)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect(store.inner.size()).toBe(6 * r.pageSize)
    expect(r.storedWord(store, 5)).toBe(0x09090909)
  })

  test.each([1, 2, 3, 4, 5])('at its call %i loses and invents nothing', call => {
    for (const op of ['read', 'write', 'flush'] as const) {
      const r = rig({ nrFrames: 12, readaheadBytes: 8 << 12 })
      const { fd, store } = r.file(24)
      const at = r.map(fd, 24, MAP_SHARED)
      for (let i = 0; i < 24; i++) r.remap(at + i * r.pageSize, 1, 23 - i, abi.MAP_NONBLOCK)
      const fault = store.arm({ kind: 'error-once', op, call })
      const expected = Array.from({ length: 24 }, (_, i) => 24 - i)
      for (let i = 0; i < 24; i++) if (r.store(at + i * r.pageSize, 100 + i) === FAULT_OK) expected[i] = 100 + i
      f.sys_fsync(r.m, fd)
      assertMachine(r.m)
      fault.disarm()
      expect(r.loads(at, 24)).toEqual(expected)
      f.sys_fsync(r.m, fd)
      expect(f.sys_fsync(r.m, fd)).toBe(0)
      expect(Array.from({ length: 24 }, (_, i) => r.storedWord(store, 23 - i))).toEqual(expected)
    }
  })

  test('at close says so, and the file is closed', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    f.sys_pwrite(r.m, fd, new Uint8Array(4), 0)
    store.arm({ kind: 'error-once', op: 'write' })
    expect(f.sys_close(r.m, fd)).toBe(-EIO)
    expect(f.sys_fsize(r.m, fd)).toBe(-EBADF)
  })
})

test('one store opened twice is one file', () => {
  const r = rig()
  const { fd, store } = r.file(2)
  const again = f.sys_open(r.m, store, f.O_RDWR)
  f.sys_pwrite(r.m, fd, Uint8Array.of(9, 0, 0, 0), 0)
  expect(r.fileWord(again, 0)).toBe(9)
})

test('a file that can only be read cannot be opened again for writing', () => {
  const r = rig()
  const { fd, store } = r.file(2)
  const readOnly = { ...delegate(store), readOnly: true }
  const other = f.sys_open(r.m, readOnly, f.O_RDONLY)
  expect(other).not.toBe(fd)
  expect(f.sys_reopen(r.m, other, f.O_RDWR)).toBe(-EBADF)
  expect(f.sys_open(r.m, readOnly, f.O_RDWR)).toBe(-EBADF)
})

function delegate(store: import('../../src/store/store.ts').Store): import('../../src/store/store.ts').Store {
  return {
    name: 'read-only',
    identity: undefined,
    readOnly: false,
    durable: false,
    size: () => store.size(),
    read: (position, buffer, offset, length) => store.read(position, buffer, offset, length),
    write: () => -EBADF,
    flush: () => 0,
    truncate: () => -EBADF,
    punch: () => -EBADF,
    close: () => 0
  }
}
