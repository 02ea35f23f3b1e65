/** madvise: what each advice does, where it is refused, and how far it comes. */
import { describe, expect, test } from 'vitest'
import { EACCES, EAGAIN, EFAULT, EINVAL, ENOMEM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_MAP_COUNT, MM_SWAPENTS } from '../../src/frame/mm-table.ts'
import { NR_DIRTY, PSWPIN } from '../../src/frame/vmstat.ts'
import { PTE_PRESENT, PTE_WRITE, pteSwap } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import {
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_LOCKED,
  VM_MERGEABLE,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SOFTDIRTY,
  VM_WIPEONFORK
} from '../../src/vma/flags.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi

function advise(r: Rig, at: number, pages: number, advice: number): number {
  return mem.sys_madvise(r.mm, at, pages * r.pageSize, advice)
}

function resident(r: Rig, at: number, pages: number): number[] {
  const vec = new Uint8Array(pages)
  expect(mem.sys_mincore(r.mm, at, pages * r.pageSize, vec)).toBe(0)
  return [...vec]
}

test('numbers that are no advice are refused, those between as well', () => {
  const r = rig()
  const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  for (const advice of [5, 6, 7, 9.5, 25, 99, 102, -1]) expect(advise(r, at, 1, advice)).toBe(-EINVAL)
  for (const advice of [0, 1, 2, 3, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]) {
    expect(advise(r, at, 1, advice)).toBe(0)
  }
})

