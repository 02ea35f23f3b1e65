/**
 * The early read (mm/early-read): a fault that has read its page before it takes a lock, held there while another
 * thread does what makes the page another one, or none. The load must show what is true when it is made, never what was
 * read.
 */
import { expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import * as fremap from '../../src/index.ts'
import { T_NR_RESERVED, T_RESERVE } from '../../src/sync/threads.ts'
import { errorOf, PAGE, type ThreadRig, type ThreadWorker, useThreads } from './support.ts'

const threads = useThreads()

/** A worker that has frames in reserve and knows the mapping, and another one. */
async function early(): Promise<{ rig: ThreadRig; a: ThreadWorker; b: ThreadWorker }> {
  const rig = await threads({ workers: 2, frames: 2048 })
  const [a, b] = rig.workers
  expect(await a.load(1)).toBe(2)
  expect(reserveOf(rig, a)).toBeGreaterThan(0)
  return { rig, a, b }
}

/** The frame that the worker's next early read goes to, 0 for none. */
function reserveOf(rig: ThreadRig, worker: ThreadWorker): number {
  const { threads: table } = rig.memory.machine.sync
  const left = nrReserved(rig, worker)
  return left === 0 ? 0 : table.w[table.at(worker.row, T_RESERVE) + left - 1]
}

function nrReserved(rig: ThreadRig, worker: ThreadWorker): number {
  const { threads: table } = rig.memory.machine.sync
  return table.w[table.at(worker.row, T_NR_RESERVED)]
}

/** A load of page 4 that has its bytes from the store and nothing else yet. */
async function heldLoad(rig: ThreadRig, a: ThreadWorker): Promise<[Promise<number>]> {
  rig.hold('answer', 4)
  const load = a.load(4)
  await rig.held('answer')
  return [load]
}

/** Bytes of page 4 by which the file can be told from before. */
const CHANGED = new Uint8Array(PAGE).fill(7)
const CHANGED_WORD = 0x07070707

test('goes straight to the reserve: one read, and the page is cached and counted like any other', async () => {
  const { rig, a, b } = await early()
  const before = rig.memory.stats().counters
  const reserve = reserveOf(rig, a)
  expect(await a.load(4)).toBe(5)
  expect(rig.memory.machine.tables.get(rig.space.mm.id, rig.map.address / PAGE + 4) >>> 8).toBe(reserve)
  expect(reserveOf(rig, a)).not.toBe(reserve)
  const after = rig.memory.stats().counters
  for (const name of ['pgfault', 'pgmajfault', 'pgpgin', 'store_reads', 'nr_file_pages'] as const) {
    expect(after[name] - before[name], name).toBe(1)
  }
  expect(await b.load(4)).toBe(5)
  expect(rig.calls('read')).toBe(2)
  expect(rig.memory.check()).toEqual([])
})

test('and a remap of its window page: it does not wait, and the load shows the new page', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.map, 'remap', { at: 4, page: 30 })
  rig.release('answer')
  expect(await load).toBe(31)
  expect(await a.load(5)).toBe(6)
})

test('of a page that a remap has put there', async () => {
  const { rig, a, b } = await early()
  await b.call(b.map, 'remap', { at: 4, page: 30 })
  const reads = rig.calls('read')
  const reserve = reserveOf(rig, a)
  expect(await a.load(4)).toBe(31)
  expect(rig.calls('read') - reads).toBe(1)
  expect(reserveOf(rig, a)).not.toBe(reserve)
})

test('and truncation below it: it does not wait, and the load is SIGBUS', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'truncate', 3 * PAGE)
  rig.release('answer')
  expect(await errorOf(load)).toMatchObject({ code: 'SIGBUS' })
})

test('and truncation to nothing and back: the load shows zeros', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'truncate', 0)
  await b.call(b.file, 'truncate', 64 * PAGE)
  rig.release('answer')
  expect(await load).toBe(0)
})

test('and a punch over it: the load shows zeros', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'punch', 4 * PAGE, PAGE)
  rig.release('answer')
  expect(await load).toBe(0)
})

test('and a write of the page: the load finds it in the cache', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'write', CHANGED, 4 * PAGE)
  rig.release('answer')
  expect(await load).toBe(CHANGED_WORD)
})

test('and a write of the page that is synced and evicted: what was read is old, and is read again', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'write', CHANGED, 4 * PAGE)
  await b.call(b.file, 'sync')
  rig.memory.shrink()
  expect(rig.memory.stats().counters.nr_file_pages).toBe(0)
  rig.release('answer')
  expect(await load).toBe(CHANGED_WORD)
})

test('and a write that reclaim itself writes back: the same', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  await b.call(b.file, 'write', CHANGED, 4 * PAGE)
  rig.memory.shrink()
  expect([rig.memory.stats().counters.nr_file_pages, rig.storedWord(4)]).toEqual([0, CHANGED_WORD])
  rig.release('answer')
  expect(await load).toBe(CHANGED_WORD)
})

