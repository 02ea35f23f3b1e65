/**
 * Stores over a `Blob`, such as a `File` that a user chose in a page. Read-only, on the platform's `Blob` alone: they
 * work the same on Node (`fs.openAsBlob`) and in browsers. Nothing is read but what is asked for.
 *
 * Offers
 *  - `blobStore(blob)`: answers later, for `memory.openAsync`;
 *  - `blobUrlStore(url)`: the same for what a `blob:` URL stands for;
 *  - `blobStoreSync(blob)`: answers at once, for `memory.open`, in workers of browsers (FileReaderSync);
 *  - `blobStores(blobs)`: the opener by which other workers reach such stores.
 *
 * A blob does not change. A file behind one may: then the platform refuses to read on, and the store is stale for good.
 */
import { EBADF, EINVAL, EIO, ESTALE } from '../abi/errno.ts'
import type { AsyncStore } from '../store/async-store.ts'
import type { Store, StoreHandle, StoreOpener } from '../store/store.ts'
import { whenAborted } from './http-exchange.ts'

const KIND = 'blob'

export interface BlobStoreOptions {
  /** What maps, errors and reports call it. The name of a `File`, `'blob'` otherwise, when absent. */
  readonly name?: string
}

/** A read that came to nothing. `cause` is the platform's error. */
export class BlobError extends Error {
  /**
   * ESTALE: the file behind the blob has changed, is gone, or may not be read any more. ECANCELED: the store was
   * closed. Or EIO.
   */
  readonly code: 'ESTALE' | 'ECANCELED' | 'EIO'

  constructor(code: BlobError['code'], what: string, cause?: unknown) {
    super(`${code}: ${what}`, cause === undefined ? undefined : { cause })
    this.name = 'BlobError'
    this.code = code
  }
}

/**
 * A store over `blob`. Reads reject with a BlobError where the platform cannot read it.
 *
 * @throws TypeError for what is no blob.
 */
export function blobStore(blob: Blob, options: BlobStoreOptions = {}): AsyncStore {
  return new LaterBlob(checked(blob), nameOf(blob, options))
}

/**
 * A store over what a `blob:` URL stands for, which may be revoked from then on.
 *
 * @throws TypeError for a URL of another kind, and what `fetch` is rejected with for one that stands for nothing (any
 * more).
 */
export async function blobUrlStore(url: string | URL, options: BlobStoreOptions = {}): Promise<AsyncStore> {
  if (new URL(url).protocol !== 'blob:') throw new TypeError(`blobUrlStore: not a blob: URL: '${url}'`)
  const blob = await (await fetch(url)).blob()
  return blobStore(blob, { name: options.name ?? String(url) })
}

/**
 * A store over `blob` that answers at once. Other workers reach it by `blobStores`, under its name.
 *
 * @throws TypeError for what is no blob; Error where the platform reads blobs later only: on Node, and on a page's main
 * thread.
 */
export function blobStoreSync(blob: Blob, options: BlobStoreOptions = {}): Store {
  return new BlobNow(checked(blob), nameOf(blob, options), syncReader())
}

/**
 * Opens the stores over these blobs in this worker, each under the name that it has elsewhere. For
 * `Memory.attach(handle, { stores })`.
 */
export function blobStores(blobs: Readonly<Record<string, Blob>>): StoreOpener {
  return {
    kind: KIND,
    open: ({ name }) => {
      const known = String(name)
      if (!Object.hasOwn(blobs, known)) throw new Error(`blobStores: there is no blob of the name '${known}'`)
      return blobStoreSync(blobs[known], { name: known })
    }
  }
}

function checked(blob: Blob): Blob {
  // By what it does: it may be of another realm.
  if (typeof blob?.slice === 'function' && isSize(blob.size)) return blob
  throw new TypeError('blobStore: not a Blob or File')
}

function nameOf(blob: Blob, { name }: BlobStoreOptions): string {
  const own = (blob as Blob & { readonly name?: unknown }).name
  return name ?? (typeof own === 'string' && own !== '' ? own : KIND)
}

/** What is wrong, and whether it stays so. */
function blobError(error: unknown, name: string): BlobError {
  const { name: kind } = (error ?? {}) as { readonly name?: unknown }
  if (kind !== 'NotReadableError' && kind !== 'NotFoundError')
    return new BlobError('EIO', `${name} cannot be read`, error)
  return new BlobError(
    'ESTALE',
    `${name} has changed since it was chosen, or may not be read any more; choose it again`,
    error
  )
}

class LaterBlob implements AsyncStore {
  readonly name: string
  readonly identity = undefined
  readonly readOnly = true
  readonly durable = false
  readonly #blob: Blob
  /** The reads under way. */
  readonly #calls: Set<AbortController> = new Set()
  #closed = false
  /** Why every read fails from now on. */
  #stale: BlobError | undefined = undefined

