/**
 * The pin: what tells one version of a file on a server from another.
 *
 * Offers
 *  - `pinOf(headers, sizeBytes)`: what a first answer says of the version, and how well it tells it from others;
 *  - `conditions(pin)`: the request headers by which a server that knows them refuses another version;
 *  - `compareWithPin(pin, headers)`: whether an answer is of the version. Not every server knows the conditions, so
 *    every answer is looked at.
 *
 * After RFC 9110, sections 8.8 (validators) and 13.1 (conditions).
 */

/**
 * How well a pin tells versions apart, best first.
 *
 * - `etag`: a strong ETag, which changes with every change of a byte.
 * - `last-modified`: a Last-Modified at least a second older than the answer's Date: no change can hide in the same
 *   second.
 * - `weak`: a weak ETag, a Last-Modified that is too fresh, or both. A change may keep them.
 * - `size`: neither; only a change of size shows.
 */
export type PinKind = 'etag' | 'last-modified' | 'weak' | 'size'

/** Structured-cloneable. */
export interface HttpPin {
  readonly kind: PinKind
  /** The ETag as it came, quotes and `W/` included. */
  readonly etag: string | undefined
  /** The date as it came. Undefined where there is a strong ETag: hosts that share one may differ in their dates. */
  readonly lastModified: string | undefined
  readonly sizeBytes: number
}

/** An ETag of RFC 9110; what is none (unquoted, say) can't be sent back as a condition and counts as not there. */
const ETAG = /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/

/** Least age of a Last-Modified that tells versions apart: it counts whole seconds. */
const STRONG_AGE_MS = 1000

export function pinOf(headers: Headers, sizeBytes: number): HttpPin {
  const etag = etagOf(headers)
  if (etag !== undefined && !isWeak(etag)) return { kind: 'etag', etag, lastModified: undefined, sizeBytes }
  const lastModified = headers.get('last-modified') ?? undefined
  const ageMs = Date.parse(headers.get('date') ?? '') - Date.parse(lastModified ?? '')
  const strong = ageMs >= STRONG_AGE_MS
  const kind = strong ? 'last-modified' : etag !== undefined || lastModified !== undefined ? 'weak' : 'size'
  return { kind, etag, lastModified, sizeBytes }
}

/**
 * `If-Match` has a changed file answered by a short 412. `If-Range`, for servers that know no `If-Match`, has it
 * answered by a 200, which starts to send the whole file. A weak validator may not be sent in either.
 */
export function conditions(pin: HttpPin): Record<string, string> {
  if (pin.kind === 'etag') return { 'if-match': pin.etag as string, 'if-range': pin.etag as string }
  if (pin.kind === 'last-modified') {
    return { 'if-unmodified-since': pin.lastModified as string, 'if-range': pin.lastModified as string }
  }
  return {}
}

/**
 * `same`: it is the pinned version, as well as the pin can tell. `other`: it is not. `unknown`: the answer lacks the
 * validator that the pin has, or has it in a form that can't be compared.
 */
export type Comparison = { readonly result: 'same' | 'other' | 'unknown'; readonly what: string }

const SAME: Comparison = { result: 'same', what: '' }

export function compareWithPin(pin: HttpPin, headers: Headers): Comparison {
  const pinned = pin.etag
  if (pinned !== undefined) {
    const now = etagOf(headers)
    if (now === undefined) return { result: 'unknown', what: `the answer has no ETag; ${pinned} was expected` }
    if (opaque(now) !== opaque(pinned)) return { result: 'other', what: `its ETag is ${now} and was ${pinned}` }
    // Some servers give a weak ETag in the first second of a version and the same one, strong, from then on. The other
    // way round, something between here and the server may have changed the bytes.
    if (isWeak(now) && !isWeak(pinned)) return { result: 'unknown', what: `its ETag has become weak: ${now}` }
  }
  if (pin.lastModified !== undefined) {
    const now = headers.get('last-modified')
    if (now === null) return { result: 'unknown', what: 'the answer has no Last-Modified, which was expected' }
    if (now !== pin.lastModified) {
      return { result: 'other', what: `its Last-Modified is ${now} and was ${pin.lastModified}` }
    }
  }
  return SAME
}

function etagOf(headers: Headers): string | undefined {
  const etag = headers.get('etag')
  return etag !== null && ETAG.test(etag) ? etag : undefined
}

function isWeak(etag: string): boolean {
  return etag.startsWith('W/')
}

function opaque(etag: string): string {
  return isWeak(etag) ? etag.slice(2) : etag
}
