/**
 * Judges answers to range requests by their status and headers, before a byte of the body is read.
 *
 * Offers
 *  - `judgeFirst`: the answer to the request that opens a store. → the pin, and what the body has;
 *  - `judgeEmpty`: the answer to the one that asks whether the file is empty. → the pin;
 *  - `judgeRange`: an answer to a request for a range of the pinned version. → what the body has;
 *  - `leadsElsewhere`: whether an answer says that the bytes are to be found at another URL.
 *
 * After RFC 9110, section 14 (range requests) and the status codes of section 15.
 */
import type { Body } from './http-body.ts'
import { EXPOSE, isHidden, type RequestFacts, type Trouble, trouble } from './http-error.ts'
import { WORTH_BYTES } from './http-exchange.ts'
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

/** What an answer says of the version, and the bytes that come with it. */
export interface Opened {
  readonly pin: HttpPin
  readonly body: Body
}

/** Files up to this size may come whole, from a server that ignores ranges. */
const WHOLE_BYTES = WORTH_BYTES

/**
 * An answer to `bytes=0-0` on a file that nothing is known of. It may have more than the one byte: there are servers
 * that take `0-0` for the whole file. `empty?` when it says neither that the file is empty nor that it is not.
 */
export function judgeFirst(response: Response, request: RequestFacts): Opened | Trouble | 'empty?' {
  const facts = factsOf(request, response)
  const { status, headers } = response
  if (status === 416) {
    // The first byte of an empty file can't be had. Not every server says the size then.
    const total = refusedSizeOf(headers)
    if (total === undefined) return 'empty?'
    if (total === 0) return emptyOf(headers)
    return trouble('EIO', `the server refuses the first of ${total} bytes`, facts)
  }
  if (status === 200) return judgeWhole(headers, facts)
  if (status !== 206) return statusTrouble(response, facts)
  const coded = encodingTrouble(headers, facts)
  if (coded !== undefined) return coded
  // Such as `bytes 0--1/0`: what one gets who takes the size minus one for the last byte.
  if (/^bytes .*\/0$/i.test(headers.get('content-range') ?? '')) return emptyOf(headers)
  const range = contentRangeOf(headers)
  if (range === undefined || range.first !== 0) return trouble('EIO', rangeWords(response), facts)
  if (range.total === undefined) return trouble('EOPNOTSUPP', 'the server does not say how large the file is', facts)
  return { pin: pinOf(headers, range.total), body: { skip: 0, bytes: range.last + 1 } }
}

/** The whole file, from a server that ignores ranges: no matter where it is small. */
function judgeWhole(headers: Headers, facts: RequestFacts): Opened | Trouble {
  const length = lengthOf(headers)
  if (length === 0) return emptyOf(headers)
  const coded = encodingTrouble(headers, facts)
  if (coded !== undefined) return coded
  if (length !== undefined && length <= WHOLE_BYTES)
    return { pin: pinOf(headers, length), body: { skip: 0, bytes: length } }
  return trouble('EOPNOTSUPP', 'the server ignores ranges: it began to send the whole file', facts)
}

/**
 * An answer to a request without a range, after one to `bytes=0-0` that was refused without a size. `hasBytes` says
 * whether a byte came. The refusal stands when the file is not empty.
 */
export function judgeEmpty(response: Response, hasBytes: boolean, refused: RequestFacts): HttpPin | Trouble {
  const { status, headers } = response
  if (status === 200 && !hasBytes && (lengthOf(headers) ?? 0) === 0) return pinOf(headers, 0)
  if (status !== 200) return statusTrouble(response, factsOf(refused, response))
  return trouble('EIO', 'the server refuses the first byte of a file that is not empty', { ...refused, status: 416 })
}

function emptyOf(headers: Headers): Opened {
  return { pin: pinOf(headers, 0), body: { skip: 0, bytes: 0 } }
}

/**
 * An answer to a request for `length` bytes from `position`, all of them within the pinned size. A server may give
 * fewer or more, from the same first byte on.
 */
export function judgeRange(response: Response, request: RequestFacts, pin: HttpPin, position: number): Body | Trouble {
  const facts = factsOf(request, response)
  const { status, headers } = response
  if (status === 412) return changed('it no longer matches what was pinned', facts)
  if (status === 416) {
    const total = refusedSizeOf(headers)
    if (total !== undefined && total !== pin.sizeBytes) return changed(sizeWords(total, pin), facts)
    return trouble('EIO', 'the server refuses a range within the file', facts)
  }
  if (status !== 206 && status !== 200) return statusTrouble(response, facts)
  const coded = encodingTrouble(headers, facts)
  if (coded !== undefined) return coded
  const compared = compareWithPin(pin, headers)
  if (compared.result === 'other') return changed(compared.what, facts)
  if (status === 200) return wholeOf(pin, compared, headers, facts, position)
  const range = contentRangeOf(headers)
  if (range === undefined || range.first !== position) return trouble('EIO', rangeWords(response), facts)
  if (range.total !== undefined && range.total !== pin.sizeBytes) return changed(sizeWords(range.total, pin), facts)
  if (range.total === undefined && pin.kind === 'size') return trouble('EIO', 'the answer does not say the size', facts)
  if (compared.result === 'unknown') return trouble('EIO', compared.what, facts, 'retry')
  return { skip: 0, bytes: range.last - range.first + 1 }
}

/**
 * The whole file in place of a range. It is how a server that was sent `If-Range` says that the file has changed; but
 * it may also be the pinned version, when something does not look at ranges: then the range is taken out of it where it
 * is small.
 */
function wholeOf(
  pin: HttpPin,
  compared: Comparison,
  headers: Headers,
  facts: RequestFacts,
  position: number
): Body | Trouble {
  const length = lengthOf(headers)
  if (length !== undefined && length !== pin.sizeBytes) return changed(sizeWords(length, pin), facts)
  const what = 'the whole file came instead of the range'
  if (compared.result === 'unknown') return changed(what, facts)
  // A size that only the body tells would be known too late.
  if (pin.sizeBytes > WHOLE_BYTES || length === undefined) return trouble('EIO', what, facts, 'retry')
  return { skip: position, bytes: length }
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

/** The size that a 416 tells, undefined where it does not. */
function refusedSizeOf(headers: Headers): number | undefined {
  const total = /^bytes \*\/(\d+)$/i.exec(headers.get('content-range') ?? '')?.[1]
  return total === undefined ? undefined : Number(total)
}

/** Undefined where the body comes in chunks. */
function lengthOf(headers: Headers): number | undefined {
  const length = headers.get('content-length')
  return length !== null && /^\d+$/.test(length) ? Number(length) : undefined
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

/** Why the bytes of an answer are not those that were asked for. */
function rangeWords(response: Response): string {
  const { headers } = response
  const range = headers.get('content-range')
  if (range !== null) return `another range came: ${range}`
  if (isHidden(response)) {
    return `this page may not see which range came: the server must send '${EXPOSE}', as it is of another origin`
  }
  return `the answer does not say which range it has: no Content-Range (${headers.get('content-type') ?? 'no Content-Type'})`
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
