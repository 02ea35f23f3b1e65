/**
 * `ready`: progress, abort, ranges beyond the file, stores that answer at once, and what it asks for in which order.
 */
import { expect, test } from 'vitest'
import type { FaultError } from '../../src/api/errors.ts'
import type { Progress } from '../../src/api/long-work.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { errorOf, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()

test('progress is in bytes, and ends with all of them', async () => {
  const rig = await rigs({ pages: 700, frames: 2100 })
  const seen: Progress[] = []
  expect(await rig.map.ready({ offset: 10, onProgress: progress => seen.push(progress) })).toBe(700)
  expect(seen.map(({ totalBytes }) => totalBytes)).toEqual(seen.map(() => 700 * PAGE))
  expect(seen.map(({ doneBytes }) => doneBytes)).toEqual([256 * PAGE, 512 * PAGE, 700 * PAGE])
})

test('an abort ends the wait and not the fetch', async () => {
  const rig = await rigs()
  rig.store.hold()
  const abort = new AbortController()
  const ready = rig.map.ready({ offset: 0, length: 8 * PAGE, signal: abort.signal })
  const read = rig.map.readAsync(new Uint8Array(10), 0, { signal: abort.signal })
  const fileRead = rig.file.readAsync(new Uint8Array(10), 0, { signal: abort.signal })
  await rig.store.whenPending(1)
  const reason = new Error('enough')
  abort.abort(reason)
  await expect(ready).rejects.toBe(reason)
  await expect(read).rejects.toBe(reason)
  await expect(fileRead).rejects.toBe(reason)
  expect(rig.store.pending).toHaveLength(1)
  const later = rig.map.ready({ offset: 0, length: 8 * PAGE })
  await turn()
  rig.store.release()
  expect(await later).toBe(8)
  expect(rig.reads).toEqual([[0, 8]])
})

test('a signal that is aborted already asks for nothing', async () => {
  const rig = await rigs()
  const reason = new Error('before')
  const signal = AbortSignal.abort(reason)
  await expect(rig.map.ready({ signal })).rejects.toBe(reason)
  await expect(rig.file.readAsync(new Uint8Array(10), 0, { signal })).rejects.toBe(reason)
  await expect(rig.memory.openAsync(rig.store, { signal })).rejects.toBe(reason)
  expect(rig.reads).toEqual([])
})

test('many waits with one signal leave no listeners behind', async () => {
  const rig = await rigs({ pages: 64, frames: 256 })
  const abort = new AbortController()
  let listeners = 0
  const { signal } = abort
  const { addEventListener, removeEventListener } = signal
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    listeners++
    addEventListener.apply(signal, args)
  }
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    listeners--
    removeEventListener.apply(signal, args)
  }
  for (let page = 0; page < 64; page++) await rig.map.ready({ offset: page * PAGE, length: PAGE, signal })
  expect(listeners).toBe(0)
})

test('beyond the end of the file: SIGBUS, and what lies before it came', async () => {
  const rig = await rigs({ pages: 4 })
  const map = rig.space.map(rig.file, { length: 8 * PAGE })
  const error: FaultError = await map.ready().then(
    () => undefined as never,
    (e: FaultError) => e
  )
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -14, address: map.address + 4 * PAGE })
  expect(error.cause).toBeUndefined()
  expect(map.getUint32(3 * PAGE)).toBe(4)
  rig.map.remap({ at: 0, page: 1000 })
  await expect(rig.map.ready({ offset: 0, length: PAGE })).rejects.toMatchObject({ code: 'SIGBUS' })
})

test('a range that is not in the window, and a window that is not mapped', async () => {
  const rig = await rigs()
  await expect(rig.map.ready({ offset: 64 * PAGE, length: 1 })).rejects.toThrow(RangeError)
  await expect(rig.map.readAsync(new Uint8Array(2), 64 * PAGE - 1)).rejects.toThrow(RangeError)
  expect(await rig.map.ready({ offset: 0, length: 0 })).toBe(0)
  rig.map.unmap()
  await expect(rig.map.ready({ offset: 0, length: 1 })).rejects.toThrow(RangeError)
})

test('stores that answer at once, and memory, are populated', async () => {
  const rig = await rigs()
  const file = rig.memory.open(memoryStore({ sizeBytes: 10 * PAGE }))
  const map = rig.space.map(file)
  expect(await map.ready()).toBe(10)
  expect(map.residency()).toEqual(new Uint8Array(10).fill(1))
  const target = new Uint8Array(5)
  await map.readAsync(target, 3)
  expect(await file.readAsync(target, 10 * PAGE - 2)).toBe(2)
  const own = rig.space.map(null, { length: 4 * PAGE, writable: true })
  expect(await own.ready()).toBe(4)
  own.protect('none')
  await expect(own.ready()).rejects.toMatchObject({ code: 'SIGSEGV' })
})

