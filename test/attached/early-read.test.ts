/**
 * The early read (mm/early-read), with the second thread acting when the first one has its page from the store and no
 * lock yet.
 */
import { expect, test } from 'vitest'
import { F_FLAGS, PG_UPTODATE } from '../../src/frame/frame-table.ts'
import { PGMAJFAULT, PGPGIN, STORE_READS } from '../../src/frame/vmstat.ts'
import { pteFrame } from '../../src/pgtable/pte.ts'
import { NR_RESERVE, T_NR_RESERVED, T_RESERVE } from '../../src/sync/threads.ts'
import {
  type AttachedOptions,
  type AttachedRig,
  errorOf,
  PAGE,
  type Side,
  THEIR_NUMBER,
  useAttached
} from './support.ts'

const attached = useAttached()
const CHANGED = new Uint8Array(PAGE).fill(7)
const CHANGED_WORD = 0x07070707

/** The first thread has read a page alone, and frames in reserve since. */
function early(options: AttachedOptions = {}): AttachedRig {
  const rig = attached({ frames: 4096, ...options })
  expect(rig.mine.load(20)).toBe(21)
  expect(reserve(rig.mine).length).toBeGreaterThan(0)
  return rig
}

function reserve({ m }: Side): number[] {
  const { w } = m.sync.threads
  const { row } = m.sync
  const frames = [...w.subarray(row + T_RESERVE, row + T_RESERVE + NR_RESERVE)]
  const n = w[row + T_NR_RESERVED]
  expect(frames.slice(n).every(frame => frame === 0)).toBe(true)
  for (const frame of frames.slice(0, n)) expect(m.frames.pins(frame)).toBe(1)
  return frames.slice(0, n)
}

/** The frame of a window page, 0 when none is mapped. */
function frameOf({ m, map, space }: Side, page: number): number {
  return pteFrame(m.tables.get(space.mm.id, map.address / PAGE + page))
}

/** The first thread loads page 4; `act` is what the second one does meanwhile. */
function loadWhile(rig: AttachedRig, act: () => void): number {
  let isHeld = true
  rig.during('answer', () => {
    isHeld = rig.mine.m.sync.isLocked
    act()
  })
  const value = rig.mine.load(4)
  expect(isHeld, 'no lock is held').toBe(false)
  return value
}

test('takes the last frame of the reserve, and counts as any other read', () => {
  const rig = early()
  const { mine } = rig
  const before = reserve(mine)
  expect(before).toHaveLength(4)
  const counted = [STORE_READS, PGPGIN, PGMAJFAULT].map(counter => mine.m.counters.total(counter))
  expect(loadWhile(rig, () => {})).toBe(5)
  expect(frameOf(mine, 4)).toBe(before.at(-1))
  expect(mine.m.frames.row(frameOf(mine, 4), F_FLAGS) & PG_UPTODATE).toBe(PG_UPTODATE)
  expect(mine.m.frames.pins(frameOf(mine, 4))).toBe(0)
  expect(reserve(mine)).toEqual(before.slice(0, -1))
  expect([STORE_READS, PGPGIN, PGMAJFAULT].map(counter => mine.m.counters.total(counter))).toEqual(
    counted.map(n => n + 1)
  )
  // The reserve is filled anew with its last frame.
  for (const page of [7, 11, 15]) expect(mine.load(page)).toBe(page + 1)
  expect(reserve(mine)).toHaveLength(4)
  expect(rig.calls).toHaveLength(5)
})

test('has as many frames in reserve as the memory is large, eight at most, none in a small one', () => {
  for (const [frames, want] of [
    [1000, 0],
    [1100, 1],
    [2100, 2],
    [16_500, 8]
  ]) {
    const { mine } = attached({ frames, pages: 8 })
    expect(mine.load(5)).toBe(6)
    expect(reserve(mine), `${frames} frames`).toHaveLength(want)
  }
})

test.each<[string, (rig: AttachedRig) => void, number]>([
  ['a remap of the window page', ({ theirs }) => theirs.map.remap({ at: 4, page: 30 }), 31],
  ['a punch', ({ theirs }) => theirs.file.punch(4 * PAGE, PAGE), 0],
  ['a write', ({ theirs }) => theirs.file.write(CHANGED, 4 * PAGE), CHANGED_WORD],
  [
    'a write that was synced and evicted',
    ({ theirs }) => {
      theirs.file.write(CHANGED, 4 * PAGE)
      theirs.file.sync()
      theirs.memory.shrink()
    },
    CHANGED_WORD
  ],
  [
    'a write that reclaim wrote',
    ({ theirs }) => {
      theirs.file.write(CHANGED, 4 * PAGE)
      theirs.memory.shrink()
    },
    CHANGED_WORD
  ],
  [
    'truncation to nothing and back',
    ({ theirs }) => {
      theirs.file.truncate(0)
      theirs.file.truncate(64 * PAGE)
    },
    0
  ],
  ['a load of the same page', ({ theirs }) => expect(theirs.load(4)).toBe(5), 5]
])('and %s: the load shows what is true then', (_, act, want) => {
  const rig = early()
  const before = reserve(rig.mine)
  expect(loadWhile(rig, () => act(rig))).toBe(want)
  expect(reserve(rig.mine), 'the frame was not used').toEqual(before)
})

