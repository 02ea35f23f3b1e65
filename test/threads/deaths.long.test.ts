/**
 * Threads that end: by terminate(), by process.exit(), by an exception that nobody catches; idle, or in the middle of
 * something. What they held goes back, and the others go on; or the memory is broken, and says so to everybody. Nobody
 * hangs.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { EOWNERDEAD } from '../../src/abi/errno.ts'
import { ASKED, ROUNDS } from './loops.mjs'
import { type Call, errorOf, PAGE, type ThreadRig, type ThreadWorker, until, useThreads } from './support.ts'

const threads = useThreads()

const ENDS: readonly [string, (worker: ThreadWorker) => Promise<unknown>][] = [
  ['terminate()', worker => worker.terminate()],
  [
    'process.exit()',
    worker => {
      void worker.do('exit', 3)
      return worker.ended
    }
  ],
  [
    'an uncaught exception',
    worker => {
      void worker.do('throwUncaught', 'the end')
      return worker.ended
    }
  ]
]

/** The other thread can do everything, and the machine is whole. */
async function expectUnharmed(rig: ThreadRig, other: ThreadWorker): Promise<void> {
  expect(rig.memory.machine.sync.broken).toBe(0)
  expect(rig.memory.check()).toEqual([])
  await other.store(6, 600)
  await other.call(other.map, 'remap', { at: 7, page: 40 })
  expect(await other.load(7)).toBe(41)
  await other.call(other.file, 'sync')
  expect(rig.storedWord(6)).toBe(600)
  await other.call(other.file, 'truncate', 50 * PAGE)
  expect(await errorOf(other.load(55))).toMatchObject({ code: 'SIGBUS' })
  expect(rig.memory.check()).toEqual([])
}

/** Every call of every thread says EOWNERDEAD, in words that tell what happened. */
async function expectBroken(rig: ThreadRig, other: ThreadWorker): Promise<void> {
  const dead = { code: 'EOWNERDEAD', errno: -EOWNERDEAD, message: expect.stringContaining('a thread ended') }
  expect(await errorOf(other.load(33))).toMatchObject(dead)
  expect(await errorOf(other.store(34, 1))).toMatchObject(dead)
  expect(await errorOf(other.call(other.map, 'remap', { at: 7, page: 40 }))).toMatchObject(dead)
  expect(await errorOf(other.call(other.map, 'write', new Uint8Array(8), 35 * PAGE))).toMatchObject(dead)
  expect(await errorOf(other.call(other.file, 'sync'))).toMatchObject(dead)
  expect(await errorOf(other.call(other.memory, 'space'))).toMatchObject(dead)
  expect(await errorOf(other.call(other.map, 'borrow', 36))).toMatchObject(dead)
  expect(await errorOf(rig.start())).toMatchObject(dead)
  expect(() => rig.map.getUint32(37 * PAGE)).toThrow('EOWNERDEAD')
  expect(() => rig.memory.close()).toThrow('EOWNERDEAD')
}

describe.each(ENDS)('%s', (_, end) => {
  test('of an idle thread', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 400)
    await end(a)
    expect(await b.load(4)).toBe(400)
    await expectUnharmed(rig, b)
    // Its seat is free.
    for (let i = 0; i < 4; i++) await (await rig.start()).terminate()
  })

  test('of a thread with borrowed pages: they can be evicted again, and what was stored to them is written', async () => {
    const rig = await threads({ workers: 2, frames: 24 })
    const [a, b] = rig.workers
    for (const page of [3, 4, 5]) await a.call(a.map, 'borrow', page)
    const page = await a.call<number>(a.map, 'borrow', 9, 'write')
    await b.call(b.map, 'sync')
    await a.do('poke', page, 8, 77)
    await end(a)
    await b.call(b.map, 'sync')
    expect(rig.storedWord(9, 8)).toBe(77)
    for (let i = 20; i < 60; i++) await b.load(i)
    const resident = await b.call<Uint8Array>(b.map, 'residency')
    expect([3, 4, 5, 9].map(i => resident[i])).toEqual([0, 0, 0, 0])
    await expectUnharmed(rig, b)
  })
})

