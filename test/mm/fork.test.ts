/** fork: what a child has of each kind of mapping and entry, and what is left when it cannot be made. */
import { describe, expect, test } from 'vitest'
import { ENOMEM } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import {
  MM_ANONPAGES,
  MM_FILEPAGES,
  MM_LOCKED_VM,
  MM_MAP_COUNT,
  MM_NR_TABLES,
  MM_SWAPENTS,
  MM_TOTAL_VM
} from '../../src/frame/mm-table.ts'
import { NR_ANON_PAGES } from '../../src/frame/vmstat.ts'
import { assertMachine } from '../../src/observe/check.ts'
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  PTE_YOUNG,
  pteFile,
  pteFrame,
  pteMigration,
  pteSwap
} from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlockall } from '../../src/syscall/mlock.ts'
import { RLIMIT_AS, sys_exit, sys_fork, sys_mmu_notifier_register, sys_setrlimit } from '../../src/syscall/process.ts'
import { VM_LOCKED } from '../../src/vma/flags.ts'
import { RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NONBLOCK } = abi
const ANON = MAP_PRIVATE | MAP_ANONYMOUS

describe('a child', () => {
  test('has private entries of every kind and table, and shares their pages read-only', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, swapSlots: 64 })
    const P = r.pageSize
    const at = r.map(-1, 400, ANON)
    const places = [0, 1, 127, 300, 399]
    for (const i of places) r.store(at + i * P, i + 1)
    r.m.reclaim.shrinkAll()
    for (const i of [0, 300]) r.store(at + i * P, i + 1)
    r.load(at + 2 * P)
    const before = [r.row(MM_ANONPAGES), r.row(MM_SWAPENTS), r.m.vmstat[NR_ANON_PAGES]]
    const child = r.fork()
    expect([r.row(MM_ANONPAGES, child), r.row(MM_SWAPENTS, child), r.m.vmstat[NR_ANON_PAGES]]).toEqual(before)
    expect([r.row(MM_TOTAL_VM, child), r.row(MM_MAP_COUNT, child)]).toEqual([400, 1])
    expect(r.row(MM_NR_TABLES, child)).toBe(r.row(MM_NR_TABLES))
    expect([pteSwap(r.pte(at + P, child)), r.pte(at + 3 * P, child)]).toEqual([true, 0])
    expect([pteFrame(r.pte(at + 2 * P, child)), r.pte(at + 2 * P, child) & PTE_PRESENT]).toEqual([0, PTE_PRESENT])
    for (const mm of [r.mm, child]) expect(r.pte(at, mm) & (PTE_WRITE | PTE_PRESENT)).toBe(PTE_PRESENT)
    assertMachine(r.m)
    expect(places.map(i => r.load(at + i * P, child))).toEqual(places.map(i => i + 1))
    for (const i of places) r.store(at + i * P, 9, child)
    expect(places.map(i => r.load(at + i * P))).toEqual(places.map(i => i + 1))
  })

  test('has nonlinear entries, clean and not used; linear ones of files it faults itself', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, faultAroundPages: 1 })
    const P = r.pageSize
    const { fd } = r.file(400)
    const at = r.map(fd, 400, MAP_SHARED)
    const linear = r.map(fd, 8, MAP_SHARED)
    r.remap(at, 1, 399)
    r.remap(at + 300 * P, 2, 7, MAP_NONBLOCK)
    for (const i of [0, 5]) {
      r.store(at + i * P, 50 + i)
      r.load(at + i * P)
    }
    r.load(linear)
    const child = r.fork()
    expect(r.row(MM_FILEPAGES, child)).toBe(2)
    expect(r.pte(at, child) & (PTE_PRESENT | PTE_WRITE | PTE_DIRTY | PTE_YOUNG)).toBe(PTE_PRESENT)
    expect(r.pte(at) & (PTE_PRESENT | PTE_WRITE | PTE_YOUNG)).toBe(PTE_PRESENT | PTE_WRITE | PTE_YOUNG)
    expect([pteFile(r.pte(at + 301 * P, child)), r.pte(linear, child)]).toEqual([true, 0])
    assertMachine(r.m)
    expect([r.load(at, child), r.load(at + 5 * P, child), r.load(at + 301 * P, child)]).toEqual([50, 55, 9])
    r.store(at, 60, child)
    expect([r.load(at), r.fileWord(fd, 399)]).toEqual([60, 60])
  })

  test('has a page on its way to another frame as well, and a private one only to read', () => {
    const r = rig()
    const P = r.pageSize
    const own = r.map(-1, 1, ANON)
    r.store(own, 5)
    const shared = r.map(r.memory(4), 4, MAP_SHARED)
    r.remap(shared, 1, 2)
    r.store(shared, 6)
    const frames = [pteFrame(r.pte(own)), pteFrame(r.pte(shared))]
    for (const frame of frames) expect(r.m.migration.begin(frame)).toBe(true)
    const child = r.fork()
    expect([pteMigration(r.pte(own, child)), pteMigration(r.pte(shared, child))]).toEqual([true, true])
    for (const frame of frames) r.m.migration.end(frame, r.m.allocator.alloc())
    expect([r.pte(own) & PTE_WRITE, r.pte(own, child) & PTE_WRITE, r.pte(shared) & PTE_WRITE]).toEqual([
      0,
      0,
      PTE_WRITE
    ])
    r.store(own, 7, child)
    r.store(shared, 8, child)
    expect([r.load(own), r.load(own, child), r.load(shared), r.load(shared + 2 * P)]).toEqual([5, 7, 8, 8])
  })

  test('inherits limits and heap, not locks', () => {
    const r = rig()
    sys_setrlimit(r.mm, RLIMIT_AS, 8)
    const heap = mem.sys_brk(r.mm, 0)
    mem.sys_brk(r.mm, heap + 10)
    r.store(heap, 3)
    const at = r.map(-1, 2, ANON)
    expect(sys_mlockall(r.mm, abi.MCL_CURRENT | abi.MCL_FUTURE)).toBe(0)
    const child = r.fork()
    expect([mem.sys_brk(child, 0), r.load(heap, child), r.row(MM_LOCKED_VM, child)]).toEqual([heap + 10, 3, 0])
    expect(r.vmaFlags(at, child) & VM_LOCKED).toBe(0)
    expect(mem.sys_mmap(child, 0, 6 * r.pageSize, RW, ANON, -1, 0)).toBe(-ENOMEM)
    expect(mem.sys_mmap(child, 0, 5 * r.pageSize, RW, ANON, -1, 0)).toBeGreaterThan(0)
    expect(r.row(MM_LOCKED_VM, child)).toBe(0)
  })

  test('a secondary MMU of the parent is told of private mappings that have pages, of nothing else', () => {
    const r = rig()
    const own = r.map(-1, 2, ANON)
    r.store(own, 1)
    r.map(-1, 2, ANON, 1)
    const shared = r.map(r.memory(4), 4, MAP_SHARED)
    r.remap(shared, 1, 2)
    const told: number[] = []
    sys_mmu_notifier_register(r.mm, {
      invalidateRangeStart: (_mm, start, end) => told.push(start, end),
      invalidateRangeEnd: (_mm, start, end) => told.push(-start, -end)
    })
    r.fork()
    const vpn = own / r.pageSize
    expect(told).toEqual([vpn, vpn + 2, -vpn, -vpn - 2])
  })

  test('takes no more memory for nodes than its entries need', () => {
    const r = rig({ faultAroundPages: 1 })
    const at = r.map(r.memory(4), 4, MAP_SHARED)
    r.remap(at, 4, 0, MAP_NONBLOCK)
    r.remap(at, 1, 3, MAP_NONBLOCK)
    expect(r.m.nodes.nrSlabs).toBe(0)
    r.fork()
    expect(r.m.nodes.nrSlabs).toBe(0)
  })
})

