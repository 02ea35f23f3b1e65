/** A WebAssembly guest reads and writes a mapped file in place, through a shadow table, while its pages come and go. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { FaultError, type MappedFile, type Mapping, Memory, type MemoryOptions, ShadowTable } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { builtGuest } from '../support/built.ts'
import { type Guest, type GuestMemory, makeGuestMemory, startGuest } from '../support/guest.ts'
import { rounds } from '../support/suite.ts'

const PAGE = 4096
const BUDGET = 512 * 1024
const SCRATCH_BYTES = 1 << 20

let binary: Uint8Array
let folder: string
beforeAll(async () => {
  binary = await builtGuest()
})
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fremap-guest-'))
})

interface World {
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
  readonly table: ShadowTable
  readonly guest: Guest
  readonly place: GuestMemory
  readonly freeAtStart: number
  /** Called at each guest fault, before it is handled. */
  onFault: (page: number) => void
}

const worlds: World[] = []

afterEach(() => {
  for (const { memory, table, map, file, freeAtStart } of worlds.splice(0)) {
    expect(memory.check()).toEqual([])
    expect(table.verify()).toEqual([])
    // Nothing was pinned: all that is left are what the window holds of its page tables.
    memory.shrink()
    expect(table.nrPresent).toBe(0)
    table.close()
    map.unmap()
    file.close()
    memory.shrink()
    expect(memory.stats().freeFrames).toBe(freeAtStart)
    expect(memory.check()).toEqual([])
    memory.close()
  }
  rmSync(folder, { recursive: true, force: true })
})

/** A guest over a window that shows all of a file. */
function world(open: (memory: Memory) => MappedFile, options: Partial<MemoryOptions> = {}, isPrivate = false): World {
  const place = makeGuestMemory(BUDGET, SCRATCH_BYTES)
  const memory = new Memory({ size: BUDGET, ram: place.ram, debug: true, ...options })
  const freeAtStart = memory.stats().freeFrames
  const file = open(memory)
  const map = memory.space().map(file, { writable: true, private: isPrivate })
  const table = new ShadowTable(map, place.table)
  const guest = startGuest(binary, place.memory, {
    fault: (page, access) => {
      made.onFault(page)
      table.fault(page, access)
    },
    passed: () => expect.unreachable('nobody waits for the guest')
  })
  const made: World = { memory, file, map, table, guest, place, freeAtStart, onFault: () => {} }
  worlds.push(made)
  return made
}

/** Bytes that are all different from page to page. */
function sample(pages: number): Buffer {
  const bytes = Buffer.alloc(pages * PAGE)
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 0x9e3779b1) ^ (i >>> 7)
  return bytes
}

function diskFile(bytes: Buffer): (memory: Memory) => MappedFile {
  const path = join(folder, 'data')
  writeFileSync(path, bytes)
  return memory => memory.open(nodeFile(path, 'r+'))
}

function storeOf(bytes: Buffer): (memory: Memory) => MappedFile {
  const store = memoryStore({ sizeBytes: bytes.length })
  store.write(0, bytes, 0, bytes.length)
  return memory => memory.open(store)
}

function sumOf(bytes: Uint8Array): bigint {
  let total = 0
  for (const byte of bytes) total += byte
  return BigInt(total)
}

/** Puts byte offsets where the guest finds them. → their address. */
function handOver({ place }: World, offsets: readonly number[]): number {
  new Uint32Array(place.memory.buffer, place.scratchAt).set(offsets)
  return place.scratchAt
}

