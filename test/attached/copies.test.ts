/**
 * What is copied and stored while other threads may take pages away: what is waited for, what is pinned, and what says
 * so.
 */
import { describe, expect, test } from 'vitest'
import { F_FLAGS, FRAME_SHIFT, MAX_PINS, PIN_SHIFT } from '../../src/frame/frame-table.ts'
import { pteFrame } from '../../src/pgtable/pte.ts'
import { T_CHANGES, T_HAZARD, T_PINS, T_RUN_FIRST, T_RUN_PAGES } from '../../src/sync/threads.ts'
import { Mm } from '../../src/syscall/args.ts'
import { sys_read_user } from '../../src/syscall/file.ts'
import { type AttachedRig, errorOf, PAGE, type Side, useAttached } from './support.ts'

const attached = useAttached()

function frameOf({ m, map }: Side, page: number): number {
  return pteFrame(m.tables.get(map.handle.space.id, map.address / PAGE + page))
}

describe('a store that is on its way', () => {
  /** `theirs` is about to store to a page that `mine` maps, and does so when it is waited for. */
  function onItsWay(rig: AttachedRig, page: number, word: number): void {
    const { mine, theirs } = rig
    mine.store(page, 1)
    const frame = frameOf(mine, page)
    const { threads, row } = theirs.m.sync
    Atomics.store(threads.w, row + T_HAZARD, frame + 1)
    rig.resting(() => {
      mine.m.ram.i32[(frame * PAGE) / 4] = word
      Atomics.store(threads.w, row + T_HAZARD, 0)
    })
  }

  test('is waited for by a sync, which then writes it', () => {
    const rig = attached()
    onItsWay(rig, 4, 44)
    rig.mine.file.sync()
    expect(rig.storedWord(4)).toBe(44)
  })

  test('by reclaim of a file’s page and of a private one', () => {
    const rig = attached({ swapSlots: 16 })
    const { mine } = rig
    onItsWay(rig, 4, 44)
    mine.memory.shrink()
    expect([rig.storedWord(4), mine.load(4)]).toEqual([44, 44])

    const other = attached({ swapSlots: 16 })
    const own = other.mine.space.map(other.mine.file, { writable: true, private: true })
    for (const shown of [own, other.mine.space.map(other.mine.memory.shared(PAGE), { writable: true })]) {
      shown.setUint32(0, 5)
      const { m } = other.mine
      const frame = pteFrame(m.tables.get(shown.handle.space.id, shown.address / PAGE))
      const { threads, row } = other.theirs.m.sync
      Atomics.store(threads.w, row + T_HAZARD, frame + 1)
      other.resting(() => {
        m.ram.i32[(frame * PAGE) / 4] = 55
        Atomics.store(threads.w, row + T_HAZARD, 0)
      })
      expect(other.mine.memory.shrink()).toBeGreaterThan(0)
      expect(shown.getUint32(0)).toBe(55)
    }
  })

  test('by every call that changes mappings, whatever it changes', () => {
    const rig = attached()
    const { mine } = rig
    for (const change of [
      () => mine.map.protect('read', { offset: 4 * PAGE, length: PAGE }),
      () => mine.map.protect('write', { offset: 4 * PAGE, length: PAGE }),
      () => mine.map.remap({ at: 4, page: 5 }),
      () => mine.map.remap({ at: 4, page: 4 }),
      () => mine.space.fork().close()
    ]) {
      const { threads, row } = rig.theirs.m.sync
      const before = threads.w[row + T_CHANGES]
      Atomics.store(threads.w, row + T_HAZARD, 999)
      rig.resting(() => Atomics.store(threads.w, row + T_HAZARD, 0))
      change()
      expect(threads.w[row + T_HAZARD]).toBe(0)
      expect(threads.w[row + T_CHANGES]).toBeGreaterThan(before)
    }
  })

  test('by the frame that is given to somebody else', () => {
    const rig = attached()
    const { mine } = rig
    mine.load(1)
    onItsWay(rig, 20, 44)
    mine.file.truncate(10 * PAGE)
    expect(rig.mine.m.sync.broken).toBe(0)
  })

  test('by the migration of its page', () => {
    const rig = attached({ frames: 64 })
    const { mine } = rig
    onItsWay(rig, 4, 44)
    const frame = frameOf(mine, 4)
    expect(mine.m.enter()).toBe(true)
    const target = mine.m.allocator.alloc()
    expect(mine.m.migration.move(frame, target)).toBe(true)
    mine.m.leave()
    expect(frameOf(mine, 4)).toBe(target)
    expect(mine.load(4)).toBe(44)
  })
})

