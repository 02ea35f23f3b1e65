/** A server that lies, stalls, breaks off, changes the file, or leads elsewhere: every read is right, or an error. */
import type http from 'node:http'
import net from 'node:net'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { HttpRangeError, type HttpRangeOptions, type HttpRangeStore, httpRange } from '../../src/stores/http-range.ts'
import { contentRange, fileOf, type RangeServer, type ServedFile, startRangeServer } from '../support/range-server.ts'
import { expectBytes, pattern, readLater } from './conformance.ts'

type Answer = (response: http.ServerResponse, range: readonly [first: number, last: number]) => void

const SIZE = 300_000
const CONTENTS = pattern(SIZE)
const QUICK: HttpRangeOptions = { backoffMs: 1, timeoutMs: 10_000 }

const servers: RangeServer[] = []
const stores: HttpRangeStore[] = []

afterEach(async () => {
  vi.unstubAllGlobals()
  for (const store of stores.splice(0)) await store.close()
  for (const server of servers.splice(0)) await server.close()
})

async function start(file: ServedFile = fileOf(CONTENTS)): Promise<RangeServer> {
  const server = await startRangeServer(file)
  servers.push(server)
  return server
}

async function open(url: string, options: HttpRangeOptions = {}): Promise<HttpRangeStore> {
  const store = await httpRange(url, { ...QUICK, ...options })
  stores.push(store)
  return store
}

/** A server and a store that is open already. */
async function both(
  options: HttpRangeOptions = {},
  file?: ServedFile
): Promise<{ server: RangeServer; store: HttpRangeStore }> {
  const server = await start(file)
  return { server, store: await open(`${server.origin}/file`, options) }
}

/** The next requests are answered by these, in order; those after them as a good server does. */
function answerNext(server: RangeServer, ...answers: Answer[]): void {
  server.before = ({ range }, response) => {
    const answer = answers.shift()
    answer?.(response, range ?? [0, SIZE - 1])
    return answer !== undefined
  }
}

function always(server: RangeServer, answer: Answer): void {
  server.before = ({ range }, response) => {
    answer(response, range ?? [0, SIZE - 1])
    return true
  }
}

/** Headers of a good answer to `range`, with changes; undefined takes a header away. */
function partial(
  response: http.ServerResponse,
  [first, last]: readonly [number, number],
  changes: Record<string, string | undefined> = {},
  status = 206
): void {
  const good = { etag: '"one"', 'content-range': contentRange(first, last, SIZE) }
  for (const [name, value] of Object.entries({ ...good, ...changes })) {
    if (value !== undefined) response.setHeader(name, value)
  }
  response.writeHead(status)
}

function bodyOf([first, last]: readonly [number, number]): Uint8Array {
  return CONTENTS.subarray(first, last + 1)
}

function status(code: number, headers: http.OutgoingHttpHeaders = {}): Answer {
  return response => response.writeHead(code, headers).end('sorry')
}

async function failure(promise: Promise<unknown>): Promise<HttpRangeError> {
  const result = await promise.then(
    value => `resolved to ${value}`,
    (error: unknown) => error
  )
  expect(result).toBeInstanceOf(HttpRangeError)
  return result as HttpRangeError
}

async function expectGood(store: HttpRangeStore, position = 1000, length = 200_000): Promise<void> {
  expectBytes(await readLater(store, position, length), CONTENTS.slice(position, position + length))
}

/** A server that can be asked no more: for every call one error, the same one, and no request. */
async function expectStale(server: RangeServer, store: HttpRangeStore): Promise<void> {
  const error = await failure(readLater(store, 1000, 200_000))
  expect(error.code).toBe('ESTALE')
  expect(error.errno).toBe(-116)
  server.before = () => false
  server.file.etag = '"one"'
  const asked = server.requests.length
  expect(await failure(readLater(store, 0, 1))).toBe(error)
  expect(await failure(store.size())).toBe(error)
  expect(server.requests).toHaveLength(asked)
}

/** Timers of so many ms fire at once from now on, to the end of the test. → how long they were to be. */
function skipWaits(leastMs: number, mostMs: number): number[] {
  const waits: number[] = []
  const real = globalThis.setTimeout
  // The platform's own timers for requests go through here as well; none is in the ranges that the tests name.
  const skipping = (act: (...args: unknown[]) => void, ms: number, ...args: unknown[]): NodeJS.Timeout => {
    const isWait = ms >= leastMs && ms <= mostMs
    if (isWait) waits.push(ms)
    return real(act, isWait ? 0 : ms, ...args)
  }
  vi.stubGlobal('setTimeout', skipping)
  return waits
}

