/** The HTTP store against a real server. Skipped where nginx is not installed. */
import fs from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { type HttpRangeOptions, type HttpRangeStore, httpRange } from '../../src/stores/http-range.ts'
import { startThread, useThreads } from '../later/support.ts'
import { expectBytes, laterStoreConformance, pattern, readLater } from '../stores/conformance.ts'
import { NGINX, type Nginx, startNginx } from '../support/nginx.ts'

const MIB = 2 ** 20
const INSTALL = 'nginx is not installed: apt-get install nginx-light'
if (NGINX === undefined) console.warn(`test/extra/nginx.test.ts skipped: ${INSTALL}`)

describe.skipIf(NGINX === undefined)(NGINX === undefined ? `nginx (${INSTALL})` : 'nginx', () => {
  let nginx: Nginx
  let files = 0
  const threads = useThreads()
  const stores: HttpRangeStore[] = []

  beforeAll(async () => {
    nginx = await startNginx()
  })

  afterAll(() => nginx?.remove())

  afterEach(async () => {
    for (const store of stores.splice(0)) await store.close()
  })

  /** → the path of a new file on the server, below its root. */
  const put = (contents: Uint8Array, name = `file-${++files}.txt`): string => {
    fs.writeFileSync(path.join(nginx.root, name), contents)
    return name
  }

  const open = async (name: string, options: HttpRangeOptions = {}): Promise<HttpRangeStore> => {
    const store = await httpRange(`${nginx.origin}/${name}`, options)
    stores.push(store)
    return store
  }

  /** Puts another file in the place of `name`, as one should: by a rename. */
  const replace = (name: string, contents: Uint8Array): void => {
    const beside = path.join(nginx.root, `${name}.new`)
    fs.writeFileSync(beside, contents)
    fs.renameSync(beside, path.join(nginx.root, name))
  }

  laterStoreConformance('httpRange', {
    punch: 'unsupported',
    openReadOnly: contents => open(put(contents)),
    openAgain: async store => httpRange(store.name)
  })

  test('pins the strong ETag, though compression is on', async () => {
    const store = await open(put(pattern(100_000)))
    expect(store.handle.pin).toMatchObject({ kind: 'etag', sizeBytes: 100_000 })
    expectBytes(await readLater(store, 0, 100_000), pattern(100_000))
  })

  test('reads at random places, several at once, are those of the file', async () => {
    const contents = pattern(5 * MIB)
    const store = await open(put(contents))
    const range = fc.tuple(fc.nat(contents.length), fc.oneof(fc.nat(100), fc.nat(300_000)))
    const property = fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 10 }), async ranges => {
      await Promise.all(
        ranges.map(async ([position, length]) => {
          expectBytes(await readLater(store, position, length), contents.slice(position, position + length))
        })
      )
    })
    await fc.assert(property, { numRuns: 30 })
  })

  test('past 4 GiB, of a file of holes', async () => {
    const name = put(new Uint8Array(0))
    const fd = fs.openSync(path.join(nginx.root, name), 'r+')
    fs.writeSync(fd, pattern(1000), 0, 1000, 2 ** 32 + 12_345)
    fs.ftruncateSync(fd, 6 * 2 ** 30)
    fs.closeSync(fd)
    const store = await open(name)
    expect(await store.size()).toBe(6 * 2 ** 30)
    expectBytes(await readLater(store, 2 ** 32 + 12_345, 1000), pattern(1000))
    expectBytes(await readLater(store, 12_345, 1000), new Uint8Array(1000))
    expectBytes(await readLater(store, 6 * 2 ** 30 - 5, 10), new Uint8Array(5))
  })

  test('an empty file', async () => {
    const store = await open(put(new Uint8Array(0)))
    expect(await store.size()).toBe(0)
    expectBytes(await readLater(store, 0, 10), new Uint8Array(0))
  })

  test('no file, and one that may not be read', async () => {
    await expect(open('nothing')).rejects.toMatchObject({ code: 'ENOENT', status: 404 })
    fs.mkdirSync(path.join(nginx.root, 'closed'), { recursive: true })
    await expect(open('closed/')).rejects.toMatchObject({ code: 'EACCES', status: 403 })
  })

  test('a file that is replaced while it is open is stale, and can be opened anew', async () => {
    for (const length of [100_000, 100_001]) {
      const name = put(pattern(100_000))
      const old = new Date(2024, 1, 1)
      fs.utimesSync(path.join(nginx.root, name), old, old)
      const store = await open(name)
      expectBytes(await readLater(store, 0, 10), pattern(10))
      replace(name, new Uint8Array(length).fill(9))
      await expect(readLater(store, 10, 10)).rejects.toMatchObject({ code: 'ESTALE', status: 412 })
      expect(nginx.log().at(-1)).toMatch(/^412 bytes=10-19 /)
      await expect(readLater(store, 0, 10)).rejects.toMatchObject({ code: 'ESTALE' })
      const anew = await open(name)
      expect(anew.identity).not.toBe(store.identity)
      expectBytes(await readLater(anew, 10, 10), new Uint8Array(10).fill(9))
    }
  })

  test('a file that is taken away is no longer there', async () => {
    const name = put(pattern(1000))
    const store = await open(name)
    fs.rmSync(path.join(nginx.root, name))
    await expect(readLater(store, 0, 10)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('a redirect is followed once', async () => {
    put(pattern(1000), 'file')
    const store = await open('latest')
    expect(store.handle.location).toBe(`${nginx.origin}/slow/file`)
    const before = nginx.log().length
    expectBytes(await readLater(store, 0, 1000), pattern(1000))
    expect(nginx.log().slice(before)).toEqual(['206 bytes=0-999 1000'])
  })

  test('killed in the middle of a body and started again: the read goes on where it stopped', async () => {
    const contents = pattern(6 * MIB)
    const store = await open(`slow/${put(contents)}`, { backoffMs: 20, maxWaitMs: 200, retries: 100 })
    const buffer = new Uint8Array(contents.length)
    const reading = store.read(0, buffer, 0, contents.length)
    // Some of it is there, seen in the buffer, and by far not all.
    while (buffer[MIB] === 0) await new Promise(resolve => setImmediate(resolve))
    await nginx.kill()
    await nginx.start()
    expect(await reading).toBe(contents.length)
    expectBytes(buffer, contents)
    // Only the end of the first answer was lost: the log has the second, for what was left.
    const [, first] = /^206 bytes=(\d+)-/.exec(nginx.log().at(-1) ?? '') ?? []
    expect(Number(first)).toBeGreaterThan(MIB)
  })

  test('killed, replaced, and started again: stale, and no mixture', async () => {
    const contents = pattern(6 * MIB)
    const name = put(contents)
    const store = await open(`slow/${name}`, { backoffMs: 20, maxWaitMs: 200, retries: 100 })
    const buffer = new Uint8Array(contents.length)
    const reading = store.read(0, buffer, 0, contents.length)
    while (buffer[MIB] === 0) await new Promise(resolve => setImmediate(resolve))
    const refused = expect(reading).rejects.toMatchObject({ code: 'ESTALE' })
    await nginx.kill()
    replace(name, new Uint8Array(contents.length + 1).fill(9))
    await nginx.start()
    await refused
  })

  test('mapped: a worker sums it through a memory eight times smaller; replaced, it is stale for both threads', async () => {
    const contents = pattern(8 * MIB + 5)
    const name = put(contents)
    fs.utimesSync(path.join(nginx.root, name), new Date(2024, 1, 1), new Date(2024, 1, 1))
    const memory = new Memory({ size: MIB, threads: 2 })
    const map = memory.space().map(await memory.openAsync(await httpRange(`${nginx.origin}/${name}`)))
    const thread = await startThread(memory, threads)
    await thread.do('adopt', 'map', map.handle)
    let sum = 0
    const words = new Int32Array(contents.buffer, 0, contents.length >>> 2)
    for (const word of words) sum = (Math.imul(sum, 31) + word) | 0
    const before = nginx.log().length
    expect(await thread.do<number>('checksum', contents.length)).toBe(sum)
    // A quarter of memory at a time, once windows have grown, and each byte once.
    const asked = nginx.log().slice(before)
    expect(asked.length).toBeLessThan(45)
    expect(asked.reduce((bytes, line) => bytes + Number(line.split(' ')[2]), 0)).toBe(contents.length)

    replace(name, new Uint8Array(contents.length).fill(9))
    const stale = { code: 'SIGBUS', errno: -116 }
    await expect(thread.do('bytes', 'map', 0, 10)).rejects.toMatchObject(stale)
    await expect(map.ready({ offset: 0, length: 10 })).rejects.toMatchObject({ ...stale, cause: { status: 412 } })
    expect(memory.check()).toEqual([])
    await thread.worker.terminate()
    await memory.closeAsync()
  })

  test('gone for good: the error of the connection, after all tries', async () => {
    const store = await open(put(pattern(1000)), { backoffMs: 1, retries: 2 })
    await nginx.kill()
    await expect(readLater(store, 0, 1000)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await nginx.start()
    expectBytes(await readLater(store, 0, 1000), pattern(1000))
  })
})
