/**
 * The pager by itself, with a platform that does what the test says: its timers, its waits for shared words, its busy
 * locks.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import type { MappedFile } from '../../src/api/file.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { Memory } from '../../src/api/memory.ts'
import { Q_BELL, Q_SETTLED } from '../../src/cache/fetch-queue.ts'
import { STORE_READS } from '../../src/frame/vmstat.ts'
import { fileOf } from '../../src/mm/files.ts'
import { Pager, type PagerHost } from '../../src/mm/pager.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { WAIT_PAGE } from '../../src/sync/lock-order.ts'
import { S_QUEUES, S_SLEEPERS, T_PROGRESS } from '../../src/sync/threads.ts'
import { type LaterStore, laterStore } from '../support/later-store.ts'
import { type AttachedOptions, type AttachedRig, errorOf, PAGE, type Side, useAttached } from './support.ts'

const attached = useAttached()
const { now } = performance

/** Timers and waits that come when the test says so. */
class TestHost implements PagerHost {
  readonly timers: { delayMs: number; act: () => void }[] = []
  readonly beats: { intervalMs: number; act: () => void }[] = []
  readonly waits: { at: number; value: number; over: (value?: unknown) => void }[] = []

  abortable(): ReturnType<PagerHost['abortable']> {
    const controller = new AbortController()
    return { signal: controller.signal, abort: reason => controller.abort(reason) }
  }

  after(delayMs: number, act: () => void): () => void {
    const timer = { delayMs, act }
    this.timers.push(timer)
    return () => this.#remove(this.timers, timer)
  }

  every(intervalMs: number, act: () => void): () => void {
    const beat = { intervalMs, act }
    this.beats.push(beat)
    return () => this.#remove(this.beats, beat)
  }

  untilChanged(_words: Int32Array, at: number, value: number): Promise<unknown> {
    return new Promise(over => this.waits.push({ at, value, over }))
  }

  /** The oldest timer goes off. */
  tick(): void {
    this.timers.shift()?.act()
  }

  /** The shared word has changed. */
  wake(): void {
    this.waits.shift()?.over()
  }

  #remove<T>(list: T[], one: T): void {
    if (list.includes(one)) list.splice(list.indexOf(one), 1)
  }
}

interface Asked {
  readonly first: number
  readonly pages: number
  readonly buffer: Uint8Array | undefined
  readonly signal: AbortSignal | undefined
  readonly take: (piece: Uint8Array) => void
  readonly end: (result: number) => void
  readonly fail: (error: unknown) => void
}

class Paged {
  readonly rig: AttachedRig
  readonly side: Side
  readonly host: TestHost = new TestHost()
  readonly pager: Pager
  readonly asked: Asked[] = []

  constructor(rig: AttachedRig, side: Side) {
    this.rig = rig
    this.side = side
    this.pager = new Pager(side.m, this.host)
    side.m.pager = this.pager
  }

  /** Opens a store of so many bytes whose reads are in `asked`, for the test to answer. */
  async open(
    pages: number,
    options: { pieces?: boolean; timeoutMs?: number; store?: LaterStore } = {}
  ): Promise<{ file: MappedFile; map: Mapping; store: LaterStore }> {
    const store = options.store ?? laterStore(memoryStore({ sizeBytes: pages * PAGE, name: 'paged' }))
    const ask = (position: number, length: number, rest: Partial<Asked>): Promise<number> =>
      new Promise((end, fail) => {
        const none = (): void => {}
        const asked = { first: position / PAGE, pages: Math.ceil(length / PAGE), take: none, end, fail }
        this.asked.push({ buffer: undefined, signal: undefined, ...asked, ...rest })
      })
    store.read = (position, buffer, _offset, length, signal) => ask(position, length, { buffer, signal })
    if (options.pieces === true) {
      store.readPieces = (position, length, take, signal) => ask(position, length, { take, signal })
    }
    const file = await this.side.memory.openAsync(store, { timeoutMs: options.timeoutMs ?? 0 })
    // The listener looks at once, while the file is being opened, and is to look again.
    for (const { act } of this.host.timers.splice(0)) act()
    return { file, map: this.side.space.map(file), store }
  }