describe('a behaviour', () => {
  test('is a flag of the mapping; its opposite takes it back', () => {
    const r = rig()
    const at = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    const plain = r.vmaFlags(at) & ~VM_SOFTDIRTY
    const flagsAfter = (advice: number): number => {
      expect(advise(r, at, 4, advice)).toBe(0)
      return r.vmaFlags(at) & ~VM_SOFTDIRTY
    }
    expect(flagsAfter(abi.MADV_RANDOM)).toBe(plain | VM_RAND_READ)
    expect(flagsAfter(abi.MADV_SEQUENTIAL)).toBe(plain | VM_SEQ_READ)
    expect(flagsAfter(abi.MADV_RANDOM)).toBe(plain | VM_RAND_READ)
    expect(flagsAfter(abi.MADV_NORMAL)).toBe(plain)
    expect(flagsAfter(abi.MADV_SEQUENTIAL)).toBe(plain | VM_SEQ_READ)
    expect(flagsAfter(abi.MADV_NORMAL)).toBe(plain)
    expect(flagsAfter(abi.MADV_DONTFORK)).toBe(plain | VM_DONTCOPY)
    expect(flagsAfter(abi.MADV_DONTDUMP)).toBe(plain | VM_DONTCOPY | VM_DONTDUMP)
    expect(flagsAfter(abi.MADV_DOFORK)).toBe(plain | VM_DONTDUMP)
    expect(flagsAfter(abi.MADV_DODUMP)).toBe(plain)
    expect(flagsAfter(abi.MADV_MERGEABLE)).toBe(plain | VM_MERGEABLE)
    expect(flagsAfter(abi.MADV_UNMERGEABLE)).toBe(plain)
    expect(flagsAfter(abi.MADV_HUGEPAGE)).toBe(plain)
    expect(flagsAfter(abi.MADV_WIPEONFORK)).toBe(plain | VM_WIPEONFORK)
    expect(flagsAfter(abi.MADV_KEEPONFORK)).toBe(plain)
  })

  test('that shared mappings cannot have is ignored (MERGEABLE) or refused (HUGEPAGE)', () => {
    const r = rig()
    const shared = r.map(r.memory(2), 2, MAP_SHARED)
    const readOnly = r.map(r.file(2, f.O_RDONLY).fd, 2, MAP_SHARED, abi.PROT_READ)
    for (const at of [shared, readOnly]) {
      expect(advise(r, at, 2, abi.MADV_MERGEABLE)).toBe(0)
      expect(r.vmaFlags(at) & VM_MERGEABLE).toBe(0)
      for (const advice of [abi.MADV_HUGEPAGE, abi.MADV_NOHUGEPAGE]) expect(advise(r, at, 2, advice)).toBe(-EINVAL)
    }
  })

  test('of a part splits the mapping, of the rest makes it whole again', () => {
    const r = rig()
    const at = r.map(-1, 6, MAP_PRIVATE | MAP_ANONYMOUS)
    const P = r.pageSize
    expect(advise(r, at + 2 * P, 2, abi.MADV_DONTDUMP)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(3)
    expect([0, 1, 2, 3, 4, 5].map(i => (r.vmaFlags(at + i * P) & VM_DONTDUMP) !== 0)).toEqual([
      false,
      false,
      true,
      true,
      false,
      false
    ])
    expect(advise(r, at, 6, abi.MADV_DONTDUMP)).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
    expect(r.vmaFlags(at + 5 * P) & VM_DONTDUMP).toBe(VM_DONTDUMP)
  })

  test.each([1, 2])('that would need more than %i mappings is EAGAIN, as on Linux', maxMapCount => {
    const r = rig({ maxMapCount })
    const at = r.map(-1, 6, MAP_PRIVATE | MAP_ANONYMOUS)
    const P = r.pageSize
    expect(advise(r, at + 2 * P, 2, abi.MADV_DONTDUMP)).toBe(-EAGAIN)
    expect(r.vmaFlags(at + 2 * P) & VM_DONTDUMP).toBe(0)
    expect(r.row(MM_MAP_COUNT)).toBeLessThanOrEqual(maxMapCount)
    r.store(at + 2 * P, 5)
    expect(r.loads(at, 6)).toEqual([0, 0, 5, 0, 0, 0])
  })

  test('changes how much is read: one page a fault, or as much as may be read ahead', () => {
    const r = rig({ nrFrames: 128, readaheadBytes: 8 << 12, faultAroundPages: 1 })
    const { fd, store } = r.file(32)
    const at = r.map(fd, 32, MAP_SHARED)
    expect(advise(r, at, 32, abi.MADV_RANDOM)).toBe(0)
    for (let i = 0; i < 4; i++) r.load(at + i * r.pageSize)
    expect([store.calls.read, f.sys_fpages(r.m, fd)]).toEqual([4, 4])
    expect(advise(r, at, 32, abi.MADV_SEQUENTIAL)).toBe(0)
    r.load(at + 20 * r.pageSize)
    expect([store.calls.read, f.sys_fpages(r.m, fd)]).toEqual([5, 12])
    expect(advise(r, at, 32, abi.MADV_NORMAL)).toBe(0)
    r.load(at + 10 * r.pageSize)
    expect([store.calls.read, f.sys_fpages(r.m, fd)]).toEqual([6, 13])
  })
})

describe('WILLNEED', () => {
  test('reads what of the range is not in memory, no further, and never past the end of the file', () => {
    const r = rig({ nrFrames: 128, readaheadBytes: 8 << 12, faultAroundPages: 1 })
    const { fd, store } = r.file(12)
    const at = r.map(fd, 20, MAP_SHARED)
    r.load(at + 3 * r.pageSize)
    expect(advise(r, at + r.pageSize, 5, abi.MADV_WILLNEED)).toBe(0)
    expect(resident(r, at, 8)).toEqual([0, 1, 1, 1, 1, 1, 0, 0])
    expect(store.calls.read).toBe(3)
    expect(advise(r, at + 10 * r.pageSize, 10, abi.MADV_WILLNEED)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(7)
    expect(advise(r, at + 15 * r.pageSize, 2, abi.MADV_WILLNEED)).toBe(0)
    expect([f.sys_fpages(r.m, fd), store.calls.read]).toEqual([7, 4])
    expect(advise(r, at + 8 * r.pageSize, 1, abi.MADV_WILLNEED)).toBe(0)
    expect(resident(r, at, 12)).toEqual([0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1])
    expect(r.loads(at, 12)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  })

  test('of a store that fails reads what it can, and is no error', () => {
    const r = rig({ readaheadBytes: 2 << 12, faultAroundPages: 1 })
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, MAP_SHARED)
    const free = r.m.allocator.nrFree
    store.arm({ kind: 'error-once', op: 'read', call: 2 })
    expect(advise(r, at, 8, abi.MADV_WILLNEED)).toBe(0)
    expect(resident(r, at, 8)).toEqual([1, 1, 0, 0, 0, 0, 0, 0])
    expect(r.m.allocator.nrFree).toBe(free - 2)
  })

  test('without memory is no error either', () => {
    const r = rig()
    const { fd } = r.file(4)
    const at = r.map(fd, 4, MAP_SHARED)
    r.m.allocator.setFail(() => true)
    expect(advise(r, at, 4, abi.MADV_WILLNEED)).toBe(0)
    r.m.allocator.setFail(undefined)
    expect(f.sys_fpages(r.m, fd)).toBe(0)
  })

  test('brings shared memory back from swap; holes stay holes', () => {
    const r = rig({ swapSlots: 16 })
    const fd = r.memory(4)
    f.sys_ftruncate(r.m, fd, 6 * r.pageSize)
    const at = r.map(fd, 6, MAP_SHARED)
    r.m.reclaim.shrinkAll()
    expect(r.m.swap.nrUsed).toBe(4)
    expect(advise(r, at + r.pageSize, 4, abi.MADV_WILLNEED)).toBe(0)
    expect(resident(r, at, 6)).toEqual([0, 1, 1, 1, 0, 0])
    expect([r.m.swap.nrUsed, f.sys_fpages(r.m, fd), r.m.vmstat[PSWPIN]]).toEqual([1, 4, 3])
  })

  test('makes pages of the holes of memory that never leaves RAM', () => {
    const r = rig()
    const fd = r.memory(1, 0, f.MEMORY_RAMFS)
    f.sys_ftruncate(r.m, fd, 4 * r.pageSize)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(advise(r, at, 3, abi.MADV_WILLNEED)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(3)
  })

  test('brings private pages back into the swap cache, of every page table of the range', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, swapSlots: 64 })
    const P = r.pageSize
    const at = r.map(-1, 300, MAP_PRIVATE | MAP_ANONYMOUS)
    for (const i of [0, 1, 130, 299]) r.store(at + i * P, i + 1)
    r.m.reclaim.shrinkAll()
    expect(advise(r, at + P, 299, abi.MADV_WILLNEED)).toBe(0)
    expect(r.m.vmstat[PSWPIN]).toBe(3)
    expect([0, 1, 130, 299].map(i => pteSwap(r.pte(at + i * P)))).toEqual([true, true, true, true])
    r.swapStore?.arm({ kind: 'error-for-good', op: 'read' })
    expect([1, 130, 299].map(i => r.load(at + i * P))).toEqual([2, 131, 300])
    r.swapStore?.heal()
  })

  test('of private pages stops at an error of the swap area, and is none itself', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 3, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 3; i++) r.store(at + i * r.pageSize, i + 1)
    r.m.reclaim.shrinkAll()
    const free = r.m.allocator.nrFree
    r.swapStore?.arm({ kind: 'error-once', op: 'read', call: 2 })
    expect(advise(r, at, 3, abi.MADV_WILLNEED)).toBe(0)
    expect([r.m.vmstat[PSWPIN], r.m.allocator.nrFree]).toEqual([1, free - 1])
    expect(r.loads(at, 3)).toEqual([1, 2, 3])
  })
})