const TIMES = rounds(10, 100)
describe(`a file ${TIMES} times larger than the memory`, () => {
  const seed = Date.now() % 1_000_000
  test(`is summed and rewritten, pages swapped under the guest all the while; seed ${seed}`, () => {
    const rng = new Prng(seed)
    const model = sample((TIMES * BUDGET) / PAGE)
    const w = world(diskFile(model))
    let nrShrinks = 0
    w.onFault = () => {
      if (!rng.oneIn(60)) return
      w.memory.shrink()
      nrShrinks++
    }
    expect(w.guest.sum(0, model.length)).toBe(sumOf(model))
    for (let i = 0; i < rounds(60, 300); i++) {
      const first = rng.below(model.length)
      const length = rng.below(Math.min(model.length - first, 40 * PAGE) + 1)
      const value = rng.below(256)
      w.guest.rewrite(first, length, value)
      for (let at = first; at < first + length; at++) model[at] ^= value
      if (rng.oneIn(20)) w.file.sync()
    }
    const offsets = Array.from({ length: 20_000 }, () => rng.below(model.length / 4) * 4)
    w.guest.rewriteAt(handOver(w, offsets), offsets.length, 0x0badcafe)
    for (const at of offsets) model.writeUInt32LE((model.readUInt32LE(at) ^ 0x0badcafe) >>> 0, at)
    expect(w.guest.sum(0, model.length)).toBe(sumOf(model))
    expect(nrShrinks).toBeGreaterThan(TIMES)
    expect(w.memory.stats().counters.pgsteal).toBeGreaterThan(model.length / PAGE)
    w.file.sync()
    expect(readFileSync(join(folder, 'data')).equals(model)).toBe(true)
  })

  test(`is shuffled by remapping between the guest's calls; seed ${seed}`, () => {
    const rng = new Prng(seed)
    const pages = 3 * (BUDGET / PAGE)
    const model = sample(pages)
    const w = world(storeOf(model))
    const shown = Array.from({ length: pages }, (_, i) => i)
    for (let turn = 0; turn < rounds(50, 200); turn++) {
      const count = rng.between(1, 8)
      const at = rng.below(pages - count)
      const page = rng.below(pages - count)
      w.map.remap({ at, page, count })
      for (let i = 0; i < count; i++) shown[at + i] = page + i
      const first = rng.below(pages)
      const length = rng.between(1, Math.min(12, pages - first))
      const expected = shown.slice(first, first + length).map(p => sumOf(model.subarray(p * PAGE, (p + 1) * PAGE)))
      const total = expected.reduce((sum, one) => sum + one, 0n)
      expect(w.guest.sum(first * PAGE, length * PAGE), `turn ${turn}`).toBe(total)
      if (rng.oneIn(10)) w.memory.shrink()
      expect(w.table.verify()).toEqual([])
    }
  })
})

test('single pages: loads fault once, the first store faults once more, writeback makes it fault again', () => {
  const w = world(storeOf(sample(8)))
  const pages: number[] = []
  w.onFault = page => pages.push(page)
  const at = handOver(w, [5 * PAGE, 5 * PAGE + 4])
  w.guest.sumAt(at, 2)
  w.guest.sumAt(at, 2)
  expect(pages).toEqual([5])
  w.guest.rewriteAt(at, 2, 1)
  w.guest.rewriteAt(at, 2, 2)
  expect(pages).toEqual([5, 5])
  w.file.sync()
  w.guest.sumAt(at, 2)
  w.guest.rewriteAt(at, 2, 4)
  expect(pages).toEqual([5, 5, 5, 5])
  const expected = sample(8)
  expect(w.map.getUint32(5 * PAGE + 4)).toBe((expected.readUInt32LE(5 * PAGE + 4) ^ 7) >>> 0)
})

test('a store of the guest is in the file after a sync, though nobody told the machine of it', () => {
  const w = world(diskFile(sample(4)))
  w.guest.rewrite(2 * PAGE + 100, 3, 0xff)
  w.file.sync()
  // Through the shadow entry alone, between two syncs.
  w.guest.rewrite(2 * PAGE + 100, 1, 0x0f)
  w.file.sync()
  const expected = sample(4)
  for (let i = 0; i < 3; i++) expected[2 * PAGE + 100 + i] ^= i === 0 ? 0xf0 : 0xff
  expect(readFileSync(join(folder, 'data')).equals(expected)).toBe(true)
})