test('a range larger than memory: its last part is there in the end', async () => {
  const rig = await rigs({ pages: 500, frames: 64 })
  expect(await rig.map.ready()).toBe(500)
  expect(rig.load(499)).toBe(500)
  expect(rig.memory.stats().counters.pgsteal).toBeGreaterThan(400)
})

test('no room for a single page: ENOMEM, not a wait without end', async () => {
  const rig = await rigs({ frames: 16, pages: 64 })
  const own = rig.space.map(null, { length: 64 * PAGE, writable: true })
  for (let page = 0; page < 64; page++) {
    try {
      own.setUint32(page * PAGE, 1)
    } catch {}
  }
  await expect(rig.map.ready({ offset: 0, length: PAGE })).rejects.toMatchObject({ code: 'ENOMEM' })
})

test('a window is asked for in long runs, one on its way while another is mapped', async () => {
  const rig = await rigs({ pages: 1024, frames: 512 })
  await rig.map.ready()
  // Half of the frames ahead, half of it at a time.
  expect(rig.reads).toEqual(Array.from({ length: 8 }, (_, i) => [i * 128, 128]))
  rig.store.hold()
  const second = rig.map.ready({ offset: 0, length: 1024 * PAGE })
  await rig.store.whenPending(2)
  rig.store.release()
  await second
})

test('nonlinear order: the store is read in the order of the window, neighbours together', async () => {
  const rig = await rigs({ pages: 64, frames: 512, readahead: 0 })
  rig.map.remapPages(0, Int32Array.of(40, 41, 42, 7, 50, 6, 5, 51, 20))
  await rig.map.ready({ offset: 0, length: 9 * PAGE })
  expect(rig.reads).toEqual([
    [40, 3],
    [5, 3],
    [50, 2],
    [20, 1]
  ])
})

test('a fault of a nonlinear window asks for what its next entries show, and goes on halfway', async () => {
  const rig = await rigs({ pages: 256, frames: 512, readahead: 0 })
  const order = Int32Array.from({ length: 256 }, (_, i) => (i * 37) % 256)
  rig.map.remapPages(0, order)
  const touch = async (page: number): Promise<void> => {
    if (rig.map.residency({ offset: page * PAGE, length: PAGE })[0] === 0) {
      await rig.map.ready({ offset: page * PAGE, length: PAGE })
    }
    expect(rig.load(page)).toBe(order[page] + 1)
  }
  errorOf(() => rig.load(0))
  while (rig.memory.stats().pagesUnderWay > 0) await turn()
  // Itself and 16 entries.
  const asked = (): number => rig.reads.reduce((sum, [, pages]) => sum + pages, 0)
  expect(asked()).toBe(17)
  const wanted = new Set(order.subarray(0, 17))
  for (const [first, pages] of rig.reads) for (let i = 0; i < pages; i++) expect(wanted).toContain(first + i)
  for (let page = 0; page <= 8; page++) await touch(page)
  expect(asked()).toBe(17)
  await touch(9)
  while (rig.memory.stats().pagesUnderWay > 0) await turn()
  expect(asked()).toBe(26)
  rig.map.advise('random')
  for (const page of [100, 120]) errorOf(() => rig.load(page))
  while (rig.memory.stats().pagesUnderWay > 0) await turn()
  expect(asked()).toBe(28)
})

test('a range that has no room in memory is ENOMEM, and does not go on for ever', async () => {
  const rig = await rigs({ pages: 32, frames: 24, readahead: 0 })
  await rig.map.ready({ offset: 0, length: PAGE })
  while (rig.memory.stats().freeFrames > 1) {
    rig.space.map(null, { length: PAGE, writable: true, locked: true })
  }
  // Two frames are left for pages: the one that is free, and that of the page that came.
  await expect(rig.map.ready({ offset: 10 * PAGE, length: 6 * PAGE })).rejects.toMatchObject({ code: 'ENOMEM' })
  expect(await rig.map.ready({ offset: 20 * PAGE, length: PAGE })).toBe(1)
  expect(rig.load(20)).toBe(21)
})

test('more waits than there are frames: none fails, and each page is read about once', async () => {
  const rig = await rigs({ pages: 600, frames: 64 })
  const bytes = Array.from({ length: 150 }, () => new Uint8Array(PAGE))
  await Promise.all(
    bytes.map((target, i) =>
      i % 3 === 0 ? rig.file.readAsync(target, 4 * i * PAGE) : rig.map.readAsync(target, 4 * i * PAGE)
    )
  )
  expect(bytes.map(target => new Uint32Array(target.buffer)[0])).toEqual(bytes.map((_, i) => 4 * i + 1))
  expect(rig.reads.length).toBeLessThan(300)
})