describe('no child, and nothing taken,', () => {
  test('without a space, without a mapping', () => {
    const r = rig({ maxSpaces: 2, maxVmas: 5 })
    const at = r.map(-1, 1, ANON)
    r.map(-1, 1, ANON, 1)
    r.map(r.file(1).fd, 1, MAP_SHARED)
    r.store(at, 1)
    expect(sys_fork(r.mm)).toBe(-ENOMEM)
    assertMachine(r.m)
    expect(r.m.vmas.nrInUse).toBe(3)
    mem.sys_munmap(r.mm, at + r.pageSize, r.pageSize)
    const child = r.fork()
    expect(sys_fork(r.mm)).toBe(-ENOMEM)
    expect(r.load(at, child)).toBe(1)
    sys_exit(child)
  })

  test.each([1, 2, 3, 4, 5])('without its allocation number %i', nth => {
    const r = rig({ pageShift: 9, nrFrames: 256 })
    const P = r.pageSize
    const at = r.map(-1, 300, ANON)
    for (const i of [0, 299]) r.store(at + i * P, i + 1)
    const fd = r.memory(4)
    const shared = r.map(fd, 4, MAP_SHARED)
    r.remap(shared, 1, 3)
    const free = r.m.allocator.nrFree
    let left = nth
    r.m.allocator.setFail(() => --left === 0)
    const child = sys_fork(r.mm)
    r.m.allocator.setFail(undefined)
    assertMachine(r.m)
    if (typeof child === 'number') expect([child, r.m.allocator.nrFree]).toEqual([-ENOMEM, free])
    else expect([r.load(at + 299 * P, child), left > 0]).toEqual([300, true])
    expect([r.load(at), r.load(shared), f.sys_fpages(r.m, fd)]).toEqual([1, 4, 4])
  })
})
