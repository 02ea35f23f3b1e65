/**
 * What a thread waits for, and what it finds when it wakes up: the machine lock, mappings, inodes, pages, stores on
 * their way.
 */
import { describe, expect, test } from 'vitest'
import { EAGAIN, EOWNERDEAD } from '../../src/abi/errno.ts'
import { MM_MMAP_LOCK, MM_SHIFT, MM_WAITING_WRITERS } from '../../src/frame/mm-table.ts'
import { PTE_YOUNG } from '../../src/pgtable/pte.ts'
import { S_STARVING, T_MMAP_MODE, T_STARVING, T_WAITS } from '../../src/sync/threads.ts'
import { type AttachedRig, errorOf, PAGE, type Side, THEIR_NUMBER, useAttached } from './support.ts'

const attached = useAttached()

function mmWord({ m, map }: Side, word: number): number {
  return m.mms.w[(map.handle.space.id << MM_SHIFT) + word]
}

function waits({ m }: Side): number {
  return m.sync.threads.w[m.sync.row + T_WAITS]
}

/** Takes an address space's mmap lock, as a verb does that gives the machine lock back for a while. → lets go of it. */
function holdMm(side: Side, mode: 'read' | 'write'): () => void {
  const { m } = side
  const { id } = side.map.handle.space
  expect(mode === 'read' ? m.lockMmRead(id, 0) : m.lockMm(id, 0)).toBe(true)
  m.sync.openWindow(0, 0, 0, 0)
  return () => {
    m.sync.closeWindow()
    if (mode === 'read') m.unlockMmRead(id)
    else m.unlock(id)
  }
}

describe('the machine lock', () => {
  test('is waited for, and who was kept from it for long says so until it has it', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.load(1)
    expect(theirs.m.enter()).toBe(true)
    expect(theirs.m.sync.isLocked).toBe(true)
    const { words, threads, row } = mine.m.sync
    const hungry: number[] = []
    // The word changes hands just as it goes to sleep, and is taken again before it wakes up.
    rig.asleepOn(() => hungry.push(words[S_STARVING], threads.w[row + T_STARVING]))
    rig.asleep(() => {
      hungry.push(words[S_STARVING], threads.w[row + T_STARVING])
      theirs.m.leave()
    })
    expect(mine.load(2)).toBe(3)
    expect(hungry).toEqual([0, 0, 1, 1])
    expect([words[S_STARVING], threads.w[row + T_STARVING]]).toEqual([0, 0])
  })

  test('is had by the thread that sleeps for it as soon as it is given back', () => {
    const rig = attached()
    const { mine, theirs } = rig
    expect(theirs.m.enter()).toBe(true)
    rig.asleep(() => theirs.m.leave())
    expect(mine.load(2)).toBe(3)
    expect(mine.m.sync.words[S_STARVING]).toBe(0)
  })

  test('is not to be had twice by one thread: EDEADLK', () => {
    const { mine } = attached()
    expect(mine.m.enter()).toBe(true)
    // As if from within a store.
    const outer = mine.m.sync.beginStoreCall()
    expect(mine.m.enter()).toBe(false)
    expect(mine.m.refused).toBe(35)
    expect(mine.m.reenter()).toBe(false)
    expect(mine.m.lockMm(1, 0)).toBe(false)
    expect(mine.m.lockMmRead(1, 0)).toBe(false)
    expect(mine.m.quietly(() => 5)).toBe(5)
    expect(mine.m.inside).toBe(true)
    mine.m.sync.endStoreCall(outer)
    mine.m.leave()
    expect(mine.m.quietly(() => mine.m.inside)).toBe(true)
    expect(mine.m.inside).toBe(false)
    expect(mine.m.sync.lockOwner).toBe(-1)
  })

  test('is given up on by a thread that may not sleep: EAGAIN', () => {
    const { mine, theirs } = attached({ maySleep: false })
    expect(mine.m.enter()).toBe(true)
    expect(theirs.m.enter()).toBe(false)
    expect(theirs.m.refused).toBe(EAGAIN)
    mine.m.leave()
    expect(theirs.load(3)).toBe(4)
  })
})