describe('a server without ranges', () => {
  test('is refused at the opening, and its body let go', async () => {
    const server = await start()
    let closed: Promise<unknown> | undefined
    always(server, response => {
      closed = new Promise(resolve => response.on('close', resolve))
      response.writeHead(200, { 'content-length': 2 ** 40 })
      response.write(CONTENTS)
    })
    const error = await failure(open(server.origin))
    expect(error).toMatchObject({ code: 'EOPNOTSUPP', errno: -95, status: 200, range: 'bytes=0-0' })
    expect(error.message).toMatch(/^EOPNOTSUPP: the server ignores ranges.*GET http:.* bytes=0-0, status 200$/)
    await closed
    expect(server.requests).toHaveLength(1)
  })

  test.each([
    ['says no size', { 'content-range': 'bytes 0-0/*' }, 'EOPNOTSUPP'],
    ['gives another range', { 'content-range': `bytes 0-9/${SIZE}` }, 'EIO'],
    ['gives no range', { 'content-range': undefined, 'content-type': 'multipart/byteranges; boundary=x' }, 'EIO'],
    ['encodes', { 'content-encoding': 'gzip' }, 'EIO'],
    ['gives a size that is none', { 'content-range': 'bytes 0-0/99999999999999999999' }, 'EIO']
  ])('so is one that %s', async (_, changes, code) => {
    const server = await start()
    always(server, (response, range) => {
      partial(response, range, changes)
      response.end('x')
    })
    expect(await failure(open(server.origin))).toMatchObject({ code, status: 206 })
    expect(server.requests).toHaveLength(1)
  })

  test('so is one that gives more than the byte', async () => {
    const server = await start()
    always(server, (response, range) => {
      partial(response, range)
      response.end('xyz')
    })
    expect((await failure(open(server.origin))).code).toBe('EIO')
  })
})

describe('wrong answers to a range', () => {
  test.each([
    ['begins elsewhere', { 'content-range': contentRange(0, 199_999, SIZE) }],
    ['ends later', { 'content-range': contentRange(1000, 201_000, SIZE) }],
    ['is upside down', { 'content-range': contentRange(201_000, 1000, SIZE) }],
    ['counts lines', { 'content-range': `lines 1000-200999/${SIZE}` }],
    ['is not said', { 'content-range': undefined }],
    ['is encoded', { 'content-encoding': 'gzip' }]
  ])('one whose range %s is an error, not bytes, and not asked for again', async (_, changes) => {
    const { server, store } = await both()
    answerNext(server, (response, range) => {
      partial(response, range, changes)
      response.end(bodyOf(range))
    })
    const error = await failure(readLater(store, 1000, 200_000))
    expect(error).toMatchObject({ code: 'EIO', errno: -5, status: 206, range: 'bytes=1000-200999' })
    expect(server.requests).toHaveLength(2)
    await expectGood(store)
  })

  test('more bytes than the range: an error, and nothing is written past the buffer’s part', async () => {
    const { server, store } = await both()
    answerNext(server, (response, range) => {
      partial(response, range)
      response.end(CONTENTS)
    })
    const buffer = new Uint8Array(SIZE).fill(0xa5)
    const error = await failure(store.read(1000, buffer, 100, 1000))
    expect(error.code).toBe('EIO')
    expectBytes(buffer.slice(1100), new Uint8Array(SIZE - 1100).fill(0xa5))
    expectBytes(buffer.slice(0, 100), new Uint8Array(100).fill(0xa5))
    await expectGood(store)
  })

  test('a server that gives less at a time is asked for the rest', async () => {
    const { server, store } = await both()
    server.before = (asked, response) => {
      const [first, last] = asked.range as readonly [number, number]
      server.serve({ ...asked, range: [first, Math.min(last, first + 69_999)] }, response)
      return true
    }
    await expectGood(store)
    expect(server.requests.slice(1).map(({ range }) => range)).toEqual([
      [1000, 200_999],
      [71_000, 200_999],
      [141_000, 200_999]
    ])
  })

  test('one that gives a byte at a time is not asked for ever', async () => {
    const { server, store } = await both({ retries: 3 })
    server.before = (asked, response) => {
      const [first] = asked.range as readonly [number, number]
      server.serve({ ...asked, range: [first, first] }, response)
      return true
    }
    expect((await failure(readLater(store, 1000, 200_000))).code).toBe('EIO')
    expect(server.requests).toHaveLength(1 + 4)
  })

  test.each([200, 204, 206])('an answer without a body is no bytes (%i)', async code => {
    const { server, store } = await both({ retries: 1 })
    always(server, (response, range) => {
      partial(response, range, {}, code)
      response.end()
    })
    expect((await failure(readLater(store, 1000, 10))).code).toBe('EIO')
  })
})

