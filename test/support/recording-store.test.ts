import { describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { bytes, expectBytes, pattern, read, storeConformance, write } from '../stores/conformance.ts'
import { faultyStore } from './faulty-store.ts'
import {
  type CrashImage,
  type CrashOptions,
  crashImages,
  type RecordingStore,
  recordingStore
} from './recording-store.ts'

storeConformance('recordingStore', {
  open: () => recordingStore(memoryStore()),
  openReadOnly: contents => recordingStore(memoryStore({ contents, readOnly: true })),
  punch: 'works'
})

const SECTOR = 512

/** A recorder around `sectors` sectors of zeros. */
function recorder(sectors: number): RecordingStore {
  return recordingStore(memoryStore({ contents: new Uint8Array(sectors * SECTOR) }))
}

function images(store: RecordingStore, options?: CrashOptions): CrashImage[] {
  return [...crashImages(store.log, options)]
}

/** Each image by the first byte of each sector, such as `0 7`. */
function firstBytes(found: readonly CrashImage[]): string[] {
  return found.map(({ bytes }) => Array.from({ length: bytes.length / SECTOR }, (_, i) => bytes[i * SECTOR]).join(' '))
}

function fill(store: Store, sector: number, sectors: number, value: number): void {
  write(store, sector * SECTOR, new Uint8Array(sectors * SECTOR).fill(value))
}

describe('recordingStore', () => {
  test('keeps what it began with and copies of every change', () => {
    const store = recordingStore(memoryStore({ contents: pattern(1000) }))
    const buffer = bytes(9, 1, 2, 9)
    expect(store.write(999, buffer, 1, 2)).toBe(2)
    buffer.fill(0)
    expect(store.write(0, buffer, 0, 0)).toBe(0)
    expect(store.write(5, buffer, 0, 1)).toBe(1)
    expect(store.flush()).toBe(0)
    expect(store.truncate(900)).toBe(0)
    expect(store.punch(800, 5000)).toBe(0)
    expect(store.punch(900, 5000)).toBe(0)
    expectBytes(store.log.base, pattern(1000))
    expect(store.log.entries).toEqual([
      { op: 'write', position: 999, bytes: bytes(1, 2), grew: true },
      { op: 'write', position: 5, bytes: bytes(0), grew: false },
      { op: 'flush' },
      { op: 'truncate', sizeBytes: 900 },
      { op: 'punch', position: 800, length: 100 }
    ])
  })

  test('of what failed it keeps what it finds: the bytes of a write, no flush, no truncate', () => {
    const inner = faultyStore(memoryStore({ contents: new Uint8Array(1024) }))
    inner.arm({ kind: 'partial-write', sectors: 1 })
    inner.arm({ kind: 'error-once', op: 'flush' })
    inner.arm({ kind: 'error-once', op: 'truncate' })
    const store = recordingStore(inner)
    expect(store.write(0, new Uint8Array(1024).fill(7), 0, 1024)).toBe(-EIO)
    expect(store.flush()).toBe(-EIO)
    expect(store.truncate(0)).toBe(-EIO)
    const half = new Uint8Array(1024).fill(7, 0, 512)
    expect(store.log.entries).toEqual([{ op: 'write', position: 0, bytes: half, grew: false }])
  })

  test('refuses to copy a store that no image could hold', () => {
    expect(() => recordingStore(memoryStore({ sizeBytes: 2 ** 40 }))).toThrow(RangeError)
    const closed = memoryStore()
    closed.close()
    expect(() => recordingStore(closed)).toThrow(/cannot read/)
  })
})

describe('crashImages, exhaustively', () => {
  test('nothing done leaves one image', () => {
    expect(firstBytes(images(recorder(2)))).toEqual(['0 0'])
  })

  test('writes apart survive in every selection', () => {
    const store = recorder(2)
    fill(store, 0, 1, 1)
    fill(store, 1, 1, 2)
    const found = images(store)
    expect(firstBytes(found)).toEqual(['0 0', '1 0', '0 2', '1 2'])
    expect(found.map(({ issued }) => issued)).toEqual([0, 1, 2, 2])
    expect(found.every(({ durable }) => durable === 0)).toBe(true)
  })

  test('one write is torn at every sector, wherever it begins', () => {
    const store = recorder(3)
    write(store, SECTOR - 1, new Uint8Array(SECTOR + 2).fill(1))
    const ends = images(store).map(({ bytes }) => [bytes[SECTOR - 1], bytes[SECTOR], bytes[2 * SECTOR]].join(''))
    expect(ends.sort()).toEqual(['000', '001', '010', '011', '100', '101', '110', '111'])
  })

  test('writes that overlap within a sector survive in either order', () => {
    const store = recorder(1)
    write(store, 0, new Uint8Array(300).fill(1))
    write(store, 200, new Uint8Array(300).fill(2))
    const found = images(store).map(({ bytes }) => [bytes[100], bytes[250], bytes[400]].join(''))
    expect(found.sort()).toEqual(['000', '022', '110', '112', '122'])
  })

  test('a flush is a barrier; one that failed is none', () => {
    const inner = faultyStore(memoryStore({ contents: new Uint8Array(2 * SECTOR) }))
    const store = recordingStore(inner)
    fill(store, 0, 1, 1)
    expect(store.flush()).toBe(0)
    fill(store, 1, 1, 2)
    inner.arm({ kind: 'error-once', op: 'flush' })
    expect(store.flush()).toBe(-EIO)
    fill(store, 0, 1, 3)
    expect(firstBytes(images(store))).toEqual(['0 0', '1 0', '1 0', '1 2', '3 0', '3 2'])
    expect(images(store).map(({ durable }) => durable)).toEqual([0, 0, 2, 2, 2, 2])
  })

  test('after the last flush one image is left', () => {
    const store = recorder(1)
    fill(store, 0, 1, 1)
    expect(store.flush()).toBe(0)
    expect(images(store).filter(({ durable }) => durable === 2)).toMatchObject([{ durable: 2, issued: 2 }])
    expect(firstBytes(images(store))).toEqual(['0', '1', '1'])
  })

  test('growth survives without the bytes, as zeros', () => {
    const store = recorder(0)
    fill(store, 0, 1, 1)
    expect(images(store).map(({ bytes }) => `${bytes.length}: ${bytes[0]}`)).toEqual([
      '0: undefined',
      '512: 0',
      '512: 1'
    ])
  })

  test('a truncate is whole and goes before or after the writes; a punch is torn', () => {
    const cut = recorder(2)
    fill(cut, 0, 1, 1)
    expect(cut.truncate(0)).toBe(0)
    expect(firstBytes(images(cut)).sort()).toEqual(['', '0 0', '1', '1 0'])
    const punched = recordingStore(memoryStore({ contents: new Uint8Array(2 * SECTOR).fill(7) }))
    expect(punched.punch(0, 2 * SECTOR)).toBe(0)
    expect(firstBytes(images(punched)).sort()).toEqual(['0 0', '0 7', '7 0', '7 7'])
  })

  test('what is past a cut does not come back with a growth', () => {
    const store = recordingStore(memoryStore({ contents: new Uint8Array(2 * SECTOR).fill(7) }))
    expect(store.truncate(SECTOR)).toBe(0)
    expect(store.truncate(2 * SECTOR)).toBe(0)
    expect(firstBytes(images(store)).sort()).toEqual(['7', '7 0', '7 7'])
  })
})

describe('crashImages of a long epoch', () => {
  const store = recorder(40)
  for (let i = 0; i < 30; i++) fill(store, (i * 7) % 36, 1 + (i % 4), i + 1)
  const found = firstBytes(images(store))

  test('holds every prefix and every tear of the last write in it', () => {
    const state = new Uint8Array(40)
    const expected = [state.join(' ')]
    for (let i = 0; i < 30; i++) {
      for (let sector = 0; sector < 1 + (i % 4); sector++) {
        state[((i * 7) % 36) + sector] = i + 1
        expected.push(state.join(' '))
      }
    }
    expect(found).toEqual(expect.arrayContaining(expected))
    expect(new Set(found).size).toBe(found.length)
  })

  test('holds each write alone, each missing, and more by chance', () => {
    fill(store, 39, 1, 99)
    const more = firstBytes(images(store))
    expect(more).toContain([...Array(39).fill(0), 99].join(' '))
    expect(images(store).filter(({ description }) => description.startsWith('seed 1')).length).toBeGreaterThan(50)
  })

  test('makes no sector that nobody wrote', () => {
    const written = Array.from({ length: 40 }, () => new Set([0]))
    for (const entry of store.log.entries) {
      if (entry.op !== 'write') throw new Error(`unexpected ${entry.op}`)
      for (let at = 0; at < entry.bytes.length; at += SECTOR) {
        written[(entry.position + at) / SECTOR].add(entry.bytes[at])
      }
    }
    let checked = 0
    for (const { bytes: image, description } of images(store)) {
      for (let i = 0; i < image.length; i++) {
        if (image[i] !== image[i - (i % SECTOR)] || !written[Math.floor(i / SECTOR)].has(image[i])) {
          throw new Error(`byte ${i} is ${image[i]} in ${description}`)
        }
      }
      checked++
    }
    expect(checked).toBeGreaterThan(200)
  })

  test('is the same for the same seed, and another for another', () => {
    const run = (seed: number): string => firstBytes(images(store, { seed })).join('\n')
    expect(run(5)).toBe(run(5))
    expect(run(5)).not.toBe(run(6))
  })

  test('few large writes come in every selection, whole', () => {
    const few = recorder(40)
    for (let i = 0; i < 4; i++) fill(few, i * 10, 10, i + 1)
    const ends = firstBytes(images(few, { samples: 0 })).map(sectors => sectors.split(' '))
    const whole = ends.filter(s => s.every((value, i) => value === s[i - (i % 10)]))
    expect(whole.length).toBe(16)
  })
})

describe('a crash checker', () => {
  /** Writes a value in two sectors, then a mark that vouches for it; says how far the log was when it was done. */
  function commit(store: RecordingStore, barrier: 'flushed' | 'forgotten'): number {
    fill(store, 1, 2, 7)
    if (barrier === 'flushed') expect(store.flush()).toBe(0)
    fill(store, 0, 1, 1)
    expect(store.flush()).toBe(0)
    return store.log.entries.length
  }

  /** How many images break the promise: what is marked is whole, and what was acknowledged is marked. */
  function broken(store: RecordingStore, acknowledged: number): number {
    return images(store).filter(image => {
      const survivor = memoryStore({ contents: image.bytes })
      const marked = read(survivor, 0, 1)[0] === 1
      const whole = read(survivor, SECTOR, 2 * SECTOR).every(byte => byte === 7)
      return (marked && !whole) || (!marked && image.durable >= acknowledged)
    }).length
  }

  test('passes a commit with its barrier, and catches one without', () => {
    const good = recorder(3)
    expect(broken(good, commit(good, 'flushed'))).toBe(0)
    const bad = recorder(3)
    expect(broken(bad, commit(bad, 'forgotten'))).toBe(3)
  })
})

test('an image too large is refused, and so is an epoch too long to exhaust', () => {
  const store = recorder(1)
  expect(store.truncate(2 ** 40)).toBe(0)
  expect(() => images(store)).toThrow(RangeError)
  expect(() => images(recorder(1), { exhaustivePieces: 40 })).toThrow(RangeError)
})
