/** A mapping of a memory made for several threads, used by one: what it does must be what a plain mapping does. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { SharedMapping } from '../../src/api/shared-mapping.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { T_HAZARD } from '../../src/sync/threads.ts'
import { sys_munmap } from '../../src/syscall/memory.ts'
import { rounds } from '../support/suite.ts'

const PAGE = 4096
const open: Memory[] = []

function memoryOf(pages: number, threads = 2): Memory {
  const memory = new Memory({ size: pages * (PAGE + 64), threads, debug: true })
  open.push(memory)
  return memory
}

// Where a failed test leaves some, as in a mutation run, they are not the next one's.
beforeEach(() => {
  open.length = 0
})

afterEach(() => {
  for (const memory of open.splice(0)) {
    expect(memory.check()).toEqual([])
    memory.close()
  }
})

function marked(pages: number): Uint8Array {
  const bytes = new Uint8Array(pages * PAGE)
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + (i >>> 8)) & 0xff
  return bytes
}

describe('a mapping of a memory for threads', () => {
  test('every width, offset and byte order agrees with a DataView, in a shuffled window larger than memory', () => {
    const pages = 96
    const memory = memoryOf(32)
    const bytes = marked(pages)
    const map = memory.space().map(memory.open(memoryStore({ contents: bytes })), { writable: true })
    expect(map).toBeInstanceOf(SharedMapping)
    const order = Int32Array.from({ length: pages }, (_, i) => (i * 37 + 11) % pages)
    map.remapPages(0, order)
    const shown = new Uint8Array(bytes.length)
    order.forEach((page, i) => {
      shown.set(bytes.subarray(page * PAGE, (page + 1) * PAGE), i * PAGE)
    })
    const view = new DataView(shown.buffer)
    for (let k = 0; k < rounds(800, 4000); k++) {
      const at = (k * 104_729) % (shown.length - 8)
      const little = (k & 1) === 0
      expect(map.getUint8(at)).toBe(view.getUint8(at))
      expect(map.getInt8(at)).toBe(view.getInt8(at))
      expect(map.getUint16(at, little)).toBe(view.getUint16(at, little))
      expect(map.getInt16(at, little)).toBe(view.getInt16(at, little))
      expect(map.getUint32(at, little)).toBe(view.getUint32(at, little))
      expect(map.getInt32(at, little)).toBe(view.getInt32(at, little))
      expect(map.getFloat32(at, little)).toEqual(view.getFloat32(at, little))
      expect(map.getFloat64(at, little)).toEqual(view.getFloat64(at, little))
      expect(map.getBigUint64(at, little)).toBe(view.getBigUint64(at, little))
      expect(map.getBigInt64(at, little)).toBe(view.getBigInt64(at, little))
      const value = Math.imul(k, 0x9e3779b1) >>> 0
      switch (k % 6) {
        case 0:
          view.setUint8(at, value)
          map.setUint8(at, value)
          break
        case 1:
          view.setUint16(at, value, little)
          map.setUint16(at, value, little)
          break
        case 2:
          view.setUint32(at, value, little)
          map.setUint32(at, value, little)
          break
        case 3:
          view.setFloat32(at, value, little)
          map.setFloat32(at, value, little)
          break
        case 4:
          view.setFloat64(at, value, little)
          map.setFloat64(at, value, little)
          break
        default:
          view.setBigUint64(at, BigInt(value), little)
          map.setBigUint64(at, BigInt(value), little)
      }
    }
    const all = new Uint8Array(shown.length)
    map.read(all, 0)
    expect(all).toEqual(shown)
  })

  test('bulk copies, fill, pages and borrowed pages agree with accessors', () => {
    const memory = memoryOf(64)
    const map = memory.space().map(memory.open(memoryStore({ contents: marked(20) })), { writable: true })
    map.write(Uint8Array.from([1, 2, 3, 4, 5]), PAGE - 2)
    map.fill(9, 5 * PAGE + 1, PAGE)
    expect([map.getUint8(PAGE - 2), map.getUint8(PAGE + 2)]).toEqual([1, 5])
    expect([
      map.getUint8(5 * PAGE),
      map.getUint8(5 * PAGE + 1),
      map.getUint8(6 * PAGE),
      map.getUint8(6 * PAGE + 1)
    ]).toEqual([marked(6)[5 * PAGE], 9, 9, marked(7)[6 * PAGE + 1]])
    expect(map.page(5)[1]).toBe(9)
    {
      using lent = map.borrow(3, 'write')
      lent.bytes[7] = 77
    }
    expect(map.getUint8(3 * PAGE + 7)).toBe(77)
    expect(map.file?.dirtyPages).toBeGreaterThan(0)
    map.sync()
    expect(map.file?.dirtyPages).toBe(0)
    map.unmap()
    expect(() => map.getUint8(0)).toThrow(RangeError)
  })

  test('a value that is no number throws before anything is held', () => {
    const memory = memoryOf(16)
    const map = memory.space().map(memory.shared(PAGE), { writable: true })
    map.setUint32(0, 5)
    map.setUint32(0, 6)
    for (const set of [map.setUint8, map.setUint16, map.setUint32, map.setFloat64]) {
      expect(() => set.call(map, 0, 5n as unknown as number)).toThrow(TypeError)
    }
    expect(() => map.fill(1n as unknown as number)).toThrow(TypeError)
    const { threads, row } = memory.machine.sync
    expect(threads.w[row + T_HAZARD]).toBe(0)
    expect(map.getUint32(0)).toBe(6)
    let inner = 0
    const meddler = {
      valueOf() {
        map.setUint32(4, 1)
        inner = map.getUint32(4)
        return 8
      }
    }
    map.setUint32(0, meddler as unknown as number)
    expect([map.getUint32(0), inner]).toEqual([8, 1])
  })

  test('errors are those of a plain mapping', () => {
    const memory = memoryOf(16)
    const file = memory.open(memoryStore({ sizeBytes: 2 * PAGE }))
    const map = memory.space().map(file, { length: 4 * PAGE })
    expect(() => map.getUint32(3 * PAGE)).toThrow(expect.objectContaining({ code: 'SIGBUS', page: 3 }))
    expect(() => map.setUint32(0, 1)).toThrow(expect.objectContaining({ code: 'SIGSEGV' }))
    expect(() => map.read(new Uint8Array(3 * PAGE), 0)).toThrow(
      expect.objectContaining({ code: 'SIGBUS', bytesDone: 2 * PAGE })
    )
    expect(() => map.getUint32(4 * PAGE)).toThrow(RangeError)
    expect(() => map.page(7)).toThrow(RangeError)
    map.space.close()
    expect(() => map.getUint32(0)).toThrow(expect.objectContaining({ code: 'ESRCH' }))
  })

  test('handles name things that live, and say so when they do not', () => {
    const memory = memoryOf(16)
    const space = memory.space()
    const file = memory.shared(PAGE)
    const map = space.map(file, { writable: true })
    map.setUint32(0, 7)
    const copies = structuredClone({ map: map.handle, space: space.handle, file: file.handle })
    expect(memory.adopt(copies.map).getUint32(0)).toBe(7)
    expect(memory.adopt(copies.file).size).toBe(PAGE)
    const lines = memory.adopt(copies.space).maps()
    expect(lines.split('\n').filter(line => line.includes('rw-s'))).toHaveLength(1)
    space.close()
    memory.space()
    expect(() => memory.adopt(copies.map)).toThrow(expect.objectContaining({ code: 'ESRCH' }))
    expect(() => memory.adopt({ kind: 'nothing' } as never)).toThrow(TypeError)
  })

  test('a memory of one thread has no handle, and one for two lets in no third', () => {
    const alone = memoryOf(16, 1)
    expect(() => alone.handle).toThrow(expect.objectContaining({ code: 'EPERM' }))
    const memory = memoryOf(16, 2)
    const second = Memory.attach(structuredClone(memory.handle))
    expect(() => Memory.attach(memory.handle)).toThrow(/all 2 threads/)
    second.detach()
    const again = Memory.attach(memory.handle)
    expect(memory.stats().threads).toHaveLength(2)
    again.detach()
    expect(memory.stats().threads).toHaveLength(1)
  })

  test('what a page was is forgotten when its table goes, also when that became a page that looks the same', () => {
    for (const looks of [1, 512]) {
      const memory = memoryOf(64)
      const space = memory.space()
      const map = space.map(memory.shared(2048 * PAGE), { writable: true })
      map.setUint32(0, 5)
      map.setUint32(2047 * PAGE, 6)
      for (let i = 0; i < 2; i++) expect([map.getUint32(0), map.getUint32(2047 * PAGE)]).toEqual([5, 6])
      const { machine } = memory
      const slot = machine.tables.find(space.mm.id, map.address / PAGE)
      const pte = machine.ram.u32[slot]
      const held = machine.ram.u8[(pte >>> 8) * PAGE]
      expect(held).toBe(5)
      expect(sys_munmap(space.mm, map.address, 1024 * PAGE)).toBe(0)
      const other = memory.space().map(memory.shared(32 * PAGE), { writable: true })
      for (let page = 0; page < 32; page++) other.setUint32(page * PAGE + (slot % (PAGE / 4)) * 4, pte)
      expect(machine.ram.u32[slot]).toBe(pte)
      // As many as there are different stamps: the one of the page that went is the next one's.
      for (let i = 0; i < looks; i++) {
        machine.sync.changed()
        expect(map.getUint32(2047 * PAGE)).toBe(6)
      }
      expect(() => map.getUint32(0)).toThrow(expect.objectContaining({ code: 'SIGSEGV' }))
      expect(() => map.setUint32(0, 1)).toThrow(expect.objectContaining({ code: 'SIGSEGV' }))
    }
  })

  test('pages that share a place, and more than there are places, show their own bytes', () => {
    const pages = 1100
    const memory = memoryOf(pages + 100)
    const map = memory.space().map(memory.shared(pages * PAGE), { writable: true })
    for (let page = 0; page < pages; page++) map.setUint32(page * PAGE, page)
    for (let k = 0; k < 5000; k++) {
      const page = (k & 1) === 0 ? (k * 256 + (k >>> 4)) % pages : (k * 7919) % pages
      expect(map.getUint32(page * PAGE)).toBe(page)
      map.setUint32(page * PAGE + 4, page)
    }
    const words = Array.from({ length: pages }, (_, page) => map.getUint32(page * PAGE + 4))
    words.forEach((word, page) => {
      if (word !== 0) expect(word).toBe(page)
    })
  })
})