describe('a body that breaks off', () => {
  test('is gone on with where it stopped', async () => {
    const { server, store } = await both()
    answerNext(
      server,
      // Fewer bytes than the headers promise, then the end of the connection.
      (response, range) => {
        partial(response, range, { 'content-length': '200000' })
        response.write(bodyOf(range).subarray(0, 70_000), () => response.destroy())
      },
      // Fewer than the range, properly ended.
      (response, range) => {
        partial(response, range)
        response.end(bodyOf(range).subarray(0, 80_000))
      }
    )
    await expectGood(store)
    const firsts = server.requests.slice(1).map(({ range }) => range?.[0] as number)
    expect(firsts).toHaveLength(3)
    expect(firsts[1]).toBeGreaterThan(1000)
    expect(firsts[1]).toBeLessThanOrEqual(71_000)
    expect(firsts[2]).toBe(firsts[1] + 80_000)
  })

  test('is an error when it comes to nothing again and again', async () => {
    const { server, store } = await both({ retries: 3 })
    always(server, (response, range) => {
      partial(response, range, { 'content-length': '200000' })
      response.flushHeaders()
      response.write('x', () => response.destroy())
    })
    const error = await failure(readLater(store, 1000, 200_000))
    expect(error.code).toBe('ECONNRESET')
    expect(error.cause).toBeInstanceOf(Error)
    expect(server.requests).toHaveLength(1 + 4)
  })

  test('progress starts the count of failures anew', async () => {
    const { server, store } = await both({ retries: 1 })
    always(server, (response, range) => {
      partial(response, range)
      response.end(bodyOf(range).subarray(0, 20_000))
    })
    const error = await failure(readLater(store, 0, 200_000))
    expect(error.code).toBe('EIO')
    server.before = () => false
    always(server, (response, range) => {
      partial(response, range)
      response.end(bodyOf(range).subarray(0, 66_000))
    })
    await expectGood(store, 0, 300_000)
  })

  test('of another version is not gone on with', async () => {
    const { server, store } = await both()
    answerNext(server, (response, range) => {
      partial(response, range, { 'content-length': '200000' })
      response.write(bodyOf(range).subarray(0, 70_000), () => response.destroy())
      server.file.etag = '"two"'
    })
    await expectStale(server, store)
  })
})

describe('silence', () => {
  test('before the headers, and in the middle of a body, ends the request and not the read', async () => {
    const { server, store } = await both({ timeoutMs: 300 })
    answerNext(
      server,
      () => {},
      (response, range) => {
        partial(response, range)
        response.write(bodyOf(range).subarray(0, 70_000))
      }
    )
    await expectGood(store)
    const firsts = server.requests.slice(1).map(({ range }) => range?.[0])
    expect(firsts.slice(0, 2)).toEqual([1000, 1000])
    expect(firsts.at(-1)).toBe(71_000)
  })

  test('again and again is ETIMEDOUT', async () => {
    const { server, store } = await both({ timeoutMs: 200, retries: 2 })
    always(server, () => {})
    const error = await failure(readLater(store, 1000, 200_000))
    expect(error).toMatchObject({ code: 'ETIMEDOUT', errno: -110, status: undefined })
    expect(error.message).toContain('nothing came for 200 ms')
    expect(server.requests).toHaveLength(1 + 3)
  })

  test('at the opening as well', async () => {
    const server = await start()
    always(server, () => {})
    expect((await failure(open(server.origin, { timeoutMs: 20, retries: 0 }))).code).toBe('ETIMEDOUT')
  })
})

