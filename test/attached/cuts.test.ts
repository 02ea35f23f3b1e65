/**
 * Truncation and punches whose store is asked in a window: what others do meanwhile, and what is left when it fails or
 * its thread ends.
 */
import { describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { type AttachedRig, errorOf, PAGE, THEIR_NUMBER, useAttached } from './support.ts'

const attached = useAttached()

/** The first words of these pages, as a mapping shows them. */
const words = (rig: AttachedRig, ...pages: number[]): number[] => pages.map(page => rig.mine.load(page))

const cuts = (rig: AttachedRig): number[] =>
  rig.calls.filter(([call]) => call === 'truncate' || call === 'punch').map(([, first]) => first)

/** What an allocation in the middle of something does when no frame is free, of all pages. → frames freed. */
const evict = ({ m }: AttachedRig['mine']): number => m.run(() => m.reclaim.shrinkAll())

describe('while the store truncates', () => {
  test('others use the part that stays, other files, and what they have mapped of the part that goes', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(20, 200)
    rig.during('truncate', () => {
      expect(words(rig, 3, 4)).toEqual([4, 5])
      expect(mine.load(20)).toBe(200)
      mine.store(20, 201)
      mine.map.remap({ at: 5, page: 30 })
      const other = mine.memory.open(rig.another())
      expect(other.read(new Uint8Array(8), 40 * PAGE)).toBe(8)
      other.close()
      expect(mine.file.size).toBe(64 * PAGE)
      expect(mine.memory.check()).toEqual([])
    })
    theirs.file.truncate(10 * PAGE + 100)
    expect(mine.file.size).toBe(10 * PAGE + 100)
    expect(errorOf(() => mine.load(20)).code).toBe('SIGBUS')
    expect(errorOf(() => mine.load(5)).code).toBe('SIGBUS')
    mine.file.truncate(64 * PAGE)
    expect(words(rig, 20, 5, 4)).toEqual([0, 0, 5])
    expect(mine.map.getUint8(10 * PAGE + 100)).toBe(0)
  })

  test('pages are read ahead up to the part that goes, and none of that part is', () => {
    const rig = attached({ readahead: 16 * PAGE })
    const { mine, theirs } = rig
    rig.during('truncate', () => {
      mine.map.advise('willneed', { offset: 4 * PAGE, length: 12 * PAGE })
      expect(mine.load(1)).toBe(2)
    })
    theirs.file.truncate(10 * PAGE)
    const read = rig.calls.filter(([call]) => call === 'read')
    expect(read.map(([, first, length]) => (first + length) / PAGE).every(end => end <= 10)).toBe(true)
    expect(read.some(([, first]) => first === 4 * PAGE)).toBe(true)
  })

  test('an allocation writes a page behind the cut: the store is asked again, and nothing is left of the page', () => {
    const rig = attached()
    const { mine, theirs } = rig
    for (const page of [9, 20, 21]) mine.store(page, 1000 + page)
    rig.during('truncate', () => {
      evict(mine)
      expect(rig.storedWord(20)).toBe(1020)
    })
    theirs.file.truncate(10 * PAGE)
    expect(cuts(rig)).toEqual([10 * PAGE, 10 * PAGE])
    expect(rig.stored.size()).toBe(10 * PAGE)
    expect(rig.storedWord(9)).toBe(1009)
    mine.file.truncate(64 * PAGE)
    expect(words(rig, 9, 20, 21)).toEqual([1009, 0, 0])
  })

  test('an allocation writes a page of the part that stays: the store is asked once', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(8, 800)
    rig.during('truncate', () => expect(evict(mine)).toBeGreaterThan(0))
    theirs.file.truncate(10 * PAGE)
    expect(cuts(rig)).toEqual([10 * PAGE])
    expect(mine.load(8)).toBe(800)
  })

  test('and the new end is within a page: stores to it below the end stay, those behind it do not', () => {
    const rig = attached()
    const { mine, theirs } = rig
    rig.during('truncate', () => {
      mine.map.setUint32(10 * PAGE, 1)
      mine.map.setUint32(10 * PAGE + 200, 2)
      // The page cannot go, and is not written to its old end for good.
      evict(mine)
    })
    theirs.file.truncate(10 * PAGE + 100)
    expect(mine.map.getUint32(10 * PAGE)).toBe(1)
    mine.file.truncate(64 * PAGE)
    expect(mine.map.getUint32(10 * PAGE + 200)).toBe(0)
    mine.file.sync()
    expect(rig.storedWord(10, 200)).toBe(0)
  })

  test('and the file grows: what is stored behind the old end until then does not become part of it', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.file.truncate(10 * PAGE + 100)
    rig.during('truncate', () => mine.map.setUint32(10 * PAGE + 200, 2))
    theirs.file.truncate(20 * PAGE)
    expect(mine.map.getUint32(10 * PAGE + 200)).toBe(0)
  })
})

