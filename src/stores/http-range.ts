/**
 * A store over a file on an HTTP server, read by ranges. Read-only, on the platform's `fetch` alone: it works the same
 * on Node and in browsers.
 *
 * Offers
 *  - `httpRange(url, options)`: opens a file, and pins the version that is there: its validator (http-pin.ts) and its
 *    size;
 *  - `openHttpRangeHandle(store.handle)`: the same pinned version in another thread, without a request.
 *
 * Opening asks for the first byte. That one request follows the redirects, proves that the server serves ranges, and
 * brings size and validator; HEAD proves nothing about ranges, and URLs that are signed for GET refuse it. Where the
 * byte is refused without a word about the size, a second request asks whether the file is empty.
 *
 * A read is one request, its body copied into the buffer as it comes, and more only where the server gives less than
 * was asked for, or fails. Every answer is compared with the pin. One of another version makes the store stale: this
 * and every later read is rejected with ESTALE. The size is the pinned one; asking for it sends nothing.
 *
 * What a redirect led to at the opening is asked directly from then on; the URL itself is asked again when that place
 * is gone (a signed URL has expired). It may then lead to the same place with another query, and to no other.
 *
 * The caller must not expect the store to notice a server that sends other bytes under the same validator, such as a
 * file that is overwritten in place while it is being sent. Files on servers are to be replaced, by a rename.
 */
import { EBADF, EINVAL } from '../abi/errno.ts'
import type { AsyncStore } from '../store/async-store.ts'
import { changed, judgeEmpty, judgeFirst, judgeRange, leadsElsewhere } from './http-answer.ts'
import { discard, type RangeRead, receive } from './http-body.ts'
import { EXPOSE, HttpRangeError, isHidden, type RequestFacts, type Trouble, trouble } from './http-error.ts'
import { LEAST_BYTES, type Outcome, persist, Slots, Watch, WORTH_BYTES, whenAborted } from './http-exchange.ts'
import {
  type HttpFetch,
  type HttpRangeOptions,
  type HttpSettings,
  headersFor,
  isSamePlace,
  requestUrl,
  settingsOf
} from './http-options.ts'
import { conditions, type HttpPin, type PinKind } from './http-pin.ts'

export { HttpRangeError } from './http-error.ts'
export type { HttpCloneableOptions, HttpFetch, HttpRangeOptions, HttpSettings } from './http-options.ts'
export type { HttpPin, PinKind } from './http-pin.ts'

/** A pinned version, and how to ask for it. Structured-cloneable. It holds the headers, secrets and all. */
export interface HttpRangeHandle {
  readonly kind: 'http-range'
  /** The URL as given, without its fragment. */
  readonly url: string
  /** What the redirects led to: where requests go. The URL itself when there were none. */
  readonly location: string
  readonly pin: HttpPin
  readonly settings: HttpSettings
}

export interface HttpRangeStore extends AsyncStore {
  /** For `openHttpRangeHandle`. */
  readonly handle: HttpRangeHandle
}

/**
 * Opens the file at `url`, an absolute http or https URL. An empty file is opened whatever its pin: it has no bytes to
 * mix.
 *
 * @throws HttpRangeError: ENOENT (404, 410), EACCES (401, 403, 407, 451), EOPNOTSUPP (the server does not serve ranges,
 * does not say the size, or allows no pin as good as `options.pin`), ELOOP (redirects), ETIMEDOUT, EBUSY (429, 503),
 * the code behind a failed connection (ECONNREFUSED, ...) where the platform tells, or EIO; the reason of
 * `options.signal`.
 * @throws TypeError and RangeError for an URL or an option that can't be, before anything is sent.
 */
