/** Opening, pinning, reading, giving up, and going on in another thread, against a server that behaves. */
import fs from 'node:fs'
import type http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { EBADF, EINVAL } from '../../src/abi/errno.ts'
import {
  type HttpRangeOptions,
  type HttpRangeStore,
  httpRange,
  openHttpRangeHandle
} from '../../src/stores/http-range.ts'
import { compileInto } from '../support/compiled.ts'
import { failure, open as openUrl, QUICK, start, track } from '../support/hostile.ts'
import { fileOf, LONG_AGO, type RangeServer } from '../support/range-server.ts'
import { asyncStoreConformance } from './async-conformance.ts'
import { expectBytes, pattern, readLater } from './conformance.ts'

const open = (server: RangeServer, options?: HttpRangeOptions, path = '/file'): Promise<HttpRangeStore> =>
  openUrl(server.origin + path, options)

asyncStoreConformance('httpRange', {
  punch: 'unsupported',
  openReadOnly: async contents => open(await start(fileOf(contents))),
  openHeld: async contents => {
    const server = await start(fileOf(contents))
    const store = await open(server)
    let release = (): void => {}
    const released = new Promise<void>(resolve => {
      release = resolve
    })
    let arrived = (): void => {}
    const asked = new Promise<void>(resolve => {
      arrived = resolve
    })
    server.before = async () => {
      arrived()
      await released
      return false
    }
    return { store, asked, release }
  },
  openAgain: store => openUrl(store.name)
})

describe('opening', () => {
  test('one request: a GET of the first byte, in the plain form, past every cache', async () => {
    const server = await start(fileOf(pattern(1000)))
    const store = await open(server, { headers: { authorization: 'Bearer secret' } })
    expect(await store.size()).toBe(1000)
    expect(server.requests).toHaveLength(1)
    const [{ method, headers }] = server.requests
    expect(method).toBe('GET')
    expect(headers).toMatchObject({
      range: 'bytes=0-0',
      'accept-encoding': 'identity',
      'cache-control': 'no-cache',
      authorization: 'Bearer secret'
    })
    expect(store).toMatchObject({ name: `${server.origin}/file`, readOnly: true, durable: false })
  })

  test('pins a strong ETag before a date', async () => {
    const store = await open(await start(fileOf(pattern(10))))
    expect(store.handle.pin).toEqual({ kind: 'etag', etag: '"one"', lastModified: undefined, sizeBytes: 10 })
  })

  test('pins a date that is old enough where the ETag is weak, malformed or not there', async () => {
    for (const etag of ['W/"one"', 'one', undefined]) {
      const file = { ...fileOf(pattern(10)), etag }
      const store = await open(await start(file))
      expect(store.handle.pin).toMatchObject({ kind: 'last-modified', lastModified: LONG_AGO })
      expect(store.identity).toContain(LONG_AGO)
    }
  })

  test.each([
    ['weak', { etag: 'W/"one"', lastModified: undefined }],
    ['weak', { etag: undefined, lastModified: new Date(Date.now() + 60_000).toUTCString() }],
    ['size', { etag: undefined, lastModified: undefined }]
  ] as const)('refuses to pin by %s (%o) unless allowed', async (pin, validators) => {
    const server = await start({ ...fileOf(pattern(10)), ...validators })
    const error = await failure(httpRange(`${server.origin}/file`, QUICK))
    expect(error.code).toBe('EOPNOTSUPP')
    expect(error.message).toContain(`'${pin}'`)
    const store = await open(server, { pin })
    expect(store.handle.pin.kind).toBe(pin)
    expect(store.identity).toBeUndefined()
    expectBytes(await readLater(store, 2, 5), pattern(10).slice(2, 7))
    expect(server.requests.at(-1)?.headers).not.toHaveProperty('if-range')
  })

  test('an option that asks for more than a date is obeyed', async () => {
    const server = await start({ ...fileOf(pattern(10)), etag: undefined })
    expect((await failure(httpRange(server.origin, { pin: 'etag' }))).code).toBe('EOPNOTSUPP')
  })

  test('an empty file is a store of no bytes, whatever it is pinned by', async () => {
    const server = await start({ ...fileOf(new Uint8Array(0)), etag: undefined, lastModified: undefined })
    const refusing = await open(server)
    server.before = (_, response) => {
      response.writeHead(200, { 'content-length': 0 }).end()
      return true
    }
    const ignoring = await open(server)
    for (const store of [refusing, ignoring]) {
      expect(await store.size()).toBe(0)
      expectBytes(await readLater(store, 0, 10), new Uint8Array(0))
    }
    expect(server.requests).toHaveLength(2)
  })

  test('a server that refuses HEAD is no trouble', async () => {
    const server = await start(fileOf(pattern(10)))
    server.before = ({ method }, response) => {
      if (method === 'GET') return false
      response.writeHead(405).end()
      return true
    }
    expectBytes(await readLater(await open(server), 0, 10), pattern(10))
  })

  test.each([
    [{ timeoutMs: 0 }, RangeError],
    [{ timeoutMs: 1.5 }, RangeError],
    [{ retries: -1 }, RangeError],
    [{ retries: 101 }, RangeError],
    [{ backoffMs: Number.NaN }, RangeError],
    [{ maxWaitMs: Number.POSITIVE_INFINITY }, RangeError],
    [{ maxConcurrent: 0 }, RangeError],
    [{ headers: { 'no good': 'x' } }, TypeError],
    [{ pin: 'md5' as 'etag' }, TypeError]
  ])('an option out of range is refused before anything is sent: %o', async (options, kind) => {
    const server = await start(fileOf(pattern(10)))
    await expect(httpRange(server.origin, options)).rejects.toThrow(kind)
    expect(server.requests).toHaveLength(0)
  })

  test.each(['relative/path', 'ftp://host/file', 'http://name:word@host/file', 'http://'])(
    'so is the URL %s',
    async url => {
      await expect(httpRange(url)).rejects.toThrow(TypeError)
    }
  )

  test('a fragment is not part of what is asked for', async () => {
    const server = await start(fileOf(pattern(10)))
    const store = await open(server, {}, '/file?a=b#part')
    expect(store.handle.url).toBe(`${server.origin}/file?a=b`)
  })
})