  state(file: MappedFile, pages: number): string {
    const { m } = this.side
    const inode = m.files.inode[m.fds[file.fd]]
    return Array.from({ length: pages }, (_, index) => {
      const frame = m.cache.lookup(inode, index)
      return frame === 0 ? '.' : m.frames.isUptodate(frame) ? 'x' : '?'
    }).join('')
  }

  frameOf(file: MappedFile, page: number): number {
    const { m } = this.side
    return m.cache.lookup(m.files.inode[m.fds[file.fd]], page)
  }
}

const open: Paged[] = []

function paged(options: AttachedOptions = {}, sideOf: (rig: AttachedRig) => Side = rig => rig.mine): Paged {
  const rig = attached(options)
  const one = new Paged(rig, sideOf(rig))
  open.push(one)
  return one
}

beforeEach(() => {
  open.length = 0
})

afterEach(async () => {
  performance.now = now
  for (const { pager, host } of open.splice(0)) {
    const ended = pager.end()
    for (const { over } of host.waits.splice(0)) over()
    await ended
    await settled()
  }
})

/** Lets everything that can go on do so. */
async function settled(): Promise<void> {
  for (let i = 0; i < 4; i++) await turn()
}

const touch = (map: Mapping, page: number): string => errorOf(() => map.getUint32(page * PAGE)).code

describe('requests', () => {
  test('of this thread are looked at once it is done, all together', async () => {
    const p = paged()
    const { map } = await p.open(16)
    for (const page of [3, 4, 9]) expect(touch(map, page)).toBe('EAGAIN')
    expect(p.asked).toEqual([])
    await settled()
    expect(p.asked.map(({ first, pages }) => [first, pages])).toEqual([
      [3, 2],
      [9, 1]
    ])
  })

  test('of other threads are heard by the bell, by one listener for all stores', async () => {
    const p = paged()
    const a = await p.open(16)
    const b = await p.open(16)
    expect(p.host.waits.map(({ at }) => at)).toEqual([Q_BELL])
    const { state } = p.side.m.filler.requests
    expect(p.host.waits[0].value).toBe(state[Q_BELL])
    const other = p.rig.attach(8, { waitForPages: false })
    const theirs = [other.memory.adopt(a.map.handle), other.memory.adopt(b.map.handle)]
    expect(theirs.map(map => touch(map, 5))).toEqual(['EAGAIN', 'EAGAIN'])
    await settled()
    expect(p.asked).toEqual([])
    p.host.wake()
    await settled()
    expect(p.asked.map(({ first }) => first)).toEqual([5, 5])
    expect(p.host.waits.map(({ value }) => value)).toEqual([state[Q_BELL]])
    // With the last store the listening ends, and with the next one it begins again.
    for (const { map, file } of [a, b]) {
      map.unmap()
      file.close()
    }
    p.host.wake()
    await settled()
    expect(p.host.waits).toEqual([])
    await p.open(4)
    expect(p.host.waits).toHaveLength(1)
  })

  test('of a memory of one thread need no listener, and no beat', async () => {
    const memory = new Memory({ size: '1MiB', readahead: 0 })
    const host = new TestHost()
    memory.machine.pager = new Pager(memory.machine, host)
    const store = laterStore(memoryStore({ sizeBytes: 4 * PAGE }))
    const map = memory.space().map(await memory.openAsync(store))
    store.hold()
    touch(map, 1)
    await settled()
    expect(store.pending).toHaveLength(1)
    expect([host.waits, host.beats]).toEqual([[], []])
    await memory.closeAsync()
  })

  test('wait while the lock is busy, on a thread that may not wait for it', async () => {
    const p = paged({}, rig => rig.attach(8, { maySleep: false }))
    const { map } = await p.open(8)
    touch(map, 2)
    expect(p.rig.mine.m.enter()).toBe(true)
    await settled()
    expect(p.asked).toEqual([])
    expect(p.host.timers.map(({ delayMs }) => delayMs)).toEqual([1])
    p.rig.mine.m.leave()
    p.host.tick()
    expect(p.asked).toHaveLength(1)
    expect(p.host.timers).toEqual([])
    // The same when it delivers.
    expect(p.rig.mine.m.enter()).toBe(true)
    p.asked[0].buffer?.fill(7)
    p.asked[0].end(PAGE)
    await settled()
    expect(p.host.timers.map(({ delayMs }) => delayMs)).toEqual([1])
    p.rig.mine.m.leave()
    p.host.tick()
    await settled()
    expect(map.getUint32(2 * PAGE)).toBe(0x07070707)
  })

  test('of a store that is closed, or of another file in its row, are not its pager’s', async () => {
    const p = paged()
    const { file, map, store } = await p.open(8)
    const { requests } = p.side.m.filler
    touch(map, 2)
    await settled()
    map.unmap()
    const inode = p.side.m.files.inode[p.side.m.fds[file.fd]]
    file.close()
    await settled()
    expect(p.asked[0].signal?.aborted).toBe(true)
    expect(p.asked[0].signal?.reason).toMatchObject({ message: 'ECANCELED: paged was closed' })
    expect(await store.size()).toBe(-9)
    expect(p.pager.has(store)).toBe(false)
    const memory = p.side.memory.shared(PAGE)
    expect(p.side.m.files.inode[fileOf(p.side.m, memory.fd)]).toBe(inode)
    requests.push(inode, 0, 1)
    await settled()
    expect(p.asked).toHaveLength(1)
    requests.drop(inode)
  })

  test('after the end of the pager are served by nobody', async () => {
    const p = paged()
    const { map, store } = await p.open(8)
    await p.pager.end()
    expect(await store.size()).toBe(-9)
    touch(map, 2)
    await settled()
    expect(p.asked).toEqual([])
  })

  test('in a broken memory end the pager', async () => {
    const p = paged()
    const { map, store } = await p.open(8)
    touch(map, 2)
    p.side.m.sync.declareBroken(130)
    await settled()
    expect(p.asked).toEqual([])
    expect(await store.size()).toBe(-9)
  })
})