export async function httpRange(url: string | URL, options: HttpRangeOptions = {}): Promise<HttpRangeStore> {
  const target = requestUrl(url)
  const settings = settingsOf(target, options)
  const worst = PIN_KINDS.indexOf(options.pin ?? 'last-modified')
  if (worst < 0) throw new TypeError(`httpRange: pin must be one of ${PIN_KINDS.join(', ')}, not '${options.pin}'`)
  const ask = options.fetch ?? platformFetch
  const signal = options.signal ?? new AbortController().signal
  signal.throwIfAborted()
  let handle: HttpRangeHandle | undefined
  const attempt = async (): Promise<Outcome> => {
    const result = await open(target, settings, ask, signal, worst)
    if ('error' in result) return result
    handle = result
    return 'done'
  }
  await persist(attempt, () => 0, settings, signal)
  return new HttpRangeFile(handle as unknown as HttpRangeHandle, ask)
}

/**
 * A store over the version that `handle` pins, without asking the server: whether it still has it shows at the first
 * read. `fetch` as in `HttpRangeOptions`; it can't be part of the handle.
 *
 * @throws TypeError and RangeError for what is no handle.
 */
export function openHttpRangeHandle(
  handle: HttpRangeHandle,
  options: Pick<HttpRangeOptions, 'fetch'> = {}
): HttpRangeStore {
  const { kind, pin } = handle
  if (kind !== 'http-range' || !PIN_KINDS.includes(pin.kind) || !isSize(pin.sizeBytes)) {
    throw new TypeError('openHttpRangeHandle: not the handle of such a store')
  }
  const url = requestUrl(handle.url)
  const settings = settingsOf(url, handle.settings)
  const checked: HttpRangeHandle = { kind, url, location: requestUrl(handle.location), pin: { ...pin }, settings }
  return new HttpRangeFile(checked, options.fetch ?? platformFetch)
}

/** Best first. */
const PIN_KINDS: readonly PinKind[] = ['etag', 'last-modified', 'weak', 'size']
const FIRST_BYTE = 'bytes=0-0'

/** Looked up at each call, as a name in a program is; browsers refuse it as a method of something else. */
const platformFetch: HttpFetch = (url, init) => fetch(url, init)

async function open(
  url: string,
  settings: HttpSettings,
  ask: HttpFetch,
  signal: AbortSignal,
  worst: number
): Promise<HttpRangeHandle | Trouble> {
  const facts: RequestFacts = { url, range: FIRST_BYTE }
  const watch = new Watch(settings.timeoutMs, signal)
  try {
    const headers = headersFor(url, url, settings.headers)
    headers.set('range', FIRST_BYTE)
    const response = await ask(url, requestInit(headers, settings, 'follow', watch))
    const location = requestUrl(response.url || url)
    const opened = judgeFirst(response, facts)
    if (opened === 'empty?') {
      discard(response)
      headers.delete('range')
      const whole = await ask(url, requestInit(headers, settings, 'follow', watch))
      const pin = judgeEmpty(whole, await hasBytes(whole), facts)
      return 'error' in pin ? pin : { kind: 'http-range', url, location, pin, settings }
    }
    if ('error' in opened) {
      discard(response)
      return opened
    }
    const { pin, body } = opened
    const { status } = response
    // A small body is read, though nobody wants it: one that is let go costs the connection.
    const read: RangeRead = { position: 0, length: body.bytes, take: () => {}, done: 0 }
    if (pin.sizeBytes === 0 || body.bytes > WORTH_BYTES) discard(response)
    else if ((await receive(response, read, body, watch)) === 'long') {
      return trouble('EIO', `more than the ${body.bytes} bytes of the range came`, { ...facts, status })
    }
    if (PIN_KINDS.indexOf(pin.kind) > worst && pin.sizeBytes > 0) {
      const shown = isHidden(response) ? `, as far as this page may see: the server must send '${EXPOSE}'` : ''
      const what = `the server identifies the version by '${pin.kind}' only${shown}; allow it with the option pin`
      return trouble('EOPNOTSUPP', what, { ...facts, url: location, status })
    }
    return { kind: 'http-range', url, location, pin, settings }
  } catch (error) {
    return watch.explain(error, facts)
  } finally {
    watch.end()
  }
}