describe('reading', () => {
  test('one read is one request, which carries the conditions and the headers', async () => {
    const server = await start(fileOf(pattern(3_000_000)))
    const store = await open(server, { headers: { 'x-key': '1' } })
    expectBytes(await readLater(store, 500_000, 2_000_000), pattern(3_000_000).slice(500_000, 2_500_000))
    expect(server.requests).toHaveLength(2)
    expect(server.requests[1].headers).toMatchObject({
      range: 'bytes=500000-2499999',
      'if-range': '"one"',
      'if-match': '"one"',
      'accept-encoding': 'identity',
      'cache-control': 'no-cache',
      'x-key': '1'
    })
  })

  test('the conditions of a date are its own', async () => {
    const server = await start({ ...fileOf(pattern(100)), etag: undefined })
    const store = await open(server)
    expectBytes(await readLater(store, 1, 99), pattern(100).slice(1))
    expect(server.requests[1].headers).toMatchObject({ 'if-range': LONG_AGO, 'if-unmodified-since': LONG_AGO })
    expect(server.requests[1].headers).not.toHaveProperty('if-match')
  })

  test('what needs no bytes sends no request', async () => {
    const server = await start(fileOf(pattern(100)))
    const store = await open(server)
    const buffer = new Uint8Array(10)
    expect(await store.read(100, buffer, 0, 10)).toBe(0)
    expect(await store.read(0, buffer, 0, 0)).toBe(0)
    expect(await store.read(-1, buffer, 0, 1)).toBe(-EINVAL)
    expect(await store.read(0, buffer, 5, 6)).toBe(-EINVAL)
    expect(await store.size()).toBe(100)
    expect(await store.flush()).toBe(0)
    expect(server.requests).toHaveLength(1)
  })

  test('reads one after the other share connections', async () => {
    const server = await start(fileOf(pattern(3_000_000)))
    const store = await open(server)
    for (let i = 0; i < 5; i++) await readLater(store, i * 500_000, 500_000)
    expect(server.requests).toHaveLength(6)
    // Node's engine ends a body a moment before it takes the connection for free: two take turns.
    expect(server.nrConnections).toBeLessThanOrEqual(2)
  })

  test('past 4 GiB', async () => {
    const sizeBytes = 6 * 2 ** 30
    const bytes = (position: number, length: number): Uint8Array =>
      Uint8Array.from({ length }, (_, i) => (position + i) % 251)
    const store = await open(await start({ sizeBytes, bytes, etag: '"far"', lastModified: undefined }))
    expect(await store.size()).toBe(sizeBytes)
    for (const position of [2 ** 31 - 5, 2 ** 32 - 5, 5 * 2 ** 30 + 7, sizeBytes - 10]) {
      expectBytes(await readLater(store, position, 10), bytes(position, 10))
    }
    expectBytes(await readLater(store, sizeBytes - 3, 10), bytes(sizeBytes - 3, 3))
  })

  test('no more than so many at once; the others follow in order', async () => {
    const server = await start(fileOf(pattern(1000)))
    const store = await open(server, { maxConcurrent: 2 })
    const held: (() => void)[] = []
    let arrive = (): void => {}
    server.before = async () => {
      await new Promise<void>(resolve => {
        held.push(resolve)
        arrive()
      })
      return false
    }
    const arrivals = (count: number): Promise<void> =>
      new Promise(resolve => {
        arrive = () => {
          if (held.length >= count) resolve()
        }
        arrive()
      })
    const reads = [0, 1, 2, 3, 4].map(i => readLater(store, i * 100, 100))
    await arrivals(2)
    expect(server.requests).toHaveLength(3)
    for (let i = 0; i < 5; i++) {
      await arrivals(Math.min(i + 2, 5))
      expect(held.length).toBe(Math.min(i + 2, 5))
      held[i]()
      expectBytes(await reads[i], pattern(1000).slice(i * 100, i * 100 + 100))
    }
    expect(server.requests.slice(3).map(asked => asked.range?.[0])).toEqual([200, 300, 400])
  })

  test('a fetch of the user is used in place of the platform’s', async () => {
    const server = await start(fileOf(pattern(100)))
    const urls: string[] = []
    const store = await open(server, {
      fetch: (url, init) => {
        urls.push(url)
        return fetch(url, init)
      }
    })
    expectBytes(await readLater(store, 0, 100), pattern(100))
    expect(urls).toEqual([`${server.origin}/file`, `${server.origin}/file`])
  })
})