describe('a file that changes', () => {
  const replace = (server: RangeServer, changes: Partial<ServedFile>): void => {
    Object.assign(server.file, { bytes: (_: number, length: number) => new Uint8Array(length).fill(9) }, changes)
  }

  test('is stale for good by its ETag: 412, from a server that knows If-Match', async () => {
    const { server, store } = await both()
    replace(server, { etag: '"two"' })
    await expectStale(server, store)
  })

  test('by its ETag: 200, from one that knows If-Range alone', async () => {
    const { server, store } = await both()
    replace(server, { etag: '"two"' })
    server.before = (asked, response) => {
      server.serve({ ...asked, headers: { ...asked.headers, 'if-match': undefined } }, response)
      return true
    }
    await expectStale(server, store)
  })

  test('by its ETag: from one that knows no conditions', async () => {
    const { server, store } = await both()
    replace(server, { etag: '"two"' })
    server.before = (asked, response) => {
      server.serve({ ...asked, headers: {} }, response)
      return true
    }
    await expectStale(server, store)
  })

  test('by its date', async () => {
    for (const knows of [true, false]) {
      const { server, store } = await both({}, { ...fileOf(CONTENTS), etag: undefined })
      replace(server, { lastModified: 'Tue, 02 Jan 2024 03:04:06 GMT' })
      server.before = (asked, response) => {
        server.serve(knows ? asked : { ...asked, headers: {} }, response)
        return true
      }
      expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
    }
  })

  test('by its size, where its ETag is the same, it is stale too', async () => {
    for (const sizeBytes of [SIZE - 1, SIZE + 1, 500]) {
      const { server, store } = await both()
      replace(server, { sizeBytes })
      await expectStale(server, store)
    }
  })

  test('by its size alone, where nothing else is pinned', async () => {
    const { server, store } = await both(
      { pin: 'size' },
      { ...fileOf(CONTENTS), etag: undefined, lastModified: undefined }
    )
    await expectGood(store)
    replace(server, { sizeBytes: SIZE + 1 })
    expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
  })

  test('by its weak ETag, which may turn strong', async () => {
    const { server, store } = await both(
      { pin: 'weak' },
      { ...fileOf(CONTENTS), etag: 'W/"one"', lastModified: undefined }
    )
    server.file.etag = '"one"'
    await expectGood(store)
    server.file.etag = 'W/"two"'
    expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
  })

  test('whether an answer without the validator is of the version can’t be said: an error, not for good', async () => {
    for (const etag of [undefined, 'W/"one"']) {
      const { server, store } = await both({ retries: 1 })
      always(server, (response, range) => {
        partial(response, range, { etag })
        response.end(bodyOf(range))
      })
      expect((await failure(readLater(store, 0, 10))).code).toBe('EIO')
      expect(server.requests).toHaveLength(1 + 2)
      server.before = () => false
      await expectGood(store)
    }
  })

  test('the pinned version sent whole is no change: asked for again', async () => {
    const { server, store } = await both()
    answerNext(server, response => {
      response.writeHead(200, { etag: '"one"', 'content-length': SIZE }).end(CONTENTS)
    })
    await expectGood(store)
  })

  test('while reads are under way, each of them is whole or stale', async () => {
    const { server, store } = await both({ maxConcurrent: 8 })
    server.before = ({ range }) => {
      if (range?.[0] === 20_000) replace(server, { etag: '"two"' })
      return false
    }
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => readLater(store, i * 1000, 5000).then(bytes => ({ i, bytes })))
    )
    let stale = 0
    for (const result of results) {
      if (result.status === 'fulfilled') {
        const { i, bytes } = result.value
        expectBytes(bytes, CONTENTS.slice(i * 1000, i * 1000 + 5000))
      } else {
        expect(result.reason).toMatchObject({ code: 'ESTALE' })
        stale++
      }
    }
    expect(stale).toBeGreaterThan(0)
    expect(stale).toBeLessThan(30)
  })
})

