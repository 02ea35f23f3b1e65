/**
 * SharedMapping: a Mapping of a memory that other threads use at the same time. The same calls; what differs is how an
 * access is made safe against a page that goes away in the middle of it. docs/locking.md proves it step by step by
 * JavaScript's memory model; in short:
 *
 *  load    entry -> value -> is T_CHANGES, a word of this thread's, what it was at the last load? Else again. Whoever
 *          takes entries away adds to that word, in every thread, before he goes on: a value that was loaded across
 *          such a moment is thrown away
 *  store   entry -> "I store to frame f" (the hazard word) -> is T_CHANGES what it was? -> value -> "I am done".
 *          Whoever takes an entry away looks at the hazard words afterwards, and waits for the threads that store to
 *          its frame
 *
 * Both words are written and read by read-modify-writes alone, the look at T_CHANGES after a load included (it adds 0):
 * of two such, by whatever threads, the earlier one happens before the later one, and so what stands before the one in
 * its thread happens before what stands after the other. A mere load there would not do: the model lets loads that
 * precede it see what others write after it.
 *
 * Pages are remembered: where the entry is and what that said, once loaded by Atomics, as it was written. So a load of
 * one of them costs one atomic operation, the first one of a page two. When T_CHANGES has grown, they are all
 * forgotten.
 *
 * The entry is found by a software TLB of this thread's: where the leaf tables of the window lie (after SGI's GRU, a
 * TLB that holds no pages). Nobody reaches into it. Instead each part is good for one value of the address space's
 * MM_TABLE_SEQ, which grows before a leaf table is given back.
 *
 * A value is made a number before the hazard word is set: what is no number runs code of its own then, or throws.
 *
 * Everything that misses takes the mmap lock and the machine lock, faults if it must, and makes the access before it
 * lets go of them.
 */
import { ENOMEM } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_UNSHARE, ACCESS_WRITE, FAULT_OK } from '../abi/fault.ts'
import { MIN_PAGE_SHIFT } from '../abi/limits.ts'
import { defineHidden } from '../base/printing.ts'
import { MM_SHIFT, MM_TABLE_SEQ } from '../frame/mm-table.ts'
import { lockEntry } from '../mm/fault.ts'
import { PTE_PRESENT, PTE_READ_HIT, PTE_WRITE, PTE_WRITE_HIT, pteFrame } from '../pgtable/pte.ts'
import { T_CHANGES, T_HAZARD, T_RETRIES } from '../sync/threads.ts'
import { byteOf, scratch } from './accessors.ts'
import { BorrowedPage } from './borrowed-page.ts'
import { orThrow } from './errors.ts'
import type { MappedFile } from './file.ts'
import { Mapping } from './mapping.ts'
import type { AddressSpace } from './space.ts'

/** Accesses that are made again without the locks, before one takes them. */
const MAX_REPEATS = 4
/** No frame, or no page. */
const NONE = -1
/**
 * Most pages that are known at once: a power of two. Of each: page and stamp together, the slot of its entry, and what
 * that was.
 */
const MAX_KNOWN = 256
const KNOWN_SHIFT = 2
const K_SLOT = 1
const K_PTE = 2
/** More than any page of an offset below 4 GiB. */
const STAMP_STEP = 2 ** (32 - MIN_PAGE_SHIFT)
const MAX_ROUNDS = 100
const STORABLE = PTE_PRESENT | PTE_WRITE

export class SharedMapping extends Mapping {
  // Hidden (base/printing), so without definitions of their own.
  /** Pages of the window; 0 once it is unmapped. */
  declare private pages: number
  declare private firstLeaf: number
  /** For each leaf table of the window: the slot of its first entry, and the MM_TABLE_SEQ for which that is true. */
  declare private bases: Int32Array
  declare private seqs: Int32Array
  declare private readonly mmWords: Int32Array
  declare private readonly seqAt: number
  /**
   * Pages of earlier accesses, each at the last bits of its number, good while it has this stamp; places for them, less
   * one.
   */
  declare private known: Int32Array
  declare private knownMask: number
  declare private stamp: number
  /** T_CHANGES when this object last looked. */
  declare private changes: number
  declare private nrRepeats: number
  declare private readonly threadWords: Int32Array
  declare private readonly hazardAt: number
  declare private readonly changesAt: number
  declare private readonly retriesAt: number
  declare private readonly wordShift: number
  declare private readonly generation: number
  /** The frame that `page` has lent last, pinned; 0 for none. */
  declare private lent: number

