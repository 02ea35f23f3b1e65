/** Pages that are borrowed while an address space forks: what is stored through them is the parent's alone. */
import { afterEach, describe, expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const PAGE = 4096
const made: Memory[] = []
afterEach(() => {
  for (const memory of made.splice(0)) {
    expect(memory.check()).toEqual([])
    memory.close()
  }
})

function memoryFor(threads: number): Memory {
  const memory = new Memory({ size: '1MiB', threads, debug: true })
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
