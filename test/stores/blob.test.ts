/** Stores over blobs: of memory, and of real files, which may change. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { EBADF, EINVAL, ESTALE } from '../../src/abi/errno.ts'
import { Memory } from '../../src/api/memory.ts'
import { blobStore, blobStoreSync, blobStores, blobUrlStore } from '../../src/stores/blob.ts'
import { asyncStoreConformance } from './async-conformance.ts'
import { expectBytes, pattern, readLater } from './conformance.ts'

const blobOf = (contents: Uint8Array): Blob => new Blob([new Uint8Array(contents)])

let folder: string | undefined

afterEach(() => {
  vi.unstubAllGlobals()
  if (folder !== undefined) fs.rmSync(folder, { recursive: true })
  folder = undefined
})

function makeFile(contents: Uint8Array): string {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-blob-'))
  const file = path.join(folder, 'file')
  fs.writeFileSync(file, contents)
  return file
}

asyncStoreConformance('blobStore', {
  punch: 'unsupported',
  openReadOnly: contents => blobStore(blobOf(contents)),
  openHeld: contents => {
    const blob = blobOf(contents)
    let release = (): void => {}
    const released = new Promise<void>(resolve => {
      release = resolve
    })
    let arrived = (): void => {}
    const asked = new Promise<void>(resolve => {
      arrived = resolve
    })
    const stream = (part: Blob): ReadableStream<Uint8Array> =>
      new ReadableStream({
        async pull(controller) {
          arrived()
          await released
          controller.enqueue(new Uint8Array(await part.arrayBuffer()))
          controller.close()
        }
      })
    const slice = (first: number, end: number): object => ({ stream: () => stream(blob.slice(first, end)) })
    return { store: blobStore({ size: blob.size, slice } as unknown as Blob), asked, release }
  }
})

describe('blobStore', () => {
  test('is mapped', async () => {
    const contents = pattern(1_000_123)
    const memory = new Memory({ size: '256KiB' })
    const map = memory.space().map(await memory.openAsync(blobStore(blobOf(contents))))
    const all = new Uint8Array(contents.length)
    await map.readAsync(all, 0)
    expectBytes(all, contents)
    await memory.closeAsync()
  })

  test('is called by the name of a file, or as one likes', () => {
    expect(blobStore(new File(['x'], 'mine.bin')).name).toBe('mine.bin')
    expect(blobStore(new Blob(['x'])).name).toBe('blob')
    expect(blobStore(new File(['x'], 'mine.bin'), { name: 'other' }).name).toBe('other')
  })

  test('is stale for good when the file behind it has changed', async () => {
    const file = makeFile(pattern(10_000))
    const store = blobStore(await fs.openAsBlob(file))
    expectBytes(await readLater(store, 100, 1000), pattern(10_000).slice(100, 1100))
    fs.writeFileSync(file, pattern(20_000))
    await expect(readLater(store, 0, 10)).rejects.toMatchObject({ code: 'ESTALE', cause: { name: 'NotReadableError' } })
    await expect(readLater(store, 0, 10)).rejects.toMatchObject({ code: 'ESTALE' })
    await expect(store.size()).rejects.toMatchObject({ code: 'ESTALE' })
  })

  test('takes blobs only', () => {
    for (const none of [undefined, null, 'blob:x', new Uint8Array(3), { size: -1, slice: () => {} }]) {
      expect(() => blobStore(none as unknown as Blob)).toThrow(TypeError)
    }
  })
})

describe('blobUrlStore', () => {
  test('reads on after the URL was revoked', async () => {
    const url = URL.createObjectURL(blobOf(pattern(1000)))
    const store = await blobUrlStore(url)
    URL.revokeObjectURL(url)
    expect(store.name).toBe(url)
    expectBytes(await readLater(store, 10, 2000), pattern(1000).slice(10))
    await expect(blobUrlStore(url)).rejects.toThrow()
    await expect(blobUrlStore('http://host/')).rejects.toThrow(/not a blob: URL/)
  })
})

describe('blobStoreSync', () => {
  /** What a browser's worker has; the bytes are known here beforehand, as Node has no way to wait for them. */
  const readAtOnce = (contents: Uint8Array): { blob: Blob; refuse(name: string): void } => {
    let refused = ''
    const slice = (first: number, end: number): object => ({ first, end })
    vi.stubGlobal(
      'FileReaderSync',
      class {
        readAsArrayBuffer({ first, end }: { first: number; end: number }): ArrayBuffer {
          if (refused !== '') throw new DOMException('refused', refused)
          return new Uint8Array(contents.subarray(first, end)).buffer
        }
      }
    )
    return {
      blob: { size: contents.length, slice } as unknown as Blob,
      refuse: name => {
        refused = name
      }
    }
  }

  test('reads at once, and in other workers by its name', () => {
    const contents = pattern(100_000)
    const { blob } = readAtOnce(contents)
    const store = blobStoreSync(blob, { name: 'mine' })
    const again = blobStores({ mine: blob }).open(JSON.parse(JSON.stringify(store.handle)))
    for (const one of [store, again]) {
      const buffer = new Uint8Array(200)
      expect(one.size()).toBe(100_000)
      expect(one.read(99_900, buffer, 50, 150)).toBe(100)
      expectBytes(buffer.slice(50, 150), contents.slice(99_900))
      expect(one.read(0, buffer, 100, 101)).toBe(-EINVAL)
      expect(one.read(100_000, buffer, 0, 10)).toBe(0)
    }
    expect(() => blobStores({}).open({ kind: 'blob', name: 'mine' })).toThrow(/no blob of the name 'mine'/)
    const memory = new Memory({ size: '64KiB' })
    const map = memory.space().map(memory.open(store))
    const all = new Uint8Array(100_000)
    map.read(all, 0)
    expectBytes(all, contents)
    memory.close()
    expect([store.read(0, all, 0, 1), store.close()]).toEqual([-EBADF, -EBADF])
  })

  test('is stale when the platform refuses to read on', () => {
    const { blob, refuse } = readAtOnce(pattern(100))
    const store = blobStoreSync(blob)
    refuse('NotReadableError')
    expect(store.read(0, new Uint8Array(10), 0, 10)).toBe(-ESTALE)
    refuse('')
    expect([store.read(0, new Uint8Array(10), 0, 10), store.size()]).toEqual([-ESTALE, -ESTALE])
  })

  test('is refused where blobs are read later only', () => {
    expect(() => blobStoreSync(new Blob(['x']))).toThrow(/use blobStore with memory.openAsync/)
  })
})