  /** @internal Use `space.map`. */
  constructor(space: AddressSpace, file: MappedFile | undefined, writable: boolean, vpn: number, pages: number) {
    super(space, file, writable, vpn, pages)
    const { sync, mms } = space.machine
    const none = new Int32Array(0)
    defineHidden(this, {
      pages: 0,
      firstLeaf: 0,
      bases: none,
      seqs: none,
      mmWords: mms.w,
      seqAt: (space.mm.id << MM_SHIFT) + MM_TABLE_SEQ,
      known: none,
      knownMask: 0,
      stamp: 0,
      changes: 0,
      nrRepeats: 0,
      threadWords: sync.threads.w,
      hazardAt: sync.row + T_HAZARD,
      changesAt: sync.row + T_CHANGES,
      retriesAt: sync.row + T_RETRIES,
      wordShift: this.pageShift - 2,
      generation: space.mm.generation,
      lent: 0
    })
    this.remember(vpn, pages)
  }

  override getUint8(offset: number): number {
    const pte = this.entryOf(offset)
    if (pte !== 0) {
      const value = this.u8[(pte >>> 8) * (this.pageMask + 1) + (offset & this.pageMask)]
      if (this.holds()) return value
      if (this.mayRepeat()) return this.getUint8(offset)
    }
    const value = this.u8[this.lockFrame(offset, 1, ACCESS_READ) * (this.pageMask + 1) + (offset & this.pageMask)]
    this.machine.unlockMmRead(this.mmId)
    return value
  }

  override getInt8(offset: number): number {
    return (this.getUint8(offset) << 24) >> 24
  }

  override getUint16(offset: number, littleEndian = true): number {
    if ((offset & 1) !== 0 || !littleEndian) return this.gather(offset, 2).getUint16(0, littleEndian)
    const pte = this.entryOf(offset)
    if (pte !== 0) {
      const value = this.u16[(pte >>> 8) * (1 << (this.pageShift - 1)) + ((offset & this.pageMask) >>> 1)]
      if (this.holds()) return value
      if (this.mayRepeat()) return this.getUint16(offset)
    }
    const at = this.lockFrame(offset, 2, ACCESS_READ) * (1 << (this.pageShift - 1)) + ((offset & this.pageMask) >>> 1)
    const value = this.u16[at]
    this.machine.unlockMmRead(this.mmId)
    return value
  }

  override getUint32(offset: number, littleEndian = true): number {
    if ((offset & 3) !== 0 || !littleEndian) return this.gather(offset, 4).getUint32(0, littleEndian)
    const pte = this.entryOf(offset)
    if (pte !== 0) {
      const value = this.words[((pte >>> 8) << this.wordShift) + ((offset & this.pageMask) >>> 2)]
      if (this.holds()) return value
      if (this.mayRepeat()) return this.getUint32(offset)
    }
    const at = (this.lockFrame(offset, 4, ACCESS_READ) << this.wordShift) + ((offset & this.pageMask) >>> 2)
    const value = this.words[at]
    this.machine.unlockMmRead(this.mmId)
    return value
  }

  override getInt32(offset: number, littleEndian = true): number {
    return this.getUint32(offset, littleEndian) | 0
  }

  override getFloat32(offset: number, littleEndian = true): number {
    scratch.setUint32(0, this.getUint32(offset, littleEndian))
    return scratch.getFloat32(0)
  }

