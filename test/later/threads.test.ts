/** Threads that sleep until a pager has brought their page, and pagers that fail them. */
import { expect, test } from 'vitest'
import type { FileHandle } from '../../src/api/handles.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { errorOf, type LaterRig, type LaterThread, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()
const THREADS = { threads: 4 }

/** The error that a call in another thread ended in. */
const rejection = (promise: Promise<unknown>): Promise<Error & { code: string; errno: number }> =>
  promise.then(
    () => {
      throw new Error('no error came')
    },
    error => error
  )

/** Shared words: 1 while the gate is closed, and how many calls have come to it. */
function newGate(): Int32Array {
  const gate = new Int32Array(new SharedArrayBuffer(8))
  gate[0] = 1
  return gate
}

function openGate(gate: Int32Array): void {
  Atomics.store(gate, 0, 0)
  Atomics.notify(gate, 0)
}

/** A window over a file of 64 pages that `thread` is the pager of. */
async function pagerOf(rig: LaterRig, thread: LaterThread, gate: Int32Array): Promise<Mapping> {
  return rig.space.map(rig.memory.adopt(await thread.do<FileHandle>('open', 64, gate)))
}

test('a worker simply reads, while this thread brings the pages', async () => {
  const rig = await rigs({ ...THREADS, pages: 500, frames: 64 })
  const worker = await rig.thread()
  const order = Array.from({ length: 500 }, (_, i) => i)
  expect(await worker.loads(...order)).toEqual(order.map(page => page + 1))
  const shuffled = order.map(page => (page * 211) % 500)
  expect(await worker.loads(...shuffled)).toEqual(shuffled.map(page => page + 1))
  expect(rig.memory.check()).toEqual([])
})

test('two workers and this thread want one page: it is fetched once', async () => {
  const rig = await rigs({ ...THREADS, readahead: 0 })
  const [a, b] = [await rig.thread(), await rig.thread()]
  rig.store.hold()
  const loads = [a.loads(17), b.loads(17)]
  await rig.store.whenPending(1)
  const ready = rig.map.ready({ offset: 17 * PAGE, length: PAGE })
  expect(errorOf(() => rig.load(17)).code).toBe('EAGAIN')
  await rig.waits(2)
  expect(rig.memory.check()).toEqual([])
  rig.store.release()
  expect(await Promise.all(loads)).toEqual([[18], [18]])
  expect(await ready).toBe(1)
  expect(rig.reads).toEqual([[17, 1]])
})

test('faults of two workers on neighbours are one read', async () => {
  const rig = await rigs({ ...THREADS, readahead: 0 })
  const [a, b] = [await rig.thread(), await rig.thread()]
  rig.store.hold()
  // All reads that may be under way are, so that the next ones wait together.
  for (const page of [0, 10, 20, 30, 40, 50]) errorOf(() => rig.load(page))
  await rig.store.whenPending(6)
  const loads = [a.loads(60), b.loads(61)]
  await rig.waits(2)
  await turn()
  rig.store.release()
  expect(await Promise.all(loads)).toEqual([[61], [62]])
  expect(rig.reads[6]).toEqual([60, 2])
})

test('a worker that reads in order has the next window on its way while it reads this one', async () => {
  const rig = await rigs({ ...THREADS, pages: 2000, frames: 1024 })
  const worker = await rig.thread()
  const order = Array.from({ length: 2000 }, (_, i) => i)
  expect(await worker.loads(...order)).toEqual(order.map(page => page + 1))
  // Windows grow up to a quarter of memory; nothing is read twice, and only the first touch found nothing asked for.
  expect(Math.max(...rig.reads.map(([, pages]) => pages))).toBe(256)
  expect(rig.reads.reduce((sum, [, pages]) => sum + pages, 0)).toBe(2000)
  expect(rig.reads.length).toBeLessThan(13)
  expect(rig.memory.stats().counters).toMatchObject({ pgmajfault: 1, readahead_pages: 1999 })
})

test('bulk reads, reads of the file, borrowed pages and locks sleep as well', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  const bytes = await worker.do<Uint8Array>('bytes', 'map', 5 * PAGE, 40 * PAGE)
  expect(new DataView(bytes.buffer).getUint32(39 * PAGE, true)).toBe(45)
  rig.map.unmap()
  await worker.call('map', 'unmap').catch(() => {})
  rig.memory.shrink()
  const read = await worker.do<Uint8Array>('bytes', 'file', 0, 30 * PAGE)
  expect(new DataView(read.buffer).getUint32(29 * PAGE, true)).toBe(30)
  const map = rig.space.map(rig.file)
  await worker.do('adopt', 'map', map.handle)
  await worker.call('map', 'lock', { offset: 50 * PAGE, length: 4 * PAGE })
  expect(map.getUint32(53 * PAGE)).toBe(54)
  expect(await worker.call<number>('map', 'populateSync', { offset: 40 * PAGE, length: 10 * PAGE })).toBe(10)
  await worker.call('map', 'unlock')
})

