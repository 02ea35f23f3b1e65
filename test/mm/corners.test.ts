/** Where things end: the address space, its tables of rows, the largest quota; and accesses that are forced. */
import { describe, expect, test } from 'vitest'
import { EINVAL, EIO, ENFILE, ENOMEM } from '../../src/abi/errno.ts'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_HIWATER_VM, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import { fileOf } from '../../src/mm/files.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import { sys_mm_create } from '../../src/syscall/process.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MREMAP_FIXED, MREMAP_MAYMOVE } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

describe('the end of the address space', () => {
  test('holds a mapping that ends with it, which moves, grows and shrinks no further', () => {
    const r = rig()
    const P = r.pageSize
    const last = (TASK_PAGES - 2) * P
    expect(mem.sys_mmap(r.mm, last, 2 * P, RW, ANON | MAP_FIXED, -1, 0)).toBe(last)
    expect(mem.sys_mmap(r.mm, last, 3 * P, RW, ANON | MAP_FIXED, -1, 0)).toBe(-ENOMEM)
    expect([r.store(last + P, 7), r.load(last + P)]).toEqual([0, 7])
    expect(mem.sys_mremap(r.mm, last, 2 * P, 3 * P, 0, 0)).toBe(-ENOMEM)
    expect(mem.sys_mremap(r.mm, last, 3 * P, P, 0, 0)).toBe(-EINVAL)
    expect(mem.sys_mremap(r.mm, last, 3 * P, P, MREMAP_FIXED | MREMAP_MAYMOVE, P)).toBe(-EINVAL)
    expect(r.load(last + P)).toBe(7)
    // What shrinks may end there.
    expect(mem.sys_mremap(r.mm, last, 2 * P, P, 0, 0)).toBe(last)
    const at = r.map(-1, 2, ANON)
    r.store(at, 5)
    expect(mem.sys_mremap(r.mm, at, 2 * P, 2 * P, MREMAP_FIXED | MREMAP_MAYMOVE, last + P)).toBe(-EINVAL)
    expect(mem.sys_mremap(r.mm, at, 2 * P, 2 * P, MREMAP_FIXED | MREMAP_MAYMOVE, last)).toBe(last)
    expect(r.load(last)).toBe(5)
    expect(mem.sys_mremap(r.mm, last, 2 * P, P, MREMAP_FIXED | MREMAP_MAYMOVE, 16 * P)).toBe(16 * P)
    expect(r.load(16 * P)).toBe(5)
    expect(mem.sys_munmap(r.mm, last, 2 * P)).toBe(0)
  })

  test('a move to its first page is one', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 1, ANON)
    r.store(at, 5)
    expect(mem.sys_mremap(r.mm, at, P, P, MREMAP_FIXED | MREMAP_MAYMOVE, 0)).toBe(0)
    expect(r.load(0)).toBe(5)
    expect(mem.sys_mmap(r.mm, 0, P, RW, ANON | MAP_FIXED, -1, 0)).toBe(0)
    expect(r.load(0)).toBe(0)
  })

  test('the same size, of what is not mapped, is where it is', () => {
    const r = rig()
    const P = r.pageSize
    expect(mem.sys_mremap(r.mm, 40 * P, P, P, 0, 0)).toBe(40 * P)
    expect(r.m.vmas.nrInUse).toBe(0)
  })

  test('the high-water mark of mapped pages stays when they go', () => {
    const r = rig()
    const at = r.map(-1, 10, ANON)
    r.map(-1, 2, ANON)
    mem.sys_munmap(r.mm, at, 10 * r.pageSize)
    r.map(-1, 3, ANON)
    expect([r.row(MM_TOTAL_VM), r.row(MM_HIWATER_VM)]).toEqual([5, 12])
  })
})

describe('tables of rows that are full', () => {
  test('address spaces, inodes, open files', () => {
    const r = rig({ maxSpaces: 2, maxInodes: 3, maxFiles: 4 })
    expect(typeof sys_mm_create(r.m)).not.toBe('number')
    expect(sys_mm_create(r.m)).toBe(-ENOMEM)
    const fds = [1, 2, 3].map(() => r.memory(1))
    expect(f.sys_memory(r.m, 'x', f.MEMORY_SHMEM, r.pageSize, 0)).toBe(-ENFILE)
    const again = f.sys_reopen(r.m, fds[0], f.O_RDWR)
    expect(again).toBeGreaterThan(0)
    expect(f.sys_reopen(r.m, fds[0], f.O_RDWR)).toBe(-ENFILE)
    f.sys_close(r.m, again)
    // The third and last inode is found by its store.
    f.sys_close(r.m, fds[2])
    const { store } = r.file(1)
    const twin = f.sys_open(r.m, store, f.O_RDONLY)
    expect(twin).toBeGreaterThan(0)
    expect(r.fileWord(twin, 0)).toBe(1)
    const inodeOf = (fd: number): number => r.m.files.inode[fileOf(r.m, fd)]
    expect([inodeOf(twin), r.m.inodes.refs[3]]).toEqual([3, 2])
    f.sys_close(r.m, twin)
    expect(r.m.inodes.refs[3]).toBe(1)
  })

  test('quotas: the largest, and as many as there is room for', () => {
    const { m } = rig()
    const groups = m.quotas.length / 2 - 1
    for (let i = 1; i <= groups; i++) expect(f.sys_quota(m, 0x7fffffff)).toBe(i)
    expect(f.sys_quota(m, 1)).toBe(-ENFILE)
  })
})

