/** What a thread held when it ended goes back, each thing by itself (mm/recover). */
import { expect, test } from 'vitest'
import { EOWNERDEAD } from '../../src/abi/errno.ts'
import { F_FLAGS, PIN_SHIFT } from '../../src/frame/frame-table.ts'
import { MM_MMAP_LOCK, MM_SHIFT, MM_WAITING_WRITERS } from '../../src/frame/mm-table.ts'
import { pteFrame } from '../../src/pgtable/pte.ts'
import { S_STARVING, T_GUEST, T_INODE, T_IO_FIRST, T_IO_PAGES, T_STARVING } from '../../src/sync/threads.ts'
import { type AttachedRig, errorOf, PAGE, THEIR_NUMBER, useAttached } from './support.ts'

const attached = useAttached()

/** The other thread can do everything, and the machine is whole. */
function expectUnharmed(rig: AttachedRig): void {
  const { mine } = rig
  expect(mine.m.sync.broken).toBe(0)
  expect(mine.memory.check()).toEqual([])
  mine.store(6, 600)
  mine.map.remap({ at: 7, page: 40 })
  expect(mine.load(7)).toBe(41)
  mine.file.sync()
  expect(rig.storedWord(6)).toBe(600)
  mine.file.truncate(50 * PAGE)
  expect(errorOf(() => mine.load(55)).code).toBe('SIGBUS')
  expect(mine.memory.stats().threads).toHaveLength(1)
}

function frameOf(rig: AttachedRig, page: number): number {
  const { m, map } = rig.mine
  return pteFrame(m.tables.get(map.handle.space.id, map.address / PAGE + page))
}

function pins(rig: AttachedRig, frame: number): number {
  return rig.mine.m.frames.row(frame, F_FLAGS) >>> PIN_SHIFT
}

test('in the read of a fault: its page and its hold on the mappings go back', () => {
  const rig = attached()
  const { mine, theirs } = rig
  rig.diesIn('read', () => theirs.load(4))
  const inode = mine.m.files.inode[mine.m.fds[mine.file.fd]]
  // Locked, and without its contents.
  expect(mine.m.inodes.nrFilling(inode)).toBe(1)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.m.inodes.nrFilling(inode)).toBe(0)
  expect(rig.calls).toHaveLength(1)
  expect(mine.load(4)).toBe(5)
  expect(rig.calls).toHaveLength(2)
  expectUnharmed(rig)
})

test('in a read ahead: all pages of it that have no contents, and none that has', () => {
  const rig = attached({ readahead: 8 * PAGE })
  const { mine, theirs } = rig
  mine.load(2)
  mine.load(6)
  rig.diesIn('read', () => theirs.map.advise('willneed', { offset: 0, length: 10 * PAGE }))
  const inode = mine.m.files.inode[mine.m.fds[mine.file.fd]]
  const state = (): number[] =>
    Array.from({ length: 8 }, (_, page) => {
      const frame = mine.m.cache.lookup(inode, page)
      return frame === 0 ? 0 : mine.m.frames.isUptodate(frame) ? 2 : 1
    })
  expect(state()).toEqual([1, 1, 2, 0, 0, 0, 2, 0])
  mine.memory.ended(THEIR_NUMBER)
  expect(state()).toEqual([0, 0, 2, 0, 0, 0, 2, 0])
  const before = rig.calls.length
  expect([mine.load(2), mine.load(6)]).toEqual([3, 7])
  expect(rig.calls).toHaveLength(before)
  expect([0, 1, 3, 4].map(page => mine.load(page))).toEqual([1, 2, 4, 5])
  expectUnharmed(rig)
})

test('while another thread waits for the page: that one reads it itself', () => {
  const rig = attached()
  const { mine, theirs } = rig
  rig.diesIn('read', () => theirs.load(4))
  rig.asleep(() => mine.memory.ended(THEIR_NUMBER))
  expect(mine.load(4)).toBe(5)
  expectUnharmed(rig)
})

