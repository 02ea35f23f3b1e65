/** Stores that fail, answer nonsense, or never answer. */
import { expect, test } from 'vitest'
import type { FaultError } from '../../src/api/errors.ts'
import { Memory } from '../../src/api/memory.ts'
import type { AsyncStore } from '../../src/store/async-store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { laterStore } from '../support/later-store.ts'
import { errorOf, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()

/** A store whose reads fail with `error` while that is set. */
function failing(): { before: () => void; error: unknown } {
  const failure = {
    error: undefined as unknown,
    before: (): void => {
      if (failure.error !== undefined) throw failure.error
    }
  }
  return failure
}

const rejection = (promise: Promise<unknown>): Promise<FaultError> =>
  promise.then(
    () => {
      throw new Error('no error came')
    },
    error => error
  )

test("ready rejects with SIGBUS, the errno by the error's code, and the very error as its cause", async () => {
  const failure = failing()
  const rig = await rigs({ before: ({ op }) => (op === 'read' ? failure.before() : undefined) })
  for (const [code, errno] of [
    ['ESTALE', 116],
    ['ECONNREFUSED', 111],
    ['EACCES', 13],
    ['no such code', 5],
    [undefined, 5]
  ] as const) {
    failure.error = Object.assign(new Error('it failed'), { code })
    const error = await rejection(rig.map.ready({ offset: 5 * PAGE, length: 3 * PAGE }))
    expect(error).toMatchObject({ code: 'SIGBUS', errno: -errno, page: 5, bytesDone: 0 })
    expect(error.cause).toBe(failure.error)
  }
  expect(rig.memory.check()).toEqual([])
  const read = await rejection(rig.file.readAsync(new Uint8Array(10), 5 * PAGE))
  expect(read).toMatchObject({ code: 'EIO', syscall: 'pread' })
  expect(read.cause).toBe(failure.error)
  failure.error = undefined
  expect(await rig.map.ready({ offset: 5 * PAGE, length: 3 * PAGE })).toBe(3)
  expect(rig.load(6)).toBe(7)
})

test('after a failure that nobody waited for, the next access asks again', async () => {
  const failure = failing()
  const rig = await rigs({ readahead: 0, before: ({ op }) => (op === 'read' ? failure.before() : undefined) })
  failure.error = new Error('once')
  errorOf(() => rig.load(3))
  while (rig.memory.stats().pagesUnderWay > 0) await turn()
  expect(rig.memory.stats().counters.read_errors).toBe(1)
  failure.error = undefined
  expect(errorOf(() => rig.load(3)).code).toBe('EAGAIN')
  await rig.map.ready({ offset: 3 * PAGE, length: PAGE })
  expect(rig.load(3)).toBe(4)
  expect(rig.reads).toHaveLength(2)
})

test('the pages before the one that fails are there', async () => {
  const rig = await rigs({
    readahead: 0,
    before: ({ op, position }) => {
      if (op === 'read' && position >= 20 * PAGE) throw new Error('the end of it')
    }
  })
  rig.map.remapPages(0, Int32Array.of(3, 9, 20, 4))
  const error = await rejection(rig.map.ready({ offset: 0, length: 4 * PAGE }))
  expect(error).toMatchObject({ code: 'SIGBUS', page: 20, address: rig.map.address + 2 * PAGE })
  expect([rig.load(0), rig.load(1)]).toEqual([4, 10])
})

test('negative answers are errnos; nonsense is EIO', async () => {
  const rig = await rigs()
  for (const [answer, errno] of [
    [-116, 116],
    [-110, 110],
    [Number.NaN, 5],
    [3.5, 5],
    [1e9, 5],
    [undefined, 5],
    ['7', 5]
  ] as const) {
    const store = laterStore(memoryStore({ sizeBytes: 4 * PAGE }))
    store.read = async () => answer as number
    const map = rig.space.map(await rig.memory.openAsync(store))
    const error = await rejection(map.ready())
    expect(error).toMatchObject({ code: 'SIGBUS', errno: -errno })
  }
})

test('a store that throws instead of rejecting, one that ends early, one that rejects with nothing', async () => {
  const rig = await rigs()
  const open = async (read: AsyncStore['read']): Promise<FaultError> => {
    const store = laterStore(memoryStore({ sizeBytes: 4 * PAGE, name: 'bad' }))
    store.read = read
    return rejection(rig.space.map(await rig.memory.openAsync(store)).ready())
  }
  const thrown = new Error('at once')
  expect(
    (
      await open(() => {
        throw thrown
      })
    ).cause
  ).toBe(thrown)
  const early = await open(async () => 100)
  expect(early).toMatchObject({ code: 'SIGBUS', errno: -5 })
  expect((early.cause as Error).message).toBe(`bad ended after 100 of ${4 * PAGE} bytes`)
  const silent = await open(() => Promise.reject())
  expect(silent).toMatchObject({ code: 'SIGBUS', errno: -5 })
  expect(silent.cause).toBeInstanceOf(Error)
})

test('a store that cannot be opened is closed, and the error comes through', async () => {
  const rig = await rigs()
  const never = laterStore(memoryStore())
  const size = async (result: unknown): Promise<void> => {
    const store = laterStore(memoryStore({ sizeBytes: PAGE }))
    store.size = async () => {
      if (result instanceof Error) throw result
      return result as number
    }
    await rig.memory.openAsync(store).finally(async () => {
      expect(await store.read(0, new Uint8Array(1), 0, 1)).toBe(-9)
    })
  }
  const wrong = new Error('no size')
  await expect(size(wrong)).rejects.toBe(wrong)
  await expect(size(-13)).rejects.toMatchObject({ code: 'EACCES', syscall: 'open' })
  await expect(size(Number.NaN)).rejects.toMatchObject({ code: 'EIO' })
  await expect(rig.memory.openAsync(never, { timeoutMs: -1 })).rejects.toThrow(RangeError)

  never.hold()
  const abort = new AbortController()
  const opening = rig.memory.openAsync(never, { signal: abort.signal })
  await never.whenPending(1)
  abort.abort(new Error('enough'))
  await expect(opening).rejects.toThrow('enough')
  expect(await never.read(0, new Uint8Array(1), 0, 1)).toBe(-9)

  const memory = new Memory({ size: '1MiB' })
  memory.close()
  await expect(memory.openAsync(laterStore(memoryStore()))).rejects.toMatchObject({ code: 'ENODEV' })
})

test('a read that takes longer than timeoutMs: ETIMEDOUT, the signal is raised, and the next one asks again', async () => {
  let raised: unknown
  const rig = await rigs({ timeoutMs: 30 })
  const { read } = rig.store
  rig.store.read = (position, buffer, offset, length, signal) => {
    signal?.addEventListener('abort', () => {
      raised = signal.reason
    })
    return read.call(rig.store, position, buffer, offset, length, signal)
  }
  rig.store.hold()
  const error = await rejection(rig.map.ready({ offset: 0, length: PAGE }))
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -110 })
  expect(error.cause).toBe(raised)
  expect(raised).toMatchObject({ code: 'ETIMEDOUT', message: 'ETIMEDOUT: later did not answer within 30 ms' })
  rig.store.release()
  expect(await rig.map.ready({ offset: 0, length: PAGE })).toBe(1)
})

