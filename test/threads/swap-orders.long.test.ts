/**
 * Orders that matter around the swap area: a read or write of one page's slot is held while other threads do something
 * else, which must not wait for it, or something with that very page, which must.
 */
import { describe, expect, test } from 'vitest'
import type { Mapping } from '../../src/index.ts'
import { errorOf, PAGE, type ThreadOptions, type ThreadRig, type ThreadWorker, until, useThreads } from './support.ts'

const threads = useThreads()

const PAGES = 16

interface SwapRig {
  readonly rig: ThreadRig
  /** Memory of `PAGES` pages, all in swap; page i begins with the word 100 + i. */
  readonly map: Mapping
  /** The same in each worker. */
  readonly maps: readonly number[]
}

type Kind = 'private' | 'shared'

async function swappedOut(kind: Kind, options: ThreadOptions = {}): Promise<SwapRig> {
  const rig = await threads({ workers: 2, swapSlots: 64, ...options })
  const file = kind === 'shared' ? rig.memory.shared(PAGES * PAGE) : null
  const map = rig.space.map(file, { length: PAGES * PAGE, writable: true })
  for (let page = 0; page < PAGES; page++) map.setUint32(page * PAGE, 100 + page)
  rig.memory.shrink()
  expect(rig.memory.stats().swapUsed).toBe(PAGES)
  const maps = []
  for (const worker of rig.workers) maps.push(await worker.do<number>('adopt', map.handle))
  return { rig, map, maps }
}

function load(worker: ThreadWorker, map: number, page: number): Promise<number> {
  return worker.call<number>(map, 'getUint32', page * PAGE)
}

function store(worker: ThreadWorker, map: number, page: number, value: number): Promise<void> {
  return worker.call<void>(map, 'setUint32', page * PAGE, value)
}

/** All pages are as they were, or as `changed` says. */
function expectPages(map: Mapping, changed: Readonly<Record<number, number>> = {}): void {
  for (let page = 0; page < PAGES; page++) {
    expect(map.getUint32(page * PAGE), `page ${page}`).toBe(changed[page] ?? 100 + page)
  }
}

describe.each<Kind>(['private', 'shared'])('while the slot of a page of %s memory is read', kind => {
  test('another thread faults other pages: of files, fresh ones, and from swap', async () => {
    const { rig, map, maps } = await swappedOut(kind)
    const [a, b] = rig.workers
    // Pages went in order, so page i has slot i + 1, which is where page i of a file would be.
    rig.hold('read', 3)
    const first = load(a, maps[0], 3)
    await rig.held('read')
    expect(await b.load(5)).toBe(6)
    expect(await load(b, maps[1], 7)).toBe(107)
    await store(b, maps[1], 7, 700)
    rig.release('read')
    expect(await first).toBe(103)
    expectPages(map, { 7: 700 })
  })

  test('another thread wants the same page: it is read once, and both have it', async () => {
    const { rig, maps } = await swappedOut(kind)
    const [a, b] = rig.workers
    const before = rig.calls('read')
    rig.hold('read')
    const first = load(a, maps[0], 3)
    await rig.held('read')
    const [second] = await rig.waiting(b, () => store(b, maps[1], 3, 300))
    expect(rig.memory.check()).toEqual([])
    rig.release('read')
    expect([103, 300]).toContain(await first)
    await second
    expect(await load(a, maps[0], 3)).toBe(300)
    expect(rig.calls('read') - before).toBe(1)
  })

  test('and it fails: SIGBUS with its errno for both, and it can be read later', async () => {
    const { rig, map, maps } = await swappedOut(kind)
    const [a, b] = rig.workers
    rig.hold('read')
    rig.fail('read', 5)
    const first = load(a, maps[0], 3)
    await rig.held('read')
    const [second] = await rig.waiting(b, () => load(b, maps[1], 3))
    rig.release('read')
    expect(await errorOf(first)).toMatchObject({ code: 'SIGBUS', errno: -5 })
    expect(await errorOf(second)).toMatchObject({ code: 'SIGBUS', errno: -5 })
    rig.fail('read', 0)
    expectPages(map)
  })

  test('its thread ends: whoever waits reads it himself', async () => {
    const { rig, map, maps } = await swappedOut(kind)
    const [a, b] = rig.workers
    rig.hold('read')
    void load(a, maps[0], 3)
    await rig.held('read')
    const before = rig.calls('read')
    const [second] = await rig.waiting(b, () => load(b, maps[1], 3))
    await a.terminate()
    await until(() => rig.calls('read') > before, 'the second read')
    rig.release('read')
    expect(await second).toBe(103)
    expect(rig.memory.machine.sync.broken).toBe(0)
    expect(rig.memory.check()).toEqual([])
    expectPages(map)
  })

  test('munmap, fork and exit wait for the fault, and all comes back', async () => {
    const { rig, maps } = await swappedOut(kind, { workers: 3 })
    const [a, b, c] = rig.workers
    rig.hold('read')
    const first = load(a, maps[0], 3)
    await rig.held('read')
    const [fork] = await rig.waiting(b, () => b.call<number>(b.space, 'fork'))
    const [unmap] = await rig.waiting(c, () => c.call(maps[2], 'unmap'))
    expect(rig.memory.check()).toEqual([])
    rig.release('read')
    expect(await first).toBe(103)
    await unmap
    await b.call(await fork, 'close')
    const exit = a.call(a.space, 'close')
    await exit
    expect(rig.memory.check()).toEqual([])
    expect(rig.memory.stats().swapUsed).toBe(kind === 'shared' ? PAGES - 1 : 0)
  })
})

