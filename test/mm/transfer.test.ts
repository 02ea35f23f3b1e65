/** read() and write() between files and address spaces, and /proc/PID/mem: how far they come, and what they say. */
import { describe, expect, test } from 'vitest'
import { EBADF, EFAULT, EFBIG, EINVAL, EIO, ENOMEM, ENOSPC } from '../../src/abi/errno.ts'
import { FAULT_ACCERR } from '../../src/abi/fault.ts'
import { MAX_FILE_PAGES, TASK_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { NR_DIRTY } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX, POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import { PTE_READ, PTE_WRITE } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

/** Bytes by pread, or the error. */
function bytesOf(r: Rig, fd: number, position: number, length: number): number[] | number {
  const bytes = new Uint8Array(length).fill(0xee)
  const got = f.sys_pread(r.m, fd, bytes, position)
  return got < 0 ? got : [...bytes.subarray(0, got)]
}

describe('reading into memory', () => {
  test('crosses pages on both sides, and holes read as zeros', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(4)
    const at = r.map(-1, 4, ANON)
    expect(f.sys_read_user(r.mm, at + 100, 2 * P, fd, P - 50)).toBe(2 * P)
    expect([r.load(at + 150), r.load(at + 150 + P)]).toEqual([2, 3])
    const memory = f.sys_memory(r.m, 'holes', f.MEMORY_SHMEM, 2 * P, 0)
    expect(f.sys_read_user(r.mm, at + 100, 2 * P, memory, 0)).toBe(2 * P)
    expect([r.load(at + 150), f.sys_fpages(r.m, memory)]).toEqual([0, 0])
  })

  test('ends at the end of the file, and where the memory ends', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(2)
    f.sys_ftruncate(r.m, fd, P + 10)
    const at = r.map(-1, 2, ANON)
    expect(f.sys_read_user(r.mm, at, 2 * P, fd, 0)).toBe(P + 10)
    expect(f.sys_read_user(r.mm, at, 2 * P, fd, P + 10)).toBe(0)
    expect(f.sys_read_user(r.mm, at, 2 * P, fd, 10 * P)).toBe(0)
    expect(f.sys_read_user(r.mm, at + 2 * P - 4, 2 * P, fd, 0)).toBe(4)
    expect(r.load(at + 2 * P - 4)).toBe(1)
    expect(f.sys_read_user(r.mm, at + 2 * P, P, fd, 0)).toBe(-EFAULT)
    expect(f.sys_read_user(r.mm, (TASK_PAGES - 1) * P, P + 1, fd, 0)).toBe(-EFAULT)
    expect(f.sys_read_user(r.mm, at, P, fd, -1)).toBe(-EINVAL)
  })

  test('that meets an error of the store gives what it had before, then the error', () => {
    const r = rig({ readaheadBytes: 0 })
    const P = r.pageSize
    const { fd, store } = r.file(3)
    const at = r.map(-1, 4, ANON)
    store.arm({ kind: 'error-for-good', op: 'read', call: 2 })
    expect(f.sys_read_user(r.mm, at, 3 * P, fd, 0)).toBe(P)
    expect(f.sys_read_user(r.mm, at, 3 * P, fd, P)).toBe(-EIO)
    expect(f.sys_pread(r.m, fd, new Uint8Array(3 * P), 0)).toBe(P)
    expect(f.sys_pread(r.m, fd, new Uint8Array(3 * P), P)).toBe(-EIO)
  })

  test.each([
    ['Linux touches first', POLICY_LINUX, 0],
    ['ours does not', POLICY_NONLINEAR, 7]
  ])('the very page that it reads from: %s', (_who, policy, first) => {
    const r = rig({ policy })
    const P = r.pageSize
    const fd = r.memory(2)
    const at = r.map(fd, 2, MAP_SHARED)
    f.sys_pwrite(r.m, fd, Uint8Array.of(7, 8, 9, 10), 0)
    expect(f.sys_read_user(r.mm, at, 4, fd, 0)).toBe(4)
    expect(bytesOf(r, fd, 0, 4)).toEqual([first, 8, 9, 10])
    f.sys_pwrite(r.m, fd, Uint8Array.of(1, 2, 3, 4, 5, 6), P)
    expect(f.sys_read_user(r.mm, at + P - 2, 6, fd, P)).toBe(6)
    expect(bytesOf(r, fd, P - 2, 6)).toEqual([1, 2, 3, policy === POLICY_LINUX ? 0 : 4, 5, 6])
  })
})

