/** A server that lies, stalls, breaks off or changes the file: every read is right, or an error. */
import { describe, expect, test } from 'vitest'
import {
  type Answer,
  always,
  answerNext,
  bodyOf,
  both,
  CONTENTS,
  expectGood,
  expectStale,
  failure,
  open,
  partial,
  SIZE,
  start,
  status
} from '../support/hostile.ts'
import { contentRange, fileOf, type RangeServer, type ServedFile } from '../support/range-server.ts'
import { expectBytes, readLater } from './conformance.ts'

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
    ['gives another range', { 'content-range': `bytes 1-9/${SIZE}` }, 'EIO'],
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

  test('more bytes than the smaller range that the server gave', async () => {
    const { server, store } = await both()
    answerNext(server, (response, [first]) => {
      partial(response, [first, first + 999])
      response.end(bodyOf([first, first + 1999]))
    })
    expect((await failure(readLater(store, 1000, 200_000))).code).toBe('EIO')
    expect(server.requests).toHaveLength(2)
  })

  test('a server that stops saying the size is believed where there is more to go by', async () => {
    const sizeless: Answer = (response, [first, last]) => {
      partial(response, [first, last], { 'content-range': contentRange(first, last, '*') })
      response.end(bodyOf([first, last]))
    }
    const { server, store } = await both()
    answerNext(server, sizeless)
    await expectGood(store)
    const bare = await both({ pin: 'size' }, { ...fileOf(CONTENTS), etag: undefined, lastModified: undefined })
    answerNext(bare.server, sizeless)
    expect((await failure(readLater(bare.store, 0, 10))).code).toBe('EIO')
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

  test('after its last byte is none that matters', async () => {
    const { server, store } = await both()
    answerNext(server, (response, range) => {
      partial(response, range)
      response.write(bodyOf(range), () => response.destroy())
    })
    await expectGood(store)
    expect(server.requests).toHaveLength(2)
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
    const { server, store } = await both({ timeoutMs: 1000 })
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
    const { server, store } = await both({ timeoutMs: 500, retries: 2 })
    always(server, () => {})
    const error = await failure(readLater(store, 1000, 200_000))
    expect(error).toMatchObject({ code: 'ETIMEDOUT', errno: -110, status: undefined })
    expect(error.message).toContain('nothing came for 500 ms')
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
    for (const [pin, file] of [
      ['etag', fileOf(CONTENTS)],
      ['last-modified', { ...fileOf(CONTENTS), etag: undefined }],
      ['size', { ...fileOf(CONTENTS), etag: undefined, lastModified: undefined }]
    ] as const) {
      const { server, store } = await both({ pin }, file)
      let whole = true
      server.before = (asked, response) => {
        server.serve(whole ? { ...asked, range: undefined } : asked, response)
        whole = false
        return true
      }
      await expectGood(store)
      expect(server.requests).toHaveLength(3)
    }
  })

  test('what is sent whole and can’t be told from another version is another version', async () => {
    for (const headers of [{}, { etag: '"one"', 'content-length': SIZE + 1 }]) {
      const { server, store } = await both()
      answerNext(server, status(200, headers))
      await expectStale(server, store)
    }
  })

  test('reads that wait for their turn are not sent any more', async () => {
    const { server, store } = await both({ maxConcurrent: 1 })
    replace(server, { etag: '"two"' })
    const errors = await Promise.all([0, 1, 2].map(i => failure(readLater(store, i * 100, 100))))
    expect(errors.map(({ code }) => code)).toEqual(['ESTALE', 'ESTALE', 'ESTALE'])
    expect(server.requests).toHaveLength(2)
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