test('and another file in the place of the first, under the same inode number: the load shows that one', async () => {
  const { rig, a } = await early()
  const { memory, space, map } = rig
  const { machine } = memory
  const inodeAt = () => machine.vmas.inode[machine.vmas.at(space.mm.id, map.address / PAGE)]
  const before = inodeAt()
  const [load] = await heldLoad(rig, a)
  // The mapping holds the file: once it is mapped over, the inode's number is free.
  const flags = abi.MAP_SHARED | abi.MAP_FIXED | abi.MAP_ANONYMOUS
  expect(fremap.sys_mmap(space.mm, map.address, 64 * PAGE, abi.PROT_READ, flags, -1, 0)).toBe(map.address)
  rig.file.close()
  const buffer = fremap.sharedStoreBuffer(64 * PAGE)
  new Uint8Array(buffer, 64).fill(7)
  const next = memory.open(fremap.sharedStore(buffer, { name: 'next', sizeBytes: 64 * PAGE }))
  const shared = abi.MAP_SHARED | abi.MAP_FIXED
  expect(fremap.sys_mmap(space.mm, map.address, 64 * PAGE, abi.PROT_READ, shared, next.fd, 0)).toBe(map.address)
  expect(inodeAt()).toBe(before)
  rig.release('answer')
  // This thread cannot reach the new store, which is no reason to show it the bytes of the old one.
  const shown = await load.catch((error: { code: string }) => error.code)
  expect(shown).toBe('SIGBUS')
  next.close()
})

test('of one page by two threads: both have it, and only one frame does', async () => {
  const { rig, a, b } = await early()
  expect(await b.load(2)).toBe(3)
  const cached = rig.memory.stats().counters.nr_file_pages
  const [first] = await heldLoad(rig, a)
  const second = b.load(4)
  await rig.held('answer', 2)
  rig.release('answer')
  expect([await first, await second]).toEqual([5, 5])
  expect(rig.memory.stats().counters.nr_file_pages).toBe(cached + 1)
})

test('that fails: the page is read again under the locks, and the error is that one’s', async () => {
  const { rig, a } = await early()
  rig.fail('read', 5)
  const before = rig.calls('read')
  expect(await errorOf(a.load(4))).toMatchObject({ code: 'SIGBUS', errno: -5 })
  expect(rig.calls('read') - before).toBe(2)
  rig.fail('read', 0)
  expect(await a.load(4)).toBe(5)
})

test('and the end of its thread: the frames in reserve come back, and nobody waits', async () => {
  const { rig, a, b } = await early()
  const [load] = await heldLoad(rig, a)
  const free = rig.memory.stats().freeFrames + nrReserved(rig, a)
  await a.terminate()
  expect(await errorOf(load)).toBeDefined()
  expect(rig.memory.stats().freeFrames).toBe(free)
  rig.release('answer')
  expect(await b.load(4)).toBe(5)
  expect(rig.memory.check()).toEqual([])
})

test('is not made where the file is read in order: readahead takes more pages at a time', async () => {
  const rig = await threads({ workers: 1, frames: 2048, readahead: 16 * PAGE })
  const [a] = rig.workers
  expect(await a.load(20)).toBe(21)
  expect(reserveOf(rig, a)).toBeGreaterThan(0)
  const before = rig.calls('read')
  expect(await a.load(21)).toBe(22)
  expect(rig.calls('read') - before).toBe(1)
  expect(rig.memory.stats().counters.readahead_pages).toBeGreaterThan(0)
  const reads = rig.calls('read')
  expect(await a.load(22)).toBe(23)
  expect(rig.calls('read')).toBe(reads)
})

test('is not taken for a vma that is to be read ahead by now', async () => {
  const rig = await threads({ workers: 1, frames: 2048, readahead: 16 * PAGE })
  const [a] = rig.workers
  expect(await a.load(20)).toBe(21)
  await a.call(a.map, 'advise', 'sequential')
  expect(await a.load(40)).toBe(41)
  expect(rig.memory.stats().counters.readahead_pages).toBe(15)
})

test('leaves its thread some frames, which go back when the thread evicts everything', async () => {
  const { rig, a } = await early()
  rig.memory.shrink()
  const free = rig.memory.stats().freeFrames + nrReserved(rig, a)
  await a.call(a.memory, 'shrink')
  expect(nrReserved(rig, a)).toBe(0)
  expect(rig.memory.stats().freeFrames).toBe(free)
  expect(await a.load(4)).toBe(5)
  expect(reserveOf(rig, a)).toBeGreaterThan(0)
})

test('keeps no frame in a small memory', async () => {
  const rig = await threads({ workers: 1, frames: 512 })
  expect(await rig.workers[0].load(1)).toBe(2)
  expect(reserveOf(rig, rig.workers[0])).toBe(0)
})
