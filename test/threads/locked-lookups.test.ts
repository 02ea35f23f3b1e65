/**
 * Whatever looks for a vma in a memory for several threads does so with the machine lock: a look-up writes, too
 * (MM_VMA_CACHE).
 */
import { afterEach, expect, test, vi } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { type Mapping, Memory, memoryStore } from '../../src/index.ts'

const PAGE = 4096
const PAGES = 16

afterEach(() => vi.restoreAllMocks())

/** A memory for two threads whose look-ups are counted, those without the lock by the stack that made them. */
function watched(): { memory: Memory; unlocked: string[]; count: () => number } {
  const memory = new Memory({ size: '1MiB', threads: 2 })
  const { machine } = memory
  const { vmas } = machine
  const unlocked: string[] = []
  let found = 0
  const find = vmas.find.bind(vmas)
  vi.spyOn(vmas, 'find').mockImplementation((mm, vpn) => {
    found++
    if (!machine.inside) unlocked.push(new Error('a look-up without the lock').stack ?? '')
    return find(mm, vpn)
  })
  return { memory, unlocked, count: () => found }
}

function failing(): ReturnType<typeof memoryStore> {
  const store = memoryStore({ contents: new Uint8Array(PAGES * PAGE) })
  return Object.assign(store, { read: () => -EIO })
}

const calls: Record<string, (map: Mapping) => unknown> = {
  'an access': map => map.getUint8(0),
  'the page that a window page shows': map => map.filePage(1),
  'a remap': map => map.remap({ at: 0, page: 3 }),
  'a remap that populates': map => map.remap({ at: 0, page: 3, count: 2, populate: true }),
  'a remap of a locked window': map => {
    map.lock()
    map.remap({ at: 0, page: 3 })
  },
  'a remap page by page': map => map.remapPages(0, Int32Array.of(3, 1, 2)),
  'a change of protection': map => map.protect('read', { length: PAGE }),
  advice: map => map.advise('willneed'),
  'what is resident': map => map.residency(),
  'a resize': map => map.resize(4 * PAGE),
  'a sync': map => map.sync(),
  'a fork': map => map.space.fork().close(),
  'an unmap': map => map.unmap()
}

test.each(Object.entries(calls))('%s', (_name, call) => {
  const { memory, unlocked, count } = watched()
  const map = memory
    .space()
    .map(memory.open(memoryStore({ contents: new Uint8Array(PAGES * PAGE) })), { writable: true })
  const before = count()
  call(map)
  expect(unlocked).toEqual([])
  expect(count()).toBeGreaterThan(before)
  memory.close()
})

test.each<[string, (map: Mapping) => unknown, string]>([
  ['SIGBUS of a store that fails', map => map.getUint8(0), 'EIO'],
  ['SIGBUS of a bulk copy', map => map.read(new Uint8Array(8), 0), 'EIO'],
  ['SIGSEGV', map => map.setUint8(0, 1), 'SIGSEGV']
])('the error of a fault: %s', (_name, access, code) => {
  const { memory, unlocked, count } = watched()
  const map = memory.space().map(memory.open(failing()))
  const before = count()
  expect(() => access(map)).toThrow(code)
  expect(unlocked).toEqual([])
  expect(count()).toBeGreaterThan(before)
  memory.close()
})