test('a worker that asked not to block gets EAGAIN, and ready works there', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread({ waitForPages: false })
  expect(await rejection(worker.loads(3))).toMatchObject({ code: 'EAGAIN', fault: 1 })
  expect(await worker.call('map', 'ready', { offset: 3 * PAGE, length: 2 * PAGE })).toBe(2)
  expect(await worker.loads(3, 4)).toEqual([4, 5])
})

test('ready does not block a worker either', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  rig.store.hold()
  const ready = worker.call<number>('map', 'ready', { offset: 0, length: 8 * PAGE })
  await rig.store.whenPending(1)
  // It answers other calls meanwhile.
  expect(await worker.call<Uint8Array>('map', 'residency', { offset: 0, length: PAGE })).toEqual(Uint8Array.of(0))
  rig.store.release()
  expect(await ready).toBe(8)
})

test("this thread blocks if it was asked to, while a worker's pager brings the page", async () => {
  const rig = await rigs({ ...THREADS, waitForPages: true })
  const worker = await rig.thread()
  const gate = newGate()
  openGate(gate)
  const map = await pagerOf(rig, worker, gate)
  expect(map.getUint32(40 * PAGE)).toBe(41)
  // Its own pages it cannot wait for.
  expect(errorOf(() => rig.load(1)).code).toBe('EAGAIN')
})

test('a failure reaches the thread that waits: its errno, and the message as a cause', async () => {
  let fail = true
  const rig = await rigs({
    ...THREADS,
    before: ({ op }) => {
      if (op === 'read' && fail) throw Object.assign(new Error('changed on the server'), { code: 'ESTALE' })
    }
  })
  const worker = await rig.thread()
  const error = await rejection(worker.loads(9))
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -116, cause: { message: 'changed on the server' } })
  for (const [thing, offset] of [
    ['map', 20 * PAGE],
    ['file', 30 * PAGE]
  ] as const) {
    const bulk = await rejection(worker.do('bytes', thing, offset, 2 * PAGE))
    expect(bulk).toMatchObject({ errno: -116, cause: { message: 'changed on the server' } })
  }
  expect(await rejection(worker.call('map', 'lock', { offset: 0, length: PAGE }))).toMatchObject({ code: 'ENOMEM' })
  await worker.call('map', 'unlock')
  expect(await worker.call('map', 'populateSync', { offset: 0, length: 4 * PAGE })).toBe(0)
  const ready = await rejection(worker.call('map', 'ready', { offset: 0, length: PAGE }))
  expect(ready).toMatchObject({ code: 'SIGBUS', errno: -116, cause: { message: 'changed on the server' } })
  fail = false
  expect(await worker.loads(9)).toEqual([10])
})

test('a time-out reaches the thread that waits', async () => {
  const rig = await rigs({ ...THREADS, timeoutMs: 50 })
  const worker = await rig.thread()
  rig.store.hold()
  const error = await rejection(worker.loads(9))
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -110 })
  expect(error.cause).toMatchObject({ message: 'ETIMEDOUT: later did not answer within 50 ms' })
  rig.store.release()
  expect(await worker.loads(9)).toEqual([10])
})

test('a slow store is waited for as long as its pager turns', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  await worker.do('patience', 1500)
  rig.store.hold()
  const loads = worker.loads(9)
  await rig.store.whenPending(1)
  // Longer than the patience with a thread that shows no sign of life.
  await new Promise(resolve => setTimeout(resolve, 2500))
  rig.store.release()
  expect(await loads).toEqual([10])
})

test('a pager that never returns to its event loop: ETIMEDOUT, and the memory is not broken', async () => {
  const rig = await rigs({ ...THREADS, waitForPages: true })
  const [pager, worker] = [await rig.thread(), await rig.thread()]
  const [gate, block] = [newGate(), newGate()]
  const map = await pagerOf(rig, pager, gate)
  await worker.do('adopt', 'map', map.handle)
  await worker.do('patience', 300)
  const blocked = pager.do('block', block)
  expect(await rejection(worker.loads(5))).toMatchObject({ code: 'SIGBUS', errno: -110 })
  openGate(gate)
  openGate(block)
  await blocked
  expect(await worker.loads(5)).toEqual([6])
})