/** Whether a byte comes. The rest is let go. */
async function hasBytes(response: Response): Promise<boolean> {
  if (response.body === null) return false
  const reader = response.body.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return false
    if (value.length === 0) continue
    reader.cancel().catch(() => {})
    return true
  }
}

class HttpRangeFile implements HttpRangeStore {
  readonly name: string
  readonly identity: string | undefined
  readonly readOnly = true
  readonly durable = false
  readonly #url: string
  readonly #pin: HttpPin
  readonly #settings: HttpSettings
  readonly #fetch: HttpFetch
  readonly #slots: Slots
  /** The reads under way. */
  readonly #calls: Map<AbortController, Promise<unknown>> = new Map()
  #closed = false
  #location: string
  /** Why every read fails from now on. */
  #stale: HttpRangeError | undefined = undefined

  constructor(handle: HttpRangeHandle, ask: HttpFetch) {
    const { url, location, pin, settings } = handle
    this.#url = url
    this.#location = location
    this.#pin = pin
    this.#settings = settings
    this.#fetch = ask
    this.#slots = new Slots(settings.maxConcurrent)
    this.name = settings.name
    const validator = pin.kind === 'etag' ? pin.etag : pin.kind === 'last-modified' ? pin.lastModified : undefined
    // What can't be told apart is not called the same.
    this.identity = validator === undefined ? undefined : `http-range ${location} ${validator} ${pin.sizeBytes}`
  }