describe('the mmap lock', () => {
  test('for writing waits for a reader, is counted meanwhile, and keeps new readers away', () => {
    const rig = attached()
    const { mine, theirs } = rig
    const letGo = holdMm(theirs, 'read')
    const third = rig.attach(8, { maySleep: false })
    rig.asleep(() => {
      expect([mmWord(mine, MM_MMAP_LOCK), mmWord(mine, MM_WAITING_WRITERS)]).toEqual([1, 1])
      expect(errorOf(() => third.load(3)).code).toBe('EAGAIN')
      expect(errorOf(() => third.map.remap({ at: 1, page: 1 })).code).toBe('EAGAIN')
      expect(mmWord(mine, MM_WAITING_WRITERS)).toBe(1)
      letGo()
    })
    mine.map.remap({ at: 2, page: 30 })
    expect([mmWord(mine, MM_MMAP_LOCK), mmWord(mine, MM_WAITING_WRITERS)]).toEqual([0, 0])
    expect(mine.m.sync.threads.w[mine.m.sync.row + T_MMAP_MODE]).toBe(0)
    expect([waits(mine), waits(third), mine.load(2), third.load(3)]).toEqual([1, 0, 31, 4])
  })

  test('for reading is had beside other readers, and waits for a writer', () => {
    const rig = attached()
    const { mine, theirs } = rig
    const letGo = holdMm(theirs, 'read')
    expect(mine.load(3)).toBe(4)
    expect(waits(mine)).toBe(0)
    letGo()
    const done = holdMm(theirs, 'write')
    rig.asleep(() => {
      expect(mmWord(mine, MM_MMAP_LOCK)).toBe(-1)
      done()
    })
    expect(mine.load(4)).toBe(5)
    expect([waits(mine), mmWord(mine, MM_MMAP_LOCK)]).toEqual([1, 0])
  })

  test('of an address space that ends meanwhile is not had: ESRCH', () => {
    const rig = attached()
    const { mine, theirs } = rig
    const letGo = holdMm(theirs, 'write')
    rig.asleep(() => {
      letGo()
      theirs.space.close()
      // Another one has its row.
      theirs.memory.space()
    })
    expect(errorOf(() => mine.map.remap({ at: 1, page: 2 })).code).toBe('ESRCH')
    expect(mine.m.lockMm(mine.map.handle.space.id, mine.map.handle.space.generation)).toBe(false)
    expect(mine.m.lockMm(mine.map.handle.space.id, 0)).toBe(true)
    mine.m.unlock(mine.map.handle.space.id)
    expect(errorOf(() => mine.load(5)).code).toBe('ESRCH')
  })

  test('of another address space is in nobody’s way', () => {
    const rig = attached()
    const { mine, theirs } = rig
    const letGo = holdMm(theirs, 'write')
    const own = mine.memory.space().map(mine.file)
    expect(own.getUint32(7 * PAGE)).toBe(8)
    letGo()
    expect(waits(mine)).toBe(0)
  })
})

