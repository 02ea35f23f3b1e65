/** clear_refs: what each of its five kinds forgets, and of which mappings. */
import { describe, expect, test } from 'vitest'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import { MAP_ANONYMOUS, MAP_FIXED, MAP_NONBLOCK, MAP_PRIVATE, MAP_SHARED, PROT_READ } from '../../src/abi/mman.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_HIWATER_RSS } from '../../src/frame/mm-table.ts'
import { POLICY_LINUX, POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import { smaps } from '../../src/observe/smaps.ts'
import { PTE_PRESENT, PTE_WRITE, PTE_YOUNG, pteFile, pteSoftDirty, pteSwap } from '../../src/pgtable/pte.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_clear_refs, sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { VM_SOFTDIRTY } from '../../src/vma/flags.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
/** Of the pages below: in two page tables, with one in between that has none. */
const PLACES = [0, 1, 2, 127, 290, 299]

function isSoft(r: Rig, at: number): boolean {
  return pteSoftDirty(r.pte(at)) !== 0
}

describe('4, soft-dirty', () => {
  test('of present, remembered and swapped-out pages, wherever their tables are; the next store sets it again', () => {
    const r = rig({ pageShift: 9, nrFrames: 512, swapSlots: 1000, faultAroundPages: 1 })
    const P = r.pageSize
    const shared = r.map(r.memory(300), 300, MAP_SHARED)
    const own = r.map(-1, 300, MAP_PRIVATE | MAP_ANONYMOUS)
    r.remap(shared + 5 * P, 2, 100, MAP_NONBLOCK)
    for (const i of PLACES) {
      r.store(shared + i * P, 7)
      r.store(own + i * P, 8)
    }
    r.m.reclaim.shrinkAll()
    for (const i of [0, 299]) for (const at of [shared, own]) r.store(at + i * P, 9)
    expect([pteFile(r.pte(shared + 5 * P)), pteSwap(r.pte(own + P)), isSoft(r, own + P)]).toEqual([true, true, true])
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    for (const at of [shared, own]) {
      expect(r.vmaFlags(at) & VM_SOFTDIRTY).toBe(0)
      for (let i = 0; i < 300; i++) expect(isSoft(r, at + i * P)).toBe(false)
      expect(r.pte(at) & (PTE_PRESENT | PTE_WRITE)).toBe(PTE_PRESENT)
    }
    for (const i of [0, 1]) {
      r.load(shared + i * P)
      r.load(own + i * P)
      expect([isSoft(r, shared + i * P), isSoft(r, own + i * P)]).toEqual([false, false])
      r.store(shared + i * P, 10)
      r.store(own + i * P, 11)
      expect([isSoft(r, shared + i * P), isSoft(r, own + i * P)]).toEqual([true, true])
    }
    expect(r.load(shared + 6 * P)).toBe(102)
    expect(isSoft(r, shared + 6 * P)).toBe(false)
  })

  test('a secondary MMU is told once, of everything; of the other kinds nothing', () => {
    const r = rig()
    const at = r.map(r.memory(2), 2, MAP_SHARED)
    r.store(at, 1)
    const told: (string | number)[] = []
    sys_mmu_notifier_register(r.mm, {
      invalidateRangeStart: (mm, start, end) => told.push('start', mm, start, end),
      invalidateRangeEnd: (mm, start, end) => told.push('end', mm, start, end)
    })
    for (const kind of [1, 2, 3, 5]) expect(sys_clear_refs(r.mm, kind)).toBe(0)
    expect(told).toEqual([])
    expect(isSoft(r, at)).toBe(true)
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    expect(told).toEqual(['start', r.mm.id, 0, TASK_PAGES, 'end', r.mm.id, 0, TASK_PAGES])
  })
})

describe.each([
  ['1, all', 1, true, true],
  ['2, anonymous', 2, true, false],
  ['3, of files', 3, false, true]
])('%s: what was used', (_name, kind, anonymous, ofFiles) => {
  test('is forgotten, in entries and in pages', () => {
    const r = rig({ pageShift: 9, nrFrames: 512 })
    const P = r.pageSize
    const file = r.map(r.file(300).fd, 300, MAP_SHARED)
    const own = r.map(-1, 300, MAP_PRIVATE | MAP_ANONYMOUS)
    // Twice: the first touch is the fault's, the second one is seen.
    for (let round = 0; round < 2; round++) for (const i of PLACES) r.store(own + i * P, 1)
    for (let round = 0; round < 2; round++) for (const i of PLACES) r.load(file + i * P)
    // Reclaim looks at the pages once, and marks those of files that were used.
    r.m.reclaim.shrink(1)
    for (const i of PLACES) r.load(file + i * P)
    for (const i of PLACES) r.store(own + i * P, 1)
    const before = smaps(r.m, r.mm.id).map(row => row.referenced)
    expect(before[0]).toBeGreaterThanOrEqual(PLACES.length)
    expect(before[1]).toBe(PLACES.length)
    expect(sys_clear_refs(r.mm, kind)).toBe(0)
    expect(smaps(r.m, r.mm.id).map(row => row.referenced)).toEqual([ofFiles ? 0 : before[0], anonymous ? 0 : before[1]])
    for (const i of PLACES) {
      expect((r.pte(own + i * P) & PTE_YOUNG) === 0).toBe(anonymous)
      expect((r.pte(file + i * P) & PTE_YOUNG) === 0).toBe(ofFiles)
      expect(isSoft(r, own + i * P)).toBe(true)
    }
    expect(r.vmaFlags(own) & VM_SOFTDIRTY).toBe(VM_SOFTDIRTY)
    expect(r.load(own)).toBe(1)
  })
})

describe.each([
  ['its own', POLICY_NONLINEAR, VM_SOFTDIRTY],
  // In Linux 3.19 the part that changed says for the whole.
  ["Linux's", POLICY_LINUX, 0]
])('with %s policy', (_name, policy, expected) => {
  test('a mapping that one made since the last look becomes one with', () => {
    const r = rig({ policy })
    const P = r.pageSize
    const fd = r.memory(8)
    const old = r.map(fd, 4, MAP_SHARED)
    expect(sys_clear_refs(r.mm, 4)).toBe(0)
    const at = mem.sys_mmap(r.mm, old + 4 * P, 4 * P, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 4 * P)
    expect(at).toBe(old + 4 * P)
    expect([r.vmaFlags(old) & VM_SOFTDIRTY, r.vmaFlags(at) & VM_SOFTDIRTY]).toEqual([0, VM_SOFTDIRTY])
    expect(mem.sys_mprotect(r.mm, old, 4 * P, PROT_READ)).toBe(0)
    expect(r.m.vmas.at(r.mm.id, old / P)).toBe(r.m.vmas.at(r.mm.id, at / P))
    expect(r.vmaFlags(at) & VM_SOFTDIRTY).toBe(expected)
  })
})

test('5: the high-water mark of resident pages begins again at what is resident', () => {
  const r = rig()
  const own = r.map(-1, 8, MAP_PRIVATE | MAP_ANONYMOUS)
  const shared = r.map(r.memory(4), 4, MAP_SHARED)
  for (let i = 0; i < 8; i++) r.store(own + i * r.pageSize, 1)
  for (let i = 0; i < 4; i++) r.load(shared + i * r.pageSize)
  mem.sys_munmap(r.mm, own, 6 * r.pageSize)
  expect([r.row(MM_ANONPAGES), r.row(MM_FILEPAGES), r.row(MM_HIWATER_RSS)]).toEqual([2, 4, 12])
  expect(sys_clear_refs(r.mm, 5)).toBe(0)
  expect(r.row(MM_HIWATER_RSS)).toBe(6)
  expect(isSoft(r, shared)).toBe(false)
  expect(r.vmaFlags(shared) & VM_SOFTDIRTY).toBe(VM_SOFTDIRTY)
})