describe('a copy by machines of several threads', () => {
  test('goes as far as frames can be pinned', () => {
    const { mine } = attached()
    for (let i = 0; i < 2; i++) for (let page = 7; page < 12; page++) mine.store(page, page)
    const frame = frameOf(mine, 10)
    for (let i = 0; i < MAX_PINS; i++) expect(mine.m.frames.pin(frame)).toBe(true)
    const bytes = new Uint8Array(4 * PAGE).fill(9)
    expect(errorOf(() => mine.map.write(bytes, 8 * PAGE))).toMatchObject({ code: 'ENOMEM', bytesDone: 2 * PAGE })
    expect(errorOf(() => mine.map.read(bytes, 8 * PAGE))).toMatchObject({ code: 'ENOMEM', bytesDone: 2 * PAGE })
    expect(errorOf(() => mine.map.fill(1, 10 * PAGE, 4))).toMatchObject({ code: 'ENOMEM', bytesDone: 0 })
    for (let i = 0; i < MAX_PINS; i++) mine.m.frames.unpin(frame)
    expect([8, 9, 10, 11].map(page => mine.load(page))).toEqual([0x09090909, 0x09090909, 10, 11])
    expect(mine.m.frames.w[frame << FRAME_SHIFT] >>> 16).toBe(0)
  })

  /** Runs of frames that a thread says it has pinned while it copies: how many, negative if it stores to them. */
  function runsOf(side: Side, copy: () => void): number[] {
    const runs: number[] = []
    const { threads, row } = side.m.sync
    const prototype = Uint8Array.prototype
    const { set, fill } = prototype
    const note = (): void => {
      const pages = threads.w[row + T_RUN_PAGES]
      runs.push(pages)
      const pinned = (frame: number): number => side.m.frames.row(frame, F_FLAGS) >>> PIN_SHIFT
      const first = threads.w[row + T_RUN_FIRST]
      expect([pinned(first - 1), pinned(first + Math.abs(pages))]).toEqual([0, 0])
    }
    prototype.set = function (this: Uint8Array, ...args: Parameters<typeof set>) {
      note()
      set.apply(this, args)
    }
    prototype.fill = function (this: Uint8Array, ...args: Parameters<typeof fill>) {
      note()
      return fill.apply(this, args)
    }
    try {
      copy()
    } finally {
      Object.assign(prototype, { set, fill })
    }
    expect(threads.w[row + T_RUN_PAGES]).toBe(0)
    return runs
  }

  test('goes by runs of the pages that it touches, 16 at most, and no further than they allow it', () => {
    const { mine } = attached()
    for (let i = 0; i < 2; i++) for (let page = 7; page < 40; page++) mine.store(page, page)
    const bytes = new Uint8Array(20 * PAGE)
    const part = (length: number): Uint8Array => bytes.subarray(0, length)
    // From the middle of one page to the middle of the next.
    expect(runsOf(mine, () => mine.map.write(part(PAGE), 8.5 * PAGE))).toEqual([-2])
    expect(runsOf(mine, () => mine.map.read(part(PAGE), 8.5 * PAGE))).toEqual([2])
    expect(runsOf(mine, () => mine.map.fill(1, 8.5 * PAGE, PAGE))).toEqual([-2])
    expect(runsOf(mine, () => mine.map.write(part(PAGE), 10 * PAGE))).toEqual([-1])
    expect(runsOf(mine, () => mine.map.read(part(8), 11 * PAGE - 8))).toEqual([1])
    expect(runsOf(mine, () => mine.map.fill(1, 11 * PAGE - 8, 8))).toEqual([-1])
    expect(runsOf(mine, () => mine.map.write(part(20 * PAGE), 10.5 * PAGE))).toEqual([-16, -5])
    expect(runsOf(mine, () => mine.map.read(part(20 * PAGE), 10.5 * PAGE))).toEqual([16, 5])
    expect(runsOf(mine, () => mine.map.fill(1, 10.5 * PAGE, 20 * PAGE))).toEqual([-16, -5])
    // Entries that allow loads alone end a run of stores.
    mine.file.sync()
    expect(runsOf(mine, () => mine.map.read(part(4 * PAGE), 10 * PAGE))).toEqual([4])
    expect(runsOf(mine, () => mine.map.write(part(2 * PAGE), 10 * PAGE))).toEqual([-1, -1])
    expect(mine.file.dirtyPages).toBe(2)
  })

  test('of the zero page pins nothing', () => {
    const { mine } = attached()
    const own = mine.space.map(null, { length: 4 * PAGE, writable: true })
    own.getUint8(0)
    own.getUint8(PAGE)
    const bytes = new Uint8Array(2 * PAGE).fill(9)
    expect(runsOf(mine, () => own.read(bytes, 0))).toEqual([0, 0])
    expect(bytes).toEqual(new Uint8Array(2 * PAGE))
    expect(mine.m.frames.row(0, F_FLAGS) >>> PIN_SHIFT).toBe(0)
  })

  test('leaves pages dirty that were written back in the middle of it', () => {
    const rig = attached()
    const { mine, theirs } = rig
    for (let i = 0; i < 2; i++) for (let page = 7; page < 12; page++) mine.store(page, page)
    const { u8 } = mine.m.ram
    const { set } = u8
    Object.defineProperty(u8, 'set', {
      configurable: true,
      value: (...args: Parameters<typeof set>) => {
        theirs.file.sync()
        expect(theirs.file.dirtyPages).toBe(0)
        set.apply(u8, args)
      }
    })
    try {
      mine.map.write(new Uint8Array(4 * PAGE).fill(3), 8 * PAGE)
    } finally {
      Reflect.deleteProperty(u8, 'set')
    }
    expect(mine.file.dirtyPages).toBe(4)
    mine.file.sync()
    expect(rig.storedWord(11)).toBe(0x03030303)
  })
})

