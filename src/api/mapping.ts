/**
 * Mapping: a window over a file, or over memory of its own.
 *
 * Reads and writes like a DataView at any byte offset; `remap` changes which file pages it shows; offsets and lengths
 * are bytes, pages are whole numbers from 0. Made by `space.map`.
 *
 * Views of pages are borrowed: `page(i)` is good until the next call on the same Memory that is not an accessor hit
 * (any of them may fault, and a fault may evict). `borrow(i)` pins the page until it is disposed of.
 */

import { EAGAIN, ENOMEM } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_UNSHARE, ACCESS_WRITE, FAULT_BUS, FAULT_OK } from '../abi/fault.ts'
import {
  MADV_COLD,
  MADV_DOFORK,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_KEEPONFORK,
  MADV_NORMAL,
  MADV_PAGEOUT,
  MADV_RANDOM,
  MADV_REMOVE,
  MADV_SEQUENTIAL,
  MADV_WILLNEED,
  MADV_WIPEONFORK,
  MAP_NONBLOCK,
  MAP_PAGE_PROT,
  MREMAP_MAYMOVE,
  MS_SYNC,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE
} from '../abi/mman.ts'
import { checkReachable, nrPageNumbers, plainBytes } from '../base/bytes.ts'
import { defineHidden, inspectedAs, summary } from '../base/printing.ts'
import { F_FLAGS, F_INDEX, PG_ANON } from '../frame/frame-table.ts'
import { copyFromUser, copyToUser, fillUser, translate } from '../mm/access.ts'
import { lockEntry } from '../mm/fault.ts'
import { PopulateCursor, populateStep } from '../mm/populate.ts'
import { PTE_PRESENT, pteFile, pteFrame, pteToPgoff } from '../pgtable/pte.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../syscall/fremap.ts'
import { sys_madvise, sys_mincore, sys_mprotect, sys_mremap, sys_msync, sys_munmap } from '../syscall/memory.ts'
import { sys_mlock, sys_munlock } from '../syscall/mlock.ts'
import { Accessors } from './accessors.ts'
import { checkAttached, checkSpace } from './belongs.ts'
import { BorrowedPage } from './borrowed-page.ts'
import { causeOf, thrownBy } from './causes.ts'
import { faultError, mapCountHint, orThrow, parkedError, systemError } from './errors.ts'
import type { MappedFile } from './file.ts'
import type { MappingHandle } from './handles.ts'
import { type LongOptions, LongWork } from './long-work.ts'
import { makeReady, readLater, unparked } from './ready.ts'
import { bytesIn } from './size.ts'
import type { AddressSpace } from './space.ts'

/** 'none', 'read' or 'write' (which includes reading). */
export type Protection = 'none' | 'read' | 'write'

export type Advice =
  | 'normal'
  | 'random'
  | 'sequential'
  | 'willneed'
  | 'dontneed'
  | 'free'
  | 'remove'
  | 'dontfork'
  | 'dofork'
  | 'wipeonfork'
  | 'keeponfork'
  | 'cold'
  | 'pageout'

const ADVICE: Readonly<Record<Advice, number>> = {
  normal: MADV_NORMAL,
  random: MADV_RANDOM,
  sequential: MADV_SEQUENTIAL,
  willneed: MADV_WILLNEED,
  dontneed: MADV_DONTNEED,
  free: MADV_FREE,
  remove: MADV_REMOVE,
  dontfork: MADV_DONTFORK,
  dofork: MADV_DOFORK,
  wipeonfork: MADV_WIPEONFORK,
  keeponfork: MADV_KEEPONFORK,
  cold: MADV_COLD,
  pageout: MADV_PAGEOUT
}

export interface RemapOptions {
  /** Window page where the change begins. */
  readonly at: number
  /** File page that it shows then. */
  readonly page: number
  /** Pages, in ascending order from there. Default 1. */
  readonly count?: number
  /** A protection for these pages alone. Default: the mapping's. */
  readonly protection?: Protection
  /** Bring the pages in now. Default false: when they are touched. */
  readonly populate?: boolean
}