test('in the write of a sync: the pages are dirty, and the next sync writes them', () => {
  const rig = attached({ readahead: 8 * PAGE })
  const { mine, theirs } = rig
  for (const page of [4, 5, 9]) theirs.store(page, page * 100)
  rig.diesIn('write', () => theirs.file.sync())
  expect(mine.file.dirtyPages).toBe(1)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.file.dirtyPages).toBe(3)
  mine.file.sync()
  expect([4, 5, 9].map(page => rig.storedWord(page))).toEqual([400, 500, 900])
  expectUnharmed(rig)
})

test('in the second write of a sync: what was written is, and the pages of that one are dirty', () => {
  const rig = attached({ readahead: 8 * PAGE })
  const { mine, theirs } = rig
  for (const page of [4, 9, 10]) theirs.store(page, page * 100)
  rig.during('write', () => {})
  rig.diesIn('write', () => theirs.file.sync())
  const { threads } = mine.m.sync
  const word = (at: number): number => threads.w[threads.at(theirs.m.sync.me, at)]
  expect([word(T_IO_FIRST), word(T_IO_PAGES)]).toEqual([9, 2])
  mine.memory.ended(THEIR_NUMBER)
  expect([mine.file.dirtyPages, rig.storedWord(4), rig.storedWord(9)]).toEqual([2, 400, 10])
  mine.file.sync()
  expect(rig.storedWord(10)).toBe(1000)
  expect(mine.m.sync.threads.w[mine.m.sync.row + T_INODE]).toBe(0)
  expectUnharmed(rig)
})

test('in the write of a sync, with another one waiting for the inode: that one writes them', () => {
  const rig = attached()
  const { mine, theirs } = rig
  theirs.store(4, 400)
  rig.diesIn('write', () => theirs.map.sync())
  const third = rig.attach(8)
  rig.asleep(() => third.memory.ended(THEIR_NUMBER))
  mine.map.sync()
  third.memory.detach()
  expect(rig.storedWord(4)).toBe(400)
  expectUnharmed(rig)
})

test('a page that was stored to again while it was written stays dirty, whoever wrote it', () => {
  const rig = attached()
  const { mine, theirs } = rig
  theirs.store(4, 400)
  rig.diesIn('write', () => theirs.file.sync())
  mine.store(4, 401)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.file.dirtyPages).toBe(1)
  mine.file.sync()
  expect(rig.storedWord(4)).toBe(401)
  expect(mine.file.dirtyPages).toBe(0)
  expectUnharmed(rig)
})

test('in a flush: the inode lock, the mappings, and the file, whose last close comes all the same', () => {
  for (const what of ['file', 'map'] as const) {
    const rig = attached()
    const { mine, theirs } = rig
    theirs.store(4, 400)
    rig.diesIn('flush', () => theirs[what].sync())
    expect(mine.m.sync.threads.w[mine.m.sync.threads.at(theirs.m.sync.me, T_INODE)]).not.toBe(0)
    const third = rig.attach(8)
    rig.asleep(() => third.memory.ended(THEIR_NUMBER))
    mine.file.truncate(60 * PAGE)
    third.memory.detach()
    expectUnharmed(rig)
    mine.store(8, 800)
    mine.map.unmap()
    mine.file.close()
    expect(rig.storedWord(8)).toBe(800)
    expect(mine.memory.check()).toEqual([])
  }
})

test('in a cut: the file is not cut, and pages can be sent for again', () => {
  const rig = attached()
  const { mine, theirs } = rig
  const other = rig.attach(8)
  rig.diesIn('read', () => other.load(9))
  // Waits for that page, with the inode lock.
  rig.asleep(() => {
    const { m } = theirs
    expect(m.inodes.cutting.reduce((a, b) => a + b)).toBe(1)
    process.kill(process.pid, 'SIGINT')
    for (;;);
  })
  rig.diesIn('truncate', () => theirs.file.truncate(5 * PAGE))
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.m.inodes.cutting.reduce((a, b) => a + b)).toBe(0)
  mine.memory.ended(8)
  expect(mine.file.size).toBe(64 * PAGE)
  expect(mine.load(9)).toBe(10)
})

