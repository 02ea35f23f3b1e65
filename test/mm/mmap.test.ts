/** mmap: where a mapping goes, what it may do, and what it is refused for. */
import { describe, expect, test } from 'vitest'
import { EACCES, EAGAIN, EEXIST, EINVAL, ENFILE, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM } from '../../src/abi/errno.ts'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_HIWATER_VM, MM_LOCKED_VM, MM_MAP_COUNT, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { PTE_PRESENT } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { RLIMIT_AS, RLIMIT_MEMLOCK, sys_setrlimit } from '../../src/syscall/process.ts'
import {
  VM_ACCOUNT,
  VM_EXEC,
  VM_LOCKED,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_NORESERVE,
  VM_READ,
  VM_SHARED,
  VM_WRITE
} from '../../src/vma/flags.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

function map(r: Rig, vpn: number, pages: number, flags: number, prot: number = RW, fd = -1, pgoff = 0): number {
  const at = mem.sys_mmap(r.mm, vpn * r.pageSize, pages * r.pageSize, prot, flags, fd, pgoff * r.pageSize)
  return at < 0 ? at : at / r.pageSize
}

describe('the place', () => {
  test('is the hint where that is free, else the lowest hole that is large enough', () => {
    const r = rig()
    expect(map(r, 1000, 4, ANON)).toBe(1000)
    expect(map(r, 1004, 2, ANON, abi.PROT_READ)).toBe(1004)
    expect(map(r, 996, 4, ANON, abi.PROT_READ)).toBe(996)
    expect(map(r, 997, 2, ANON, 0)).toBe(16)
    expect(map(r, 990, 7, ANON, 0)).toBe(18)
    expect(map(r, 0, 3, ANON)).toBe(25)
    expect(mem.sys_munmap(r.mm, 18 * r.pageSize, 7 * r.pageSize)).toBe(0)
    expect(map(r, 0, 7, ANON, abi.PROT_READ)).toBe(18)
    expect(map(r, 0, 968, ANON, 0)).toBe(28)
    expect(map(r, 0, 1, ANON, abi.PROT_READ)).toBe(1006)
    expect(map(r, TASK_PAGES - 1, 2, ANON, 0)).toBe(1007)
    expect(map(r, TASK_PAGES - 2, 2, ANON, 0)).toBe(TASK_PAGES - 2)
  })

  test('of a large mapping begins with a page table', () => {
    const r = rig({ pageShift: 9 })
    expect(map(r, 0, 3, ANON)).toBe(16)
    expect(map(r, 0, 128, ANON, abi.PROT_READ)).toBe(128)
    expect(map(r, 0, 130, ANON, 0)).toBe(256)
    expect(map(r, 0, 127, ANON)).toBe(386)
  })

  test('is searched from the beginning when there is none behind', () => {
    const r = rig()
    expect(map(r, 0, TASK_PAGES - 2000, ANON, 0)).toBe(1024)
    expect(map(r, 0, 1000, ANON)).toBe(16)
    expect(map(r, 0, 1000, ANON)).toBe(-ENOMEM)
    expect(map(r, 0, TASK_PAGES + 1, ANON)).toBe(-ENOMEM)
  })

  test('is exact with MAP_FIXED, over what is there; with FIXED_NOREPLACE only where nothing is', () => {
    const r = rig()
    const { fd } = r.file(8)
    expect(map(r, 1000, 8, MAP_SHARED | MAP_FIXED, RW, fd)).toBe(1000)
    expect(map(r, 1002, 2, ANON | MAP_FIXED)).toBe(1002)
    expect(r.loads(1000 * r.pageSize, 6)).toEqual([1, 2, 0, 0, 5, 6])
    for (const [vpn, pages] of [
      [999, 2],
      [1007, 1],
      [1007, 5],
      [990, 30]
    ]) {
      expect(map(r, vpn, pages, ANON | MAP_FIXED_NOREPLACE)).toBe(-EEXIST)
      expect(map(r, vpn, pages, ANON | MAP_FIXED | MAP_FIXED_NOREPLACE)).toBe(-EEXIST)
    }
    expect(map(r, 998, 2, ANON | MAP_FIXED_NOREPLACE)).toBe(998)
    expect(map(r, 1008, 2, ANON | MAP_FIXED_NOREPLACE)).toBe(1008)
    expect(map(r, TASK_PAGES - 1, 2, ANON | MAP_FIXED)).toBe(-ENOMEM)
    expect(r.loads(1000 * r.pageSize, 2)).toEqual([1, 2])
  })
})