describe('writing from memory', () => {
  test('crosses pages on both sides and extends the file', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(1)
    const at = r.map(-1, 3, ANON)
    for (let i = 0; i < 3; i++) r.store(at + i * P, 50 + i)
    expect(f.sys_write_user(r.mm, at + P - 2, P + 6, fd, 10)).toBe(P + 6)
    expect(f.sys_fsize(r.m, fd)).toBe(P + 16)
    expect(bytesOf(r, fd, 8, 6)).toEqual([0, 0, 0, 0, 51, 0])
    expect(bytesOf(r, fd, P + 12, 10)).toEqual([52, 0, 0, 0])
  })

  test('takes a part of a file page as a whole or not at all', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(3)
    const at = r.map(-1, 2, ANON)
    r.store(at, 70)
    r.store(at + P, 71)
    expect(f.sys_write_user(r.mm, at + P, 2 * P, fd, 0)).toBe(P)
    expect(r.fileWord(fd, 0)).toBe(71)
    expect(f.sys_write_user(r.mm, at + P, 2 * P, fd, P / 2)).toBe(P / 2)
    expect(f.sys_write_user(r.mm, at + P + P / 2 + 1, P, fd, P)).toBe(-EFAULT)
    expect(r.fileWord(fd, 1)).toBe(2)
    expect(f.sys_write_user(r.mm, at + 2 * P, 1, fd, 0)).toBe(-EFAULT)
  })

  test('that finds no room or no memory gives what it had before, then the error', () => {
    const r = rig()
    const P = r.pageSize
    const group = f.sys_quota(r.m, 2)
    const fd = f.sys_memory(r.m, 'small', f.MEMORY_SHMEM, 0, group)
    const at = r.map(-1, 4, ANON)
    r.store(at, 1)
    expect(f.sys_write_user(r.mm, at, 4 * P, fd, 0)).toBe(2 * P)
    expect(f.sys_write_user(r.mm, at, P, fd, 2 * P)).toBe(-ENOSPC)
    expect([f.sys_fpages(r.m, fd), f.sys_fsize(r.m, fd)]).toEqual([2, 2 * P])
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(3 * P), P)).toBe(P)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(P), 2 * P)).toBe(-ENOSPC)
    expect(f.sys_ftruncate(r.m, fd, 0)).toBe(0)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(P), 8 * P)).toBe(P)
    const { fd: file } = r.file(2)
    r.m.allocator.setFail(() => true)
    expect(f.sys_pwrite(r.m, file, new Uint8Array(P), 0)).toBe(-ENOMEM)
    expect(f.sys_pwrite(r.m, file, new Uint8Array(P), 4 * P)).toBe(-ENOMEM)
    expect(f.sys_pread(r.m, file, new Uint8Array(P), 0)).toBe(-ENOMEM)
    r.m.allocator.setFail(undefined)
    expect(f.sys_fsize(r.m, file)).toBe(2 * P)
  })

  test('past the last page that can be numbered is EFBIG', () => {
    const r = rig()
    const end = MAX_FILE_PAGES * r.pageSize
    const fd = r.memory(1)
    expect(f.sys_pwrite(r.m, fd, Uint8Array.of(1, 2), end - 1)).toBe(-EFBIG)
    expect(f.sys_pwrite(r.m, fd, Uint8Array.of(1), end - 1)).toBe(1)
    expect(f.sys_fsize(r.m, fd)).toBe(end)
    expect(f.sys_memory(r.m, 'large', f.MEMORY_SHMEM, end + 1, 0)).toBe(-EFBIG)
    expect(f.sys_fallocate(r.m, fd, 3, Number.MAX_SAFE_INTEGER, 1)).toBe(-EFBIG)
    expect(f.sys_fallocate(r.m, fd, 3, 0, 0)).toBe(-EINVAL)
  })

  test('a page that is overwritten whole, or lies past the end, is not read first', () => {
    const r = rig()
    const P = r.pageSize
    const { fd, store } = r.file(4)
    f.sys_ftruncate(r.m, fd, 3 * P + 8)
    const reads = store.calls.read
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(P).fill(1), P)).toBe(P)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(8).fill(2), 3 * P)).toBe(8)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(8).fill(3), 5 * P + 8)).toBe(8)
    expect(store.calls.read).toBe(reads)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(8).fill(4), 0)).toBe(8)
    expect(store.calls.read).toBe(reads + 1)
    expect(bytesOf(r, fd, 5 * P, 20)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3])
    expect(bytesOf(r, fd, 3 * P + 6, 4)).toEqual([2, 2, 0, 0])
  })
})