describe('when the store refuses', () => {
  test('nothing has changed', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(20, 200)
    rig.fail('truncate', EIO)
    expect(errorOf(() => theirs.file.truncate(10 * PAGE))).toMatchObject({ code: 'EIO' })
    expect([mine.file.size, mine.file.dirtyPages]).toEqual([64 * PAGE, 1])
    expect(words(rig, 20, 30)).toEqual([200, 31])
    mine.file.sync()
    expect(rig.calls.filter(([call]) => call === 'truncate').length).toBe(1)
  })

  test('after it has cut once: each byte is what it was, or zero; the size is the old one, and the next sync makes it so', () => {
    const rig = attached()
    const { mine, theirs } = rig
    expect(mine.load(25)).toBe(26)
    mine.store(20, 200)
    rig.during('truncate', () => {
      evict(mine)
      expect(mine.load(9)).toBe(10)
      rig.during('truncate', () => rig.fail('truncate', EIO))
    })
    theirs.map.borrow(30)
    expect(errorOf(() => theirs.file.truncate(10 * PAGE))).toMatchObject({ code: 'EIO' })
    expect(cuts(rig)).toEqual([10 * PAGE, 10 * PAGE])
    expect(mine.file.size).toBe(64 * PAGE)
    expect(words(rig, 9, 20, 25, 30, 40)).toEqual([10, 0, 0, 31, 0])
    mine.file.sync()
    expect(rig.stored.size()).toBe(64 * PAGE)
    expect(rig.storedWord(30)).toBe(31)
  })
})

describe('the end of the thread', () => {
  test('in a truncation: the file has its old size, what was in the cache, and zeros where the store was cut', () => {
    for (const isCut of [false, true]) {
      const rig = attached()
      const { mine, theirs } = rig
      mine.store(20, 200)
      expect(words(rig, 21, 9)).toEqual([22, 10])
      rig.diesIn('truncate', () => theirs.file.truncate(10 * PAGE + 100))
      if (isCut) rig.stored.truncate(10 * PAGE + 100)
      mine.memory.ended(THEIR_NUMBER)
      expect(mine.file.size).toBe(64 * PAGE)
      expect(words(rig, 9, 20, 21)).toEqual([10, 200, 22])
      expect([0, 31]).toContain(mine.load(30))
      expect(mine.memory.check()).toEqual([])
      // Also what was clean: the store may not have it.
      mine.file.sync()
      expect(rig.stored.size()).toBe(64 * PAGE)
      mine.memory.shrink()
      expect(words(rig, 9, 20, 21)).toEqual([10, 200, 22])
      mine.file.truncate(5 * PAGE)
      expect(rig.stored.size()).toBe(5 * PAGE)
    }
  })

  test('in one that lets the file grow: the next sync makes the store as short as the file again', () => {
    const rig = attached()
    const { mine, theirs } = rig
    rig.diesIn('truncate', () => theirs.file.truncate(80 * PAGE))
    rig.stored.truncate(80 * PAGE)
    mine.memory.ended(THEIR_NUMBER)
    expect(mine.file.size).toBe(64 * PAGE)
    expect(mine.file.read(new Uint8Array(8), 64 * PAGE)).toBe(0)
    mine.file.sync()
    expect(rig.stored.size()).toBe(64 * PAGE)
  })

  test('in a punch: what was in the cache stays and is written back', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(8, 800)
    expect(words(rig, 9)).toEqual([10])
    rig.diesIn('punch', () => theirs.file.punch(8 * PAGE, 4 * PAGE))
    rig.stored.punch(8 * PAGE, 4 * PAGE)
    mine.memory.ended(THEIR_NUMBER)
    expect(words(rig, 8, 9, 10, 12)).toEqual([800, 10, 0, 13])
    mine.file.sync()
    expect([8, 9, 10].map(page => rig.storedWord(page))).toEqual([800, 10, 0])
  })
})