describe('a read into an address space', () => {
  test('pins the page of the file that it copies from, and says so, while the target faults', () => {
    const rig = attached()
    const { mine } = rig
    const other = mine.memory.open(rig.another())
    const target = mine.space.map(other, { writable: true })
    mine.load(4)
    const frame = frameOf(mine, 4)
    const { threads, row } = mine.m.sync
    const seen: number[][] = []
    rig.during('read', () => seen.push([threads.w[row + T_PINS], mine.m.frames.row(frame, F_FLAGS) >>> PIN_SHIFT]))
    const mm = new Mm(mine.m, mine.map.handle.space.id)
    expect(sys_read_user(mm, target.address + 9 * PAGE, 8, mine.file.fd, 4 * PAGE)).toBe(8)
    expect(seen).toEqual([[frame, 1]])
    expect([threads.w[row + T_PINS], mine.m.frames.row(frame, F_FLAGS) >>> PIN_SHIFT]).toEqual([0, 0])
    expect(target.getUint32(9 * PAGE)).toBe(5)
    for (let i = 0; i < MAX_PINS; i++) mine.m.frames.pin(frame)
    expect(sys_read_user(mm, target.address, 8, mine.file.fd, 4 * PAGE)).toBe(-14)
    for (let i = 0; i < MAX_PINS; i++) mine.m.frames.unpin(frame)
  })
})
