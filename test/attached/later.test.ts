/**
 * Pages of stores that answer later, with the test as the pager: it takes the requests and delivers, in the middle of
 * another thread's sleep. What is asked for, who sleeps for whom, and what becomes of it.
 */
import { describe, expect, test } from 'vitest'
import { EOWNERDEAD, ETIMEDOUT } from '../../src/abi/errno.ts'
import type { FaultError } from '../../src/api/errors.ts'
import type { MappedFile } from '../../src/api/file.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { openLater } from '../../src/mm/files.ts'
import { WAIT_ARRIVALS } from '../../src/sync/lock-order.ts'
import { T_PAGER } from '../../src/sync/threads.ts'
import { type AttachedRig, errorOf, PAGE, type Side, THEIR_NUMBER, useAttached } from './support.ts'

const attached = useAttached()

/** A file of a store that answers later, whose pager a thread seems to be. */
class LaterFile {
  readonly side: Side
  readonly inode: number
  readonly #handle: { kind: 'file'; memory: number; fd: number; name: string; writable: boolean }

  constructor(side: Side, pages: number) {
    const { m } = side
    expect(m.enter()).toBe(true)
    const fd = openLater(m, 'later', pages * PAGE)
    m.leave()
    this.side = side
    this.inode = m.files.inode[m.fds[fd]]
    this.#handle = { kind: 'file', memory: m.id, fd, name: 'later', writable: false }
  }

  fileIn({ memory }: Side): MappedFile {
    return memory.adopt(this.#handle)
  }

  mapIn(side: Side): Mapping {
    return side.space.map(this.fileIn(side))
  }

  /** What was asked for since the last time, [first, pages] each. */
  asked(): [number, number][] {
    const { requests } = this.side.m.filler
    const asked: [number, number][] = []
    while (requests.shift(inode => inode === this.inode)) asked.push([requests.first, requests.pages])
    return asked
  }

  /** Pages [first, first + pages) come; page i begins with i + 1. */
  deliver(first: number, pages = 1): void {
    this.#within(
      frame => {
        const { m } = this.side
        m.ram.i32[(frame * PAGE) / 4] = m.frames.row(frame, 3) + 1
        m.filler.deliver(frame)
      },
      first,
      pages
    )
  }

  /** They do not come. */
  fail(errno: number, first: number, pages = 1): void {
    const { requests } = this.side.m.filler
    this.#within(
      frame => this.side.m.filler.withdraw(frame),
      first,
      pages,
      () => requests.fail(this.inode, first, pages, errno, 'the test says so')
    )
  }

  state(pages: number): string {
    const { cache, frames } = this.side.m
    return Array.from({ length: pages }, (_, index) => {
      const frame = cache.lookup(this.inode, index)
      return frame === 0 ? '.' : frames.isUptodate(frame) ? 'x' : '?'
    }).join('')
  }

  #within(act: (frame: number) => void, first: number, pages: number, before: () => void = () => {}): void {
    const { m } = this.side
    expect(m.enter()).toBe(true)
    before()
    for (let index = first; index < first + pages; index++) {
      const frame = m.cache.lookup(this.inode, index)
      expect(frame, `page ${index}`).not.toBe(0)
      act(frame)
    }
    m.sync.wakeAll(WAIT_ARRIVALS, 0)
    m.filler.requests.settled()
    m.leave()
  }
}

function sleepsFor({ m }: Side): number {
  return m.sync.threads.w[m.sync.row + T_PAGER] - 1
}

/** Memories whose first thread sleeps for pages; `theirs` seems to be the pager. */
function sleeping(
  options: Parameters<typeof attached>[0] = {},
  pages = 64
): { rig: AttachedRig; later: LaterFile; map: Mapping } {
  const rig = attached({ waitForPages: true, ...options })
  const later = new LaterFile(rig.theirs, pages)
  return { rig, later, map: later.mapIn(rig.mine) }
}

