/**
 * A file seen through a window in an order: what `cat`, `write`, `check` and the demonstration have in common.
 *
 * The window may be smaller than the order: then it shows the order in turns, each one remap away from the last.
 * Without `windowBytes` it is as large as page tables in a quarter of the memory can describe: page tables are part of
 * the budget.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs'
import {
  type AddressSpace,
  FremapError,
  formatSize,
  type Mapping,
  Memory,
  type MemoryStats,
  PTE_FILE_MAX_PAGES
} from '../src/index.ts'
import { type NodeFile, nodeFile } from '../src/stores/node-file.ts'
import { codeOf, UsageError, withPath } from './failure.ts'
import { type Order, type OrderSpec, orderFor } from './order.ts'

export interface WindowOptions {
  readonly order: OrderSpec
  /** The budget in bytes. */
  readonly memory: number
  readonly pageSize: number
  /** The window's size in bytes, rounded up to pages. */
  readonly window?: number
}

/** Some pages of the window, one after the other, good until the next one is asked for. */
export interface Chunk {
  /** Where it begins in the order, and in the window. */
  readonly first: number
  readonly at: number
  /** The file pages. */
  readonly pages: Int32Array
  /** Their bytes: the file's last page has as many as it has. */
  readonly bytes: number
}

/** Pages of a chunk, unless memory is small. */
export const CHUNK_BYTES: number = 1 << 20
/** File pages that are handed over in one remap call. */
const REMAP_PAGES = 1 << 16

export class Window {
  readonly path: string
  readonly pageSize: number
  readonly order: Order
  /** Of the file. */
  readonly fileBytes: number
  readonly filePages: number
  /** Of the window. */
  readonly pages: number
  readonly chunkPages: number
  readonly memory: Memory
  /** Time spent in remap calls. */
  remapMs = 0
  readonly #space: AddressSpace
  readonly #mapping: Mapping | undefined
  /** The turn that the window shows, by its first page in the order; -1 for none. */
  #turn = -1

  /** Opens a file. Throws UsageError. */
  static open(path: string, mode: 'r' | 'r+', options: WindowOptions): Window {
    return new Window(
      path,
      withPath(path, () => nodeFile(path, mode)),
      options
    )
  }

  /** Takes over the store. */
  constructor(path: string, store: NodeFile, options: WindowOptions) {
    this.path = path
    this.pageSize = options.pageSize
    let memory: Memory | undefined
    try {
      this.memory = memory = makeMemory(options)
      const file = memory.open(store)
      this.fileBytes = file.size
      requireSize(path, file.size)
      this.filePages = Math.ceil(file.size / this.pageSize)
      if (this.filePages >= PTE_FILE_MAX_PAGES) {
        const most = formatSize((PTE_FILE_MAX_PAGES - 1) * this.pageSize)
        throw new UsageError(`${path}: larger than ${most}, the most that can be remapped in pages of ${this.pageSize}`)
      }
      this.order = orderFor(options.order, this.filePages, path)
      const { frames } = memory.stats()
      this.chunkPages = Math.max(1, Math.min(Math.floor(CHUNK_BYTES / this.pageSize), frames >>> 2))
      const wanted = options.window === undefined ? defaultPages(frames, this.pageSize) : pagesOf(options)
      this.pages = Math.min(wanted, this.order.pages)
      this.#space = memory.space()
      if (this.pages > 0) {
        const length = this.pages * this.pageSize
        this.#mapping = this.#space.map(file, { length, writable: !store.readOnly })
      }
    } catch (error) {
      memory?.close()
      store.close()
      throw error
    }
  }

  /** The window. Not for an order without pages. */
  get mapping(): Mapping {
    return this.#mapping as Mapping
  }

  /** Bytes in all pages of the order. */
  get totalBytes(): number {
    if (this.filePages === 0) return 0
    const last = this.filePages - 1
    return this.order.pages * this.pageSize - this.order.timesShown(last) * (this.pageSize - this.bytesOf(last))
  }

  /** Bytes of a file page. */
  bytesOf(page: number): number {
    return page === this.filePages - 1 ? this.fileBytes - page * this.pageSize : this.pageSize
  }

  /** First pages of the turns that the window takes. */
  *turns(): Generator<number> {
    for (let first = 0; first < this.order.pages; first += this.pages) yield first
  }

