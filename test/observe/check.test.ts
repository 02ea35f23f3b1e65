/**
 * The checker finds what is wrong: one column at a time is bent in a machine with a bit of everything, and bent back.
 */

import { describe, expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_LRU_PREV,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  FRAME_SHIFT,
  OWN_PREV,
  OWN_SHIFT,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_TABLE
} from '../../src/frame/frame-table.ts'
import { LRU_INACTIVE_FILE } from '../../src/frame/lru.ts'
import {
  MM_ANONPAGES,
  MM_FILEPAGES,
  MM_LOCKED_VM,
  MM_MAP_COUNT,
  MM_MMAP_LOCK,
  MM_NR_TABLES,
  MM_SHIFT,
  MM_SWAPENTS,
  MM_TOTAL_VM
} from '../../src/frame/mm-table.ts'
import { NR_DIRTY, NR_FILE_PAGES, NR_MLOCK, NR_SHMEM } from '../../src/frame/vmstat.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { assertMachine, checkMachine } from '../../src/observe/check.ts'
import { TLB_SHIFT } from '../../src/pgtable/page-tables.ts'
import { PTE_WRITE, pteFile, pteSwap } from '../../src/pgtable/pte.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi

interface Scene {
  readonly r: Rig
  readonly m: Machine
  /** Addresses: a remapped file page that is present, one that is only remembered, anonymous, swapped out. */
  readonly shown: number
  readonly remembered: number
  readonly own: number
  readonly swapped: number
}

function scene(): Scene {
  const r = rig({ swapSlots: 32, nrFrames: 96 })
  const { fd } = r.file(8)
  const at = r.map(fd, 8, MAP_SHARED)
  const swapped = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  r.store(swapped, 1)
  const shared = r.map(r.memory(4), 4, MAP_SHARED)
  r.m.reclaim.shrinkAll()
  r.load(shared)
  r.remap(at, 2, 5)
  r.store(at, 9)
  r.remap(at + 2 * r.pageSize, 1, 1, abi.MAP_NONBLOCK)
  const own = r.map(-1, 2, MAP_PRIVATE | MAP_ANONYMOUS)
  r.store(own, 5)
  sys_mlock(r.mm, own, r.pageSize)
  r.fork()
  return { r, m: r.m, shown: at, remembered: at + 2 * r.pageSize, own, swapped }
}

type Column = { [index: number]: number }

function frameAt({ r }: Scene, at: number): number {
  return r.pte(at) >>> 8
}

function slotAt({ r, m }: Scene, at: number): number {
  return m.tables.find(r.mm.id, at / r.pageSize)
}

function inodeOf({ r, m, shown }: Scene): number {
  return m.vmas.inode[m.vmas.at(r.mm.id, shown / r.pageSize)]
}

function tableAt(s: Scene): number {
  return slotAt(s, s.shown) >>> s.m.tables.leafShift
}

function firstFree(m: Machine): number {
  for (let frame = 1; ; frame++) if (m.allocator.isFree(frame)) return frame
}

const row =
  (word: number) =>
  ({ m, r }: Scene): [Column, number, number] => [m.mms.w, (r.mm.id << MM_SHIFT) + word, 1]
const stat =
  (counter: number) =>
  ({ m }: Scene): [Column, number, number] => [m.vmstat, counter, 1]
const frameWord =
  (word: number, frame: (s: Scene) => number, by: number) =>
  (s: Scene): [Column, number, number] => [s.m.frames.w, (frame(s) << FRAME_SHIFT) + word, by]