describe('terminate() of a thread', () => {
  test('in the read of a fault: whoever waits reads the page himself', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.load(4)
    await rig.held('read')
    const [load] = await rig.waiting(b, () => b.load(4))
    await a.terminate()
    await until(() => rig.calls('read') === 2, 'the second read')
    rig.release('read')
    expect(await load).toBe(5)
    await expectUnharmed(rig, b)
  })

  test('in the read of a fault, with a remap and a punch waiting for it: both go on', async () => {
    const rig = await threads({ workers: 3 })
    const [a, b, c] = rig.workers
    rig.hold('read')
    void a.load(9)
    await rig.held('read')
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    const [punch] = await rig.waiting(c, () => c.call(c.file, 'punch', 9 * PAGE, PAGE))
    await a.terminate()
    rig.release('read')
    await Promise.all([remap, punch])
    expect(await b.load(9)).toBe(0)
    expect(await b.load(2)).toBe(31)
    await expectUnharmed(rig, b)
  })

  test('in a read ahead: all its pages are given up', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.call(a.map, 'advise', 'willneed')
    await rig.held('read')
    await a.terminate()
    rig.release('read')
    expect(await b.load(3)).toBe(4)
    await expectUnharmed(rig, b)
  })

  test('in the write of a sync: the page is dirty, the next sync writes it', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 400)
    await a.store(5, 500)
    rig.hold('write')
    void a.call(a.map, 'sync')
    await rig.held('write')
    const [sync] = await rig.waiting(b, () => b.call(b.map, 'sync'))
    await a.terminate()
    rig.release('write')
    await sync
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 500])
    expect(rig.file.dirtyPages).toBe(0)
    await expectUnharmed(rig, b)
  })

  test.each(['msync', 'fsync'])('in the flush of %s: the inode lock and the file are let go of', async kind => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 400)
    rig.hold('flush')
    void a.call(kind === 'msync' ? a.map : a.file, 'sync')
    await rig.held('flush')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 60 * PAGE))
    await a.terminate()
    rig.release('flush')
    await cut
    await expectUnharmed(rig, b)
    // The last close writes: nobody else holds the file.
    await b.store(8, 800)
    await b.call(b.map, 'unmap')
    await b.call(b.file, 'close')
    expect(rig.storedWord(8)).toBe(800)
  })

  test('in a read of the file, holding it: the last close comes all the same', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.do('bytes', a.file, 'read', 4 * PAGE, 0)
    await rig.held('read')
    await a.terminate()
    rig.release('read')
    await b.store(8, 800)
    await b.call(b.map, 'unmap')
    await b.call(b.file, 'close')
    expect(rig.storedWord(8)).toBe(800)
    expect(rig.memory.check()).toEqual([])
  })

  test('that brings the pages of a store which answers later: they cannot be had, also when its seat is taken', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    const handle = await a.do('openSilent', 8)
    const file = await b.do<number>('adopt', handle)
    const map = await b.call<number>(b.space, 'map', { thing: file })
    const [asked] = await rig.waiting(b, () => b.call(map, 'getUint32', 0))
    // While it takes the request it has the machine lock. Its store is asked without it.
    await rig.word(ASKED, n => n > 0)
    await a.terminate()
    expect(await errorOf(asked)).toMatchObject({ code: 'SIGBUS', errno: -EOWNERDEAD })
    const next = await rig.start()
    expect(next.row).toBe(a.row)
    expect(await errorOf(b.call(map, 'getUint32', PAGE))).toMatchObject({ code: 'SIGBUS', errno: -EOWNERDEAD })
    await expectUnharmed(rig, next)
  })

  test('that two threads watch: what it held is given back once', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    // Twice by the same thread is as good: the second one finds the row free, or another thread in it.
    rig.memory.watch(a.worker)
    await a.call(a.map, 'borrow', 3)
    await a.terminate()
    await rig.start()
    await expectUnharmed(rig, b)
  })

  test('that waits for the mmap lock, a page, an inode lock: it stands in nobody’s way', async () => {
    const rig = await threads({ workers: 4 })
    const [a, b, c, d] = rig.workers
    rig.hold('read')
    const load = d.load(9)
    await rig.held('read')
    await rig.waiting(a, () => a.load(9))
    await a.terminate()
    await rig.waiting(c, () => c.call(c.file, 'punch', 9 * PAGE, PAGE))
    await c.terminate()
    await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    await b.terminate()
    rig.release('read')
    expect(await load).toBe(10)
    // A writer that waits keeps new readers away, but not a dead one.
    expect(await d.load(10)).toBe(11)
    await expectUnharmed(rig, d)
  })

  test('with the mmap lock for writing, in a read ahead that madvise asked for: others map and unmap', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.call(a.map, 'advise', 'willneed')
    await rig.held('read')
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    await a.terminate()
    rig.release('read')
    await remap
    await expectUnharmed(rig, b)
  })

  test('while it stores without pause: no store of it is waited for that never comes', async () => {
    // Before it stores, a thread says to which frame, and whoever changes mappings waits for that store. Stores that
    // hit are made without a call that terminate() could come between.
    const rig = await threads({ workers: 0, patienceMs: 2000 })
    for (let i = 0; i < 25; i++) {
      const a = await rig.start()
      rig.setWord(ROUNDS, 0)
      void a.do('loop', 'count', a.map, 0, 0)
      await rig.word(ROUNDS, rounds => rounds > 64)
      const dying = a.terminate()
      // While the thread dies, and before that is known here.
      for (const end = performance.now() + 10; performance.now() < end; ) rig.map.remap({ at: 20, page: 30 })
      await dying
      expect(rig.memory.machine.sync.broken).toBe(0)
    }
  })
})

