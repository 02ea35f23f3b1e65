/**
 * Walks a range of an address space vma by vma. Each is looked up when its turn comes, so what is mapped may change
 * between two turns.
 *
 *     const parts = new VmaParts(m, mm, start, end)
 *     while (parts.next()) ... parts.vma, parts.start, parts.stop
 *     return parts.hasHoles ? -ENOMEM : 0
 *
 * Lock: the mmap lock, for `next`.
 */
import type { Machine } from './machine.ts'

export class VmaParts {
  readonly #m: Machine
  readonly #mm: number
  readonly #end: number
  #at: number
  /** The vma in turn, and the part of it that lies in the range. */
  vma = 0
  start = 0
  stop = 0
  /** Whether a page before `start`, or at the end of the walk any page, is not mapped. */
  hasHoles = false

  constructor(m: Machine, mm: number, start: number, end: number) {
    this.#m = m
    this.#mm = mm
    this.#at = start
    this.#end = end
  }

  /** False when there is none left. */
  next(): boolean {
    if (this.#at >= this.#end) return false
    const { vmas } = this.#m
    this.vma = vmas.find(this.#mm, this.#at)
    const first = this.vma === 0 ? this.#end : vmas.start[this.vma]
    if (first > this.#at) this.hasHoles = true
    if (first >= this.#end) {
      this.#at = this.#end
      return false
    }
    this.start = Math.max(this.#at, first)
    this.stop = Math.min(this.#end, vmas.end[this.vma])
    this.#at = this.stop
    return true
  }
}
