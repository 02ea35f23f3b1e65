/**
 * Page tables: a radix tree of frames for each address space, as high as its highest page needs.
 *
 * A table is one frame of 32-bit words: ptes in a leaf (level 0), frame numbers of tables above. It counts its
 * entries that are not 0 and is given back when the last one goes. A pte is named by its *slot*, the index of its
 * word in `ram.i32`; slot 0 (in the zero page) stands for "no table there".
 *
 *  find(mm, vpn)        slot, or 0
 *  ensure(mm, vpn)      slot, making tables; 0 when no frame can be had
 *  set(slot, pte)       writes, keeping the count; the table stays even if it is empty now
 *  rewrite(slot, pte)   the same for an entry that was there and stays
 *  releaseIfEmpty(slot) gives the slot's table back if nothing is in it
 *  nextLeaf(mm, vpn, end)  skips what has no tables
 *
 * A slot is good until the next call that can allocate a frame: reclaim may free the table it lies in.
 *
 * The leaf cache (software TLB) remembers where the leaf tables of recently used pages are, not what is in them.
 * Entries are read afresh at every access, so changing one needs no shootdown; only freeing a leaf does.
 *
 * Where threads share the machine, an entry that allows loads is written by Atomics, always: another thread finds it so
 * without a lock, and then sees what was put into the frame before (docs/locking.md).
 */
import { assert } from '../base/assert.ts'
import type { FrameAllocator } from '../frame/allocator.ts'
import {
  type ColumnSource,
  F_CACHE_NEXT,
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  FRAME_SHIFT,
  type FrameTable,
  PG_TABLE
} from '../frame/frame-table.ts'
import { MM_HEIGHT, MM_NR_TABLES, MM_ROOT, MM_SHIFT, MM_TABLE_SEQ, type MmTable } from '../frame/mm-table.ts'
import type { Ram } from '../frame/ram.ts'

/** Leaf tables remembered for each address space; 256 of them reach 1 GiB with 4 KiB pages. */
export const TLB_SHIFT = 8 as const
export const TLB_MASK: number = (1 << TLB_SHIFT) - 1
const MAX_LEVELS = 5
/** Tables held for windows, all together, are at most 1 / 2^this of all frames. */
const HELD_TABLES_SHIFT = 6
const VPN_BITS = 31

/**
 * A window that wants its entries found quickly. Made by `addWindow`.
 *
 * `base` is the slot of its first page when all its leaf tables lie side by side in RAM: then entry i is at `base + i`.
 * They are held for the window while it lives. It is 0 for a window that is too large for that, or when no such place
 * was free; then `bases[leaf - firstLeaf]` is the slot of a leaf's first entry, filled in by the window's owner and
 * cleared here when the leaf is given back; 0 is in the zero page, and so reads as an empty entry.
 */
export interface PageWindow {
  readonly firstLeaf: number
  readonly nrLeaves: number
  readonly bases: Int32Array
  base: number
  /** Called when the window's address space ends, or by `dropWindow`: neither base may be used any more. */
  readonly onDrop: () => void
}

export class PageTables {
  readonly ram: Ram
  readonly frames: FrameTable
  readonly allocator: FrameAllocator
  readonly mms: MmTable
  /** Entries in a table, as bits and mask. */
  readonly leafShift: number
  readonly leafMask: number
  /** Leaf cache, `(mm << TLB_SHIFT) + (leaf number & TLB_MASK)`: leaf number + 1, and the slot of its first entry. */
  readonly tlbTag: Int32Array
  readonly tlbBase: Int32Array
  /** Result of the last `nextLeaf`. */
  slot = 0
  readonly #i32: Int32Array
  readonly #isShared: boolean
  /** Tables held for windows. */
  readonly #held: Int32Array
  /** Windows to keep right, by address space. */
  readonly #windows: (PageWindow[] | undefined)[] = []
  /** Tables in hand while a path is made: new roots above the old one, and everything below the newest. */
  readonly #stock: Int32Array = new Int32Array(2 * MAX_LEVELS)

  constructor(columns: ColumnSource, ram: Ram, frames: FrameTable, allocator: FrameAllocator, mms: MmTable) {
    this.ram = ram
    this.frames = frames
    this.allocator = allocator
    this.mms = mms
    this.leafShift = ram.wordShift
    this.leafMask = (1 << ram.wordShift) - 1
    this.tlbTag = columns.int32('leaf cache', (mms.maxMms + 1) << TLB_SHIFT)
    this.tlbBase = columns.int32('leaf cache', (mms.maxMms + 1) << TLB_SHIFT)
    this.#i32 = ram.i32
    this.#isShared = allocator.isShared
    this.#held = columns.int32('leaf cache', 1)
  }