describe('the kind', () => {
  test('must be shared or private, and flags be known where that is asked for', () => {
    const r = rig()
    for (const type of [0, 4, 8]) expect(map(r, 0, 1, type | MAP_ANONYMOUS)).toBe(-EINVAL)
    // That kind is for files.
    expect(map(r, 0, 1, abi.MAP_SHARED_VALIDATE | MAP_ANONYMOUS)).toBe(-EINVAL)
    const { fd } = r.file(1)
    const ofFile = (flags: number) => mem.sys_mmap(r.mm, 0, r.pageSize, RW, flags, fd, 0)
    const known = [0, abi.MAP_STACK, abi.MAP_LOCKED, abi.MAP_NORESERVE, abi.MAP_DENYWRITE, abi.MAP_32BIT]
    for (const flag of known) expect(ofFile(abi.MAP_SHARED_VALIDATE | flag)).toBeGreaterThan(0)
    for (const flag of [0x200, 0x80000, abi.MAP_FIXED_NOREPLACE]) {
      expect(ofFile(abi.MAP_SHARED_VALIDATE | flag)).toBe(-EOPNOTSUPP)
    }
    expect(map(r, 0, 1, MAP_SHARED | MAP_ANONYMOUS | 0x80000)).toBeGreaterThan(0)
    const linux = rig({ policy: POLICY_LINUX })
    expect(map(linux, 0, 1, abi.MAP_SHARED_VALIDATE | MAP_ANONYMOUS)).toBe(-EINVAL)
  })

  test('and the mode of the file say what the mapping may become', () => {
    const r = rig()
    const both = r.file(2).fd
    const reads = r.file(2, f.O_RDONLY).fd
    const writes = r.file(2, f.O_WRONLY).fd
    expect(map(r, 0, 1, MAP_SHARED, abi.PROT_READ, writes)).toBe(-EACCES)
    expect(map(r, 0, 1, MAP_PRIVATE, abi.PROT_READ, writes)).toBe(-EACCES)
    expect(map(r, 0, 1, MAP_SHARED, RW, reads)).toBe(-EACCES)
    const flagsOf = (vpn: number): number => r.vmaFlags(vpn * r.pageSize) & (VM_SHARED | VM_MAYSHARE | VM_MAYWRITE)
    expect(flagsOf(map(r, 0, 1, MAP_SHARED, RW, both))).toBe(VM_SHARED | VM_MAYSHARE | VM_MAYWRITE)
    expect(flagsOf(map(r, 0, 1, MAP_SHARED, abi.PROT_READ, reads))).toBe(VM_SHARED | VM_MAYSHARE)
    expect(flagsOf(map(r, 0, 1, MAP_PRIVATE, RW, reads))).toBe(VM_MAYWRITE)
    expect(flagsOf(map(r, 0, 1, MAP_SHARED | MAP_ANONYMOUS))).toBe(VM_SHARED | VM_MAYSHARE | VM_MAYWRITE)
    const linux = rig({ policy: POLICY_LINUX })
    const only = map(linux, 0, 1, MAP_SHARED, abi.PROT_READ, linux.file(2, f.O_RDONLY).fd)
    expect(linux.vmaFlags(only * linux.pageSize) & (VM_SHARED | VM_MAYSHARE | VM_MAYWRITE)).toBe(VM_MAYSHARE)
  })

  test('and the protection are what smaps shows', () => {
    const r = rig()
    const all = VM_READ | VM_WRITE | VM_EXEC | VM_ACCOUNT | VM_NORESERVE
    const flagsOf = (flags: number, prot: number): number => r.vmaFlags(map(r, 0, 1, flags, prot) * r.pageSize) & all
    expect(flagsOf(ANON, 0)).toBe(0)
    expect(flagsOf(ANON, abi.PROT_READ)).toBe(VM_READ)
    expect(flagsOf(ANON, abi.PROT_EXEC)).toBe(VM_EXEC)
    expect(flagsOf(ANON, abi.PROT_WRITE)).toBe(VM_WRITE | VM_ACCOUNT)
    expect(flagsOf(ANON | abi.MAP_NORESERVE, abi.PROT_WRITE)).toBe(VM_WRITE | VM_NORESERVE)
    expect(flagsOf(MAP_SHARED | MAP_ANONYMOUS, RW)).toBe(VM_READ | VM_WRITE)
  })
})