test('two pagers that wait for each other: one is told to await instead', async () => {
  const rig = await rigs(THREADS)
  const [a, b] = [await rig.thread(), await rig.thread()]
  const [gateA, gateB] = [newGate(), newGate()]
  openGate(gateA)
  openGate(gateB)
  const [mapA, mapB] = [await pagerOf(rig, a, gateA), await pagerOf(rig, b, gateB)]
  await a.do('adopt', 'map', mapB.handle)
  await b.do('adopt', 'map', mapA.handle)
  for (let page = 0; page < 64; page += 4) {
    const ends = await Promise.allSettled([a.loads(page), b.loads(page)])
    for (const end of ends) {
      if (end.status === 'fulfilled') expect(end.value).toEqual([page + 1])
      else expect(end.reason).toMatchObject({ code: 'EAGAIN' })
    }
    expect(ends.some(({ status }) => status === 'fulfilled')).toBe(true)
  }
})

test("the pager's thread is ended: those who wait get SIGBUS with EOWNERDEAD, and nobody hangs", async () => {
  const rig = await rigs(THREADS)
  const [pager, worker] = [await rig.thread(), await rig.thread()]
  const gate = newGate()
  const map = await pagerOf(rig, pager, gate)
  await worker.do('adopt', 'map', map.handle)
  const loads = worker.loads(5)
  const ready = rejection(map.ready({ offset: 20 * PAGE, length: 4 * PAGE }))
  while (Atomics.load(gate, 1) < 2) await turn()
  // Its turn is over, in which it had the machine lock: a thread that ends with that breaks the memory.
  expect(await pager.call('memory', 'check')).toEqual([])
  await pager.worker.terminate()
  expect(await rejection(loads)).toMatchObject({
    code: 'SIGBUS',
    errno: -130,
    cause: { message: 'the thread that had the store has ended' }
  })
  const error = await ready
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -130 })
  // Whoever has the dead thread's row next is not its pager.
  const next = await rig.thread()
  await next.do('adopt', 'map', map.handle)
  expect(await rejection(next.loads(30))).toMatchObject({ code: 'SIGBUS', errno: -130 })
  expect(errorOf(() => map.getUint32(31 * PAGE))).toMatchObject({ code: 'SIGBUS', errno: -130 })
  expect(rig.memory.check()).toEqual([])
  // Other files are as before.
  await worker.do('adopt', 'map', rig.map.handle)
  expect(await worker.loads(50)).toEqual([51])
})

test('a pager that detaches closes its stores; pages that are there stay', async () => {
  const rig = await rigs({ ...THREADS, readahead: 0, faultAroundPages: 1 })
  const pager = await rig.thread()
  const gate = newGate()
  openGate(gate)
  const map = await pagerOf(rig, pager, gate)
  await map.ready({ offset: 0, length: 4 * PAGE })
  await pager.call('memory', 'detach')
  expect(map.getUint32(3 * PAGE)).toBe(4)
  const error = errorOf(() => map.getUint32(9 * PAGE))
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -130 })
  expect(error.cause).toMatchObject({ message: 'the thread that brought the pages of this file has ended' })
  await expect(map.ready({ offset: 9 * PAGE, length: PAGE })).rejects.toMatchObject({ errno: -130 })
  await expect(map.file?.readAsync(new Uint8Array(9), 9 * PAGE)).rejects.toMatchObject({
    code: 'EOWNERDEAD'
  })
})

test('a worker that is ended while it waits leaves nothing behind', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  rig.store.hold()
  void worker.loads(5)
  await rig.store.whenPending(1)
  await rig.waits(1)
  await worker.worker.terminate()
  rig.store.release()
  await rig.map.ready({ offset: 5 * PAGE, length: PAGE })
  expect(rig.load(5)).toBe(6)
  expect(rig.memory.check()).toEqual([])
})

test('a page that is asked for by a thread that closes the file at once', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  rig.store.hold()
  const loads = rejection(worker.loads(5))
  await rig.store.whenPending(1)
  await rig.waits(1)
  rig.map.unmap()
  rig.file.close()
  expect(await loads).toMatchObject({ code: 'SIGSEGV' })
  expect(rig.memory.stats()).toMatchObject({ pagesUnderWay: 0 })
})

test('a memory that is closed while a worker waits', async () => {
  const rig = await rigs(THREADS)
  const worker = await rig.thread()
  rig.store.hold()
  const loads = rejection(worker.loads(5))
  await rig.store.whenPending(1)
  await rig.waits(1)
  await rig.memory.closeAsync()
  expect((await loads).code).toMatch(/^(SIGSEGV|ESRCH|SIGBUS)$/)
})

test('less memory than two workers want at once', async () => {
  const rig = await rigs({ ...THREADS, pages: 300, frames: 16 })
  const [a, b] = [await rig.thread(), await rig.thread()]
  const forth = Array.from({ length: 300 }, (_, i) => i)
  const back = forth.map(page => 299 - page)
  const [up, down] = await Promise.all([a.loads(...forth), b.loads(...back)])
  expect(up).toEqual(forth.map(page => page + 1))
  expect(down).toEqual(back.map(page => page + 1))
})