describe('a thread that sleeps for its page', () => {
  test('says whose pager it waits for, holds no lock, and has the page once it came', () => {
    const { rig, later, map } = sleeping()
    const { mine, theirs } = rig
    rig.asleep(() => {
      expect([sleepsFor(mine), mine.m.sync.lockOwner]).toEqual([theirs.m.sync.me, -1])
      expect(later.asked()).toEqual([[5, 1]])
      expect(mine.m.filler.requests.nrUnderWay).toBe(1)
      later.deliver(5)
    })
    expect(map.getUint32(5 * PAGE)).toBe(6)
    expect([sleepsFor(mine), mine.m.filler.requests.nrUnderWay]).toEqual([-1, 0])
  })

  test('looks again when it is woken too early', () => {
    const { rig, later, map } = sleeping()
    const nothing = (): void => {}
    rig.asleepOn(nothing, nothing)
    rig.asleep(() => later.deliver(5))
    expect(map.getUint32(5 * PAGE)).toBe(6)
    expect(later.asked()).toEqual([[5, 1]])
  })

  test('in a read of the file, a bulk copy, a lock and a populate as well', () => {
    const uses: ((map: Mapping, file: MappedFile) => void)[] = [
      (_, file) => {
        const bytes = new Uint8Array(4)
        expect(file.read(bytes, 5 * PAGE)).toBe(4)
        expect(bytes[0]).toBe(6)
      },
      map => {
        const bytes = new Uint8Array(4)
        map.read(bytes, 5 * PAGE)
        expect(bytes[0]).toBe(6)
      },
      map => map.lock({ offset: 5 * PAGE, length: PAGE }),
      map => expect(map.populateSync({ offset: 5 * PAGE, length: PAGE })).toBe(1)
    ]
    for (const use of uses) {
      const { rig, later, map } = sleeping()
      rig.asleep(() => {
        expect(sleepsFor(rig.mine)).toBe(rig.theirs.m.sync.me)
        later.deliver(5)
      })
      use(map, later.fileIn(rig.mine))
      expect(map.getUint32(5 * PAGE)).toBe(6)
      map.unlock()
    }
  })

  test('is told why its page did not come, and asks again the next time', () => {
    const { rig, later, map } = sleeping()
    rig.asleep(() => later.fail(116, 5))
    expect(errorOf(() => map.getUint32(5 * PAGE))).toMatchObject({ code: 'SIGBUS', errno: -116 })
    rig.asleep(() => later.fail(5, 5))
    expect(errorOf(() => later.fileIn(rig.mine).read(new Uint8Array(4), 5 * PAGE))).toMatchObject({ errno: -5 })
    rig.asleep(() => later.fail(116, 5))
    expect(map.populateSync({ offset: 5 * PAGE, length: PAGE })).toBe(0)
    rig.asleep(() => later.fail(110, 5))
    expect(errorOf(() => map.lock({ offset: 5 * PAGE, length: PAGE })).code).toBeDefined()
    map.unlock()
    later.asked()
    rig.asleep(() => {
      expect(later.asked()).toEqual([[5, 1]])
      // Of another page: that is none of its business.
      rig.theirs.m.filler.requests.fail(later.inode, 6, 3, 116, 'another page')
      later.deliver(5)
    })
    expect(map.getUint32(5 * PAGE)).toBe(6)
  })

  test('does not wait for ever: ETIMEDOUT, and nothing is broken', () => {
    const { rig, later, map } = sleeping({ patienceMs: 1 })
    const wait = (): void => {
      for (const end = Date.now() + 3; Date.now() < end; );
    }
    rig.asleepOn(wait)
    expect(errorOf(() => map.getUint32(5 * PAGE))).toMatchObject({ code: 'SIGBUS', errno: -ETIMEDOUT })
    expect(rig.mine.m.sync.broken).toBe(0)
    later.deliver(5)
    expect(map.getUint32(5 * PAGE)).toBe(6)
  })

  test('is told when the pager has ended, and so is whoever comes later', () => {
    const { rig, later, map } = sleeping()
    const third = rig.attach(8)
    const theirMap = later.mapIn(third)
    rig.asleep(() => {
      third.memory.ended(THEIR_NUMBER)
      third.memory.check()
    })
    const dead = { code: 'SIGBUS', errno: -EOWNERDEAD }
    expect(errorOf(() => map.getUint32(5 * PAGE))).toMatchObject(dead)
    expect(errorOf(() => map.getUint32(6 * PAGE))).toMatchObject(dead)
    expect(errorOf(() => theirMap.getUint32(5 * PAGE))).toMatchObject(dead)
    expect(errorOf(() => later.fileIn(rig.mine).read(new Uint8Array(4), 9 * PAGE))).toMatchObject({
      errno: -EOWNERDEAD
    })
    map.advise('willneed')
    // Another thread has its row, and is no pager.
    expect(rig.attach(9).m.sync.me).toBe(rig.theirs.m.sync.me)
    expect(errorOf(() => map.getUint32(7 * PAGE))).toMatchObject(dead)
    expect(later.state(64)).toBe('.'.repeat(64))
    expect(rig.mine.m.filler.requests.nrUnderWay).toBe(0)
  })

  test('does not when the pager is itself, or sleeps for it in turn: EAGAIN', () => {
    const { rig, later, map } = sleeping()
    const { mine, theirs } = rig
    const own = new LaterFile(mine, 8)
    expect(errorOf(() => own.mapIn(mine).getUint32(0)).code).toBe('EAGAIN')
    const theirMap = own.mapIn(theirs)
    rig.asleep(() => {
      expect(sleepsFor(theirs)).toBe(mine.m.sync.me)
      expect(errorOf(() => map.getUint32(5 * PAGE)).code).toBe('EAGAIN')
      own.deliver(3)
    })
    expect(theirMap.getUint32(3 * PAGE)).toBe(4)
    later.deliver(5)
    expect(map.getUint32(5 * PAGE)).toBe(6)
  })

  test('does not where it chose not to, or may not: EAGAIN, which is numbered', () => {
    const { rig, later } = sleeping()
    for (const options of [{ waitForPages: false }, { maySleep: false }]) {
      const side = rig.attach(8, options)
      const map = later.mapIn(side)
      const first = errorOf(() => map.getUint32(20 * PAGE)) as unknown as FaultError
      expect([first.code, first.fault]).toEqual(['EAGAIN', 1])
      expect(errorOf(() => map.getUint32(20 * PAGE))).toMatchObject({ fault: 2 })
      side.memory.detach()
    }
    expect(later.asked()).toEqual([[20, 1]])
  })

  test('and whose page cannot even be asked for waits until others came', () => {
    for (const use of [
      (map: Mapping) => expect(map.getUint32(40 * PAGE)).toBe(41),
      (_: Mapping, file: MappedFile) => expect(file.read(new Uint8Array(4), 40 * PAGE)).toBe(4)
    ]) {
      const { rig, later, map } = sleeping({ frames: 32 })
      const { mine } = rig
      map.advise('willneed', { offset: 0, length: 30 * PAGE })
      // Half of the frames are on their way.
      const nr = mine.m.ram.nrFrames >>> 1
      expect(mine.m.filler.requests.nrUnderWay).toBe(nr)
      expect(later.asked().reduce((sum, [, pages]) => sum + pages, 0)).toBe(nr)
      rig.asleep(
        () => {
          expect(later.asked()).toEqual([])
          expect(sleepsFor(mine)).toBe(rig.theirs.m.sync.me)
          later.deliver(0)
        },
        () => {
          expect(later.asked()).toEqual([[40, 1]])
          later.deliver(40)
        }
      )
      use(map, later.fileIn(mine))
      later.deliver(1, nr - 1)
    }
  })

  test('and where there is no room because of its own requests: EAGAIN', () => {
    const rig = attached({ frames: 32, waitForPages: true })
    const own = new LaterFile(rig.mine, 64)
    const map = own.mapIn(rig.mine)
    map.advise('willneed', { offset: 0, length: 30 * PAGE })
    expect(errorOf(() => map.getUint32(40 * PAGE)).code).toBe('EAGAIN')
    expect(errorOf(() => own.fileIn(rig.mine).read(new Uint8Array(4), 41 * PAGE)).code).toBe('EAGAIN')
    own.deliver(0, rig.mine.m.filler.requests.nrUnderWay)
  })
})

