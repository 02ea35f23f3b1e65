import { afterEach, describe, expect, test, vi } from 'vitest'
import { EFBIG, EINVAL, ENOMEM, ENOSPC } from '../../src/abi/errno.ts'
import { MEMORY_STORE_BLOCK_BYTES as BLOCK, memoryStore } from '../../src/stores/memory.ts'
import { bytes, expectBytes, expectToAgreeWithModel, pattern, read, storeConformance, write } from './conformance.ts'

storeConformance('memoryStore', {
  open: () => memoryStore(),
  openReadOnly: contents => memoryStore({ contents, readOnly: true }),
  punch: 'works'
})

describe('memoryStore', () => {
  afterEach(() => {
    vi.unstubAllGlobals()
  })

  test('agrees with a plain array of bytes', () => {
    expectToAgreeWithModel({ open: () => memoryStore(), punch: 'works' })
  })

  test('takes memory for what is written alone, and gives whole blocks back', () => {
    const store = memoryStore({ sizeBytes: 2 ** 53 - 1 })
    expect(store.size()).toBe(2 ** 53 - 1)
    expect(store.allocatedBytes).toBe(0)
    expectBytes(read(store, 2 ** 53 - 11, 10), new Uint8Array(10))
    write(store, 2 ** 53 - 5, bytes(1, 2, 3, 4))
    write(store, BLOCK - 1, bytes(5, 6))
    expect(store.allocatedBytes).toBe(3 * BLOCK)
    expectBytes(read(store, 2 ** 53 - 6, 100), bytes(0, 1, 2, 3, 4))
    expect(store.punch(1, 2 ** 52)).toBe(0)
    expect(store.allocatedBytes).toBe(2 * BLOCK)
    expect(store.punch(0, BLOCK)).toBe(0)
    expect(store.allocatedBytes).toBe(BLOCK)
    expect(store.truncate(2 ** 40)).toBe(0)
    expect(store.allocatedBytes).toBe(0)
  })

  test('a punch to the end of the store frees the last block', () => {
    const store = memoryStore({ contents: pattern(BLOCK + 10) })
    expect(store.punch(BLOCK, 10)).toBe(0)
    expect(store.allocatedBytes).toBe(BLOCK)
    expect(store.size()).toBe(BLOCK + 10)
  })

  test('a write past maxBytes gives -ENOSPC and changes nothing, until there is room', () => {
    const store = memoryStore({ maxBytes: 2 * BLOCK })
    write(store, 0, pattern(BLOCK))
    expect(store.write(BLOCK - 8, new Uint8Array(2 * BLOCK), 0, BLOCK + 9)).toBe(-ENOSPC)
    expect(store.size()).toBe(BLOCK)
    expect(store.allocatedBytes).toBe(BLOCK)
    expectBytes(read(store, 0, 2 * BLOCK), pattern(BLOCK))
    write(store, 10 * BLOCK, bytes(1))
    expect(store.write(20 * BLOCK, bytes(1), 0, 1)).toBe(-ENOSPC)
    write(store, 4, bytes(9))
    expect(store.truncate(100 * BLOCK)).toBe(0)
    expect(store.punch(10 * BLOCK, BLOCK)).toBe(0)
    write(store, 20 * BLOCK, bytes(1))
    expect(store.allocatedBytes).toBe(2 * BLOCK)
  })

  test('a write for which the engine has no memory gives -ENOMEM and takes none', () => {
    const store = memoryStore({ contents: pattern(10) })
    const contents = pattern(3 * BLOCK)
    let left = 1
    const Scarce = class extends Uint8Array {
      constructor(length: number) {
        if (left-- === 0) throw new RangeError('Array buffer allocation failed')
        super(length)
      }
    }
    vi.stubGlobal('Uint8Array', Scarce)
    const result = store.write(5, contents, 0, contents.length)
    vi.unstubAllGlobals()
    expect(result).toBe(-ENOMEM)
    expect(store.allocatedBytes).toBe(BLOCK)
    expectBytes(read(store, 0, 100), pattern(10))
  })

  test('refused arguments have their numbers', () => {
    const store = memoryStore()
    expect(store.read(-1, bytes(1), 0, 1)).toBe(-EINVAL)
    expect(store.truncate(0.5)).toBe(-EINVAL)
    expect(store.write(2 ** 53 - 1, bytes(1), 0, 1)).toBe(-EFBIG)
  })

  test('takes its options, and copies the contents', () => {
    const contents = pattern(100)
    const store = memoryStore({ name: 'scratch', contents, sizeBytes: 102 })
    contents.fill(0)
    expect(store.name).toBe('scratch')
    expect(store.identity).toBeUndefined()
    expect(store.durable).toBe(false)
    expectBytes(read(store, 98, 10), new Uint8Array([...pattern(100).slice(98), 0, 0]))
    expect(store.close()).toBe(0)
    expect(store.allocatedBytes).toBe(0)
  })

  test('throws for options that make no store', () => {
    expect(() => memoryStore({ sizeBytes: -1 })).toThrow(RangeError)
    expect(() => memoryStore({ maxBytes: 0.5 })).toThrow(RangeError)
    expect(() => memoryStore({ contents: pattern(10), sizeBytes: 9 })).toThrow(RangeError)
    expect(() => memoryStore({ contents: pattern(BLOCK + 1), maxBytes: BLOCK })).toThrow(RangeError)
  })
})
