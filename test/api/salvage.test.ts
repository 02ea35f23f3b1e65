/**
 * What is saved of a broken memory: two threads' machines in one thread, of which one ends in the middle of something.
 */
import { expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { CUT_ASKS } from '../../src/cache/inodes.ts'
import {
  F_CACHE_NEXT,
  F_FLAGS,
  F_INDEX,
  F_MAPPING,
  FRAME_SHIFT,
  PG_CACHED,
  PG_DIRTY
} from '../../src/frame/frame-table.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { type AttachedRig, errorOf, PAGE, THEIR_NUMBER, useAttached } from '../attached/support.ts'

const attached = useAttached()

/** They end with the machine lock: in the `size` of a store that they open. */
function breakIt(rig: AttachedRig): void {
  const { mine, theirs } = rig
  rig.diesIn('size', () => theirs.memory.open(rig.another()))
  mine.memory.ended(THEIR_NUMBER)
  expect(errorOf(() => mine.file.sync())).toMatchObject({ code: 'EOWNERDEAD' })
}

function frameOf(rig: AttachedRig, page: number): number {
  const { m, file } = rig.mine
  return m.cache.lookup(m.files.inode[m.fds[file.fd]], page)
}

function row(rig: AttachedRig, page: number): number {
  return frameOf(rig, page) << FRAME_SHIFT
}

test('all that was stored, by whatever thread, and what is stored afterwards', () => {
  const rig = attached()
  const { mine, theirs } = rig
  for (let page = 0; page < 20; page++) (page % 2 === 0 ? mine : theirs).store(page, 1000 + page)
  mine.file.truncate(70 * PAGE)
  // A second time: the entry counts as used, and allows stores without a lock.
  mine.store(4, 76)
  breakIt(rig)
  // A hit needs no lock.
  mine.store(4, 77)
  const [file, ...others] = mine.memory.salvage()
  expect(others).toEqual([])
  expect(file).toEqual({ name: 'data', pages: 20, bytes: 20 * PAGE, doubtful: [], unwritten: [], errno: 0 })
  for (let page = 0; page < 20; page++) expect(rig.storedWord(page)).toBe(page === 4 ? 77 : 1000 + page)
  expect(rig.storedWord(20)).toBe(21)
  expect(rig.stored.size()).toBe(70 * PAGE)
  // Again: nothing has been changed.
  mine.store(4, 78)
  expect(mine.memory.salvage()[0].pages).toBe(20)
  expect(rig.storedWord(4)).toBe(78)
})

test('what was on its way to the store when its thread ended, in a window and under the lock', () => {
  const rig = attached()
  const { mine, theirs } = rig
  for (const page of [3, 4, 5]) mine.store(page, page * 100)
  rig.diesIn('write', () => theirs.file.sync())
  breakOtherwise(rig)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.memory.salvage()[0]).toMatchObject({ pages: 3, doubtful: [] })
  expect([3, 4, 5].map(page => rig.storedWord(page))).toEqual([300, 400, 500])

  const other = attached()
  for (const page of [3, 4, 5]) other.mine.store(page, page * 100)
  const { m } = other.theirs
  const inode = m.files.inode[m.fds[other.theirs.file.fd]]
  other.diesIn('write', () => m.run(() => m.writeback.writeRange(inode, 0, 100, 0)))
  other.mine.memory.ended(THEIR_NUMBER)
  expect(errorOf(() => other.mine.file.sync())).toMatchObject({ code: 'EOWNERDEAD' })
  expect(other.mine.memory.salvage()[0]).toMatchObject({ pages: 3, doubtful: [] })
  expect([3, 4, 5].map(page => other.storedWord(page))).toEqual([300, 400, 500])
})

/** By an error of our own in the middle of a verb. */
function breakOtherwise({ mine }: AttachedRig): void {
  mine.m.tables.ensure = () => {
    throw new Error('a bug')
  }
  expect(() => mine.map.remap({ at: 40, page: 30 })).toThrow('a bug')
}

test('what a view was lent for, and cleaned meanwhile', () => {
  const rig = attached()
  const lent = rig.mine.map.borrow(9, 'write')
  rig.mine.file.sync()
  lent.bytes[8] = 77
  breakIt(rig)
  expect(rig.mine.memory.salvage()[0]).toMatchObject({ pages: 1, doubtful: [] })
  expect(rig.storedWord(9, 8)).toBe(77)
})

