/** Files that may only be read can be remapped, unless the machine does as Linux does. */
import { expect, test } from 'vitest'
import { Memory, memoryStore, type Store } from '../../src/index.ts'

const PAGES = 32

function readOnlyStore(): Store {
  const contents = new Uint8Array(PAGES * 4096)
  for (let page = 0; page < PAGES; page++) contents[page * 4096] = page + 1
  return memoryStore({ contents, readOnly: true })
}

test('a file that may only be read is shown in any order, evicted and shown again', () => {
  using memory = new Memory({ size: '64KiB' })
  using map = memory.space().map(memory.open(readOnlyStore()))
  map.remapPages(
    0,
    Int32Array.from({ length: PAGES }, (_, i) => PAGES - 1 - i)
  )
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < PAGES; i++) expect(map.getUint8(i * 4096)).toBe(PAGES - i)
  }
  expect(() => map.protect('write')).toThrow(/EACCES/)
  expect(() => map.setUint8(0, 1)).toThrow(/SIGSEGV/)
})

test('a fork of such a window shows the same', () => {
  using memory = new Memory({ size: '64KiB' })
  const space = memory.space()
  const map = space.map(memory.open(readOnlyStore()))
  map.remap({ at: 3, page: 20 })
  const copy = space.fork().view(map)
  expect(copy.getUint8(3 * 4096)).toBe(21)
  expect(copy.getUint8(4 * 4096)).toBe(5)
})

test('with the policy of Linux it is refused', () => {
  using memory = new Memory({ size: '64KiB', policy: 'linux' })
  using map = memory.space().map(memory.open(readOnlyStore()))
  expect(() => map.remap({ at: 0, page: 1 })).toThrow(/EINVAL/)
})