test('a store that never answers and ignores its signal does not hold others up, nor its buffer', async () => {
  const rig = await rigs()
  const deaf = laterStore(memoryStore({ sizeBytes: 64 * PAGE }))
  let late: ((bytes: number) => void) | undefined
  let its: Uint8Array | undefined
  deaf.read = (_position, buffer) => {
    its = buffer
    return new Promise(resolve => {
      late = resolve
    })
  }
  const map = rig.space.map(await rig.memory.openAsync(deaf, { timeoutMs: 20 }))
  await expect(map.ready()).rejects.toMatchObject({ errno: -110 })
  while (rig.memory.stats().pagesUnderWay > 0) await turn()
  // What it writes in the end goes nowhere.
  const lost = its as Uint8Array
  const other = rig.map.ready({ offset: 0, length: 16 * PAGE })
  lost.fill(0xee)
  late?.(lost.length)
  expect(await other).toBe(16)
  expect(rig.load(3)).toBe(4)
  expect(map.residency()).toEqual(new Uint8Array(64))
})

test('stores that hang do not keep other stores from reading', async () => {
  const rig = await rigs({ readahead: 0 })
  rig.store.hold()
  for (let page = 0; page < 60; page += 5) errorOf(() => rig.load(page))
  await rig.store.whenPending(6)
  const other = laterStore(memoryStore({ sizeBytes: 8 * PAGE }))
  const map = rig.space.map(await rig.memory.openAsync(other))
  expect(await map.ready()).toBe(8)
})

test('closing the memory gives up reads of stores that ignore it', async () => {
  const rig = await rigs()
  let asked = false
  let aborted = false
  const deaf = laterStore(memoryStore({ sizeBytes: 64 * PAGE }))
  deaf.read = (_position, _buffer, _offset, _length, signal) => {
    asked = true
    signal?.addEventListener('abort', () => {
      aborted = true
    })
    return new Promise(() => {})
  }
  const map = rig.space.map(await rig.memory.openAsync(deaf))
  const ready = rejection(map.ready())
  while (!asked) await turn()
  await rig.memory.closeAsync()
  expect(await ready).toMatchObject({ code: 'ESRCH' })
  expect(aborted).toBe(true)
})

test('closeAsync gives up on a store that does not close, and names it', async () => {
  const memory = new Memory({ size: '1MiB', patienceMs: 20 })
  const inner = memoryStore({ sizeBytes: PAGE })
  const store = (name: string, close: () => Promise<number>): AsyncStore => ({
    ...(laterStore(inner) as AsyncStore),
    name,
    identity: name,
    size: () => Promise.resolve(PAGE),
    close
  })
  await memory.openAsync(store('one that closes', () => Promise.resolve(0)))
  await memory.openAsync(store('one that hangs', () => new Promise(() => {})))
  const error = await rejection(memory.closeAsync())
  expect(error).toMatchObject({ code: 'ETIMEDOUT', syscall: 'close' })
  expect(error.message).toContain('one that hangs did not close within 20 ms')
  expect(error.message).not.toContain('one that closes')
})
