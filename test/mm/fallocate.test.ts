/**
 * fallocate: what each mode does to the size, the pages and the bytes of memory and of files, and what is refused, in
 * which order.
 */
import { describe, expect, test } from 'vitest'
import { EBADF, EFBIG, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP } from '../../src/abi/errno.ts'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import * as f from '../../src/syscall/file.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { FALLOC_FL_KEEP_SIZE: KEEP, FALLOC_FL_PUNCH_HOLE: PUNCH, FALLOC_FL_ZERO_RANGE: ZERO, MAP_SHARED } = abi

function allocate(r: Rig, fd: number, mode: number, page: number, pages: number): number {
  return f.sys_fallocate(r.m, fd, mode, page * r.pageSize, pages * r.pageSize)
}

/** Size and held (or cached) pages, both in pages. */
function state(r: Rig, fd: number): number[] {
  return [f.sys_fsize(r.m, fd) / r.pageSize, f.sys_fpages(r.m, fd)]
}

describe('shared memory', () => {
  test('gets the pages that it lacks, and its new size', () => {
    const r = rig({ swapSlots: 32 })
    const fd = r.memory(2)
    expect(f.sys_ftruncate(r.m, fd, 4 * r.pageSize)).toBe(0)
    expect(state(r, fd)).toEqual([4, 2])
    expect(allocate(r, fd, 0, 1, 5)).toBe(0)
    expect(state(r, fd)).toEqual([6, 6])
    expect([0, 1, 2, 5].map(page => r.fileWord(fd, page))).toEqual([1, 2, 0, 0])
    expect(f.sys_fallocate(r.m, fd, 0, 6 * r.pageSize + 5, 1)).toBe(0)
    expect([f.sys_fsize(r.m, fd), f.sys_fpages(r.m, fd)]).toEqual([6 * r.pageSize + 6, 7])
    // They were promised: reclaim swaps them out, and does not forget them.
    r.m.reclaim.shrinkAll()
    expect(f.sys_fpages(r.m, fd)).toBe(7)
    expect(allocate(r, fd, 0, 0, 7)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(7)
  })

  test('keeps pages past its end for when it grows, until it is cut', () => {
    const r = rig({ swapSlots: 32 })
    const fd = r.memory(2)
    const at = r.map(fd, 8, MAP_SHARED)
    expect(allocate(r, fd, KEEP, 4, 2)).toBe(0)
    expect(state(r, fd)).toEqual([2, 4])
    expect([r.load(at + 4 * r.pageSize), r.fileWord(fd, 4)]).toEqual([-FAULT_BUS, 0])
    r.m.reclaim.shrinkAll()
    expect(f.sys_ftruncate(r.m, fd, 5 * r.pageSize)).toBe(0)
    expect([state(r, fd), r.load(at + 4 * r.pageSize)]).toEqual([[5, 4], 0])
    expect(f.sys_ftruncate(r.m, fd, 5 * r.pageSize)).toBe(0)
    expect(state(r, fd)).toEqual([5, 3])
    expect(allocate(r, fd, KEEP, 6, 1)).toBe(0)
    expect(allocate(r, fd, PUNCH | KEEP, 6, 1)).toBe(0)
    expect(state(r, fd)).toEqual([5, 3])
    expect(allocate(r, fd, KEEP, 6, 1)).toBe(0)
    expect(f.sys_ftruncate(r.m, fd, 0)).toBe(0)
    expect(state(r, fd)).toEqual([0, 0])
  })

  test('gets all of them or none', () => {
    const r = rig()
    const quota = f.sys_quota(r.m, 4)
    const fd = r.memory(2, quota)
    expect(allocate(r, fd, 0, 1, 4)).toBe(-ENOSPC)
    expect(state(r, fd)).toEqual([2, 2])
    expect(allocate(r, fd, 0, 1, 3)).toBe(0)
    expect(state(r, fd)).toEqual([4, 4])
    const other = r.memory(1)
    expect(allocate(r, other, 0, 0, 1000)).toBe(-ENOMEM)
    expect([state(r, other), r.fileWord(other, 0)]).toEqual([[1, 1], 1])
  })

  test('is zeroed, and grows; with the policy of Linux it cannot be, as tmpfs cannot', () => {
    const r = rig()
    const fd = r.memory(4)
    expect(allocate(r, fd, ZERO | KEEP, 3, 3)).toBe(0)
    expect(state(r, fd)[0]).toBe(4)
    expect(allocate(r, fd, ZERO, 2, 4)).toBe(0)
    expect([f.sys_fsize(r.m, fd), [1, 2, 5].map(page => r.fileWord(fd, page))]).toEqual([6 * r.pageSize, [2, 0, 0]])
    const linux = rig({ policy: POLICY_LINUX })
    const tmpfs = linux.memory(2)
    expect([allocate(linux, tmpfs, ZERO, 0, 1), allocate(linux, tmpfs, 0, 0, 3)]).toEqual([-EOPNOTSUPP, 0])
  })
})

describe('a file', () => {
  test('grows in its store too, and keeps its bytes', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    expect(allocate(r, fd, KEEP, 0, 9)).toBe(0)
    expect([f.sys_fsize(r.m, fd), store.inner.size()]).toEqual([2 * r.pageSize, 2 * r.pageSize])
    expect(allocate(r, fd, 0, 1, 4)).toBe(0)
    expect([f.sys_fsize(r.m, fd), store.inner.size()]).toEqual([5 * r.pageSize, 5 * r.pageSize])
    expect([0, 1, 4].map(page => r.fileWord(fd, page))).toEqual([1, 2, 0])
    expect(allocate(r, fd, 0, 0, 2)).toBe(0)
    expect(f.sys_fsize(r.m, fd)).toBe(5 * r.pageSize)
  })

  test('is zeroed up to the end of the range, where it ends then', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    const at = r.map(fd, 4, MAP_SHARED)
    r.store(at + r.pageSize + 8, 7)
    expect(f.sys_fallocate(r.m, fd, ZERO, r.pageSize + 4, 2 * r.pageSize)).toBe(0)
    expect(f.sys_fsize(r.m, fd)).toBe(3 * r.pageSize + 4)
    expect([r.load(at + r.pageSize), r.load(at + r.pageSize + 8), r.load(at + 3 * r.pageSize)]).toEqual([2, 0, 0])
    expect(f.sys_fsync(r.m, fd)).toBe(0)
    expect([r.storedWord(store, 1), store.inner.size()]).toEqual([2, 3 * r.pageSize + 4])
  })
})

