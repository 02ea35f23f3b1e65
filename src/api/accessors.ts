/**
 * The hot path: loads and stores at any byte offset of a window.
 *
 * An access finds the page's entry in the window's page tables and, if it allows the access, indexes RAM with its
 * frame: two look-ups and a mask, whatever the entry's history. Everything else (first touch, remapped, evicted,
 * unaligned, across pages, forbidden) goes through `slowFrame`, which faults and may throw.
 *
 * A value is made a number before the page is looked up: what is no number runs code of its own then, which may have
 * the page evicted.
 *
 * One shape, no allocation, no closure, no BigInt, no promise per access (BigInt accessors aside, which make their
 * result); test/api/allocation.test.ts holds it to that.
 *
 * Byte order is little-endian unless `littleEndian` is false: mapped files hold machine data. (DataView's default is
 * the other one; pass the flag and the two are alike.)
 */
import { ACCESS_READ, ACCESS_WRITE, FAULT_OOM } from '../abi/fault.ts'
import { defineHidden } from '../base/printing.ts'
import type { Ram } from '../frame/ram.ts'
import { translate } from '../mm/access.ts'
import type { Machine } from '../mm/machine.ts'
import type { PageWindow } from '../pgtable/page-tables.ts'
import { PTE_READ_HIT, PTE_WRITE_HIT, PTE_YOUNG } from '../pgtable/pte.ts'
import { checkAttached } from './belongs.ts'

/** What windows of a machine with more threads have: they remember tables themselves (shared-mapping). */
const NO_WINDOW: PageWindow = { firstLeaf: 0, nrLeaves: 0, bases: new Int32Array(0), base: 0, onDrop: () => {} }

/**
 * Assembles values that lie across two pages. Not kept over a fault: a store that is called may use it, by other
 * memories.
 */
export const scratch: DataView = new DataView(new ArrayBuffer(8))

export abstract class Accessors {
  // Hidden (base/printing), so without definitions of their own.
  /** @internal */
  declare readonly machine: Machine
  /** @internal Row of the address space. */
  declare readonly mmId: number
  /** First virtual page of the window. */
  declare protected startVpn: number
  /** Bytes in the window; 0 once it is unmapped. */
  declare protected lengthBytes: number
  /** The same in pages: always a small integer, which keeps the hot path in integer arithmetic for any window. */
  declare private nrPages: number
  declare protected readonly ram: Ram
  /** RAM by words: page tables and data. */
  declare protected readonly words: Uint32Array
  declare private window: PageWindow
  /** Slot of the first page's entry, and for how many pages it holds: none when the window's tables lie scattered. */
  declare private base: number
  declare private heldPages: number
  declare protected readonly leafShift: number
  declare protected readonly leafMask: number
  declare protected readonly pageShift: number
  declare protected readonly pageMask: number
  declare protected readonly u8: Uint8Array
  declare protected readonly u16: Uint16Array
  declare protected readonly i32: Int32Array
  declare protected readonly f32: Float32Array
  declare protected readonly f64: Float64Array

  constructor(machine: Machine, mmId: number, startVpn: number, lengthBytes: number) {
    const { ram, tables } = machine
    const nrPages = lengthBytes / ram.pageSize
    const window = machine.sync.isShared ? NO_WINDOW : tables.addWindow(mmId, startVpn, nrPages, () => this.dropBase())
    // Within the object itself, an engine has room for some properties; the rest is one step further away. So those of
    // a hit come first.
    defineHidden(this, {
      words: ram.u32,
      base: window.base,
      heldPages: window.base === 0 ? 0 : nrPages,
      pageShift: ram.pageShift,
      pageMask: ram.pageSize - 1,
      u8: ram.u8,
      u16: ram.u16,
      i32: ram.i32,
      f32: ram.f32,
      f64: ram.f64,
      machine,
      mmId,
      startVpn,
      lengthBytes,
      nrPages,
      ram,
      window,
      leafShift: tables.leafShift,
      leafMask: tables.leafMask
    })
    machine.reaches.add(this)
  }