  find(mm: number, vpn: number): number {
    const leaf = vpn >>> this.leafShift
    const t = (mm << TLB_SHIFT) + (leaf & TLB_MASK)
    if (this.tlbTag[t] === leaf + 1) return this.tlbBase[t] + (vpn & this.leafMask)
    return this.#walk(mm, vpn)
  }

  /**
   * The slot if the leaf cache has its table, else 0. Without the lock: the table may be another one already, so that
   * what the slot holds is a guess.
   */
  peek(mm: number, vpn: number): number {
    const leaf = vpn >>> this.leafShift
    const t = (mm << TLB_SHIFT) + (leaf & TLB_MASK)
    return this.tlbTag[t] === leaf + 1 ? this.tlbBase[t] + (vpn & this.leafMask) : 0
  }

  /** The pte of a page, 0 where there is no table. */
  get(mm: number, vpn: number): number {
    return this.#i32[this.find(mm, vpn)]
  }

  ensure(mm: number, vpn: number): number {
    const slot = this.find(mm, vpn)
    return slot !== 0 ? slot : this.#grow(mm, vpn, 0)
  }

  set(slot: number, pte: number): void {
    const old = this.#i32[slot]
    this.rewrite(slot, pte)
    if (old === 0) {
      if (pte !== 0) this.frames.w[((slot >>> this.leafShift) << FRAME_SHIFT) + F_MAPCOUNT]++
    } else if (pte === 0) this.frames.w[((slot >>> this.leafShift) << FRAME_SHIFT) + F_MAPCOUNT]--
  }

  rewrite(slot: number, pte: number): void {
    if (this.#isShared) Atomics.store(this.#i32, slot, pte)
    else this.#i32[slot] = pte
  }

  /** Counts `added` entries that were written where there was none, in the table of `slot`, without `set`. */
  noteAdded(slot: number, added: number): void {
    this.frames.w[((slot >>> this.leafShift) << FRAME_SHIFT) + F_MAPCOUNT] += added
  }

  releaseIfEmpty(slot: number): void {
    let table = slot >>> this.leafShift
    const { frames, mms } = this
    while (frames.row(table, F_MAPCOUNT) === 0 && frames.pins(table) === 0) {
      const mm = frames.row(table, F_MAPPING)
      const parent = frames.row(table, F_RMAP_HEAD)
      if (frames.row(table, F_CACHE_NEXT) === 0) this.#forgetLeaf(mm, frames.row(table, F_INDEX) >>> this.leafShift)
      mms.w[(mm << MM_SHIFT) + MM_NR_TABLES]--
      this.allocator.free(table)
      if (parent === 0) {
        mms.w[(mm << MM_SHIFT) + MM_ROOT] = 0
        mms.w[(mm << MM_SHIFT) + MM_HEIGHT] = 0
        return
      }
      this.#i32[parent] = 0
      table = parent >>> this.leafShift
      frames.w[(table << FRAME_SHIFT) + F_MAPCOUNT]--
    }
  }

  /** The first page in [vpn, end) that has a leaf table, its slot in `this.slot`; `end` when there is none. */
  nextLeaf(mm: number, vpn: number, end: number): number {
    const height = this.mms.row(mm, MM_HEIGHT)
    const root = this.mms.row(mm, MM_ROOT)
    if (height === 0) return end
    const bits = this.leafShift
    let at = vpn
    while (at < end && !this.#beyond(height, at)) {
      let table = root
      let level = height - 1
      while (level > 0) {
        const child = this.#i32[(table << bits) + ((at >>> (level * bits)) & this.leafMask)]
        if (child === 0) break
        table = child
        level--
      }
      if (level === 0) {
        this.slot = (table << bits) + (at & this.leafMask)
        return at
      }
      const shift = level * bits
      at = ((at >>> shift) + 1) * 2 ** shift
    }
    return end
  }

  /** Registers a window of pages [vpn, vpn + pages). */
  addWindow(mm: number, vpn: number, pages: number, onDrop: () => void): PageWindow {
    const firstLeaf = vpn >>> this.leafShift
    const nrLeaves = ((vpn + pages - 1) >>> this.leafShift) - firstLeaf + 1
    const leafBase = this.#placeLeaves(mm, firstLeaf, nrLeaves)
    const base = leafBase === 0 ? 0 : leafBase + (vpn & this.leafMask)
    const bases = new Int32Array(base === 0 ? nrLeaves : 0)
    const window = { firstLeaf, nrLeaves, bases, base, onDrop }
    const windows = this.#windows[mm]
    if (windows === undefined) this.#windows[mm] = [window]
    else windows.push(window)
    return window
  }

  /** Forgets a window, and gives back tables that were held for it. */
  dropWindow(mm: number, window: PageWindow): void {
    const windows = this.#windows[mm]
    const at = windows === undefined ? -1 : windows.indexOf(window)
    if (windows === undefined || at < 0) return
    windows.splice(at, 1)
    this.#release(window)
  }

  /** Forgets all windows of an address space that ends. */
  dropWindows(mm: number): void {
    const windows = this.#windows[mm]
    this.#windows[mm] = undefined
    for (const window of windows ?? []) this.#release(window)
  }

  #release(window: PageWindow): void {
    window.onDrop()
    if (window.base === 0) return
    const first = window.base >>> this.leafShift
    window.base = 0
    this.#held[0] -= window.nrLeaves
    for (let table = first; table < first + window.nrLeaves; table++) {
      this.frames.unpin(table)
      this.releaseIfEmpty(table << this.leafShift)
    }
  }

