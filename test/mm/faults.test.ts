/** Page faults and populating: what each kind of entry turns into, and where they stop. */
import { describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_ANONPAGES, MM_FILEPAGES } from '../../src/frame/mm-table.ts'
import { COW_COPIES, NR_DIRTY, PGMAJFAULT } from '../../src/frame/vmstat.ts'
import { PTE_DIRTY, PTE_PRESENT, PTE_WRITE, pteFrame } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_POPULATE, MAP_NONBLOCK } = abi

describe('a fault', () => {
  test('outside of everything, and against protection', () => {
    const r = rig()
    const { fd } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED, 0)
    expect([r.load(at), r.store(at, 1)]).toEqual([-FAULT_ACCERR, -FAULT_ACCERR])
    expect(r.load(at + 2 * r.pageSize)).toBe(-FAULT_MAPERR)
    mem.sys_mprotect(r.mm, at, r.pageSize, 1)
    expect([r.load(at), r.store(at, 1)]).toEqual([1, -FAULT_ACCERR])
    mem.sys_mprotect(r.mm, at, r.pageSize, 0)
    expect(r.load(at)).toBe(-FAULT_ACCERR)
  })

  test('of anonymous memory gives the zero page to loads and a page of its own to stores', () => {
    const r = rig()
    const at = r.map(-1, 3, MAP_PRIVATE | MAP_ANONYMOUS)
    const free = r.m.allocator.nrFree
    expect(r.loads(at, 3)).toEqual([0, 0, 0])
    expect(pteFrame(r.pte(at))).toBe(0)
    expect(r.row(MM_ANONPAGES)).toBe(0)
    // One page table, or a path of them.
    expect(free - r.m.allocator.nrFree).toBeLessThanOrEqual(3)
    expect(r.store(at, 5)).toBe(0)
    expect(r.row(MM_ANONPAGES)).toBe(1)
    expect(r.loads(at, 2)).toEqual([5, 0])
  })

  test('that stores to a shared file page makes it dirty, one that loads does not', () => {
    const r = rig()
    const { fd } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.load(at)
    expect(r.pte(at) & (PTE_WRITE | PTE_DIRTY)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    r.store(at, 9)
    expect(r.pte(at) & (PTE_WRITE | PTE_DIRTY)).toBe(PTE_WRITE | PTE_DIRTY)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
  })

  test('that stores to a private file page copies it; the file stays', () => {
    const r = rig()
    const { fd } = r.file(4)
    const at = r.map(fd, 4, MAP_PRIVATE)
    expect(r.store(at + r.pageSize, 50)).toBe(0)
    expect(r.m.vmstat[COW_COPIES]).toBe(1)
    expect(r.loads(at, 4)).toEqual([1, 50, 3, 4])
    expect(r.fileWord(fd, 1)).toBe(2)
    expect([r.row(MM_ANONPAGES), r.row(MM_FILEPAGES)]).toEqual([1, 3])
  })

  test('past the last page is SIGBUS; the partial last page reads as zero to its end', () => {
    const r = rig()
    const { fd } = r.file(2)
    f.sys_ftruncate(r.m, fd, r.pageSize + 100)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(r.load(at + r.pageSize + 200)).toBe(0)
    expect(r.load(at + 2 * r.pageSize)).toBe(-FAULT_BUS)
    expect(r.m.lastError).toBe(0)
  })

  test('that cannot read the store is SIGBUS with its error, and works when the store does', () => {
    const r = rig()
    const { fd, store } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    const fault = store.arm({ kind: 'error-for-good', op: 'read' })
    expect(r.load(at)).toBe(-FAULT_BUS)
    expect(r.m.lastError).toBe(EIO)
    fault.disarm()
    expect(r.load(at)).toBe(1)
  })

  test('maps cached linear neighbours around a load, but no remembered place and nothing past the end', () => {
    const r = rig({ faultAroundPages: 16, readaheadBytes: 0 })
    const fd = r.memory(6)
    const at = r.map(fd, 8, MAP_SHARED)
    r.remap(at + 2 * r.pageSize, 1, 5, MAP_NONBLOCK)
    r.load(at)
    const present = Array.from({ length: 8 }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT)
    expect(present).toEqual([1, 1, 0, 1, 1, 1, 0, 0])
    expect(r.load(at + 2 * r.pageSize)).toBe(6)
  })

  test('maps a page that had to be read by itself alone, and its neighbours with one that was there', () => {
    const r = rig({ faultAroundPages: 16, readaheadBytes: 0 })
    const { fd } = r.file(6)
    const elsewhere = r.map(fd, 6, MAP_SHARED)
    r.loads(elsewhere, 2)
    const at = r.map(fd, 6, MAP_SHARED)
    const present = (): number[] => Array.from({ length: 6 }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT)
    r.load(at + 3 * r.pageSize)
    expect(present()).toEqual([0, 0, 0, 1, 0, 0])
    r.load(at + r.pageSize)
    expect(present()).toEqual([1, 1, 0, 1, 0, 0])
  })

  test('without memory is OOM and leaves nothing behind', () => {
    const r = rig()
    const fd = r.memory(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.remap(at, 1, 2, MAP_NONBLOCK)
    const free = r.m.allocator.nrFree
    // The second allocation: a slab after the table, or the reverse.
    for (let nth = 1; nth <= 2; nth++) {
      let left = nth
      r.m.allocator.setFail(() => --left === 0)
      const code = r.load(at)
      r.m.allocator.setFail(undefined)
      if (code === -FAULT_OOM) expect(r.m.allocator.nrFree).toBe(free)
      else expect(code).toBe(3)
    }
    expect(r.load(at)).toBe(3)
  })
})

describe('populating', () => {
  test('reads shared mappings and never makes them dirty', () => {
    const r = rig({ readaheadBytes: 0 })
    const { fd } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED | MAP_POPULATE)
    expect(r.row(MM_FILEPAGES)).toBe(8)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    const faults = r.m.vmstat[PGMAJFAULT]
    expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(r.m.vmstat[PGMAJFAULT]).toBe(faults)
  })

  test('copies private writable ones', () => {
    const r = rig()
    const { fd } = r.file(4)
    r.map(fd, 4, MAP_PRIVATE | MAP_POPULATE)
    expect(r.row(MM_ANONPAGES)).toBe(4)
  })

  test('stops at the first page that fails and goes on with the next mapping', () => {
    const r = rig()
    const fd = r.memory(3)
    const at = r.map(fd, 6, MAP_SHARED)
    expect(r.remap(at, 6, 1)).toBe(0)
    const present = (): number[] => Array.from({ length: 6 }, (_, i) => r.pte(at + i * r.pageSize) & PTE_PRESENT)
    expect(present()).toEqual([1, 1, 0, 0, 0, 0])
    expect(mem.sys_madvise(r.mm, at, 6 * r.pageSize, abi.MADV_DONTNEED)).toBe(0)
    expect(mem.sys_mprotect(r.mm, at, r.pageSize, 1)).toBe(0)
    expect(r.loads(at, 3)).toEqual([2, 3, -FAULT_BUS])
  })

  test('MAP_NONBLOCK does nothing now', () => {
    const r = rig()
    const { fd } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED | MAP_POPULATE | MAP_NONBLOCK)
    expect(r.row(MM_FILEPAGES)).toBe(0)
    expect(r.remap(at, 4, 0, MAP_NONBLOCK)).toBe(0)
    expect(r.row(MM_FILEPAGES)).toBe(0)
  })

  test('makes pages of holes in shared memory, and is stopped by their quota', () => {
    const r = rig()
    const quota = f.sys_quota(r.m, 3)
    const fd = f.sys_memory(r.m, 'few', f.MEMORY_SHMEM, 8 * r.pageSize, quota)
    const at = r.map(fd, 8, MAP_SHARED | MAP_POPULATE, RW)
    expect(f.sys_fpages(r.m, fd)).toBe(3)
    expect(r.load(at + 5 * r.pageSize)).toBe(-FAULT_BUS)
    // Pages that were never stored to are zeros, and go as such.
    r.m.reclaim.shrinkAll()
    expect(f.sys_fpages(r.m, fd)).toBe(0)
    expect(r.loads(at + 5 * r.pageSize, 3)).toEqual([0, 0, 0])
    expect(r.load(at)).toBe(-FAULT_BUS)
  })
})
