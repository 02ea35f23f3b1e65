/**
 * A store that keeps its bytes in memory, in sparse blocks: holes cost nothing, and it works the same in browsers.
 *
 * Offers `memoryStore(options)`: for tests, for scratch data and swap that need not outlive the process, and as the
 * model the other stores are measured by.
 *
 * Block `i` holds bytes `[i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)`; a block that is not in the map is a hole.
 * Invariants
 *  1. No block lies wholly past the size.
 *  2. The bytes of the last block past the size are zero, so that growing is a matter of the size alone.
 *  3. The blocks take `maxBytes` at most, and a write that needs more than are left changes nothing.
 *
 * The blocks are plain memory of the thread that made the store. The caller must not expect them to count against
 * a machine's budget (`allocatedBytes` reports them), nor to survive anything: `durable` is false.
 */
import { EBADF, EFBIG, EINVAL, ENOMEM, ENOSPC } from '../abi/errno.ts'
import { plainBytes } from '../base/bytes.ts'
import type { Store } from '../store/store.ts'

export interface MemoryStoreOptions {
  /** What maps, errors and reports call it. `'memory'` when absent. */
  readonly name?: string
  /** The bytes it starts with, copied. None when absent. */
  readonly contents?: Uint8Array
  /** The size it starts with, 0 to 2^53 - 1; beyond `contents` it reads as zero. The size of `contents` when absent. */
  readonly sizeBytes?: number
  /** True to refuse `write`, `truncate` and `punch` with -EBADF. */
  readonly readOnly?: boolean
  /** The most that its blocks may take together, as a disk has a size; holes are free. No limit when absent. */
  readonly maxBytes?: number
}

export interface MemoryStore extends Store {
  /** What the blocks take now, in bytes: a multiple of `MEMORY_STORE_BLOCK_BYTES`. */
  readonly allocatedBytes: number
}

/** The unit in which memory is taken and, by `punch` and `truncate`, given back. */
export const MEMORY_STORE_BLOCK_BYTES = 65_536 as const

const BLOCK_BYTES = MEMORY_STORE_BLOCK_BYTES

/**
 * Makes a store. Arguments of its calls outside their range give -EINVAL, a write past 2^53 - 1 -EFBIG, one past
 * `maxBytes` -ENOSPC, and one for which the engine has no memory -ENOMEM; none of these changes anything.
 *
 * @throws RangeError when a size is not an integer from 0 to 2^53 - 1, `sizeBytes` is less than `contents`, or
 * `contents` does not fit in `maxBytes`; TypeError when `contents` is no array of bytes.
 */
export function memoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  const { name = 'memory', contents: given, maxBytes } = options
  const contents = given === undefined ? undefined : plainBytes(given)
  const { sizeBytes = contents?.length ?? 0 } = options
  if (!isSize(sizeBytes)) throw new RangeError(`memoryStore: sizeBytes is out of range: ${sizeBytes}`)
  if (maxBytes !== undefined && !isSize(maxBytes)) {
    throw new RangeError(`memoryStore: maxBytes is out of range: ${maxBytes}`)
  }
  const store = new BlockStore(name, options.readOnly ?? false, Math.floor((maxBytes ?? Infinity) / BLOCK_BYTES))
  if (contents !== undefined) {
    if (sizeBytes < contents.length) throw new RangeError(`memoryStore: sizeBytes cuts the contents: ${sizeBytes}`)
    if (store.fill(contents) < 0) throw new RangeError(`memoryStore: the contents exceed maxBytes: ${maxBytes}`)
  }
  store.extend(sizeBytes)
  return store
}

class BlockStore implements MemoryStore {
  readonly name: string
  readonly identity = undefined
  readonly readOnly: boolean
  readonly durable = false
  readonly #maxBlocks: number
  readonly #blocks = new Map<number, Uint8Array>()
  /** -1 once closed. */
  #sizeBytes = 0

  constructor(name: string, readOnly: boolean, maxBlocks: number) {
    this.name = name
    this.readOnly = readOnly
    this.#maxBlocks = maxBlocks
  }

  get allocatedBytes(): number {
    return this.#blocks.size * BLOCK_BYTES
  }