describe('statuses', () => {
  test.each([
    [401, 'EACCES'],
    [403, 'EACCES'],
    [404, 'ENOENT'],
    [410, 'ENOENT'],
    [451, 'EACCES'],
    [400, 'EIO'],
    [405, 'EIO'],
    [416, 'EIO']
  ])('%i is %s, at once, and not for good', async (code, name) => {
    const server = await start()
    answerNext(server, status(code))
    expect(await failure(open(server.origin))).toMatchObject({ code: name, status: code })
    const store = await open(server.origin)
    answerNext(server, status(code))
    expect(await failure(readLater(store, 0, 10))).toMatchObject({ code: name, status: code })
    expect(server.requests).toHaveLength(3)
    await expectGood(store)
  })

  test.each([408, 425, 429, 500, 502, 503, 504, 599])('%i is tried again', async code => {
    const server = await start()
    answerNext(server, status(code), status(code))
    const store = await open(server.origin)
    answerNext(server, status(code), status(code))
    await expectGood(store)
    expect(server.requests).toHaveLength(6)
  })

  test.each([
    [429, 'EBUSY'],
    [500, 'EIO'],
    [503, 'EBUSY'],
    [504, 'ETIMEDOUT']
  ])('%i for ever is %s', async (code, name) => {
    const { server, store } = await both({ retries: 2 })
    always(server, status(code))
    expect(await failure(readLater(store, 0, 10))).toMatchObject({ code: name, status: code })
    expect(server.requests).toHaveLength(1 + 3)
  })

  test.each([
    { 'retry-after': '7' },
    { 'retry-after': 'Tue, 02 Jan 2024 03:04:12 GMT', date: 'Tue, 02 Jan 2024 03:04:05 GMT' }
  ])('Retry-After is waited for, in seconds or until a date of the server’s clock: %o', async headers => {
    const { server, store } = await both({ maxWaitMs: 7000 })
    const waits = skipWaits(7000, 7000)
    answerNext(server, status(503, headers))
    await expectGood(store)
    expect(waits).toEqual([7000])
  })

  test('waits grow to the longest allowed, half of each left to chance', async () => {
    const { server, store } = await both({ backoffMs: 1_000_000, maxWaitMs: 5_000_000, retries: 5 })
    const waits = skipWaits(500_000, 5_000_000)
    always(server, status(500))
    expect((await failure(readLater(store, 0, 10))).code).toBe('EIO')
    expect(waits).toHaveLength(5)
    for (const [i, most] of [1_000_000, 2_000_000, 4_000_000, 5_000_000, 5_000_000].entries()) {
      expect(waits[i]).toBeGreaterThanOrEqual(most / 2)
      expect(waits[i]).toBeLessThanOrEqual(most)
    }
  })

  test.each(['5', 'Tue, 02 Jan 2024 03:04:10 GMT'])('a Retry-After of %s is too long to wait for', async retryAfter => {
    const { server, store } = await both({ maxWaitMs: 4999 })
    always(server, status(503, { 'retry-after': retryAfter, date: 'Tue, 02 Jan 2024 03:04:05 GMT' }))
    const error = await failure(readLater(store, 0, 10))
    expect(error.code).toBe('EBUSY')
    expect(error.message).toContain('asks for 5000 ms')
    expect(server.requests).toHaveLength(2)
  })

  test.each(['soon', '-1', '', 'Tue, 02 Jan 2001 03:04:10 GMT'])('a Retry-After of "%s" is none', async retryAfter => {
    const { server, store } = await both()
    answerNext(server, status(503, { 'retry-after': retryAfter }))
    await expectGood(store)
  })
})

describe('connections', () => {
  test('one that is reset is made again', async () => {
    const server = await start()
    answerNext(server, response => response.socket?.resetAndDestroy())
    const store = await open(server.origin)
    answerNext(server, response => response.socket?.resetAndDestroy())
    await expectGood(store)
    expect(server.requests).toHaveLength(4)
  })

  test('nobody listens: ECONNREFUSED, with the platform’s error as the cause', async () => {
    const server = net.createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as net.AddressInfo
    await new Promise(resolve => server.close(resolve))
    const error = await failure(open(`http://127.0.0.1:${port}/`, { retries: 1 }))
    expect(error).toMatchObject({ code: 'ECONNREFUSED', errno: -111, status: undefined })
    expect(error.message).toContain(`GET http://127.0.0.1:${port}/ bytes=0-0, no answer`)
    expect(error.cause).toBeInstanceOf(TypeError)
  })

  test('what answers is no HTTP', async () => {
    const server = net.createServer(socket => socket.end('hello\n', () => socket.destroy()))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as net.AddressInfo
    const error = await failure(open(`http://127.0.0.1:${port}/`, { retries: 1 }))
    expect(error.code).toBe('EIO')
    await new Promise(resolve => server.close(resolve))
  })
})

