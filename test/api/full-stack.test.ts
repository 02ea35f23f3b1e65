/** Programs that recurse too deep, and catch the RangeError as programs do: it is theirs, and the memory is whole. */
import { expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const PAGE = 4096

test.each([1, 2])('a fault on a stack that is almost full changes nothing, in a memory for %i threads', threads => {
  for (let round = 0; round < 6; round++) {
    const memory = new Memory({ size: '80KiB', readahead: 0, faultAroundPages: 1, threads })
    const store = memoryStore({ sizeBytes: 64 * PAGE })
    const file = memory.open(store)
    const map = memory.space().map(file, { writable: true })
    map.setUint8(5, 42)
    let i = 0
    const acts = [
      () => map.getUint8((1 + (i % 63)) * PAGE),
      () => map.setUint8((1 + (i % 63)) * PAGE, 7),
      () => map.remap({ at: 1 + (i % 60), page: 1 + ((i * 7) % 60), count: 3 }),
      () => file.write(new Uint8Array(6000), (1 + (i % 50)) * PAGE),
      () => file.sync(),
      () => map.space.fork().close()
    ]
    const act = acts[round]
    let refused = 0
    let isDone = false
    // Where the stack ends, and then a little less deep each time, until it can be done.
    const deep = (): void => {
      try {
        deep()
      } catch {
        refused++
      }
      if (isDone) return
      i++
      act()
      isDone = true
    }
    deep()
    expect(isDone).toBe(true)
    expect(refused).toBeGreaterThan(1)
    expect(memory.check()).toEqual([])
    file.sync()
    const byte = new Uint8Array(1)
    store.read(5, byte, 0, 1)
    expect(byte[0]).toBe(42)
    memory.close()
  }
})

test('a store that gives a page at a time is read in a loop', () => {
  const pages = 12_000
  const inner = memoryStore({ sizeBytes: pages * 512 })
  let calls = 0
  const store = {
    name: 'every other call fails',
    identity: undefined,
    readOnly: false,
    durable: false,
    size: () => inner.size(),
    read: (position: number, buffer: Uint8Array, offset: number, length: number) =>
      ++calls % 2 === 0 ? -5 : inner.read(position, buffer, offset, length),
    write: (position: number, buffer: Uint8Array, offset: number, length: number) =>
      inner.write(position, buffer, offset, length),
    flush: () => 0,
    truncate: (sizeBytes: number) => inner.truncate(sizeBytes),
    punch: () => -95,
    close: () => 0
  }
  const memory = new Memory({ size: '64KiB', pageSize: 512, readahead: 0 })
  const file = memory.open(store)
  expect(file.read(new Uint8Array(pages * 512), 0)).toBe(pages * 512)
  expect(file.write(new Uint8Array(pages * 512), 0)).toBe(pages * 512)
  file.sync()
  memory.close()
})
