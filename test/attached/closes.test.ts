/**
 * The last close of a file, which writes and closes in windows: what others do meanwhile, its errors, and the end of
 * its thread.
 */
import { describe, expect, test } from 'vitest'
import { EIO, ENOMEM, EOWNERDEAD } from '../../src/abi/errno.ts'
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PROT_READ,
  PROT_WRITE
} from '../../src/abi/mman.ts'
import type { MappedFile } from '../../src/index.ts'
import { sys_close } from '../../src/syscall/file.ts'
import { sys_brk, sys_mincore, sys_mmap, sys_mremap, sys_munmap } from '../../src/syscall/memory.ts'
import { sys_exit } from '../../src/syscall/process.ts'
import { type AttachedRig, errorOf, PAGE, type Side, THEIR_NUMBER, useAttached } from './support.ts'

const attached = useAttached()

/** The last reference is the mapping, or the descriptor. */
const ends: readonly [string, (side: Side) => void][] = [
  [
    'a close',
    ({ map, file }) => {
      map.unmap()
      file.close()
    }
  ],
  [
    'an unmap',
    ({ map, file }) => {
      file.close()
      map.unmap()
    }
  ],
  [
    'the end of the space',
    ({ space, file, m }) => {
      file.close()
      const result = sys_exit(space.mm)
      if (result < 0) throw Object.assign(new Error('sys_exit'), { code: result === -EIO ? 'EIO' : result })
      expect(m.inside).toBe(false)
    }
  ]
]

/** The file again, as others see it. */
function again(rig: AttachedRig, side: Side): MappedFile {
  return side.memory.open(Object.assign(rig.another(), { identity: rig.stored.identity }))
}

function words(file: MappedFile, ...pages: number[]): number[] {
  const bytes = new Uint8Array(4)
  return pages.map(page => {
    file.read(bytes, page * PAGE)
    return new DataView(bytes.buffer).getUint32(0, true)
  })
}

