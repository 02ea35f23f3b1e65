/**
 * The swap area: slots of one page each on a store, for anonymous and shared-memory pages.
 *
 * An anonymous page's slot is held by the swap ptes that name it (`count`) and by the swap cache while a frame has the
 * same contents. A shared-memory page's slot is held by its (inode, file page), found by `find`; no pte names it.
 *
 *   free --alloc--> held --put (last pte) / drop (owner)--> free
 *
 * Slots are numbered from 1. An area without a store has no slots: then such pages stay in memory.
 */
import { EIO } from '../abi/errno.ts'
import { broken } from '../base/assert.ts'
import { Bitmap } from '../base/bitmap.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import type { Ram } from '../frame/ram.ts'
import type { Store } from '../store/store.ts'

const S_USED = 0
const S_CURSOR = 1

export class SwapArea {
  readonly ram: Ram
  readonly nrSlots: number
  /** Swap ptes that name the slot. */
  readonly count: Int32Array
  /** Owner of a shared-memory page's slot; inode 0 for anonymous ones. */
  readonly ownerInode: Int32Array
  readonly ownerIndex: Int32Array
  readonly #hashNext: Int32Array
  readonly #buckets: Int32Array
  readonly #free: Bitmap
  readonly #state: Int32Array
  readonly store: Store | undefined

  constructor(columns: ColumnSource, ram: Ram, store: Store | undefined, nrSlots: number) {
    this.ram = ram
    this.store = store
    this.nrSlots = nrSlots
    const n = nrSlots + 1
    this.count = columns.int32('swap map', n)
    this.ownerInode = columns.int32('swap map', n)
    this.ownerIndex = columns.int32('swap map', n)
    this.#hashNext = columns.int32('swap map', n)
    let buckets = 1
    while (buckets < nrSlots) buckets *= 2
    this.#buckets = columns.int32('swap map', buckets)
    this.#free = new Bitmap(
      columns.int32('swap map', Bitmap.nrWords(n)),
      columns.int32('swap map', Bitmap.nrSummaryWords(n)),
      n
    )
    this.#state = columns.int32('swap map', 4)
  }

  init(): void {
    for (let slot = 1; slot <= this.nrSlots; slot++) this.#free.set(slot)
    this.#state[S_CURSOR] = 1
  }

  get nrUsed(): number {
    return this.#state[S_USED]
  }

  get isFull(): boolean {
    return this.#state[S_USED] >= this.nrSlots
  }

  /** Slots in the owners' hash, by walking it; -1 when a chain does not end. For checks. */
  countHashed(): number {
    let n = 0
    for (const first of this.#buckets) {
      for (let slot = first; slot !== 0; slot = this.#hashNext[slot]) if (++n > this.nrSlots) return -1
    }
    return n
  }

  isFree(slot: number): boolean {
    return this.#free.has(slot)
  }

  /** A slot, or 0 when there is none. */
  alloc(): number {
    if (this.isFull) return 0
    let slot = this.#free.next(this.#state[S_CURSOR])
    if (slot < 0) slot = this.#free.next(1)
    this.#free.clear(slot)
    this.#state[S_USED]++
    this.#state[S_CURSOR] = slot + 1
    return slot
  }

  free(slot: number): void {
    if (this.#free.has(slot) || this.count[slot] !== 0) broken(`swap slot ${slot} freed while held`)
    if (this.ownerInode[slot] !== 0) this.#forgetOwner(slot)
    this.#free.set(slot)
    this.#state[S_USED]--
  }

  /** Makes a slot that of a shared-memory page. */
  setOwner(slot: number, inode: number, index: number): void {
    const bucket = this.#bucket(inode, index)
    this.ownerInode[slot] = inode
    this.ownerIndex[slot] = index
    this.#hashNext[slot] = this.#buckets[bucket]
    this.#buckets[bucket] = slot
  }

  /** The slot of a shared-memory page, or 0. */
  find(inode: number, index: number): number {
    let slot = this.#buckets[this.#bucket(inode, index)]
    while (slot !== 0 && (this.ownerIndex[slot] !== index || this.ownerInode[slot] !== inode)) {
      slot = this.#hashNext[slot]
    }
    return slot
  }

  /** Frees the slots of an inode's pages [first, last]. Returns how many there were. */
  dropRange(inode: number, first: number, last: number): number {
    let dropped = 0
    if (this.#state[S_USED] === 0) return 0
    if (last - first < this.nrSlots) {
      for (let index = first; index <= last; index++) {
        const slot = this.find(inode, index)
        if (slot === 0) continue
        this.free(slot)
        dropped++
      }
      return dropped
    }
    for (let slot = 1; slot <= this.nrSlots; slot++) {
      if (this.ownerInode[slot] !== inode || this.ownerIndex[slot] < first || this.ownerIndex[slot] > last) continue
      this.free(slot)
      dropped++
    }
    return dropped
  }

  /** Writes a frame to its slot. → 0 or -errno. */
  write(slot: number, frame: number): number {
    const { pageSize, u8 } = this.ram
    if (this.store === undefined) return -EIO
    const done = this.store.write((slot - 1) * pageSize, u8, frame * pageSize, pageSize)
    return done < 0 ? done : done === pageSize ? 0 : -EIO
  }

  /** Reads a slot into a frame. → 0 or -errno. */
  read(slot: number, frame: number): number {
    const { pageSize, u8 } = this.ram
    if (this.store === undefined) return -EIO
    const done = this.store.read((slot - 1) * pageSize, u8, frame * pageSize, pageSize)
    return done < 0 ? done : done === pageSize ? 0 : -EIO
  }

  #forgetOwner(slot: number): void {
    const bucket = this.#bucket(this.ownerInode[slot], this.ownerIndex[slot])
    let at = this.#buckets[bucket]
    if (at === slot) this.#buckets[bucket] = this.#hashNext[slot]
    else {
      while (at !== 0 && this.#hashNext[at] !== slot) at = this.#hashNext[at]
      if (at === 0) broken(`swap slot ${slot} is not in its hash chain`)
      this.#hashNext[at] = this.#hashNext[slot]
    }
    this.#hashNext[slot] = 0
    this.ownerInode[slot] = 0
    this.ownerIndex[slot] = 0
  }

  #bucket(inode: number, index: number): number {
    return (index + Math.imul(inode, 0x9e3779b1)) & (this.#buckets.length - 1)
  }
}