  constructor(blob: Blob, name: string) {
    this.#blob = blob
    this.name = name
  }

  async size(signal?: AbortSignal): Promise<number> {
    if (this.#closed) return -EBADF
    signal?.throwIfAborted()
    if (this.#stale !== undefined) throw this.#stale
    return this.#blob.size
  }

  async read(
    position: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    signal?: AbortSignal
  ): Promise<number> {
    if (this.#closed) return -EBADF
    if (!isSize(offset) || length > buffer.length - offset) return -EINVAL
    let at = offset
    const take = (piece: Uint8Array): void => {
      buffer.set(piece, at)
      at += piece.length
    }
    return this.readPieces(position, length, take, signal)
  }

  async readPieces(
    position: number,
    length: number,
    take: (piece: Uint8Array) => void,
    signal?: AbortSignal
  ): Promise<number> {
    if (this.#closed) return -EBADF
    if (!isSize(position) || !isSize(length)) return -EINVAL
    signal?.throwIfAborted()
    if (this.#stale !== undefined) throw this.#stale
    const wanted = Math.min(length, this.#blob.size - position)
    if (wanted <= 0) return 0
    const call = new AbortController()
    const forget = signal && whenAborted(signal, () => call.abort(signal.reason))
    this.#calls.add(call)
    try {
      return await pour(this.#blob.slice(position, position + wanted), wanted, take, call.signal)
    } catch (error) {
      call.signal.throwIfAborted()
      const failure = error instanceof BlobError ? error : blobError(error, this.name)
      if (failure.code === 'ESTALE') this.#stale ??= failure
      throw failure
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

  /** Ends the reads under way, which reject with ECANCELED. */
  async close(): Promise<number> {
    if (this.#closed) return -EBADF
    this.#closed = true
    for (const call of this.#calls) call.abort(new BlobError('ECANCELED', 'the store was closed'))
    return 0
  }
}

/** Hands over the bytes of `part`, `length` in all, as they come. → `length`. */
async function pour(
  part: Blob,
  length: number,
  take: (piece: Uint8Array) => void,
  signal: AbortSignal
): Promise<number> {
  const reader = part.stream().getReader()
  // Ends a read that is under way, as the end of the stream would.
  const forget = whenAborted(signal, () => void reader.cancel(signal.reason).catch(() => {}))
  try {
    for (let done = 0; ; ) {
      const { done: ended, value } = await reader.read()
      signal.throwIfAborted()
      if (ended && done === length) return length
      if (ended || value.length > length - done) throw new BlobError('EIO', `not the ${length} bytes of the range came`)
      take(value)
      done += value.length
    }
  } finally {
    forget()
  }
}

/** A browser's, which workers alone have. */
interface SyncReader {
  readAsArrayBuffer(blob: Blob): ArrayBuffer
}

function syncReader(): SyncReader {
  const { FileReaderSync } = globalThis as { readonly FileReaderSync?: new () => SyncReader }
  if (FileReaderSync === undefined) {
    throw new Error(
      'blobStoreSync: blobs are read at once in the workers of a browser only; use blobStore with memory.openAsync'
    )
  }
  return new FileReaderSync()
}

class BlobNow implements Store {
  readonly name: string
  readonly identity = undefined
  readonly readOnly = true
  readonly durable = false
  readonly handle: StoreHandle
  readonly #blob: Blob
  readonly #reader: SyncReader
  #closed = false
  #isStale = false

  constructor(blob: Blob, name: string, reader: SyncReader) {
    this.#blob = blob
    this.#reader = reader
    this.name = name
    this.handle = { kind: KIND, name }
  }

  size(): number {
    return this.#closed ? -EBADF : this.#isStale ? -ESTALE : this.#blob.size
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.#closed) return -EBADF
    if (!isSize(position) || !isSize(offset) || !isSize(length) || length > buffer.length - offset) return -EINVAL
    if (this.#isStale) return -ESTALE
    const wanted = Math.min(length, this.#blob.size - position)
    if (wanted <= 0) return 0
    try {
      const bytes = this.#reader.readAsArrayBuffer(this.#blob.slice(position, position + wanted))
      if (bytes.byteLength !== wanted) return -EIO
      buffer.set(new Uint8Array(bytes), offset)
      return wanted
    } catch (error) {
      this.#isStale = blobError(error, this.name).code === 'ESTALE'
      return this.#isStale ? -ESTALE : -EIO
    }
  }

  write(): number {
    return -EBADF
  }

  flush(): number {
    return this.#closed ? -EBADF : 0
  }

  truncate(): number {
    return -EBADF
  }

  punch(): number {
    return -EBADF
  }

  close(): number {
    if (this.#closed) return -EBADF
    this.#closed = true
    return 0
  }
}

function isSize(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}