describe('one store', () => {
  test('is one file, however often it is opened', async () => {
    const p = paged()
    const { file, store } = await p.open(8)
    expect(p.pager.has(store)).toBe(true)
    const again = await p.side.memory.openAsync(store)
    const { m } = p.side
    expect(m.files.inode[m.fds[again.fd]]).toBe(m.files.inode[m.fds[file.fd]])
    expect(p.pager.inodeOf(store, undefined)).toBe(m.files.inode[m.fds[file.fd]])
    const other = laterStore(memoryStore({ sizeBytes: PAGE }))
    expect([p.pager.inodeOf(other, undefined), p.pager.has(other)]).toEqual([0, false])
  })

  test('has six reads under way at most', async () => {
    const p = paged()
    const { map } = await p.open(64)
    for (let page = 0; page < 40; page += 5) touch(map, page)
    await settled()
    expect(p.asked).toHaveLength(6)
    p.asked[0].end(PAGE)
    await settled()
    expect(p.asked.map(({ first }) => first)).toEqual([0, 5, 10, 15, 20, 25, 30])
  })

  test('counts each read once', async () => {
    const p = paged()
    const { map } = await p.open(64)
    const before = p.side.m.vmstat[STORE_READS]
    touch(map, 3)
    await settled()
    p.asked[0].end(PAGE)
    await settled()
    expect(p.side.m.vmstat[STORE_READS]).toBe(before + 1)
  })
})

describe('signs of life', () => {
  test('are shown while any read is under way, and no longer', async () => {
    const p = paged()
    const { map } = await p.open(64)
    expect(p.host.beats).toEqual([])
    touch(map, 3)
    touch(map, 9)
    await settled()
    expect(p.host.beats.map(({ intervalMs }) => intervalMs)).toEqual([1000])
    const { threads, row } = p.side.m.sync
    const before = threads.w[row + T_PROGRESS]
    const { act } = p.host.beats[0]
    act()
    expect(threads.w[row + T_PROGRESS]).toBe(before + 1)
    p.asked[0].end(PAGE)
    await settled()
    expect(p.host.beats).toHaveLength(1)
    p.asked[1].end(PAGE)
    await settled()
    expect(p.host.beats).toEqual([])
    const later = threads.w[row + T_PROGRESS]
    act()
    expect(threads.w[row + T_PROGRESS]).toBe(later)
    touch(map, 20)
    await settled()
    expect(p.host.beats).toHaveLength(1)
    p.asked[2].end(PAGE)
    await settled()
    expect(p.host.beats).toEqual([])
  })
})

