/** The page fault's branches by what they cost and leave: copies, frames, counters, identities. */
import { describe, expect, test } from 'vitest'
import { EAGAIN, EIO } from '../../src/abi/errno.ts'
import { FAULT_BUS, FAULT_OOM } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { LRU_INACTIVE_ANON, LRU_INACTIVE_FILE } from '../../src/frame/lru.ts'
import { MM_ANONPAGES, MM_MAJ_FLT, MM_MAP_COUNT, MM_MIN_FLT } from '../../src/frame/mm-table.ts'
import {
  COW_COPIES,
  FAULT_AROUND_PAGES,
  NR_DIRTY,
  NR_MLOCK,
  PGFAULT,
  PGMAJFAULT,
  PSWPIN
} from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { PTE_DIRTY, PTE_PRESENT, PTE_WRITE, PTE_YOUNG, pteFrame } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { sys_clear_refs, sys_exit } from '../../src/syscall/process.ts'
import { type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

describe('counted are', () => {
  test('faults, and those that had to wait for a store, by machine and by space', () => {
    const r = rig({ readaheadBytes: 0, faultAroundPages: 1 })
    const P = r.pageSize
    const at = r.map(r.file(4).fd, 4, MAP_SHARED)
    const counts = (): number[] => [r.m.vmstat[PGFAULT], r.m.vmstat[PGMAJFAULT], r.row(MM_MIN_FLT), r.row(MM_MAJ_FLT)]
    r.load(at)
    expect(counts()).toEqual([1, 1, 0, 1])
    r.store(at, 5)
    expect(counts()).toEqual([2, 1, 1, 1])
    r.load(at)
    r.store(at, 6)
    expect(counts()).toEqual([2, 1, 1, 1])
    const again = r.map(r.memory(2), 2, MAP_SHARED)
    r.load(again)
    expect(counts()).toEqual([3, 1, 2, 1])
    r.load(at + 9 * P)
    expect(counts()).toEqual([4, 1, 3, 1])
  })

  test('pages that come back from swap, once', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 2, ANON)
    r.store(at, 1)
    const child = r.fork()
    r.m.reclaim.shrinkAll()
    const before = r.m.vmstat[PGMAJFAULT]
    expect([r.load(at), r.load(at, child)]).toEqual([1, 1])
    expect([r.m.vmstat[PGMAJFAULT] - before, r.m.vmstat[PSWPIN]]).toEqual([1, 1])
  })
})

