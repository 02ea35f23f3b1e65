/** The shadow table alone, its guest written in JavaScript: the protocol, the entries' bits, other page sizes. */
import { afterEach, describe, expect, test } from 'vitest'
import {
  FaultError,
  FremapError,
  type Mapping,
  Memory,
  SHADOW_READ,
  SHADOW_WRITE,
  ShadowTable
} from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { rounds } from '../support/suite.ts'

const TABLE_AT = 4096
const RAM_AT = 2 ** 20
const NR_ENTRIES = 4096

interface World {
  readonly buffer: SharedArrayBuffer
  readonly memory: Memory
  readonly map: Mapping
  readonly table: ShadowTable
}

const worlds: World[] = []

afterEach(() => {
  for (const { memory, table } of worlds.splice(0)) {
    expect(table.verify()).toEqual([])
    expect(memory.check()).toEqual([])
    memory.close()
  }
})

/**
 * A window over a store of `pages` pages, and a table for it. `onRead` is called by the store, in the middle of a
 * fault.
 */
function world(pages: number, pageSize = 4096, onRead: () => void = () => {}): World {
  const buffer = new SharedArrayBuffer(RAM_AT + 64 * pageSize)
  const store = memoryStore({ sizeBytes: pages * pageSize })
  const read = store.read.bind(store)
  store.read = (...args) => {
    onRead()
    return read(...args)
  }
  const memory = new Memory({ size: 64 * pageSize, pageSize, readahead: 0, ram: { buffer, byteOffset: RAM_AT } })
  const map = memory.space().map(memory.open(store), { writable: true })
  const table = new ShadowTable(map, { byteOffset: TABLE_AT, nrEntries: NR_ENTRIES })
  const made = { buffer, memory, map, table }
  worlds.push(made)
  return made
}

/** The guest: the byte at an offset of the window, or a store to it. */
function guestOf({ buffer, map, table }: World): {
  load(at: number): number
  store(at: number, value: number): void
} {
  const bytes = new Uint8Array(buffer)
  const words = new Int32Array(buffer, TABLE_AT + 64, NR_ENTRIES)
  const { pageSize } = map
  const place = (at: number, need: number): number => {
    const page = Math.floor(at / pageSize)
    while (((words[page] ?? 0) & need) === 0) table.fault(page, need)
    return (words[page] >>> 0) - ((words[page] >>> 0) % pageSize) + (at % pageSize)
  }
  return {
    load: at => bytes[place(at, SHADOW_READ)],
    store: (at, value) => {
      bytes[place(at, SHADOW_WRITE)] = value
    }
  }
}

const seed = Date.now() % 1_000_000
test.each([512, 1024, 4096, 65536])(
  `random loads and stores agree with a model, pages of %i bytes; seed ${seed}`,
  pageSize => {
    const rng = new Prng(seed)
    const pages = 200
    const w = world(pages, pageSize)
    const guest = guestOf(w)
    const model = new Uint8Array(pages * pageSize)
    const shown = Int32Array.from({ length: pages }, (_, i) => i)
    for (let step = 0; step < rounds(2500, 5000); step++) {
      const page = rng.below(pages)
      const off = rng.below(pageSize)
      const what = rng.below(100)
      if (what < 50) {
        expect(guest.load(page * pageSize + off), `step ${step}`).toBe(model[shown[page] * pageSize + off])
      } else if (what < 92) {
        const value = rng.below(256)
        guest.store(page * pageSize + off, value)
        model[shown[page] * pageSize + off] = value
      } else if (what < 97) {
        const count = rng.between(1, Math.min(5, pages - page))
        const first = rng.below(pages - count)
        w.map.remap({ at: page, page: first, count })
        for (let i = 0; i < count; i++) shown[page + i] = first + i
      } else if (what < 98) w.memory.shrink()
      else if (what < 99) w.map.sync()
      else expect(w.table.verify()).toEqual([])
    }
    expect(w.table.nrCleared).toBeGreaterThan(rounds(50, 100))
  }
)