  /** Leaf tables for all of a window, side by side and pinned. → slot of the first entry of the first, or 0. */
  #placeLeaves(mm: number, firstLeaf: number, nrLeaves: number): number {
    // Held tables are there used or not; beyond a small part of memory, tables come and go as they are needed.
    if (this.#held[0] + nrLeaves > this.ram.nrFrames >>> HELD_TABLES_SHIFT) return 0
    const firstVpn = firstLeaf * (this.leafMask + 1)
    if (nrLeaves === 1) {
      const slot = this.ensure(mm, firstVpn)
      if (slot === 0) return 0
      if (this.frames.pin(slot >>> this.leafShift)) {
        this.#held[0]++
        return slot
      }
      this.releaseIfEmpty(slot)
      return 0
    }
    for (let leaf = 0; leaf < nrLeaves; leaf++) if (this.find(mm, firstVpn + leaf * (this.leafMask + 1)) !== 0) return 0
    const run = this.allocator.allocRun(nrLeaves)
    if (run === 0) return 0
    for (let leaf = 0; leaf < nrLeaves; leaf++) {
      if (this.#grow(mm, firstVpn + leaf * (this.leafMask + 1), run + leaf) !== 0) {
        this.frames.pin(run + leaf)
        continue
      }
      for (let i = leaf; i < nrLeaves; i++) this.allocator.free(run + i)
      for (let i = 0; i < leaf; i++) {
        this.frames.unpin(run + i)
        this.releaseIfEmpty((run + i) << this.leafShift)
      }
      return 0
    }
    this.#held[0] += nrLeaves
    return run << this.leafShift
  }

  /** The first page after the leaf table that `vpn` is in, or `end`. */
  leafEnd(vpn: number, end: number): number {
    const next = (vpn | this.leafMask) + 1
    return next < end ? next : end
  }

  #walk(mm: number, vpn: number): number {
    const at = mm << MM_SHIFT
    const height = this.mms.w[at + MM_HEIGHT]
    if (height === 0 || this.#beyond(height, vpn)) return 0
    const bits = this.leafShift
    let table = this.mms.w[at + MM_ROOT]
    for (let level = height - 1; level > 0; level--) {
      table = this.#i32[(table << bits) + ((vpn >>> (level * bits)) & this.leafMask)]
      if (table === 0) return 0
    }
    const leaf = vpn >>> bits
    const t = (mm << TLB_SHIFT) + (leaf & TLB_MASK)
    this.tlbTag[t] = leaf + 1
    this.tlbBase[t] = table << bits
    return (table << bits) + (vpn & this.leafMask)
  }

