/**
 * Every thread owns a lane of bytes in each page and knows what it stored there; all use the same pages at once, by
 * mappings of many kinds, by the file, by borrowed pages, and change their windows all the while. After LTP's
 * mmapstress01, 09 and 10: processes that write slots of their own at random, with forks and msyncs in between, and a
 * file that must be the sum of it in the end.
 *
 *   page   0..3 border | lane of thread 0 | lane of thread 1 | ...        | last 4: border
 *
 * Border p is the last 4 bytes of page p and the first 4 of page p + 1: a value across two pages, thread p % threads is
 * its owner.
 */
import type { AddressSpace, Mapping } from '../../src/index.ts'
import { codeOf, type Env } from './env.ts'

export const LANE_BYTES = 32
const FIRST_LANE = 8

export function laneAt(thread: number): number {
  return FIRST_LANE + thread * LANE_BYTES
}

/** What a thread stored: its lane of each page, lane of private pages, and the borders that it owns. */
export interface LaneModel {
  readonly lanes: Uint8Array
  readonly own: Uint8Array
  readonly borders: Uint32Array
  /** The file page that it stored to last: on a broken memory that may have been cut off half-way. */
  lastPage: number
}

interface Window {
  map: Mapping
  readonly space: AddressSpace
  /** File page of each page of the window, or undefined where it is the window's place in the file. */
  shown: Int32Array
}

type Operation = readonly [weight: number, run: (l: Lanes) => void]

/** Loads and stores for the most part; the rest is what makes them hard. */
const OPERATIONS: readonly Operation[] = [
  [120, l => l.load()],
  [120, l => l.store()],
  [20, l => l.loadOwn()],
  [20, l => l.storeOwn()],
  [40, l => l.border()],
  [15, l => l.bulkRead()],
  [15, l => l.bulkWrite()],
  [10, l => l.fileRead()],
  [10, l => l.fileWrite()],
  [20, l => l.remap()],
  [4, l => l.remapAll()],
  [6, l => l.protect()],
  [4, l => l.mapAgain()],
  [8, l => l.advise()],
  [3, l => l.populate()],
  [4, l => l.lock()],
  [8, l => l.borrow()],
  [2, l => l.fork()],
  [1, l => l.sync()],
  [1, l => l.shrink()]
]

const SUM = OPERATIONS.reduce((sum, [weight]) => sum + weight, 0)

export function lanes(env: Env): LaneModel {
  const l = new Lanes(env)
  while (!env.isOver) {
    for (let i = 0; i < 32 && !env.isBroken; i++) {
      let at = env.prng.below(SUM)
      const operation = OPERATIONS.find(([weight]) => (at -= weight) < 0) as Operation
      operation[1](l)
    }
  }
  if (!env.isBroken) l.end()
  return l.model
}

class Lanes {
  readonly model: LaneModel
  readonly #env: Env
  readonly #pages: number
  readonly #pageSize: number
  readonly #lane: number
  readonly #file
  readonly #whole: Window
  readonly #own: Mapping
  readonly #ownPages: number
  readonly #privateSpace: AddressSpace
  /** The whole file, a window in the common space, and one in a space of this thread's own. */
  readonly #windows: Window[]

  constructor(env: Env) {
    const { config, memory, task } = env
    this.#env = env
    this.#pages = config.pages
    this.#pageSize = config.pageSize
    this.#lane = laneAt(env.me)
    this.#file = env.file()
    this.#own = memory.adopt(task.own)
    this.#ownPages = this.#own.pageCount
    this.model = {
      lanes: new Uint8Array(config.pages * LANE_BYTES),
      own: new Uint8Array(this.#ownPages * LANE_BYTES),
      borders: new Uint32Array(config.pages),
      lastPage: -1
    }
    const common = memory.adopt(task.space)
    this.#privateSpace = memory.space()
    this.#whole = { map: memory.adopt(task.whole), space: common, shown: inOrder(config.pages) }
    this.#windows = [this.#whole]
    for (const space of [common, this.#privateSpace]) {
      const map = this.#mapped(space)
      if (map !== undefined) this.#windows.push({ map, space, shown: inOrder(config.pages) })
    }
  }

  #mapped(space: AddressSpace): Mapping | undefined {
    let map: Mapping | undefined
    this.#env.attempt('map', () => {
      map = space.map(this.#file, { writable: true })
    })
    return map
  }

  /** A window and one of its pages. */
  #pick(): [Window, number] {
    const { prng } = this.#env
    return [prng.pick(this.#windows), prng.below(this.#pages)]
  }

  /** A window of this thread's own, or undefined where there was no memory for any. */
  #pickOwn(): Window | undefined {
    return this.#windows.length === 1 ? undefined : this.#env.prng.pick(this.#windows.slice(1))
  }

