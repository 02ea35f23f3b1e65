/**
 * The one suite that every store passes, whether it answers now or later: the obligations of `src/store/store.ts`, each
 * a named test.
 *
 * Offers `storeConformance(name, subject)`, called at the top level of a store's own test file. A subject makes fresh
 * stores; what a kind of store can't do (be written, open the same bytes twice) it leaves out, and those tests are
 * shown as skipped. Every store that a test opens is closed after it. The suite awaits each call, which changes nothing
 * for a store that answers now. What a store that answers later owes besides is in async-conformance.ts.
 */
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { EBADF, EOPNOTSUPP } from '../../src/abi/errno.ts'
import type { AsyncStore } from '../../src/store/async-store.ts'
import type { Store } from '../../src/store/store.ts'

export type AnyStore = Store | AsyncStore
type Opened = AnyStore | Promise<AnyStore>

export interface AnySubject {
  /** A new store: empty, writable. Absent where there are read-only ones alone. */
  open?(): Opened
  /** Whether `punch` works or gives -EOPNOTSUPP. */
  readonly punch: 'works' | 'unsupported'
  /** True for a store that cannot be longer than the memory it lies in. */
  readonly isSmall?: boolean
  /** A new read-only store that holds `contents`. */
  openReadOnly?(contents: Uint8Array): Opened
  /** One more store over the bytes of `store`, which stays open. */
  openAgain?(store: AnyStore): Opened
  /** Closes `store` and opens its bytes as the next process would. */
  reopen?(store: AnyStore): Opened
}

export interface StoreSubject extends AnySubject {
  open(): Store
  openReadOnly?(contents: Uint8Array): Store
  openAgain?(store: Store): Store
  reopen?(store: Store): Store
}

const KIB = 1024
const GIB = 1024 * 1024 * 1024
/** What lies around a buffer's range before each call, and must still lie there after it. */
const POISON = 0xa5
/** No position, size, offset or length. */
const NOT_SIZES = [-1, -0.5, 0.5, Number.NaN, Infinity, -Infinity, 2 ** 53, -(2 ** 53)]

/** The kinds of memory that a kind of store must take. */
type Buffers = readonly ((length: number) => Uint8Array)[]

export function storeConformance(name: string, subject: StoreSubject): void {
  anyStoreConformance(name, subject, [shared, plain])
}

/** For a store that answers later: its buffers are plain memory. */
export function laterStoreConformance(name: string, subject: AnySubject): void {
  anyStoreConformance(name, subject, [plain])
}

