/**
 * What servers do that are no worse than others: odd readings of `0-0`, small answers, no ranges at all, and what a
 * page may not see.
 */
import { describe, expect, test, vi } from 'vitest'
import { httpRange } from '../../src/stores/http-range.ts'
import {
  type Answer,
  always,
  answerNext,
  bodyOf,
  both,
  CONTENTS,
  expectGood,
  failure,
  open,
  partial,
  SIZE,
  start,
  status
} from '../support/hostile.ts'
import { contentRange, fileOf, type RangeServer } from '../support/range-server.ts'
import { expectBytes, pattern, readLater } from './conformance.ts'

/** Gives at most so many bytes for a range. */
function cap(server: RangeServer, most: number): void {
  server.before = (asked, response) => {
    const [first, last] = asked.range as readonly [number, number]
    server.serve({ ...asked, range: [first, Math.min(last, first + most - 1)] }, response)
    return true
  }
}

describe('a server that takes 0-0 for the whole file (sirv, busybox)', () => {
  test.each([100, SIZE])('is opened and read, the first byte alone too (%i bytes)', async size => {
    const contents = CONTENTS.slice(0, size)
    const server = await start(fileOf(contents))
    server.before = (asked, response) => {
      const [first, last] = asked.range as readonly [number, number]
      server.serve({ ...asked, range: [first, last === 0 ? size - 1 : last] }, response)
      return true
    }
    const store = await open(server.origin)
    expect(await store.size()).toBe(size)
    expectBytes(await readLater(store, 0, size), contents)
    expectBytes(await readLater(store, 0, 1), contents.slice(0, 1))
  })
})

describe('more than the range that was asked for', () => {
  test('is taken as far as it was asked for, and the rest let go', async () => {
    const { server, store } = await both()
    let closed: Promise<unknown> | undefined
    answerNext(server, (response, [first]) => {
      closed = new Promise(resolve => response.on('close', resolve))
      partial(response, [first, SIZE - 1], { 'content-length': String(SIZE - first) })
      response.write(bodyOf([first, first + 100_000]))
    })
    const buffer = new Uint8Array(1100).fill(0xa5)
    expect(await store.read(1000, buffer, 50, 1000)).toBe(1000)
    expectBytes(buffer.slice(50, 1050), CONTENTS.slice(1000, 2000))
    expectBytes(buffer.slice(1050), new Uint8Array(50).fill(0xa5))
    await closed
    expect(server.requests).toHaveLength(2)
  })

  test('is no reason to take what starts elsewhere', async () => {
    const { server, store } = await both()
    answerNext(server, response => {
      partial(response, [0, SIZE - 1])
      response.end(CONTENTS)
    })
    expect((await failure(readLater(store, 1000, 10))).message).toContain(`another range came: bytes 0-299999/${SIZE}`)
  })
})

describe('a server that gives a part at a time', () => {
  test('is asked on at once: a part is no failure', async () => {
    for (const most of [512, 8192, 70_000]) {
      const { server, store } = await both({ retries: 0, backoffMs: 86_400_000, maxWaitMs: 86_400_000 })
      cap(server, most)
      const length = most * 25 + 7
      await expectGood(store, 1000, Math.min(length, 200_000))
      expect(server.requests).toHaveLength(1 + Math.ceil(Math.min(length, 200_000) / most))
    }
  })

  test('each part starts the count of failures anew', async () => {
    const { server, store } = await both({ retries: 1 })
    server.before = (asked, response, nr) => {
      if (nr % 2 === 0) {
        status(503)(response, [0, 0])
        return true
      }
      const [first, last] = asked.range as readonly [number, number]
      server.serve({ ...asked, range: [first, Math.min(last, first + 999)] }, response)
      return true
    }
    await expectGood(store, 0, 20_000)
  })
})

describe('an empty file', () => {
  const empty = { ...fileOf(new Uint8Array(0)), etag: undefined, lastModified: undefined }
  const nothing: Answer = response => response.writeHead(200, { 'content-length': 0 }).end()
  const chunked: Answer = response => {
    response.writeHead(200)
    response.flushHeaders()
    response.end()
  }

  test.each<[string, Answer[], number]>([
    ['416 that says so', [status(416, { 'content-range': 'bytes */0' })], 1],
    ['200 without a byte', [nothing], 1],
    ['206 of no bytes', [response => response.writeHead(206, { 'content-range': 'bytes 0--1/0' }).end()], 1],
    ['416 without a Content-Range, then 200', [status(416), nothing], 2],
    ['416 without a Content-Range, then 200 in no chunks', [status(416), chunked], 2],
    ['416 with a wrong one', [status(416, { 'content-range': 'bytes 0-0/0' }), nothing], 2]
  ])('is told by a %s', async (_, answers, nrRequests) => {
    const server = await start(empty)
    answerNext(server, ...answers)
    const store = await open(server.origin)
    expect(await store.size()).toBe(0)
    expectBytes(await readLater(store, 0, 10), new Uint8Array(0))
    expect(server.requests).toHaveLength(nrRequests)
    if (nrRequests === 2) expect(server.requests[1].headers).not.toHaveProperty('range')
  })

  test.each<[string, Answer, object]>([
    ['a server that refuses ranges', response => response.end(CONTENTS), { code: 'EIO', status: 416 }],
    ['one that then fails', status(404), { code: 'ENOENT', status: 404 }]
  ])('is not taken for granted: %s', async (_, second, error) => {
    const server = await start()
    answerNext(server, status(416), second)
    expect(await failure(open(server.origin))).toMatchObject(error)
  })

  test('is none where a 416 says a size', async () => {
    const server = await start()
    always(server, status(416, { 'content-range': `bytes */${SIZE}` }))
    const error = await failure(open(server.origin))
    expect(error.message).toContain(`EIO: the server refuses the first of ${SIZE} bytes`)
    expect(server.requests).toHaveLength(1)
  })
})