test('shared anonymous memory is one memory for a parent and its child, and begins as zeros', () => {
  const r = rig()
  const at = map(r, 0, 3, MAP_SHARED | MAP_ANONYMOUS) * r.pageSize
  expect(r.loads(at, 3)).toEqual([0, 0, 0])
  const child = r.fork()
  r.store(at + 2 * r.pageSize, 5, child)
  expect([r.load(at + 2 * r.pageSize), r.remap(at, 1, 2), r.load(at)]).toEqual([5, 0, 5])
})

describe('limits', () => {
  test('of address space count what a fixed mapping replaces', () => {
    const r = rig()
    expect(map(r, 1000, 8, ANON)).toBe(1000)
    expect([r.row(MM_TOTAL_VM), r.row(MM_HIWATER_VM), r.row(MM_MAP_COUNT)]).toEqual([8, 8, 1])
    expect(sys_setrlimit(r.mm, RLIMIT_AS, 10)).toBe(0)
    expect(map(r, 0, 3, ANON)).toBe(-ENOMEM)
    expect(map(r, 1006, 4, ANON | MAP_FIXED)).toBe(1006)
    expect(map(r, 1009, 2, ANON | MAP_FIXED)).toBe(-ENOMEM)
    expect([r.row(MM_TOTAL_VM), r.row(MM_HIWATER_VM)]).toEqual([10, 10])
    expect(mem.sys_munmap(r.mm, 1000 * r.pageSize, 4 * r.pageSize)).toBe(0)
    expect([r.row(MM_TOTAL_VM), r.row(MM_HIWATER_VM)]).toEqual([6, 10])
    expect(sys_setrlimit(r.mm, RLIMIT_AS, -1)).toBe(0)
    expect(map(r, 0, 3, ANON)).toBeGreaterThan(0)
  })

  test('of locked memory: MAP_LOCKED populates up to it', () => {
    const r = rig()
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 3)).toBe(0)
    expect(map(r, 0, 4, ANON | abi.MAP_LOCKED)).toBe(-EAGAIN)
    const at = map(r, 0, 3, ANON | abi.MAP_LOCKED) * r.pageSize
    expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK], r.vmaFlags(at) & VM_LOCKED]).toEqual([3, 3, VM_LOCKED])
    expect(r.pte(at + 2 * r.pageSize) & PTE_PRESENT).toBe(PTE_PRESENT)
    expect(map(r, 0, 1, ANON | abi.MAP_LOCKED)).toBe(-EAGAIN)
    expect(mem.sys_munmap(r.mm, at, 2 * r.pageSize)).toBe(0)
    expect([r.row(MM_LOCKED_VM), r.m.vmstat[NR_MLOCK]]).toEqual([1, 1])
    expect(sys_setrlimit(r.mm, RLIMIT_MEMLOCK, 0)).toBe(0)
    expect(map(r, 0, 1, ANON | abi.MAP_LOCKED)).toBe(-EPERM)
    expect(map(r, 0, 9, ANON)).toBeGreaterThan(0)
    expect(sys_setrlimit(r.mm, RLIMIT_AS, 0)).toBe(0)
    expect(map(r, 0, 1, ANON)).toBe(-ENOMEM)
  })

  test('of mappings, counted before the place is looked for', () => {
    const r = rig({ maxMapCount: 2 })
    for (const prot of [1, 3, 1]) expect(map(r, 0, 1, ANON, prot)).toBeGreaterThan(0)
    expect(map(r, 0, 1, ANON, 3)).toBe(-ENOMEM)
  })

  test('of the machine: mappings, inodes, open files', () => {
    const r = rig({ maxVmas: 2, maxInodes: 2, maxFiles: 3 })
    const { fd } = r.file(2)
    expect(map(r, 0, 1, MAP_SHARED | MAP_ANONYMOUS)).toBeGreaterThan(0)
    expect(map(r, 0, 1, MAP_SHARED | MAP_ANONYMOUS)).toBe(-ENFILE)
    expect(map(r, 0, 1, MAP_SHARED, RW, fd)).toBeGreaterThan(0)
    expect(map(r, 0, 1, ANON)).toBe(-ENOMEM)
    expect(map(r, 0, 1, MAP_SHARED, abi.PROT_READ, fd)).toBe(-ENOMEM)
    const other = rig({ maxFiles: 1 })
    expect(other.file(1).fd).toBeGreaterThanOrEqual(0)
    expect(map(other, 0, 1, MAP_SHARED | MAP_ANONYMOUS)).toBe(-ENFILE)
    expect(other.m.inodes.kind.filter(kind => kind !== 0).length).toBe(1)
  })

  test('of 64 bits: the end of the mapping within the file', () => {
    const r = rig()
    const { fd } = r.file(1)
    const last = 2n ** 64n - 4096n
    expect(mem.sys_mmap(r.mm, 0, 2 * r.pageSize, RW, MAP_SHARED, fd, last)).toBe(-EOVERFLOW)
    expect(mem.sys_mmap(r.mm, 0, r.pageSize, RW, MAP_SHARED, fd, last)).toBeGreaterThan(0)
    const linux = rig({ policy: POLICY_LINUX })
    expect(mem.sys_mmap(linux.mm, 0, 2 * r.pageSize, RW, MAP_SHARED, linux.file(1).fd, last)).toBeGreaterThan(0)
  })
})

