/**
 * The vma table: one row for each virtual memory area, kept as columns (Linux: struct vm_area_struct).
 *
 * A vma is on two interval trees at once: its address space's, by virtual page, and (when it maps an inode) the
 * inode's i_mmap, by file page. Nonlinear vmas stay on i_mmap: the tree answers for their entries at the linear
 * place, the reverse map's nodes for all others. Vmas of one address space are also linked in address order.
 *
 * Fields may be changed only through `adjust`, which keeps the trees right; `flags`, `anon` and `anonChain` are free.
 * Rows are numbers from 1; 0 is none. Lock: the address space's mmap lock for writing; i_mmap lock for the tree.
 */
import { IntervalTree } from '../base/interval-tree.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import { MM_MAP_COUNT, MM_SHIFT, MM_VMA_CACHE, MM_VMA_FIRST, MM_VMA_ROOT, type MmTable } from '../frame/mm-table.ts'

const V_FREE_HEAD = 0
const V_VIRGIN = 1
const V_ANON_IDS = 2
const V_IN_USE = 3
const V_CLOCK = 4

export class VmaTable {
  readonly mms: MmTable
  readonly capacity: number
  /** First and one-past-last virtual page. */
  readonly start: Int32Array
  readonly end: Int32Array
  readonly flags: Int32Array
  readonly mm: Int32Array
  /** Open file description and inode, 0 for private anonymous memory. */
  readonly file: Int32Array
  readonly inode: Int32Array
  readonly next: Int32Array
  readonly prev: Int32Array
  /** Anonymous identity (Linux: anon_vma), 0 before the first private write; and how many it inherits from. */
  readonly anon: Int32Array
  readonly anonChain: Int32Array
  /** When the mapping was made, on a clock that ticks with each: populate leaves alone what replaced its range. */
  readonly birth: Int32Array
  /** File page of `start`; for private anonymous memory the virtual page it was made at. Up to 2^52. */
  readonly pgoff: Float64Array
  /** Root of each inode's i_mmap tree, and the vmas on it. */
  readonly imapRoot: Int32Array
  readonly imapCount: Int32Array
  readonly imap: IntervalTree
  readonly #byAddress: IntervalTree
  readonly #state: Int32Array

  constructor(columns: ColumnSource, mms: MmTable, capacity: number, maxInodes: number) {
    const n = capacity + 1
    this.mms = mms
    this.capacity = capacity
    this.start = columns.int32('vmas', n)
    this.end = columns.int32('vmas', n)
    this.flags = columns.int32('vmas', n)
    this.mm = columns.int32('vmas', n)
    this.file = columns.int32('vmas', n)
    this.inode = columns.int32('vmas', n)
    this.next = columns.int32('vmas', n)
    this.prev = columns.int32('vmas', n)
    this.anon = columns.int32('vmas', n)
    this.anonChain = columns.int32('vmas', n)
    this.birth = columns.int32('vmas', n)
    this.pgoff = columns.float64('vmas', n)
    this.imapRoot = columns.int32('inodes', maxInodes + 1)
    this.imapCount = columns.int32('inodes', maxInodes + 1)
    this.imap = vmaTree(columns, n)
    this.#byAddress = vmaTree(columns, n)
    this.#state = columns.int32('vmas', 8)
  }

  get nrInUse(): number {
    return this.#state[V_IN_USE]
  }

  /** The trees by address, for checks: read only. */
  get byAddress(): IntervalTree {
    return this.#byAddress
  }

  /** First free row, linked by `next`; and the rows that were ever used. For checks. */
  get firstFree(): number {
    return this.#state[V_FREE_HEAD]
  }

  get nrEverUsed(): number {
    return this.#state[V_VIRGIN]
  }

  /** A row with all fields 0, or 0 when the table is full. */
  alloc(): number {
    const state = this.#state
    let id = state[V_FREE_HEAD]
    if (id !== 0) state[V_FREE_HEAD] = this.next[id]
    else if (state[V_VIRGIN] < this.capacity) id = ++state[V_VIRGIN]
    else return 0
    state[V_IN_USE]++
    this.next[id] = 0
    this.flags[id] = 0
    this.file[id] = 0
    this.inode[id] = 0
    this.anon[id] = 0
    this.anonChain[id] = 0
    return id
  }

  free(id: number): void {
    this.mm[id] = 0
    this.next[id] = this.#state[V_FREE_HEAD]
    this.#state[V_FREE_HEAD] = id
    this.#state[V_IN_USE]--
  }

  /** Now, on the clock of mappings. */
  get clock(): number {
    return this.#state[V_CLOCK]
  }

  /** Marks a vma as made now. */
  stamp(id: number): void {
    this.birth[id] = ++this.#state[V_CLOCK]
  }

  /** A new anonymous identity. */
  newAnonId(): number {
    return ++this.#state[V_ANON_IDS]
  }