  /** Makes the window show the order from `first` on. Costs page-table entries only. */
  show(first: number): void {
    if (this.#turn === first) return
    const whole = first === 0 && this.pages === this.order.pages
    const fresh = this.#turn < 0
    this.#turn = first
    // A mapping that was just made is linear.
    if (whole && fresh && this.order.name === 'linear') return
    let at = 0
    for (const pages of this.#listOrder(first, Math.min(this.order.pages, first + this.pages))) {
      const start = performance.now()
      this.#remap(at, pages)
      this.remapMs += performance.now() - start
      at += pages.length
    }
  }

  /** The turn that begins with `first`, in chunks. */
  *chunks(first: number): Generator<Chunk> {
    this.show(first)
    const end = Math.min(this.order.pages, first + this.pages)
    const all = new Int32Array(this.chunkPages)
    for (let next = first; next < end; next += all.length) {
      const pages = all.subarray(0, Math.min(all.length, end - next))
      this.order.fill(next, pages)
      let bytes = pages.length * this.pageSize
      for (let i = 0; i < pages.length; i++) bytes -= this.pageSize - this.bytesOf(pages[i])
      yield { first: next, at: next - first, pages, bytes }
    }
  }

  /** Copies a chunk into `buffer`. → its bytes there. */
  read(chunk: Chunk, buffer: Uint8Array): Uint8Array {
    this.#eachPart(chunk, chunk.bytes, (offset, from, to) => {
      this.mapping.read(buffer.subarray(from, to), offset)
    })
    return buffer.subarray(0, chunk.bytes)
  }

  /** Copies `source`, which may be shorter than the chunk, into the window. → pages changed. */
  write(chunk: Chunk, source: Uint8Array): number {
    this.#eachPart(chunk, source.length, (offset, from, to) => {
      this.mapping.write(source.subarray(from, to), offset)
    })
    let pages = 0
    for (let bytes = 0; bytes < source.length; pages++) bytes += this.bytesOf(chunk.pages[pages])
    return pages
  }

  /** Changed pages that the file does not have yet. */
  get dirtyPages(): number {
    return this.mapping.file?.dirtyPages ?? 0
  }

  /** Writes what is dirty and returns when the file has it for good. */
  sync(): void {
    this.#mapping?.sync()
  }

  stats(): MemoryStats {
    return this.memory.stats()
  }

  /** The mapping as /proc/PID/smaps would show it. */
  smaps(): string {
    return this.#space.smaps()
  }

  /** Writes what is dirty and lets go of everything. */
  close(): void {
    this.memory.close()
  }

  /**
   * Calls `move` with an offset of the window and a range of the chunk's bytes: whole pages at once where none is cut.
   */
  #eachPart(chunk: Chunk, length: number, move: (offset: number, from: number, to: number) => void): void {
    const { pageSize } = this
    if (chunk.bytes === chunk.pages.length * pageSize) {
      move(chunk.at * pageSize, 0, length)
      return
    }
    let from = 0
    for (let i = 0; i < chunk.pages.length && from < length; i++) {
      const to = Math.min(length, from + this.bytesOf(chunk.pages[i]))
      move((chunk.at + i) * pageSize, from, to)
      from = to
    }
  }

  *#listOrder(first: number, end: number): Generator<Int32Array> {
    const all = new Int32Array(Math.min(REMAP_PAGES, end - first))
    for (let next = first; next < end; next += all.length) {
      const pages = all.subarray(0, Math.min(all.length, end - next))
      this.order.fill(next, pages)
      yield pages
    }
  }

  #remap(at: number, pages: Int32Array): void {
    try {
      this.mapping.remapPages(at, pages)
    } catch (error) {
      if (!(error instanceof FremapError) || codeOf(error) !== 'ENOMEM') throw error
      const window = formatSize(this.pages * this.pageSize)
      const memory = formatSize(this.memory.sizeBytes)
      throw new UsageError(`the page tables of a window of ${window} do not fit in a memory of ${memory}`)
    }
  }
}

/**
 * Throws UsageError for a file that has more or fewer bytes than it says, such as those of /proc (0 bytes) and /sys (a
 * page).
 */
function requireSize(path: string, sizeBytes: number): void {
  if (hasSize(path, sizeBytes)) return
  const what =
    sizeBytes === 0 ? 'says that it has 0 bytes and has more' : `says that it has ${sizeBytes} bytes and has fewer`
  throw new UsageError(`${path}: ${what}, so it cannot be mapped; copy it to a file first`)
}

function hasSize(path: string, sizeBytes: number): boolean {
  let fd = -1
  try {
    // There are files that wait for their next line.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const got = readSync(fd, new Uint8Array(1), 0, 1, Math.max(0, sizeBytes - 1))
    return sizeBytes === 0 ? got === 0 : got === 1
  } catch {
    // What cannot be read here is told of when it is to be read; a file of 0 bytes would not be.
    return sizeBytes > 0
  } finally {
    if (fd >= 0) closeSync(fd)
  }
}

function makeMemory({ memory, pageSize }: WindowOptions): Memory {
  try {
    return new Memory({ size: memory, pageSize })
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    // The engine's own words say nothing of a memory.
    const isEngine = /^(Invalid|Array|Out)/.test(error.message)
    throw new UsageError(
      isEngine ? `a memory of ${formatSize(memory)} cannot be had here: ${error.message}` : error.message
    )
  }
}

function pagesOf({ window = 0, pageSize }: WindowOptions): number {
  return Math.max(1, Math.ceil(window / pageSize))
}

/** A page table describes a quarter of its bytes in pages; a window that is not aligned needs one table more. */
function defaultPages(frames: number, pageSize: number): number {
  const tables = Math.max(0, (frames >>> 2) - 1)
  return Math.max(1, tables * (pageSize >>> 2))
}