describe('a page that another thread reads', () => {
  /** `theirs` ends in the read of the page, without anything held but that; `third` may say so. */
  function readingDies(rig: AttachedRig, page: number): () => void {
    const third = rig.attach(8)
    rig.diesIn('read', () => rig.theirs.file.read(new Uint8Array(PAGE), page * PAGE))
    return () => {
      third.memory.ended(THEIR_NUMBER)
      third.memory.detach()
    }
  }

  test('is waited for by a fault, which holds no lock meanwhile', () => {
    const rig = attached()
    const over = readingDies(rig, 4)
    const { mine } = rig
    rig.asleep(() => {
      expect([mmWord(mine, MM_MMAP_LOCK), mine.m.sync.lockOwner]).toEqual([0, -1])
      over()
    })
    expect(mine.load(4)).toBe(5)
    expect(waits(mine)).toBe(1)
    expect(rig.calls.map(([call, at]) => [call, at / PAGE])).toEqual([
      ['read', 4],
      ['read', 4]
    ])
  })

  test('is waited for by a read, a small write, a large one and mlock', () => {
    const uses: ((side: Side) => void)[] = [
      ({ file }) => {
        const bytes = new Uint8Array(4)
        expect(file.read(bytes, 4 * PAGE)).toBe(4)
        expect(bytes).toEqual(Uint8Array.of(5, 0, 0, 0))
      },
      ({ file, map }) => {
        expect(file.write(Uint8Array.of(9), 4 * PAGE + 1)).toBe(1)
        expect(map.getUint32(4 * PAGE)).toBe(0x905)
      },
      ({ file, map }) => {
        expect(file.write(new Uint8Array(PAGE).fill(1), 4 * PAGE)).toBe(PAGE)
        expect(map.getUint32(4 * PAGE)).toBe(0x01010101)
      },
      ({ map }) => {
        map.lock({ offset: 4 * PAGE, length: PAGE })
        expect(map.getUint32(4 * PAGE)).toBe(5)
        map.unlock()
      },
      ({ map }) => {
        const bytes = new Uint8Array(2 * PAGE)
        map.read(bytes, 3 * PAGE)
        expect([bytes[0], bytes[PAGE]]).toEqual([4, 5])
      },
      ({ map }) => {
        map.fill(7, 4 * PAGE, 4)
        expect(map.getUint32(4 * PAGE)).toBe(0x07070707)
      }
    ]
    for (const use of uses) {
      const rig = attached()
      const over = readingDies(rig, 4)
      rig.asleep(over)
      use(rig.mine)
      expect(waits(rig.mine)).toBe(1)
    }
  })

  test('keeps a cut of it waiting, and no other one', () => {
    for (const [cut, wait] of [
      [({ file }: Side) => file.truncate(4 * PAGE), 1],
      [({ file }: Side) => file.truncate(5 * PAGE), 0],
      [({ file }: Side) => file.punch(4 * PAGE, PAGE), 1],
      [({ file }: Side) => file.punch(5 * PAGE, 2 * PAGE), 0],
      [({ file }: Side) => file.punch(2 * PAGE, 2 * PAGE), 0],
      [({ file }: Side) => file.punch(4 * PAGE + 8, 8), 1]
    ] as const) {
      const rig = attached()
      const over = readingDies(rig, 4)
      // Woken once for nothing.
      if (wait > 0) rig.asleepOn(() => {})
      if (wait > 0) rig.asleep(over)
      cut(rig.mine)
      expect(waits(rig.mine)).toBe(2 * wait)
      if (wait === 0) over()
      expect(rig.mine.m.inodes.cutting.reduce((a, b) => a + b)).toBe(0)
    }
  })

  test('that was about to be cut away, and is: a load gives SIGBUS, a read nothing', () => {
    const rig = attached()
    const over = readingDies(rig, 9)
    const { mine } = rig
    const third = rig.attach(9)
    rig.asleep(() => {
      over()
      third.file.truncate(5 * PAGE)
    })
    expect(mine.file.read(new Uint8Array(4), 9 * PAGE)).toBe(0)
    expect(errorOf(() => mine.load(9)).code).toBe('SIGBUS')
  })

  test('is not to be had by a thread that may not sleep: EAGAIN, and no lock is kept', () => {
    const rig = attached({ maySleep: false })
    const { mine, theirs } = rig
    rig.during('read', () => {
      expect(errorOf(() => theirs.load(4)).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.read(new Uint8Array(4), 4 * PAGE)).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.truncate(0)).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.punch(4 * PAGE, PAGE)).code).toBe('EAGAIN')
      expect(theirs.load(5)).toBe(6)
      expect(theirs.m.inodes.cutting.reduce((a, b) => a + b)).toBe(0)
    })
    expect(mine.file.read(new Uint8Array(4), 4 * PAGE)).toBe(4)
    expect(theirs.load(4)).toBe(5)
  })
})