describe('a fault that an invalidation comes into the middle of', () => {
  test('of a page: what is filled in is what the entry says afterwards', () => {
    let evicting = true
    const w: World = world(8, 4096, () => {
      // As the fault's own reclaim would: the page before is taken away while this one is read.
      const { cache, rmap } = w.memory.machine
      const frame = w.memory.machine.tables.get(w.map.mmId, w.map.address / 4096 + 2) >>> 8
      if (evicting && frame !== 0 && cache.lookup(1, 2) === frame) rmap.unmapAll(frame)
      if (frame !== 0) evicting = false
    })
    const guest = guestOf(w)
    expect(guest.load(2 * 4096)).toBe(0)
    expect(guest.load(3 * 4096)).toBe(0)
    expect(evicting).toBe(false)
    expect(w.table.entry(2)).toBe(0)
    expect(w.table.entry(3) & SHADOW_READ).toBe(SHADOW_READ)
  })

  test('of a range that does not end: nothing is filled', () => {
    let range: [number, number, number] | undefined
    const w: World = world(8, 4096, () => {
      const first = w.map.address / 4096
      range = [w.map.mmId, first, first + 8]
      w.memory.machine.notifiers.rangeStart(...range)
    })
    expect(() => w.table.fault(3, SHADOW_READ)).toThrow(FaultError)
    expect(w.table.nrPresent).toBe(0)
    w.memory.machine.notifiers.rangeEnd(...(range ?? [0, 0, 0]))
    w.table.fault(3, SHADOW_READ)
    expect(w.table.nrPresent).toBe(1)
  })
})

test('an entry is the address of the frame, READ, and WRITE once the page is dirty', () => {
  const w = world(8)
  w.table.fault(2, SHADOW_READ)
  const pte = w.memory.machine.tables.get(w.map.mmId, w.map.address / 4096 + 2)
  expect(w.table.entry(2)).toBe(RAM_AT + (pte >>> 8) * 4096 + SHADOW_READ)
  w.table.fault(2, SHADOW_WRITE)
  expect(w.table.entry(2)).toBe(RAM_AT + (pte >>> 8) * 4096 + SHADOW_READ + SHADOW_WRITE)
  w.map.setUint8(4 * 4096, 1)
  w.table.fault(4, SHADOW_READ)
  expect(w.table.entry(4) & SHADOW_WRITE).toBe(SHADOW_WRITE)
})

test('what stood at the place of the table is gone, and nothing beside it is touched', () => {
  const w = world(8)
  w.table.fault(1, SHADOW_READ)
  const words = new Int32Array(w.buffer)
  const before = TABLE_AT / 4 - 1
  const after = (TABLE_AT + ShadowTable.bytesFor(NR_ENTRIES)) / 4
  words[before] = 7
  words[after] = 7
  w.table.close()
  words.fill(-1, before + 1, after)
  const table = new ShadowTable(w.map, { byteOffset: TABLE_AT, nrEntries: NR_ENTRIES })
  expect(words.subarray(before, after + 1).filter(word => word !== 0)).toEqual(Int32Array.of(7, 7))
  table.fault(1, SHADOW_READ)
  expect(words[before + 1 + 16 + 1]).toBe(table.entry(1) | 0)
  w.map.unmap()
  expect(words.subarray(before, after + 1).filter(word => word !== 0)).toEqual(Int32Array.of(7, 7))
})

test('closing takes the table off: entries go, invalidations pass it by, twice does nothing', () => {
  const w = world(8)
  w.table.fault(1, SHADOW_READ)
  w.table.close()
  w.table.close()
  expect(w.table.nrPresent).toBe(0)
  expect(w.memory.machine.notifiers.has(w.map.mmId)).toBe(false)
  w.map.remap({ at: 0, page: 4 })
  expect(() => w.table.fault(1, SHADOW_READ)).toThrow(FaultError)
})

test('refuses places that cannot be', () => {
  const { map, buffer } = world(8)
  const at = (byteOffset: number, nrEntries: number) => () => new ShadowTable(map, { byteOffset, nrEntries })
  expect(at(0, 0)).toThrow(RangeError)
  expect(at(2, 16)).toThrow(RangeError)
  expect(at(RAM_AT + 4096, 16)).toThrow(/among the frames/)
  expect(at(RAM_AT - 64, 16)).toThrow(/among the frames/)
  expect(at(buffer.byteLength - 64, 16)).toThrow(RangeError)
  map.space.close()
  expect(at(0, 16)).toThrow(FremapError)
})

test('fifteen threads can be admitted, and a slot is had again', () => {
  const { table } = world(8)
  const slots = Array.from({ length: 15 }, () => table.admit())
  expect(new Set(slots).size).toBe(15)
  expect(() => table.admit()).toThrow(RangeError)
  table.expel(slots[6])
  expect(table.admit()).toBe(slots[6])
})