describe('buffers', () => {
  test('are used again, but not one that its store may write to still', async () => {
    const p = paged()
    const { map } = await p.open(64, { timeoutMs: 500 })
    for (const page of [0, 10, 20]) touch(map, page)
    await settled()
    expect(p.host.timers.map(({ delayMs }) => delayMs)).toEqual([500, 500, 500])
    const bytes = (): number => p.side.memory.stats().besideBytes['fetch buffers'] ?? 0
    expect(bytes()).toBe(3 * PAGE)
    // The first read takes too long; the second one ends.
    p.host.tick()
    await settled()
    expect(bytes()).toBe(2 * PAGE)
    p.asked[1].end(PAGE)
    await settled()
    expect(p.host.timers).toHaveLength(1)
    for (const page of [30, 40]) touch(map, page)
    await settled()
    expect(p.asked[3].buffer).toBe(p.asked[1].buffer)
    expect(p.asked[4].buffer).not.toBe(p.asked[0].buffer)
    for (const at of [2, 3, 4]) p.asked[at].end(PAGE)
    await settled()
    expect(bytes()).toBe(0)
    expect(p.host.timers).toEqual([])
  })

  test('together have no more than half of the frames, unless reads under way need it', async () => {
    const p = paged({ frames: 64 })
    const { map } = await p.open(64)
    const half = p.side.m.ram.u8.length / 2
    const { requests } = p.side.m.filler
    for (const page of [0, 10, 20, 30]) touch(map, page)
    await settled()
    p.asked[0].end(PAGE)
    p.asked[1].end(PAGE)
    await settled()
    expect(requests.bufferBytes).toBe(4 * PAGE)
    expect(requests.bufferBytes).toBeLessThanOrEqual(half)
  })
})

describe('failures', () => {
  test.each([
    [-4096, EIO],
    [-4095, 4095],
    [5 * PAGE, EIO]
  ])('an answer of %i is errno %i', async (answer, errno) => {
    const p = paged()
    const { map } = await p.open(8)
    const ready = map.ready({ offset: 0, length: PAGE }).catch((error: unknown) => error)
    await settled()
    p.asked[0].end(answer)
    expect(await ready).toMatchObject({ code: 'SIGBUS', errno: -errno })
  })

  test('a code that is no text is none, and a reason that is none has no words', async () => {
    const p = paged()
    const { map } = await p.open(8)
    const { requests } = p.side.m.filler
    for (const [thrown, why] of [
      [Object.assign(new Error('five'), { code: 116 }), 'five'],
      ['a text', 'a text'],
      [-7, '-7']
    ] as const) {
      const ready = map.ready({ offset: 0, length: PAGE }).catch((error: unknown) => error)
      await settled()
      p.asked.splice(0)[0].fail(thrown)
      expect(await ready).toMatchObject({ code: 'SIGBUS', errno: -EIO, cause: thrown })
      expect(requests.whyOf(requests.nrFailures - 1)).toBe(why)
    }
    touch(map, 0)
    await settled()
    p.asked.splice(0)[0].end(-116)
    await settled()
    expect(requests.whyOf(requests.nrFailures - 1)).toBe('')
    expect(requests.errnoOf(requests.nrFailures - 1)).toBe(116)
  })

  test('of which there are many are forgotten one by one', async () => {
    const p = paged()
    const { map } = await p.open(8)
    for (let i = 0; i <= 64; i++) {
      touch(map, 0)
      await settled()
      p.asked.splice(0)[0].fail(new Error(`failure ${i}`))
      await settled()
    }
    expect(p.pager.causeOf(0)).toBeUndefined()
    expect((p.pager.causeOf(1) as Error).message).toBe('failure 1')
    expect((p.pager.causeOf(64) as Error).message).toBe('failure 64')
  })
})