describe('giving up', () => {
  test('the opening', async () => {
    const server = await start(fileOf(pattern(10)))
    const giveUp = new AbortController()
    const reason = new Error('enough')
    server.before = () => {
      giveUp.abort(reason)
      return true
    }
    await expect(httpRange(server.origin, { ...QUICK, signal: giveUp.signal })).rejects.toBe(reason)
    await expect(httpRange(server.origin, { signal: giveUp.signal })).rejects.toBe(reason)
    expect(server.requests).toHaveLength(1)
  })

  test('the signal of the opening is no signal of the open store', async () => {
    const giveUp = new AbortController()
    const store = await open(await start(fileOf(pattern(10))), { signal: giveUp.signal })
    giveUp.abort()
    expectBytes(await readLater(store, 0, 10), pattern(10))
  })

  test('in the middle of a body: the buffer is the caller’s again', async () => {
    const server = await start(fileOf(pattern(100_000)))
    const store = await open(server)
    const giveUp = new AbortController()
    let answer: http.ServerResponse | undefined
    server.before = (_, response) => {
      answer = response
      response.writeHead(206, { etag: '"one"', 'content-range': 'bytes 0-99999/100000', 'content-length': 100_000 })
      response.write(pattern(50_000))
      return true
    }
    const buffer = new Uint8Array(100_000)
    // The last of the bytes sent so far, seen in the buffer, is the event to wait for.
    const reading = store.read(0, buffer, 0, 100_000, giveUp.signal)
    while (buffer[49_999] === 0) await new Promise(resolve => setImmediate(resolve))
    giveUp.abort('no more')
    await expect(reading).rejects.toBe('no more')
    buffer.fill(7)
    const closed = new Promise(resolve => answer?.on('close', resolve))
    answer?.write(pattern(1000))
    await closed
    expectBytes(buffer, new Uint8Array(100_000).fill(7))
  })

  test('while waiting for a place, and while waiting to try again', async () => {
    const server = await start(fileOf(pattern(100)))
    const store = await open(server, { maxConcurrent: 1, backoffMs: 1_000_000, maxWaitMs: 1_000_000 })
    let asked = (): void => {}
    const failing = new Promise<void>(resolve => {
      asked = resolve
    })
    server.before = (_, response) => {
      response.writeHead(500).end(asked)
      return true
    }
    const [first, second] = [new AbortController(), new AbortController()]
    const reads = [first, second].map(({ signal }) => store.read(0, new Uint8Array(100), 0, 100, signal))
    await failing
    second.abort('second')
    await expect(reads[1]).rejects.toBe('second')
    first.abort('first')
    await expect(reads[0]).rejects.toBe('first')
    server.before = () => false
    expectBytes(await readLater(store, 0, 100), pattern(100))
  })

  test('closing ends the reads under way', async () => {
    const server = await start(fileOf(pattern(100)))
    let underWay = 0
    const store = await open(server, {
      fetch: (url, init) => {
        underWay++
        return fetch(url, init).finally(() => underWay--)
      }
    })
    let asked = (): void => {}
    const under = new Promise<void>(resolve => {
      asked = resolve
    })
    server.before = () => {
      asked()
      return true
    }
    const reading = failure(store.read(0, new Uint8Array(100), 0, 100))
    await under
    expect(underWay).toBe(1)
    expect(await store.close()).toBe(0)
    expect(underWay).toBe(0)
    expect((await reading).code).toBe('ECANCELED')
    expect(await store.close()).toBe(-EBADF)
    expect(await store.flush()).toBe(-EBADF)
  })
})

