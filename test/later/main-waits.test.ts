/**
 * This thread sleeps for pages that a worker's pager brings (`waitForPages`), and a pager in this thread goes on while
 * another thread has the lock that it needs and it may not wait for it, as in a browser's page.
 */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { EOWNERDEAD } from '../../src/abi/errno.ts'
import { MADV_POPULATE_READ } from '../../src/abi/mman.ts'
import type { FileHandle } from '../../src/api/handles.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { Memory } from '../../src/api/memory.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { T_PLATFORM_ID } from '../../src/sync/threads.ts'
import { sys_madvise } from '../../src/syscall/memory.ts'
import { sys_mem_read } from '../../src/syscall/proc-mem.ts'
import { laterStore } from '../support/later-store.ts'
import { errorOf, type LaterOptions, type LaterRig, type LaterThread, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()

afterEach(() => {
  vi.restoreAllMocks()
})

interface Paged {
  readonly rig: LaterRig
  readonly pager: LaterThread
  /** Reads of the pager's store wait while its first word is 1. */
  readonly gate: Int32Array
  readonly map: Mapping
}

/** A memory whose main thread sleeps for pages, and a window over a file of `pages` pages that a worker brings. */
async function paged(pages: number, options: LaterOptions = {}): Promise<Paged> {
  const rig = await rigs({ threads: 4, waitForPages: true, ...options })
  const pager = await rig.thread()
  const gate = new Int32Array(new SharedArrayBuffer(8))
  const map = rig.space.map(rig.memory.adopt(await pager.do<FileHandle>('open', pages, gate)))
  return { rig, pager, gate, map }
}

function open(gate: Int32Array): void {
  Atomics.store(gate, 0, 0)
  Atomics.notify(gate, 0)
}

function words(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  return Array.from({ length: bytes.length / PAGE }, (_, i) => view.getUint32(i * PAGE, true))
}

describe('this thread sleeps', () => {
  test('in every kind of access, and reads on ahead of itself', async () => {
    const { rig, map } = await paged(400)
    for (let page = 0; page < 100; page++) expect(map.getUint32(page * PAGE)).toBe(page + 1)
    const { counters } = rig.memory.stats()
    // It asked for windows, and for the next one before the last was used up.
    expect(counters.pgmajfault).toBeLessThan(10)
    const bytes = new Uint8Array(5 * PAGE)
    map.read(bytes, 200 * PAGE)
    expect(words(bytes)).toEqual([201, 202, 203, 204, 205])
    expect(map.file?.read(bytes, 300 * PAGE)).toBe(5 * PAGE)
    expect(words(bytes)).toEqual([301, 302, 303, 304, 305])
    expect(map.populateSync({ offset: 340 * PAGE, length: 8 * PAGE })).toBe(8)
    expect(sys_madvise(rig.space.mm, map.address + 360 * PAGE, 8 * PAGE, MADV_POPULATE_READ)).toBe(0)
    expect(map.getUint32(367 * PAGE)).toBe(368)
    expect(sys_mem_read(rig.space.mm, map.address + 380 * PAGE, bytes)).toBe(bytes.length)
    expect(words(bytes)).toEqual([381, 382, 383, 384, 385])
  })

  test('where there is no room to ask for its page until others came', async () => {
    for (const use of [
      (map: Mapping) => map.getUint32(250 * PAGE),
      (map: Mapping) => {
        const bytes = new Uint8Array(PAGE)
        map.file?.read(bytes, 250 * PAGE)
        return words(bytes)[0]
      }
    ]) {
      const { rig, pager, gate, map } = await paged(300, { frames: 16 })
      const opener = await rig.thread()
      // The pager has other stores, and so has this thread, of which nothing is on its way.
      await pager.do('open', 4, new Int32Array(new SharedArrayBuffer(8)))
      gate[0] = 1
      map.advise('willneed')
      expect(rig.memory.stats().pagesUnderWay).toBeGreaterThan(3)
      const opened = opener.do('openWhenWaiting', gate, 0)
      expect(use(map)).toBe(251)
      await opened
      expect(rig.memory.check()).toEqual([])
    }
  })

  test('and is told EAGAIN where all the room is taken by pages that it has to bring itself', async () => {
    for (const threads of [1, 4]) {
      const rig = await rigs({ threads, waitForPages: true, frames: 16, pages: 300 })
      rig.store.hold()
      rig.map.advise('willneed')
      expect(errorOf(() => rig.load(250))).toMatchObject({ code: 'EAGAIN' })
      expect(errorOf(() => rig.file.read(new Uint8Array(PAGE), 250 * PAGE))).toMatchObject({ code: 'EAGAIN' })
      expect(rig.memory.check()).toEqual([])
      rig.store.release()
      await rig.map.ready({ offset: 250 * PAGE, length: PAGE })
      expect(rig.load(250)).toBe(251)
    }
  })

  test('for a pager that has ended, or never turns: SIGBUS, by each way in, and the memory is whole', async () => {
    const { rig, pager, gate, map } = await paged(64, { readahead: 0 })
    const { machine } = rig.memory
    const { threads } = machine.sync
    const row = threads.find(pager.worker.threadId)
    gate[0] = 1
    // What the watcher does first when it hears of the end: from here on the thread counts as dead, its pages are not
    // given up yet.
    expect(threads.declareDead(row, threads.w[threads.at(row, T_PLATFORM_ID)])).toBe(true)
    const dead = { code: 'SIGBUS', errno: -EOWNERDEAD }
    expect(errorOf(() => map.getUint32(5 * PAGE))).toMatchObject(dead)
    expect(errorOf(() => map.read(new Uint8Array(PAGE), 6 * PAGE))).toMatchObject(dead)
    expect(errorOf(() => map.file?.read(new Uint8Array(PAGE), 7 * PAGE))).toMatchObject({ errno: -EOWNERDEAD })
    expect(map.populateSync({ offset: 8 * PAGE, length: PAGE })).toBe(0)
    expect(sys_madvise(rig.space.mm, map.address + 9 * PAGE, PAGE, MADV_POPULATE_READ)).toBeLessThan(0)
    expect(sys_mem_read(rig.space.mm, map.address + 10 * PAGE, new Uint8Array(4))).toBeLessThan(0)
    threads.w[threads.at(row, 0)] = 1
    // It lives, but does not come back to its event loop.
    const block = new Int32Array(new SharedArrayBuffer(4))
    block[0] = 1
    const blocked = pager.do('block', block)
    Object.assign(machine.sync, { patienceMs: 100 })
    expect(errorOf(() => map.getUint32(20 * PAGE))).toMatchObject({ code: 'SIGBUS', errno: -110 })
    expect(machine.sync.broken).toBe(0)
    Object.assign(machine.sync, { patienceMs: 20_000 })
    open(block)
    await blocked
    open(gate)
    expect(map.getUint32(20 * PAGE)).toBe(21)
    expect(rig.memory.check()).toEqual([])
  })

  test('for pages of a pager that ends meanwhile: those that came before stay, read ahead asks for no more', async () => {
    const { rig, pager, gate, map } = await paged(64, { readahead: 0, faultAroundPages: 1 })
    for (let page = 0; page < 4; page++) expect(map.getUint32(page * PAGE)).toBe(page + 1)
    gate[0] = 1
    const before = Atomics.load(gate, 1)
    map.advise('willneed', { offset: 10 * PAGE, length: 4 * PAGE })
    expect(rig.memory.stats().pagesUnderWay).toBe(4)
    // While it takes the request it has the machine lock, and its end would break the memory. Its store is asked
    // without it.
    while (Atomics.load(gate, 1) === before) await turn()
    await pager.worker.terminate()
    await pager.ended
    expect(rig.memory.stats().pagesUnderWay).toBe(0)
    map.advise('willneed', { offset: 20 * PAGE, length: 4 * PAGE })
    expect(rig.memory.stats().pagesUnderWay).toBe(0)
    for (let page = 0; page < 4; page++) expect(map.getUint32(page * PAGE)).toBe(page + 1)
    expect(errorOf(() => map.getUint32(11 * PAGE))).toMatchObject({ code: 'SIGBUS', errno: -EOWNERDEAD })
    expect(rig.memory.check()).toEqual([])
  })

  test('cutting and punching is not for files whose store answers later', async () => {
    const { rig, map } = await paged(8)
    expect(errorOf(() => map.file?.truncate(PAGE))).toMatchObject({ code: 'EINVAL' })
    expect(errorOf(() => map.file?.punch(0, PAGE))).toMatchObject({ code: 'EBADF' })
    expect(map.getUint32(7 * PAGE)).toBe(8)
    expect(rig.memory.check()).toEqual([])
  })
})

describe('a pager in a thread that may not sleep, while another one has the machine lock', () => {
  interface Page {
    readonly rig: LaterRig
    /** A second thread, which the test runs: it takes the lock, and gives it back. */
    readonly other: Memory
  }

  /** As in a browser's page: Atomics.wait throws there, also while the memory is made. */
  async function page(options: LaterOptions = {}): Promise<Page> {
    const { wait } = Atomics
    const refuse = vi.spyOn(Atomics, 'wait').mockImplementation(() => {
      throw new TypeError('Atomics.wait cannot be called in this context')
    })
    const rig = await rigs({ threads: 2, ...options })
    expect(rig.memory.machine.sync.maySleep).toBe(false)
    refuse.mockImplementation(wait as typeof Atomics.wait)
    const other = Memory.attach(rig.memory.handle)
    expect(other.machine.sync.maySleep).toBe(true)
    refuse.mockImplementation(() => {
      throw new TypeError('Atomics.wait cannot be called in this context')
    })
    return { rig, other }
  }

  test('an access is EAGAIN, and a page on its way is brought once the lock is free', async () => {
    const { rig, other } = await page()
    rig.store.hold()
    expect(errorOf(() => rig.load(3)).code).toBe('EAGAIN')
    await rig.store.whenPending(1)
    expect(other.machine.enter()).toBe(true)
    rig.store.release()
    for (let i = 0; i < 5; i++) await turn()
    // The bytes came, but nobody can be told.
    expect(errorOf(() => rig.load(3))).toMatchObject({ code: 'EAGAIN' })
    const ready = rig.map.ready({ offset: 0, length: 8 * PAGE })
    await turn()
    other.machine.leave()
    expect(await ready).toBe(8)
    expect(rig.load(3)).toBe(4)
    other.detach()
  })

  test('pieces that come meanwhile are kept, and delivered in order', async () => {
    const { rig, other } = await page()
    const contents = new Uint8Array(600 * PAGE).map((_, i) => i / PAGE)
    let give: (from: number, to: number) => void = () => {}
    let end: (result: number) => void = () => {}
    const store = laterStore(memoryStore({ contents, name: 'pieces', readOnly: true }))
    store.readPieces = (position, _length, take) =>
      new Promise(resolve => {
        give = (from, to) => take(contents.slice(position + from * PAGE, position + to * PAGE))
        end = resolve
      })
    const map = rig.space.map(await rig.memory.openAsync(store))
    const ready = map.ready({ offset: 0, length: 16 * PAGE })
    for (let i = 0; i < 3; i++) await turn()
    give(0, 4)
    expect(map.residency({ length: 16 * PAGE }).indexOf(0)).toBe(4)
    expect(other.machine.enter()).toBe(true)
    give(4, 8)
    give(8, 12)
    other.machine.leave()
    expect(map.residency({ length: 16 * PAGE }).indexOf(0)).toBe(4)
    give(12, 14)
    expect(map.residency({ length: 16 * PAGE }).indexOf(0)).toBe(14)
    expect(other.machine.enter()).toBe(true)
    give(14, 16)
    end(16 * PAGE)
    for (let i = 0; i < 5; i++) await turn()
    other.machine.leave()
    expect(await ready).toBe(16)
    for (let i = 0; i < 16; i++) expect(map.getUint8(i * PAGE + 9)).toBe(i)
    other.detach()
  })

  test('a file that is closed while its bytes cannot be delivered takes none of them', async () => {
    const { rig, other } = await page({ readahead: 0 })
    rig.store.hold()
    expect(errorOf(() => rig.load(3)).code).toBe('EAGAIN')
    await rig.store.whenPending(1)
    expect(other.machine.enter()).toBe(true)
    rig.store.release()
    for (let i = 0; i < 5; i++) await turn()
    other.machine.leave()
    rig.map.unmap()
    rig.file.close()
    // Whoever has the frames next finds them as they are.
    const own = rig.space.map(null, { length: 100 * PAGE, writable: true })
    own.fill(7)
    for (let i = 0; i < 20; i++) await turn()
    for (let i = 0; i < 100; i++) expect(own.getUint32(i * PAGE)).toBe(0x07070707)
    expect(rig.memory.stats().pagesUnderWay).toBe(0)
    other.detach()
  })

  test('a machine that breaks: the pager ends, closes its stores, and gives up what it reads', async () => {
    const { rig, other } = await page()
    rig.store.hold()
    expect(errorOf(() => rig.load(3)).code).toBe('EAGAIN')
    await rig.store.whenPending(1)
    other.machine.sync.declareBroken(EOWNERDEAD)
    rig.memory.machine.filler.requests.ring()
    rig.store.release()
    for (let i = 0; i < 20; i++) await turn()
    expect(errorOf(() => rig.load(3))).toMatchObject({ errno: -EOWNERDEAD })
    // Closed, though nobody closed it but the pager.
    expect(await rig.store.read(0, new Uint8Array(1), 0, 1)).toBe(-9)
  })
})