describe('while a slot is read', () => {
  test('the forked space that shares it ends: the page stays', async () => {
    const { rig, map, maps } = await swappedOut('private')
    const [a, b] = rig.workers
    const child = await b.call<number>(b.space, 'fork')
    rig.hold('read')
    const first = load(a, maps[0], 3)
    await rig.held('read')
    // Another address space: nothing of it waits for the read.
    await b.call(child, 'close')
    expect(rig.memory.check()).toEqual([])
    rig.release('read')
    expect(await first).toBe(103)
    expectPages(map)
    expect(rig.memory.stats().swapUsed).toBe(0)
  })

  test('the forked space that reads it keeps it, though the parent is unmapped', async () => {
    const { rig, map } = await swappedOut('private')
    const [a, b] = rig.workers
    const child = rig.space.fork()
    const there = await a.do<number>('adopt', { ...map.handle, space: child.handle })
    rig.hold('read')
    const first = load(a, there, 3)
    await rig.held('read')
    await b.call(await b.do<number>('adopt', map.handle), 'unmap')
    expect(rig.memory.check()).toEqual([])
    rig.release('read')
    expect(await first).toBe(103)
    child.close()
    expect(rig.memory.stats().swapUsed).toBe(0)
  })

  test('of a private copy of a file page, truncation takes the entry: the access is SIGBUS, and slot and frame come back', async () => {
    const rig = await threads({ workers: 2, swapSlots: 64 })
    const [a, b] = rig.workers
    const copy = rig.space.map(rig.file, { private: true, writable: true })
    copy.setUint32(9 * PAGE, 900)
    rig.memory.shrink()
    expect(rig.memory.stats().swapUsed).toBe(1)
    const there = await a.do<number>('adopt', copy.handle)
    rig.hold('read')
    const first = load(a, there, 9)
    await rig.held('read')
    // Truncation takes private copies too, and it needs no mmap lock.
    await b.call(b.file, 'truncate', 5 * PAGE)
    expect(rig.memory.check()).toEqual([])
    rig.release('read')
    expect(await errorOf(first)).toMatchObject({ code: 'SIGBUS' })
    expect(rig.memory.stats().swapUsed).toBe(0)
    expect(rig.memory.check()).toEqual([])
  })

  test('of a private copy whose entry truncation took, the thread ends: slot and frame come back', async () => {
    const rig = await threads({ workers: 2, swapSlots: 64 })
    const [a, b] = rig.workers
    const copy = rig.space.map(rig.file, { private: true, writable: true })
    copy.setUint32(9 * PAGE, 900)
    rig.memory.shrink()
    const there = await a.do<number>('adopt', copy.handle)
    rig.hold('read')
    void load(a, there, 9)
    await rig.held('read')
    await b.call(b.file, 'truncate', 5 * PAGE)
    await a.terminate()
    rig.release('read')
    await until(() => rig.memory.stats().swapUsed === 0, 'the slot to come back')
    expect(rig.memory.check()).toEqual([])
  })

  test('of shared memory, truncation below it waits, and the page is gone afterwards', async () => {
    const rig = await threads({ workers: 2, swapSlots: 64 })
    const [a, b] = rig.workers
    const file = rig.memory.shared(PAGES * PAGE)
    const map = rig.space.map(file, { writable: true })
    for (let page = 0; page < PAGES; page++) map.setUint32(page * PAGE, 100 + page)
    rig.memory.shrink()
    const there = await a.do<number>('adopt', map.handle)
    const fileThere = await b.do<number>('adopt', file.handle)
    rig.hold('read')
    const first = load(a, there, 9)
    await rig.held('read')
    const [cut] = await rig.waiting(b, () => b.call(fileThere, 'truncate', 5 * PAGE))
    rig.release('read')
    expect(await first).toBe(109)
    await cut
    expect(await errorOf(load(a, there, 9))).toMatchObject({ code: 'SIGBUS' })
    expect(rig.memory.stats().swapUsed).toBe(5)
    expect(rig.memory.check()).toEqual([])
  })

  test('WILLNEED passes over the page that is on its way', async () => {
    const { rig, map, maps } = await swappedOut('private', { workers: 3 })
    const [a, b] = rig.workers
    // In a forked space, since WILLNEED has the mmap lock for writing.
    const child = rig.space.fork()
    const there = await b.do<number>('adopt', { ...map.handle, space: child.handle })
    const before = rig.calls('read')
    rig.hold('read')
    const first = load(a, maps[0], 0)
    await rig.held('read')
    const advice = b.call(there, 'advise', 'willneed')
    await rig.held('read', 2)
    rig.release('read')
    await advice
    expect(await first).toBe(100)
    expect(rig.calls('read') - before).toBe(PAGES)
    child.close()
    expectPages(map)
  })
})

