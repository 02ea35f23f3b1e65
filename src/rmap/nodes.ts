/**
 * Reverse-map nodes: for each present entry that the interval tree cannot find (a page off its linear place, or an
 * anonymous one) a node on its frame's list, and all but the first of a list in a hash by (address space, page).
 *
 * A node is five words in a slab frame of RAM, so it costs 20 bytes of the budget and only while the entry is present:
 *
 *   0 vpn · 1 mm · 2 next on the frame's list · 3 previous there · 4 next in the hash chain (or in the free list)
 *
 * It is named by the index of its first word in `ram.i32`; 0 is none. The list makes finding all mappers of a page
 * proportional to their number; the hash makes removing one of very many cheap. The first node needs none of that, and
 * nearly every page has but one mapper: then the hash is not touched, and its chains are short for those that need it.
 *
 * `prepare` must have returned true since the last allocation, before `add`.
 */
import { assert, broken } from '../base/assert.ts'
import { Lists } from '../base/lists.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import {
  type ColumnSource,
  F_FLAGS,
  F_INDEX,
  F_LRU_NEXT,
  F_LRU_PREV,
  F_MAPCOUNT,
  F_RMAP_HEAD,
  FRAME_SHIFT,
  type FrameTable,
  PG_SLAB
} from '../frame/frame-table.ts'

const NODE_WORDS = 5
const N_VPN = 0
const N_MM = 1
const N_NEXT = 2
const N_PREV = 3
const N_HASH = 4

const PARTIAL = 0

const R_FREE_NODES = 0
const R_SLABS = 1
const R_NODES = 2

export class RmapNodes {
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly #i32: Int32Array
  readonly #wordShift: number
  readonly #perSlab: number
  readonly #buckets: Int32Array
  readonly #partial: Lists
  readonly #state: Int32Array