describe('a thread that ends in the middle of a change', () => {
  /** What a worker does so that this call of the store is made with the machine lock held, in the middle of a verb. */
  const changes: readonly [string, Call, (worker: ThreadWorker) => Promise<unknown>][] = [
    ['an open', 'size', w => w.do('openOther')]
  ]

  test.each(changes)('%s: the memory is broken, and everybody is told', async (_, call, change) => {
    const rig = await threads({ workers: 3 })
    const [a, b, c] = rig.workers
    await b.load(3)
    rig.hold(call)
    void change(a).catch(() => {})
    await rig.held(call)
    // One that waits for the machine lock.
    const waiting = c.load(40)
    await a.terminate()
    rig.release(call)
    expect(await errorOf(waiting)).toMatchObject({ code: 'EOWNERDEAD' })
    await expectBroken(rig, b)
  })

  test('and is not watched: the others lose patience, and the memory is broken', async () => {
    const rig = await threads({ workers: 2, isWatched: false, isAskable: false, patienceMs: 40 })
    const [a, b] = rig.workers
    rig.hold('size')
    void a.do('openOther')
    await rig.held('size')
    await a.terminate()
    rig.release('size')
    await expectBroken(rig, b)
  })
})

// Where the operating system tells whether a thread exists.
describe.runIf(process.platform === 'linux')('a thread that ends while others wait, and that nobody watches', () => {
  // Those that wait do not lose patience within the test.
  const unwatched = { isWatched: false, patienceMs: 60_000 }

  test.each([true, false])(
    'with the machine lock, and the main thread waits (watched: %s): it is told',
    async isWatched => {
      const rig = await threads({ workers: 2, ...unwatched, isWatched })
      const [a, b] = rig.workers
      rig.hold('size')
      void a.do('openOther')
      await rig.held('size')
      // No turn of the event loop, which would bring the news, until the remap is over.
      void a.worker.terminate()
      expect(() => rig.map.remap({ at: 7, page: 40 })).toThrow('EOWNERDEAD')
      await a.ended
      rig.release('size')
      await expectBroken(rig, b)
    }
  )

  test('with the machine lock: a worker that waits is told', async () => {
    const rig = await threads({ workers: 2, ...unwatched })
    const [a, b] = rig.workers
    rig.hold('size')
    void a.do('openOther')
    await rig.held('size')
    const load = b.load(3)
    await a.terminate()
    expect(await errorOf(load)).toMatchObject({ code: 'EOWNERDEAD' })
    rig.release('size')
    await expectBroken(rig, b)
  })

  test('in the read of a fault, and the main thread wants the mmap lock: it remaps, and all go on', async () => {
    const rig = await threads({ workers: 2, ...unwatched })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.load(4)
    await rig.held('read')
    void a.worker.terminate()
    rig.map.remap({ at: 2, page: 30 })
    rig.release('read')
    expect(rig.map.getUint32(2 * PAGE)).toBe(31)
    expect(rig.map.getUint32(4 * PAGE)).toBe(5)
    await a.ended
    await expectUnharmed(rig, b)
  })

  test('in the read of a fault: whoever waits for the page reads it himself', async () => {
    const rig = await threads({ workers: 2, ...unwatched })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.load(4)
    await rig.held('read')
    const [load] = await rig.waiting(b, () => b.load(4))
    await a.terminate()
    await until(() => rig.calls('read') === 2, 'the second read')
    rig.release('read')
    expect(await load).toBe(5)
    await expectUnharmed(rig, b)
    // Its seat is free.
    for (let i = 0; i < 2; i++) await rig.start()
  })

  test('in the flush of a sync: whoever wants the inode lock gets it', async () => {
    const rig = await threads({ workers: 2, ...unwatched })
    const [a, b] = rig.workers
    await a.store(4, 400)
    rig.hold('flush')
    void a.call(a.file, 'sync')
    await rig.held('flush')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 60 * PAGE))
    await a.terminate()
    rig.release('flush')
    await cut
    await expectUnharmed(rig, b)
  })

  test('that was to bring the page of a store which answers later: it cannot be had', async () => {
    const rig = await threads({ workers: 2, ...unwatched })
    const [a, b] = rig.workers
    const handle = await a.do('openSilent', 8)
    const file = await b.do<number>('adopt', handle)
    const map = await b.call<number>(b.space, 'map', { thing: file })
    const [asked] = await rig.waiting(b, () => b.call(map, 'getUint32', 0))
    // While it takes the request it has the machine lock. Its store is asked without it.
    await rig.word(ASKED, n => n > 0)
    await a.terminate()
    expect(await errorOf(asked)).toMatchObject({ code: 'SIGBUS', errno: -EOWNERDEAD })
    await expectUnharmed(rig, b)
  })
})