  override getFloat64(offset: number, littleEndian = true): number {
    if ((offset & 7) !== 0 || !littleEndian) return this.gather(offset, 8).getFloat64(0, littleEndian)
    const pte = this.entryOf(offset)
    if (pte !== 0) {
      const value = this.f64[((pte >>> 8) << (this.wordShift - 1)) + ((offset & this.pageMask) >>> 3)]
      if (this.holds()) return value
      if (this.mayRepeat()) return this.getFloat64(offset)
    }
    const at = (this.lockFrame(offset, 8, ACCESS_READ) << (this.wordShift - 1)) + ((offset & this.pageMask) >>> 3)
    const value = this.f64[at]
    this.machine.unlockMmRead(this.mmId)
    return value
  }

  override setUint8(offset: number, value: number): void {
    const number = +value
    let frame = this.aimToStore(offset)
    const locked = frame < 0
    if (locked) frame = this.lockFrame(offset, 1, ACCESS_WRITE)
    this.u8[frame * (this.pageMask + 1) + (offset & this.pageMask)] = number
    if (locked) this.machine.unlockMmRead(this.mmId)
    else Atomics.exchange(this.threadWords, this.hazardAt, 0)
  }

  override setInt8(offset: number, value: number): void {
    this.setUint8(offset, value)
  }

  override setUint16(offset: number, value: number, littleEndian = true): void {
    if ((offset & 1) !== 0 || !littleEndian) {
      scratch.setUint16(0, value, littleEndian)
      this.scatter(offset, 2)
      return
    }
    const number = +value
    let frame = this.aimToStore(offset)
    const locked = frame < 0
    if (locked) frame = this.lockFrame(offset, 2, ACCESS_WRITE)
    this.u16[frame * (1 << (this.pageShift - 1)) + ((offset & this.pageMask) >>> 1)] = number
    if (locked) this.machine.unlockMmRead(this.mmId)
    else Atomics.exchange(this.threadWords, this.hazardAt, 0)
  }

  override setUint32(offset: number, value: number, littleEndian = true): void {
    if ((offset & 3) !== 0 || !littleEndian) {
      scratch.setUint32(0, value, littleEndian)
      this.scatter(offset, 4)
      return
    }
    const number = +value
    let frame = this.aimToStore(offset)
    const locked = frame < 0
    if (locked) frame = this.lockFrame(offset, 4, ACCESS_WRITE)
    this.words[(frame << this.wordShift) + ((offset & this.pageMask) >>> 2)] = number
    if (locked) this.machine.unlockMmRead(this.mmId)
    else Atomics.exchange(this.threadWords, this.hazardAt, 0)
  }

  override setFloat32(offset: number, value: number, littleEndian = true): void {
    scratch.setFloat32(0, value)
    this.setUint32(offset, scratch.getUint32(0), littleEndian)
  }

  override setFloat64(offset: number, value: number, littleEndian = true): void {
    if ((offset & 7) !== 0 || !littleEndian) {
      scratch.setFloat64(0, value, littleEndian)
      this.scatter(offset, 8)
      return
    }
    const number = +value
    let frame = this.aimToStore(offset)
    const locked = frame < 0
    if (locked) frame = this.lockFrame(offset, 8, ACCESS_WRITE)
    this.f64[(frame << (this.wordShift - 1)) + ((offset & this.pageMask) >>> 3)] = number
    if (locked) this.machine.unlockMmRead(this.mmId)
    else Atomics.exchange(this.threadWords, this.hazardAt, 0)
  }

  /** A page's entry, if it allows loads; 0 otherwise. Good if `holds` afterwards. */
  private entryOf(offset: number): number {
    if (offset >>> 0 !== offset) return 0
    const { known } = this
    const page = offset >>> this.pageShift
    const at = (page & this.knownMask) << KNOWN_SHIFT
    const pte = known[at + K_PTE]
    if (known[at] !== (this.stamp | page) || this.i32[known[at + K_SLOT]] !== pte) return this.learn(page)
    return pte
  }

