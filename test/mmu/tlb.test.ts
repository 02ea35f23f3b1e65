/** The software TLB: never stale, whatever happens to the page tables, in one thread and in several. */
import { afterEach, expect, test } from 'vitest'
import { EOWNERDEAD } from '../../src/abi/errno.ts'
import { FaultError, type Mapping, Memory, SHADOW_READ, SHADOW_WRITE, Tlb } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { DROPPED, PAGE, STOP, useWorlds } from '../support/shared-guest.ts'
import { rounds } from '../support/suite.ts'

const TLB_AT = 4096
const RAM_AT = 2 ** 20
const seed = Date.now() % 1_000_000

interface Alone {
  readonly memory: Memory
  readonly map: Mapping
  readonly tlb: Tlb
  readonly bytes: Uint8Array
  readonly vpn: number
}

const memories: Memory[] = []
afterEach(() => {
  for (const memory of memories.splice(0)) {
    expect(memory.check()).toEqual([])
    memory.close()
  }
})

/** A machine of one thread, a window over `pages` pages of a store, and a TLB. */
function alone(pages: number, nrEntries: number, isPrivate = false): Alone {
  const buffer = new SharedArrayBuffer(RAM_AT + 64 * PAGE)
  const swap = { store: memoryStore(), size: 256 * PAGE }
  const memory = new Memory({ size: 64 * PAGE, readahead: 0, ram: { buffer, byteOffset: RAM_AT }, debug: true, swap })
  memories.push(memory)
  const space = memory.space()
  const store = memoryStore({ sizeBytes: pages * PAGE })
  const map = space.map(memory.open(store), { writable: true, private: isPrivate })
  const tlb = new Tlb(space, { byteOffset: TLB_AT, nrEntries })
  return { memory, map, tlb, bytes: new Uint8Array(buffer), vpn: map.address / PAGE }
}

test.each([1, 16, 1024])(`random loads and stores agree with a model, %i entries; seed ${seed}`, nrEntries => {
  const rng = new Prng(seed)
  const pages = 100
  const { memory, map, tlb, bytes, vpn } = alone(pages, nrEntries)
  const model = new Uint8Array(pages * PAGE)
  const shown = Int32Array.from({ length: pages }, (_, i) => i)
  for (let step = 0; step < 5000; step++) {
    const page = rng.below(pages)
    const off = rng.below(PAGE)
    const what = rng.below(100)
    if (what < 50) {
      const found = bytes[tlb.translate(vpn + page, SHADOW_READ) + off]
      expect(found, `step ${step}`).toBe(model[shown[page] * PAGE + off])
    } else if (what < 90) {
      const value = rng.below(256)
      bytes[tlb.translate(vpn + page, SHADOW_WRITE) + off] = value
      model[shown[page] * PAGE + off] = value
    } else if (what < 97) {
      const count = rng.between(1, Math.min(5, pages - page))
      const first = rng.below(pages - count)
      map.remap({ at: page, page: first, count })
      for (let i = 0; i < count; i++) shown[page + i] = first + i
    } else if (what < 98) memory.shrink()
    else if (what < 99) map.sync()
    else expect(memory.check()).toEqual([])
  }
  expect(tlb.nrDropped).toBeGreaterThan(nrEntries === 1 ? 0 : 100)
})

test('a hit asks nobody; a store to a clean page, and another page of the same entry, miss', () => {
  const { map, tlb, vpn } = alone(40, 16)
  tlb.translate(vpn, SHADOW_READ)
  tlb.translate(vpn, SHADOW_READ)
  expect(tlb.nrMisses).toBe(1)
  tlb.translate(vpn, SHADOW_WRITE)
  tlb.translate(vpn, SHADOW_WRITE)
  expect(tlb.nrMisses).toBe(2)
  map.sync()
  tlb.translate(vpn, SHADOW_WRITE)
  expect(tlb.nrMisses).toBe(3)
  tlb.translate(vpn + 16, SHADOW_READ)
  tlb.translate(vpn, SHADOW_READ)
  expect(tlb.nrMisses).toBe(5)
})

