/** The options of a store over a file on a server: their meaning, their defaults and their ranges. */
import type { PinKind } from './http-pin.ts'

/** What a structured clone keeps, and a store in another thread can go on with. */
export interface HttpCloneableOptions {
  /** What maps, errors and reports call the file. The URL as given when absent. */
  readonly name?: string
  /**
   * Sent with every request, such as `{ authorization: 'Bearer ...' }`. To a host of another origin that a redirect
   * leads to, `authorization`, `cookie` and `proxy-authorization` are not sent. None when absent. The store's own
   * headers (`range`, the conditions) win over these.
   */
  readonly headers?: Readonly<Record<string, string>>
  /** Whether a browser sends its cookies: `same-origin` when absent. Without meaning on Node. */
  readonly credentials?: 'omit' | 'same-origin' | 'include'
  /**
   * The longest silence of the server in ms, before the headers and between two pieces of a body, 1 to 86,400,000. Then
   * the request is given up, and tried again. 30,000 when absent. It does not limit how long a whole call may take: a
   * signal does.
   */
  readonly timeoutMs?: number
  /**
   * How often a request that failed is tried again, 0 to 100. 4 when absent. 64 KiB of progress within one call start
   * the count anew.
   */
  readonly retries?: number
  /**
   * The first wait between two tries in ms, 0 to 86,400,000. Doubled each time; half of it is random. 200 when absent.
   */
  readonly backoffMs?: number
  /**
   * The longest wait between two tries in ms, 0 to 86,400,000. When a server's Retry-After asks for more, the call
   * fails. 30,000 when absent.
   */
  readonly maxWaitMs?: number
  /** How many requests may be under way at once, 1 to 256; others queue. 6 when absent. */
  readonly maxConcurrent?: number
}

export interface HttpRangeOptions extends HttpCloneableOptions {
  /**
   * The worst pin to be content with: opening fails with EOPNOTSUPP when the server's answer allows none that is as
   * good. `last-modified` when absent: a strong ETag or a date that is old enough.
   */
  readonly pin?: PinKind
  /**
   * Used instead of the platform's `fetch`. It must behave as the standard says: reject soon after its signal, follow
   * redirects or not as told, ask for the plain form (`Accept-Encoding: identity`) of a range.
   */
  readonly fetch?: HttpFetch
  /** Gives up the opening. It has no meaning for the open store: each call takes its own, and `close` ends them all. */
  readonly signal?: AbortSignal
}

export type HttpFetch = (url: string, init: RequestInit) => Promise<Response>

/** The options with their defaults. Structured-cloneable. */
export type HttpSettings = Required<HttpCloneableOptions>

const DAY_MS = 86_400_000

/** @throws TypeError and RangeError for what is outside its range. */
export function settingsOf(url: string, options: HttpCloneableOptions): HttpSettings {
  const { name = url, headers = {}, credentials = 'same-origin' } = options
  // Throws for a name or value that no header can have, here and not at the first request.
  new Headers(headers as Record<string, string>)
  return {
    name,
    headers: { ...headers },
    credentials,
    timeoutMs: within('timeoutMs', options.timeoutMs ?? 30_000, 1, DAY_MS),
    retries: within('retries', options.retries ?? 4, 0, 100),
    backoffMs: within('backoffMs', options.backoffMs ?? 200, 0, DAY_MS),
    maxWaitMs: within('maxWaitMs', options.maxWaitMs ?? 30_000, 0, DAY_MS),
    maxConcurrent: within('maxConcurrent', options.maxConcurrent ?? 6, 1, 256)
  }
}

function within(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new RangeError(`httpRange: ${name} must be a whole number from ${least} to ${most}, not ${value}`)
}

/** The URL that requests go to: absolute, http or https, without the fragment, which is not for servers. */
export function requestUrl(url: string | URL): string {
  const parsed = absoluteUrl(url)
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    const advice = parsed.protocol === 'blob:' ? '; blobUrlStore of fremap/blob opens it' : ''
    throw new TypeError(`httpRange: not an http or https URL: ${parsed.protocol}${advice}`)
  }
  if (parsed.username !== '' || parsed.password !== '') {
    throw new TypeError('httpRange: a name and password in a URL are not sent; use the headers option')
  }
  parsed.hash = ''
  return parsed.href
}

/**
 * A relative URL means what it means to `fetch`: in a page relative to the document, in a worker to its script, and
 * nothing elsewhere.
 */
function absoluteUrl(url: string | URL): URL {
  const { document, location } = globalThis as { document?: { baseURI: string }; location?: { href: string } }
  const base = document?.baseURI ?? location?.href
  try {
    return new URL(url, base)
  } catch (cause) {
    const why =
      base === undefined ? 'and there is no page here that it could be relative to' : `nor one relative to ${base}`
    throw new TypeError(`httpRange: '${url}' is no absolute URL, ${why}`, { cause })
  }
}

/** What `fetch` leaves out when a redirect leads to another origin. */
const FOR_ONE_ORIGIN = ['authorization', 'cookie', 'proxy-authorization']

/** The user's headers as they may be sent to `target`, for a store that was opened at `url`. */
export function headersFor(target: string, url: string, headers: Readonly<Record<string, string>>): Headers {
  const result = new Headers(headers as Record<string, string>)
  if (new URL(target).origin !== new URL(url).origin) for (const name of FOR_ONE_ORIGIN) result.delete(name)
  return result
}

/** Whether two URLs differ in their query at most: a signed URL gets a new signature now and then. */
export function isSamePlace(a: string, b: string): boolean {
  const [one, other] = [new URL(a), new URL(b)]
  return one.origin === other.origin && one.pathname === other.pathname
}
