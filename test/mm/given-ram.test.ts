/**
 * RAM in a buffer that is given, at any place in it: the machine works as in one of its own and touches nothing beside.
 */
import { expect, test } from 'vitest'
import { createKernel, Memory } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const SIZE = 64 * 4096

test.each([
  [4096, 0],
  [4096, 3 * 4096],
  [512, 512 * 7],
  [65536, 2 * 65536]
])('pages of %i bytes from byte %i on', (pageSize, byteOffset) => {
  const size = 64 * pageSize
  const buffer = new SharedArrayBuffer(byteOffset + size + 1000)
  const all = new Uint8Array(buffer).fill(0xee)
  const memory = new Memory({
    size,
    pageSize,
    ram: { buffer, byteOffset },
    swap: { store: memoryStore(), size: 4 * size }
  })
  const { ram } = memory.machine
  expect(ram.byteOffset).toBe(byteOffset)
  const space = memory.space()
  const own = space.map(null, { length: 100 * pageSize })
  const store = memoryStore({ sizeBytes: 100 * pageSize })
  const map = space.map(memory.open(store), { writable: true })
  for (let i = 0; i < 100; i++) {
    expect(own.getFloat64(i * pageSize + 8)).toBe(0)
    map.setUint16(i * pageSize + 2, i + 1)
  }
  map.remapPages(
    0,
    Int32Array.from({ length: 100 }, (_, i) => 99 - i)
  )
  for (let i = 0; i < 100; i++) expect(map.getUint16(i * pageSize + 2)).toBe(100 - i)
  expect(memory.check()).toEqual([])
  // The frames lie where they should: a page's bytes are found by its frame.
  const frame = memory.machine.tables.get(space.mm.id, map.address / pageSize + 99) >>> 8
  expect(all[byteOffset + frame * pageSize + 2]).toBe(1)
  space.close()
  memory.close()
  const end = byteOffset + ram.nrFrames * pageSize
  expect(all.subarray(0, byteOffset).every(byte => byte === 0xee)).toBe(true)
  expect(all.subarray(end).every(byte => byte === 0xee)).toBe(true)
})

test('the place must be shared memory, large enough, at a multiple of the page size', () => {
  const buffer = new SharedArrayBuffer(SIZE)
  const make = (byteOffset: number, where: ArrayBufferLike = buffer) => {
    return () => new Memory({ size: SIZE, ram: { buffer: where, byteOffset } })
  }
  expect(make(0)).not.toThrow()
  expect(make(0, new ArrayBuffer(SIZE))).toThrow(TypeError)
  for (const offset of [8192, 100, -4096, 0.5, Number.NaN]) expect(make(offset)).toThrow(/ram is/)
  expect(() => createKernel({ nrFrames: 65, ram: { buffer, byteOffset: 0 } })).toThrow(/ram is/)
})
