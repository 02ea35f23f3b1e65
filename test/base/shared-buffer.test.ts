import { afterEach, expect, test, vi } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { sharedStoreBuffer } from '../../src/stores/shared.ts'

afterEach(() => {
  vi.unstubAllGlobals()
})

test('a page that is not isolated is told what it lacks', () => {
  vi.stubGlobal('SharedArrayBuffer', undefined)
  for (const make of [() => new Memory({ size: '1MiB' }), () => sharedStoreBuffer(100)]) {
    expect(make).toThrow(/no SharedArrayBuffer.*Cross-Origin-Opener-Policy: same-origin.*Cross-Origin-Embedder-Policy/)
  }
})
