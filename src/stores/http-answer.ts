/**
 * Judges answers to range requests by their status and headers, before a byte of the body is read.
 *
 * Offers
 *  - `judgeFirst`: the answer to the request that opens a store. → the pin;
 *  - `judgeRange`: an answer to a request for a range of the pinned version. → how many bytes the body has;
 *  - `leadsElsewhere`: whether an answer says that the bytes are to be found at another URL.
 *
 * After RFC 9110, section 14 (range requests) and the status codes of section 15.
 */
import { type RequestFacts, type Trouble, trouble } from './http-error.ts'
import { type Comparison, compareWithPin, type HttpPin, pinOf } from './http-pin.ts'

interface ContentRange {
  readonly first: number
  readonly last: number
  /** The size of the whole file; undefined where the server says `*`. */
  readonly total: number | undefined
}

/** `factsOf(response)` completes the facts of its request. */
function factsOf(request: RequestFacts, response: Response): RequestFacts {
  return { url: response.url || request.url, range: request.range, status: response.status }
}

/** An answer to `bytes=0-0` on a file that nothing is known of. */
export function judgeFirst(response: Response, request: RequestFacts): HttpPin | Trouble {
  const facts = factsOf(request, response)
  const { status, headers } = response
  // A range of an empty file can't be satisfied. Some servers then answer that it is empty, others ignore the range.
  if (status === 416 && /^bytes \*\/0$/i.test(headers.get('content-range') ?? '')) return pinOf(headers, 0)
  if (status === 200 && headers.get('content-length') === '0') return pinOf(headers, 0)
  if (status === 200) return trouble('EOPNOTSUPP', 'the server ignores ranges: it began to send the whole file', facts)
  if (status !== 206) return statusTrouble(response, facts)
  const coded = encodingTrouble(headers, facts)
  if (coded !== undefined) return coded
  const range = contentRangeOf(headers)
  if (range === undefined || range.first !== 0 || range.last !== 0) {
    return trouble('EIO', `another range came: ${rangeWords(headers)}`, facts)
  }
  if (range.total === undefined) return trouble('EOPNOTSUPP', 'the server does not say how large the file is', facts)
  return pinOf(headers, range.total)
}

/**
 * An answer to a request for `length` bytes from `position`, all of them within the pinned size. A server may give
 * fewer, from the same first byte on.
 */
export function judgeRange(
  response: Response,
  request: RequestFacts,
  pin: HttpPin,
  position: number,
  length: number
): number | Trouble {
  const facts = factsOf(request, response)
  const { status, headers } = response
  if (status === 412) return changed('it no longer matches what was pinned', facts)
  if (status === 416) {
    const total = /^bytes \*\/(\d+)$/i.exec(headers.get('content-range') ?? '')?.[1]
    if (total !== undefined && Number(total) !== pin.sizeBytes) return changed(sizeWords(Number(total), pin), facts)
    return trouble('EIO', 'the server refuses a range within the file', facts)
  }
  if (status !== 206 && status !== 200) return statusTrouble(response, facts)
  const coded = encodingTrouble(headers, facts)
  if (coded !== undefined) return coded
  const compared = compareWithPin(pin, headers)
  if (compared.result === 'other') return changed(compared.what, facts)
  if (status === 200) return wholeTrouble(pin, compared, headers, facts)
  const range = contentRangeOf(headers)
  if (range === undefined || range.first !== position || range.last > position + length - 1) {
    return trouble('EIO', `another range came: ${rangeWords(headers)}`, facts)
  }
  if (range.total !== undefined && range.total !== pin.sizeBytes) return changed(sizeWords(range.total, pin), facts)
  if (range.total === undefined && pin.kind === 'size') return trouble('EIO', 'the answer does not say the size', facts)
  if (compared.result === 'unknown') return trouble('EIO', compared.what, facts, 'retry')
  return range.last - range.first + 1
}

/**
 * The whole file in place of a range. It is how a server that was sent `If-Range` says that the file has changed; but it may
 * also be the pinned version, when something on the way does not look at ranges.
 */
function wholeTrouble(pin: HttpPin, compared: Comparison, headers: Headers, facts: RequestFacts): Trouble {
  const length = headers.get('content-length')
  if (length !== null && Number(length) !== pin.sizeBytes) return changed(sizeWords(Number(length), pin), facts)
  const what = 'the whole file came instead of the range'
  if (compared.result === 'unknown') return changed(what, facts)
  return trouble('EIO', what, facts, 'retry')
}

/** Also what `fetch` makes of a redirect in browsers when told not to follow it: status 0, and nothing more. */
export function leadsElsewhere(response: Response): boolean {
  return response.type === 'opaqueredirect' || [301, 302, 303, 307, 308].includes(response.status)
}

/** For an answer that comes with neither the bytes nor a reason to think that they have changed. */
function statusTrouble(response: Response, facts: RequestFacts): Trouble {
  const { status } = response
  const again = status >= 500 || status === 408 || status === 425 || status === 429
  const [code, what] = meaningOf(status)
  if (!again) return trouble(code, what, facts)
  const waitMs = retryAfterMs(response.headers)
  return trouble(code, waitMs === 0 ? what : `${what} and asks for ${waitMs} ms`, facts, 'retry', waitMs)
}

function meaningOf(status: number): [code: string, what: string] {
  switch (status) {
    case 401:
    case 403:
    case 407:
    case 451:
      return ['EACCES', 'the server refuses access']
    case 404:
    case 410:
      return ['ENOENT', 'there is no such file on the server']
    case 408:
    case 504:
      return ['ETIMEDOUT', 'the server gave up waiting']
    case 429:
    case 503:
      return ['EBUSY', 'the server is too busy']
    default:
      return ['EIO', 'the server failed']
  }
}

export function changed(what: string, facts: RequestFacts): Trouble {
  return trouble('ESTALE', `the file on the server is another one now: ${what}`, facts, 'reopen')
}

/** Ranges count the bytes of the encoded form: they are no use. Every server can send it plain, and was asked to. */
function encodingTrouble(headers: Headers, facts: RequestFacts): Trouble | undefined {
  const encoding = headers.get('content-encoding')
  if (encoding === null || encoding.toLowerCase() === 'identity') return undefined
  return trouble('EIO', `the server encoded the bytes (${encoding}) though asked not to`, facts)
}

function contentRangeOf(headers: Headers): ContentRange | undefined {
  const found = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(headers.get('content-range') ?? '')
  if (found === null) return undefined
  const first = Number(found[1])
  const last = Number(found[2])
  const total = found[3] === '*' ? undefined : Number(found[3])
  const isRange = first <= last && last < (total ?? Infinity)
  return isRange && Number.isSafeInteger(total ?? last) ? { first, last, total } : undefined
}

function rangeWords(headers: Headers): string {
  return headers.get('content-range') ?? `no Content-Range (${headers.get('content-type') ?? 'no Content-Type'})`
}

function sizeWords(now: number, pin: HttpPin): string {
  return `it has ${now} bytes and had ${pin.sizeBytes}`
}

/** Seconds, or a date, which is compared with the server's own clock where it shows one. 0 where it makes no sense. */
function retryAfterMs(headers: Headers): number {
  const text = headers.get('retry-after') ?? ''
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const now = Date.parse(headers.get('date') ?? '')
  const wait = Date.parse(text) - (Number.isNaN(now) ? Date.now() : now)
  return wait > 0 ? wait : 0
}