/** Part of a window, in bytes, or like '8KiB'. Default: all of it. */
export interface Range {
  readonly offset?: number | string
  readonly length?: number | string
}

const bulk = { fault: FAULT_OK as number }

export class Mapping extends Accessors {
  static {
    inspectedAs(Mapping, map => {
      const { address, length, writable, isMapped } = map
      const state = isMapped ? `at 0x${address.toString(16)}` : 'unmapped'
      return summary('Mapping', { file: map.file?.name, length, writable }, state)
    })
  }

  readonly space: AddressSpace
  readonly file: MappedFile | undefined
  readonly writable: boolean
  /** @internal The inode that the window shows, and its row's number: 0 and 0 for memory of its own. */
  declare readonly inode: number
  declare readonly inodeSeq: number

  /** @internal Use `space.map`. */
  constructor(space: AddressSpace, file: MappedFile | undefined, writable: boolean, vpn: number, pages: number) {
    super(space.machine, space.mm.id, vpn, pages * space.machine.ram.pageSize)
    this.space = space
    this.file = file
    this.writable = writable
    const { vmas, inodes } = space.machine
    const inode = space.machine.quietly(() => {
      const vma = vmas.find(space.mm.id, vpn)
      return vmas.start[vma] < vpn + pages ? vmas.inode[vma] : 0
    })
    defineHidden(this, { inode, inodeSeq: inode === 0 ? 0 : inodes.seq[inode] })
  }

  /** The window's size in bytes, 0 once it is unmapped. */
  get length(): number {
    return this.lengthBytes
  }

  /** The window's size in pages. */
  get pageCount(): number {
    return this.lengthBytes / this.pageSize
  }

  /** The virtual address of offset 0, for the system-call layer. */
  get address(): number {
    return this.startVpn * this.pageSize
  }

  /** What another thread adopts this mapping by (`memory.adopt`): structured-cloneable. */
  get handle(): MappingHandle {
    return {
      kind: 'mapping',
      space: this.space.handle,
      file: this.file?.handle,
      inode: this.inode,
      inodeSeq: this.inodeSeq,
      writable: this.writable,
      vpn: this.startVpn,
      pages: this.pageCount
    }
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    const { file, address, length, writable, isMapped } = this
    return { kind: 'mapping', file: file?.name ?? null, address, length, writable, isMapped }
  }

  get isMapped(): boolean {
    return this.lengthBytes > 0
  }

  /**
   * Makes window pages [at, at + count) show file pages from `page`. Costs page-table entries only: no copy, no I/O.
   * Pages beyond the end of the file may be named; touching them then is SIGBUS.
   * Throws EINVAL (private mapping, file page beyond 2^28 - 2), EACCES (protection), ENOMEM.
   */
  remap(options: RemapOptions): void {
    const { at, page, count = 1, protection, populate = false } = options
    this.checkPages(at, count)
    const { pageSize } = this
    const flags = (populate ? 0 : MAP_NONBLOCK) | (protection === undefined ? 0 : MAP_PAGE_PROT)
    const prot = protection === undefined ? 0 : protOf(protection)
    const start = (this.startVpn + at) * pageSize
    this.orThrow(
      sys_remap_file_pages(this.space.mm, start, count * pageSize, prot, page, flags),
      'remap_file_pages',
      start
    )
  }