  constructor(columns: ColumnSource, frames: FrameTable, allocator: FrameAllocator, nrBuckets: number) {
    this.frames = frames
    this.allocator = allocator
    this.#i32 = allocator.ram.i32
    this.#wordShift = allocator.ram.wordShift
    this.#perSlab = Math.floor((1 << this.#wordShift) / NODE_WORDS)
    this.#buckets = columns.int32('reverse map', nrBuckets)
    this.#partial = new Lists(
      frames.w,
      FRAME_SHIFT,
      F_LRU_NEXT,
      F_LRU_PREV,
      columns.int32('reverse map', Lists.words(1)),
      columns.int32('reverse map', Lists.countWords(1, 1)),
      0
    )
    this.#state = columns.int32('reverse map', 4)
  }

  get nrNodes(): number {
    return this.#state[R_NODES]
  }

  get nrSlabs(): number {
    return this.#state[R_SLABS]
  }

  get nrFreeNodes(): number {
    return this.#state[R_FREE_NODES]
  }

  get perSlab(): number {
    return this.#perSlab
  }

  /** Slabs with room, for checks: read only. */
  get partialSlabs(): Lists {
    return this.#partial
  }

  /** Nodes in the hash, by walking it; -1 when a chain does not end. For checks. */
  countHashed(): number {
    let n = 0
    for (const first of this.#buckets) {
      for (let node = first; node !== 0; node = this.#i32[node + N_HASH]) if (++n > this.nrNodes) return -1
    }
    return n
  }

  /** The one after a free node on its slab's list, or 0; the list begins at the slab's F_INDEX. For checks. */
  nextFree(node: number): number {
    return this.#i32[node + N_HASH]
  }

  /** The node before on the frame's list, or 0. */
  prev(node: number): number {
    return this.#i32[node + N_PREV]
  }

  /** Whether `add` will find a node. */
  get isPrepared(): boolean {
    return this.#state[R_FREE_NODES] > 0
  }

  /** Makes sure that a node can be had. May reclaim. False when no memory can be found. */
  prepare(): boolean {
    if (this.#state[R_FREE_NODES] > 0) return true
    const slab = this.allocator.alloc()
    if (slab === 0) return false
    // The reclaim behind that allocation may have freed nodes; one slab more does no harm.
    const { w } = this.frames
    const row = slab << FRAME_SHIFT
    w[row + F_FLAGS] = PG_SLAB
    w[row + F_MAPCOUNT] = 0
    const base = slab << this.#wordShift
    let next = 0
    for (let i = this.#perSlab - 1; i >= 0; i--) {
      const node = base + i * NODE_WORDS
      this.#i32[node + N_HASH] = next
      next = node
    }
    w[row + F_INDEX] = next
    this.#partial.addHead(PARTIAL, slab)
    this.#state[R_FREE_NODES] += this.#perSlab
    this.#state[R_SLABS]++
    return true
  }

  /** Gives back the slab that was prepared for an entry that did not come, if nothing else is in it. */
  trim(): void {
    const slab = this.#partial.first(PARTIAL)
    if (slab !== 0 && this.frames.row(slab, F_MAPCOUNT) === 0) this.#freeSlab(slab)
  }

  /** Adds a node for (mm, vpn) to the frame's list. */
  add(frame: number, mm: number, vpn: number): void {
    const { w } = this.frames
    const slab = this.#partial.first(PARTIAL)
    assert(slab !== 0, 'no reverse-map node was prepared')
    const i32 = this.#i32
    const row = slab << FRAME_SHIFT
    const node = w[row + F_INDEX]
    const free = i32[node + N_HASH]
    w[row + F_INDEX] = free
    w[row + F_MAPCOUNT]++
    if (free === 0) this.#partial.remove(PARTIAL, slab)
    this.#state[R_FREE_NODES]--
    this.#state[R_NODES]++
    i32[node + N_VPN] = vpn
    i32[node + N_MM] = mm
    this.#attach(frame, node, mm, vpn)
  }

  /** Takes the node of (mm, vpn) off the frame's list. It must be there. */
  remove(frame: number, mm: number, vpn: number): void {
    this.#release(this.#detach(frame, mm, vpn))
  }

  /** The node of (mm, vpn) goes from one frame's list to another's: the entry maps that one now. */
  transfer(from: number, to: number, mm: number, vpn: number): void {
    this.#attach(to, this.#detach(from, mm, vpn), mm, vpn)
  }

  /** The frame's node of (mm, vpn) becomes that of (mm, newVpn): the entry was moved. */
  move(frame: number, mm: number, vpn: number, newVpn: number): void {
    const i32 = this.#i32
    const head = this.first(frame)
    if (this.#isOf(head, mm, vpn)) {
      i32[head + N_VPN] = newVpn
      return
    }
    const node = this.#unhash(mm, vpn)
    i32[node + N_VPN] = newVpn
    this.#hash(node, mm, newVpn)
  }

  /** The first node of a frame, or 0; and the one after a node. */
  first(frame: number): number {
    return this.frames.row(frame, F_RMAP_HEAD)
  }

  next(node: number): number {
    return this.#i32[node + N_NEXT]
  }

  vpn(node: number): number {
    return this.#i32[node + N_VPN]
  }

  mm(node: number): number {
    return this.#i32[node + N_MM]
  }

  /** The frame's node of (mm, vpn), or 0. */
  find(frame: number, mm: number, vpn: number): number {
    const i32 = this.#i32
    const head = this.first(frame)
    if (this.#isOf(head, mm, vpn)) return head
    let node = this.#buckets[this.#bucket(mm, vpn)]
    while (node !== 0 && !this.#isOf(node, mm, vpn)) node = i32[node + N_HASH]
    return node
  }

  #isOf(node: number, mm: number, vpn: number): boolean {
    // Word 0 of RAM is in the zero page, so node 0 is of address space 0, which is none.
    return this.#i32[node + N_VPN] === vpn && this.#i32[node + N_MM] === mm
  }

  /** Puts a node on the frame's list: first if that is empty, else second, and into the hash. */
  #attach(frame: number, node: number, mm: number, vpn: number): void {
    const i32 = this.#i32
    const at = (frame << FRAME_SHIFT) + F_RMAP_HEAD
    const head = this.frames.w[at]
    i32[node + N_PREV] = head
    if (head === 0) {
      i32[node + N_NEXT] = 0
      this.frames.w[at] = node
      return
    }
    const next = i32[head + N_NEXT]
    i32[node + N_NEXT] = next
    i32[head + N_NEXT] = node
    if (next !== 0) i32[next + N_PREV] = node
    this.#hash(node, mm, vpn)
  }

  /** Takes the node of (mm, vpn) off the frame's list and out of the hash. */
  #detach(frame: number, mm: number, vpn: number): number {
    const i32 = this.#i32
    const at = (frame << FRAME_SHIFT) + F_RMAP_HEAD
    const head = this.frames.w[at]
    if (this.#isOf(head, mm, vpn)) {
      const second = i32[head + N_NEXT]
      this.frames.w[at] = second
      if (second !== 0) {
        i32[second + N_PREV] = 0
        this.#unhash(i32[second + N_MM], i32[second + N_VPN])
      }
      return head
    }
    const node = this.#unhash(mm, vpn)
    const next = i32[node + N_NEXT]
    const prev = i32[node + N_PREV]
    i32[prev + N_NEXT] = next
    if (next !== 0) i32[next + N_PREV] = prev
    return node
  }

  #hash(node: number, mm: number, vpn: number): void {
    const bucket = this.#bucket(mm, vpn)
    this.#i32[node + N_HASH] = this.#buckets[bucket]
    this.#buckets[bucket] = node
  }

  #unhash(mm: number, vpn: number): number {
    const i32 = this.#i32
    const bucket = this.#bucket(mm, vpn)
    let node = this.#buckets[bucket]
    let before = 0
    while (node !== 0 && !this.#isOf(node, mm, vpn)) {
      before = node
      node = i32[node + N_HASH]
    }
    if (node === 0) broken(`no reverse-map node for page ${vpn} of address space ${mm}`)
    if (before === 0) this.#buckets[bucket] = i32[node + N_HASH]
    else i32[before + N_HASH] = i32[node + N_HASH]
    return node
  }

  #release(node: number): void {
    const { w } = this.frames
    const slab = node >>> this.#wordShift
    const row = slab << FRAME_SHIFT
    const free = w[row + F_INDEX]
    if (free === 0) this.#partial.addHead(PARTIAL, slab)
    this.#i32[node + N_HASH] = free
    w[row + F_INDEX] = node
    this.#state[R_FREE_NODES]++
    this.#state[R_NODES]--
    if (--w[row + F_MAPCOUNT] > 0) return
    // An empty slab goes back if another one has room; the rest go with the last node.
    if (this.#state[R_NODES] === 0)
      while (this.#partial.first(PARTIAL) !== 0) this.#freeSlab(this.#partial.first(PARTIAL))
    else if (this.#state[R_FREE_NODES] >= 2 * this.#perSlab) this.#freeSlab(slab)
  }

  #freeSlab(slab: number): void {
    this.#partial.remove(PARTIAL, slab)
    this.#state[R_FREE_NODES] -= this.#perSlab
    this.#state[R_SLABS]--
    this.allocator.free(slab)
  }

  #bucket(mm: number, vpn: number): number {
    return (vpn + (vpn >>> 14) + Math.imul(mm, 0x9e3779b1)) & (this.#buckets.length - 1)
  }
}