describe('a thread that nobody watches, and that the system cannot be asked for', () => {
  test('and that ends with the mmap lock: the others lose patience', async () => {
    const rig = await threads({ workers: 2, isWatched: false, isAskable: false, patienceMs: 30 })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.load(4)
    await rig.held('read')
    await a.terminate()
    // It was in a call of a store: ten times the patience.
    expect(await errorOf(b.call(b.map, 'remap', { at: 2, page: 30 }))).toMatchObject({ code: 'EOWNERDEAD' })
    rig.release('read')
    await expectBroken(rig, b)
  })

  test('and that ends in the read of a page: whoever waits for the page loses patience, too', async () => {
    const rig = await threads({ workers: 2, isWatched: false, isAskable: false, patienceMs: 30 })
    const [a, b] = rig.workers
    rig.hold('read')
    void a.load(4)
    await rig.held('read')
    await a.terminate()
    expect(await errorOf(b.load(4))).toMatchObject({ code: 'EOWNERDEAD' })
    rig.release('read')
    await expectBroken(rig, b)
  })

  test('and whose store takes long while it holds the machine lock is not taken for dead', async () => {
    const patienceMs = 100
    const rig = await threads({ workers: 2, isWatched: false, isAskable: false, patienceMs })
    const [a, b] = rig.workers
    rig.hold('size')
    const open = a.do('openOther')
    await rig.held('size')
    const load = b.load(3)
    // Time itself is what this is about.
    await sleep(4 * patienceMs)
    rig.release('size')
    await open
    expect(await load).toBe(4)
  })

  test('and that only takes long is waited for, as long as it shows signs of life', async () => {
    const rig = await threads({ workers: 2, isWatched: false, isAskable: false, patienceMs: 200 })
    const [a, b] = rig.workers
    rig.hold('read', 4)
    const load = a.load(4)
    await rig.held('read')
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    const waits = rig.waits(b)
    // Several slices of waiting, and more than the patience with a thread that is in no store.
    await until(() => rig.waits(b) > waits + 5, 'the wait to go on')
    rig.release('read')
    expect(await load).toBe(5)
    await remap
    expect(rig.memory.machine.sync.broken).toBe(0)
  })
})