  /**
   * Makes window page `at + i` show file page `pages[i]`, for each i, in one call. Nothing changes if any page is out
   * of range. Throws as `remap`.
   */
  remapPages(at: number, pages: Int32Array, options: { protection?: Protection; populate?: boolean } = {}): void {
    const { protection, populate = false } = options
    const nrPages = nrPageNumbers(pages)
    if (nrPages < 0) throw new TypeError('remapPages takes an Int32Array; make one with Int32Array.from(pages)')
    this.checkPages(at, nrPages)
    const flags = (populate ? 0 : MAP_NONBLOCK) | (protection === undefined ? 0 : MAP_PAGE_PROT)
    const prot = protection === undefined ? 0 : protOf(protection)
    const start = (this.startVpn + at) * this.pageSize
    this.orThrow(sys_remap_file_pages_vec(this.space.mm, start, pages, prot, flags), 'remap_file_pages', start)
  }

  /** The file page that a window page shows, or -1 for a page of the window's own memory (a private copy). */
  filePage(page: number): number {
    this.checkPages(page, 1)
    this.checkAlive()
    return this.machine.quietly(() => (this.lookAt(page) ? shown.filePage : -1))
  }

  /**
   * Whether a page of the window shows a file, with which inode and page of it (-1 for a private copy) in `shown`.
   * Within a verb.
   */
  private lookAt(page: number): boolean {
    const { machine, mmId } = this
    if (!this.space.isAlive) return false
    const vpn = this.startVpn + page
    const vma = machine.vmas.at(mmId, vpn)
    shown.inode = machine.vmas.inode[vma]
    if (vma === 0 || shown.inode === 0) return false
    const pte = machine.tables.get(mmId, vpn)
    if ((pte & PTE_PRESENT) !== 0) {
      const frame = pteFrame(pte)
      shown.filePage = (machine.frames.row(frame, F_FLAGS) & PG_ANON) !== 0 ? -1 : machine.frames.row(frame, F_INDEX)
    } else shown.filePage = pteFile(pte) ? pteToPgoff(pte) : pte === 0 ? machine.vmas.linearIndex(vma, vpn) : -1
    return true
  }

  /**
   * Copies `target.length` bytes from `offset` on into `target`. Throws FaultError, with `bytesDone`; TypeError for
   * what is no array of bytes.
   */
  read(target: Uint8Array, offset: number): void {
    const bytes = plainBytes(target)
    const { length } = bytes
    this.checkRange(offset, length)
    this.checkAlive()
    const { machine, mmId, space, address } = this
    const done = copyFromUser(machine, mmId, space.mm.generation, address + offset, bytes, 0, length, bulk)
    checkReachable(bytes, length)
    if (done < length) this.fail(bulk.fault, offset + done, ACCESS_READ, done)
  }

  /** Copies all of `source` to `offset`. Throws FaultError, with `bytesDone`: what lies before it is stored. */
  write(source: Uint8Array, offset: number): void {
    const bytes = plainBytes(source)
    const { length } = bytes
    this.checkRange(offset, length)
    this.checkAlive()
    const { machine, mmId, space, address } = this
    const done = copyToUser(machine, mmId, space.mm.generation, address + offset, bytes, 0, length, bulk)
    checkReachable(bytes, length)
    if (done < length) this.fail(bulk.fault, offset + done, ACCESS_WRITE, done)
  }

  /** Stores `value` (0-255) to every byte of [offset, offset + length). */
  fill(value: number, offset = 0, length: number = this.lengthBytes - offset): void {
    // A number before anything is looked at: what is none runs code of its own, which may unmap the window.
    const byte = +value
    this.checkRange(offset, length)
    this.checkAlive()
    const { machine, mmId, space, address } = this
    const done = fillUser(machine, mmId, space.mm.generation, address + offset, byte, length, bulk)
    if (done < length) this.fail(bulk.fault, offset + done, ACCESS_WRITE, done)
  }

  /** Copies bytes within the window, as if through a buffer in between: ranges may overlap. */
  copyWithin(target: number, source: number, length: number): void {
    this.checkRange(source, length)
    this.checkRange(target, length)
    const step = Math.min(length, 1 << 20)
    const buffer = new Uint8Array(step)
    const forward = target <= source
    for (let done = 0; done < length; ) {
      const n = Math.min(step, length - done)
      const at = forward ? done : length - done - n
      const part = n === step ? buffer : buffer.subarray(0, n)
      this.read(part, source + at)
      this.write(part, target + at)
      done += n
    }
  }