test('a private page is copied under it, and a fork takes its right to store', () => {
  const { map, tlb, bytes, vpn } = alone(4, 16, true)
  expect(bytes[tlb.translate(vpn, SHADOW_READ)]).toBe(0)
  bytes[tlb.translate(vpn, SHADOW_WRITE)] = 5
  const child = map.space.fork()
  bytes[tlb.translate(vpn, SHADOW_WRITE)] = 6
  expect(child.view(map).getUint8(0)).toBe(5)
  expect(map.getUint8(0)).toBe(6)
  child.close()
})

test('what Linux would send a signal for is an error; so is any access after the end of the space', () => {
  const { map, tlb, vpn } = alone(4, 16)
  expect(() => tlb.translate(vpn + 4, SHADOW_READ)).toThrow(FaultError)
  map.protect('read')
  expect(() => tlb.translate(vpn, SHADOW_WRITE)).toThrow(/SIGSEGV/)
  tlb.translate(vpn, SHADOW_READ)
  map.unmap()
  expect(() => tlb.translate(vpn, SHADOW_READ)).toThrow(/SIGSEGV/)
  map.space.close()
  expect(() => tlb.translate(vpn, SHADOW_READ)).toThrow(/ESRCH/)
})

test('refuses places that cannot be; closing twice does nothing', () => {
  const { map, tlb } = alone(4, 16)
  for (const nrEntries of [0, 3, 1.5, -2]) {
    expect(() => new Tlb(map.space, { byteOffset: 0, nrEntries })).toThrow(RangeError)
  }
  expect(() => new Tlb(map.space, { byteOffset: RAM_AT, nrEntries: 4 })).toThrow(/among the frames/)
  tlb.close()
  tlb.close()
  expect(() => tlb.translate(map.address / PAGE, SHADOW_READ)).toThrow(/ENOMEM/)
})

const world = useWorlds()

test(`two threads with a TLB each, a third that takes pages away; one of them ends; seed ${seed}`, async () => {
  const lane = 60
  const pages = 3 * lane + 64
  const w = world(new Uint8Array(pages * PAGE))
  const shown = Int32Array.from({ length: pages }, (_, i) => i)
  w.map.remapPages(0, shown)
  const [disturber, one, two] = [w.thread({ table: false }), w.thread({ table: false }), w.thread({ table: false })]
  const disturbed = disturber.do('disturb', {
    seed,
    shown: [...shown],
    own: [2 * lane, lane],
    tail: [3 * lane, 64],
    spare: 2 * lane - 1
  })
  await w.ready(1)
  const place = (i: number): object => ({
    first: i * lane,
    pages: lane,
    at: w.place.scratchAt + i * 8192,
    nrEntries: 64
  })
  const counting = one.do('count', { seed, steps: rounds(60_000, 300_000), ...place(0) })
  const ended = two.ended()
  void two
    .do('count', { seed: seed + 1, steps: rounds(60_000, 300_000), endsAt: rounds(5000, 20_000), ...place(1) })
    .catch(() => {})
  await ended
  await w.reached(DROPPED, 1)
  Atomics.store(w.control, STOP, 1)
  const { counts, ...told } = (await counting) as { counts: Int32Array } & Record<string, number>
  await disturbed
  // Whether anybody had to wait for this thread is a matter of the moment.
  expect(Math.min(told.nrMisses, told.nrDropped), JSON.stringify(told)).toBeGreaterThan(0)
  const found = Int32Array.from({ length: lane }, (_, page) => w.map.getInt32(page * PAGE + 4))
  expect(found).toEqual(counts)
})

test('of a broken memory says what broke it, as mappings do', () => {
  const buffer = new SharedArrayBuffer(RAM_AT + 64 * PAGE)
  const memory = new Memory({ size: 64 * PAGE, threads: 2, ram: { buffer, byteOffset: RAM_AT } })
  const space = memory.space()
  const map = space.map(null, { length: 4 * PAGE, writable: true })
  const tlb = new Tlb(space, { byteOffset: TLB_AT, nrEntries: 8 })
  memory.machine.sync.declareBroken(EOWNERDEAD)
  const broken = { name: 'FremapError', code: 'EOWNERDEAD', errno: -EOWNERDEAD }
  const translate = () => tlb.guest().run(() => tlb.translate(map.address / PAGE, SHADOW_READ))
  expect(translate).toThrow(expect.objectContaining(broken))
  expect(() => map.getUint8(0)).toThrow(expect.objectContaining(broken))
})