describe('a store to a private page', () => {
  test('that is nobody else’s copies nothing', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 2, ANON)
    r.store(at, 1)
    const frame = pteFrame(r.pte(at))
    mem.sys_mprotect(r.mm, at, r.pageSize, abi.PROT_READ)
    mem.sys_mprotect(r.mm, at, r.pageSize, RW)
    expect([r.store(at, 2), pteFrame(r.pte(at)), r.m.vmstat[COW_COPIES]]).toEqual([0, frame, 0])
    const child = r.fork()
    sys_exit(child)
    expect([r.store(at, 3), pteFrame(r.pte(at)), r.m.vmstat[COW_COPIES]]).toEqual([0, frame, 0])
    const sharer = r.fork()
    expect(r.store(at, 4)).toBe(0)
    expect(pteFrame(r.pte(at))).not.toBe(frame)
    expect([r.m.vmstat[COW_COPIES], r.load(at, sharer)]).toEqual([1, 3])
    expect([r.store(at, 5, sharer), pteFrame(r.pte(at, sharer))]).toEqual([0, frame])
    expect(r.m.vmstat[COW_COPIES]).toBe(1)
  })

  test('of zeros gives zeros but for what is stored, whatever was in the frame', () => {
    const r = rig()
    const P = r.pageSize
    const scratch = r.map(-1, 8, ANON)
    for (let i = 0; i < 8; i++) r.store(scratch + i * P, -1)
    mem.sys_munmap(r.mm, scratch, 8 * P)
    const at = r.map(-1, 2, ANON)
    r.load(at)
    r.store(at + 8, 5)
    r.store(at + P + 8, 6)
    const bytes = new Uint8Array(2 * P)
    expect(f.sys_copy_from_user(r.mm, at, bytes)).toBe(2 * P)
    expect([...bytes.entries()].filter(([, byte]) => byte !== 0)).toEqual([
      [8, 5],
      [P + 8, 6]
    ])
    expect(r.m.vmstat[COW_COPIES]).toBe(0)
  })

  test('of a file makes the copy, once, and leaves the file’s page to the others', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.file(2).fd, 2, MAP_PRIVATE)
    r.load(at)
    sys_mlock(r.mm, at, r.pageSize)
    sys_munlockall(r.mm)
    expect([r.store(at, 5), r.store(at + r.pageSize, 6), r.m.vmstat[COW_COPIES]]).toEqual([0, 0, 2])
    expect([r.row(MM_ANONPAGES), r.m.vmstat[NR_DIRTY]]).toEqual([2, 0])
    r.store(at, 7)
    expect(r.m.vmstat[COW_COPIES]).toBe(2)
  })

  test('of a locked file page lets that one go from those that are locked', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.file(2).fd, 1, MAP_PRIVATE, abi.PROT_READ)
    sys_mlock(r.mm, at, r.pageSize)
    expect(r.m.vmstat[NR_MLOCK]).toBe(1)
    mem.sys_mprotect(r.mm, at, r.pageSize, RW)
    expect(r.store(at, 5)).toBe(0)
    expect(r.m.vmstat[NR_MLOCK]).toBe(0)
  })

  test('after MADV_FREE makes it an ordinary page again, on its list', () => {
    const r = rig({ swapSlots: 16 })
    const lists = (): number[] => [r.m.lru.count(LRU_INACTIVE_ANON), r.m.lru.count(LRU_INACTIVE_FILE)]
    const at = r.map(-1, 1, ANON)
    r.store(at, 5)
    expect(lists()).toEqual([1, 0])
    mem.sys_madvise(r.mm, at, r.pageSize, abi.MADV_FREE)
    expect(lists()).toEqual([0, 1])
    r.store(at, 6)
    expect(lists()).toEqual([1, 0])
  })

  test('in swap brings it back to store to at once, and frees the slot', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 2, ANON)
    r.store(at, 1)
    r.store(at + r.pageSize, 2)
    r.m.reclaim.shrinkAll()
    const faults = r.m.vmstat[PGFAULT]
    expect([r.store(at, 3), r.m.vmstat[COW_COPIES], r.m.swap.nrUsed]).toEqual([0, 0, 1])
    expect(r.pte(at) & (PTE_WRITE | PTE_DIRTY)).toBe(PTE_WRITE | PTE_DIRTY)
    expect(r.m.vmstat[PGFAULT] - faults).toBe(1)
    expect([r.load(at + r.pageSize), r.m.swap.nrUsed]).toEqual([2, 0])
    expect(r.pte(at + r.pageSize) & PTE_WRITE).toBe(0)
  })

  test('in swap that a child has there, too, copies it', () => {
    const r = rig({ swapSlots: 16 })
    const at = r.map(-1, 1, ANON)
    r.store(at, 1)
    const child = r.fork()
    r.m.reclaim.shrinkAll()
    expect([r.store(at, 2), r.load(at, child), r.load(at)]).toEqual([0, 1, 2])
    expect([r.m.vmstat[COW_COPIES], r.m.swap.nrUsed]).toEqual([1, 0])
  })
})

describe('without memory', () => {
  const kinds: readonly (readonly [string, (r: Rig) => number, 'load' | 'store'])[] = [
    ['a load of private memory', r => r.map(-1, 1, ANON), 'load'],
    ['a store to private memory', r => r.map(-1, 1, ANON), 'store'],
    ['a load of a file', r => r.map(r.file(1).fd, 1, MAP_SHARED), 'load'],
    ['a store to a private file page', r => r.map(r.file(1).fd, 1, MAP_PRIVATE), 'store'],
    [
      'a load of a remembered page',
      r => {
        const at = r.map(r.file(4).fd, 4, MAP_SHARED)
        r.remap(at, 1, 3, abi.MAP_NONBLOCK)
        return at
      },
      'load'
    ],
    [
      'a load of a page in swap',
      r => {
        const at = r.map(-1, 1, ANON)
        r.store(at, 1)
        r.m.reclaim.shrinkAll()
        return at
      },
      'load'
    ],
    [
      'a store to a page in swap',
      r => {
        const at = r.map(-1, 1, ANON)
        r.store(at, 1)
        r.m.reclaim.shrinkAll()
        return at
      },
      'store'
    ]
  ]
  test.each(kinds)('%s is OOM at whichever allocation, and goes through after it', (_name, make, how) => {
    for (let nth = 1; nth < 8; nth++) {
      const r = rig({ swapSlots: 16, readaheadBytes: 0, faultAroundPages: 1 })
      const at = make(r)
      const before = [r.pte(at), r.m.nodes.nrSlabs, r.m.swap.nrUsed]
      let left = nth
      r.m.allocator.setFail(() => --left === 0)
      const code = how === 'load' ? r.load(at) : r.store(at, 9)
      r.m.allocator.setFail(undefined)
      if (left > 0) {
        expect(nth).toBeGreaterThan(1)
        break
      }
      expect(code).toBe(-FAULT_OOM)
      expect([r.pte(at), r.m.nodes.nrSlabs, r.m.swap.nrUsed]).toEqual(before)
      expect([r.store(at, 9), r.load(at)]).toEqual([0, 9])
    }
  })
})