  /** Looks up a page that is not known, or whose entry says something else. */
  private learn(page: number): number {
    if (page >= this.pages) return 0
    const vpn = this.startVpn + page
    const leaf = (vpn >>> this.leafShift) - this.firstLeaf
    if (this.seqs[leaf] !== this.mmWords[this.seqAt]) return 0
    const slot = this.bases[leaf] + (vpn & this.leafMask)
    // By Atomics, as it was written: what was put into the frame before is seen.
    const pte = Atomics.load(this.i32, slot)
    if ((pte & PTE_READ_HIT) !== PTE_READ_HIT) return 0
    const { known } = this
    const at = (page & this.knownMask) << KNOWN_SHIFT
    known[at] = this.stamp | page
    known[at + K_SLOT] = slot
    known[at + K_PTE] = pte
    return pte
  }

  /** Whether nothing was taken away since the last time: what was loaded in between is what the entry said. */
  private holds(): boolean {
    const changes = Atomics.add(this.threadWords, this.changesAt, 0)
    if (changes === this.changes) return true
    this.forget(changes)
    this.threadWords[this.retriesAt]++
    return false
  }

  /** Something has changed: no page is known any more. */
  private forget(changes: number): void {
    this.changes = changes
    this.stamp = (this.stamp + STAMP_STEP) | 0
    // The stamps begin anew: what has one of them is cleared.
    if (this.stamp === 0) this.known.fill(NONE)
  }

  /** Whether an access that did not hold is made again without the locks. */
  private mayRepeat(): boolean {
    return ++this.nrRepeats <= MAX_REPEATS
  }

  /**
   * The frame that a page's entry has, if it allows stores: the hazard word names it until the caller clears it, and
   * nobody takes the frame away meanwhile. NONE otherwise. The caller stores and clears without calling code in
   * between: a thread may be ended at any call, and a hazard that stays is waited for.
   */
  private aimToStore(offset: number): number {
    const pte = this.entryOf(offset)
    if ((pte & PTE_WRITE_HIT) !== PTE_WRITE_HIT) return NONE
    const { threadWords } = this
    const frame = pte >>> 8
    Atomics.exchange(threadWords, this.hazardAt, frame + 1)
    // Whoever has taken the entry away and did not see the hazard has added to the word before.
    if (threadWords[this.changesAt] === this.changes) return frame
    Atomics.exchange(threadWords, this.hazardAt, 0)
    return this.holds() || !this.mayRepeat() ? NONE : this.aimToStore(offset)
  }

  /** The frame for an access, with the locks held until `unlockMmRead`. Throws what Linux would send a signal for. */
  private lockFrame(offset: number, size: number, access: number): number {
    this.checkRange(offset, size)
    this.checkAlive()
    const { machine } = this
    const vpn = this.startVpn + Math.floor(offset / (this.pageMask + 1))
    let code: number
    try {
      code = lockEntry(machine, this.mmId, this.generation, vpn, access)
      if (code === FAULT_OK) return this.noteLeaf(vpn)
    } catch (thrown) {
      // Again, where there is more room: `lockEntry` may have had no stack left for it.
      code = machine.abandon(thrown)
    }
    this.fail(code, offset, access, 0)
  }

  /** Remembers where a page's leaf table is. → the page's frame. With the machine lock held. */
  private noteLeaf(vpn: number): number {
    const slot = this.machine.tables.find(this.mmId, vpn)
    const leaf = (vpn >>> this.leafShift) - this.firstLeaf
    this.bases[leaf] = slot - (vpn & this.leafMask)
    this.seqs[leaf] = this.mmWords[this.seqAt]
    const changes = Atomics.add(this.threadWords, this.changesAt, 0)
    if (changes !== this.changes) this.forget(changes)
    this.nrRepeats = 0
    return pteFrame(this.words[slot])
  }

  private remember(vpn: number, pages: number): void {
    let places = 1
    while (places < pages && places < MAX_KNOWN) places *= 2
    this.known = new Int32Array(places << KNOWN_SHIFT).fill(NONE)
    this.knownMask = places - 1
    this.stamp = 0
    this.firstLeaf = vpn >>> this.leafShift
    const nrLeaves = pages === 0 ? 0 : ((vpn + pages - 1) >>> this.leafShift) - this.firstLeaf + 1
    this.bases = new Int32Array(nrLeaves)
    this.seqs = new Int32Array(nrLeaves).fill(-1)
    this.pages = pages
  }