/** What to bend: a column, an index, and what to add. */
const BENT: Record<string, (s: Scene) => [Column, number, number]> = {
  'file pages': row(MM_FILEPAGES),
  'anonymous pages': row(MM_ANONPAGES),
  'swap entries': row(MM_SWAPENTS),
  'page tables': row(MM_NR_TABLES),
  'map count': row(MM_MAP_COUNT),
  'total pages': row(MM_TOTAL_VM),
  'locked pages': row(MM_LOCKED_VM),
  'mmap lock': row(MM_MMAP_LOCK),
  'dirty pages': stat(NR_DIRTY),
  'file pages of all': stat(NR_FILE_PAGES),
  'mlocked pages': stat(NR_MLOCK),
  'shared-memory pages': stat(NR_SHMEM),
  'a map count of a frame': frameWord(F_MAPCOUNT, s => frameAt(s, s.shown), 1),
  'a frame’s index': frameWord(F_INDEX, s => frameAt(s, s.shown), 1),
  'a frame’s inode': frameWord(F_MAPPING, s => frameAt(s, s.shown), 1),
  'a dirty flag': frameWord(F_FLAGS, s => frameAt(s, s.shown), -PG_DIRTY),
  'an anonymous flag': frameWord(F_FLAGS, s => frameAt(s, s.own), -PG_ANON),
  'a cached flag': frameWord(F_FLAGS, s => frameAt(s, s.shown), -PG_CACHED),
  'a free frame’s flags': frameWord(F_FLAGS, s => firstFree(s.m), PG_TABLE),
  'a page table’s parent': frameWord(F_RMAP_HEAD, tableAt, 1),
  'a page table’s entries': frameWord(F_MAPCOUNT, tableAt, 1),
  'the head of a reverse-map list': s => [
    s.m.frames.w,
    (frameAt(s, s.own) << FRAME_SHIFT) + F_RMAP_HEAD,
    -s.m.frames.row(frameAt(s, s.own), F_RMAP_HEAD)
  ],
  'an LRU link': frameWord(F_LRU_PREV, ({ m }) => m.lru.lists.first(2) || m.lru.lists.first(0), 1),
  'a link of a file’s pages': s => [s.m.frames.own, (frameAt(s, s.shown) << OWN_SHIFT) + OWN_PREV, 1],
  'an LRU count': s => [s.m.lru.lists.counts, LRU_INACTIVE_FILE, 1],
  'the zero page': s => [s.m.ram.u8, 5, 1],
  'the leaf cache': s => [s.m.tables.tlbBase, s.m.tables.tlbTag.findIndex(tag => tag !== 0), 1 << (TLB_SHIFT - 4)],
  'a vma’s end': s => [s.m.vmas.end, s.m.vmas.at(s.r.mm.id, s.own / s.r.pageSize), 1],
  'a vma’s file page': s => [s.m.vmas.pgoff, s.m.vmas.at(s.r.mm.id, s.shown / s.r.pageSize), 1],
  'a vma’s neighbour': s => [s.m.vmas.prev, s.m.vmas.at(s.r.mm.id, s.own / s.r.pageSize), 1],
  'a tree’s augmentation': s => [s.m.vmas.imap.maxLast, s.m.vmas.at(s.r.mm.id, s.shown / s.r.pageSize), 3],
  'references to a file': s => [s.m.files.refs, s.m.vmas.file[s.m.vmas.at(s.r.mm.id, s.shown / s.r.pageSize)], 1],
  'references to an inode': s => [s.m.inodes.refs, inodeOf(s), 1],
  'pages of an inode': s => [s.m.cache.own.counts, inodeOf(s) * 2, 1],
  'pages on their way': s => [s.m.inodes.pageLists, (inodeOf(s) << 3) + 3, 1],
  'pages held': s => [s.m.inodes.nrHeld, s.m.swap.ownerInode.find(inode => inode !== 0) ?? 0, 1],
  'a slot’s count': s => [s.m.swap.count, s.r.pte(s.swapped) >>> 8, 1],
  'a slot’s owner': s => [s.m.swap.ownerIndex, s.m.swap.ownerInode.findIndex(inode => inode !== 0), 1],
  'a remembered page’s entry': s => [s.m.ram.i32, slotAt(s, s.remembered), -s.r.pte(s.remembered)],
  'a writable entry': s => [s.m.ram.i32, slotAt(s, s.own), PTE_WRITE],
  'an entry where nothing is mapped': s => [s.m.ram.i32, slotAt(s, s.own) + 40, 0x104]
}

describe('bending', () => {
  test.each(Object.keys(BENT))('%s', name => {
    const s = scene()
    assertMachine(s.m)
    expect([pteFile(s.r.pte(s.remembered)), pteSwap(s.r.pte(s.swapped))]).toEqual([true, true])
    const [column, index, by] = BENT[name](s)
    expect(index).toBeGreaterThanOrEqual(0)
    expect(by).not.toBe(0)
    const before = column[index]
    column[index] = before + by
    const wrong = checkMachine(s.m)
    column[index] = before
    expect(wrong).not.toEqual([])
    assertMachine(s.m)
  })
})

test('the list of violations is bounded and counts the rest', () => {
  const { m } = scene()
  const before = m.frames.w.slice()
  for (let frame = 1; frame < m.ram.nrFrames; frame++) m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] |= 1
  const wrong = checkMachine(m)
  m.frames.w.set(before)
  expect(wrong.length).toBeLessThanOrEqual(101)
  expect(() => assertMachine(m)).not.toThrow()
})
