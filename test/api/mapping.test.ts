/** The everyday layer: accessors against DataView, remapping, bulk copies, views, errors, and what is given back. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { FaultError, FremapError, type Mapping, Memory, memoryStore, type Store } from '../../src/index.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { nodeFile } from '../../src/stores/node-file.ts'

const PAGE = 4096
let memory: Memory

beforeEach(() => {
  memory = new Memory({ size: '1MiB', swap: { store: memoryStore({ name: 'swap' }), size: '8MiB' }, debug: true })
})

afterEach(() => {
  if (!memory.machine.open) return
  assertMachine(memory.machine)
  memory.close()
  expect(memory.machine.allocator.nrFree).toBe(memory.machine.ram.nrFrames - 1)
  expect(memory.machine.swap.nrUsed).toBe(0)
})

function window(pages: number): Mapping {
  return memory.space().map(memory.shared(pages * PAGE), { writable: true })
}

/** What was thrown, which must be a FaultError. */
function fault(run: () => unknown): FaultError {
  try {
    run()
  } catch (error) {
    if (error instanceof FaultError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('accessors', () => {
  const kinds = [
    ['Uint8', 1],
    ['Int8', 1],
    ['Uint16', 2],
    ['Int16', 2],
    ['Uint32', 4],
    ['Int32', 4],
    ['Float32', 4],
    ['Float64', 8]
  ] as const

  test('every width, offset and byte order agrees with a DataView, in a shuffled window larger than memory', () => {
    const pages = 512
    const map = window(pages)
    const order = Int32Array.from({ length: pages }, (_, i) => (i * 37) % pages)
    map.remapPages(0, order)
    const model = new DataView(new ArrayBuffer(pages * PAGE))
    const access = fc.record({
      kind: fc.integer({ min: 0, max: kinds.length - 1 }),
      offset: fc.integer({ min: 0, max: pages * PAGE - 8 }),
      nearBorder: fc.boolean(),
      value: fc.integer({ min: -0x80000000, max: 0x7fffffff }),
      littleEndian: fc.boolean()
    })
    fc.assert(
      fc.property(fc.array(access, { minLength: 20, maxLength: 60 }), list => {
        for (const { kind, offset, nearBorder, value, littleEndian } of list) {
          const [name, size] = kinds[kind]
          const border = Math.min(pages * PAGE - 8, Math.floor(offset / PAGE) * PAGE + PAGE - (offset % 8))
          const at = nearBorder ? border : offset
          const old = map[`get${name}`](at, littleEndian)
          expect(old).toEqual(model[`get${name}`](at, littleEndian))
          map[`set${name}`](at, value, littleEndian)
          model[`set${name}`](at, value, littleEndian)
          expect(map[`get${name}`](at, !littleEndian)).toEqual(model[`get${name}`](at, !littleEndian))
          expect(size).toBeGreaterThan(0)
        }
      }),
      { numRuns: 60 }
    )
    const whole = new Uint8Array(pages * PAGE)
    map.read(whole, 0)
    expect(Buffer.compare(whole, new Uint8Array(model.buffer))).toBe(0)
  })

  test('64-bit integers at any offset', () => {
    const map = window(2)
    map.setBigUint64(PAGE - 3, 0x0102030405060708n)
    expect(map.getBigUint64(PAGE - 3)).toBe(0x0102030405060708n)
    expect(map.getUint8(PAGE - 3)).toBe(8)
    map.setBigInt64(8, -2n, false)
    expect(map.getBigInt64(8, false)).toBe(-2n)
    expect(map.getUint8(15)).toBe(0xfe)
  })

  test('offsets that are none are refused, and change nothing', () => {
    const map = window(1)
    for (const bad of [-1, 0.5, 4.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY, PAGE, PAGE - 3, -0.5]) {
      expect(() => map.getUint32(bad), String(bad)).toThrow(RangeError)
      expect(() => map.setUint32(bad, 1), String(bad)).toThrow(RangeError)
    }
    expect(map.getUint32(0)).toBe(0)
    expect(map.getUint32(PAGE - 4)).toBe(0)
  })

  test('a window of 4 TiB costs what it touches', () => {
    const file = memory.shared(2 ** 42)
    const map = memory.space().map(file, { writable: true })
    expect(map.length).toBe(2 ** 42)
    const free = memory.machine.allocator.nrFree
    for (const at of [0, 2 ** 31, 2 ** 32 + 4, 2 ** 40, 2 ** 42 - 4]) {
      map.setUint32(at, at % 1000)
      expect(map.getUint32(at)).toBe(at % 1000)
    }
    expect(free - memory.machine.allocator.nrFree).toBeLessThan(25)
  })
})

describe('remapping', () => {
  test('pages move by entries alone: filePage, contents, and both directions of coherence', () => {
    const file = memory.shared(64 * PAGE)
    const space = memory.space()
    const a = space.map(file, { writable: true })
    const b = space.map(file, { writable: true })
    for (let i = 0; i < 64; i++) a.setUint32(i * PAGE, 100 + i)
    b.remap({ at: 0, page: 32, count: 32 })
    b.remap({ at: 32, page: 0, count: 32, populate: true })
    expect(b.filePage(0)).toBe(32)
    expect(b.getUint32(0)).toBe(132)
    expect(b.getUint32(40 * PAGE)).toBe(108)
    b.setUint32(40 * PAGE, 7)
    expect(a.getUint32(8 * PAGE)).toBe(7)
    expect(b.residency({ offset: 32 * PAGE, length: 32 * PAGE }).every(x => x === 1)).toBe(true)
  })

  test('a page can have a protection of its own', () => {
    const map = window(8)
    map.remap({ at: 0, page: 4, count: 2, protection: 'read' })
    map.remap({ at: 2, page: 4, protection: 'none' })
    expect(map.getUint32(0)).toBe(0)
    const denied = fault(() => map.setUint32(0, 1))
    expect([denied.code, denied.access, denied.page, denied.address]).toEqual(['SIGSEGV', 'write', 4, map.address])
    expect(fault(() => map.getUint8(2 * PAGE)).code).toBe('SIGSEGV')
    map.setUint32(4 * PAGE, 9)
    expect(map.getUint32(0)).toBe(9)
    memory.shrink()
    expect(fault(() => map.setUint32(PAGE, 1)).code).toBe('SIGSEGV')
    map.protect('write')
    map.setUint32(0, 2)
    expect(map.getUint32(4 * PAGE)).toBe(2)
  })

  test('a vector with one bad page changes nothing', () => {
    const map = window(4)
    expect(() => map.remapPages(0, Int32Array.of(3, 2, -1, 0))).toThrow(/EINVAL/)
    expect([0, 1, 2, 3].map(i => map.filePage(i))).toEqual([0, 1, 2, 3])
    expect(() => map.remapPages(2, Int32Array.of(0, 1, 2))).toThrow(RangeError)
  })

  test('private mappings cannot be remapped', () => {
    const map = memory.space().map(memory.shared(4 * PAGE), { private: true, writable: true })
    expect(() => map.remap({ at: 0, page: 1 })).toThrow(
      expect.objectContaining({ code: 'EINVAL', syscall: 'remap_file_pages' })
    )
  })
})

describe('views', () => {
  test('a borrowed page stays while memory is taken from everything else', () => {
    const map = window(1024)
    map.setUint32(0, 0xabcd)
    const page = map.borrow(0, 'write')
    for (let i = 1; i < 1024; i++) map.setUint32(i * PAGE, i)
    expect(new DataView(page.bytes.buffer, page.bytes.byteOffset).getUint32(0, true)).toBe(0xabcd)
    page.bytes[1] = 0xee
    page.release()
    page.release()
    memory.shrink()
    expect(map.getUint32(0)).toBe(0xeecd)
    expect(map.page(5)[0]).toBe(5)
  })

  test('all pages borrowed: the next fault says that memory is out, and works when one is given back', () => {
    const map = window(1024)
    const held = []
    let refused: FaultError | undefined
    for (let i = 0; i < 1024 && refused === undefined; i++) {
      try {
        held.push(map.borrow(i))
      } catch (error) {
        refused = error as FaultError
      }
    }
    expect(refused?.code).toBe('ENOMEM')
    expect(held.length).toBeGreaterThan(200)
    for (const page of held.splice(0, 8)) page.release()
    expect(map.getUint8(1000 * PAGE)).toBe(0)
    for (const page of held) page.release()
  })
})

describe('bulk', () => {
  test('read, write, fill and copyWithin at odd offsets', () => {
    const pages = 300
    const map = window(pages)
    map.remapPages(
      0,
      Int32Array.from({ length: pages }, (_, i) => pages - 1 - i)
    )
    const model = new Uint8Array(pages * PAGE)
    const data = Uint8Array.from({ length: 50_000 }, (_, i) => i * 7)
    map.write(data, 12_345)
    model.set(data, 12_345)
    map.fill(0x5a, 70_001, 9_999)
    model.fill(0x5a, 70_001, 80_000)
    map.copyWithin(20_001, 12_340, 60_000)
    model.copyWithin(20_001, 12_340, 72_340)
    map.copyWithin(100, 20_001, 60_000)
    model.copyWithin(100, 20_001, 80_001)
    const back = new Uint8Array(pages * PAGE)
    map.read(back, 0)
    expect(Buffer.compare(back, model)).toBe(0)
  })

  test('a bulk read that meets the end of the file says how far it came', () => {
    const file = memory.shared(8 * PAGE)
    const map = memory.space().map(file, { writable: true })
    map.fill(1)
    file.truncate(5 * PAGE)
    const target = new Uint8Array(7 * PAGE)
    const error = fault(() => map.read(target, 100))
    expect([error.code, error.bytesDone, error.page]).toEqual(['SIGBUS', 5 * PAGE - 100, 5])
    expect(target[5 * PAGE - 101]).toBe(1)
    expect(target[5 * PAGE - 100]).toBe(0)
    file.truncate(8 * PAGE)
    expect(map.getUint8(6 * PAGE)).toBe(0)
  })
})

describe('very little memory', () => {
  test('a store across two pages is kept, also if the fault of the second one has the first one written back', () => {
    const store = memoryStore()
    store.truncate(200 * PAGE)
    using small = new Memory({ size: 64 * (PAGE + 44), readahead: 8 * PAGE, faultAroundPages: 1 })
    const map = small.space().map(small.open(store), { writable: true })
    map.advise('random')
    // The oldest page is dirty. The one behind it becomes so by the store, and is written with it when room is made for
    // the next.
    map.setUint8(10 * PAGE, 1)
    map.getUint8(11 * PAGE)
    for (let page = 20; small.stats().freeFrames > 0; page++) map.getUint8(page * PAGE)
    map.setUint32(12 * PAGE - 2, 0x04030201)
    expect(small.stats().counters.pgpgout).toBe(2)
    small.shrink()
    expect(map.getUint32(12 * PAGE - 2)).toBe(0x04030201)
  })

  test('a store across two pages, with one frame to spare, reaches both and nothing else', () => {
    using small = new Memory({
      size: 9 * (PAGE + 44),
      swap: { store: memoryStore(), size: '1MiB' },
      faultAroundPages: 1
    })
    const map = small.space().map(small.shared(64 * PAGE), { writable: true })
    const other = map.space.map(null, { length: 4 * PAGE, writable: true })
    for (let i = 0; i < 64; i++) map.setUint32(i * PAGE, 1000 + i)
    const held = []
    try {
      for (let i = 40; i < 44; i++) held.push(map.borrow(i))
    } catch (error) {
      expect((error as FaultError).code).toBe('ENOMEM')
    }
    let stored = 0
    for (let i = 0; i < 30; i++) {
      try {
        map.setUint32(i * PAGE + PAGE - 2, 0x11223344)
        stored++
      } catch (error) {
        expect((error as FaultError).code).toBe('ENOMEM')
      }
      other.setUint8(0, i)
      for (const page of held.splice(0, i === 15 ? 4 : 0)) page.release()
    }
    expect(stored).toBeGreaterThan(10)
    for (const page of held) page.release()
    for (let i = 30; i < 64; i++) expect(map.getUint32(i * PAGE)).toBe(i === 30 ? map.getUint32(i * PAGE) : 1000 + i)
    for (let i = 1; i < 30; i++) {
      const low = map.getUint16(i * PAGE)
      const end = map.getUint16(i * PAGE + PAGE - 2)
      expect([0x1122, 1000 + i]).toContain(low)
      expect([0x3344, 0]).toContain(end)
      expect(low === 0x1122).toBe(map.getUint16(i * PAGE - 2) === 0x3344)
    }
    expect(small.check()).toEqual([])
  })

  test('many windows hold few tables: memory stays for pages', () => {
    const space = memory.space()
    const windows = Array.from({ length: 60 }, () => space.map(memory.shared(2 ** 30), { writable: true }))
    expect(memory.stats().pageTables).toBeLessThan(memory.stats().frames / 16)
    for (const map of windows) map.unmap()
  })
})

describe("other people's code", () => {
  test('a store that throws, or answers nonsense, is an I/O error', () => {
    let mode: 'good' | 'throws' | 'nonsense' = 'good'
    const inner = memoryStore({ name: 'odd', sizeBytes: 8 * PAGE })
    const odd = {
      ...pick(inner),
      read: (position: number, buffer: Uint8Array, offset: number, length: number) => {
        if (mode === 'throws') throw new Error('odd')
        return mode === 'nonsense' ? Number.NaN : inner.read(position, buffer, offset, length)
      }
    }
    const map = memory.space().map(memory.open(odd))
    expect(map.getUint8(0)).toBe(0)
    mode = 'throws'
    expect([fault(() => map.getUint8(5 * PAGE)).code, memory.machine.lastError]).toEqual(['SIGBUS', 5])
    mode = 'nonsense'
    expect(fault(() => map.getUint8(5 * PAGE)).code).toBe('SIGBUS')
    mode = 'good'
    expect(map.getUint8(5 * PAGE)).toBe(0)
  })

  test('a store that calls back is told EDEADLK, and the fault goes on', () => {
    const inner = memoryStore({ name: 'nosy', sizeBytes: 8 * PAGE })
    const space = memory.space()
    const own = space.map(null, { length: PAGE, writable: true })
    own.setUint8(0, 1)
    const seen: string[] = []
    const nosy = {
      ...pick(inner),
      read: (position: number, buffer: Uint8Array, offset: number, length: number) => {
        for (const run of [() => space.fork(), () => own.unmap(), () => memory.close(), () => memory.shared(PAGE)]) {
          try {
            run()
          } catch (error) {
            seen.push((error as FremapError).code)
          }
        }
        return inner.read(position, buffer, offset, length)
      }
    }
    const map = space.map(memory.open(nosy))
    expect(map.getUint8(0)).toBe(0)
    expect(new Set(seen)).toEqual(new Set(['EDEADLK']))
    expect(seen.length).toBe(4)
  })
})

/** A store's parts as an object of its own, to replace some. */
function pick(inner: Store): Store {
  return {
    name: inner.name,
    identity: undefined,
    readOnly: false,
    durable: false,
    size: () => inner.size(),
    read: (...args) => inner.read(...args),
    write: (...args) => inner.write(...args),
    flush: () => inner.flush(),
    truncate: size => inner.truncate(size),
    punch: (...args) => inner.punch(...args),
    close: () => inner.close()
  }
}

describe('files', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'fremap-api-'))
  })
  afterEach(() => {
    memory.close()
    rmSync(directory, { recursive: true })
  })

  function sample(pages: number): string {
    const path = join(directory, 'sample')
    writeFileSync(path, Buffer.alloc(pages * PAGE, 3))
    return path
  }

  test('stores through a shuffled window reach the file on sync, and read() sees them before', async () => {
    const path = sample(600)
    const file = memory.open(nodeFile(path, 'r+'))
    const map = memory.space().map(file, { writable: true })
    map.remapPages(
      0,
      Int32Array.from({ length: 600 }, (_, i) => 599 - i)
    )
    for (let i = 0; i < 600; i++) map.setUint32(i * PAGE + 8, i)
    const bytes = new Uint8Array(4)
    file.read(bytes, 599 * PAGE + 8)
    expect([...bytes]).toEqual([0, 0, 0, 0])
    file.read(bytes, 8)
    expect(new DataView(bytes.buffer).getUint32(0, true)).toBe(599)
    const seen: number[] = []
    await map.syncAsync({ onProgress: p => seen.push(p.doneBytes) })
    expect(seen.length).toBeGreaterThan(0)
    const disk = readFileSync(path)
    for (let i = 0; i < 600; i++) expect(disk.readUInt32LE((599 - i) * PAGE + 8)).toBe(i)
    expect(file.dirtyPages).toBe(0)
  })

  test('two opens of one file share its pages', () => {
    const path = sample(4)
    const a = memory.space().map(memory.open(nodeFile(path, 'r+')), { writable: true })
    const b = memory.space().map(memory.open(nodeFile(path, 'r')))
    a.setUint32(0, 77)
    expect(b.getUint32(0)).toBe(77)
  })

  test('a read-only file: stores, writable maps and remaps are refused by name', () => {
    const file = memory.open(nodeFile(sample(4), 'r'))
    expect(() => memory.space().map(file, { writable: true })).toThrow(expect.objectContaining({ code: 'EACCES' }))
    const map = memory.space().map(file)
    expect(fault(() => map.setUint8(0, 1)).code).toBe('SIGSEGV')
    expect(() => file.write(Uint8Array.of(1), 0)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })

  test('populate can be watched and aborted', async () => {
    const map = memory.space().map(memory.open(nodeFile(sample(200), 'r')))
    expect(await map.populate()).toBe(200)
    expect(map.residency().filter(x => x === 1).length).toBe(200)
    const abort = new AbortController()
    const work = map.populate({ signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) })
    await expect(work).rejects.toThrow('enough')
  })

  test('the page on the end of the file reads zero past the end, and what is stored there stays out of the file', () => {
    const path = join(directory, 'short')
    writeFileSync(path, Buffer.alloc(100, 9))
    const file = memory.open(nodeFile(path, 'r+'))
    const map = memory.space().map(file, { writable: true })
    expect([map.getUint8(99), map.getUint8(100), map.getUint8(PAGE - 1)]).toEqual([9, 0, 0])
    map.setUint8(200, 1)
    map.setUint8(0, 8)
    map.sync()
    expect(readFileSync(path)).toEqual(Buffer.concat([Buffer.of(8), Buffer.alloc(99, 9)]))
    file.truncate(300)
    expect(map.getUint8(200)).toBe(0)
  })
})

