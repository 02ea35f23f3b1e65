/**
 * Stores that answer what is no answer, or are not what they were: an error says what they gave, and nothing else
 * suffers.
 */
import { afterEach, expect, test } from 'vitest'
import { EIO, ESRCH } from '../../src/abi/errno.ts'
import { type AsyncStore, Memory, memoryStore, type Store } from '../../src/index.ts'
import { Mm } from '../../src/syscall/args.ts'
import { sys_munmap } from '../../src/syscall/memory.ts'
import { laterStore } from '../support/later-store.ts'

const P = 4096
const open: Memory[] = []
const unhandled: unknown[] = []
const note = (reason: unknown): void => void unhandled.push(reason)

afterEach(() => {
  for (const memory of open.splice(0)) memory.close()
})

function machine(threads = 1): Memory {
  const memory = new Memory({ size: '1MiB', readahead: 0, faultAroundPages: 1, threads })
  open.push(memory)
  return memory
}

/** A store of four pages with some calls in another's place. */
function storeWith(calls: object): Store {
  return Object.assign(memoryStore({ name: 'mine', sizeBytes: 4 * P }), calls)
}

function boundTo(object: object, key: PropertyKey): unknown {
  const value = Reflect.get(object, key)
  return typeof value === 'function' ? value.bind(object) : value
}