test('that was for another page than the fault’s: the next fault makes no guess, the one after it does', () => {
  const rig = early()
  const before = reserve(rig.mine)
  loadWhile(rig, () => rig.theirs.map.remap({ at: 4, page: 30 }))
  expect(rig.mine.load(9)).toBe(10)
  expect(reserve(rig.mine)).toEqual(before)
  expect(rig.mine.load(13)).toBe(14)
  expect(reserve(rig.mine)).toEqual(before.slice(0, -1))
})

test('and truncation below the page: SIGBUS; unmapping: SIGSEGV', () => {
  const cut = early()
  expect(errorOf(() => loadWhile(cut, () => cut.theirs.file.truncate(2 * PAGE))).code).toBe('SIGBUS')
  const gone = early()
  expect(errorOf(() => loadWhile(gone, () => gone.theirs.map.unmap())).code).toBe('SIGSEGV')
})

test('that fails, or comes short, is made again under the locks', () => {
  const rig = early()
  rig.fail('read', 5)
  expect(rig.mine.load(4)).toBe(5)
  expect(rig.calls).toHaveLength(3)
  rig.fail('read', 5)
  rig.fail('read', 5)
  expect(errorOf(() => rig.mine.load(8))).toMatchObject({ code: 'SIGBUS' })
})

test('is a call of the store like any other: what calls back from it is refused', () => {
  const rig = early()
  const { map } = rig.mine
  let refusal: unknown
  loadWhile(rig, () => {
    refusal = errorOf(() => map.remap({ at: 4, page: 30 }))
  })
  expect(refusal).toMatchObject({ code: 'EDEADLK' })
  expect(map.filePage(4)).toBe(4)
})

test('reaches from the first page to the last of a file that is read at random', () => {
  const rig = early({ readahead: 16 * PAGE })
  const { mine } = rig
  mine.map.advise('random')
  expect(mine.load(30)).toBe(31)
  const before = reserve(mine)
  expect([mine.load(0), mine.load(63)]).toEqual([1, 64])
  expect(reserve(mine)).toEqual(before.slice(0, -2))
  // A table of entries that this thread has not looked into yet is not guessed at.
  mine.map.resize(4096 * PAGE)
  expect(errorOf(() => mine.load(2000)).code).toBe('SIGBUS')
})

test('that nobody waits for: its thread may end, and the reserve goes back', () => {
  const rig = attached({ frames: 4096 })
  const { mine, theirs } = rig
  expect(theirs.load(20)).toBe(21)
  const free = mine.memory.stats().freeFrames + reserve(theirs).length
  rig.diesIn('answer', () => theirs.load(4))
  expect(mine.memory.stats().freeFrames).toBeLessThan(free)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.memory.stats().freeFrames).toBe(free)
  expect(mine.load(4)).toBe(5)
})

test('is only for pages that are read alone', () => {
  const rig = early({ readahead: 16 * PAGE })
  const { mine } = rig
  const before = reserve(mine)
  // The next one in order, the first one of the file, and a vma that is to be read ahead.
  for (const page of [21, 0]) {
    mine.load(page)
    expect(reserve(mine), `page ${page}`).toEqual(before)
  }
  expect(rig.calls.slice(1).map(([, , bytes]) => bytes / PAGE)).toEqual([4, 4])
  mine.load(50)
  mine.map.advise('sequential')
  const reads = rig.calls.length
  const left = reserve(mine)
  mine.load(30)
  expect(reserve(mine)).toEqual(left)
  expect(rig.calls.slice(reads).map(([, , bytes]) => bytes / PAGE)).toEqual([1, 16])
  mine.map.advise('random')
  mine.load(47)
  mine.load(48)
  expect(rig.calls.slice(-2).map(([, , bytes]) => bytes / PAGE)).toEqual([1, 1])
  // The first one was foretold as if nothing had been advised, the second one as it was.
  expect(reserve(mine)).toEqual(left.slice(0, -2))
})

test('is only for whole pages of what the store has', () => {
  const rig = early()
  const { mine } = rig
  const before = reserve(mine)
  mine.file.truncate(10 * PAGE + 100)
  expect(mine.load(10)).toBe(11)
  expect(reserve(mine)).toEqual(before)
  mine.file.write(new Uint8Array(8), 62 * PAGE)
  expect(mine.load(40)).toBe(0)
  expect(reserve(mine)).toEqual(before)
})

test('of a page that a remap put there, in the mapping alone that was read from', () => {
  const rig = early()
  const { mine } = rig
  mine.map.remap({ at: 4, page: 30 })
  const before = reserve(mine)
  expect(mine.load(4)).toBe(31)
  expect(reserve(mine)).toEqual(before.slice(0, -1))
  const other = mine.space.map(mine.file)
  expect(other.getUint32(40 * PAGE)).toBe(41)
  expect(reserve(mine), 'another mapping').toEqual(before.slice(0, -1))
  expect(other.getUint32(44 * PAGE)).toBe(45)
  expect(reserve(mine)).toEqual(before.slice(0, -2))
})

test('gives its frames up for shrink, and takes others with the next read', () => {
  const rig = early()
  const { mine } = rig
  const frames = reserve(mine)
  mine.memory.shrink()
  expect(reserve(mine)).toEqual([])
  expect(frames.every(frame => mine.m.allocator.isFree(frame))).toBe(true)
  expect(mine.load(4)).toBe(5)
  expect(reserve(mine)).toHaveLength(frames.length)
})