  /** @internal This thread has detached: the window is no more, for it. */
  leave(): void {
    this.moveWindow(0, 0)
  }

  /** Throws when the address space has ended. */
  protected abstract checkAlive(): void

  /** Throws the error for a fault code at an offset of the window. */
  protected abstract fail(fault: number, offset: number, access: number, bytesDone: number): never

  /** The byte at `offset`. */
  getUint8(offset: number): number {
    return this.u8[this.byteFor(offset, 1, PTE_READ_HIT)]
  }

  getInt8(offset: number): number {
    return (this.u8[this.byteFor(offset, 1, PTE_READ_HIT)] << 24) >> 24
  }

  getUint16(offset: number, littleEndian = true): number {
    if ((offset & 1) !== 0 || !littleEndian) return this.gather(offset, 2).getUint16(0, littleEndian)
    const page = this.frameFor(offset, 2, PTE_READ_HIT)
    return this.u16[page * (1 << (this.pageShift - 1)) + ((offset & this.pageMask) >>> 1)]
  }

  getInt16(offset: number, littleEndian = true): number {
    return (this.getUint16(offset, littleEndian) << 16) >> 16
  }

  getUint32(offset: number, littleEndian = true): number {
    if ((offset & 3) !== 0 || !littleEndian) return this.gather(offset, 4).getUint32(0, littleEndian)
    const page = this.frameFor(offset, 4, PTE_READ_HIT)
    return this.words[(page << (this.pageShift - 2)) + ((offset & this.pageMask) >>> 2)]
  }

  getInt32(offset: number, littleEndian = true): number {
    if ((offset & 3) !== 0 || !littleEndian) return this.gather(offset, 4).getInt32(0, littleEndian)
    const page = this.frameFor(offset, 4, PTE_READ_HIT)
    return this.i32[(page << (this.pageShift - 2)) + ((offset & this.pageMask) >>> 2)]
  }

  getFloat32(offset: number, littleEndian = true): number {
    if ((offset & 3) !== 0 || !littleEndian) return this.gather(offset, 4).getFloat32(0, littleEndian)
    const page = this.frameFor(offset, 4, PTE_READ_HIT)
    return this.f32[(page << (this.pageShift - 2)) + ((offset & this.pageMask) >>> 2)]
  }

  getFloat64(offset: number, littleEndian = true): number {
    if ((offset & 7) !== 0 || !littleEndian) return this.gather(offset, 8).getFloat64(0, littleEndian)
    const page = this.frameFor(offset, 8, PTE_READ_HIT)
    return this.f64[(page << (this.pageShift - 3)) + ((offset & this.pageMask) >>> 3)]
  }

  getBigUint64(offset: number, littleEndian = true): bigint {
    return this.gather(offset, 8).getBigUint64(0, littleEndian)
  }

  getBigInt64(offset: number, littleEndian = true): bigint {
    return this.gather(offset, 8).getBigInt64(0, littleEndian)
  }

  setUint8(offset: number, value: number): void {
    const number = +value
    this.u8[this.byteFor(offset, 1, PTE_WRITE_HIT)] = number
  }

  setInt8(offset: number, value: number): void {
    const number = +value
    this.u8[this.byteFor(offset, 1, PTE_WRITE_HIT)] = number
  }

  setUint16(offset: number, value: number, littleEndian = true): void {
    if ((offset & 1) !== 0 || !littleEndian) {
      scratch.setUint16(0, value, littleEndian)
      this.scatter(offset, 2)
      return
    }
    const number = +value
    const page = this.frameFor(offset, 2, PTE_WRITE_HIT)
    this.u16[page * (1 << (this.pageShift - 1)) + ((offset & this.pageMask) >>> 1)] = number
  }

  setInt16(offset: number, value: number, littleEndian = true): void {
    this.setUint16(offset, value, littleEndian)
  }

