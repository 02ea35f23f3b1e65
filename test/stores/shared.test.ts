import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { EBADF, ENOSPC } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'
import { sharedStore, sharedStoreBuffer, sharedStores } from '../../src/stores/shared.ts'
import { bytes, expectBytes, expectToAgreeWithModel, pattern, read, storeConformance, write } from './conformance.ts'

const CAPACITY = 4 << 20

function holding(contents: Uint8Array): SharedArrayBuffer {
  const buffer = sharedStoreBuffer(Math.max(contents.length, 8))
  const store = sharedStore(buffer)
  store.write(0, contents, 0, contents.length)
  return buffer
}

const buffers = new Map<string | undefined, SharedArrayBuffer>()

function opened(): Store {
  const buffer = sharedStoreBuffer(CAPACITY)
  const store = sharedStore(buffer)
  buffers.set(store.identity, buffer)
  return store
}

storeConformance('sharedStore', {
  open: opened,
  openAgain: store => sharedStore(buffers.get(store.identity) as SharedArrayBuffer),
  isSmall: true,
  openReadOnly: contents => sharedStore(holding(contents), { readOnly: true }),
  punch: 'works'
})

describe('sharedStore', () => {
  test('agrees with a plain array of bytes', () => {
    expectToAgreeWithModel({ open: () => sharedStore(sharedStoreBuffer(CAPACITY)), punch: 'works' })
  })

  test('two stores over one buffer are the same bytes, of one size, and have one identity; another buffer has another', () => {
    const buffer = sharedStoreBuffer(1000)
    const [a, b] = [sharedStore(buffer), sharedStore(buffer)]
    write(a, 10, bytes(1, 2, 3))
    expect(b.size()).toBe(13)
    expectBytes(read(b, 9, 4), bytes(0, 1, 2, 3))
    expect(b.truncate(11)).toBe(0)
    expect(a.truncate(13)).toBe(0)
    expectBytes(read(a, 9, 4), bytes(0, 1, 0, 0))
    expect(a.identity).toBe(b.identity)
    expect(sharedStore(sharedStoreBuffer(8)).identity).not.toBe(a.identity)
  })

  test('what does not fit gives -ENOSPC and changes nothing', () => {
    const store = sharedStore(sharedStoreBuffer(16), { sizeBytes: 4 })
    expect(store.write(9, new Uint8Array(8), 0, 8)).toBe(-ENOSPC)
    expect(store.truncate(17)).toBe(-ENOSPC)
    expect(store.size()).toBe(4)
    write(store, 8, pattern(8))
    expect(store.size()).toBe(16)
  })

  test('a closed store leaves the bytes to the others', () => {
    const buffer = sharedStoreBuffer(16)
    const [a, b] = [sharedStore(buffer), sharedStore(buffer)]
    write(a, 0, bytes(7))
    expect(a.close()).toBe(0)
    expect(a.close()).toBe(-EBADF)
    expectBytes(read(b, 0, 1), bytes(7))
  })

  test('refuses a buffer without a header, and a size that does not fit', () => {
    expect(() => sharedStore(new SharedArrayBuffer(8))).toThrow(RangeError)
    expect(() => sharedStore(sharedStoreBuffer(8), { sizeBytes: 9 })).toThrow('9')
    expect(() => sharedStore(sharedStoreBuffer(8), { sizeBytes: -1 })).toThrow(RangeError)
  })

  test('the opener finds a buffer by the name that its store has, and says which one it lacks', () => {
    const buffer = sharedStoreBuffer(64)
    const store = sharedStore(buffer, { name: 'scratch', sizeBytes: 5, readOnly: true })
    const again = sharedStores({ scratch: buffer }).open({ ...store.handle, kind: 'shared' })
    expect(again.size()).toBe(5)
    expect(again.readOnly).toBe(true)
    expect(() => sharedStores({}).open({ kind: 'shared', name: 'scratch' })).toThrow("'scratch'")
    expect(() => sharedStores({}).open({ kind: 'shared', name: 'toString' })).toThrow("'toString'")
  })

  test('writes of two threads that lengthen it leave the longer size', async () => {
    const buffer = sharedStoreBuffer(1 << 16)
    const store = sharedStore(buffer)
    const source = `
      const { workerData } = require('node:worker_threads')
      const size = new BigInt64Array(workerData)
      // The other side of a race for the size, as a store in this thread would run it.
      for (let i = 1n; i <= 20000n; i++) for (let s = Atomics.load(size, 0); s < i; ) s = Atomics.compareExchange(size, 0, s, i)
    `
    const worker = new Worker(source, { eval: true, workerData: buffer })
    const ended = new Promise(resolve => worker.once('exit', resolve))
    const one = bytes(1)
    let last = 0
    for (let at = 0; at < 30000; at++) {
      write(store, at, one)
      expect(store.size()).toBeGreaterThan(at)
      expect(store.size()).toBeGreaterThanOrEqual(last)
      last = store.size()
    }
    await ended
    expect(store.size()).toBe(30000)
  })
})