  /**
   * A view of a page's bytes, without a copy, for reading. Borrowed until the next call on this Memory; do not store
   * through it (use `borrow(i, 'write')` or the accessors, which know that the page is dirty).
   */
  page(index: number): Uint8Array {
    this.checkPages(index, 1)
    this.checkAlive()
    const frame = translate(this.machine, this.mmId, this.startVpn + index, ACCESS_READ)
    if (frame < 0) this.fail(-frame, index * this.pageSize, ACCESS_READ, 0)
    const { u8, pageSize } = this.machine.ram
    const base = frame * pageSize
    return u8.subarray(base, base + pageSize)
  }

  /**
   * Pins a page and gives its bytes until the result is disposed of (`using`). A pinned page is never evicted: hold
   * few, and shortly. With 'write', stores through the view count as the mapping's.
   *
   * A private page is this address space's own then, copied if need be: the view shows what this space stores, and what
   * a fork of it or the parent stores does not come here. In a private mapping that cannot be stored to, the file's
   * page is lent as it is.
   */
  borrow(index: number, access: 'read' | 'write' = 'read'): BorrowedPage {
    this.checkPages(index, 1)
    this.checkAlive()
    const { machine, mmId } = this
    const vpn = this.startVpn + index
    const wanted = access === 'write' ? ACCESS_WRITE : ACCESS_UNSHARE
    const code = lockEntry(machine, mmId, this.space.mm.generation, vpn, wanted)
    if (code !== FAULT_OK) this.fail(code, index * this.pageSize, wanted, 0)
    try {
      return new BorrowedPage(machine, pteFrame(machine.tables.get(mmId, vpn)), access)
    } finally {
      machine.unlockMmRead(mmId)
    }
  }

  /**
   * `read` of any range that waits, without blocking, for pages of a store that answers later; the range may be larger
   * than memory. Rejects as `ready` does.
   */
  async readAsync(target: Uint8Array, offset: number, options: LongOptions = {}): Promise<void> {
    const bytes = plainBytes(target)
    this.checkRange(offset, bytes.length)
    this.checkAlive()
    return readLater(this, bytes, offset, options)
  }

  /**
   * Brings a range in, in steps that leave the event loop free. Stops at the first page that cannot be had and throws
   * nothing for it, as populating does: touching the page tells why. Rejects with the signal's reason when aborted.
   * Does not wait for stores that answer later: `ready` does.
   * → pages that are in memory now.
   */
  async populate(options: Range & LongOptions = {}): Promise<number> {
    const { machine, mmId } = this
    const cursor = this.populateCursor(options)
    const work = new LongWork((cursor.end - cursor.vpn) * this.pageSize, options)
    while (!cursor.done && this.space.isAlive) {
      const before = cursor.vpn
      unparked(machine, () => populateStep(machine, mmId, cursor, 256))
      await work.step((cursor.vpn - before) * this.pageSize)
    }
    return cursor.populated
  }

  /**
   * Brings the pages of a range into memory, and resolves when they are all there: then accesses to them succeed, as
   * long as nothing evicts them. Never blocks: pages of a store that answers later are asked for in the order of the
   * window, together where they are neighbours in the file, and awaited; of a range larger than memory the last part is
   * there in the end. Rejects with the FaultError of the first page that cannot be had (SIGBUS beyond the end of the
   * file; otherwise with the store's error as its `cause`), or with the signal's reason: what was asked for then comes
   * all the same. → pages.
   */
  async ready(options: Range & LongOptions = {}): Promise<number> {
    const [offset, length] = this.rangeOf(options)
    this.checkAlive()
    return makeReady(this, Math.floor(offset / this.pageSize), Math.ceil((offset + length) / this.pageSize), options)
  }