function thrownBy(act: () => unknown): Error {
  try {
    act()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was thrown')
}

const WRONG: [string, unknown, RegExp][] = [
  ['NaN', Number.NaN, /gave NaN, which is neither a whole number from 0 to \d+ nor -errno$/],
  ['a fraction', 1.5, /gave 1.5, /],
  ['a BigInt', 5n, /gave 5n, /],
  ['no errno', -5000, /gave -5000, /],
  ['too large a number', 2 ** 60, /gave 1152921504606847000, /],
  ['nothing', undefined, /gave a undefined, /],
  ['a string', '4096', /gave a string, /],
  ['an object', {}, /gave a object, /],
  ['a promise', Promise.resolve(4096), /gave a promise: .* await memory.openAsync\(store\)$/]
]

test.each(WRONG)('a size that is %s', (_, given, why) => {
  const memory = machine()
  const error = thrownBy(() => memory.open(storeWith({ size: () => given })))
  expect(error).toMatchObject({ code: 'EIO', message: expect.stringMatching(/opening mine: size\(\) of mine gave/) })
  expect(error.message).toMatch(why)
  expect(error.cause).toBeInstanceOf(TypeError)
  expect(memory.check()).toEqual([])
})

test.each([...WRONG, ['more than was asked for', P + 1, /gave 4097, .* from 0 to 4096 /] as const])(
  'a read that gives %s',
  (_, given, why) => {
    const memory = machine()
    const map = memory.space().map(memory.open(storeWith({ read: () => given })))
    const error = thrownBy(() => map.getUint8(0))
    expect(error).toMatchObject({ code: 'SIGBUS', errno: -EIO, cause: { message: expect.stringMatching(why) } })
    expect(memory.check()).toEqual([])
  }
)

test('what size throws is the cause of the failed open, whatever close does', () => {
  const broken = new Error('broken')
  const size = (): never => {
    throw broken
  }
  const error = thrownBy(() => machine().open(storeWith({ size, close: () => Number.NaN })))
  expect(error).toMatchObject({ code: 'EIO', cause: broken })
})

test('a store that answers later, opened as one that answers now: its rejections are caught', async () => {
  process.on('unhandledRejection', note)
  try {
    const memory = machine()
    const later = (): Promise<never> => Promise.reject(new Error('not now'))
    const store = storeWith({ size: later, read: later, close: later })
    expect(() => memory.open(store)).toThrow(/await memory\.openAsync\(store\)/)
    const write = { name: 'mine', size: () => P, write: later, flush: later, close: later, read: () => P }
    const file = memory.open(storeWith(write))
    file.write(new Uint8Array(9), 0)
    expect(() => file.sync()).toThrow(/EIO/)
    expect(() => file.close()).toThrow()
    await new Promise(resolve => setImmediate(resolve))
    expect(unhandled).toEqual([])
  } finally {
    process.off('unhandledRejection', note)
  }
})

test.each(WRONG.slice(0, -1))('a store that answers later, with a size that is %s', async (_, given, why) => {
  const memory = machine()
  const store = Object.assign(laterStore(memoryStore({ name: 'mine', sizeBytes: P })), { size: async () => given })
  await expect(memory.openAsync(store as unknown as AsyncStore)).rejects.toMatchObject({
    code: 'EIO',
    message: expect.stringMatching(why)
  })
})

test.each([...WRONG.slice(0, -1), ['more than was asked for', P + 1, /gave 4097, /] as const])(
  'a store that answers later, with a read that gives %s',
  async (_, given, why) => {
    const memory = machine()
    const store = Object.assign(laterStore(memoryStore({ name: 'mine', sizeBytes: P })), { read: async () => given })
    const map = memory.space().map(await memory.openAsync(store as unknown as AsyncStore))
    await expect(map.ready()).rejects.toMatchObject({
      code: 'SIGBUS',
      errno: -EIO,
      cause: { message: expect.stringMatching(why) }
    })
    expect(memory.check()).toEqual([])
  }
)

test('openAsync of what is no store says what it takes', async () => {
  for (const none of [undefined, null, 'a.db', {}])
    await expect(machine().openAsync(none as unknown as AsyncStore)).rejects.toThrow(/memory\.openAsync takes a store/)
})

test.each([1, 2])('what a store is is read once: by a memory for %d threads', async threads => {
  const memory = machine(threads)
  const once = <T extends object>(inner: T): T => {
    const store = new Proxy(inner, { get: (_, key) => (key in facts ? Reflect.get(facts, key) : boundTo(inner, key)) })
    const facts = {}
    for (const key of ['name', 'identity', 'readOnly', 'durable', 'isCut', 'handle']) {
      const value = key === 'name' ? 'mine' : Reflect.get(inner, key)
      let reads = 0
      const get = (): unknown => {
        if (reads++ > 0) throw new Error(`${key} is read again`)
        return value
      }
      Object.defineProperty(facts, key, { get })
    }
    return store
  }
  const file = memory.open(once(memoryStore({ sizeBytes: P })))
  file.write(Uint8Array.of(7), 0)
  file.sync()
  expect(file.name).toBe('mine')
  file.close()
  // One read of each fails or is given up: what errors call the store is known.
  const slow = laterStore(memoryStore({ sizeBytes: 2 * P }))
  const later = await memory.openAsync(once(slow), { timeoutMs: 1 })
  const map = memory.space().map(later)
  slow.hold()
  await expect(map.ready()).rejects.toMatchObject({
    cause: { message: 'ETIMEDOUT: mine did not answer within 1 ms' }
  })
  const read = map.readAsync(new Uint8Array(P), P)
  await slow.whenPending(1)
  map.unmap()
  later.close()
  await expect(read).rejects.toThrow()
})

test('a name is made a string, and an identity that is null is none', () => {
  const memory = machine(2)
  const named = memory.open(storeWith({ name: { toString: () => 'made' } }))
  expect(named.name).toBe('made')
  const [one, other] = [1, 2].map(() => memory.open(storeWith({ identity: null })))
  one.write(Uint8Array.of(7), 0)
  const bytes = new Uint8Array(1)
  other.read(bytes, 0)
  expect(bytes[0]).toBe(0)
})

test('a store that gives away the buffer that it was lent: an error, and the account of buffers is right', async () => {
  const memory = machine()
  let isThief = true
  const inner = laterStore(memoryStore({ name: 'mine', sizeBytes: 4 * P }))
  const store = Object.assign(Object.create(inner), {
    name: 'mine',
    async size() {
      return 4 * P
    },
    async read(_position: number, buffer: Uint8Array, _offset: number, length: number) {
      if (isThief) structuredClone(buffer, { transfer: [buffer.buffer as ArrayBuffer] })
      else buffer.fill(7)
      // What the store gives it of its own is not looked at.
      Object.defineProperty(buffer, 'length', { value: 10 ** 9 })
      return length
    },
    async close() {
      return 0
    }
  }) as AsyncStore
  const map = memory.space().map(await memory.openAsync(store))
  for (let i = 0; i < 3; i++) {
    await expect(map.ready({ length: P })).rejects.toMatchObject({
      cause: { message: 'mine gave away the buffer that it was lent' }
    })
    expect(memory.stats().besideBytes['fetch buffers']).toBe(0)
  }
  isThief = false
  expect(await map.ready()).toBe(4)
  expect(map.getUint8(3 * P)).toBe(7)
  expect(memory.stats().besideBytes['fetch buffers']).toBe(0)
})

test('a proxy of an Mm, an object of a class that extends it, one with a field of its own: refused', () => {
  const memory = machine()
  const { mm } = memory.space()
  class Mine extends Mm {
    override get isAlive(): boolean {
      return true
    }
  }
  const refuse = (): never => {
    throw new Error('a trap of the caller')
  }
  const strange = [
    new Proxy(mm, {}),
    new Proxy(mm, { get: refuse, getPrototypeOf: refuse, has: refuse }),
    new Mine(memory.machine, mm.id),
    Object.create(mm),
    Object.create(Mm.prototype),
    null,
    undefined,
    7
  ]
  for (const one of strange) expect(sys_munmap(one as Mm, 16 * P, P)).toBe(-ESRCH)
  expect(() => Object.defineProperty(mm, 'id', { get: refuse })).toThrow(TypeError)
  expect(sys_munmap(mm, 16 * P, P)).toBe(0)
})
