/**
 * What one read of a store that answers later brings, byte after byte, to the pages that are locked for it.
 *
 *  put      takes the next bytes: they go where they belong at once, and a page that is whole is unlocked
 *  wake     wakes those who wait for pages that came since the last time
 *  finish   zeroes what lies behind the end of the file, and wakes
 *  giveUp   takes pages that did not come out of the cache, and wakes
 *
 * Waking is the caller's decision: a thread that goes through a file faster than it comes would be woken, and put to
 * sleep again, with each piece.
 *
 * Pages that are not in the cache any more, or came another way, are passed over.
 *
 * Lock: machine lock. The caller gives it back from time to time: copying is most of the work.
 */
import { F_FLAGS, PG_READAHEAD } from '../frame/frame-table.ts'
import { PGPGIN, READAHEAD_PAGES } from '../frame/vmstat.ts'
import type { Machine } from './machine.ts'

export class Delivery {
  readonly #machine: Machine
  readonly #inode: number
  readonly #first: number
  readonly #pages: number
  readonly #lengthBytes: number
  #doneBytes = 0
  /** Frames of pages that came and that nobody was woken for. */
  readonly #quiet: number[] = []

  /** Pages [first, first + pages), of which the file has `lengthBytes`. */
  constructor(machine: Machine, inode: number, first: number, pages: number, lengthBytes: number) {
    this.#machine = machine
    this.#inode = inode
    this.#first = first
    this.#pages = pages
    this.#lengthBytes = lengthBytes
  }

  /** All bytes of the file came. */
  get isWhole(): boolean {
    return this.#doneBytes === this.#lengthBytes
  }

  get doneBytes(): number {
    return this.#doneBytes
  }

  /** The next bytes; what goes beyond the read is left out. */
  put(piece: Uint8Array): void {
    const { ram } = this.#machine
    const { pageSize, u8 } = ram
    const length = Math.min(piece.length, this.#lengthBytes - this.#doneBytes)
    for (let from = 0; from < length; ) {
      const offset = this.#doneBytes % pageSize
      const index = Math.floor(this.#doneBytes / pageSize)
      const frame = this.#lockedFrame(index)
      const pages = this.#run(index, frame, Math.ceil((offset + length - from) / pageSize))
      const n = Math.min(length - from, pages * pageSize - offset)
      if (frame !== 0) u8.set(piece.subarray(from, from + n), frame * pageSize + offset)
      from += n
      this.#doneBytes += n
      const whole = Math.floor((offset + n) / pageSize)
      for (let i = 0; i < whole && frame !== 0; i++) this.#deliver(frame + i)
    }
  }

  wake(): void {
    for (const frame of this.#quiet) this.#machine.filler.wake(frame)
    this.#quiet.length = 0
  }

  finish(): void {
    const { ram } = this.#machine
    const offset = this.#lengthBytes % ram.pageSize
    const frame = offset === 0 ? 0 : this.#lockedFrame(this.#pages - 1)
    if (frame !== 0) {
      ram.zeroPart(frame, offset, ram.pageSize)
      this.#deliver(frame)
    }
    this.wake()
  }

  giveUp(): void {
    for (let index = Math.floor(this.#doneBytes / this.#machine.ram.pageSize); index < this.#pages; index++) {
      const frame = this.#lockedFrame(index)
      if (frame !== 0) this.#machine.filler.withdraw(frame)
    }
    this.wake()
  }

  /** The frame that waits for a page of the read, or 0. */
  #lockedFrame(index: number): number {
    const { cache, frames } = this.#machine
    const frame = cache.lookup(this.#inode, this.#first + index)
    return frame === 0 || frames.isUptodate(frame) ? 0 : frame
  }

  /** How many pages from `index` on, `most` at most, have frames side by side: they are copied in one go. */
  #run(index: number, frame: number, most: number): number {
    let pages = 1
    while (frame !== 0 && pages < most && this.#lockedFrame(index + pages) === frame + pages) pages++
    return pages
  }

  #deliver(frame: number): void {
    const { frames, filler, vmstat } = this.#machine
    vmstat[PGPGIN]++
    if ((frames.row(frame, F_FLAGS) & PG_READAHEAD) !== 0) vmstat[READAHEAD_PAGES]++
    filler.arrive(frame)
    this.#quiet.push(frame)
  }
}
