/**
 * The tests of shared mappings once more, as they work on processors that reorder loads: with atomic loads of the epoch and the entry, and
 * a fence. What they do must be the same.
 */
import '../api/shared-mapping.test.ts'
import '../attached/copies.test.ts'
import '../attached/deaths.test.ts'
import '../attached/early-read.test.ts'
import '../attached/later.test.ts'
import '../attached/waits.test.ts'
import { afterEach, expect, test, vi } from 'vitest'
import { Memory } from '../../src/index.ts'
import { S_EPOCH, T_HAZARD } from '../../src/sync/threads.ts'

vi.mock('../../src/base/memory-order.ts', () => ({ hasTotalStoreOrder: () => false }))

afterEach(() => vi.restoreAllMocks())

test('a load of these mappings loads the epoch, fences, and loads it again; a store ends with an atomic one', () => {
  const memory = new Memory({ size: '1MiB', threads: 2 })
  const map = memory.space().map(null, { length: 4096, writable: true })
  map.setUint32(0, 7)
  // Learns where the page's table is.
  expect(map.getUint32(0)).toBe(7)
  const { words, threads, row } = memory.machine.sync
  const calls: string[] = []
  const nameOf = (array: unknown, at: number): string =>
    array === words && at === S_EPOCH ? 'epoch' : array === threads.w && at === row + T_HAZARD ? 'hazard' : 'entry'
  for (const name of ['load', 'store', 'add'] as const) {
    const plain = Atomics[name] as (array: Int32Array, at: number, value?: number) => number
    vi.spyOn(Atomics, name).mockImplementation(((array: Int32Array, at: number, value?: number) => {
      calls.push(`${name} ${nameOf(array, at)}`)
      return plain(array, at, value)
    }) as never)
  }
  expect(map.getUint32(0)).toBe(7)
  expect(calls.splice(0)).toEqual(['load epoch', 'add hazard', 'load epoch'])
  map.setUint32(0, 8)
  expect(calls).toEqual(['store hazard', 'load entry', 'load entry', 'store hazard'])
  vi.restoreAllMocks()
  memory.close()
})