/** Memory of `PAGES` pages, none in swap yet, of which a worker is writing one to its slot. */
async function beingWritten(kind: Kind, options: ThreadOptions = {}): Promise<SwapRig & { shrink: Promise<number> }> {
  const rig = await threads({ workers: 3, swapSlots: 64, ...options })
  const file = kind === 'shared' ? rig.memory.shared(PAGES * PAGE) : null
  const map = rig.space.map(file, { length: PAGES * PAGE, writable: true })
  for (let page = 0; page < PAGES; page++) map.setUint32(page * PAGE, 100 + page)
  const maps = []
  for (const worker of rig.workers) maps.push(await worker.do<number>('adopt', map.handle))
  rig.hold('write')
  const [a] = rig.workers
  const shrink = a.call<number>(a.memory, 'shrink')
  await rig.held('write')
  return { rig, map, maps, shrink }
}

/** The window page whose frame is being written: the oldest one, which reclaim takes first. */
const OLDEST = 0

describe.each<Kind>(['private', 'shared'])('while a page of %s memory is written to its slot', kind => {
  test('other threads fault, store, remap and open', async () => {
    const { rig, map, maps, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    expect(rig.memory.check()).toEqual([])
    expect(await b.load(5)).toBe(6)
    await store(b, maps[1], 7, 700)
    await b.call(b.map, 'remap', { at: 9, page: 30 })
    expect(await b.load(9)).toBe(31)
    await b.call(b.memory, 'space')
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expectPages(map, { 7: 700 })
  })

  test('it can be read and stored to, and what is stored is not lost', async () => {
    const { rig, map, maps, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    expect(await load(b, maps[1], OLDEST)).toBe(100)
    expect(rig.memory.check()).toEqual([])
    await store(b, maps[1], OLDEST, 555)
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expectPages(map, { [OLDEST]: 555 })
    rig.memory.shrink()
    expectPages(map, { [OLDEST]: 555 })
  })

  test('it is read, and stays: the slot has its bytes or nobody', async () => {
    const { rig, map, maps, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    expect(await load(b, maps[1], OLDEST)).toBe(100)
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expectPages(map)
  })

  test('and that fails: it stays in memory, dirty', async () => {
    const { rig, map, shrink } = await beingWritten(kind)
    rig.fail('write', 28)
    rig.release('write')
    expect(await shrink).toBe(0)
    expect(rig.memory.check()).toEqual([])
    expect(rig.memory.stats().counters.pswpout).toBe(0)
    expectPages(map)
    rig.fail('write', 0)
    expect(rig.memory.shrink()).toBe(PAGES)
    expectPages(map)
  })

  test('its space is unmapped: frame and slot come back when the write is over', async () => {
    const { rig, maps, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    await b.call(maps[1], 'unmap')
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    if (kind === 'private') expect(rig.memory.stats().swapUsed).toBe(0)
  })

  test('fork shares it, and the child outlives the parent’s store', async () => {
    const { rig, map, maps, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    expect(await load(b, maps[1], OLDEST)).toBe(100)
    const child = rig.space.fork()
    const there = await b.do<number>('adopt', { ...map.handle, space: child.handle })
    await store(b, maps[1], OLDEST, 555)
    expect(await load(b, there, OLDEST)).toBe(kind === 'private' ? 100 : 555)
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expect(await load(b, there, OLDEST)).toBe(kind === 'private' ? 100 : 555)
    expectPages(map, { [OLDEST]: 555 })
    child.close()
  })

  test('the whole space ends', async () => {
    const { rig, shrink } = await beingWritten(kind)
    const [, b] = rig.workers
    await b.call(b.space, 'close')
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
  })

  test('its thread ends: the page is dirty, nothing is lost, and it can be written again', async () => {
    const { rig, map, maps } = await beingWritten(kind)
    const [a, b] = rig.workers
    await a.terminate()
    rig.release('write')
    expect(await load(b, maps[1], OLDEST)).toBe(100)
    expect(rig.memory.machine.sync.broken).toBe(0)
    expect(rig.memory.check()).toEqual([])
    expect(rig.memory.stats().swapUsed).toBeLessThanOrEqual(1)
    expect(rig.memory.shrink()).toBeGreaterThanOrEqual(PAGES)
    expectPages(map)
    rig.memory.shrink()
    expect(rig.memory.stats().swapUsed).toBe(PAGES)
  })

  test('its thread ends after nobody wants the page any more: frame and slot come back', async () => {
    const { rig, maps } = await beingWritten(kind)
    const [a, b] = rig.workers
    await b.call(maps[1], 'unmap')
    await a.terminate()
    rig.release('write')
    await until(() => rig.memory.machine.sync.threads.w[rig.memory.machine.sync.threads.at(a.row, 0)] === 0, 'the row')
    expect(rig.memory.check()).toEqual([])
  })
})

describe('while a page of shared memory is written to its slot', () => {
  test('truncation takes it: slot and frame come back, and the file can grow again', async () => {
    const rig = await threads({ workers: 2, swapSlots: 64 })
    const [a, b] = rig.workers
    const file = rig.memory.shared(PAGES * PAGE)
    const map = rig.space.map(file, { writable: true })
    for (let page = 0; page < PAGES; page++) map.setUint32(page * PAGE, 100 + page)
    const fileThere = await b.do<number>('adopt', file.handle)
    rig.hold('write')
    const shrink = a.call<number>(a.memory, 'shrink')
    await rig.held('write')
    await b.call(fileThere, 'truncate', 0)
    expect(rig.memory.check()).toEqual([])
    await b.call(fileThere, 'truncate', PAGES * PAGE)
    map.setUint32(OLDEST * PAGE, 7)
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expect(map.getUint32(OLDEST * PAGE)).toBe(7)
    for (let page = 1; page < PAGES; page++) expect(map.getUint32(page * PAGE)).toBe(0)
  })

  test('it is closed for good: slot and frame come back', async () => {
    const rig = await threads({ workers: 2, swapSlots: 64 })
    const [a] = rig.workers
    const file = rig.memory.shared(PAGES * PAGE)
    const map = rig.space.map(file, { writable: true })
    for (let page = 0; page < PAGES; page++) map.setUint32(page * PAGE, 100 + page)
    rig.hold('write')
    const shrink = a.call<number>(a.memory, 'shrink')
    await rig.held('write')
    map.unmap()
    file.close()
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expect(rig.memory.stats().swapUsed).toBe(0)
  })
})

describe('in a small memory', () => {
  /** Of 32 frames: private memory of 40 pages, all stored to. */
  async function crowded(): Promise<SwapRig> {
    const rig = await threads({ workers: 2, frames: 32, swapSlots: 128 })
    const map = rig.space.map(null, { length: 40 * PAGE, writable: true })
    for (let page = 0; page < 40; page++) map.setUint32(page * PAGE, 100 + page)
    const maps = []
    for (const worker of rig.workers) maps.push(await worker.do<number>('adopt', map.handle))
    return { rig, map, maps }
  }

  test('faults make room before they take a lock: while one writes a page, the other faults', async () => {
    const { rig, map, maps } = await crowded()
    const [a, b] = rig.workers
    rig.hold('write')
    const reads: Promise<number>[] = []
    for (let page = 0; page < 20; page++) reads.push(load(a, maps[0], page))
    await rig.held('write')
    // Neither the machine lock nor the space's mmap lock is held, not even for reading.
    expect(rig.memory.check()).toEqual([])
    await b.call(b.map, 'unmap')
    rig.release('write')
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 20 }, (_, page) => 100 + page))
    const { reclaim_writes: writes, reclaim_writes_locked: locked } = rig.memory.stats().counters
    expect(writes).toBeGreaterThan(locked)
    for (let page = 0; page < 40; page++) expect(map.getUint32(page * PAGE)).toBe(100 + page)
  })
})

describe('while reclaim writes dirty pages of a file', () => {
  /** Pages 4 and 5 are dirty, and a worker is writing them. */
  async function beingCleaned(workers = 3): Promise<{ rig: ThreadRig; shrink: Promise<number> }> {
    const rig = await threads({ workers })
    const [a, b] = rig.workers
    await b.store(4, 400)
    await b.store(5, 500)
    rig.hold('write')
    const shrink = a.call<number>(a.memory, 'shrink')
    await rig.held('write')
    return { rig, shrink }
  }

  test('other threads fault, load and store, in that file too', async () => {
    const { rig, shrink } = await beingCleaned()
    const [, b] = rig.workers
    expect(rig.memory.check()).toEqual([])
    expect(await b.load(9)).toBe(10)
    expect(await b.load(4)).toBe(400)
    await b.store(9, 900)
    await b.store(5, 501)
    await b.call(b.map, 'remap', { at: 12, page: 30 })
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expect(await b.load(5)).toBe(501)
    await b.call(b.file, 'sync')
    expect([4, 5, 9].map(page => rig.storedWord(page))).toEqual([400, 501, 900])
  })

  test('a sync, a truncation and a punch of it wait', async () => {
    const { rig, shrink } = await beingCleaned(4)
    const [, b, c, d] = rig.workers
    const [sync] = await rig.waiting(b, () => b.call(b.file, 'sync'))
    const [cut] = await rig.waiting(c, () => c.call(c.file, 'truncate', 20 * PAGE))
    const [punch] = await rig.waiting(d, () => d.call(d.file, 'punch', 4 * PAGE, PAGE))
    rig.release('write')
    await Promise.all([sync, cut, punch, shrink])
    expect(await b.load(4)).toBe(0)
    expect(await b.load(5)).toBe(500)
    expect(rig.storedWord(5)).toBe(500)
    expect(rig.memory.check()).toEqual([])
  })

  test('that fails: they stay, dirty, and the next sync says so', async () => {
    const { rig, shrink } = await beingCleaned()
    const [, b] = rig.workers
    rig.fail('write', 28)
    rig.release('write')
    await shrink
    expect(rig.memory.check()).toEqual([])
    expect(await b.load(4)).toBe(400)
    rig.fail('write', 0)
    expect(await errorOf(b.call(b.file, 'sync'))).toMatchObject({ errno: -28 })
    await b.call(b.file, 'sync')
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 500])
  })

  test('its last close waits, and all is in the store when it returns', async () => {
    const { rig, shrink } = await beingCleaned()
    const [, b] = rig.workers
    await b.store(5, 501)
    await b.call(b.space, 'close')
    const [close] = await rig.waiting(b, () => b.call(b.file, 'close'))
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await close
    await shrink
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 501])
    expect(rig.memory.check()).toEqual([])
  })

  test('its last window is unmapped: that waits until the write is over, writes the rest and closes it', async () => {
    const { rig, shrink } = await beingCleaned()
    const [, b] = rig.workers
    await b.store(5, 501)
    await b.call(b.file, 'close')
    const [unmap] = await rig.waiting(b, () => b.call(b.map, 'unmap'))
    expect(rig.memory.check()).toEqual([])
    rig.release('write')
    await unmap
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 501])
    await shrink
    expect(rig.memory.check()).toEqual([])
  })

  test('its thread ends: the pages are dirty, and the next sync writes them', async () => {
    const { rig } = await beingCleaned()
    const [a, b] = rig.workers
    const [sync] = await rig.waiting(b, () => b.call(b.file, 'sync'))
    await a.terminate()
    rig.release('write')
    await sync
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 500])
    expect(rig.memory.machine.sync.broken).toBe(0)
    expect(rig.memory.check()).toEqual([])
  })

  test('its thread ends while the last close waits for it: that writes the pages anew and closes the file', async () => {
    const { rig } = await beingCleaned()
    const [a, b] = rig.workers
    await b.call(b.file, 'close')
    const [unmap] = await rig.waiting(b, () => b.call(b.map, 'unmap'))
    const ended = a.terminate()
    // Whoever unmaps it finds that out, or is told.
    rig.release('write')
    await ended
    await unmap
    expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 500])
    expect(rig.memory.machine.sync.broken).toBe(0)
    expect(rig.memory.check()).toEqual([])
  })
})

test('populating waits for a page whose reader ends, and nobody is told: it finds that out, and reads the page itself', async () => {
  const rig = await threads({ workers: 2, isWatched: false })
  const [a, b] = rig.workers
  rig.hold('read', 3)
  void a.load(3)
  await rig.held('read')
  const before = rig.calls('read')
  const [map] = await rig.waiting(b, () =>
    b.call<number>(b.space, 'map', { thing: b.file }, { length: 4 * PAGE, populate: true })
  )
  await a.terminate()
  rig.release('read')
  expect(await b.call<number>(await map, 'getUint32', 3 * PAGE)).toBe(4)
  expect(rig.calls('read') - before).toBeGreaterThan(0)
  expect(rig.memory.machine.sync.broken).toBe(0)
})