describe('a server that ignores ranges', () => {
  const contents = pattern(65_536)

  test('is no trouble where the file is small', async () => {
    const server = await start(fileOf(contents))
    server.before = (asked, response) => {
      server.serve({ ...asked, range: undefined }, response)
      return true
    }
    const store = await open(server.origin)
    expectBytes(await readLater(store, 0, 65_536), contents)
    expectBytes(await readLater(store, 40_000, 1000), contents.slice(40_000, 41_000))
    expectBytes(await readLater(store, 65_530, 100), contents.slice(65_530))
    server.file.etag = '"two"'
    expect((await failure(readLater(store, 0, 10))).code).toBe('ESTALE')
  })

  test('is refused where it is larger, or the size is not said', async () => {
    for (const length of [65_537, undefined]) {
      const server = await start()
      always(server, response => {
        response.writeHead(200, { etag: '"one"', ...(length === undefined ? {} : { 'content-length': length }) })
        response.end(CONTENTS.subarray(0, 65_537))
      })
      expect((await failure(open(server.origin))).code).toBe('EOPNOTSUPP')
    }
  })

  test('one that sends more than its length, or encodes, is refused', async () => {
    const server = await start()
    always(server, response => {
      response.writeHead(200, { etag: '"one"', 'content-length': 100, 'content-encoding': 'gzip' })
      response.end(CONTENTS.subarray(0, 100))
    })
    expect((await failure(open(server.origin))).message).toContain('encoded the bytes (gzip)')
  })
})

test('bodies in chunks, without a length', async () => {
  const server = await start()
  always(server, (response, range) => {
    partial(response, range)
    for (let at = range[0]; at <= range[1]; at += 10_000) response.write(bodyOf([at, Math.min(at + 9999, range[1])]))
    response.end()
  })
  await expectGood(await open(server.origin))
})

test('a multipart answer is refused by its name', async () => {
  const { server, store } = await both()
  answerNext(server, response => {
    partial(response, [0, 0], { 'content-range': undefined, 'content-type': 'multipart/byteranges; boundary=x' })
    response.end(`--x\r\ncontent-range: ${contentRange(0, 9, SIZE)}\r\n\r\n0123456789\r\n--x--\r\n`)
  })
  const error = await failure(readLater(store, 0, 10))
  expect(error.message).toMatch(/^EIO: the answer does not say which range.*\(multipart\/byteranges; boundary=x\)/)
})

describe('in a page', () => {
  const page = (href: string): void => {
    const { origin, protocol } = new URL(href)
    vi.stubGlobal('location', { href, origin, protocol })
  }

  /** The platform's `fetch`, as it is for another origin: it shows what the server exposes. */
  const hiding =
    (...exposed: string[]): typeof fetch =>
    async (url, init) => {
      const answer = await fetch(url, init)
      const headers = new Headers([...answer.headers].filter(([name]) => exposed.includes(name)))
      const shown = new Response(answer.body, { status: answer.status, headers })
      return Object.defineProperties(shown, { type: { value: 'cors' }, url: { value: answer.url } })
    }

  test('a Content-Range that the page may not see is told from one that is not there', async () => {
    const server = await start()
    const error = await failure(httpRange(server.origin, { fetch: hiding('last-modified', 'content-length') }))
    expect(error.message).toContain('Access-Control-Expose-Headers: Content-Range, ETag')
  })

  test('so is an ETag', async () => {
    const server = await start()
    const error = await failure(httpRange(server.origin, { fetch: hiding('last-modified', 'content-range') }))
    expect(error.message).toMatch(
      /^EOPNOTSUPP: .*'weak' only.*Access-Control-Expose-Headers: Content-Range, ETag, Date/
    )
    await expectGood(await open(server.origin, { fetch: hiding('content-range', 'etag') }))
  })

  test('a request that fails without a reason names those that a page gives', async () => {
    const options = { retries: 0, fetch: () => Promise.reject(new TypeError('Failed to fetch')) }
    const of = async (at: string, url: string): Promise<string> => {
      page(at)
      return (await failure(httpRange(url, options))).message
    }
    expect(await of('https://here/', 'https://there/file')).toMatch(/Access-Control-Allow-Headers: Range, If-Match/)
    expect(await of('https://here/', 'http://there/file')).toMatch(/an https page may not ask an http server/)
    expect(await of('https://here/', 'https://here/file')).toMatch(/^EIO: Failed to fetch, GET https/)
  })

  test('a relative URL is relative to the document, or to the script of a worker', async () => {
    const server = await start()
    page(`${server.origin}/folder/script.js`)
    const store = await open('big.bin')
    expect(store.handle.url).toBe(`${server.origin}/folder/big.bin`)
    await expectGood(store)
    vi.stubGlobal('document', { baseURI: `${server.origin}/base/` })
    expect((await open('big.bin')).handle.url).toBe(`${server.origin}/base/big.bin`)
  })

  test('where there is nothing to be relative to, that is said', async () => {
    await expect(httpRange('big.bin')).rejects.toThrow(/'big.bin' is no absolute URL, and there is no page here/)
    vi.stubGlobal('location', { href: 'blob:http://host/1234' })
    await expect(httpRange('big.bin')).rejects.toThrow(/'big.bin' is no absolute URL, nor one relative to blob:http/)
  })
})