  protected override moveWindow(vpn: number, lengthBytes: number): void {
    this.giveBack()
    super.moveWindow(vpn, lengthBytes)
    this.remember(vpn, lengthBytes / this.pageSize)
  }

  /**
   * Across two pages: the first one's entry is looked at again once the second one's is locked, so the store is whole
   * or not at all.
   */
  protected override scatter(offset: number, size: number): void {
    const low = scratch.getInt32(0, true)
    const high = scratch.getInt32(4, true)
    this.checkRange(offset, size)
    if (this.tryScatter(offset, size, low, high)) return
    const { machine } = this
    const { line } = machine.sync
    // Another thread's page took the place of the first one: those that want frames wait until this one has had both.
    machine.giveBack(() => line.keep())
    try {
      for (let round = 0; round < MAX_ROUNDS; round++) if (this.tryScatter(offset, size, low, high)) return
    } finally {
      machine.giveBack(() => line.release())
    }
    orThrow(-ENOMEM, 'store', this.address + offset, 'two pages do not fit into memory at once')
  }

  /** False when the first page was gone again by the time that the second one was there. */
  private tryScatter(offset: number, size: number, low: number, high: number): boolean {
    const { machine, mmId } = this
    const inFirst = Math.min(size, this.pageMask + 1 - (offset & this.pageMask))
    let first = this.lockFrame(offset, 1, ACCESS_WRITE)
    let second = first
    if (inFirst < size) {
      machine.unlockMmRead(mmId)
      second = this.lockFrame(offset + inFirst, 1, ACCESS_WRITE)
      const pte = machine.tables.get(mmId, this.startVpn + Math.floor(offset / (this.pageMask + 1)))
      // An entry that is not present has other things in these bits.
      first = (pte & STORABLE) === STORABLE ? pteFrame(pte) : -1
    }
    if (first >= 0) {
      const at = first * (this.pageMask + 1) + (offset & this.pageMask)
      for (let i = 0; i < inFirst; i++) this.u8[at + i] = byteOf(low, high, i)
      for (let i = inFirst; i < size; i++) this.u8[second * (this.pageMask + 1) + i - inFirst] = byteOf(low, high, i)
    }
    machine.unlockMmRead(mmId)
    return first >= 0
  }

  /** As `Mapping.page`; the page is pinned until the next call of `page` on this mapping, or the end of it. */
  override page(index: number): Uint8Array {
    this.checkPages(index, 1)
    this.giveBack()
    const frame = this.lockFrame(index * this.pageSize, 1, ACCESS_UNSHARE)
    const { frames, ram, sync } = this.machine
    const pinned = frame === 0 || frames.pin(frame)
    if (pinned && frame !== 0) {
      this.lent = frame
      sync.threads.notePin(sync.me, frame)
    }
    this.machine.unlockMmRead(this.mmId)
    if (!pinned) orThrow(-ENOMEM, 'pin', this.address + index * this.pageSize, 'this page is borrowed too often')
    return ram.u8.subarray(frame * ram.pageSize, (frame + 1) * ram.pageSize)
  }

  override borrow(index: number, access: 'read' | 'write' = 'read'): BorrowedPage {
    this.checkPages(index, 1)
    const frame = this.lockFrame(index * this.pageSize, 1, access === 'write' ? ACCESS_WRITE : ACCESS_UNSHARE)
    try {
      return new BorrowedPage(this.machine, frame, access)
    } finally {
      this.machine.unlockMmRead(this.mmId)
    }
  }

  private giveBack(): void {
    if (this.lent === 0) return
    const { machine, lent } = this
    this.lent = 0
    machine.giveBack(() => {
      machine.sync.threads.forgetPin(machine.sync.me, lent)
      machine.frames.unpin(lent)
      machine.putFrame(lent)
    })
  }
}