describe('while the store punches', () => {
  test('an allocation writes a page of the hole: the store is asked again', () => {
    const rig = attached()
    const { mine, theirs } = rig
    for (const page of [7, 8, 9]) mine.store(page, 1000 + page)
    rig.during('punch', () => {
      evict(mine)
      expect(rig.storedWord(8)).toBe(1008)
    })
    theirs.file.punch(8 * PAGE, 2 * PAGE)
    expect(cuts(rig)).toEqual([8 * PAGE, 8 * PAGE])
    expect(words(rig, 7, 8, 9, 10)).toEqual([1007, 0, 0, 11])
  })

  test('pages before and behind the hole are read', () => {
    const rig = attached()
    const { theirs } = rig
    rig.during('punch', () => expect(words(rig, 7, 10)).toEqual([8, 11]))
    theirs.file.punch(8 * PAGE, 2 * PAGE)
    expect(words(rig, 8, 9)).toEqual([0, 0])
  })

  test('and refuses: what the cache shows is written back', () => {
    const rig = attached()
    const { mine, theirs } = rig
    expect(mine.load(8)).toBe(9)
    rig.fail('punch', EIO)
    expect(errorOf(() => theirs.file.punch(8 * PAGE, 2 * PAGE))).toMatchObject({ code: 'EIO' })
    expect(words(rig, 8, 9)).toEqual([9, 10])
    expect(mine.file.dirtyPages).toBe(1)
  })

  test('cannot, and a write of zeros falls short: that is an error', () => {
    const rig = attached()
    const { theirs } = rig
    rig.fail('punch', 95)
    rig.fail('write', 28)
    expect(errorOf(() => theirs.file.punch(8 * PAGE, 2 * PAGE))).toMatchObject({ code: 'ENOSPC' })
    expect(words(rig, 8)).toEqual([9])
  })
})

describe('a sync that makes the store as long as the file', () => {
  const part = { offset: 0, length: PAGE }

  test('does so in a window, with the write lock', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.file.write(Uint8Array.of(1), 70 * PAGE)
    rig.during('truncate', () => {
      expect(words(rig, 3)).toEqual([4])
      expect(mine.m.inodes.writeLock.some(holder => holder === theirs.m.sync.me + 1)).toBe(true)
      expect(mine.memory.shrink()).toBeGreaterThan(0)
    })
    theirs.map.sync(part)
    expect(mine.m.inodes.writeLock.every(holder => holder === 0)).toBe(true)
    expect(rig.stored.size()).toBe(70 * PAGE + 1)
    const byte = new Uint8Array(1)
    expect([mine.file.read(byte, 70 * PAGE), byte[0]]).toEqual([1, 1])
  })

  test('does so under the machine lock while another thread writes, which may make it longer', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.file.write(Uint8Array.of(1), 70 * PAGE)
    const seen: number[] = []
    rig.during('truncate', () => seen.push(mine.m.sync.lockOwner))
    rig.during('read', () => theirs.map.sync(part))
    mine.file.write(Uint8Array.of(1), 5 * PAGE + 8)
    expect(seen).toEqual([theirs.m.sync.me])
    expect(rig.stored.size()).toBe(70 * PAGE + 1)
  })

  test('and whose thread ends in it: the locks are free', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.file.write(Uint8Array.of(1), 70 * PAGE)
    rig.diesIn('truncate', () => theirs.map.sync(part))
    mine.memory.ended(THEIR_NUMBER)
    mine.file.write(Uint8Array.of(2), 70 * PAGE + 1)
    mine.file.sync()
    expect(rig.stored.size()).toBe(70 * PAGE + 2)
  })
})
