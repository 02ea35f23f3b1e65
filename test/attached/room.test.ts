/** Room made ahead of need: what a thread does for it, and no more. */
import { expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { errorOf, PAGE, useAttached } from './support.ts'

const attached = useAttached()

test('a fault does not try every page there is with a store that fails', () => {
  const rig = attached({ pages: 300, frames: 160 })
  const { mine } = rig
  const { allocator, balance } = mine.m
  let pages = 0
  for (; pages < 90; pages++) mine.store(pages, 1000 + pages)
  for (let page = pages; allocator.nrFree >= balance.low; page++) mine.load(page)
  const writes = (): number => rig.calls.filter(([call]) => call === 'write').length
  const before = writes()
  for (let i = 0; i < 100; i++) rig.fail('write', EIO)
  expect(mine.load(299)).toBe(300)
  const failed = writes() - before
  expect(failed).toBeGreaterThan(0)
  // Sixteen pages, each with its neighbours, which may take more than one write.
  expect(failed).toBeLessThanOrEqual(32)
  expect(mine.memory.check()).toEqual([])
  // Nothing is lost of it.
  expect(errorOf(() => mine.file.sync()).code).toBe('EIO')
  for (let i = 0; i < 100 && mine.file.dirtyPages > 0; i++) {
    try {
      mine.file.sync()
    } catch {}
  }
  for (let page = 0; page < pages; page++) expect(rig.storedWord(page)).toBe(1000 + page)
})

test('a thread that cannot reach a store leaves its pages alone: no sync of the file hears of it', () => {
  const rig = attached({ pages: 300, frames: 160 })
  const { mine, theirs } = rig
  const own = mine.memory.open(rig.another())
  const map = mine.space.map(own, { writable: true })
  const { allocator, balance } = mine.m
  let pages = 0
  for (; pages < 90; pages++) map.setUint32(pages * PAGE, 1000 + pages)
  for (let page = 100; allocator.nrFree >= balance.low; page++) mine.load(page)
  expect([theirs.load(299), theirs.load(297)]).toEqual([300, 298])
  theirs.m.run(() => theirs.m.reclaim.shrinkAll())
  expect(rig.calls.some(([call]) => call === 'write')).toBe(false)
  own.sync()
  for (let page = 0; page < pages; page++) expect(rig.storedWord(page)).toBe(1000 + page)
})

test('a write that had to wait for a frame and got one has no place in the line any more', () => {
  const rig = attached()
  const { mine, theirs } = rig
  const { allocator } = theirs.m
  mine.store(20, 200)
  let isInLine = true
  rig.during('write', () => {
    const taken: number[] = []
    for (let frame = allocator.allocNoReclaim(); frame !== 0; frame = allocator.allocNoReclaim()) taken.push(frame)
    rig.asleep(() => {
      for (const frame of taken) allocator.free(frame)
    })
    theirs.file.write(new Uint8Array(PAGE).fill(3), 30 * PAGE)
    isInLine = theirs.m.sync.line.isIn
  })
  mine.memory.shrink()
  expect(isInLine).toBe(false)
  expect(mine.load(30)).toBe(0x03030303)
})
