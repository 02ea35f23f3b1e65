import { describe, expect, test } from 'vitest'
import { memoryStore } from '../../src/stores/memory.ts'
import { asyncStoreConformance } from '../stores/async-conformance.ts'
import { expectBytes, pattern, readLater } from '../stores/conformance.ts'
import { laterStore } from './later-store.ts'

asyncStoreConformance('laterStore', {
  open: () => laterStore(memoryStore()),
  openReadOnly: contents => laterStore(memoryStore({ contents, readOnly: true })),
  openHeld: contents => {
    const store = laterStore(memoryStore({ contents }))
    store.hold()
    return { store, asked: store.whenPending(1), release: () => store.release() }
  },
  punch: 'works'
})

describe('laterStore', () => {
  test('lets held calls go one by one, oldest first', async () => {
    const store = laterStore(memoryStore({ contents: pattern(100) }))
    store.hold()
    const done: number[] = []
    const reads = [10, 20, 30].map(async position => {
      expectBytes(await readLater(store, position, 5), pattern(100).slice(position, position + 5))
      done.push(position)
    })
    await store.whenPending(3)
    expect(store.pending.map(({ position }) => position)).toEqual([10, 20, 30])
    store.release(1)
    await reads[0]
    expect(done).toEqual([10])
    store.release()
    await Promise.all(reads)
    expect(done).toEqual([10, 20, 30])
    expect(store.pending).toEqual([])
    expect(store.log).toHaveLength(3)
  })

  test('a call fails with what `before` throws, and never reaches the inner store', async () => {
    const inner = memoryStore({ contents: pattern(100) })
    const store = laterStore(inner, {
      before: ({ op }) => {
        if (op === 'write') throw new Error('no')
      }
    })
    await expect(store.write(0, new Uint8Array(10), 0, 10)).rejects.toThrow('no')
    expectBytes(await readLater(store, 0, 100), pattern(100))
  })
})