describe('a file that is read in order', () => {
  /** Loads a page that is there. */
  function load(map: Mapping, page: number): void {
    expect(map.getUint32(page * PAGE)).toBe(page + 1)
  }

  function ordered(pages = 300, frames = 2048): { later: LaterFile; map: Mapping; rig: AttachedRig } {
    const rig = attached({ frames, readahead: 32 * PAGE })
    const later = new LaterFile(rig.mine, pages)
    return { rig, later, map: later.mapIn(rig.mine) }
  }

  test('is asked for ahead: a window more with the first use of the last one, up to the end', () => {
    const { later, map } = ordered()
    expect(errorOf(() => map.getUint32(0)).code).toBe('EAGAIN')
    expect(later.asked()).toEqual([[0, 32]])
    later.deliver(0, 32)
    load(map, 0)
    expect(later.asked()).toEqual([[32, 128]])
    for (let page = 1; page < 32; page++) load(map, page)
    expect(later.asked()).toEqual([])
    later.deliver(32, 128)
    load(map, 32)
    expect(later.asked()).toEqual([[160, 140]])
    later.deliver(160, 140)
    for (let page = 33; page < 300; page++) load(map, page)
    expect(later.asked()).toEqual([])
  })

  test('the first page of a window is one ahead too, for the count of readahead that was worth it', () => {
    const { later, map, rig } = ordered(100)
    errorOf(() => map.getUint32(0))
    later.deliver(0, 32)
    load(map, 0)
    later.deliver(32, 68)
    const hits = (): number => rig.mine.memory.stats().counters.readahead_hits
    const before = hits()
    load(map, 32)
    load(map, 33)
    expect(hits()).toBe(before + 2)
  })

  test('is not asked for ahead elsewhere, nor by who goes back, nor for what is there', () => {
    const { later, map } = ordered()
    errorOf(() => map.getUint32(100 * PAGE))
    expect(later.asked()).toEqual([[100, 1]])
    later.deliver(100)
    load(map, 100)
    expect(later.asked()).toEqual([])
    // Here it goes on in order.
    errorOf(() => map.getUint32(101 * PAGE))
    expect(later.asked()).toEqual([[101, 32]])
    later.deliver(101, 32)
    load(map, 120)
    expect(later.asked()).toEqual([[133, 128]])
    later.deliver(133, 128)
    load(map, 102)
    // The next window would begin at page 261.
    load(map, 132)
    expect(later.asked()).toEqual([])
    errorOf(() => map.getUint32(261 * PAGE))
    expect(later.asked()).toEqual([[261, 39]])
  })

  test('is not asked for by who finds a page there that is none of the window', () => {
    const { later, map } = ordered()
    map.advise('willneed', { offset: 200 * PAGE, length: PAGE })
    errorOf(() => map.getUint32(0))
    later.asked()
    later.deliver(0, 32)
    later.deliver(200)
    load(map, 200)
    expect(later.asked()).toEqual([])
  })

  test('ends where nobody brings the next page', () => {
    const rig = attached({ frames: 2048, readahead: 32 * PAGE })
    const later = new LaterFile(rig.theirs, 100)
    const map = later.mapIn(rig.mine)
    errorOf(() => map.getUint32(0))
    later.deliver(0, 32)
    rig.mine.memory.ended(THEIR_NUMBER)
    load(map, 0)
    expect(rig.mine.m.filler.requests.nrUnderWay).toBe(0)
  })

  test('ends where the next page is there already', () => {
    const { later, map, rig } = ordered()
    map.advise('willneed', { offset: 32 * PAGE, length: PAGE })
    errorOf(() => map.getUint32(0))
    expect(later.asked()).toEqual([
      [32, 1],
      [0, 32]
    ])
    later.deliver(0, 33)
    load(map, 0)
    expect(later.asked()).toEqual([])
    expect(rig.mine.m.filler.requests.nrUnderWay).toBe(0)
  })

  test('says so by advice: all at once, or page by page', () => {
    const { later, map } = ordered()
    map.advise('random')
    errorOf(() => map.getUint32(0))
    later.deliver(0)
    errorOf(() => map.getUint32(PAGE))
    expect(later.asked()).toEqual([
      [0, 1],
      [1, 1]
    ])
    map.advise('sequential')
    errorOf(() => map.getUint32(40 * PAGE))
    expect(later.asked()).toEqual([[40, 256]])
  })

  test('goes in windows of a quarter of the frames at most, and of one page without readahead', () => {
    const { later, map } = ordered(300, 200)
    map.advise('sequential')
    errorOf(() => map.getUint32(0))
    const [[first, pages]] = later.asked()
    expect([first, pages]).toEqual([0, later.side.m.ram.nrFrames >>> 2])
    const plain = attached({ frames: 256, readahead: 0 })
    const other = new LaterFile(plain.mine, 64)
    const otherMap = other.mapIn(plain.mine)
    otherMap.advise('sequential')
    errorOf(() => otherMap.getUint32(0))
    expect(other.asked()).toEqual([[0, 1]])
  })

  test('what came ahead and was not used stays a round longer than what was', () => {
    const { rig, later, map } = ordered(64, 256)
    const { mine } = rig
    map.advise('willneed', { offset: 0, length: 8 * PAGE })
    later.deliver(0, 8)
    map.advise('random')
    for (let page = 4; page < 8; page++) load(map, page)
    const evict = (): void => {
      expect(mine.m.enter()).toBe(true)
      mine.m.reclaim.shrink(4)
      mine.m.leave()
    }
    evict()
    expect(later.state(8)).toBe('xxxx....')
    evict()
    expect(later.state(8)).toBe('........')
  })
})