function anyStoreConformance(name: string, subject: AnySubject, buffers: Buffers): void {
  const [make] = buffers
  const readOnly = subject.open === undefined
  const isSmall = subject.isSmall === true
  const opened: AnyStore[] = []
  const track = async (store: Opened): Promise<AnyStore> => {
    opened.push(await store)
    return store
  }
  const open = (): Promise<AnyStore> => track((subject.open as () => Opened)())
  /** A store that holds `contents`, read-only if there is no other kind. */
  const filled = async (contents: Uint8Array): Promise<AnyStore> => {
    if (readOnly) return track((subject.openReadOnly as (contents: Uint8Array) => Opened)(contents))
    const store = await open()
    await writeAny(store, 0, contents)
    return store
  }
  const readAny = (store: AnyStore, position: number, length: number): Promise<Uint8Array> =>
    readInto(make, store, position, length)
  const writeAny = async (store: AnyStore, position: number, contents: Uint8Array): Promise<void> => {
    const buffer = poisoned(make, contents.length)
    buffer.set(contents, MARGIN)
    expect(await store.write(position, buffer, MARGIN, contents.length)).toBe(contents.length)
  }

  afterEach(async () => {
    for (const store of opened.splice(0)) await store.close()
  })

  describe(`${name} keeps the contract of a store`, () => {
    test.skipIf(readOnly)('it begins empty, writable and with a name', async () => {
      const store = await open()
      expect(await store.size()).toBe(0)
      expect(store.readOnly).toBe(false)
      expect(store.name).not.toBe('')
      expect(typeof store.durable).toBe('boolean')
      expectBytes(await readAny(store, 0, 16), bytes())
    })

    describe('1: read fills the range, or less at the end only', () => {
      test('it gives back what was written, whole and in parts', async () => {
        const contents = pattern(200 * KIB)
        const store = await filled(contents)
        expectBytes(await readAny(store, 0, contents.length), contents)
        expectBytes(await readAny(store, 65_530, 12), contents.slice(65_530, 65_542))
        expectBytes(await readAny(store, 131_071, 1), contents.slice(131_071, 131_072))
      })

      test('it ends at the size, wherever the range ends', async () => {
        const store = await filled(pattern(1000))
        expectBytes(await readAny(store, 990, 100), pattern(1000).slice(990))
        expectBytes(await readAny(store, 999, 1), pattern(1000).slice(999))
        expectBytes(await readAny(store, 1000, 100), bytes())
        expectBytes(await readAny(store, 5 * GIB, 100), bytes())
        expectBytes(await readAny(store, Number.MAX_SAFE_INTEGER - 100, 100), bytes())
      })

      test('nothing is read into a range of length 0', async () => {
        const store = await filled(pattern(10))
        expectBytes(await readAny(store, 0, 0), bytes())
      })

      test.skipIf(readOnly)('holes read as zero', async () => {
        const store = await open()
        await writeAny(store, 300 * KIB, bytes(1, 2, 3))
        expectBytes(await readAny(store, 0, 300 * KIB + 3), concat(new Uint8Array(300 * KIB), bytes(1, 2, 3)))
      })
    })

    describe.skipIf(readOnly)('2: write takes all or fails', () => {
      test('it gives the length, changes the range and nothing beside it', async () => {
        const store = await open()
        await writeAny(store, 0, new Uint8Array(150 * KIB).fill(1))
        await writeAny(store, 65_500, new Uint8Array(70_000).fill(2))
        const expected = new Uint8Array(150 * KIB).fill(1).fill(2, 65_500, 135_500)
        expectBytes(await readAny(store, 0, 150 * KIB), expected)
        expect(await store.size()).toBe(150 * KIB)
      })

      test('past the end it extends, and the gap reads as zero', async () => {
        const store = await open()
        await writeAny(store, 0, bytes(9))
        await writeAny(store, 100_000, bytes(7))
        expect(await store.size()).toBe(100_001)
        expectBytes(await readAny(store, 0, 100_001), concat(bytes(9), new Uint8Array(99_999), bytes(7)))
      })

      test('a write of nothing extends nothing', async () => {
        const store = await open()
        expect(await store.write(5000, new Uint8Array(8), 8, 0)).toBe(0)
        expect(await store.size()).toBe(0)
      })

      test.skipIf(isSmall)('positions go past 4 GiB, and cost only what is written', async () => {
        const store = await open()
        const far = [2 ** 31 - 2, 2 ** 32 - 2, 5 * GIB + 123]
        for (const position of far) await writeAny(store, position, bytes(1, 2, 3, 4))
        expect(await store.size()).toBe(5 * GIB + 127)
        for (const position of far) {
          expectBytes(
            await readAny(store, position - 2, 8),
            bytes(0, 0, 1, 2, 3, 4, 0, 0).slice(0, position > 5 * GIB ? 6 : 8)
          )
        }
        // Where a position cut to 32 bits would have ended.
        expectBytes(await readAny(store, 0, 16), new Uint8Array(16))
        expectBytes(await readAny(store, GIB + 123, 4), new Uint8Array(4))
      })
    })

    describe('3: flush', () => {
      test.skipIf(readOnly)('gives 0, with and without something to flush, and keeps the bytes', async () => {
        const store = await open()
        expect(await store.flush()).toBe(0)
        await writeAny(store, 0, pattern(5000))
        expect(await store.flush()).toBe(0)
        expect(await store.flush()).toBe(0)
        expectBytes(await readAny(store, 0, 5000), pattern(5000))
      })

      test.skipIf(subject.reopen === undefined)(
        'what was flushed is there, size and all, for the next to open it',
        async () => {
          const store = await open()
          await writeAny(store, 0, pattern(70_000))
          expect(await store.truncate(100_000)).toBe(0)
          expect(await store.flush()).toBe(0)
          const next = await track((subject.reopen as (store: AnyStore) => Opened)(store))
          expect(await next.size()).toBe(100_000)
          expectBytes(await readAny(next, 0, 100_000), concat(pattern(70_000), new Uint8Array(30_000)))
          expect(await store.size()).toBe(-EBADF)
        }
      )
    })

    describe.skipIf(readOnly)('4: truncate sets exactly the size', () => {
      test('it cuts, within a block and at its edge', async () => {
        const store = await open()
        await writeAny(store, 0, pattern(200_000))
        for (const size of [199_999, 131_072, 65_537, 65_536, 65_535, 4096, 1, 0]) {
          expect(await store.truncate(size)).toBe(0)
          expect(await store.size()).toBe(size)
          expectBytes(await readAny(store, 0, 200_000), pattern(200_000).slice(0, size))
        }
      })

      test.skipIf(isSmall)('it extends with zeros, past 4 GiB as well', async () => {
        const store = await open()
        await writeAny(store, 0, bytes(1, 2, 3))
        expect(await store.truncate(6 * GIB)).toBe(0)
        expect(await store.size()).toBe(6 * GIB)
        expectBytes(await readAny(store, 0, 5), bytes(1, 2, 3, 0, 0))
        expectBytes(await readAny(store, 6 * GIB - 3, 10), bytes(0, 0, 0))
      })

      test.each([1, 511, 4096, 65_535, 65_536, 65_537, 131_072])(
        'what was cut off at %i reads as zero again',
        async cut => {
          const store = await open()
          await writeAny(store, 0, new Uint8Array(200_000).fill(0xff))
          expect(await store.truncate(cut)).toBe(0)
          expect(await store.truncate(200_000)).toBe(0)
          expectBytes(await readAny(store, 0, 200_000), new Uint8Array(200_000).fill(0xff, 0, cut))
        }
      )

      test('so it does when a write brings the growth', async () => {
        const store = await open()
        await writeAny(store, 0, new Uint8Array(200_000).fill(0xff))
        expect(await store.truncate(1000)).toBe(0)
        await writeAny(store, 150_000, bytes(1))
        expectBytes(
          await readAny(store, 0, 200_000),
          concat(new Uint8Array(1000).fill(0xff), new Uint8Array(149_000), bytes(1))
        )
      })

      test('its own size changes nothing', async () => {
        const store = await open()
        await writeAny(store, 0, pattern(1000))
        expect(await store.truncate(1000)).toBe(0)
        expectBytes(await readAny(store, 0, 2000), pattern(1000))
      })
    })

    describe.skipIf(readOnly)('5: punch', () => {
      const works = subject.punch === 'works'

      test.skipIf(!works).each([
        [0, 200_000],
        [0, 65_536],
        [100, 50],
        [65_000, 1000],
        [65_535, 65_538],
        [65_536, 65_536],
        [130_000, 70_000],
        [199_999, 1],
        [100, 0]
      ])('makes %i and the %i bytes from there read as zero, and nothing else', async (position, length) => {
        const store = await open()
        await writeAny(store, 0, pattern(200_000))
        expect(await store.punch(position, length)).toBe(0)
        expect(await store.size()).toBe(200_000)
        expectBytes(await readAny(store, 0, 200_000), pattern(200_000).fill(0, position, position + length))
      })

      test.skipIf(!works)('leaves the size, where the range reaches past it as well', async () => {
        const store = await open()
        await writeAny(store, 0, pattern(1000))
        expect(await store.punch(900, 5 * GIB)).toBe(0)
        expect(await store.punch(5 * GIB, 4096)).toBe(0)
        expect(await store.size()).toBe(1000)
        expectBytes(await readAny(store, 0, 2000), pattern(1000).fill(0, 900))
      })

      test.skipIf(works)('says that it cannot, and changes nothing', async () => {
        const store = await open()
        await writeAny(store, 0, pattern(10_000))
        expect(await store.punch(0, 4096)).toBe(-EOPNOTSUPP)
        expectBytes(await readAny(store, 0, 10_000), pattern(10_000))
      })
    })

    describe('6: identity', () => {
      test('no two stores over different bytes share one', async () => {
        const stores = [await filled(pattern(1)), await filled(pattern(2)), await filled(pattern(3))]
        const identities = stores.map(store => store.identity).filter(id => id !== undefined)
        expect(new Set(identities).size).toBe(identities.length)
      })

      test.skipIf(subject.openAgain === undefined)('two stores over the same bytes share one', async () => {
        const store = await filled(pattern(100))
        const again = await track((subject.openAgain as (store: AnyStore) => Opened)(store))
        expect(again.identity).toBeDefined()
        expect(again.identity).toBe(store.identity)
        expect(await store.close()).toBe(0)
        expectBytes(await readAny(again, 0, 100), pattern(100))
      })

      test.skipIf(readOnly || subject.openAgain === undefined)(
        'they see what is written through the other',
        async () => {
          const store = await open()
          const again = await track((subject.openAgain as (store: AnyStore) => Opened)(store))
          await writeAny(store, 100, bytes(1, 2, 3))
          expect(await again.size()).toBe(103)
          expectBytes(await readAny(again, 99, 9), bytes(0, 1, 2, 3))
          expect(await again.truncate(50)).toBe(0)
          expect(await store.size()).toBe(50)
          expect(await store.close()).toBe(0)
          expectBytes(await readAny(again, 0, 1), bytes(0))
        }
      )
    })

    describe('7: close', () => {
      test('comes once; after it every call gives -EBADF', async () => {
        const store = await filled(pattern(100))
        expect(await store.close()).toBe(0)
        const buffer = new Uint8Array(16).fill(POISON)
        expect(await store.close()).toBe(-EBADF)
        expect(await store.size()).toBe(-EBADF)
        expect(await store.read(0, buffer, 0, 16)).toBe(-EBADF)
        expect(await store.read(0, buffer, 0, 0)).toBe(-EBADF)
        expect(await store.write(0, buffer, 0, 16)).toBe(-EBADF)
        expect(await store.write(0, buffer, 0, 0)).toBe(-EBADF)
        expect(await store.flush()).toBe(-EBADF)
        expect(await store.truncate(0)).toBe(-EBADF)
        expect(await store.punch(0, 16)).toBe(-EBADF)
        expect(await store.close()).toBe(-EBADF)
        expectBytes(buffer, new Uint8Array(16).fill(POISON))
      })
    })

    test.skipIf(subject.openReadOnly === undefined)(
      'a read-only store reads and flushes, and changes nothing',
      async () => {
        const store = await track((subject.openReadOnly as (contents: Uint8Array) => Opened)(pattern(5000)))
        expect(store.readOnly).toBe(true)
        expect(await store.write(0, new Uint8Array(16), 0, 16)).toBe(-EBADF)
        expect(await store.write(0, new Uint8Array(16), 0, 0)).toBe(-EBADF)
        expect(await store.truncate(0)).toBe(-EBADF)
        expect(await store.truncate(10_000)).toBe(-EBADF)
        expect(await store.punch(0, 4096)).toBe(-EBADF)
        expect(await store.flush()).toBe(0)
        expect(await store.size()).toBe(5000)
        expectBytes(await readAny(store, 0, 6000), pattern(5000))
        expect(await store.close()).toBe(0)
      }
    )

    test.skipIf(readOnly)("the buffer is the caller's again when the call returns", async () => {
      const store = await open()
      const buffer = make(100).fill(1)
      expect(await store.write(0, buffer, 0, 100)).toBe(100)
      buffer.fill(2)
      expectBytes(await readAny(store, 0, 100), new Uint8Array(100).fill(1))
      expect(await store.read(0, buffer, 0, 100)).toBe(100)
      buffer.fill(3)
      expectBytes(await readAny(store, 0, 100), new Uint8Array(100).fill(1))
    })

    test('all buffers that it must take are the same to it, at any offset, of any alignment', async () => {
      const contents = pattern(70_000)
      const store = await filled(contents)
      for (const make of buffers) {
        for (const offset of [0, 1, 7, 512]) {
          const buffer = make(offset + contents.length + 9)
          if (!readOnly) {
            buffer.set(contents, offset)
            expect(await store.write(0, buffer, offset, contents.length)).toBe(contents.length)
          }
          buffer.fill(POISON)
          expect(await store.read(0, buffer, offset, contents.length)).toBe(contents.length)
          expectBytes(buffer.slice(0, offset), new Uint8Array(offset).fill(POISON))
          expectBytes(buffer.slice(offset, offset + contents.length), contents)
          expectBytes(buffer.slice(offset + contents.length), new Uint8Array(9).fill(POISON))
        }
      }
    })

    test('a read that ends early touches nothing past what it says', async () => {
      const store = await filled(new Uint8Array(100))
      const buffer = make(300).fill(POISON)
      expect(await store.read(40, buffer, 50, 200)).toBe(60)
      expectBytes(buffer.slice(0), new Uint8Array(300).fill(POISON).fill(0, 50, 110))
    })

    test('arguments that name no range are refused by a result, and nothing changes', async () => {
      const store = await filled(pattern(5000))
      const buffer = make(64).fill(POISON)
      const ranges = NOT_SIZES.flatMap(bad => [
        [bad, 0, 16],
        [0, bad, 16],
        [0, 0, bad]
      ])
      for (const [position, offset, length] of [...ranges, [0, 0, 65], [0, 60, 5], [0, 65, 0], [0, 2 ** 52, 2 ** 52]]) {
        expect(await store.read(position, buffer, offset, length)).toBeLessThan(0)
        expect(await store.write(position, buffer, offset, length)).toBeLessThan(0)
      }
      for (const bad of NOT_SIZES) {
        expect(await store.truncate(bad)).toBeLessThan(0)
        expect(await store.punch(bad, 16)).toBeLessThan(0)
        expect(await store.punch(0, bad)).toBeLessThan(0)
      }
      expect(await store.write(Number.MAX_SAFE_INTEGER, buffer, 0, 16)).toBeLessThan(0)
      expectBytes(buffer.slice(0), new Uint8Array(64).fill(POISON))
      expect(await store.size()).toBe(5000)
      expectBytes(await readAny(store, 0, 6000), pattern(5000))
    })
  })
}