describe('FREE', () => {
  test('is for private anonymous memory', () => {
    const r = rig()
    expect(advise(r, r.map(r.memory(2), 2, MAP_SHARED), 2, abi.MADV_FREE)).toBe(-EINVAL)
    expect(advise(r, r.map(r.file(2).fd, 2, MAP_PRIVATE), 2, abi.MADV_FREE)).toBe(-EINVAL)
    const at = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
    sys_mlock(r.mm, at, r.pageSize)
    expect(advise(r, at, 1, abi.MADV_FREE)).toBe(-EINVAL)
  })

  test('drops what is in swap at once, in every page table, and the tables that are empty then', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, swapSlots: 64 })
    const P = r.pageSize
    const at = r.map(-1, 300, MAP_PRIVATE | MAP_ANONYMOUS)
    for (const i of [0, 5, 150, 299]) r.store(at + i * P, 7)
    r.load(at + 6 * P)
    r.m.reclaim.shrinkAll()
    expect([r.m.swap.nrUsed, r.row(MM_SWAPENTS)]).toEqual([4, 4])
    const free = r.m.allocator.nrFree
    expect(advise(r, at + P, 299, abi.MADV_FREE)).toBe(0)
    expect([r.m.swap.nrUsed, r.row(MM_SWAPENTS)]).toEqual([1, 1])
    expect(r.m.allocator.nrFree).toBe(free + 2)
    expect(r.load(at)).toBe(7)
    expect([5, 6, 150, 299].map(i => r.load(at + i * P))).toEqual([0, 0, 0, 0])
  })

  test('takes the right to store, so that a store is seen and keeps the page', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(at, 5)
    r.store(at + r.pageSize, 6)
    expect(advise(r, at, 2, abi.MADV_FREE)).toBe(0)
    expect([r.pte(at) & (PTE_PRESENT | PTE_WRITE), r.load(at)]).toEqual([PTE_PRESENT, 5])
    r.store(at, 55)
    r.m.reclaim.shrinkAll()
    expect([r.m.swap.nrUsed, r.load(at), r.load(at + r.pageSize)]).toEqual([1, 55, 0])
  })
})

