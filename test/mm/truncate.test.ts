/** Truncation and hole punching under mappings: what each address shows survives, its pages do not. */
import { describe, expect, test } from 'vitest'
import { EFBIG, EIO } from '../../src/abi/errno.ts'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_ANONPAGES } from '../../src/frame/mm-table.ts'
import { PTE_NONE, pteFile, pteSoftDirty, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_clear_refs } from '../../src/syscall/process.ts'
import { VM_NONLINEAR } from '../../src/vma/flags.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_NONBLOCK, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } = abi
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

describe('truncation', () => {
  test('leaves remembered places, which show the page again when the file grows', () => {
    const r = rig()
    const fd = r.memory(8)
    const at = r.map(fd, 8, MAP_SHARED)
    expect(r.remap(at, 2, 6)).toBe(0)
    expect(r.loads(at, 8)).toEqual([7, 8, 3, 4, 5, 6, 7, 8])
    sys_clear_refs(r.mm, 4)
    expect(f.sys_ftruncate(r.m, fd, 4 * r.pageSize)).toBe(0)
    expect([pteFile(r.pte(at)), pteToPgoff(r.pte(at)), pteSoftDirty(r.pte(at))]).toEqual([true, 6, 0])
    expect(r.pte(at + 6 * r.pageSize)).toBe(PTE_NONE)
    expect(r.loads(at, 3)).toEqual([-FAULT_BUS, -FAULT_BUS, 3])
    expect(f.sys_ftruncate(r.m, fd, 8 * r.pageSize)).toBe(0)
    expect(r.loads(at, 4)).toEqual([0, 0, 3, 4])
    expect(f.sys_pwrite(r.m, fd, Uint8Array.of(9, 0, 0, 0), 6 * r.pageSize)).toBe(4)
    expect(r.load(at)).toBe(9)
    expect(r.vmaFlags(at) & VM_NONLINEAR).toBe(VM_NONLINEAR)
  })

  test('carries soft-dirty into the entry that is left', () => {
    const r = rig()
    const fd = r.memory(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.remap(at, 1, 3)
    f.sys_ftruncate(r.m, fd, r.pageSize)
    expect(pteSoftDirty(r.pte(at))).not.toBe(0)
  })

  test('takes private copies too, punching does not', () => {
    const r = rig()
    const { fd } = r.file(4)
    const at = r.map(fd, 4, MAP_PRIVATE)
    for (let i = 0; i < 4; i++) r.store(at + i * r.pageSize, 100 + i)
    expect(f.sys_fallocate(r.m, fd, PUNCH, 0, 4 * r.pageSize)).toBe(0)
    expect(r.loads(at, 4)).toEqual([100, 101, 102, 103])
    expect(f.sys_ftruncate(r.m, fd, 2 * r.pageSize)).toBe(0)
    expect(r.loads(at, 4)).toEqual([100, 101, -FAULT_BUS, -FAULT_BUS])
    expect(r.row(MM_ANONPAGES)).toBe(2)
  })

  test('zeroes the rest of the page that the new end is in', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED)
    const filled = new Uint8Array(2 * r.pageSize).fill(7)
    f.sys_pwrite(r.m, fd, filled, 0)
    expect(f.sys_ftruncate(r.m, fd, 100)).toBe(0)
    expect(f.sys_ftruncate(r.m, fd, 2 * r.pageSize)).toBe(0)
    const bytes = new Uint8Array(2 * r.pageSize)
    expect(f.sys_copy_from_user(r.mm, at, bytes)).toBe(bytes.length)
    expect(bytes.findIndex(byte => byte !== 7)).toBe(100)
    expect(bytes.slice(100).every(byte => byte === 0)).toBe(true)
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    store.inner.read(0, bytes, 0, bytes.length)
    expect(bytes.slice(100).every(byte => byte === 0)).toBe(true)
  })

  test('that the store refuses changes nothing', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.store(at + 3 * r.pageSize, 50)
    store.arm({ kind: 'error-once', op: 'truncate' })
    expect(f.sys_ftruncate(r.m, fd, r.pageSize)).toBe(-EIO)
    expect(f.sys_fsize(r.m, fd)).toBe(4 * r.pageSize)
    expect(r.loads(at, 4)).toEqual([1, 2, 3, 50])
  })

  test('to more pages than can be numbered is EFBIG', () => {
    const r = rig()
    const fd = r.memory(1)
    expect(f.sys_ftruncate(r.m, fd, 2 ** 52)).toBe(-EFBIG)
    expect(f.sys_fsize(r.m, fd)).toBe(r.pageSize)
  })

  test('drops pages in swap as well', () => {
    const r = rig({ swapSlots: 16 })
    const fd = r.memory(8)
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(8)
    expect(f.sys_ftruncate(r.m, fd, 3 * r.pageSize)).toBe(0)
    expect(r.m.swap.nrUsed).toBe(3)
    expect(f.sys_fpages(r.m, fd)).toBe(3)
  })
})

describe('punching', () => {
  test('zeroes exactly its bytes, for every kind of file', () => {
    const r = rig()
    const { fd } = r.file(4)
    for (const file of [fd, r.memory(4)]) {
      const filled = new Uint8Array(4 * r.pageSize).fill(7)
      f.sys_pwrite(r.m, file, filled, 0)
      expect(f.sys_fallocate(r.m, file, PUNCH, 100, 2 * r.pageSize)).toBe(0)
      const bytes = new Uint8Array(4 * r.pageSize)
      expect(f.sys_pread(r.m, file, bytes, 0)).toBe(bytes.length)
      expect(bytes).toEqual(filled.fill(0, 100, 100 + 2 * r.pageSize))
    }
  })

  test('under a nonlinear mapping keeps what each address shows', () => {
    const r = rig()
    const fd = r.memory(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.remap(at, 1, 3)
    expect(f.sys_fallocate(r.m, fd, PUNCH, 3 * r.pageSize, r.pageSize)).toBe(0)
    expect(pteToPgoff(r.pte(at))).toBe(3)
    expect(r.loads(at, 4)).toEqual([0, 2, 3, 0])
    r.store(at, 8)
    expect(r.load(at + 3 * r.pageSize)).toBe(8)
  })
})

test('a file that was cut behind the mapping is SIGBUS, not wrong bytes', () => {
  const r = rig({ readaheadBytes: 0 })
  const { fd, store } = r.file(4)
  const at = r.map(fd, 4, MAP_SHARED, RW)
  expect(r.load(at)).toBe(1)
  store.inner.truncate(2 * r.pageSize + 10)
  expect(r.loads(at, 4)).toEqual([1, 2, -FAULT_BUS, -FAULT_BUS])
  expect(r.m.lastError).toBe(EIO)
  expect(r.fileWord(fd, 3)).toBe(-EIO)
})

test('a hole between the end of the store and what was written past it reads as zero', () => {
  const r = rig()
  const { fd, store } = r.file(1)
  expect(f.sys_pwrite(r.m, fd, Uint8Array.of(5, 0, 0, 0), 6 * r.pageSize)).toBe(4)
  const at = r.map(fd, 8, MAP_SHARED, RW)
  expect(r.remap(at, 1, 4, MAP_NONBLOCK)).toBe(0)
  expect(r.loads(at, 8)).toEqual([0, 0, 0, 0, 0, 0, 5, -FAULT_BUS])
  // The size outlives the page that made it.
  expect(f.sys_fallocate(r.m, fd, PUNCH, 5 * r.pageSize, 3 * r.pageSize)).toBe(0)
  expect(f.sys_fsync(r.m, fd)).toBe(0)
  expect(store.inner.size()).toBe(6 * r.pageSize + 4)
})