  get handle(): HttpRangeHandle {
    const { kind, etag, lastModified, sizeBytes } = this.#pin
    const settings = { ...this.#settings, headers: { ...this.#settings.headers } }
    const pin = { kind, etag, lastModified, sizeBytes }
    return { kind: 'http-range', url: this.#url, location: this.#location, pin, settings }
  }

  async size(signal?: AbortSignal): Promise<number> {
    if (this.#closed) return -EBADF
    signal?.throwIfAborted()
    if (this.#stale !== undefined) throw this.#stale
    return this.#pin.sizeBytes
  }

  /** → bytes read, -EINVAL or -EBADF. All other failures reject, with an HttpRangeError. */
  async read(
    position: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    signal?: AbortSignal
  ): Promise<number> {
    if (this.#closed) return -EBADF
    if (!isSize(offset) || length > buffer.length - offset) return -EINVAL
    return this.#read(position, length, (piece, at) => buffer.set(piece, offset + at), signal)
  }

  /** The same; the pieces are those of the body. */
  async readPieces(
    position: number,
    length: number,
    take: (piece: Uint8Array) => void,
    signal?: AbortSignal
  ): Promise<number> {
    return this.#closed ? -EBADF : this.#read(position, length, take, signal)
  }

  async #read(
    position: number,
    length: number,
    take: RangeRead['take'],
    signal: AbortSignal | undefined
  ): Promise<number> {
    if (!isSize(position) || !isSize(length)) return -EINVAL
    signal?.throwIfAborted()
    if (this.#stale !== undefined) throw this.#stale
    const wanted = Math.min(length, this.#pin.sizeBytes - position)
    if (wanted <= 0) return 0
    const call = new AbortController()
    const forget = signal && whenAborted(signal, () => call.abort(signal.reason))
    const filled = this.#fill({ position, length: wanted, take, done: 0 }, call)
    this.#calls.set(call, filled)
    try {
      return await filled
    } finally {
      this.#calls.delete(call)
      forget?.()
    }
  }

  async write(): Promise<number> {
    return -EBADF
  }

  async flush(): Promise<number> {
    return this.#closed ? -EBADF : 0
  }

  async truncate(): Promise<number> {
    return -EBADF
  }

  async punch(): Promise<number> {
    return -EBADF
  }

  /** Ends the reads under way, which reject with ECANCELED, and waits for them. */
  async close(): Promise<number> {
    if (this.#closed) return -EBADF
    this.#closed = true
    const facts: RequestFacts = { url: this.#location, range: 'of any range' }
    const ended = [...this.#calls.values()]
    for (const call of this.#calls.keys()) call.abort(new HttpRangeError('ECANCELED', 'the store was closed', facts))
    await Promise.allSettled(ended)
    return 0
  }

  async #fill(read: RangeRead, call: AbortController): Promise<number> {
    await this.#slots.enter(call.signal)
    try {
      await persist(
        () => this.#attempt(read, call.signal),
        () => read.done,
        this.#settings,
        call.signal
      )
    } finally {
      this.#slots.leave()
    }
    return read.length
  }

  /** One request for what is still to be read, or two where a place is gone. */
  async #attempt(read: RangeRead, signal: AbortSignal): Promise<Outcome> {
    if (this.#stale !== undefined) throw this.#stale
    const position = read.position + read.done
    const length = read.length - read.done
    const facts: RequestFacts = { url: this.#location, range: `bytes=${position}-${position + length - 1}` }
    const watch = new Watch(this.#settings.timeoutMs, signal)
    try {
      const response = await this.#ask(facts, watch)
      if ('error' in response) return this.#refuse(response)
      const body = judgeRange(response, facts, this.#pin, position)
      if ('error' in body) {
        discard(response)
        return this.#refuse(body)
      }
      const before = read.done
      const end = await receive(response, read, body, watch)
      const answered: RequestFacts = { ...facts, status: response.status }
      if (end === 'long') return trouble('EIO', `more than the ${body.bytes} bytes of the range came`, answered)
      if (read.done === read.length) return 'done'
      const came = read.done - before
      if (end === 'whole' && came >= LEAST_BYTES) return 'more'
      return trouble('EIO', `only ${came} of ${length} bytes came`, answered, 'retry')
    } catch (error) {
      return read.done === read.length ? 'done' : watch.explain(error, facts)
    } finally {
      watch.end()
    }
  }

  /** The answer of the pinned place or, when that is gone, of what the URL leads to now. */
  async #ask(facts: RequestFacts, watch: Watch): Promise<Response | Trouble> {
    const here = await this.#send(this.#location, 'manual', facts, watch)
    if (!leadsElsewhere(here) && !(this.#location !== this.#url && GONE.has(here.status))) return here
    discard(here)
    const there = await this.#send(this.#url, 'follow', facts, watch)
    const location = requestUrl(there.url || this.#url)
    if (!there.ok) return there
    if (isSamePlace(location, this.#location)) {
      this.#location = location
      return there
    }
    discard(there)
    return changed(`the URL now leads to ${location}`, { ...facts, status: there.status })
  }

  async #send(target: string, redirect: 'manual' | 'follow', facts: RequestFacts, watch: Watch): Promise<Response> {
    const headers = headersFor(target, this.#url, this.#settings.headers)
    for (const [name, value] of Object.entries(conditions(this.#pin))) headers.set(name, value)
    headers.set('range', facts.range)
    const response = await this.#fetch(target, requestInit(headers, this.#settings, redirect, watch))
    watch.heard()
    return response
  }

  #refuse(refused: Trouble): Trouble {
    if (refused.remedy === 'reopen') this.#stale ??= refused.error
    return refused
  }
}

/** How a place answers for which a signature has expired, or that has been taken away. */
const GONE: ReadonlySet<number> = new Set([401, 403, 404, 410])

function requestInit(
  headers: Headers,
  settings: HttpSettings,
  redirect: 'manual' | 'follow',
  watch: Watch
): CachedInit {
  // `Accept-Encoding: identity` is not ours to set: browsers forbid it, and every `fetch` adds it to requests with a
  // range.
  return { headers, redirect, credentials: settings.credentials, cache: 'no-store', signal: watch.signal }
}

/** Node's types leave out `cache`, which its `fetch` knows. */
type CachedInit = RequestInit & { cache: 'no-store' }

function isSize(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}