describe('the inode lock', () => {
  test('keeps faults from sending for pages while some are cut away', () => {
    const rig = attached({ maySleep: false })
    const { mine, theirs } = rig
    mine.load(3)
    const other = rig.attach(8)
    rig.diesIn('read', () => other.file.read(new Uint8Array(4), 9 * PAGE))
    rig.asleep(() => {
      // `mine` has the lock, and waits for page 9.
      expect(errorOf(() => theirs.load(20)).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.sync()).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.truncate(PAGE)).code).toBe('EAGAIN')
      expect(errorOf(() => theirs.file.punch(0, PAGE)).code).toBe('EAGAIN')
      expect(theirs.load(3)).toBe(4)
      theirs.map.advise('willneed', { offset: 30 * PAGE, length: 4 * PAGE })
      expect(rig.calls).toHaveLength(2)
      theirs.memory.ended(8)
    })
    mine.file.truncate(5 * PAGE)
    expect(errorOf(() => theirs.load(20)).code).toBe('SIGBUS')
  })

  test('lets two syncs go one after the other, and the second has nothing to do', () => {
    const rig = attached({ maySleep: false })
    const { mine, theirs } = rig
    mine.store(4, 400)
    rig.during('write', () => expect(errorOf(() => theirs.file.sync()).code).toBe('EAGAIN'))
    mine.file.sync()
    theirs.file.sync()
    expect(rig.calls.map(([call]) => call)).toEqual(['read', 'write', 'flush', 'flush'])
  })
})

describe('while a store reads', () => {
  test('everything else goes on: other pages, reclaim, mappings of other spaces, the checker', () => {
    const rig = attached({ frames: 32 })
    const { mine, theirs } = rig
    rig.during('read', () => {
      for (let page = 10; page < 50; page++) expect(theirs.load(page)).toBe(page + 1)
      theirs.memory.shrink()
      const own = theirs.memory.space().map(theirs.file, { writable: true })
      own.remap({ at: 0, page: 40 })
      own.setUint32(0, 77)
      own.sync()
      expect(theirs.memory.check()).toEqual([])
    })
    expect(mine.load(4)).toBe(5)
    expect(mine.load(40)).toBe(77)
    expect(rig.calls.filter(([call, at]) => call === 'read' && at === 4 * PAGE)).toHaveLength(1)
  })

  test('the file may be closed: the call that reads is whole, and is the last close', () => {
    const rig = attached()
    const { mine, theirs } = rig
    mine.store(8, 800)
    mine.map.unmap()
    rig.during('read', () => {
      theirs.file.close()
      expect(rig.storedWord(8)).toBe(9)
    })
    const bytes = new Uint8Array(4)
    expect(mine.file.read(bytes, 4 * PAGE)).toBe(4)
    expect(bytes[0]).toBe(5)
    expect(rig.storedWord(8)).toBe(800)
    expect(errorOf(() => mine.file.read(bytes, 4 * PAGE)).code).toBe('EBADF')
  })

  test('readahead stops where another thread cuts the file', () => {
    const rig = attached({ readahead: 4 * PAGE })
    const { mine, theirs } = rig
    rig.during('read', () => theirs.file.truncate(6 * PAGE))
    mine.map.advise('willneed', { offset: 0, length: 16 * PAGE })
    expect(rig.calls).toEqual([
      ['read', 0, 4 * PAGE],
      ['truncate', 6 * PAGE, 0],
      ['read', 4 * PAGE, 2 * PAGE]
    ])
  })

  test('the end of the memory waits for a call on a file', () => {
    const rig = attached()
    const { mine, theirs } = rig
    rig.diesIn('read', () => theirs.file.read(new Uint8Array(4), 4 * PAGE))
    const third = rig.attach(8)
    rig.asleep(() => {
      expect(mine.m.sync.lockOwner).toBe(-1)
      third.memory.ended(THEIR_NUMBER)
    })
    mine.memory.close()
    expect(waits(mine)).toBe(1)
    expect(errorOf(() => third.load(1)).code).toBe('ESRCH')
    expect(errorOf(() => third.memory.space()).code).toBe('ENODEV')
  })
})

