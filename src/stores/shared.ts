/**
 * A store that keeps its bytes in a SharedArrayBuffer, so that every thread that has the buffer reaches them.
 *
 * Offers `sharedStoreBuffer(bytes)`, which makes such a buffer, `sharedStore(buffer, options)`, a store over it, and
 * `sharedStores(buffers)`, the opener by which a thread that attaches reaches stores of other threads. For swap and
 * scratch data of memories that threads share:
 *
 *     const buffer = sharedStoreBuffer(64 << 20)
 *     const memory = new Memory({ size: '16MiB', threads: 4, swap: { store: sharedStore(buffer, { name: 'swap' }),
 *     size: '64MiB' } }) // in a worker that was sent the memory's handle and the buffer:
 *     const memory = Memory.attach(handle, { stores: [sharedStores({ swap: buffer })] })
 *
 * The buffer begins with a header: the size of the store, and a number that tells this buffer from others. The bytes
 * past the size are zero, so that growing is a matter of the size alone. Holes cost what they are long.
 *
 * Calls of several threads may overlap where their ranges do not; the size only grows meanwhile, unless one of them
 * truncates. Nothing survives the process: `durable` is false.
 */
import { EBADF, EFBIG, EINVAL, ENOSPC } from '../abi/errno.ts'
import { sharedBuffer } from '../base/shared-buffer.ts'
import type { Store, StoreHandle, StoreOpener } from '../store/store.ts'

const KIND = 'shared'
const HEADER_BYTES = 64
/** Words of 8 bytes. */
const H_SIZE = 0
const H_IDENTITY = 1

export interface SharedStoreOptions {
  /** What maps, errors and reports call it, and what other threads find its buffer by. `'shared'` when absent. */
  readonly name?: string
  /** The size to give it, for a buffer that has one already too. Absent: the size that it has, 0 for a new buffer. */
  readonly sizeBytes?: number
  /** True to refuse `write`, `truncate` and `punch` with -EBADF. */
  readonly readOnly?: boolean
}

/** A buffer for a store of up to `capacityBytes`. */
export function sharedStoreBuffer(capacityBytes: number): SharedArrayBuffer {
  return sharedBuffer(HEADER_BYTES + Math.ceil(capacityBytes / 8) * 8)
}

/**
 * A store over a buffer of `sharedStoreBuffer`. What does not fit in the buffer gives -ENOSPC; arguments outside their
 * range give -EINVAL.
 *
 * @throws RangeError when the buffer is too small for a header, or `sizeBytes` for the buffer.
 */
export function sharedStore(buffer: SharedArrayBuffer, options: SharedStoreOptions = {}): Store {
  if (buffer.byteLength < HEADER_BYTES)
    throw new RangeError(`sharedStore: ${buffer.byteLength} bytes are no buffer for a store`)
  const store = new BufferStore(buffer, options.name ?? KIND, options.readOnly ?? false)
  if (options.sizeBytes !== undefined && store.resize(options.sizeBytes) < 0) {
    throw new RangeError(`sharedStore: sizeBytes is out of range: ${options.sizeBytes}`)
  }
  return store
}

/** Opens the stores over these buffers in this thread, each under the name that it has elsewhere. */
export function sharedStores(buffers: Readonly<Record<string, SharedArrayBuffer>>): StoreOpener {
  return {
    kind: KIND,
    open: handle => {
      const name = String(handle.name)
      const buffer = Object.hasOwn(buffers, name) ? buffers[name] : undefined
      if (buffer === undefined) throw new Error(`no buffer for the shared store '${name}' was given to sharedStores`)
      const store = sharedStore(buffer, { name, readOnly: handle.readOnly === true })
      if (handle.identity === undefined || handle.identity === store.identity) return store
      throw new Error(
        `the buffer that was given to sharedStores as '${name}' is another one than that of the store (ESTALE)`
      )
    }
  }
}

class BufferStore implements Store {
  readonly name: string
  readonly identity: string
  readonly readOnly: boolean
  readonly durable = false
  readonly handle: StoreHandle
  readonly #header: BigInt64Array
  readonly #bytes: Uint8Array
  #isOpen = true

  constructor(buffer: SharedArrayBuffer, name: string, readOnly: boolean) {
    this.name = name
    this.readOnly = readOnly
    this.#header = new BigInt64Array(buffer, 0, HEADER_BYTES / 8)
    this.#bytes = new Uint8Array(buffer, HEADER_BYTES)
    Atomics.compareExchange(
      this.#header,
      H_IDENTITY,
      0n,
      BigInt(1 + Math.floor(Math.random() * (Number.MAX_SAFE_INTEGER - 1)))
    )
    this.identity = `shared:${Atomics.load(this.#header, H_IDENTITY)}`
    this.handle = { kind: KIND, name, readOnly, identity: this.identity }
  }

  size(): number {
    return this.#isOpen ? this.#size : -EBADF
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (!this.#isOpen) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    const n = Math.max(0, Math.min(length, this.#size - position))
    if (n > 0) buffer.set(this.#bytes.subarray(position, position + n), offset)
    return n
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (!this.#isOpen || this.readOnly) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    if (position + length > Number.MAX_SAFE_INTEGER) return -EFBIG
    if (length === 0) return 0
    if (position + length > this.#bytes.length) return -ENOSPC
    this.#bytes.set(buffer.subarray(offset, offset + length), position)
    this.#extend(position + length)
    return length
  }

  flush(): number {
    return this.#isOpen ? 0 : -EBADF
  }

  truncate(sizeBytes: number): number {
    if (!this.#isOpen || this.readOnly) return -EBADF
    return this.resize(sizeBytes)
  }

  punch(position: number, length: number): number {
    if (!this.#isOpen || this.readOnly) return -EBADF
    if (!isSize(position) || !isSize(length)) return -EINVAL
    this.#zero(position, Math.min(position + length, this.#size))
    return 0
  }

  close(): number {
    if (!this.#isOpen) return -EBADF
    this.#isOpen = false
    return 0
  }

  /** Sets the size, also of a store that is read-only. → 0 or -errno. */
  resize(sizeBytes: number): number {
    if (!isSize(sizeBytes)) return -EINVAL
    if (sizeBytes > this.#bytes.length) return -ENOSPC
    const before = this.#size
    Atomics.store(this.#header, H_SIZE, BigInt(sizeBytes))
    this.#zero(sizeBytes, before)
    return 0
  }

  get #size(): number {
    return Number(Atomics.load(this.#header, H_SIZE))
  }

  #zero(start: number, end: number): void {
    if (start < end) this.#bytes.fill(0, start, end)
  }

  /** Makes the size `sizeBytes` at least; another thread may be doing the same. */
  #extend(sizeBytes: number): void {
    const wanted = BigInt(sizeBytes)
    for (let size = Atomics.load(this.#header, H_SIZE); size < wanted; ) {
      const seen = Atomics.compareExchange(this.#header, H_SIZE, size, wanted)
      if (seen === size) return
      size = seen
    }
  }
}

function isSize(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}

function isRange(position: number, buffer: Uint8Array, offset: number, length: number): boolean {
  return isSize(position) && isSize(offset) && isSize(length) && length <= buffer.length - offset
}