test('a page in doubt stays as the store has it, and is named', () => {
  const rig = attached()
  const { mine } = rig
  const { m } = mine
  for (let page = 0; page < 12; page++) mine.store(page, 500 + page)
  const inode = m.files.inode[m.fds[mine.file.fd]]
  breakIt(rig)
  const { w } = m.frames
  // Not in its hash chain; claimed twice, with other bytes; in the middle of a cut.
  const out = frameOf(rig, 2)
  for (let f = 1; f < m.ram.nrFrames; f++)
    if (w[(f << FRAME_SHIFT) + F_CACHE_NEXT] === out) w[(f << FRAME_SHIFT) + F_CACHE_NEXT] = 0
  const { buckets } = m.cache
  buckets.forEach((frame, i) => {
    if (frame === out) buckets[i] = 0
  })
  w[row(rig, 3) + F_INDEX] = 4
  m.inodes.cutting[inode] = CUT_ASKS
  m.inodes.cutFirst[inode] = 10
  m.inodes.cutLast[inode] = 1000
  const [file] = mine.memory.salvage()
  expect(file.doubtful).toEqual(expect.arrayContaining([2, 4, 10, 11]))
  expect(file.doubtful).not.toContain(5)
  expect(file.pages + file.doubtful.length).toBeGreaterThanOrEqual(11)
  for (const page of [2, 3, 4, 10, 11]) expect(rig.storedWord(page)).toBe(page + 1)
  for (const page of [0, 1, 5, 6, 7, 8, 9])
    if (!file.doubtful.includes(page)) expect(rig.storedWord(page)).toBe(500 + page)
  mine.memory.close = () => {}
})

test('a page that was being moved is claimed twice, with the same bytes, and saved', () => {
  const rig = attached()
  const { mine } = rig
  const { m } = mine
  mine.store(5, 505)
  breakIt(rig)
  const { w } = m.frames
  const from = frameOf(rig, 5)
  const to = m.allocator.allocNoReclaim()
  m.ram.copyFrame(to, from)
  w[(to << FRAME_SHIFT) + F_MAPPING] = w[(from << FRAME_SHIFT) + F_MAPPING]
  w[(to << FRAME_SHIFT) + F_INDEX] = 5
  w[(to << FRAME_SHIFT) + F_FLAGS] = w[(from << FRAME_SHIFT) + F_FLAGS] & (0xffff | PG_CACHED | PG_DIRTY)
  expect(mine.memory.salvage()[0]).toMatchObject({ pages: 1, doubtful: [] })
  expect(rig.storedWord(5)).toBe(505)
})

test('pages beyond the size are dropped, and what a store refuses is told', () => {
  const rig = attached()
  const { mine } = rig
  const { m } = mine
  for (const page of [3, 6]) mine.store(page, 900)
  breakIt(rig)
  m.inodes.sizeBytes[m.files.inode[m.fds[mine.file.fd]]] = 5 * PAGE
  rig.fail('write', 28)
  expect(mine.memory.salvage()[0]).toMatchObject({ pages: 0, doubtful: [], unwritten: [3], errno: 28 })
  expect(mine.memory.salvage()[0]).toMatchObject({ pages: 1, errno: 0 })
  expect([3, 6].map(page => rig.storedWord(page))).toEqual([900, 7])
})

test('pages are handed out instead, and only a broken memory is salvaged', () => {
  const rig = attached()
  const { mine } = rig
  mine.store(3, 0x01020304)
  expect(errorOf(() => mine.memory.salvage())).toMatchObject({ code: 'EINVAL' })
  breakIt(rig)
  const taken: unknown[] = []
  const files = mine.memory.salvage((name, position, bytes) => taken.push([name, position, bytes.length, bytes[0]]))
  expect(taken).toEqual([['data', 3 * PAGE, PAGE, 4]])
  expect(files[0]).toMatchObject({ pages: 1, unwritten: [] })
  expect(rig.storedWord(3)).toBe(4)
})

test('close saves what is whole, and its error says so', () => {
  const store = memoryStore({ sizeBytes: 8 * PAGE })
  const memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(memory.open(store), { writable: true })
  map.setUint8(2 * PAGE, 42)
  memory.machine.tables.ensure = () => {
    throw new Error('a bug')
  }
  expect(() => map.remap({ at: 4, page: 3 })).toThrow('a bug')
  expect(() => memory.close()).toThrow(/ENOTRECOVERABLE.*1 changed pages of .* \(4096 bytes\) were saved/)
  const byte = new Uint8Array(1)
  store.read(2 * PAGE, byte, 0, 1)
  expect(byte[0]).toBe(42)
})