describe.each(ends)('a last close by %s', (_, end) => {
  test('writes and closes while others do what they like, in the same address space too', () => {
    const rig = attached()
    const { mine, theirs } = rig
    const shared = mine.memory.shared(8 * PAGE)
    const space = mine.space
    const own = mine.memory.space()
    theirs.store(20, 200)
    mine.store(40, 400)
    const act = (): void => {
      expect(mine.m.sync.lockOwner).toBe(-1)
      expect(mine.memory.check()).toEqual([])
      const where = mine.m.mms.isAlive(space.mm.id) ? space : own
      const map = where.map(shared, { writable: true })
      map.setUint32(0, 5)
      map.remap({ at: 0, page: 3 })
      map.unmap()
      const other = mine.memory.open(rig.another())
      expect(words(other, 50)).toEqual([51])
      other.close()
    }
    rig.during('write', act)
    rig.during('close', () => rig.during('close', act))
    end(theirs)
    expect([rig.storedWord(20), rig.storedWord(40)]).toEqual([200, 400])
    expect(mine.memory.check()).toEqual([])
  })

  test('that cannot write says so', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(20, 200)
    rig.fail('write', EIO)
    expect(errorOf(() => end(theirs))).toMatchObject({ code: 'EIO' })
    expect(rig.storedWord(20)).toBe(21)
    // It is said once, by whoever closed it.
    expect(mine.m.closeError + theirs.m.closeError).toBe(0)
    const file = again(rig, mine)
    expect(words(file, 20)).toEqual([21])
    expect(mine.memory.check()).toEqual([])
  })

  test.each(['write', 'truncate', 'close'] as const)('and the end of its thread in %s: who finds out goes on', call => {
    const rig = attached()
    const { mine, theirs } = rig
    theirs.store(20, 200)
    if (call === 'truncate') mine.file.write(Uint8Array.of(1), 70 * PAGE)
    // The last page is evicted and gone from the cache: its write makes the store as long as it is.
    if (call === 'truncate') mine.m.inodes.isUnsized[1] = 1
    rig.diesIn(call, () => end(theirs))
    expect(mine.memory.check()).toEqual([])
    mine.memory.ended(THEIR_NUMBER)
    expect(rig.storedWord(20)).toBe(200)
    if (call === 'truncate') expect(rig.stored.size()).toBe(70 * PAGE + 1)
    expect(mine.m.inodes.going.reduce((a, b) => a + Math.abs(b), 0)).toBe(0)
    expect(mine.memory.check()).toEqual([])
    expect(words(again(rig, mine), 20)).toEqual([200])
  })

  test('and the end of its thread, with an open of the same file waiting: it has what was stored', () => {
    for (const call of ['write', 'close'] as const) {
      const rig = attached()
      const { mine, theirs } = rig
      theirs.store(20, 200)
      const third = rig.attach(8)
      rig.diesIn(call, () => end(theirs))
      rig.asleep(() => third.memory.ended(THEIR_NUMBER))
      const file = again(rig, mine)
      expect(words(file, 20)).toEqual([200])
      third.memory.detach()
    }
  })

  test('and the end of its thread, found out by the very one that opens the file', () => {
    const rig = attached()
    const { mine, theirs } = rig
    theirs.store(20, 200)
    rig.diesIn('write', () => end(theirs))
    mine.m.sync.setSystem(() => true)
    // One slice of the wait.
    rig.asleepOn(() => {
      for (const stop = Date.now() + 60; Date.now() < stop; );
    })
    const file = again(rig, mine)
    expect(words(file, 20)).toEqual([200])
    expect(mine.m.nrGoing).toBe(0)
  })

  test('and the end of its thread that cannot write: nobody else is told', () => {
    const rig = attached()
    const { mine, theirs } = rig
    theirs.store(20, 200)
    rig.diesIn('write', () => end(theirs))
    rig.fail('write', EIO)
    mine.memory.ended(THEIR_NUMBER)
    expect(mine.m.closeError).toBe(0)
    expect(rig.storedWord(20)).toBe(21)
  })

  test('keeps a thread that may not sleep from opening the file: EAGAIN, and the store is not closed', () => {
    const rig = attached({ maySleep: false })
    const { mine, theirs } = rig
    mine.store(20, 200)
    const store = Object.assign(rig.another(), { identity: rig.stored.identity })
    rig.during('write', () => expect(errorOf(() => theirs.memory.open(store)).code).toBe('EAGAIN'))
    end(mine)
    expect(words(theirs.memory.open(store), 20)).toEqual([200])
  })
})

test('a mapping put in the place of the last one of a file: an error of that is told, and nothing is mapped', () => {
  for (const fails of [false, true]) {
    const rig = attached()
    const { mine } = rig
    const other = mine.memory.shared(PAGE)
    mine.store(20, 200)
    mine.file.close()
    const { address, space } = mine.map
    if (fails) rig.fail('write', EIO)
    const at = sys_mmap(space.mm, address, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, other.fd, 0)
    expect(at).toBe(fails ? -EIO : address)
    expect(rig.storedWord(20)).toBe(fails ? 21 : 200)
    expect(mine.memory.check()).toEqual([])
    expect(sys_munmap(space.mm, address, 64 * PAGE)).toBe(0)
  }
})

test('a moved mapping whose old range ends in the last mapping of a file: an error of that is told, and nothing has moved', () => {
  const rig = attached()
  const { mine } = rig
  const { mm } = mine.space
  mine.store(20, 200)
  const { address } = mine.map
  const anon = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
  expect(sys_mmap(mm, address - 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, anon, -1, 0)).toBe(address - 2 * PAGE)
  const target = address + 1024 * PAGE
  mine.file.close()
  rig.fail('write', EIO)
  const moves = MREMAP_MAYMOVE | MREMAP_FIXED
  expect(sys_mremap(mm, address - 2 * PAGE, 66 * PAGE, 2 * PAGE, moves, target)).toBe(-EIO)
  expect(sys_mincore(mm, target, PAGE, new Uint8Array(1))).toBe(-ENOMEM)
  expect(sys_munmap(mm, address - 2 * PAGE, 2 * PAGE)).toBe(0)
  expect(mine.memory.check()).toEqual([])
})

