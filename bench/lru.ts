/**
 * What one writes in an afternoon when a file does not fit: a least-recently-used cache of its pages.
 *
 * Every page has a slot in one buffer that is allocated once. A Map keeps its keys in insertion order, so a page
 * that is used moves to the end by delete and set, and the first key is the one to evict. This is the other side of
 * the eviction row; keep it as good as it is short.
 */
import { readSync } from 'node:fs'

export class PageLru {
  readonly #fd: number
  readonly #pageBytes: number
  readonly #slots: number
  readonly #pool: Uint8Array
  readonly #words: Uint32Array
  readonly #slotOf: Map<number, number> = new Map()

  constructor(fd: number, budgetBytes: number, pageBytes: number) {
    this.#fd = fd
    this.#pageBytes = pageBytes
    this.#slots = Math.floor(budgetBytes / pageBytes)
    this.#pool = new Uint8Array(this.#slots * pageBytes)
    this.#words = new Uint32Array(this.#pool.buffer)
  }

  /** The aligned word at byte `position` of the file. */
  readWord(position: number): number {
    const page = Math.floor(position / this.#pageBytes)
    const offset = position - page * this.#pageBytes
    return this.#words[(this.#slot(page) * this.#pageBytes + offset) >>> 2]
  }

  clear(): void {
    this.#slotOf.clear()
  }

  /** The bytes of a page, until the next call. */
  page(index: number): Uint8Array {
    const at = this.#slot(index) * this.#pageBytes
    return this.#pool.subarray(at, at + this.#pageBytes)
  }

  #slot(page: number): number {
    let slot = this.#slotOf.get(page)
    if (slot !== undefined) {
      this.#slotOf.delete(page)
    } else {
      slot = this.#slotOf.size < this.#slots ? this.#slotOf.size : this.#evict()
      readSync(this.#fd, this.#pool, slot * this.#pageBytes, this.#pageBytes, page * this.#pageBytes)
    }
    this.#slotOf.set(page, slot)
    return slot
  }

  #evict(): number {
    const [oldest, slot] = this.#slotOf.entries().next().value as [number, number]
    this.#slotOf.delete(oldest)
    return slot
  }
}
