/** A server that refuses or is too busy, connections that fail, URLs that lead elsewhere. */
import net from 'node:net'
import { describe, expect, test } from 'vitest'
import {
  type Answer,
  always,
  answerNext,
  both,
  expectGood,
  failure,
  open,
  skipWaits,
  start,
  status
} from '../support/hostile.ts'
import type { RangeServer } from '../support/range-server.ts'
import { readLater } from './conformance.ts'

describe('statuses', () => {
  test.each([
    [401, 'EACCES'],
    [403, 'EACCES'],
    [404, 'ENOENT'],
    [410, 'ENOENT'],
    [451, 'EACCES'],
    [400, 'EIO'],
    [405, 'EIO']
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

  test('the same path on another host is another place', async () => {
    const [front, first, second] = [await start(), await start(), await start()]
    let target = first
    always(front, response => to(`${target.origin}/file`)(response, [0, 0]))
    const store = await open(`${front.origin}/file`)
    always(first, status(410))
    target = second
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