  setUint32(offset: number, value: number, littleEndian = true): void {
    if ((offset & 3) !== 0 || !littleEndian) {
      scratch.setUint32(0, value, littleEndian)
      this.scatter(offset, 4)
      return
    }
    const number = +value
    const page = this.frameFor(offset, 4, PTE_WRITE_HIT)
    this.words[(page << (this.pageShift - 2)) + ((offset & this.pageMask) >>> 2)] = number
  }

  setInt32(offset: number, value: number, littleEndian = true): void {
    this.setUint32(offset, value, littleEndian)
  }

  setFloat32(offset: number, value: number, littleEndian = true): void {
    if ((offset & 3) !== 0 || !littleEndian) {
      scratch.setFloat32(0, value, littleEndian)
      this.scatter(offset, 4)
      return
    }
    const number = +value
    const page = this.frameFor(offset, 4, PTE_WRITE_HIT)
    this.f32[(page << (this.pageShift - 2)) + ((offset & this.pageMask) >>> 2)] = number
  }

  setFloat64(offset: number, value: number, littleEndian = true): void {
    if ((offset & 7) !== 0 || !littleEndian) {
      scratch.setFloat64(0, value, littleEndian)
      this.scatter(offset, 8)
      return
    }
    const number = +value
    const page = this.frameFor(offset, 8, PTE_WRITE_HIT)
    this.f64[(page << (this.pageShift - 3)) + ((offset & this.pageMask) >>> 3)] = number
  }

  setBigUint64(offset: number, value: bigint, littleEndian = true): void {
    scratch.setBigUint64(0, value, littleEndian)
    this.scatter(offset, 8)
  }

  setBigInt64(offset: number, value: bigint, littleEndian = true): void {
    scratch.setBigInt64(0, value, littleEndian)
    this.scatter(offset, 8)
  }

  /**
   * The frame behind the page of an offset, for an access of `size` bytes (aligned, so within the page). `need` is what
   * the entry must have. Inlined into every accessor.
   */
  private frameFor(offset: number, size: number, need: number): number {
    // `>>> 0` tells integers below 2^32 from everything else: fractions, NaN, negatives, large windows. The window ends
    // with a page, and the access is aligned, so its first byte decides.
    const page = offset >>> this.pageShift
    if (offset >>> 0 === offset && page < this.heldPages) {
      const pte = this.words[this.base + page]
      if ((pte & need) === need) return pte >>> 8
    }
    return this.slowFrame(offset, size, need)
  }

  /** The index in RAM of the byte at an offset. */
  private byteFor(offset: number, size: number, need: number): number {
    return this.frameFor(offset, size, need) * (this.pageMask + 1) + (offset & this.pageMask)
  }

  /**
   * `frameFor` for a window whose tables lie scattered, and for the second use of a page, which makes its entry YOUNG.
   * Everything else goes on to `faultFrame`.
   */
  private slowFrame(offset: number, size: number, need: number): number {
    const index = offset >>> this.pageShift
    if (offset >>> 0 === offset && index < this.nrPages) {
      const slot = index < this.heldPages ? this.base + index : this.scatteredSlot(index)
      const pte = this.words[slot]
      if ((pte & need) === need) return pte >>> 8
      const allowed = need & ~PTE_YOUNG
      if ((pte & allowed) === allowed) {
        this.words[slot] = pte | PTE_YOUNG
        return pte >>> 8
      }
    }
    return this.faultFrame(offset, size, need)
  }

  /**
   * The slot of a page, by leaf. Without a leaf table its base is 0: an entry of the zero page, which allows nothing.
   */
  private scatteredSlot(index: number): number {
    const vpn = this.startVpn + index
    return this.window.bases[(vpn >>> this.leafShift) - this.window.firstLeaf] + (vpn & this.leafMask)
  }