test('what is refused, and in which order', () => {
  const r = rig()
  const fd = r.memory(1)
  const reads = f.sys_reopen(r.m, fd, f.O_RDONLY)
  const call = (file: number, mode: number, off: number | bigint, len: number | bigint) =>
    f.sys_fallocate(r.m, file, mode, off, len)
  expect(call(999, 99, -1, 0)).toBe(-EBADF)
  expect([call(fd, 99, -1, 1), call(fd, 99, 0, 0), call(reads, 99, 0, -1)]).toEqual([-EINVAL, -EINVAL, -EINVAL])
  expect(call(fd, 0, 2n ** 63n, 1)).toBe(-EINVAL)
  for (const mode of [PUNCH, PUNCH | ZERO, PUNCH | ZERO | KEEP, 4, 8, 0x20, 0x40, 0x80, -1, 1.5]) {
    expect(call(reads, mode, 0, 1)).toBe(-EOPNOTSUPP)
  }
  expect([call(reads, 0, 2n ** 60n, 1), call(fd, 0, 2n ** 60n, 1), call(fd, 0, 2n ** 62n, 2n ** 62n)]).toEqual([
    -EBADF,
    -EFBIG,
    -EFBIG
  ])
  const ramfs = r.memory(1, 0, f.MEMORY_RAMFS)
  for (const mode of [0, KEEP, PUNCH | KEEP, ZERO]) expect(call(ramfs, mode, 0, 1)).toBe(-EOPNOTSUPP)
})

test('positions are looked at before descriptors, as preadv and ftruncate do; files have a largest size', () => {
  const { m } = rig()
  const fd = f.sys_memory(m, 'x', f.MEMORY_SHMEM, 4, 0)
  const byte = new Uint8Array(1)
  expect([f.sys_pread(m, 999, byte, -1), f.sys_pwrite(m, 999, byte, 2n ** 63n)]).toEqual([-EINVAL, -EINVAL])
  expect([f.sys_pread(m, 999, byte, 0), f.sys_pwrite(m, 999, byte, 0)]).toEqual([-EBADF, -EBADF])
  expect([f.sys_ftruncate(m, 999, -1), f.sys_ftruncate(m, 999, 0)]).toEqual([-EINVAL, -EBADF])
  expect([f.sys_ftruncate(m, fd, 2n ** 60n), f.sys_ftruncate(m, fd, 2n ** 63n)]).toEqual([-EFBIG, -EINVAL])
  expect([f.sys_pread(m, fd, byte, 2n ** 60n), f.sys_pread(m, fd, byte, 2n ** 63n - 1n)]).toEqual([0, -EINVAL])
  expect([f.sys_pwrite(m, fd, byte, 2n ** 62n), f.sys_pwrite(m, fd, new Uint8Array(0), 2n ** 62n)]).toEqual([-EFBIG, 0])
})