  /** @internal Throws the error for a page of the window that could not be had. */
  failAt(vpn: number, fault: number, access: number = ACCESS_READ): never {
    this.fail(fault, (vpn - this.startVpn) * this.pageSize, access, 0)
  }

  /** `populate` without leaving this turn of the event loop. */
  populateSync(range: Range = {}): number {
    const cursor = this.populateCursor(range)
    while (!cursor.done) populateStep(this.machine, this.mmId, cursor, 4096)
    return cursor.populated
  }

  /**
   * Writes the range's changes (a remapped mapping's: all of its file's) and returns when the store has flushed them.
   * Once it is unmapped, writes all changes of its file. Throws the store's error, or one from an earlier background
   * write, once; EBADF if the file is closed by then.
   */
  sync(range: Range = {}): void {
    if (!this.isMapped && this.file !== undefined) {
      this.file.sync()
      return
    }
    const [start, length] = this.bytesOf(range)
    orThrow(sys_msync(this.space.mm, start, length, MS_SYNC), 'msync', start)
  }

  /** `sync` of the whole file in steps that leave the event loop free, with progress. */
  async syncAsync(options: LongOptions = {}): Promise<void> {
    if (this.file !== undefined && this.file.fd >= 0) await this.file.syncAsync(options)
    else this.sync()
  }

  /** Changes the protection of a range; pages with one of their own lose it. Throws EACCES, ENOMEM. */
  protect(protection: Protection, range: Range = {}): void {
    const [start, length] = this.bytesOf(range)
    this.orThrow(sys_mprotect(this.space.mm, start, length, protOf(protection)), 'mprotect', start)
  }

  /**
   * Tells how a range will be used. 'cold': its pages go first when room is needed; 'pageout': they go now, written if
   * they are dirty, and come back when they are touched. Throws EINVAL where Linux's madvise does, EAGAIN where it
   * would make more mappings than are allowed.
   */
  advise(advice: Advice, range: Range = {}): void {
    const [start, length] = this.bytesOf(range)
    const code = ADVICE[advice]
    if (code === undefined)
      throw new TypeError(`${String(advice)} is no advice; it is one of ${Object.keys(ADVICE).join(', ')}`)
    const result = sys_madvise(this.space.mm, start, length, code)
    // Linux has another error for it here.
    orThrow(result, 'madvise', start, mapCountHint(this.space.mm, result === -EAGAIN ? -ENOMEM : result))
  }

  /** Makes a range resident and keeps it so. Throws ENOMEM, EAGAIN when it does not fit. */
  lock(range: Range = {}): void {
    const [start, length] = this.bytesOf(range)
    this.orThrow(sys_mlock(this.space.mm, start, length), 'mlock', start)
  }

  unlock(range: Range = {}): void {
    const [start, length] = this.bytesOf(range)
    this.orThrow(sys_munlock(this.space.mm, start, length), 'munlock', start)
  }

  /** One byte a page of the range: 1 if it is in memory. */
  residency(range: Range = {}): Uint8Array {
    const [start, length] = this.bytesOf(range)
    const vec = new Uint8Array(Math.ceil(length / this.pageSize))
    orThrow(sys_mincore(this.space.mm, start, length, vec), 'mincore', start)
    return vec
  }

  /** Grows or shrinks the window, moving it if need be: `address` may change, offsets do not. Throws ENOMEM. */
  resize(size: number | string): void {
    const { pageSize } = this
    const lengthBytes = bytesIn(size)
    if (!Number.isSafeInteger(lengthBytes) || lengthBytes <= 0) {
      throw new RangeError(`a mapping cannot have ${String(lengthBytes)} bytes; unmap it to be rid of it`)
    }
    const { address } = this
    const at = sys_mremap(this.space.mm, address, this.lengthBytes, lengthBytes, MREMAP_MAYMOVE, 0)
    orThrow(at, 'mremap', address, mapCountHint(this.space.mm, at))
    this.moveWindow(at / pageSize, Math.ceil(lengthBytes / pageSize) * pageSize)
  }