  load(): void {
    const [window, page] = this.#pick()
    const at = this.#env.prng.below(LANE_BYTES)
    const index = window.shown[page]
    this.#env.attempt('load', () => {
      const value = window.map.getUint8(page * this.#pageSize + this.#lane + at)
      this.#env.expect(value, this.model.lanes[index * LANE_BYTES + at], () => `byte ${at} of file page ${index}`)
    })
  }

  store(): void {
    const { prng } = this.#env
    const [window, page] = this.#pick()
    const value = prng.next()
    const at = prng.below(LANE_BYTES - 7)
    const offset = page * this.#pageSize + this.#lane + at
    const model = new DataView(this.model.lanes.buffer, window.shown[page] * LANE_BYTES + at)
    const kind = prng.below(4)
    this.model.lastPage = window.shown[page]
    this.#env.attempt('store', () => {
      if (kind === 0) window.map.setUint8(offset, value & 0xff)
      else if (kind === 1) window.map.setUint16(offset, value & 0xffff)
      else if (kind === 2) window.map.setUint32(offset, value)
      else window.map.setFloat64(offset, value)
      if (kind === 0) model.setUint8(0, value)
      else if (kind === 1) model.setUint16(0, value, true)
      else if (kind === 2) model.setUint32(0, value, true)
      else model.setFloat64(0, value, true)
    })
  }

  loadOwn(): void {
    const { prng } = this.#env
    const page = prng.below(this.#ownPages)
    const at = prng.below(LANE_BYTES)
    this.#env.attempt('load of private memory', () => {
      const value = this.#own.getUint8(page * this.#pageSize + this.#lane + at)
      this.#env.expect(value, this.model.own[page * LANE_BYTES + at], () => `byte ${at} of private page ${page}`)
    })
  }

  storeOwn(): void {
    const { prng } = this.#env
    const page = prng.below(this.#ownPages)
    const at = prng.below(LANE_BYTES)
    const value = prng.below(256)
    this.#env.attempt('store to private memory', () => {
      this.#own.setUint8(page * this.#pageSize + this.#lane + at, value)
      this.model.own[page * LANE_BYTES + at] = value
    })
  }

  /** A load of, and a store to, 8 bytes across two pages. */
  border(): void {
    const { prng, config, me } = this.#env
    const [window, at] = this.#pick()
    const page = window.shown[at]
    if (page % config.threads !== me || at + 1 === this.#pages || window.shown[at + 1] !== page + 1) return
    const offset = (at + 1) * this.#pageSize - 4
    this.#env.attempt('access across pages', () => {
      const seen = window.map.getFloat64(offset)
      this.#env.expect(seen, this.model.borders[page], () => `the border of file pages ${page} and ${page + 1}`)
      const value = prng.next()
      this.model.lastPage = page
      window.map.setFloat64(offset, value)
      this.model.borders[page] = value
    })
  }

  bulkRead(): void {
    const [window, page] = this.#pick()
    const bytes = new Uint8Array(LANE_BYTES)
    this.#env.attempt('bulk read', () => {
      window.map.read(bytes, page * this.#pageSize + this.#lane)
      this.#compare(bytes, window.shown[page], 'a bulk read')
    })
  }

  bulkWrite(): void {
    const [window, page] = this.#pick()
    const bytes = this.#bytes()
    this.model.lastPage = window.shown[page]
    this.#env.attempt('bulk write', () => {
      window.map.write(bytes, page * this.#pageSize + this.#lane)
      this.model.lanes.set(bytes, window.shown[page] * LANE_BYTES)
    })
  }

  fileRead(): void {
    const page = this.#env.prng.below(this.#pages)
    const bytes = new Uint8Array(LANE_BYTES)
    this.#env.attempt('read', () => {
      const got = this.#file.read(bytes, page * this.#pageSize + this.#lane)
      this.#env.expect(got, LANE_BYTES, () => 'the count of a read')
      this.#compare(bytes, page, 'a read')
    })
  }

  fileWrite(): void {
    const page = this.#env.prng.below(this.#pages)
    const bytes = this.#bytes()
    this.model.lastPage = page
    this.#env.attempt('write', () => {
      this.#file.write(bytes, page * this.#pageSize + this.#lane)
      this.model.lanes.set(bytes, page * LANE_BYTES)
    })
  }

  remap(): void {
    const window = this.#pickOwn()
    if (window === undefined) return
    const { prng } = this.#env
    const at = prng.below(this.#pages)
    const page = prng.below(this.#pages)
    const count = prng.between(1, this.#pages - Math.max(at, page))
    const done = this.#env.attempt('remap', () => {
      window.map.remap({ at, page, count, populate: prng.oneIn(8) })
      for (let i = 0; i < count; i++) window.shown[at + i] = page + i
    })
    if (!done) this.#learn(window)
  }

  remapAll(): void {
    const window = this.#pickOwn()
    if (window === undefined) return
    const { prng } = this.#env
    const order = Int32Array.from({ length: this.#pages }, () => prng.below(this.#pages))
    const done = this.#env.attempt('remapPages', () => {
      window.map.remapPages(0, order)
      window.shown = order
    })
    if (!done) this.#learn(window)
  }

  /** A call that ran out of memory half way has changed some entries. */
  #learn(window: Window): void {
    for (let page = 0; page < this.#pages; page++) window.shown[page] = window.map.filePage(page)
  }

  /** Takes the right to store away, and gives it back. */
  protect(): void {
    const window = this.#pickOwn()
    if (window === undefined) return
    const page = this.#env.prng.below(this.#pages)
    const range = { offset: page * this.#pageSize, length: this.#pageSize }
    this.#env.attempt('protect', () => {
      window.map.protect('read', range)
      try {
        window.map.setUint8(page * this.#pageSize + this.#lane, 1)
        this.#env.wrong(`a store to a read-only page succeeded`)
      } catch (error) {
        if (codeOf(error) !== 'SIGSEGV') throw error
      } finally {
        window.map.protect('write', range)
      }
    })
  }

  mapAgain(): void {
    const window = this.#pickOwn()
    if (window === undefined) return
    this.#env.attempt('unmap', () => window.map.unmap())
    const map = this.#mapped(window.space)
    if (map === undefined) {
      this.#windows.splice(this.#windows.indexOf(window), 1)
      return
    }
    window.map = map
    window.shown = inOrder(this.#pages)
  }

  advise(): void {
    const [window, page] = this.#pick()
    const { prng } = this.#env
    const advice = prng.pick(['dontneed', 'dontneed', 'willneed', 'random', 'sequential', 'normal'] as const)
    // Vmas of the common window would be split by advice on a part of it.
    const isWhole = window === this.#whole || (advice !== 'dontneed' && advice !== 'willneed')
    const range = isWhole ? {} : { offset: page * this.#pageSize, length: this.#pageSize }
    this.#env.attempt('advise', () => window.map.advise(advice, range))
  }

  populate(): void {
    const [window, page] = this.#pick()
    const count = this.#env.prng.between(1, this.#pages - page)
    const range = { offset: page * this.#pageSize, length: count * this.#pageSize }
    this.#env.attempt('populate', () => window.map.populateSync(range))
  }

  lock(): void {
    const window = this.#pickOwn()
    if (window === undefined || this.#env.config.frames < 40) return
    const page = this.#env.prng.below(this.#pages)
    const range = { offset: page * this.#pageSize, length: this.#pageSize }
    this.#env.attempt('lock', () => {
      try {
        window.map.lock(range)
        this.load()
      } finally {
        window.map.unlock(range)
      }
    })
  }

  borrow(): void {
    const [window, page] = this.#pick()
    const { prng } = this.#env
    const at = prng.below(LANE_BYTES)
    const index = window.shown[page]
    const writes = prng.oneIn(2)
    this.#env.attempt('borrow', () => {
      using borrowed = window.map.borrow(page, writes ? 'write' : 'read')
      const seen = borrowed.bytes[this.#lane + at]
      this.#env.expect(
        seen,
        this.model.lanes[index * LANE_BYTES + at],
        () => `borrowed byte ${at} of file page ${index}`
      )
      if (!writes) return
      const value = prng.below(256)
      borrowed.bytes[this.#lane + at] = value
      this.model.lanes[index * LANE_BYTES + at] = value
    })
  }

  /** A fork of this thread's own space has what it had, and does not see what is stored afterwards. */
  fork(): void {
    const { prng } = this.#env
    const window = this.#windows.find(one => one.space === this.#privateSpace)
    this.#env.attempt('fork', () => {
      const memory = this.#privateSpace.map(null, { length: this.#pageSize, writable: true })
      try {
        const value = prng.next()
        memory.setUint32(0, value)
        const child = this.#privateSpace.fork()
        try {
          memory.setUint32(0, value ^ 1)
          const view = child.view(memory)
          this.#env.expect(view.getUint32(0), value, () => 'private memory of a child')
          view.setUint32(0, 7)
          this.#env.expect(memory.getUint32(0), (value ^ 1) >>> 0, () => 'private memory of a parent')
          if (window !== undefined) {
            const page = prng.below(this.#pages)
            const seen = child.view(window.map).getUint8(page * this.#pageSize + this.#lane)
            this.#env.expect(seen, this.model.lanes[window.shown[page] * LANE_BYTES], () => 'what a child shows')
          }
        } finally {
          child.close()
        }
      } finally {
        memory.unmap()
      }
    })
  }

  sync(): void {
    const [window] = this.#pick()
    this.#env.attempt('sync', () => (this.#env.prng.oneIn(2) ? this.#file.sync() : window.map.sync()))
  }

  shrink(): void {
    this.#env.attempt('shrink', () => this.#env.memory.shrink())
  }

  /** Takes away what this thread has mapped. */
  end(): void {
    for (const { map } of this.#windows.slice(1)) map.unmap()
    this.#privateSpace.close()
  }

  #bytes(): Uint8Array {
    const bytes = new Uint8Array(LANE_BYTES)
    for (let i = 0; i < LANE_BYTES; i++) bytes[i] = this.#env.prng.below(256)
    return bytes
  }

  #compare(bytes: Uint8Array, page: number, what: string): void {
    for (let i = 0; i < LANE_BYTES; i++) {
      this.#env.expect(
        bytes[i],
        this.model.lanes[page * LANE_BYTES + i],
        () => `byte ${i} of file page ${page} by ${what}`
      )
    }
  }
}

function inOrder(pages: number): Int32Array {
  return Int32Array.from({ length: pages }, (_, i) => i)
}
