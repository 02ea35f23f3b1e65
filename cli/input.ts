/**
 * Bytes as they come: fixed portions of a stream, and direct reads of a file behind the window's back, to compare with.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { crc32 } from 'node:zlib'

/** Takes a stream apart into portions of the size that is asked for. */
export class Portions {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Uint8Array = new Uint8Array(0)

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** Fills `target`. → bytes, fewer than `target.length` at the end of the stream only. */
  async take(target: Uint8Array): Promise<number> {
    let done = 0
    while (done < target.length) {
      if (this.#rest.length === 0) {
        const { value, done: ended } = await this.#chunks.next()
        if (ended === true) break
        this.#rest = value
      }
      const n = Math.min(this.#rest.length, target.length - done)
      target.set(this.#rest.subarray(0, n), done)
      this.#rest = this.#rest.subarray(n)
      done += n
    }
    return done
  }
}

/** A file read by position, with nothing of the machine in between. */
export class DirectFile {
  readonly #fd: number
  readonly #pageSize: number
  #buffer: Uint8Array

  constructor(path: string, pageSize: number) {
    this.#fd = openSync(path, 'r')
    this.#pageSize = pageSize
    this.#buffer = new Uint8Array(pageSize)
  }

  /**
   * Compares the pages in `shown`, one after the other and the file's last one cut, with the file's `pages`.
   * → the index of the first one that differs, or -1.
   */
  firstDifference(pages: Int32Array, shown: Uint8Array): number {
    let at = 0
    for (let i = 0; i < pages.length; ) {
      // Neighbours are read at once.
      let run = 1
      while (i + run < pages.length && pages[i + run] === pages[i] + run) run++
      const bytes = this.#read(pages[i], run)
      if (Buffer.compare(bytes, shown.subarray(at, at + bytes.length)) !== 0 || bytes.length === 0) {
        for (let k = 0; k < run; k++) {
          const one = this.#read(pages[i + k], 1)
          if (one.length === 0 || Buffer.compare(one, shown.subarray(at, at + one.length)) !== 0) return i + k
          at += one.length
        }
        return i
      }
      at += bytes.length
      i += run
    }
    return at === shown.length ? -1 : pages.length - 1
  }

  /** The checksum of a page's first bytes. */
  checksum(page: number, length: number): number {
    return crc32(this.#read(page, 1).subarray(0, length))
  }

  /** A page's bytes, good until the next call. */
  page(page: number): Uint8Array {
    return this.#read(page, 1)
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** A run's bytes, fewer at the end of the file. */
  #read(page: number, count: number): Uint8Array {
    const length = count * this.#pageSize
    if (this.#buffer.length < length) this.#buffer = new Uint8Array(length)
    let done = 0
    while (done < length) {
      const got = readSync(this.#fd, this.#buffer, done, length - done, page * this.#pageSize + done)
      if (got === 0) break
      done += got
    }
    return this.#buffer.subarray(0, done)
  }
}