describe('an access that Linux would end the process for is an error to catch', () => {
  function faultOf(run: () => unknown): FaultError {
    try {
      run()
    } catch (error) {
      expect(error).toBeInstanceOf(FaultError)
      return error as FaultError
    }
    return expect.unreachable('the guest should have faulted')
  }

  test('beyond the new end of a truncated file', () => {
    const w = world(storeOf(sample(8)))
    expect(w.guest.sum(0, 8 * PAGE)).toBe(sumOf(sample(8)))
    w.file.truncate(3 * PAGE)
    const error = faultOf(() => w.guest.sum(0, 8 * PAGE))
    expect(error).toMatchObject({ code: 'SIGBUS', access: 'read', page: 3, address: w.map.address + 3 * PAGE })
    expect(w.guest.sum(0, 3 * PAGE)).toBe(sumOf(sample(3)))
  })

  test('after munmap', () => {
    const w = world(storeOf(sample(8)))
    const { address } = w.map
    w.guest.rewrite(0, 8 * PAGE, 1)
    w.map.unmap()
    expect(w.table.nrPresent).toBe(0)
    expect(faultOf(() => w.guest.rewrite(5 * PAGE, 1, 1))).toMatchObject({
      code: 'SIGSEGV',
      access: 'write',
      address: address + 5 * PAGE
    })
  })

  test('beyond the mapping, up to the last of its 4 GiB', () => {
    const w = world(storeOf(sample(2)))
    for (const at of [2 * PAGE, 2 ** 31, 2 ** 32 - 4]) {
      expect(faultOf(() => w.guest.sum(at, 1))).toMatchObject({
        code: 'SIGSEGV',
        address: w.map.address + at - (at % PAGE)
      })
    }
  })

  test('a store where the protection forbids it; loads go on', () => {
    const w = world(storeOf(sample(4)))
    w.guest.rewrite(0, 4 * PAGE, 0)
    w.map.protect('read', { offset: PAGE, length: PAGE })
    expect(faultOf(() => w.guest.rewrite(0, 4 * PAGE, 0))).toMatchObject({ code: 'SIGSEGV', access: 'write', page: 1 })
    expect(w.guest.sum(0, 4 * PAGE)).toBe(sumOf(sample(4)))
  })

  test('after the address space has ended: ESRCH', () => {
    const w = world(storeOf(sample(4)))
    w.guest.sum(0, 4 * PAGE)
    w.map.space.close()
    expect(w.table.nrPresent).toBe(0)
    expect(() => w.guest.sum(0, 1)).toThrow(/ESRCH/)
  })
})

test('private memory: copies on write, swap, and a fork that sees none of the later stores', () => {
  const w = world(storeOf(sample(40)), { swap: { store: memoryStore(), size: '4MiB' } }, true)
  w.guest.rewrite(0, 40 * PAGE, 0x5a)
  const child = w.map.space.fork()
  const theirs = child.view(w.map)
  w.guest.rewrite(0, 40 * PAGE, 0x21)
  w.memory.shrink()
  const both = sample(40).map(byte => byte ^ 0x5a ^ 0x21)
  expect(w.guest.sum(0, 40 * PAGE)).toBe(sumOf(both))
  const bytes = new Uint8Array(40 * PAGE)
  theirs.read(bytes, 0)
  expect(sumOf(bytes)).toBe(sumOf(sample(40).map(byte => byte ^ 0x5a)))
  expect(w.table.verify()).toEqual([])
  child.close()
})

test('a mapping that moves takes the guest with it: its addresses are offsets', () => {
  const w = world(storeOf(sample(8)))
  const blocker = w.map.space.map(null, { length: PAGE, address: w.map.address + 8 * PAGE })
  w.guest.sum(0, 8 * PAGE)
  const { address } = w.map
  w.file.truncate(12 * PAGE)
  w.map.resize(12 * PAGE)
  expect(w.map.address).not.toBe(address)
  expect(w.table.nrPresent).toBe(0)
  expect(w.guest.sum(0, 12 * PAGE)).toBe(sumOf(sample(8)))
  expect(w.table.verify()).toEqual([])
  w.map.protect('none', { offset: PAGE, length: PAGE })
  expect(() => w.guest.sum(0, 2 * PAGE)).toThrow(FaultError)
  blocker.unmap()
})

test('a page that only the guest uses counts as used; telling so takes its entry', () => {
  const w = world(storeOf(sample(2)))
  const vpn = w.map.address / PAGE
  const { rmap, tables } = w.memory.machine
  w.guest.sum(PAGE, 1)
  const frame = tables.get(w.map.mmId, vpn + 1) >>> 8
  rmap.pageReferenced(frame)
  expect(rmap.pageReferenced(frame)).toBe(0)
  w.guest.sum(PAGE, 1)
  expect(w.memory.machine.notifiers.testYoung(w.map.mmId, vpn + 1)).toBe(true)
  expect(rmap.pageReferenced(frame)).toBeGreaterThan(0)
  expect(w.table.entry(1)).toBe(0)
})

test('a table that is closed in the middle of a guest fault fills nothing', () => {
  const w = world(storeOf(sample(4)))
  w.onFault = () => w.table.close()
  expect(() => w.guest.sum(0, PAGE)).toThrow(/SIGSEGV/)
  expect(w.table.entry(0)).toBe(0)
})