describe('life', () => {
  test('after unmap, close of the space, and close of the memory, every use is an error', () => {
    const space = memory.space()
    const file = memory.shared(4 * PAGE)
    const map = space.map(file, { writable: true })
    const other = space.map(file, { writable: true })
    map.setUint8(0, 1)
    other.setUint8(0, 1)
    map.unmap()
    map.unmap()
    expect(() => map.getUint8(0)).toThrow(RangeError)
    space.close()
    expect(() => other.getUint8(0)).toThrow(expect.objectContaining({ code: 'ESRCH' }))
    expect(() => other.remap({ at: 0, page: 1 })).toThrow(FremapError)
    file.close()
    file.close()
    expect(() => file.size).toThrow(expect.objectContaining({ code: 'EBADF' }))
    memory.close()
    expect(() => memory.space()).toThrow(expect.objectContaining({ code: 'ENODEV' }))
  })

  test('a handle does not reach the address space that got its row', () => {
    const first = memory.space()
    const stale = first.map(memory.shared(PAGE), { writable: true })
    first.close()
    const next = memory.space()
    const map = next.map(memory.shared(PAGE), { writable: true, address: stale.address })
    map.setUint8(0, 1)
    expect(() => stale.setUint8(0, 2)).toThrow(FremapError)
    expect(map.getUint8(0)).toBe(1)
  })

  test('fork copies private memory on write and shares the rest', () => {
    const space = memory.space()
    const shared = space.map(memory.shared(2 * PAGE), { writable: true })
    const own = space.map(null, { length: 2 * PAGE, writable: true })
    shared.setUint8(0, 1)
    own.setUint8(0, 1)
    const child = space.fork()
    const childOwn = child.view(own)
    const childShared = child.view(shared)
    childOwn.setUint8(0, 2)
    childShared.setUint8(0, 2)
    expect([own.getUint8(0), childOwn.getUint8(0), shared.getUint8(0)]).toEqual([1, 2, 2])
  })

  test('resize keeps contents and offsets', () => {
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    const wall = space.map(null, { length: PAGE, writable: true })
    map.setUint8(5, 5)
    wall.setUint8(0, 1)
    map.resize(10 * PAGE)
    expect([map.length, map.getUint8(5), map.getUint8(9 * PAGE)]).toEqual([10 * PAGE, 5, 0])
    map.resize(PAGE)
    expect(() => map.getUint8(PAGE)).toThrow(RangeError)
  })

  test('options out of range are refused with words', () => {
    expect(() => new Memory({ size: '1KiB' })).toThrow(RangeError)
    expect(() => new Memory({ size: '1 parsec' })).toThrow(/not a size/)
    expect(() => new Memory({ size: '1MiB', pageSize: 1000 })).toThrow(/power of two/)
    expect(() => new Memory({ size: '1MiB', faultAroundPages: 3 })).toThrow(/power of two/)
  })

  test.each([512, 1024, 8192, 65536])('pages of %i bytes', pageSize => {
    using small = new Memory({ size: pageSize * 24, pageSize, swap: { store: memoryStore(), size: pageSize * 100 } })
    const map = small.space().map(small.shared(pageSize * 64), { writable: true })
    map.remapPages(
      0,
      Int32Array.from({ length: 64 }, (_, i) => 63 - i)
    )
    for (let i = 0; i < 64; i++) map.setFloat64(i * pageSize + pageSize - 8, i)
    for (let i = 0; i < 64; i++) expect(map.getFloat64(i * pageSize + pageSize - 8)).toBe(i)
    assertMachine(small.machine)
  })
})