/** What the other thread does. */
const WORKER = `
import { parentPort, workerData } from 'node:worker_threads'
const store = openHttpRangeHandle(workerData.handle)
const buffer = new Uint8Array(100)
const got = await store.read(50, buffer, 0, 100)
parentPort.postMessage({ got, buffer, identity: store.identity, size: await store.size() })
`

describe('a handle', () => {
  test('is plain data, and opens the pinned version without a request', async () => {
    const server = await start(fileOf(pattern(200)))
    const store = await open(server, { name: 'mine', headers: { 'x-key': '1' }, retries: 7 })
    const handle = structuredClone(store.handle)
    const again = track(openHttpRangeHandle(handle))
    expect(await again.size()).toBe(200)
    expect(again).toMatchObject({ name: 'mine', identity: store.identity })
    expect(again.handle).toEqual(store.handle)
    expect(server.requests).toHaveLength(1)
    expectBytes(await readLater(again, 10, 20), pattern(200).slice(10, 30))
    expect(server.requests[1].headers).toMatchObject({ 'x-key': '1', 'if-match': '"one"' })
  })

  test('of a version that is gone is stale at the first read', async () => {
    const server = await start(fileOf(pattern(200)))
    const { handle } = await open(server)
    server.file.etag = '"two"'
    const again = track(openHttpRangeHandle(handle))
    expect((await failure(readLater(again, 0, 10))).code).toBe('ESTALE')
    expect((await failure(again.size())).code).toBe('ESTALE')
  })

  test('reads in a worker', async () => {
    const server = await start(fileOf(pattern(200)))
    const store = await open(server)
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-http-range-'))
    const file = compileInto(directory, 'stores/http-range')
    fs.appendFileSync(file, WORKER)
    const worker = new Worker(file, { workerData: { handle: store.handle } })
    const answer = await new Promise<Record<string, unknown>>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    await worker.terminate()
    fs.rmSync(directory, { recursive: true })
    expect(answer).toMatchObject({ got: 100, size: 200, identity: store.identity })
    expectBytes(answer.buffer as Uint8Array, pattern(200).slice(50, 150))
  })

  test.each([
    {},
    { kind: 'http-range', url: 'http://h/', location: 'http://h/', pin: { kind: 'etag', sizeBytes: -1 }, settings: {} },
    { kind: 'http-range', url: 'http://h/', location: 'file:///', pin: { kind: 'size', sizeBytes: 1 }, settings: {} }
  ])('what is none is refused: %o', handle => {
    expect(() => openHttpRangeHandle(handle as unknown as HttpRangeStore['handle'])).toThrow(TypeError)
  })
})
