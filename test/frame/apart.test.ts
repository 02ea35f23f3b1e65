/**
 * Lists in a large memory of several threads, where each thread puts its pages next to each other: whatever is done to
 * them, a list holds what was put on it, linked both ways, and its length is the sum of what the threads counted.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { INODE_STORE } from '../../src/cache/inodes.ts'
import { F_FLAGS, FRAME_SHIFT, PG_ACTIVE, PG_DIRTY, PG_SWAPBACKED, PG_UPTODATE } from '../../src/frame/frame-table.ts'
import { NR_LRU } from '../../src/frame/lru.ts'
import { createKernel } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'

const PAGES = 6

function machine(): Machine {
  return createKernel({ nrFrames: 2048, threads: 2 }).machine
}

function members(m: Machine, lists: Machine['lru']['lists'], list: number): number[] {
  const found: number[] = []
  let prev = 0
  for (let f = lists.first(list); f !== 0 && found.length <= m.ram.nrFrames; f = lists.next(f)) {
    expect(lists.prev(f)).toBe(prev)
    found.push(f)
    prev = f
  }
  expect(lists.last(list)).toBe(prev)
  expect(lists.count(list)).toBe(found.length)
  return found.sort((a, b) => a - b)
}

const step = fc.tuple(fc.constantFrom('add', 'old', 'remove', 'active', 'inactive'), fc.nat(PAGES - 1), fc.boolean())

test('LRU lists', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), steps => {
      const m = machine()
      const { lru, frames } = m
      const pages = Array.from({ length: PAGES }, () => m.allocator.alloc())
      const listed = new Set<number>()
      for (const [what, n, isAnon] of steps) {
        const frame = pages[n]
        if (!listed.has(frame)) {
          if (what === 'remove') continue
          frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_UPTODATE | (isAnon ? PG_SWAPBACKED : 0)
          if (what === 'old') lru.addOld(frame)
          else lru.add(frame)
          listed.add(frame)
        } else if (what === 'remove') {
          lru.remove(frame)
          listed.delete(frame)
        } else if (what === 'active') lru.setActive(frame)
        else if (what === 'inactive') lru.setInactive(frame)
      }
      for (let list = 0; list < NR_LRU; list++) {
        const want = [...listed].filter(frame => lru.listOf(frame) === list).sort((a, b) => a - b)
        expect(members(m, lru.lists, list)).toEqual(want)
      }
    })
  )
})

test('an LRU batch is behind its first page, fifteen of them; the next page is the youngest', () => {
  const m = machine()
  const pages = Array.from({ length: 17 }, () => m.allocator.alloc())
  for (const frame of pages) {
    m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_UPTODATE | PG_SWAPBACKED | PG_ACTIVE
    m.lru.add(frame)
  }
  const { lists } = m.lru
  const order: number[] = []
  for (let f = lists.first(1); f !== 0; f = lists.next(f)) order.push(f)
  const [first, ...batch] = pages.slice(0, 16)
  expect(order).toEqual([pages[16], first, ...batch.reverse()])
})

test('an inode’s clean and dirty pages', () => {
  const kinds = fc.constantFrom('add', 'remove', 'dirty', 'clean')
  fc.assert(
    fc.property(fc.array(fc.tuple(kinds, fc.nat(PAGES - 1), fc.nat(1)), { maxLength: 200 }), steps => {
      const m = machine()
      const { cache, inodes } = m
      const both = [0, 1].map(n => inodes.alloc(INODE_STORE, `file ${n}`, undefined))
      const pages = Array.from({ length: PAGES }, () => m.allocator.alloc())
      const inodeOf = new Map<number, number>()
      const isDirty = (frame: number) => (m.frames.row(frame, F_FLAGS) & PG_DIRTY) !== 0
      for (const [what, n, which] of steps) {
        const frame = pages[n]
        const isCached = inodeOf.has(frame)
        if (what === 'add' && !isCached) {
          m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_UPTODATE
          cache.add(frame, both[which], n)
          inodeOf.set(frame, both[which])
        } else if (isCached && what === 'remove') {
          cache.remove(frame)
          inodeOf.delete(frame)
        } else if (isCached && what === 'dirty') cache.setDirty(frame)
        else if (isCached && what === 'clean') cache.clearDirty(frame)
      }
      for (const inode of both) {
        const mine = [...inodeOf].filter(([, of]) => of === inode).map(([frame]) => frame)
        const sorted = (dirty: boolean) => mine.filter(frame => isDirty(frame) === dirty).sort((a, b) => a - b)
        expect(members(m, cache.own, inode * 2)).toEqual(sorted(false))
        expect(members(m, cache.own, inode * 2 + 1)).toEqual(sorted(true))
        expect(cache.nrPages(inode)).toBe(mine.length)
      }
    })
  )
})