describe('an entry that is there', () => {
  test('is used by its second access, not by its fault', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.file(2).fd, 2, MAP_SHARED)
    r.load(at)
    expect(r.pte(at) & PTE_YOUNG).toBe(0)
    r.load(at)
    expect(r.pte(at) & PTE_YOUNG).toBe(PTE_YOUNG)
  })

  test('on its way to another frame is SIGBUS with EAGAIN', () => {
    const r = rig()
    const at = r.map(-1, 1, ANON)
    r.store(at, 5)
    const frame = pteFrame(r.pte(at))
    r.m.migration.begin(frame)
    expect([r.load(at), r.m.lastError, r.store(at, 6), r.m.lastError]).toEqual([-FAULT_BUS, EAGAIN, -FAULT_BUS, EAGAIN])
    r.m.migration.end(frame, r.m.allocator.alloc())
    expect([r.store(at, 6), r.load(at)]).toEqual([0, 6])
  })

  test('a fault past the end has no error of a store', () => {
    const r = rig({ readaheadBytes: 0 })
    const { fd, store } = r.file(2)
    const at = r.map(fd, 4, MAP_SHARED)
    store.arm({ kind: 'error-once', op: 'read' })
    expect([r.load(at), r.m.lastError]).toEqual([-FAULT_BUS, EIO])
    expect([r.load(at + 3 * r.pageSize), r.m.lastError]).toEqual([-FAULT_BUS, 0])
  })
})

describe('fault-around', () => {
  /** Entries that are there after one load, of 40 pages all in the cache. */
  function around(options: object, page: number, prepare: (r: Rig, at: number) => void = () => {}): number[] {
    const r = rig({ nrFrames: 128, faultAroundPages: 8, ...options })
    const at = r.map(r.memory(40), 40, MAP_SHARED)
    prepare(r, at)
    const before = r.m.vmstat[FAULT_AROUND_PAGES]
    r.load(at + page * r.pageSize)
    const there = Array.from({ length: 40 }, (_, i) => i).filter(i => (r.pte(at + i * r.pageSize) & PTE_PRESENT) !== 0)
    const own = options === LINUX ? 0 : 1
    expect(r.m.vmstat[FAULT_AROUND_PAGES] - before).toBe(there.length - own)
    return there
  }
  const LINUX = { policy: POLICY_LINUX }
  const pages = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

  test.each([{}, LINUX])('maps the block that the page is in: %j', options => {
    expect(around(options, 19)).toEqual(pages(16, 24))
    expect(around(options, 16)).toEqual(pages(16, 24))
    expect(around({ ...options, faultAroundPages: 1 }, 19)).toEqual([19])
  })

  test('ends with the mapping, the table and the file', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, faultAroundPages: 16 })
    const P = r.pageSize
    const there = (at: number, n: number): number[] => pages(0, n).filter(i => (r.pte(at + i * P) & PTE_PRESENT) !== 0)
    const fd = r.memory(20)
    const at = 122 * P
    expect(mem.sys_mmap(r.mm, at, 24 * P, RW, MAP_SHARED | abi.MAP_FIXED, fd, 0)).toBe(at)
    r.load(at + 2 * P)
    expect(there(at, 24)).toEqual(pages(0, 6))
    r.load(at + 7 * P)
    expect(there(at, 24)).toEqual(pages(0, 20))
  })

  test('under Linux’s policy marks the page itself as used, and maps also around one past the end', () => {
    const r = rig({ ...LINUX, faultAroundPages: 8 })
    const at = r.map(r.memory(3), 8, MAP_SHARED)
    expect(r.load(at + 5 * r.pageSize)).toBe(-FAULT_BUS)
    expect(pages(0, 8).map(i => r.pte(at + i * r.pageSize) & PTE_PRESENT)).toEqual([1, 1, 1, 0, 0, 0, 0, 0])
    const other = r.map(r.memory(4), 4, MAP_SHARED)
    r.load(other + r.pageSize)
    expect([r.pte(other) & PTE_YOUNG, r.pte(other + r.pageSize) & PTE_YOUNG]).toEqual([0, PTE_YOUNG])
  })
})