/**
 * Property: after any sequence of calls the store holds what a plain array of bytes does, and gave the same results.
 * Sizes stay below 200,000; positions crowd around the edges of sectors, pages and 64 KiB blocks.
 *
 * @throws with the seed and the shortest sequence that fast-check finds when they differ.
 */
export function expectToAgreeWithModel(subject: Pick<StoreSubject, 'open' | 'punch'>): void {
  const position = fc.oneof(
    fc.nat(180_000),
    fc.tuple(fc.constantFrom(512, 4096, 65_536, 131_072), fc.integer({ min: -2, max: 2 })).map(([at, by]) => at + by)
  )
  const length = fc.oneof(fc.nat(5000), fc.constantFrom(0, 1, 512, 4096, 65_536, 70_000))
  const call = fc.oneof(
    fc.record({ op: fc.constant('read' as const), position, length }),
    fc.record({ op: fc.constant('write' as const), position, length, value: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ op: fc.constant('truncate' as const), position }),
    fc.record({ op: fc.constant('punch' as const), position, length }),
    fc.record({ op: fc.constant('flush' as const) })
  )
  const property = fc.property(fc.array(call, { maxLength: 30 }), calls => {
    const store = subject.open()
    try {
      let model = new Uint8Array(0)
      const resize = (size: number): void => {
        const resized = new Uint8Array(size)
        resized.set(model.subarray(0, size))
        model = resized
      }
      for (const c of calls) {
        if (c.op === 'read') {
          expectBytes(read(store, c.position, c.length), model.slice(c.position, c.position + c.length))
        } else if (c.op === 'write') {
          write(store, c.position, new Uint8Array(c.length).fill(c.value))
          if (c.length > 0 && c.position + c.length > model.length) resize(c.position + c.length)
          model.fill(c.value, c.position, c.position + c.length)
        } else if (c.op === 'truncate') {
          expect(store.truncate(c.position)).toBe(0)
          resize(c.position)
        } else if (c.op === 'punch') {
          const works = subject.punch === 'works'
          expect(store.punch(c.position, c.length)).toBe(works ? 0 : -EOPNOTSUPP)
          if (works) model.fill(0, c.position, c.position + c.length)
        } else {
          expect(store.flush()).toBe(0)
        }
        expect(store.size()).toBe(model.length)
      }
      expectBytes(read(store, 0, 300_000), model)
    } finally {
      store.close()
    }
  })
  fc.assert(property, { numRuns: 100 })
}

