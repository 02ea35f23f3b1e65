import { afterEach, expect, test, vi } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { sharedBuffer } from '../../src/base/shared-buffer.ts'
import { sharedStoreBuffer } from '../../src/stores/shared.ts'
import { errorOf } from '../attached/support.ts'

afterEach(() => {
  vi.unstubAllGlobals()
})

test('what the platform has no buffer or no typed array for is a RangeError that names its limit', () => {
  class SmallViews extends Uint8Array {
    constructor(buffer: ArrayBuffer, offset: number, length: number) {
      if (length > 100_000) throw new RangeError('Invalid typed array length')
      super(buffer, offset, length)
    }
  }
  vi.stubGlobal('Uint8Array', SmallViews)
  expect(sharedBuffer(100_000).byteLength).toBe(100_000)
  const tooLarge = errorOf(() => new Memory({ size: '64MiB' }))
  expect(tooLarge).toBeInstanceOf(RangeError)
  expect(tooLarge.message).toMatch(/ 66\d{6} bytes, but typed arrays have at most 100000 here: make its size smaller/)
  vi.stubGlobal('Uint8Array', Object.getPrototypeOf(SmallViews))
  vi.stubGlobal(
    'SharedArrayBuffer',
    class {
      constructor() {
        throw new RangeError('Array buffer allocation failed')
      }
    }
  )
  const noRoom = errorOf(() => new Memory({ size: '64MiB' }))
  expect(noRoom).toBeInstanceOf(RangeError)
  expect(noRoom.message).toMatch(/ 66\d{6} bytes, which this platform does not give: make its size smaller/)
  expect(String(noRoom.cause)).toContain('allocation failed')
})

test('a page that is not isolated is told what it lacks', () => {
  vi.stubGlobal('SharedArrayBuffer', undefined)
  for (const make of [() => new Memory({ size: '1MiB' }), () => sharedStoreBuffer(100)]) {
    expect(make).toThrow(/no SharedArrayBuffer.*Cross-Origin-Opener-Policy: same-origin.*Cross-Origin-Embedder-Policy/)
  }
})