test('a heap that shrinks over the last mapping of a file that cannot be written tells where it ends, as ever', () => {
  const rig = attached()
  const { mine } = rig
  const { mm } = mine.space
  const start = sys_brk(mm, 0)
  expect(sys_brk(mm, start + 2 * PAGE)).toBe(start + 2 * PAGE)
  const at = sys_mmap(mm, start + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mine.file.fd, 20 * PAGE)
  expect(at).toBe(start + PAGE)
  mine.store(20, 200)
  mine.map.unmap()
  mine.file.close()
  rig.fail('write', EIO)
  expect(sys_brk(mm, start)).toBe(start + 2 * PAGE)
  expect(mine.m.closeError).toBe(0)
  expect(mine.memory.check()).toEqual([])
})

test('two files of one space that end together: both are written, the first error is told', () => {
  const rig = attached()
  const { mine } = rig
  const other = mine.memory.open(rig.another())
  const map = mine.space.map(other, { writable: true })
  map.setUint32(30 * PAGE, 300)
  mine.store(20, 200)
  other.close()
  mine.file.close()
  rig.fail('write', EIO)
  expect(sys_exit(mine.space.mm)).toBe(-EIO)
  expect([rig.storedWord(20) === 200, rig.storedWord(30) === 300].filter(is => is).length).toBe(1)
  expect(mine.memory.check()).toEqual([])
})

test('the end of the memory waits for a thread that lets a file go', () => {
  const rig = attached()
  const { mine, theirs } = rig
  theirs.store(20, 200)
  const third = rig.attach(8)
  rig.diesIn('write', () => ends[0][1](theirs))
  rig.asleep(() => third.memory.ended(THEIR_NUMBER))
  mine.memory.close()
  expect(rig.storedWord(20)).toBe(200)
  expect(sys_close(mine.m, 3)).toBeLessThan(0)
})

test('the end of the memory waits for a thread that has inherited what another one was letting go', () => {
  const rig = attached()
  const { mine, theirs } = rig
  theirs.store(20, 200)
  const third = rig.attach(8)
  const fourth = rig.attach(9)
  rig.diesIn('write', () => ends[0][1](third))
  rig.asleep(
    // Its row comes before that of the one that ended.
    () => rig.diesIn('write', () => theirs.memory.ended(8)),
    () => fourth.memory.ended(THEIR_NUMBER)
  )
  mine.memory.close()
  expect(rig.storedWord(20)).toBe(200)
})

describe('a last close by a thread that may not sleep, of a file that reclaim of another one was writing when that ended', () => {
  /** The second thread, which may not sleep and has the last reference. */
  const last = (): { rig: AttachedRig; theirs: Side } => {
    const rig = attached({ maySleep: false, patienceMs: 20 })
    rig.mine.store(20, 200)
    const third = rig.attach(8)
    rig.diesIn('write', () => third.memory.shrink())
    return { rig, theirs: rig.theirs }
  }

  test('goes on where the system says so', () => {
    const { rig, theirs } = last()
    theirs.m.sync.setSystem(() => true)
    ends[0][1](theirs)
    expect(rig.storedWord(20)).toBe(200)
    expect(rig.mine.memory.check()).toEqual([])
  })

  test('loses patience elsewhere', () => {
    const { theirs } = last()
    // Of this very thread the operating system says that it lives.
    theirs.m.sync.setSystem(() => undefined)
    expect(errorOf(() => ends[0][1](theirs)).errno).toBe(-EOWNERDEAD)
  })
})
