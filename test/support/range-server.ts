/**
 * A file server on loopback that a test can have misbehave.
 *
 * Offers `startRangeServer(file)`: serves `file` at every path, ranges and conditions as RFC 9110 has them, and calls
 * `server.before` first, which may answer in its place. `server.requests` lists what was asked.
 *
 * `file` may be changed at any time: the next request sees it.
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ServedFile {
  sizeBytes: number
  /** The bytes of a range. */
  bytes(position: number, length: number): Uint8Array
  etag: string | undefined
  lastModified: string | undefined
}

export interface Asked {
  readonly method: string
  readonly path: string
  readonly headers: http.IncomingHttpHeaders
  /** First and last byte of its range; undefined when it has none. */
  readonly range: readonly [first: number, last: number] | undefined
}

export interface RangeServer {
  /** Such as `http://127.0.0.1:4711`. */
  readonly origin: string
  readonly file: ServedFile
  /** All requests so far, this one last. */
  readonly requests: readonly Asked[]
  /** Connections made so far. */
  readonly nrConnections: number
  /** → true when it has taken the answer upon itself. */
  before: (asked: Asked, response: http.ServerResponse, nr: number) => boolean | Promise<boolean>
  /** Answers as a good server does. */
  serve(asked: Asked, response: http.ServerResponse): void
  close(): Promise<void>
}

export const LONG_AGO = 'Tue, 02 Jan 2024 03:04:05 GMT'

export function fileOf(contents: Uint8Array, etag: string | undefined = '"one"'): ServedFile {
  return {
    sizeBytes: contents.length,
    bytes: (position, length) => contents.subarray(position, position + length),
    etag,
    lastModified: LONG_AGO
  }
}

export async function startRangeServer(file: ServedFile): Promise<RangeServer> {
  const requests: Asked[] = []
  const server = http.createServer(async (request, response) => {
    const asked: Asked = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      range: rangeOf(request.headers.range)
    }
    requests.push(asked)
    // What a test's own handler throws would end the process; the connection is enough.
    try {
      if (!(await self.before(asked, response, requests.length))) self.serve(asked, response)
    } catch (error) {
      response.destroy(error as Error)
    }
  })
  let nrConnections = 0
  server.on('connection', () => nrConnections++)
  server.keepAliveTimeout = 60_000
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const self: RangeServer = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    file,
    requests,
    get nrConnections() {
      return nrConnections
    },
    before: () => false,
    serve: (asked, response) => serve(file, asked, response),
    close: async () => {
      const closed = new Promise(resolve => server.close(resolve))
      server.closeAllConnections()
      await closed
    }
  }
  return self
}

function rangeOf(header: string | undefined): readonly [number, number] | undefined {
  const found = /^bytes=(\d+)-(\d+)$/.exec(header ?? '')
  return found === null ? undefined : [Number(found[1]), Number(found[2])]
}

function serve(file: ServedFile, { headers, range }: Asked, response: http.ServerResponse): void {
  const { etag, lastModified, sizeBytes } = file
  if (etag !== undefined) response.setHeader('etag', etag)
  if (lastModified !== undefined) response.setHeader('last-modified', lastModified)
  const ifMatch = headers['if-match']
  const since = headers['if-unmodified-since']
  if ((ifMatch !== undefined && ifMatch !== etag) || (since !== undefined && since !== lastModified)) {
    response.writeHead(412).end()
    return
  }
  const ifRange = headers['if-range']
  const whole = range === undefined || (ifRange !== undefined && ifRange !== etag && ifRange !== lastModified)
  if (!whole && range[0] >= sizeBytes) {
    response.writeHead(416, { 'content-range': `bytes */${sizeBytes}` }).end()
    return
  }
  const first = whole ? 0 : range[0]
  const last = whole ? sizeBytes - 1 : Math.min(range[1], sizeBytes - 1)
  response.setHeader('content-length', last - first + 1)
  if (whole) response.writeHead(200)
  else response.writeHead(206, { 'content-range': contentRange(first, last, sizeBytes) })
  response.end(file.bytes(first, last - first + 1))
}

export function contentRange(first: number, last: number, total: number | string): string {
  return `bytes ${first}-${last}/${total}`
}