describe('while a store writes', () => {
  test('a page that is stored to is dirty again, and one that reclaim writes is not written twice', () => {
    const rig = attached()
    const { mine, theirs } = rig
    for (const page of [4, 9, 12]) mine.store(page, page * 100)
    rig.during('write', () => {
      theirs.store(4, 444)
      expect(theirs.file.dirtyPages).toBe(3)
      // Page 4 is being written: it stays. The others go, and are written for it.
      theirs.memory.shrink()
    })
    mine.file.sync()
    expect([4, 9, 12].map(page => rig.storedWord(page))).toEqual([444, 900, 1200])
    expect(mine.file.dirtyPages).toBe(1)
    const written = rig.calls.filter(([call]) => call === 'write').map(([, at]) => at / PAGE)
    expect(written.sort((a, b) => a - b)).toEqual([4, 9, 12])
    mine.store(4, 445)
    mine.file.sync()
    expect(rig.storedWord(4)).toBe(445)
    expect(mine.file.dirtyPages).toBe(0)
  })

  test('one that fails leaves its pages dirty, and no page counts as being written', () => {
    const rig = attached({ readahead: 8 * PAGE })
    const { mine } = rig
    for (const page of [4, 5, 6]) mine.store(page, page * 100)
    rig.fail('write', 28)
    expect(errorOf(() => mine.file.sync()).code).toBe('ENOSPC')
    expect(mine.file.dirtyPages).toBe(3)
    mine.memory.shrink()
    expect([4, 5, 6].map(page => rig.storedWord(page))).toEqual([400, 500, 600])
  })
})

describe('a memory that breaks while a thread waits', () => {
  const dead = { code: 'EOWNERDEAD', errno: -EOWNERDEAD }

  test('for the machine lock', () => {
    const rig = attached()
    expect(rig.theirs.m.enter()).toBe(true)
    // The lock's word stays what it is.
    rig.asleepOn(() => rig.theirs.m.sync.declareBroken(EOWNERDEAD))
    expect(errorOf(() => rig.mine.load(0))).toMatchObject(dead)
  })

  test.each([
    ['the mmap lock', (rig: AttachedRig) => holdMm(rig.theirs, 'write'), ({ map }: Side) => map.getUint32(0)],
    ['it to change mappings', (rig: AttachedRig) => holdMm(rig.theirs, 'read'), ({ map }: Side) => map.unmap()],
    [
      'an inode',
      (rig: AttachedRig) => {
        rig.theirs.store(1, 1)
        rig.diesIn('flush', () => rig.theirs.file.sync())
      },
      ({ file }: Side) => file.truncate(0)
    ],
    [
      'a page',
      (rig: AttachedRig) => rig.diesIn('read', () => rig.theirs.file.read(new Uint8Array(4), 0)),
      ({ file }: Side) => file.read(new Uint8Array(4), 0)
    ],
    [
      'a page of a mapping',
      (rig: AttachedRig) => rig.diesIn('read', () => rig.theirs.file.read(new Uint8Array(4), 0)),
      ({ map }: Side) => map.getUint32(0)
    ],
    [
      'pages to be cut away',
      (rig: AttachedRig) => rig.diesIn('read', () => rig.theirs.file.read(new Uint8Array(4), 0)),
      ({ file }: Side) => file.punch(0, PAGE)
    ],
    [
      'a call on a file',
      (rig: AttachedRig) => rig.diesIn('read', () => rig.theirs.file.read(new Uint8Array(4), 0)),
      ({ memory }: Side) => memory.close()
    ]
  ] as [string, (rig: AttachedRig) => unknown, (side: Side) => unknown][])('for %s', (_, hold, wait) => {
    const rig = attached()
    hold(rig)
    rig.asleep(() => rig.theirs.m.sync.declareBroken(EOWNERDEAD))
    expect(errorOf(() => wait(rig.mine))).toMatchObject(dead)
  })
})

describe('populating', () => {
  test('brings in nothing where the mappings cannot be had', () => {
    const rig = attached({ maySleep: false })
    const { mine, theirs } = rig
    const letGo = holdMm(mine, 'write')
    expect(theirs.map.populateSync({ offset: 0, length: 4 * PAGE })).toBe(0)
    letGo()
    expect(rig.calls).toEqual([])
    expect(theirs.map.populateSync({ offset: 0, length: 4 * PAGE })).toBe(4)
  })

  test('is no use of a page, unless somebody waited for it', async () => {
    const { mine } = attached()
    const isUsed = (page: number): boolean => {
      const { m, map } = mine
      return (m.tables.get(map.handle.space.id, map.address / PAGE + page) & PTE_YOUNG) !== 0
    }
    expect(mine.map.populateSync({ offset: 0, length: 2 * PAGE })).toBe(2)
    expect(await mine.map.ready({ offset: 4 * PAGE, length: 2 * PAGE })).toBe(2)
    expect([0, 1, 4, 5].map(isUsed)).toEqual([false, false, true, true])
  })
})
