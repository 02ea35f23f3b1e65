/**
 * What goes wrong with a request, and whether asking again can help.
 *
 * Offers `HttpRangeError`, which users see, and `Trouble`, which the store's own files pass around: the error together
 * with its remedy.
 */
import { EIO, errnoFromName } from '../abi/errno.ts'

/** What a server of another origin must send for a page to see what the store needs. */
export const EXPOSE = 'Access-Control-Expose-Headers: Content-Range, ETag, Date'

/** Whether a browser shows some headers of the answer only. */
export function isHidden(response: Response): boolean {
  return response.type === 'cors'
}

/** The request that an error tells of. */
export interface RequestFacts {
  readonly url: string
  /** Such as `bytes=0-4095`. */
  readonly range: string
  /** The status of the answer; undefined where none came. */
  readonly status?: number | undefined
}

/** A request that came to nothing. `code` and `errno` as in Node's system errors; `cause` is the platform's error. */
export class HttpRangeError extends Error {
  /** Such as `'ESTALE'`. */
  readonly code: string
  /** The number of `code`, negative. */
  readonly errno: number
  readonly url: string
  readonly range: string
  readonly status: number | undefined

  constructor(code: string, what: string, facts: RequestFacts, cause?: unknown) {
    const status = facts.status === undefined ? 'no answer' : `status ${facts.status}`
    super(`${code}: ${what}, GET ${facts.url} ${facts.range}, ${status}`, cause === undefined ? undefined : { cause })
    this.name = 'HttpRangeError'
    this.code = code
    this.errno = -(errnoFromName(code) ?? EIO)
    this.url = facts.url
    this.range = facts.range
    this.status = facts.status
  }

  /** For loggers: what it says, with its fields. */
  toJSON(): object {
    return { ...this, message: this.message }
  }
}

/**
 * What helps: nothing (`none`), asking again after a while (`retry`), or, where the file is another one for good,
 * opening it anew (`reopen`).
 */
export type Remedy = 'none' | 'retry' | 'reopen'

export interface Trouble {
  readonly error: HttpRangeError
  readonly remedy: Remedy
  /** The least time to wait, in ms, as the server asked for it; 0 where it did not. */
  readonly retryAfterMs: number
}

export function trouble(
  code: string,
  what: string,
  facts: RequestFacts,
  remedy: Remedy = 'none',
  retryAfterMs = 0
): Trouble {
  return { error: new HttpRangeError(code, what, facts), remedy, retryAfterMs }
}

/** Most redirects that a platform's `fetch` follows is 20; the engine of Node says so in these words. */
const REDIRECT_LOOP = /redirect count exceeded/i

/** For what `fetch`, or the reading of a body, was rejected with. */
export function networkTrouble(error: unknown, facts: RequestFacts): Trouble {
  const code = codeBehind(error)
  const remedy = code === 'ELOOP' ? 'none' : 'retry'
  const words = code === 'EIO' ? wordsOf(error) + pageWords(facts.url) : wordsOf(error)
  return { error: new HttpRangeError(code, words, facts, error), remedy, retryAfterMs: 0 }
}

/** Browsers do not say why a request failed. What a page may have to do with it: its origin, and its https. */
function pageWords(url: string): string {
  const { location } = globalThis as { readonly location?: { readonly origin: string; readonly protocol: string } }
  const { origin, protocol } = new URL(url)
  if (location === undefined || location.origin === origin) return ''
  if (location.protocol === 'https:' && protocol === 'http:') return ' (an https page may not ask an http server)'
  return (
    ` (the server may be down, or not let pages of ${location.origin} in: it must send 'Access-Control-Allow-Origin', and answer OPTIONS ` +
    "with 'Access-Control-Allow-Headers: Range, If-Match, If-Range, If-Unmodified-Since' and the headers of yours)"
  )
}

/** Names that Node's engine has for what has a number. Browsers hide the reason: EIO. */
const NUMBERED: ReadonlyMap<string, string> = new Map([
  ['EAI_AGAIN', 'EHOSTUNREACH'],
  ['ENOTFOUND', 'EHOSTUNREACH'],
  ['UND_ERR_BODY_TIMEOUT', 'ETIMEDOUT'],
  ['UND_ERR_CONNECT_TIMEOUT', 'ETIMEDOUT'],
  ['UND_ERR_HEADERS_TIMEOUT', 'ETIMEDOUT'],
  ['UND_ERR_SOCKET', 'ECONNRESET']
])

/** The first error code along the chain of causes that has a number. */
function codeBehind(error: unknown): string {
  for (const link of causesOf(error)) {
    if (typeof link.code === 'string') {
      if (errnoFromName(link.code) !== undefined) return link.code
      const code = NUMBERED.get(link.code)
      if (code !== undefined) return code
    }
    if (REDIRECT_LOOP.test(link.message)) return 'ELOOP'
  }
  return 'EIO'
}

/** `fetch failed` alone says nothing: the innermost message is the reason. */
function wordsOf(error: unknown): string {
  const words = causesOf(error)
    .map(({ message }) => message)
    .filter(message => message !== '')
  return words.length === 0 ? String(error) : [...new Set(words)].join(': ')
}

function causesOf(error: unknown): (Error & { code?: unknown })[] {
  const chain: Error[] = []
  for (let link = error; link instanceof Error && chain.length < 4; link = link.cause) chain.push(link)
  return chain
}
