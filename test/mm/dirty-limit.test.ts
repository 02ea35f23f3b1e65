/**
 * A store that fails does not fill memory with pages that cannot be written: who stores is told, everything else can be
 * read.
 */
import { expect, test } from 'vitest'
import { ENOSPC } from '../../src/abi/errno.ts'
import { Memory } from '../../src/api/memory.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const PAGE = 4096

function rig(size: number) {
  const memory = new Memory({ size })
  const good = memoryStore({ contents: new Uint8Array(64 * PAGE).fill(7) })
  const inner = memoryStore({ contents: new Uint8Array(256 * PAGE) })
  const state = { errno: 0, writes: 0 }
  const full = {
    ...inner,
    name: 'full',
    identity: undefined,
    readOnly: false,
    durable: false,
    handle: undefined,
    size: () => inner.size(),
    read: (...call: Parameters<typeof inner.read>) => inner.read(...call),
    write: (...call: Parameters<typeof inner.write>) => {
      state.writes++
      return state.errno === 0 ? inner.write(...call) : -state.errno
    },
    flush: () => 0,
    truncate: (bytes: number) => inner.truncate(bytes),
    punch: (...call: Parameters<typeof inner.punch>) => inner.punch(...call),
    close: () => 0
  }
  const file = memory.open(full)
  const map = memory.space().map(file, { writable: true })
  const other = memory.space().map(memory.open(good))
  return { memory, file, map, other, state, inner }
}

test.each([512 << 10, 1 << 20])('a full store in %d bytes', size => {
  const { memory, file, map, other, state, inner } = rig(size)
  state.errno = ENOSPC
  let stored = 0
  let error: unknown
  try {
    for (; stored < 256; stored++) map.setUint8(stored * PAGE, 1)
  } catch (thrown) {
    error = thrown
  }
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -ENOSPC, message: expect.stringContaining('ENOSPC') })
  expect(file.dirtyPages).toBe(stored)
  for (let page = 0; page < 64; page++) expect(other.getUint8(page * PAGE)).toBe(7)
  // What is dirty can be stored to, writes to the file are told too, and nothing is lost.
  map.setUint8(0, 2)
  expect(() => file.write(Uint8Array.of(1), 255 * PAGE)).toThrow('ENOSPC')
  expect(memory.check()).toEqual([])
  state.errno = 0
  map.setUint8(255 * PAGE, 3)
  try {
    file.sync()
  } catch {
    // The failures from before, once.
    file.sync()
  }
  const byte = new Uint8Array(1)
  for (let page = 0; page < stored; page++) {
    inner.read(page * PAGE, byte, 0, 1)
    expect(byte[0]).toBe(page === 0 ? 2 : 1)
  }
  memory.close()
})
