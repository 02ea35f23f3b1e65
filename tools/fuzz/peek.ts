/**
 * Looking at what a machine holds without touching it: no fault, no fill, no reclaim, no accessed bit. The bytes are
 * borrowed until the next call.
 */

import { PROT_NONE, PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts'
import { F_FLAGS, F_INDEX, PG_ANON } from '../../src/frame/frame-table.ts'
import type { Machine } from '../../src/mm/machine.ts'
import {
  PAGE_PROT_DEFAULT,
  PAGE_PROT_NONE,
  PAGE_PROT_READ,
  PTE_PRESENT,
  pteFile,
  pteMappedFrame,
  pteMaps,
  pteMigration,
  ptePageProt,
  pteSwap,
  pteSwapOffset,
  pteToPgoff
} from '../../src/pgtable/pte.ts'
import type { Store } from '../../src/store/store.ts'
import type { FuzzStore } from './fuzz-store.ts'

export class Peeker {
  readonly m: Machine
  readonly #page: Uint8Array
  readonly #inner: Map<string, Store>
  readonly #later = new Map<number, Uint8Array>()

  constructor(m: Machine) {
    this.m = m
    this.#inner = new Map()
    this.#page = new Uint8Array(m.ram.pageSize)
  }

  /** Makes the store's own failures, and its counting, no part of looking. */
  lookBehind(store: FuzzStore): void {
    this.#inner.set(store.identity, store.inner)
  }

  /** What an inode has whose store answers later. */
  lookAtLater(inode: number, bytes: Uint8Array): void {
    this.#later.set(inode, bytes)
  }

  /** A page of a file: in the cache, in swap, or in the store. */
  filePage(inode: number, index: number): Uint8Array {
    const { cache, swap, inodes } = this.m
    const frame = cache.lookup(inode, index)
    if (frame !== 0 && this.m.frames.isUptodate(frame)) return this.frame(frame)
    const slot = swap.find(inode, index)
    if (slot !== 0) return this.#slot(slot)
    const later = this.#later.get(inode)
    if (later !== undefined) {
      const { pageSize } = this.m.ram
      this.#page.fill(0).set(later.subarray(index * pageSize, (index + 1) * pageSize))
      return this.#page
    }
    const store = inodes.store(inode)
    if (store === undefined) return this.#page.fill(0)
    // Past what injects failures; the machine may have wrapped it once more.
    return this.#read(this.#inner.get(store.identity ?? '') ?? store, index * this.m.ram.pageSize)
  }

  /** What an address shows; the file page past the end of the file reads as the store has it. */
  userPage(mm: number, vpn: number): Uint8Array {
    const { tables, vmas, cache } = this.m
    const pte = tables.get(mm, vpn)
    if (pteMaps(pte)) return this.frame(pteMappedFrame(pte))
    if (pteSwap(pte)) {
      const frame = cache.lookup(0, pteSwapOffset(pte))
      return frame !== 0 ? this.frame(frame) : this.#slot(pteSwapOffset(pte))
    }
    const vma = vmas.at(mm, vpn)
    if (vmas.inode[vma] === 0) return this.#page.fill(0)
    return this.filePage(vmas.inode[vma], this.shownPage(mm, vpn))
  }

  /** The file page that an address shows or would show; -1 for a private copy. */
  shownPage(mm: number, vpn: number): number {
    const { tables, vmas } = this.m
    const pte = tables.get(mm, vpn)
    if (pte === 0) return vmas.linearIndex(vmas.at(mm, vpn), vpn)
    if (pteFile(pte)) return pteToPgoff(pte)
    return this.hasCopy(mm, vpn) ? -1 : this.m.frames.row(pteMappedFrame(pte), F_INDEX)
  }

  /** Whether the entry is a file entry with that page and protection (-1 for the vma's). */
  remembers(mm: number, vpn: number, pgoff: number, prot: number): boolean {
    const pte = this.m.tables.get(mm, vpn)
    const own = prot === PROT_WRITE ? PROT_READ | PROT_WRITE : prot
    return pteFile(pte) && pteToPgoff(pte) === pgoff && this.ownProtection(mm, vpn) === own
  }

  /** The page's own protection as PROT_* bits, -1 for none. */
  ownProtection(mm: number, vpn: number): number {
    const prot = ptePageProt(this.m.tables.get(mm, vpn))
    if (prot === PAGE_PROT_DEFAULT) return -1
    return prot === PAGE_PROT_NONE ? PROT_NONE : prot === PAGE_PROT_READ ? PROT_READ : PROT_READ | PROT_WRITE
  }

  /** Whether the address has a page of its own: anonymous, in memory or swap. */
  hasCopy(mm: number, vpn: number): boolean {
    const pte = this.m.tables.get(mm, vpn)
    if (!pteMaps(pte)) return pteSwap(pte)
    return (this.m.frames.row(pteMappedFrame(pte), F_FLAGS) & PG_ANON) !== 0
  }

  /** The frame that an entry maps, 0 for none. */
  frameAt(mm: number, vpn: number): number {
    const pte = this.m.tables.get(mm, vpn)
    return pteMaps(pte) ? pteMappedFrame(pte) : 0
  }

  /** Whether the page is between two frames. */
  isMoving(mm: number, vpn: number): boolean {
    return pteMigration(this.m.tables.get(mm, vpn))
  }

  /** Whether what an address shows is in memory. */
  isResident(mm: number, vpn: number): boolean {
    const pte = this.m.tables.get(mm, vpn)
    if ((pte & PTE_PRESENT) !== 0) return true
    if (pteSwap(pte)) return this.m.cache.lookup(0, pteSwapOffset(pte)) !== 0
    const inode = this.m.vmas.inode[this.m.vmas.at(mm, vpn)]
    return inode !== 0 && !pteMigration(pte) && this.isCached(inode, this.shownPage(mm, vpn))
  }

  /** Whether a page of a file is in memory. */
  isCached(inode: number, index: number): boolean {
    const frame = this.m.cache.lookup(inode, index)
    return frame !== 0 && this.m.frames.isUptodate(frame)
  }

  frame(frame: number): Uint8Array {
    const { u8, pageSize } = this.m.ram
    return u8.subarray(frame * pageSize, (frame + 1) * pageSize)
  }

  #slot(slot: number): Uint8Array {
    const { store } = this.m.swap
    if (store === undefined) throw new Error(`slot ${slot} of a swap area that has no store`)
    return this.#read(store, (slot - 1) * this.m.ram.pageSize)
  }

  #read(store: Store, position: number): Uint8Array {
    const got = store.read(position, this.#page, 0, this.#page.length)
    if (got < 0) throw new Error(`the store under test cannot be read: ${got}`)
    return this.#page.fill(0, got)
  }
}