describe('pieces', () => {
  /** How often those were woken who sleep for a page, if anybody does. */
  function wakes(p: Paged, frame: number): () => number {
    const { sync } = p.side.m
    const queue = sync.queueOf(WAIT_PAGE, frame)
    sync.words[S_SLEEPERS + queue] = 1
    const before = sync.words[S_QUEUES + queue]
    return () => sync.words[S_QUEUES + queue] - before
  }

  function silence(p: Paged): void {
    const { words } = p.side.m.sync
    words.fill(0, S_SLEEPERS, S_SLEEPERS + 64)
  }

  test('that come in one millisecond wake those who wait together, a little later', async () => {
    const p = paged()
    const { map, file } = await p.open(8, { pieces: true })
    for (const page of [0, 1, 2, 3]) touch(map, page)
    await settled()
    let ms = 1000
    performance.now = () => ms
    const piece = new Uint8Array(PAGE)
    const woken = [0, 1, 2, 3].map(page => wakes(p, p.frameOf(file, page)))
    const seen = (): number[] => woken.map(count => count())
    p.asked[0].take(piece)
    expect(seen()).toEqual([1, 0, 0, 0])
    expect(p.host.timers).toEqual([])
    p.asked[0].take(piece)
    expect(p.host.timers.map(({ delayMs }) => delayMs)).toEqual([1])
    p.asked[0].take(piece)
    expect(p.host.timers).toHaveLength(1)
    expect(seen()).toEqual([1, 0, 0, 0])
    expect(p.state(file, 5)).toBe('xxx?.')
    ms = 1001
    p.host.tick()
    expect(seen()).toEqual([1, 1, 1, 0])
    p.asked[0].take(piece)
    expect(p.host.timers.map(({ delayMs }) => delayMs)).toEqual([1])
    p.asked[0].end(4 * PAGE)
    await settled()
    expect(seen()).toEqual([1, 1, 1, 1])
    silence(p)
    p.host.tick()
    expect(seen()).toEqual([1, 1, 1, 1])
  })

  test('that come in the next one wake at once', async () => {
    const p = paged()
    const { map, file } = await p.open(8, { pieces: true })
    for (const page of [0, 1]) touch(map, page)
    await settled()
    let ms = 1000
    performance.now = () => ms
    const woken = [0, 1].map(page => wakes(p, p.frameOf(file, page)))
    p.asked[0].take(new Uint8Array(PAGE))
    ms++
    p.asked[0].take(new Uint8Array(PAGE))
    expect(woken.map(count => count())).toEqual([1, 1])
    expect(p.host.timers).toEqual([])
    silence(p)
    p.asked[0].end(2 * PAGE)
    await settled()
  })

  test('tell those who wait without blocking with each megabyte, and in the end', async () => {
    const p = paged({ frames: 3000 })
    const { map } = await p.open(700, { pieces: true })
    map.advise('willneed', { offset: 0, length: 600 * PAGE })
    await settled()
    expect(p.asked.map(({ first, pages }) => [first, pages])).toEqual([[0, 600]])
    const { state } = p.side.m.filler.requests
    const before = state[Q_SETTLED]
    const told = (): number => state[Q_SETTLED] - before
    const seen: number[] = []
    for (let i = 0; i < 6; i++) {
      p.asked[0].take(new Uint8Array(100 * PAGE))
      seen.push(told())
    }
    // After 300 and 600 pages: each time it is the first hundred beyond 256.
    expect(seen).toEqual([0, 0, 1, 1, 1, 2])
    p.asked[0].end(600 * PAGE)
    await settled()
    expect(told()).toBe(3)
  })

  test('that come while the lock is busy are kept, and put with the next one, or in the end', async () => {
    const p = paged({}, rig => rig.attach(8, { maySleep: false }))
    const { map, file } = await p.open(8, { pieces: true })
    for (const page of [0, 1, 2]) touch(map, page)
    await settled()
    const { m } = p.rig.mine
    const [read] = p.asked
    expect(m.enter()).toBe(true)
    read.take(new Uint8Array(PAGE).fill(1))
    m.leave()
    expect(p.state(file, 3)).toBe('???')
    read.take(new Uint8Array(PAGE).fill(2))
    expect(p.state(file, 3)).toBe('xx?')
    expect(m.enter()).toBe(true)
    read.take(new Uint8Array(PAGE).fill(3))
    m.leave()
    read.end(3 * PAGE)
    await settled()
    expect([0, 1, 2].map(page => map.getUint8(page * PAGE))).toEqual([1, 2, 3])
  })
})