describe('stores under Linux’s policy to shared memory', () => {
  test('make the page dirty only while soft-dirty wants to see them', () => {
    const r = rig({ policy: POLICY_LINUX, swapSlots: 8 })
    const fd = f.sys_memory(r.m, 'm', f.MEMORY_SHMEM, 4 * r.pageSize, 0)
    const at = r.map(fd, 4, MAP_SHARED)
    r.loads(at, 2)
    r.store(at, 1)
    expect(r.m.vmstat[NR_DIRTY]).toBe(0)
    sys_clear_refs(r.mm, 4)
    r.store(at + r.pageSize, 2)
    expect(r.m.vmstat[NR_DIRTY]).toBe(1)
    mem.sys_munmap(r.mm, at, r.pageSize)
    expect(r.m.vmstat[NR_DIRTY]).toBe(2)
    const file = r.map(r.file(2).fd, 2, MAP_SHARED)
    r.load(file)
    r.store(file, 3)
    expect(r.m.vmstat[NR_DIRTY]).toBe(3)
  })
})

describe('the identity of private memory', () => {
  const EXEC = RW | abi.PROT_EXEC

  /** Two neighbours that differ in the right to execute, each stored to; then made alike. → mappings left. */
  function joined(order: readonly number[]): number {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 4, ANON)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, EXEC)
    for (const page of order) r.store(at + page * P, page + 1)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, RW)
    expect(order.map(page => r.load(at + page * P))).toEqual(order.map(page => page + 1))
    return r.row(MM_MAP_COUNT)
  }

  test('is the neighbour’s where they could be one, whichever was stored to first', () => {
    expect(joined([0, 2])).toBe(1)
    expect(joined([2, 0])).toBe(1)
  })

  test('is an own one where they could not: then they stay two', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 4, ANON)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, EXEC)
    mem.sys_madvise(r.mm, at, 2 * P, abi.MADV_DONTFORK)
    r.store(at, 1)
    r.store(at + 2 * P, 3)
    mem.sys_madvise(r.mm, at, 2 * P, abi.MADV_DOFORK)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, RW)
    expect(r.row(MM_MAP_COUNT)).toBe(2)
  })

  test('of a file is shared only where the file goes on', () => {
    for (const pgoff of [2, 3]) {
      const r = rig()
      const P = r.pageSize
      const { fd } = r.file(8)
      const at = r.map(fd, 2, MAP_PRIVATE)
      const next = at + 2 * P
      expect(mem.sys_mmap(r.mm, next, 2 * P, EXEC, MAP_PRIVATE | abi.MAP_FIXED, fd, pgoff * P)).toBe(next)
      r.store(at, 1)
      r.store(next, 2)
      mem.sys_mprotect(r.mm, next, 2 * P, RW)
      expect(r.row(MM_MAP_COUNT)).toBe(pgoff === 2 ? 1 : 2)
    }
  })

  test('that a child inherited is not given to its neighbours', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 4, ANON)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, EXEC)
    r.store(at, 1)
    const child = r.fork()
    r.store(at + 2 * P, 3, child)
    mem.sys_mprotect(child, at + 2 * P, 2 * P, RW)
    expect(r.row(MM_MAP_COUNT, child)).toBe(2)
    r.store(at + 2 * P, 3)
    mem.sys_mprotect(r.mm, at + 2 * P, 2 * P, RW)
    expect(r.row(MM_MAP_COUNT)).toBe(1)
  })
})