describe('redirects', () => {
  const to =
    (location: string, code = 302): Answer =>
    response =>
      response.writeHead(code, { location }).end()

  /** Paths that lead elsewhere; all others are served. */
  const lead = (server: RangeServer, targets: Record<string, string>, code = 302): void => {
    server.before = ({ path }, response) => {
      const target = targets[path]
      if (target === undefined) return false
      to(target, code)(response, [0, 0])
      return true
    }
  }

  test.each([301, 302, 303, 307, 308])('%i is followed once; the place it leads to is read from', async code => {
    const server = await start()
    lead(server, { '/latest': 'v1/file?x=1' }, code)
    const store = await open(`${server.origin}/latest`)
    expect(store.handle).toMatchObject({ url: `${server.origin}/latest`, location: `${server.origin}/v1/file?x=1` })
    await expectGood(store)
    expect(server.requests.map(({ path }) => path)).toEqual(['/latest', '/v1/file?x=1', '/v1/file?x=1'])
  })

  test('another origin gets no secrets', async () => {
    const [front, back] = [await start(), await start()]
    always(front, to(`${back.origin}/file`))
    const headers = { Authorization: 'Bearer secret', Cookie: 'a=b', 'X-Other': '1' }
    const store = await open(front.origin, { headers })
    await expectGood(store)
    expect(front.requests).toHaveLength(1)
    expect(front.requests[0].headers.authorization).toBe('Bearer secret')
    expect(back.requests).toHaveLength(2)
    for (const { headers } of back.requests) {
      expect(headers).not.toHaveProperty('authorization')
      expect(headers).not.toHaveProperty('cookie')
      expect(headers['x-other']).toBe('1')
    }
  })

  test('the URL leads elsewhere later: the pinned place goes on being read', async () => {
    const server = await start()
    lead(server, { '/latest': '/v1' })
    const store = await open(`${server.origin}/latest`)
    lead(server, { '/latest': '/v2' })
    await expectGood(store)
    expect(server.requests.at(-1)?.path).toBe('/v1')
  })

  test.each([401, 403, 404, 410])('a signed place that has expired (%i) is asked for anew', async code => {
    const server = await start()
    let signature = 1
    server.before = ({ path }, response) => {
      if (path === '/file') to(`/stored?signature=${signature}`)(response, [0, 0])
      else if (path !== `/stored?signature=${signature}`) status(code)(response, [0, 0])
      else return false
      return true
    }
    const store = await open(`${server.origin}/file`)
    signature = 2
    await expectGood(store)
    await expectGood(store)
    expect(store.handle.location).toBe(`${server.origin}/stored?signature=2`)
    expect(server.requests.slice(2).map(({ path }) => path)).toEqual([
      '/stored?signature=1',
      '/file',
      '/stored?signature=2',
      '/stored?signature=2'
    ])
    signature = 3
    server.file.etag = '"two"'
    expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
  })

  test('a pinned place that is gone while the URL leads to another: stale', async () => {
    const server = await start()
    lead(server, { '/latest': '/v1' })
    const store = await open(`${server.origin}/latest`)
    server.before = ({ path }, response) => {
      if (path === '/latest') to('/v2')(response, [0, 0])
      else if (path === '/v1') status(404)(response, [0, 0])
      else return false
      return true
    }
    const error = await failure(readLater(store, 0, 10))
    expect(error.code).toBe('ESTALE')
    expect(error.message).toContain('/v2')
  })

  test('a pinned place that begins to lead elsewhere: stale', async () => {
    const { server, store } = await both()
    lead(server, { '/file': '/login' })
    expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
  })

  test('a pinned place that is gone, and nothing in its stead: that error', async () => {
    const server = await start()
    lead(server, { '/latest': '/v1' })
    const store = await open(`${server.origin}/latest`)
    always(server, status(404))
    expect((await failure(readLater(store, 0, 10))).code).toBe('ENOENT')
    server.before = () => false
    await expectGood(store)
  })

  test('a loop is ELOOP, and not run through again', async () => {
    const server = await start()
    lead(server, { '/a': '/b', '/b': '/a' })
    const error = await failure(open(`${server.origin}/a`))
    expect(error).toMatchObject({ code: 'ELOOP', errno: -40 })
    expect(server.requests.length).toBeLessThan(25)
  })
})