test('in a call of a store that keeps the machine lock: the memory is broken, and everybody is told', () => {
  const rig = attached()
  const { mine, theirs } = rig
  mine.load(3)
  rig.diesIn('size', () => theirs.memory.open(rig.another()))
  expect(mine.m.sync.lockOwner).toBe(theirs.m.sync.me)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.m.sync.broken).toBe(EOWNERDEAD)
  const dead = { code: 'EOWNERDEAD', errno: -EOWNERDEAD }
  expect(errorOf(() => mine.load(30))).toMatchObject(dead)
  expect(errorOf(() => mine.map.remap({ at: 7, page: 40 }))).toMatchObject(dead)
  expect(errorOf(() => mine.map.write(new Uint8Array(8), 35 * PAGE))).toMatchObject(dead)
  expect(errorOf(() => mine.map.read(new Uint8Array(8), 36 * PAGE))).toMatchObject(dead)
  expect(errorOf(() => mine.file.sync())).toMatchObject(dead)
  expect(errorOf(() => mine.memory.space())).toMatchObject(dead)
  expect(errorOf(() => mine.map.borrow(36))).toMatchObject(dead)
  expect(errorOf(() => rig.attach(9))).toMatchObject(dead)
  expect(errorOf(() => mine.memory.close())).toMatchObject(dead)
})

test('that is not known to have ended: whoever waits for it loses patience', () => {
  const rig = attached({ patienceMs: 1 })
  const { mine, theirs } = rig
  // Of this very thread the operating system says that it lives.
  mine.m.sync.setSystem(() => undefined)
  rig.diesIn('read', () => theirs.load(4))
  const wait = (): void => {
    // Longer than ten times the patience with a thread that is in a store.
    for (const end = Date.now() + 15; Date.now() < end; );
  }
  rig.asleepOn(wait, wait)
  expect(errorOf(() => mine.map.remap({ at: 2, page: 30 }))).toMatchObject({ code: 'EOWNERDEAD' })
  expect(mine.m.sync.broken).toBe(EOWNERDEAD)
})

test('with borrowed pages: they are pinned no longer, and those for writing are dirty', () => {
  const rig = attached()
  const { mine, theirs } = rig
  for (const page of [3, 4, 5]) theirs.map.borrow(page)
  const lent = theirs.map.borrow(9, 'write')
  mine.file.sync()
  lent.bytes[8] = 77
  const frames = [3, 4, 5, 9].map(page => frameOf(rig, page))
  expect(frames.map(frame => pins(rig, frame))).toEqual([1, 1, 1, 1])
  expect(mine.file.dirtyPages).toBe(0)
  mine.memory.ended(THEIR_NUMBER)
  expect(frames.map(frame => pins(rig, frame))).toEqual([0, 0, 0, 0])
  expect(mine.file.dirtyPages).toBe(1)
  mine.file.sync()
  expect(rig.storedWord(9, 8)).toBe(77)
  expectUnharmed(rig)
})

test('with a borrowed page that left its file: the frame is free again', () => {
  const rig = attached()
  const { mine, theirs } = rig
  mine.load(1)
  theirs.map.borrow(20)
  const free = mine.memory.stats().freeFrames
  mine.file.truncate(10 * PAGE)
  expect(mine.memory.stats().freeFrames).toBe(free)
  mine.memory.ended(THEIR_NUMBER)
  expect(mine.memory.stats().freeFrames).toBe(free + 1)
})

test('in the middle of a copy: its run of frames is pinned no longer, and dirty if it stored to them', () => {
  for (const [isStore, dirty] of [
    [true, 4],
    [false, 0]
  ] as const) {
    const rig = attached()
    const { mine, theirs } = rig
    // A second store: the entries count as used, and allow stores.
    for (let i = 0; i < 2; i++) for (let page = 7; page < 12; page++) mine.store(page, i)
    const frames = [8, 9, 10, 11].map(page => frameOf(rig, page))
    const bytes = new Uint8Array(4 * PAGE)
    const kill = (): never => {
      expect(frames.map(frame => pins(rig, frame))).toEqual([1, 1, 1, 1])
      process.kill(process.pid, 'SIGINT')
      for (;;);
    }
    // The copy itself is the only thing between the two.
    const bulk = theirs.m.ram.u8
    const name = isStore ? 'set' : 'subarray'
    Object.defineProperty(bulk, name, { value: kill, configurable: true })
    try {
      rig.dies(() => (isStore ? theirs.map.write(bytes, 8 * PAGE) : theirs.map.read(bytes, 8 * PAGE)))
    } finally {
      Reflect.deleteProperty(bulk, name)
    }
    mine.file.sync()
    expect(mine.file.dirtyPages).toBe(0)
    mine.memory.ended(THEIR_NUMBER)
    expect(frames.map(frame => pins(rig, frame))).toEqual([0, 0, 0, 0])
    expect(mine.file.dirtyPages).toBe(dirty)
    expectUnharmed(rig)
  }
})

