/** Pages that are borrowed while an address space forks: what is stored through them is the parent's alone. */
import { afterEach, describe, expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import type { SwapOptions } from '../../src/api/memory-options.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const PAGE = 4096
const made: Memory[] = []
afterEach(() => {
  for (const memory of made.splice(0)) {
    expect(memory.check()).toEqual([])
    memory.close()
  }
})

function memoryFor(threads: number, swap?: SwapOptions): Memory {
  const memory = new Memory({ size: '1MiB', threads, debug: true, ...(swap && { swap }) })
  made.push(memory)
  return memory
}

describe.each([1, 2])('in a memory for %i threads', threads => {
  test.each(['write', 'read'] as const)(
    'a private page borrowed to %s: the child has a copy, the parent the page',
    access => {
      const memory = memoryFor(threads)
      const space = memory.space()
      const map = space.map(null, { length: 4 * PAGE, writable: true })
      map.setUint32(0, 1)
      map.setUint32(PAGE, 2)
      const free = memory.stats().freeFrames
      const page = map.borrow(0, access)
      const child = space.fork()
      const theirs = child.view(map)
      if (access === 'write') page.bytes[0] = 77
      else map.setUint32(0, 77)
      expect(page.bytes[0]).toBe(77)
      expect(map.getUint32(0)).toBe(77)
      expect(theirs.getUint32(0)).toBe(1)
      // Both ways, and by stores of either side.
      theirs.setUint32(0, 5)
      map.setUint32(0, 78)
      expect([page.bytes[0], theirs.getUint32(0)]).toEqual([78, 5])
      // The page that nobody had borrowed is shared until somebody stores to it.
      expect(theirs.getUint32(PAGE)).toBe(2)
      theirs.setUint32(PAGE, 6)
      expect(map.getUint32(PAGE)).toBe(2)
      page.release()
      expect(memory.check()).toEqual([])
      child.close()
      memory.shrink()
      expect(map.getUint32(0)).toBe(78)
      expect(memory.stats().freeFrames).toBeLessThanOrEqual(free)
    }
  )

  test('a page that a fork shares is copied for who borrows it: by the child, which may have ended', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    map.setUint32(0, 1)
    const child = space.fork()
    const lent = child.view(map).borrow(0)
    child.close()
    map.setUint32(0, 0xdead)
    expect(lent.bytes[0]).toBe(1)
    lent.release()
  })

  test('a page that a fork shares is copied for who borrows it: by the parent, which stores to it afterwards', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    map.setUint32(0, 1)
    const child = space.fork()
    const theirs = child.view(map)
    const lent = map.borrow(0)
    map.setUint32(0, 2)
    expect([lent.bytes[0], theirs.getUint32(0)]).toEqual([2, 1])
    theirs.setUint32(0, 3)
    expect([lent.bytes[0], map.getUint32(0)]).toEqual([2, 2])
    lent.release()
  })

  test('the zero page and a page of the file, in a private mapping: what is borrowed shows the next store', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const zeros = space.map(null, { length: PAGE, writable: true })
    const file = memory.open(memoryStore({ contents: new Uint8Array(PAGE).fill(9) }))
    const copied = space.map(file, { private: true, writable: true })
    for (const [map, before] of [
      [zeros, 0],
      [copied, 9]
    ] as const) {
      expect(map.getUint8(1)).toBe(before)
      const lent = map.borrow(0)
      expect(lent.bytes[1]).toBe(before)
      map.setUint8(1, 77)
      expect(lent.bytes[1]).toBe(77)
      lent.release()
    }
    const bytes = new Uint8Array(2)
    file.read(bytes, 0)
    expect(bytes).toEqual(Uint8Array.of(9, 9))
  })

  test('a private mapping that cannot be stored to lends the file its own page, without a copy', () => {
    const memory = memoryFor(threads)
    const file = memory.open(memoryStore({ contents: new Uint8Array(PAGE).fill(9) }))
    const map = memory.space().map(file, { private: true })
    const before = memory.stats().counters.pgfault
    const [one, two] = [map.borrow(0), map.borrow(0)]
    expect(one.bytes.byteOffset).toBe(two.bytes.byteOffset)
    expect(memory.stats().counters.pgfault).toBe(before + 1)
    one.release()
    two.release()
  })

  test('a page that came back from swap is the own one of whoever borrows it', () => {
    const memory = memoryFor(threads, { size: 64 * PAGE, store: memoryStore() })
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    map.setUint32(0, 1)
    const child = space.fork()
    memory.shrink()
    const theirs = child.view(map)
    // The slot is still the parent's too.
    const lent = theirs.borrow(0)
    map.setUint32(0, 2)
    expect([lent.bytes[0], theirs.getUint32(0)]).toEqual([1, 1])
    theirs.setUint32(0, 3)
    expect([lent.bytes[0], map.getUint32(0)]).toEqual([3, 2])
    lent.release()
  })

  test('in a window that has become read-only, the child cannot store to its copy either', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    map.setUint32(0, 1)
    const page = map.borrow(0, 'write')
    map.protect('read')
    const child = space.fork()
    const theirs = child.view(map)
    page.bytes[0] = 77
    expect([map.getUint32(0), theirs.getUint32(0)]).toEqual([77, 1])
    expect(() => theirs.setUint32(0, 2)).toThrow('SIGSEGV')
    page.release()
  })

  test('a page of a file is one page for both, borrowed or not', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const map = space.map(memory.open(memoryStore({ sizeBytes: PAGE })), { writable: true })
    const page = map.borrow(0, 'write')
    const theirs = space.fork().view(map)
    page.bytes[0] = 77
    expect(theirs.getUint32(0)).toBe(77)
    page.release()
  })

  test('without a frame for the copy, fork fails and leaves nothing behind', () => {
    const memory = memoryFor(threads)
    const space = memory.space()
    const map = space.map(null, { length: PAGE, writable: true })
    map.setUint32(0, 1)
    const page = map.borrow(0, 'write')
    const { allocator } = memory.machine
    for (let n = 1; n <= 3; n++) {
      let left = n
      allocator.setFail(() => --left === 0)
      try {
        space.fork().close()
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOMEM' })
      }
      allocator.setFail(undefined)
      expect(memory.check()).toEqual([])
    }
    page.release()
  })
})