describe('REMOVE', () => {
  test('punches the pages of a linear shared mapping, at the place in the file that it shows', () => {
    const r = rig()
    const fd = r.memory(8)
    const at = r.map(fd, 4, MAP_SHARED, 3, 3)
    expect(advise(r, at + r.pageSize, 2, abi.MADV_REMOVE)).toBe(0)
    expect(f.sys_fpages(r.m, fd)).toBe(6)
    expect(r.loads(at, 4)).toEqual([4, 0, 0, 7])
  })

  test('is refused without a file, on locked, private and read-only mappings', () => {
    const r = rig()
    const { fd } = r.file(2)
    expect(advise(r, r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS), 1, abi.MADV_REMOVE)).toBe(-EINVAL)
    expect(advise(r, r.map(fd, 2, MAP_PRIVATE), 1, abi.MADV_REMOVE)).toBe(-EACCES)
    expect(advise(r, r.map(fd, 2, MAP_SHARED, 1), 1, abi.MADV_REMOVE)).toBe(-EACCES)
    const locked = r.map(fd, 2, MAP_SHARED)
    sys_mlock(r.mm, locked, r.pageSize)
    expect(advise(r, locked, 1, abi.MADV_REMOVE)).toBe(-EINVAL)
    expect(r.loads(locked, 2)).toEqual([1, 2])
  })
})

describe('POPULATE', () => {
  test('READ makes pages present and not dirty, WRITE dirty and writable', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.file(8).fd, 8, MAP_SHARED)
    expect(advise(r, at + r.pageSize, 2, abi.MADV_POPULATE_READ)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    expect([0, 1, 2, 3].map(i => r.pte(at + i * r.pageSize) & PTE_PRESENT)).toEqual([0, 1, 1, 0])
    expect(advise(r, at + 2 * r.pageSize, 2, abi.MADV_POPULATE_WRITE)).toBe(0)
    expect(r.m.vmstat[NR_DIRTY]).toBe(2)
    expect([1, 2, 3, 4].map(i => r.pte(at + i * r.pageSize) & PTE_WRITE)).toEqual([0, PTE_WRITE, PTE_WRITE, 0])
  })

  test('says why it stops, and where it stopped the pages before are there', () => {
    const r = rig({ faultAroundPages: 1 })
    const P = r.pageSize
    const { fd } = r.file(2)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(advise(r, at, 4, abi.MADV_POPULATE_READ)).toBe(-EFAULT)
    expect([0, 1, 2].map(i => r.pte(at + i * P) & PTE_PRESENT)).toEqual([1, 1, 0])
    expect(advise(r, r.map(fd, 1, MAP_SHARED, 0), 1, abi.MADV_POPULATE_READ)).toBe(-EINVAL)
    expect(advise(r, r.map(fd, 1, MAP_SHARED, 1), 1, abi.MADV_POPULATE_WRITE)).toBe(-EINVAL)
    const own = r.map(-1, 4, MAP_PRIVATE | MAP_ANONYMOUS)
    mem.sys_munmap(r.mm, own + P, P)
    expect(advise(r, own, 4, abi.MADV_POPULATE_WRITE)).toBe(-ENOMEM)
    expect(advise(r, own + P, 2, abi.MADV_POPULATE_READ)).toBe(-ENOMEM)
    expect([0, 2].map(i => r.pte(own + i * P) & PTE_PRESENT)).toEqual([1, 0])
    r.m.allocator.setFail(() => true)
    expect(advise(r, own + 2 * P, 1, abi.MADV_POPULATE_WRITE)).toBe(-ENOMEM)
  })
})