describe('an access that is forced', () => {
  const four = (): Uint8Array => new Uint8Array(4)

  test('ends at the end of the file, and without memory', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.file(2).fd, 4, MAP_SHARED, RW)
    expect(sys_mem_read(r.mm, at + P, new Uint8Array(3 * P))).toBe(P)
    expect(sys_mem_read(r.mm, at + 2 * P, four())).toBe(-EIO)
    expect(sys_mem_write(r.mm, at + 3 * P, four())).toBe(-EIO)
    const own = r.map(-1, 2, ANON)
    r.m.allocator.setFail(() => true)
    expect(sys_mem_write(r.mm, own, four())).toBe(-EIO)
    r.m.allocator.setFail(undefined)
    expect(sys_mem_write(r.mm, own, four())).toBe(4)
  })

  test('leaves entries that are there as they are, and none with more than its owner may', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(4)
    const own = r.map(fd, 4, MAP_PRIVATE, abi.PROT_READ)
    const rights = (at: number): number => r.pte(at) & (PTE_PRESENT | PTE_READ | PTE_WRITE)
    r.load(own)
    const before = r.pte(own)
    expect(sys_mem_read(r.mm, own, four())).toBe(4)
    expect(r.pte(own)).toBe(before)
    for (let i = 0; i < 2; i++) {
      expect(sys_mem_write(r.mm, own + P, Uint8Array.of(i, 0, 0, 1))).toBe(4)
      expect(rights(own + P)).toBe(PTE_PRESENT | PTE_READ)
    }
    expect(r.load(own + P)).toBe(0x01000001)
    const none = r.map(fd, 4, MAP_PRIVATE, abi.PROT_NONE)
    expect(sys_mem_read(r.mm, none, four())).toBe(4)
    expect(rights(none)).toBe(PTE_PRESENT)
    expect(sys_mem_write(r.mm, none, four())).toBe(4)
    expect(rights(none)).toBe(PTE_PRESENT)
    const all = r.map(fd, 4, MAP_PRIVATE, RW)
    expect(sys_mem_write(r.mm, all, four())).toBe(4)
    expect(rights(all)).toBe(PTE_PRESENT | PTE_READ | PTE_WRITE)
    const present = r.pte(all)
    expect(sys_mem_write(r.mm, all, four())).toBe(4)
    expect(r.pte(all)).toBe(present)
  })

  test('keeps a page’s own protection in a mapping with none', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(r.memory(4), 4, MAP_SHARED, RW)
    const own = abi.MAP_PAGE_PROT | abi.MAP_NONBLOCK
    expect(sys_remap_file_pages(r.mm, at, P, abi.PROT_READ, 3, own)).toBe(0)
    expect(mem.sys_mprotect(r.mm, at, 4 * P, abi.PROT_NONE)).toBe(0)
    const bytes = four()
    expect(sys_mem_read(r.mm, at, bytes)).toBe(4)
    expect(bytes[0]).toBe(4)
    expect(sys_mem_read(r.mm, at + P, bytes)).toBe(4)
    expect(r.pte(at + P) & (PTE_PRESENT | PTE_READ)).toBe(PTE_PRESENT)
  })

  test('of a page in swap, which a child has as well', () => {
    const r = rig({ swapSlots: 16 })
    const own = r.map(-1, 2, ANON)
    r.store(own, 5)
    const child = r.fork()
    r.m.reclaim.shrinkAll()
    expect(mem.sys_mprotect(r.mm, own, 2 * r.pageSize, abi.PROT_READ)).toBe(0)
    expect(sys_mem_write(r.mm, own, Uint8Array.of(9, 0, 0, 0))).toBe(4)
    expect([r.load(own), r.load(own, child)]).toEqual([9, 5])
    expect(r.pte(own) & PTE_WRITE).toBe(0)
  })
})

describe('files', () => {
  test('that only read can be opened again to read, and not to write', () => {
    const r = rig()
    const { fd } = r.file(2, f.O_RDONLY)
    expect(f.sys_reopen(r.m, fd, f.O_RDONLY)).toBeGreaterThan(0)
  })

  test('a write of nothing past the end changes nothing, one of something zeroes the tail', () => {
    const r = rig()
    const P = r.pageSize
    const { fd } = r.file(2)
    f.sys_ftruncate(r.m, fd, P + 8)
    const at = r.map(fd, 2, MAP_SHARED)
    r.store(at + P + 16, 77)
    expect(f.sys_pwrite(r.m, fd, new Uint8Array(0), P + 100)).toBe(0)
    expect(r.load(at + P + 16)).toBe(77)
    expect(f.sys_fsize(r.m, fd)).toBe(P + 8)
    expect(f.sys_pwrite(r.m, fd, Uint8Array.of(1), P + 100)).toBe(1)
    expect(r.load(at + P + 16)).toBe(0)
  })

  test('shared memory keeps what was stored behind its end when that moves on', () => {
    const r = rig()
    const P = r.pageSize
    const fd = r.memory(2)
    f.sys_ftruncate(r.m, fd, P + 8)
    const at = r.map(fd, 2, MAP_SHARED)
    r.store(at + P + 16, 77)
    expect(f.sys_ftruncate(r.m, fd, 2 * P)).toBe(0)
    expect(r.load(at + P + 16)).toBe(77)
  })
})