describe('a window that shows a file in another order', () => {
  function shuffled(frames = 2048): { later: LaterFile; map: Mapping; rig: AttachedRig } {
    const rig = attached({ frames, readahead: 0 })
    const later = new LaterFile(rig.mine, 200)
    const map = later.mapIn(rig.mine)
    map.remapPages(
      0,
      Int32Array.from({ length: 200 }, (_, i) => 199 - i)
    )
    return { rig, later, map }
  }

  const pages = (asked: [number, number][]): number[] => asked.map(([first]) => first)

  test('is asked for along its entries: 16 ahead, and on from halfway', () => {
    const { later, map } = shuffled()
    errorOf(() => map.getUint32(0))
    expect(pages(later.asked())).toEqual(Array.from({ length: 17 }, (_, i) => 199 - i))
    later.deliver(183, 17)
    for (let page = 0; page <= 8; page++) expect(map.getUint32(page * PAGE)).toBe(200 - page)
    expect(later.asked()).toEqual([])
    map.getUint32(9 * PAGE)
    expect(pages(later.asked())).toEqual(Array.from({ length: 9 }, (_, i) => 182 - i))
  })

  test('not beyond its end, not by advice, not what is there, and less in a small memory', () => {
    const { later, map } = shuffled()
    errorOf(() => map.getUint32(195 * PAGE))
    expect(pages(later.asked())).toEqual([4, 3, 2, 1, 0])
    later.deliver(0, 5)
    errorOf(() => map.getUint32(190 * PAGE))
    expect(pages(later.asked())).toEqual([9, 8, 7, 6, 5])
    later.deliver(5, 5)
    for (let page = 190; page < 200; page++) map.getUint32(page * PAGE)
    expect(later.asked()).toEqual([])
    map.advise('random')
    errorOf(() => map.getUint32(50 * PAGE))
    expect(pages(later.asked())).toEqual([149])

    const small = shuffled(64)
    errorOf(() => small.map.getUint32(0))
    const ahead = small.rig.mine.m.ram.nrFrames >>> 3
    expect(pages(small.later.asked())).toEqual(Array.from({ length: ahead + 1 }, (_, i) => 199 - i))
    small.later.deliver(199 - ahead, ahead + 1)
  })

  test('entries that show a page beyond the end of the file are passed over', () => {
    const { later, map } = shuffled()
    map.remap({ at: 1, page: 500 })
    map.remap({ at: 3, page: 199 - 3 })
    errorOf(() => map.getUint32(0))
    const asked = pages(later.asked())
    expect(asked.slice(0, 4)).toEqual([199, 197, 196, 195])
    expect(asked).not.toContain(500)
  })
})