  /** True when a tree of that height has no place for the page. */
  #beyond(height: number, vpn: number): boolean {
    const bits = height * this.leafShift
    return bits < VPN_BITS && vpn >>> bits !== 0
  }

  /** Tables that `ensure` would have to make. */
  #missing(mm: number, vpn: number): number {
    let height = this.mms.row(mm, MM_HEIGHT)
    let extra = 0
    if (height === 0) {
      height = 1
      while (this.#beyond(height, vpn)) height++
      return height
    }
    const rootHeight = height
    while (this.#beyond(height, vpn)) {
      height++
      extra++
    }
    // Above the old root the path to a page beyond it shares only the new root.
    if (extra > 0) return extra + height - 1
    let table = this.mms.row(mm, MM_ROOT)
    for (let level = rootHeight - 1; level > 0; level--) {
      table = this.#i32[(table << this.leafShift) + ((vpn >>> (level * this.leafShift)) & this.leafMask)]
      if (table === 0) return level
    }
    return 0
  }

  /** Makes the tables on the way to a page; `leaf` is the zeroed frame to use for the last one, 0 for any. */
  #grow(mm: number, vpn: number, leaf: number): number {
    // All frames first: an allocation may reclaim, and that may free tables on the way to this page. The leaf is linked
    // last, and so lies at the bottom.
    let stocked = 0
    if (leaf !== 0) this.#stock[stocked++] = leaf
    while (stocked < this.#missing(mm, vpn)) {
      const frame = this.allocator.allocZeroed()
      if (frame === 0) {
        while (stocked > (leaf === 0 ? 0 : 1)) this.allocator.free(this.#stock[--stocked])
        return 0
      }
      this.#stock[stocked++] = frame
    }
    const row = mm << MM_SHIFT
    const w = this.mms.w
    const bits = this.leafShift
    if (w[row + MM_HEIGHT] === 0) {
      let height = 1
      while (this.#beyond(height, vpn)) height++
      w[row + MM_ROOT] = this.#newTable(this.#stock[--stocked], mm, 0, height - 1, 0)
      w[row + MM_HEIGHT] = height
    }
    while (this.#beyond(w[row + MM_HEIGHT], vpn)) {
      const old = w[row + MM_ROOT]
      const root = this.#newTable(this.#stock[--stocked], mm, 0, w[row + MM_HEIGHT], 0)
      this.#i32[root << bits] = old
      this.frames.w[(root << FRAME_SHIFT) + F_MAPCOUNT] = 1
      this.frames.w[(old << FRAME_SHIFT) + F_RMAP_HEAD] = root << bits
      w[row + MM_ROOT] = root
      w[row + MM_HEIGHT]++
    }
    let table = w[row + MM_ROOT]
    for (let level = w[row + MM_HEIGHT] - 1; level > 0; level--) {
      const slot = (table << bits) + ((vpn >>> (level * bits)) & this.leafMask)
      let child = this.#i32[slot]
      if (child === 0) {
        const span = 2 ** (level * bits)
        child = this.#newTable(this.#stock[--stocked], mm, Math.floor(vpn / span) * span, level - 1, slot)
        this.#i32[slot] = child
        this.frames.w[(table << FRAME_SHIFT) + F_MAPCOUNT]++
      }
      table = child
    }
    while (stocked > 0) this.allocator.free(this.#stock[--stocked])
    const slot = this.#walk(mm, vpn)
    assert(slot !== 0, 'a page table was made but is not found')
    return slot
  }

  #newTable(frame: number, mm: number, firstVpn: number, level: number, parentSlot: number): number {
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    w[row + F_FLAGS] = PG_TABLE
    w[row + F_MAPPING] = mm
    w[row + F_INDEX] = firstVpn
    w[row + F_CACHE_NEXT] = level
    w[row + F_RMAP_HEAD] = parentSlot
    w[row + F_MAPCOUNT] = 0
    this.mms.w[(mm << MM_SHIFT) + MM_NR_TABLES]++
    return frame
  }

  #forgetLeaf(mm: number, leaf: number): void {
    const t = (mm << TLB_SHIFT) + (leaf & TLB_MASK)
    if (this.tlbTag[t] === leaf + 1) this.tlbTag[t] = 0
    // Other threads look at this before they use what they remember of tables; the frame is given back after it.
    this.mms.w[(mm << MM_SHIFT) + MM_TABLE_SEQ]++
    const windows = this.#windows[mm]
    if (windows === undefined) return
    for (const window of windows) {
      if (window.base !== 0) continue
      const i = leaf - window.firstLeaf
      if (i >= 0 && i < window.bases.length) window.bases[i] = 0
    }
  }
}