  /** The first vma whose end is after the page, or 0. */
  find(mm: number, vpn: number): number {
    const row = mm << MM_SHIFT
    const w = this.mms.w
    const cached = w[row + MM_VMA_CACHE]
    if (cached !== 0 && this.start[cached] <= vpn && vpn < this.end[cached]) return cached
    const id = this.#byAddress.first(w[row + MM_VMA_ROOT], vpn, Infinity)
    if (id !== 0) w[row + MM_VMA_CACHE] = id
    return id
  }

  /** The vma that contains the page, or 0. */
  at(mm: number, vpn: number): number {
    const id = this.find(mm, vpn)
    return id !== 0 && this.start[id] <= vpn ? id : 0
  }

  /** The last vma that ends at or before the page, or 0. */
  before(mm: number, vpn: number): number {
    const id = this.find(mm, vpn)
    if (id !== 0) return this.start[id] < vpn ? id : this.prev[id]
    return this.last(mm)
  }

  first(mm: number): number {
    return this.mms.row(mm, MM_VMA_FIRST)
  }

  /** The vma with the highest addresses, or 0. */
  last(mm: number): number {
    let node = this.mms.row(mm, MM_VMA_ROOT)
    while (node !== 0 && this.#byAddress.right[node] !== 0) node = this.#byAddress.right[node]
    return node
  }

  /** The linear file page of an address in the vma. */
  linearIndex(id: number, vpn: number): number {
    return this.pgoff[id] + (vpn - this.start[id])
  }

  /** Puts a filled-in row into its trees and the list. The range is free. */
  link(id: number): void {
    const mm = this.mm[id]
    const row = mm << MM_SHIFT
    const w = this.mms.w
    const prev = this.before(mm, this.start[id])
    const next = prev === 0 ? w[row + MM_VMA_FIRST] : this.next[prev]
    this.prev[id] = prev
    this.next[id] = next
    if (prev === 0) w[row + MM_VMA_FIRST] = id
    else this.next[prev] = id
    if (next !== 0) this.prev[next] = id
    w[row + MM_VMA_ROOT] = this.#byAddress.insert(w[row + MM_VMA_ROOT], id, this.start[id], this.end[id] - 1)
    w[row + MM_MAP_COUNT]++
    this.#linkInode(id)
  }

  /** Takes a vma out of its trees and the list; the row stays allocated. */
  unlink(id: number): void {
    const row = this.mm[id] << MM_SHIFT
    const w = this.mms.w
    const prev = this.prev[id]
    const next = this.next[id]
    if (prev === 0) w[row + MM_VMA_FIRST] = next
    else this.next[prev] = next
    if (next !== 0) this.prev[next] = prev
    w[row + MM_VMA_ROOT] = this.#byAddress.remove(w[row + MM_VMA_ROOT], id)
    w[row + MM_MAP_COUNT]--
    w[row + MM_VMA_CACHE] = 0
    this.#unlinkInode(id)
  }

  /** Moves the ends of a linked vma; it stays where it is in the order. */
  adjust(id: number, start: number, end: number, pgoff: number): void {
    const row = this.mm[id] << MM_SHIFT
    const w = this.mms.w
    w[row + MM_VMA_ROOT] = this.#byAddress.remove(w[row + MM_VMA_ROOT], id)
    this.#unlinkInode(id)
    this.start[id] = start
    this.end[id] = end
    this.pgoff[id] = pgoff
    w[row + MM_VMA_ROOT] = this.#byAddress.insert(w[row + MM_VMA_ROOT], id, start, end - 1)
    this.#linkInode(id)
    w[row + MM_VMA_CACHE] = 0
  }

  /** The first vma of the inode that linearly covers a page of [first, last], or 0. */
  imapFirst(inode: number, first: number, last: number): number {
    return this.imap.first(this.imapRoot[inode], first, last)
  }

  imapAfter(inode: number, id: number, first: number, last: number): number {
    return this.imap.after(this.imapRoot[inode], id, first, last)
  }

  #linkInode(id: number): void {
    const inode = this.inode[id]
    if (inode === 0) return
    const pages = this.end[id] - this.start[id]
    this.imapRoot[inode] = this.imap.insert(this.imapRoot[inode], id, this.pgoff[id], this.pgoff[id] + pages - 1)
    this.imapCount[inode]++
  }

  #unlinkInode(id: number): void {
    const inode = this.inode[id]
    if (inode === 0) return
    this.imapRoot[inode] = this.imap.remove(this.imapRoot[inode], id)
    this.imapCount[inode]--
  }
}

function vmaTree(columns: ColumnSource, n: number): IntervalTree {
  return new IntervalTree(
    columns.float64('vmas', n),
    columns.float64('vmas', n),
    columns.float64('vmas', n),
    columns.int32('vmas', n),
    columns.int32('vmas', n)
  )
}