  size(): number {
    return this.#sizeBytes < 0 ? -EBADF : this.#sizeBytes
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.#sizeBytes < 0) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    const total = Math.max(0, Math.min(length, this.#sizeBytes - position))
    for (let done = 0; done < total; ) {
      const at = (position + done) % BLOCK_BYTES
      const n = Math.min(BLOCK_BYTES - at, total - done)
      const block = this.#blocks.get((position + done - at) / BLOCK_BYTES)
      if (block === undefined) buffer.fill(0, offset + done, offset + done + n)
      else buffer.set(n === BLOCK_BYTES ? block : block.subarray(at, at + n), offset + done)
      done += n
    }
    return total
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.#sizeBytes < 0 || this.readOnly) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    if (position + length > Number.MAX_SAFE_INTEGER) return -EFBIG
    if (length === 0) return 0
    const reserved = this.#reserve(position, length)
    if (reserved < 0) return reserved
    this.#put(position, buffer, offset, length)
    this.extend(position + length)
    return length
  }

  flush(): number {
    return this.#sizeBytes < 0 ? -EBADF : 0
  }

  truncate(sizeBytes: number): number {
    if (this.#sizeBytes < 0 || this.readOnly) return -EBADF
    if (!isSize(sizeBytes)) return -EINVAL
    if (sizeBytes < this.#sizeBytes) this.#clear(sizeBytes, this.#sizeBytes)
    this.#sizeBytes = sizeBytes
    return 0
  }

  punch(position: number, length: number): number {
    if (this.#sizeBytes < 0 || this.readOnly) return -EBADF
    if (!isSize(position) || !isSize(length)) return -EINVAL
    const end = Math.min(position + length, this.#sizeBytes)
    if (position < end) this.#clear(position, end)
    return 0
  }

  close(): number {
    if (this.#sizeBytes < 0) return -EBADF
    this.#blocks.clear()
    this.#sizeBytes = -1
    return 0
  }

  /** Puts the first bytes of a new store in place, read-only or not. → 0 or -errno. */
  fill(contents: Uint8Array): number {
    const reserved = this.#reserve(0, contents.length)
    if (reserved < 0) return reserved
    this.#put(0, contents, 0, contents.length)
    return 0
  }

  /** Makes the size `sizeBytes` at least. Invariant 2 has the new bytes read as zero. */
  extend(sizeBytes: number): void {
    if (sizeBytes > this.#sizeBytes) this.#sizeBytes = sizeBytes
  }

  /** Fills every hole in the range with a block of zeros, or none of them. → 0, -ENOSPC or -ENOMEM. */
  #reserve(position: number, length: number): number {
    const first = Math.floor(position / BLOCK_BYTES)
    const end = Math.ceil((position + length) / BLOCK_BYTES)
    let missing = 0
    for (let i = first; i < end; i++) if (!this.#blocks.has(i)) missing++
    if (missing === 0) return 0
    if (this.#blocks.size + missing > this.#maxBlocks) return -ENOSPC
    const added: number[] = []
    try {
      for (let i = first; i < end; i++) {
        if (this.#blocks.has(i)) continue
        this.#blocks.set(i, new Uint8Array(BLOCK_BYTES))
        added.push(i)
      }
    } catch {
      for (const i of added) this.#blocks.delete(i)
      return -ENOMEM
    }
    return 0
  }

  #put(position: number, buffer: Uint8Array, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const at = (position + done) % BLOCK_BYTES
      const n = Math.min(BLOCK_BYTES - at, length - done)
      const block = this.#blocks.get((position + done - at) / BLOCK_BYTES) as Uint8Array
      block.set(buffer.subarray(offset + done, offset + done + n), at)
      done += n
    }
  }

  /** Makes `[start, end)` read as zero: frees the whole blocks, zeros the parts. A range to the size ends its block. */
  #clear(start: number, end: number): void {
    const firstWhole = Math.ceil(start / BLOCK_BYTES)
    const endWhole = end === this.#sizeBytes ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES)
    if (firstWhole > endWhole) {
      this.#zero(endWhole, start, end)
      return
    }
    this.#zero(firstWhole - 1, start, firstWhole * BLOCK_BYTES)
    this.#zero(endWhole, endWhole * BLOCK_BYTES, end)
    // A sparse range may have far more holes than the map has blocks.
    if (endWhole - firstWhole < this.#blocks.size) {
      for (let i = firstWhole; i < endWhole; i++) this.#blocks.delete(i)
    } else {
      for (const i of this.#blocks.keys()) if (i >= firstWhole && i < endWhole) this.#blocks.delete(i)
    }
  }

  #zero(index: number, start: number, end: number): void {
    if (start < end) this.#blocks.get(index)?.fill(0, start - index * BLOCK_BYTES, end - index * BLOCK_BYTES)
  }
}

function isSize(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}

function isRange(position: number, buffer: Uint8Array, offset: number, length: number): boolean {
  return isSize(position) && isSize(offset) && isSize(length) && length <= buffer.length - offset
}
