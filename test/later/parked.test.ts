/** One thread: accesses whose page has to be brought are parked, and `ready` brings it. */
import { expect, test } from 'vitest'
import { FaultError } from '../../src/api/errors.ts'
import { errorOf, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()

test('an access to a page that is not there is EAGAIN, numbered, and says what to do', async () => {
  const { map, load } = bound(await rigs())
  const first = errorOf<FaultError>(() => load(7))
  expect(first).toBeInstanceOf(FaultError)
  expect(first).toMatchObject({ code: 'EAGAIN', errno: -11, syscall: 'load', page: 7, file: 'later', fault: 1 })
  expect(first.message).toBe(
    `EAGAIN: the page is on its way, read at address 0x${(map.address + 7 * PAGE).toString(16)} (page 7 of later); ` +
      'await mapping.ready() and try again'
  )
  expect(errorOf(() => load(8)).fault).toBe(2)
})

test('once it is ready, it is there; without ready too, after a while', async () => {
  const { map, load } = bound(await rigs())
  expect(errorOf(() => load(7)).code).toBe('EAGAIN')
  expect(await map.ready({ offset: 7 * PAGE, length: PAGE })).toBe(1)
  expect(load(7)).toBe(8)
  const touched = errorOf(() => load(20))
  expect(touched.code).toBe('EAGAIN')
  while (map.residency({ offset: 20 * PAGE, length: PAGE })[0] === 0) await turn()
  expect(load(20)).toBe(21)
})

test('a parked page is asked for once, however often it is touched and made ready', async () => {
  const rig = await rigs({ readahead: 0 })
  rig.store.hold()
  for (let i = 0; i < 5; i++) expect(errorOf(() => rig.load(9)).code).toBe('EAGAIN')
  const ready = [1, 2, 3].map(() => rig.map.ready({ offset: 9 * PAGE, length: PAGE }))
  await rig.store.whenPending(1)
  expect(rig.memory.stats()).toMatchObject({ pagesUnderWay: 1 })
  expect(rig.memory.check()).toEqual([])
  rig.store.release()
  expect(await Promise.all(ready)).toEqual([1, 1, 1])
  expect(rig.reads).toEqual([[9, 1]])
})

test('neighbours that are touched in one turn are one read', async () => {
  const rig = await rigs({ readahead: 0 })
  for (const page of [12, 10, 30, 11, 13]) errorOf(() => rig.load(page))
  await rig.map.ready({ offset: 10 * PAGE, length: 4 * PAGE })
  expect(rig.reads.sort((a, b) => a[0] - b[0])).toEqual([
    [10, 4],
    [30, 1]
  ])
})

test('what is asked while reads are under way is joined and waits in order', async () => {
  const rig = await rigs({ readahead: 0 })
  rig.store.hold()
  // Far apart: a read each, as many as may be under way.
  for (const page of [0, 10, 20, 30, 40, 50]) errorOf(() => rig.load(page))
  await rig.store.whenPending(6)
  for (const page of [60, 61, 25, 62, 24]) {
    errorOf(() => rig.load(page))
    await turn()
  }
  expect(rig.reads).toHaveLength(6)
  rig.store.release()
  await rig.map.ready({ offset: 60 * PAGE, length: 3 * PAGE })
  await rig.map.ready({ offset: 24 * PAGE, length: 2 * PAGE })
  expect(rig.reads.slice(6)).toEqual([
    [60, 3],
    [24, 2]
  ])
})

test('the last page is read as far as the file goes, and is zero behind its end', async () => {
  const rig = await rigs({ pages: 3, tail: 10, frames: 32 })
  // A buffer that was used before, for a longer read.
  await rig.map.ready({ offset: 0, length: 3 * PAGE })
  await rig.map.ready({ offset: 3 * PAGE, length: PAGE })
  expect(rig.load(3)).toBe(4)
  const shown = new Uint8Array(PAGE).fill(1)
  rig.map.read(shown, 3 * PAGE)
  expect(shown.subarray(10).every(byte => byte === 0)).toBe(true)
})

test('a bulk copy says how far it came, and goes on once its pages are ready', async () => {
  const rig = await rigs()
  await rig.map.ready({ offset: 0, length: 2 * PAGE })
  const target = new Uint8Array(4 * PAGE)
  // Readahead may have brought more than was asked for: the pages from 40 on are not there.
  await rig.map.ready({ offset: 39 * PAGE, length: PAGE })
  const { code, bytesDone } = errorOf(() => rig.map.read(target, 39 * PAGE + 100))
  expect({ code, bytesDone }).toEqual({ code: 'EAGAIN', bytesDone: PAGE - 100 })
  await rig.map.ready({ offset: 39 * PAGE, length: 5 * PAGE })
  rig.map.read(target, 39 * PAGE)
  expect(new DataView(target.buffer).getUint32(3 * PAGE, true)).toBe(43)
})

test('read of the file: EAGAIN too, and readAsync waits', async () => {
  const rig = await rigs({ tail: 7 })
  const target = new Uint8Array(20 * PAGE)
  const error = errorOf(() => rig.file.read(target, 0))
  expect(error).toMatchObject({ code: 'EAGAIN', syscall: 'pread' })
  expect(error.message).toMatch(/await file\.readAsync\(\) instead$/)
  expect(await rig.file.readAsync(target, 30 * PAGE)).toBe(20 * PAGE)
  for (let i = 0; i < 20; i++) expect(new DataView(target.buffer).getUint32(i * PAGE, true)).toBe(31 + i)
  expect(await rig.file.readAsync(target, BigInt(63 * PAGE))).toBe(PAGE + 7)
  expect(await rig.file.readAsync(target, 65 * PAGE)).toBe(0)
  await expect(rig.file.readAsync(target, -1)).rejects.toMatchObject({ code: 'EINVAL' })
})

test('readAsync of a mapping, through a memory smaller than the range, in the order of the window', async () => {
  const rig = await rigs({ pages: 300, frames: 32 })
  rig.map.remapPages(
    0,
    Int32Array.from({ length: 300 }, (_, i) => 299 - i)
  )
  const target = new Uint8Array(300 * PAGE)
  const seen: number[] = []
  await rig.map.readAsync(target, 0, { onProgress: ({ doneBytes }) => seen.push(doneBytes) })
  for (let i = 0; i < 300; i++) expect(new DataView(target.buffer).getUint32(i * PAGE, true)).toBe(300 - i)
  expect(seen.at(-1)).toBe(target.length)
  expect(rig.memory.check()).toEqual([])
})

test('more pages than may be on their way: EAGAIN still, and all come in the end', async () => {
  const rig = await rigs({ pages: 200, frames: 16, readahead: 0 })
  rig.store.hold()
  for (let page = 0; page < 40; page += 2) expect(errorOf(() => rig.load(page)).code).toBe('EAGAIN')
  // Half of the frames; the others can be had.
  expect(rig.memory.stats().pagesUnderWay).toBe(8)
  const own = rig.memory.space().map(null, { length: PAGE, writable: true })
  own.setUint32(0, 1)
  rig.store.release()
  for (let page = 0; page < 200; page++) {
    await rig.map.ready({ offset: page * PAGE, length: PAGE })
    expect(rig.load(page)).toBe(page + 1)
  }
})

test('more requests than the queue holds are asked for bit by bit', async () => {
  const rig = await rigs({ pages: 6000, frames: 4500, readahead: 0 })
  // No two of the window's neighbours are neighbours in the file.
  rig.map.remapPages(
    0,
    Int32Array.from({ length: 3000 }, (_, i) => i * 2)
  )
  rig.store.hold()
  const all = rig.map.ready({ offset: 0, length: 3000 * PAGE })
  await rig.store.whenPending(1)
  for (let i = 0; i < 3000; i++) errorOf(() => rig.load(i))
  rig.store.release()
  expect(await all).toBe(3000)
})

test('closing while pages are on their way gives the reads up', async () => {
  const rig = await rigs()
  rig.store.hold()
  errorOf(() => rig.load(3))
  const ready = rig.map.ready({ offset: 40 * PAGE, length: 5 * PAGE })
  const read = rig.file.readAsync(new Uint8Array(10), 50 * PAGE)
  await rig.store.whenPending(2)
  const closed = rig.memory.closeAsync()
  await expect(ready).rejects.toMatchObject({ code: 'ESRCH' })
  await expect(read).rejects.toMatchObject({ code: 'EBADF' })
  await closed
  expect(rig.store.pending).toEqual([])
})

test('closing the file and its windows closes the store; its requests do not stay behind', async () => {
  const rig = await rigs({ frames: 64 })
  rig.store.hold()
  errorOf(() => rig.load(3))
  rig.map.unmap()
  rig.file.close()
  // Twice as many as the queue holds, never served.
  const { laterStore } = await import('../support/later-store.ts')
  const { memoryStore } = await import('../../src/stores/memory.ts')
  for (let i = 0; i < 2100; i++) {
    const file = await rig.memory.openAsync(laterStore(memoryStore({ sizeBytes: PAGE })))
    const map = rig.space.map(file)
    expect(errorOf(() => map.getUint8(0)).code).toBe('EAGAIN')
    map.unmap()
    file.close()
  }
  expect(rig.memory.stats()).toMatchObject({ pagesUnderWay: 0 })
  expect(await rig.store.read(0, new Uint8Array(1), 0, 1)).toBe(-9)
})

test('a window that is unmapped or moved while its pages come', async () => {
  const rig = await rigs()
  rig.store.hold()
  const gone = rig.space.map(rig.file)
  // In the way of a window that grows.
  rig.space.map(rig.file)
  const unmapped = gone.ready({ offset: 0, length: 4 * PAGE })
  const kept = rig.map.ready({ offset: 20 * PAGE, length: 4 * PAGE })
  await rig.store.whenPending(2)
  gone.unmap()
  const before = rig.map.address
  rig.map.resize(200 * PAGE)
  expect(rig.map.address).not.toBe(before)
  rig.store.release()
  await expect(unmapped).rejects.toThrow(RangeError)
  expect(await kept).toBe(4)
  expect(rig.load(21)).toBe(22)
})

test('remapping while pages come: ready is about what the window shows in the end', async () => {
  const rig = await rigs({ readahead: 0 })
  rig.store.hold()
  const ready = rig.map.ready({ offset: 0, length: PAGE })
  await rig.store.whenPending(1)
  rig.map.remap({ at: 0, page: 33 })
  rig.store.release()
  expect(await ready).toBe(1)
  expect(rig.load(0)).toBe(34)
})

test('fork, and a private copy', async () => {
  const rig = await rigs()
  const own = rig.space.map(rig.file, { private: true, writable: true })
  expect(errorOf(() => own.setUint32(5 * PAGE, 99)).code).toBe('EAGAIN')
  await own.ready({ offset: 5 * PAGE, length: PAGE })
  own.setUint32(5 * PAGE, 99)
  const child = rig.space.fork()
  const theirs = child.view(own)
  expect(theirs.getUint32(5 * PAGE)).toBe(99)
  const shared = child.view(rig.map)
  await shared.ready({ offset: 4 * PAGE, length: 2 * PAGE })
  expect([shared.getUint32(4 * PAGE), shared.getUint32(5 * PAGE)]).toEqual([5, 6])
  child.close()
})

test('files of such stores cannot be written to, nor cut', async () => {
  const rig = await rigs()
  expect(rig.file.writable).toBe(false)
  expect(errorOf(() => rig.space.map(rig.file, { writable: true })).code).toBe('EACCES')
  expect(errorOf(() => rig.file.write(new Uint8Array(1), 0)).code).toBe('EBADF')
  expect(errorOf(() => rig.file.truncate(0)).code).toBe('EINVAL')
  expect(errorOf(() => rig.file.punch(0, PAGE)).code).toBe('EBADF')
  const { sys_reopen, O_RDWR, O_RDONLY } = await import('../../src/syscall/file.ts')
  expect(sys_reopen(rig.memory.machine, rig.file.fd, O_RDWR)).toBe(-9)
  expect(sys_reopen(rig.memory.machine, rig.file.fd, O_RDONLY)).toBeGreaterThan(0)
  rig.file.sync()
})

test('willneed asks, and mincore says 0 until it came', async () => {
  const rig = await rigs({ frames: 256 })
  rig.store.hold()
  const range = { offset: 8 * PAGE, length: 20 * PAGE }
  rig.map.advise('willneed', range)
  await rig.store.whenPending(1)
  expect(rig.map.residency(range)).toEqual(new Uint8Array(20))
  rig.store.release()
  await rig.map.ready(range)
  expect(rig.map.residency(range)).toEqual(new Uint8Array(20).fill(1))
  expect(rig.reads).toEqual([[8, 20]])
})

test('locking and populating do not wait: EAGAIN, or fewer pages', async () => {
  const rig = await rigs()
  const range = { offset: 0, length: 4 * PAGE }
  expect(rig.map.populateSync(range)).toBe(0)
  expect(await rig.map.populate({ offset: 50 * PAGE, length: 4 * PAGE })).toBe(0)
  expect(errorOf(() => rig.map.lock({ offset: 30 * PAGE, length: 4 * PAGE })).code).toBe('EAGAIN')
  rig.map.unlock()
  await rig.map.ready()
  rig.map.lock(range)
  rig.memory.shrink()
  expect(rig.load(3)).toBe(4)
  rig.map.unlock()
})

test('stores with one identity share their pages; the second one is closed', async () => {
  const rig = await rigs()
  const { laterStore } = await import('../support/later-store.ts')
  const { memoryStore } = await import('../../src/stores/memory.ts')
  const twin = (): ReturnType<typeof laterStore> => {
    const store = laterStore(memoryStore({ sizeBytes: 4 * PAGE }))
    return Object.defineProperty(store, 'identity', { value: 'the same' })
  }
  const [a, b] = [twin(), twin()]
  const fileA = await rig.memory.openAsync(a)
  const fileB = await rig.memory.openAsync(b)
  expect(await b.read(0, new Uint8Array(1), 0, 1)).toBe(-9)
  const mapA = rig.space.map(fileA)
  await mapA.ready()
  expect(rig.space.map(fileB).getUint32(0)).toBe(0)
  fileA.close()
  expect(await a.read(0, new Uint8Array(1), 0, 1)).toBe(1)
  // The same object once more is no second store.
  const again = await rig.memory.openAsync(a)
  expect(again.size).toBe(4 * PAGE)
  expect(await a.read(0, new Uint8Array(1), 0, 1)).toBe(1)
})

function bound<T extends { load: (page: number) => number }>(rig: T): T {
  return Object.assign(rig, { load: rig.load.bind(rig) })
}