test('MAP_GROWSDOWN is for private memory of its own, MAP_HUGETLB for files of huge pages', () => {
  const r = rig()
  const files = [r.file(1).fd, r.memory(1)]
  const map2 = (fd: number, flags: number) => mem.sys_mmap(r.mm, 0, r.pageSize, RW, flags, fd, 0)
  for (const fd of files) {
    for (const kind of [MAP_SHARED, MAP_PRIVATE, abi.MAP_SHARED_VALIDATE]) {
      for (const flag of [abi.MAP_GROWSDOWN, abi.MAP_HUGETLB]) expect(map2(fd, kind | flag)).toBe(-EINVAL)
    }
  }
  expect(map2(-1, MAP_SHARED | MAP_ANONYMOUS | abi.MAP_GROWSDOWN)).toBe(-EINVAL)
  expect(map2(-1, MAP_PRIVATE | MAP_ANONYMOUS | abi.MAP_GROWSDOWN)).toBeGreaterThan(0)
  for (const kind of [MAP_SHARED, MAP_PRIVATE]) {
    expect(map2(-1, kind | MAP_ANONYMOUS | abi.MAP_HUGETLB)).toBe(-ENOMEM)
    expect(map2(-1, kind | MAP_ANONYMOUS | abi.MAP_HUGETLB | (21 << abi.MAP_HUGE_SHIFT))).toBe(-ENOMEM)
    expect(map2(-1, kind | MAP_ANONYMOUS | abi.MAP_HUGETLB | (5 << abi.MAP_HUGE_SHIFT))).toBe(-EINVAL)
  }
  expect(map2(-1, MAP_ANONYMOUS | abi.MAP_HUGETLB)).toBe(-EINVAL)
  // The right to write comes first.
  expect(map2(r.file(1, f.O_RDONLY).fd, MAP_SHARED | abi.MAP_GROWSDOWN)).toBe(-EACCES)
  expect(map2(r.memory(1, 0, f.MEMORY_NOREMAP), MAP_SHARED | abi.MAP_HUGETLB)).toBeGreaterThan(0)
})