  /** Takes the window away. Changes stay in the file and are written later, or by `file.sync`. */
  unmap(): void {
    if (this.lengthBytes === 0) return
    const { address, lengthBytes } = this
    this.moveWindow(0, 0)
    if (this.space.isAlive) this.orThrow(sys_munmap(this.space.mm, address, lengthBytes), 'munmap', address)
  }

  [Symbol.dispose](): void {
    this.unmap()
  }

  private orThrow(result: number, syscall: string, address: number): void {
    orThrow(result, syscall, address, mapCountHint(this.space.mm, result))
  }

  protected override checkAlive(): void {
    checkSpace(this.space.mm, 'access', this.address)
  }

  protected override fail(fault: number, offset: number, access: number, bytesDone: number): never {
    const { machine, address } = this
    const kind = access === ACCESS_WRITE ? 'write' : 'read'
    const { parkedFault, lastError, lastFailure } = machine
    if (machine.sync.broken !== 0) throw systemError(-machine.sync.broken, kind, address + offset)
    // The lock is busy: looking up the file page would have to wait for it.
    const isBusy = fault === FAULT_BUS && lastError === EAGAIN && parkedFault === 0
    const page = Math.floor(offset / this.pageSize)
    const isFile = !isBusy && this.isMapped && machine.quietly(() => this.lookAt(page))
    const filePage = isFile && shown.filePage >= 0 ? shown.filePage : undefined
    if (fault === FAULT_BUS && lastError === EAGAIN) {
      throw parkedError(parkedFault, address + offset, kind, this.file?.name, filePage, bytesDone)
    }
    const error = faultError(
      fault,
      lastError,
      address + offset,
      kind,
      this.file?.name,
      filePage,
      bytesDone,
      machine.writeRefused !== 0
    )
    if (fault === FAULT_BUS) {
      const thrown = isFile ? thrownBy(machine, shown.inode, lastError) : undefined
      const cause = causeOf(machine, lastFailure, lastError) ?? thrown
      if (cause !== undefined) error.cause = cause
    }
    machine.lastFailure = -1
    throw error
  }

  private populateCursor(range: Range): PopulateCursor {
    const [start, length] = this.bytesOf(range)
    this.checkAlive()
    const first = Math.floor(start / this.pageSize)
    const end = Math.ceil((start + length) / this.pageSize)
    return new PopulateCursor(first, end, this.machine.vmas.clock)
  }

  /** A range as offset and length, checked. */
  private rangeOf(range: Range): [number, number] {
    const offset = bytesIn(range.offset ?? 0)
    const length = bytesIn(range.length ?? this.lengthBytes - offset)
    this.checkRange(offset, length)
    return [offset, length]
  }

  /** A range as address and length, rounded out to pages. */
  private bytesOf(range: Range): [number, number] {
    const [offset, length] = this.rangeOf(range)
    const first = Math.floor(offset / this.pageSize) * this.pageSize
    return [this.address + first, offset + length - first]
  }

  protected checkPages(at: number, count: number): void {
    if (
      !Number.isSafeInteger(at) ||
      !Number.isSafeInteger(count) ||
      at < 0 ||
      count < 0 ||
      at + count > this.pageCount
    ) {
      checkAttached(this.machine, 'access')
      throw new RangeError(`pages ${at} to ${at + count} are not all in this mapping, which has ${this.pageCount}`)
    }
  }
}

/** What `lookAt` found. */
const shown = { inode: 0, filePage: -1 }

function protOf(protection: Protection): number {
  if (protection === 'none') return PROT_NONE
  if (protection === 'read') return PROT_READ
  if (protection === 'write') return PROT_READ | PROT_WRITE
  throw new TypeError(`${String(protection)} is no protection; it is 'none', 'read' or 'write'`)
}