/** How much poison lies on each side of a range. */
const MARGIN = 8

function poisoned(make: (length: number) => Uint8Array, length: number): Uint8Array {
  return make(length + 2 * MARGIN).fill(POISON)
}

/** Checks the poison around the `got` bytes of a read. → the bytes. */
function unpoisoned(buffer: Uint8Array, got: number): Uint8Array {
  expect(got).toBeGreaterThanOrEqual(0)
  const rest = buffer.length - MARGIN - got
  expectBytes(buffer.slice(0, MARGIN), new Uint8Array(MARGIN).fill(POISON))
  expectBytes(buffer.slice(MARGIN + got), new Uint8Array(rest).fill(POISON))
  return plainCopy(buffer.subarray(MARGIN, MARGIN + got))
}

async function readInto(
  make: (length: number) => Uint8Array,
  store: AnyStore,
  position: number,
  length: number
): Promise<Uint8Array> {
  const buffer = poisoned(make, length)
  return unpoisoned(buffer, await store.read(position, buffer, MARGIN, length))
}

/** Reads through a shared buffer with poison on both sides, and checks the poison. → the bytes read. */
export function read(store: Store, position: number, length: number): Uint8Array {
  const buffer = poisoned(shared, length)
  return unpoisoned(buffer, store.read(position, buffer, MARGIN, length))
}