  /** Makes the access possible, or throws what Linux would send a signal for. */
  private faultFrame(offset: number, size: number, need: number): number {
    this.checkRange(offset, size)
    this.checkAlive()
    const vpn = this.startVpn + Math.floor(offset / (this.pageMask + 1))
    const access = need === PTE_WRITE_HIT ? ACCESS_WRITE : ACCESS_READ
    const frame = translate(this.machine, this.mmId, vpn, access)
    if (frame < 0) this.fail(-frame, offset, access, 0)
    if (this.heldPages === 0) {
      const leaf = (vpn >>> this.leafShift) - this.window.firstLeaf
      this.window.bases[leaf] = this.machine.tables.find(this.mmId, vpn) - (vpn & this.leafMask)
    }
    return frame
  }

  /** The window's tables are held no more. */
  private dropBase(): void {
    this.base = 0
    this.heldPages = 0
    this.nrPages = 0
  }

  /** The window is now at `vpn` with so many bytes; 0 when it is no more. */
  protected moveWindow(vpn: number, lengthBytes: number): void {
    const { tables } = this.machine
    if (this.window !== NO_WINDOW) tables.dropWindow(this.mmId, this.window)
    this.startVpn = vpn
    this.lengthBytes = lengthBytes
    this.nrPages = lengthBytes / this.pageSize
    if (lengthBytes === 0 || this.window === NO_WINDOW) return
    this.window = tables.addWindow(this.mmId, vpn, this.nrPages, () => this.dropBase())
    this.base = this.window.base
    this.heldPages = this.base === 0 ? 0 : this.nrPages
  }

  /** Throws unless [offset, offset + size) is a range of the window. */
  protected checkRange(offset: number, size: number): void {
    if (!isCount(offset) || !isCount(size) || offset > this.lengthBytes - size) {
      checkAttached(this.machine, 'access')
      const window = this.lengthBytes === 0 ? 'it is not mapped any more' : `it has ${this.lengthBytes} bytes`
      const bytes =
        isCount(offset) && isCount(size) ? `bytes ${offset} to ${offset + size} are` : 'what was asked for is'
      throw new RangeError(`${bytes} not all in this mapping: ${window}`)
    }
  }

  /** Up to 8 bytes from any offset, in the scratch view. */
  protected gather(offset: number, size: number): DataView {
    this.checkRange(offset, size)
    let low = 0
    let high = 0
    for (let i = 0; i < size; i++) {
      const byte = this.getUint8(offset + i) << ((i & 3) << 3)
      if (i < 4) low |= byte
      else high |= byte
    }
    scratch.setInt32(0, low, true)
    scratch.setInt32(4, high, true)
    return scratch
  }

  /** The scratch view's first bytes to any offset. A store across two pages happens whole or not at all. */
  protected scatter(offset: number, size: number): void {
    const low = scratch.getInt32(0, true)
    const high = scratch.getInt32(4, true)
    this.checkRange(offset, size)
    const inFirst = Math.min(size, this.pageMask + 1 - (offset & this.pageMask))
    const first = this.byteFor(offset, 1, PTE_WRITE_HIT)
    if (inFirst < size) {
      // The second page's fault may evict the first one; pinned, it stays where it is.
      const { cache, frames } = this.machine
      const frame = Math.floor(first / (this.pageMask + 1))
      if (!frames.pin(frame)) this.fail(FAULT_OOM, offset, ACCESS_WRITE, 0)
      try {
        const second = this.byteFor(offset + inFirst, 1, PTE_WRITE_HIT)
        for (let i = inFirst; i < size; i++) this.u8[second + i - inFirst] = byteOf(low, high, i)
        // It may have been written back meanwhile, and has to count as dirty again.
        cache.setDirty(frame)
      } finally {
        frames.unpin(frame)
      }
    }
    for (let i = 0; i < inFirst; i++) this.u8[first + i] = byteOf(low, high, i)
  }

  /** Bytes in a page. */
  get pageSize(): number {
    return this.ram.pageSize
  }
}

function isCount(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}

/** Byte `i` of 8, the lowest 8 bits of the result. */
export function byteOf(low: number, high: number, i: number): number {
  return (i < 4 ? low : high) >>> ((i & 3) << 3)
}