test('descriptors that are not open for it are EBADF', () => {
  const r = rig()
  const reads = r.file(2, f.O_RDONLY).fd
  const writes = r.file(2, f.O_WRONLY).fd
  const at = r.map(-1, 1, ANON)
  const four = new Uint8Array(4)
  expect([f.sys_pread(r.m, writes, four, 0), f.sys_read_user(r.mm, at, 4, writes, 0)]).toEqual([-EBADF, -EBADF])
  expect([f.sys_pwrite(r.m, reads, four, 0), f.sys_write_user(r.mm, at, 4, reads, 0)]).toEqual([-EBADF, -EBADF])
  expect([f.sys_fallocate(r.m, reads, 3, 0, 4096), f.sys_ftruncate(r.m, reads, 0)]).toEqual([-EBADF, -EINVAL])
  expect([f.sys_fpages(r.m, 99), f.sys_reopen(r.m, 99, f.O_RDWR), f.sys_reopen(r.m, reads, 9)]).toEqual([
    -EBADF,
    -EBADF,
    -EINVAL
  ])
  expect(f.sys_pread(r.m, reads, [] as unknown as Uint8Array, 0)).toBe(-EFAULT)
  expect(f.sys_pwrite(r.m, writes, [] as unknown as Uint8Array, 0)).toBe(-EFAULT)
  expect(f.sys_memory(r.m, 'x', 9, 1, 0)).toBe(-EINVAL)
  expect(f.sys_memory(r.m, 'x', 0, 1, 5)).toBe(-EINVAL)
  expect(f.sys_memory(r.m, 'x', 0, 1, 0.5)).toBe(-EINVAL)
  for (const pages of [0, 0.5, 2 ** 31]) expect(f.sys_quota(r.m, pages)).toBe(-EINVAL)
})

describe('/proc/PID/mem', () => {
  const word = (bytes: Uint8Array): number => new DataView(bytes.buffer).getUint32(0, true)

  test('reads what its owner may not, and leaves it so', () => {
    const r = rig()
    const { fd } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED, 0)
    const bytes = new Uint8Array(4)
    expect(sys_mem_read(r.mm, at + r.pageSize, bytes)).toBe(4)
    expect(word(bytes)).toBe(2)
    expect(r.load(at + r.pageSize)).toBe(-FAULT_ACCERR)
    expect(r.pte(at + r.pageSize) & (PTE_READ | PTE_WRITE)).toBe(0)
    expect(sys_mem_read(r.mm, at + 2 * r.pageSize - 2, bytes)).toBe(2)
    expect(sys_mem_read(r.mm, at + 2 * r.pageSize, bytes)).toBe(-EIO)
    expect(sys_mem_read(r.mm, TASK_PAGES * r.pageSize, bytes)).toBe(-EIO)
    expect(sys_mem_read(r.mm, -1, bytes)).toBe(-EIO)
  })

  test('writes to a private read-only page by a copy that stays read-only, to a shared one not at all', () => {
    const r = rig()
    const { fd } = r.file(2)
    const own = r.map(fd, 2, MAP_PRIVATE, 1)
    const shared = r.map(fd, 2, MAP_SHARED, 1)
    expect(sys_mem_write(r.mm, own, Uint8Array.of(9, 0, 0, 0))).toBe(4)
    expect([r.load(own), r.load(shared), r.store(own, 1)]).toEqual([9, 1, -FAULT_ACCERR])
    expect(sys_mem_write(r.mm, shared, Uint8Array.of(9))).toBe(-EIO)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    const writable = r.map(fd, 2, MAP_SHARED)
    expect(sys_mem_write(r.mm, writable + r.pageSize - 2, Uint8Array.of(1, 2, 3, 4))).toBe(4)
    expect([r.load(writable + r.pageSize) & 0xffff, r.m.vmstat[NR_DIRTY]]).toEqual([0x0403, 2])
    const before = r.load(own)
    expect(sys_mem_write(r.mm, own, Uint8Array.of(11, 0, 0, 0))).toBe(4)
    expect([before, r.load(own)]).toEqual([9, 11])
  })

  test('a page with a protection of its own keeps it', () => {
    const r = rig()
    const at = r.map(r.memory(4), 4, MAP_SHARED)
    const P = r.pageSize
    expect(sys_remap_file_pages(r.mm, at, P, abi.PROT_READ, 3, abi.MAP_PAGE_PROT | abi.MAP_NONBLOCK)).toBe(0)
    expect(sys_remap_file_pages(r.mm, at + P, P, RW, 2, abi.MAP_PAGE_PROT | abi.MAP_NONBLOCK)).toBe(0)
    expect(sys_mem_write(r.mm, at, Uint8Array.of(9, 0, 0, 0))).toBe(4)
    expect([r.load(at), r.store(at, 1)]).toEqual([9, -FAULT_ACCERR])
    expect(sys_mem_write(r.mm, at + P, Uint8Array.of(8, 0, 0, 0))).toBe(4)
    expect([r.load(at + P), r.store(at + P, 1)]).toEqual([8, 0])
  })
})