test('a range that begins in a hole does what is mapped, and says ENOMEM at the end; one of holes alone as well', () => {
  const r = rig()
  const P = r.pageSize
  const at = r.map(-1, 6, MAP_PRIVATE | MAP_ANONYMOUS)
  for (let i = 0; i < 6; i++) r.store(at + i * P, 1)
  mem.sys_munmap(r.mm, at, 2 * P)
  mem.sys_munmap(r.mm, at + 3 * P, P)
  expect(advise(r, at, 5, abi.MADV_DONTNEED)).toBe(-ENOMEM)
  expect([2, 4, 5].map(i => r.load(at + i * P))).toEqual([0, 0, 1])
  expect(advise(r, at, 2, abi.MADV_DONTNEED)).toBe(-ENOMEM)
  expect(advise(r, at + 6 * P, 1, abi.MADV_DONTNEED)).toBe(-ENOMEM)
  expect(r.load(at + 5 * P)).toBe(1)
})

describe('pages that are not wanted for now', () => {
  const SHARED = [MAP_SHARED, MAP_PRIVATE]

  test.each(SHARED)('PAGEOUT writes and drops those of a file (flags %i)', flags => {
    const r = rig({ swapSlots: 16 })
    const { fd, store } = r.file(4)
    const at = r.map(fd, 4, flags)
    const P = r.pageSize
    expect(r.loads(at, 4)).toEqual([1, 2, 3, 4])
    r.store(at + P, 22)
    expect(advise(r, at, 3, abi.MADV_PAGEOUT)).toBe(0)
    expect([0, 1, 2, 3].map(i => (r.pte(at + i * P) & PTE_PRESENT) !== 0)).toEqual([false, false, false, true])
    expect(r.storedWord(store, 1)).toBe(flags === MAP_SHARED ? 22 : 2)
    expect(r.loads(at, 4)).toEqual([1, 22, 3, 4])
  })

  test('PAGEOUT goes by what remapped entries show, and they go on showing it', () => {
    const r = rig()
    const { fd } = r.file(8)
    const at = r.map(fd, 4, MAP_SHARED)
    expect(r.remap(at, 2, 6)).toBe(0)
    expect(r.loads(at, 4)).toEqual([7, 8, 3, 4])
    expect(advise(r, at, 2, abi.MADV_PAGEOUT)).toBe(0)
    expect(resident(r, at, 4)).toEqual([0, 0, 1, 1])
    expect(r.loads(at, 4)).toEqual([7, 8, 3, 4])
  })

  test('PAGEOUT swaps private pages out, if there is where to; without they stay', () => {
    for (const swapSlots of [0, 16]) {
      const r = rig({ swapSlots })
      const at = r.map(-1, 3, MAP_PRIVATE | MAP_ANONYMOUS)
      for (const i of [0, 1, 2]) r.store(at + i * r.pageSize, i + 5)
      expect(advise(r, at, 2, abi.MADV_PAGEOUT)).toBe(0)
      expect(r.row(MM_SWAPENTS)).toBe(swapSlots === 0 ? 0 : 2)
      expect(r.loads(at, 3)).toEqual([5, 6, 7])
    }
  })

  test('COLD and PAGEOUT leave alone what others show as well, and refuse locked mappings', () => {
    const r = rig({ swapSlots: 16 })
    const { fd } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED)
    const other = r.map(fd, 1, MAP_SHARED)
    expect([...r.loads(at, 2), r.load(other)]).toEqual([1, 2, 1])
    expect(advise(r, at, 2, abi.MADV_PAGEOUT)).toBe(0)
    expect([r.pte(at) & PTE_PRESENT, r.pte(at + r.pageSize) & PTE_PRESENT]).toEqual([PTE_PRESENT, 0])
    expect(sys_mlock(r.mm, at, r.pageSize)).toBe(0)
    for (const advice of [abi.MADV_COLD, abi.MADV_PAGEOUT]) expect(advise(r, at, 2, advice)).toBe(-EINVAL)
    expect(advise(r, at, 1, abi.MADV_DONTNEED)).toBe(-EINVAL)
  })

  test('PAGEOUT of pages whose store fails leaves them as they are', () => {
    const r = rig()
    const { fd, store } = r.file(2)
    const at = r.map(fd, 2, MAP_SHARED)
    r.store(at, 9)
    store.arm({ kind: 'error-for-good', op: 'write' })
    expect(advise(r, at, 2, abi.MADV_PAGEOUT)).toBe(0)
    expect(r.load(at)).toBe(9)
    store.heal()
    f.sys_fsync(r.m, fd)
    expect(r.storedWord(store, 0)).toBe(9)
  })

  test('COLD pages go before all others of their kind, however often they were used', () => {
    const r = rig({ nrFrames: 64 })
    const { fd } = r.file(24)
    const at = r.map(fd, 24, MAP_SHARED)
    for (let round = 0; round < 3; round++) r.loads(at, 24)
    expect(advise(r, at + 8 * r.pageSize, 4, abi.MADV_COLD)).toBe(0)
    expect(r.loads(at, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    r.m.reclaim.shrink(1)
    const gone = resident(r, at, 24).flatMap((there, i) => (there === 0 ? [i] : []))
    expect(gone.length).toBeGreaterThan(0)
    expect(gone.every(i => i >= 8 && i < 12)).toBe(true)
  })

  test('DONTNEED_LOCKED drops the pages of a locked mapping, which stays locked', () => {
    const r = rig()
    const at = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
    r.store(at, 7)
    expect(sys_mlock(r.mm, at, 2 * r.pageSize)).toBe(0)
    expect(advise(r, at, 2, abi.MADV_DONTNEED_LOCKED)).toBe(0)
    expect(r.vmaFlags(at) & VM_LOCKED).toBe(VM_LOCKED)
    expect(r.loads(at, 2)).toEqual([0, 0])
  })
})

test('WIPEONFORK: the child has zeros there, and so has its own; only private memory of its own may be', () => {
  const r = rig()
  const at = r.map(-1, 3, MAP_PRIVATE | MAP_ANONYMOUS)
  for (const i of [0, 1, 2]) r.store(at + i * r.pageSize, i + 1)
  expect(advise(r, at + r.pageSize, 1, abi.MADV_WIPEONFORK)).toBe(0)
  const child = r.fork()
  expect(r.loads(at, 3, child)).toEqual([1, 0, 3])
  expect(r.loads(at, 3)).toEqual([1, 2, 3])
  r.store(at + r.pageSize, 8, child)
  const grandchild = r.fork(child)
  expect([r.load(at + r.pageSize, grandchild), r.load(at + r.pageSize, child)]).toEqual([0, 8])
  expect(advise(r, at, 3, abi.MADV_KEEPONFORK)).toBe(0)
  expect(r.loads(at, 3, r.fork())).toEqual([1, 2, 3])
  const fd = r.memory(2)
  for (const other of [r.map(fd, 2, MAP_SHARED), r.map(fd, 2, MAP_PRIVATE), r.map(-1, 2, MAP_SHARED | MAP_ANONYMOUS)]) {
    expect(advise(r, other, 2, abi.MADV_WIPEONFORK)).toBe(-EINVAL)
    expect(advise(r, other, 2, abi.MADV_KEEPONFORK)).toBe(0)
  }
})

test('POPULATE asks for the very right: a page that can be read by its right to be written is not enough', () => {
  const r = rig()
  const fd = r.memory(1)
  const writes = r.map(fd, 1, MAP_SHARED, abi.PROT_WRITE)
  const reads = r.map(fd, 1, MAP_SHARED, abi.PROT_READ)
  expect([writes, reads].map(at => advise(r, at, 1, abi.MADV_POPULATE_READ))).toEqual([-EINVAL, 0])
  expect([writes, reads].map(at => advise(r, at, 1, abi.MADV_POPULATE_WRITE))).toEqual([0, -EINVAL])
})