test('with the mmap lock for reading, for writing, and waiting for it', () => {
  const rig = attached()
  const { mine, theirs } = rig
  const { id } = mine.map.handle.space
  const word = (at: number): number => mine.m.mms.w[(id << MM_SHIFT) + at]
  expect(theirs.m.lockMmRead(id, 0)).toBe(true)
  theirs.m.sync.openWindow(0, 0, 0, 0)
  expect(mine.m.lockMmRead(id, 0)).toBe(true)
  expect(word(MM_MMAP_LOCK)).toBe(2)
  mine.m.sync.openWindow(0, 0, 0, 0)
  // A writer waits for both readers, and dies of it.
  const writer = rig.attach(8)
  rig.asleep(() => {
    expect(word(MM_WAITING_WRITERS)).toBe(1)
    process.kill(process.pid, 'SIGINT')
    for (;;);
  })
  rig.dies(() => writer.map.remap({ at: 1, page: 2 }))
  mine.m.sync.closeWindow()
  mine.m.unlockMmRead(id)
  expect([word(MM_MMAP_LOCK), word(MM_WAITING_WRITERS)]).toEqual([1, 1])
  mine.memory.ended(8)
  expect([word(MM_MMAP_LOCK), word(MM_WAITING_WRITERS)]).toEqual([1, 0])
  mine.memory.ended(THEIR_NUMBER)
  expect(word(MM_MMAP_LOCK)).toBe(0)
  const third = rig.attach(9)
  expect(third.m.lockMm(id, 0)).toBe(true)
  third.m.notifiers.rangeStart(id, 0, 10)
  expect(mine.m.notifiers.count(id)).toBe(1)
  third.m.sync.openWindow(0, 0, 0, 0)
  expect(word(MM_MMAP_LOCK)).toBe(-1)
  rig.asleep(() => mine.memory.ended(9))
  expect(mine.load(3)).toBe(4)
  expect(word(MM_MMAP_LOCK)).toBe(0)
  expect(mine.m.notifiers.count(id)).toBe(0)
  expectUnharmed(rig)
})

test('that starved, and whose guest ran: nobody waits for either', () => {
  const rig = attached()
  const { mine, theirs } = rig
  const { threads, words } = mine.m.sync
  const row = theirs.m.sync.row
  threads.w[row + T_STARVING] = 1
  words[S_STARVING] = 1
  threads.w[row + T_GUEST] = 3
  mine.memory.ended(THEIR_NUMBER)
  expect([words[S_STARVING], threads.w[row + T_GUEST], threads.w[row + T_STARVING]]).toEqual([0, 0, 0])
  expectUnharmed(rig)
})

test('only the thread that has the number ends, and it ends once', () => {
  const rig = attached()
  const { mine, theirs } = rig
  theirs.map.borrow(3)
  const frame = frameOf(rig, 3)
  mine.memory.ended(THEIR_NUMBER + 1)
  expect([pins(rig, frame), mine.memory.stats().threads.length]).toEqual([1, 2])
  mine.memory.ended(THEIR_NUMBER)
  // Another one has its row now.
  const next = rig.attach(THEIR_NUMBER + 1)
  expect(next.m.sync.me).toBe(theirs.m.sync.me)
  next.map.borrow(3)
  mine.memory.ended(THEIR_NUMBER)
  expect([pins(rig, frame), mine.memory.stats().threads.length]).toEqual([1, 2])
  next.memory.detach()
  expect(pins(rig, frame)).toBe(0)
  expectUnharmed(rig)
})