/** The same of a store that answers later, through plain memory. */
export function readLater(store: AsyncStore, position: number, length: number): Promise<Uint8Array> {
  return readInto(plain, store, position, length)
}

/** Writes through a shared buffer, and expects it to be taken whole. */
export function write(store: Store, position: number, contents: Uint8Array): void {
  const buffer = poisoned(shared, contents.length)
  buffer.set(contents, MARGIN)
  expect(store.write(position, buffer, MARGIN, contents.length)).toBe(contents.length)
}

/** Expects equal bytes, and names the first that differs. Much faster than `toEqual`, which compares as objects. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length)
  let at = 0
  while (at < actual.length && actual[at] === expected[at]) at++
  if (at < actual.length) expect(`byte ${at} is ${actual[at]}`).toBe(`byte ${at} is ${expected[at]}`)
}

/** Bytes in which no stretch repeats soon, none of them zero. */
export function pattern(length: number): Uint8Array {
  const contents = new Uint8Array(length)
  for (let i = 0; i < length; i++) contents[i] = 1 + ((i * 7 + (i >>> 8) * 13) % 255)
  return contents
}

export function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values)
}

function concat(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** A view that does not begin where its shared memory begins. */
function shared(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length + 24), 16, length)
}

function plain(length: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(length + 24), 16, length)
}

function plainCopy(view: Uint8Array): Uint8Array {
  const copy = new Uint8Array(view.length)
  copy.set(view)
  return copy
}
