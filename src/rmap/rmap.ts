/**
 * The reverse map: from a page to every page-table entry that maps it, exactly.
 *
 *  - a file or shared page at its linear place is found through the inode's interval tree of vmas (no cost per entry);
 *  - anywhere else, and any anonymous page, through a node on the frame's list (nodes.ts).
 *
 * So reclaim, write-protection for dirty accounting, and munlock reach all mappers of nonlinear mappings too, in time
 * proportional to their number: what Linux's nonlinear vmas never had.
 *
 *  addRmap, removeRmap     an entry came or goes: mapcount, RSS of its address space, its node
 *  pageReferenced          was the page used through any entry? Clears YOUNG
 *  tryToUnmap              takes the page from all entries, leaving file, swap or empty ones
 *  pageMkclean             makes all entries clean and read-only
 *  mappedLocked            does any locked vma map it?
 *
 * Lock: the frame's page lock; entries are changed under their page-table lock.
 */
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  FRAME_SHIFT,
  type FrameTable,
  PG_ANON,
  PG_EXCLUSIVE
} from '../frame/frame-table.ts'
import { MM_ANONPAGES, MM_FILEPAGES, MM_SHIFT, MM_SWAPENTS, type MmTable } from '../frame/mm-table.ts'
import { NR_ANON_PAGES } from '../frame/vmstat.ts'
import type { Notifiers } from '../notify/notifier.ts'
import type { PageTables } from '../pgtable/page-tables.ts'
import {
  mkMigrationPte,
  mkPte,
  mkSwapPte,
  PAGE_PROT_DEFAULT,
  PTE_DIRTY,
  PTE_FLAGS_MASK,
  PTE_PRESENT,
  PTE_WRITE,
  PTE_YOUNG,
  pgoffToPte,
  pteFrame,
  pteFromMigration,
  pteMigration,
  ptePageProt,
  pteSoftDirty,
  pteSwapOffset
} from '../pgtable/pte.ts'
import type { SwapArea } from '../swap/swap-area.ts'
import { VM_LOCKED } from '../vma/flags.ts'
import type { VmaTable } from '../vma/vma-table.ts'
import type { RmapNodes } from './nodes.ts'

const VERB_REFERENCED = 0
const VERB_UNMAP = 1
const VERB_MKCLEAN = 2
const VERB_LOCKED = 3
const VERB_UNMAP_ALL = 4
const VERB_TO_MIGRATION = 5
const VERB_FROM_MIGRATION = 6

/** Told when a present entry that was stored to goes away: the page is dirty. */
export type DirtyHook = (frame: number) => void

export class Rmap {
  readonly frames: FrameTable
  readonly mms: MmTable
  readonly tables: PageTables
  readonly vmas: VmaTable
  readonly nodes: RmapNodes
  readonly swap: SwapArea
  readonly notifiers: Notifiers
  readonly vmstat: Float64Array
  readonly #i32: Int32Array
  readonly #setDirty: DirtyHook
  /** What the last walk found. */
  #hits = 0
  #locked = false

  constructor(
    frames: FrameTable,
    mms: MmTable,
    tables: PageTables,
    vmas: VmaTable,
    nodes: RmapNodes,
    swap: SwapArea,
    notifiers: Notifiers,
    vmstat: Float64Array,
    setDirty: DirtyHook
  ) {
    this.frames = frames
    this.mms = mms
    this.tables = tables
    this.vmas = vmas
    this.nodes = nodes
    this.swap = swap
    this.notifiers = notifiers
    this.vmstat = vmstat
    this.#i32 = tables.ram.i32
    this.#setDirty = setDirty
  }

  /** True when the entry of this frame at (vma, vpn) has a node rather than being found through the tree. */
  needsNode(frame: number, vma: number, vpn: number): boolean {
    const { w } = this.frames
    const at = frame << FRAME_SHIFT
    return (w[at + F_FLAGS] & PG_ANON) !== 0 || w[at + F_INDEX] !== this.vmas.linearIndex(vma, vpn)
  }

  /** Counts an entry that is about to map the frame. `nodes.prepare` has been called if it needs a node. */
  addRmap(frame: number, mm: number, vma: number, vpn: number): void {
    const table = this.frames.w
    const at = frame << FRAME_SHIFT
    const row = mm << MM_SHIFT
    const before = table[at + F_MAPCOUNT]
    table[at + F_MAPCOUNT] = before + 1
    if ((table[at + F_FLAGS] & PG_ANON) !== 0) {
      this.mms.w[row + MM_ANONPAGES]++
      if (before === 0) this.vmstat[NR_ANON_PAGES]++
    } else {
      this.mms.w[row + MM_FILEPAGES]++
      if (table[at + F_INDEX] === this.vmas.linearIndex(vma, vpn)) return
    }
    this.nodes.add(frame, mm, vpn)
  }

  /** Uncounts an entry that maps the frame no longer. The frame is not freed here. */
  removeRmap(frame: number, mm: number, vma: number, vpn: number): void {
    const table = this.frames.w
    const at = frame << FRAME_SHIFT
    const row = mm << MM_SHIFT
    this.mms.updateHiwaterRss(mm)
    const left = table[at + F_MAPCOUNT] - 1
    table[at + F_MAPCOUNT] = left
    if ((table[at + F_FLAGS] & PG_ANON) !== 0) {
      this.mms.w[row + MM_ANONPAGES]--
      if (left === 0) this.vmstat[NR_ANON_PAGES]--
    } else {
      this.mms.w[row + MM_FILEPAGES]--
      if (table[at + F_INDEX] === this.vmas.linearIndex(vma, vpn)) return
    }
    this.nodes.remove(frame, mm, vpn)
  }

  /**
   * The entry maps `fresh`, an anonymous frame, in the place of `old`. A node is prepared, unless `old` has one there:
   * that one goes over. (Removing it first could give back the very slab that was prepared.)
   */
  replaceRmap(old: number, fresh: number, mm: number, vma: number, vpn: number): void {
    if (!this.needsNode(old, vma, vpn)) {
      this.removeRmap(old, mm, vma, vpn)
      this.addRmap(fresh, mm, vma, vpn)
      return
    }
    const table = this.frames.w
    const w = this.mms.w
    const row = mm << MM_SHIFT
    const from = old << FRAME_SHIFT
    const to = fresh << FRAME_SHIFT
    this.nodes.transfer(old, fresh, mm, vpn)
    if ((table[from + F_FLAGS] & PG_ANON) === 0) {
      this.mms.updateHiwaterRss(mm)
      w[row + MM_FILEPAGES]--
      w[row + MM_ANONPAGES]++
    } else if (table[from + F_MAPCOUNT] === 1) this.vmstat[NR_ANON_PAGES]--
    if (table[to + F_MAPCOUNT] === 0) this.vmstat[NR_ANON_PAGES]++
    table[from + F_MAPCOUNT]--
    table[to + F_MAPCOUNT]++
  }

  /** How many entries used the page since the last call. `locked` afterwards says whether a locked vma maps it. */
  pageReferenced(frame: number): number {
    this.#walk(VERB_REFERENCED, frame, 0)
    return this.#hits
  }

  /** Whether the last walk met a locked vma. */
  get locked(): boolean {
    return this.#locked
  }

  /**
   * Takes the page from every entry outside locked vmas; anonymous ones become swap entries of `slot` (0: none, the
   * contents go).
   */
  tryToUnmap(frame: number, slot: number): boolean {
    this.#walk(VERB_UNMAP, frame, slot)
    return this.frames.row(frame, F_MAPCOUNT) === 0
  }

  /** Takes the page from every entry, locked vmas included: the page leaves its file. */
  unmapAll(frame: number): void {
    this.#walk(VERB_UNMAP_ALL, frame, 0)
  }

  /**
   * Makes every entry of the page clean and read-only. A store's or private page with a DIRTY entry is dirty itself
   * already.
   */
  pageMkclean(frame: number): number {
    this.#walk(VERB_MKCLEAN, frame, 0)
    return this.#hits
  }

  /** Present entries of a locked page become migration entries; it is dirty if one of them was. */
  toMigration(frame: number): void {
    this.#walk(VERB_TO_MIGRATION, frame, 0)
  }

  /** Entries of `old` become present ones of `frame`, which has taken over its place and its nodes. */
  fromMigration(frame: number, old: number): void {
    this.#walk(VERB_FROM_MIGRATION, frame, old)
  }

  mappedLocked(frame: number): boolean {
    this.#walk(VERB_LOCKED, frame, 0)
    return this.#locked
  }

  #walk(verb: number, frame: number, slot: number): void {
    this.#hits = 0
    this.#locked = false
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    let left = w[row + F_MAPCOUNT]
    if (left === 0) return
    let node = this.nodes.first(frame)
    while (node !== 0) {
      // The verb may free this node.
      const next = this.nodes.next(node)
      const mm = this.nodes.mm(node)
      const vpn = this.nodes.vpn(node)
      this.#visit(verb, frame, this.vmas.at(mm, vpn), mm, vpn, slot)
      left--
      node = next
    }
    if (left === 0 || (w[row + F_FLAGS] & PG_ANON) !== 0) return
    const inode = w[row + F_MAPPING]
    const page = w[row + F_INDEX]
    let vma = this.vmas.imapFirst(inode, page, page)
    while (vma !== 0 && left > 0) {
      const mm = this.vmas.mm[vma]
      const vpn = this.vmas.start[vma] + (page - this.vmas.pgoff[vma])
      const pte = this.tables.get(mm, vpn)
      const shown = (pte & PTE_PRESENT) !== 0 ? pteFrame(pte) : pteMigration(pte) ? pteSwapOffset(pte) : 0
      if (shown !== 0 && shown === (verb === VERB_FROM_MIGRATION ? slot : frame)) {
        this.#visit(verb, frame, vma, mm, vpn, slot)
        left--
      }
      vma = this.vmas.imapAfter(inode, vma, page, page)
    }
  }

  #visit(verb: number, frame: number, vma: number, mm: number, vpn: number, slot: number): void {
    const at = this.tables.find(mm, vpn)
    const pte = this.#i32[at]
    if ((this.vmas.flags[vma] & VM_LOCKED) !== 0) {
      this.#locked = true
      if (verb === VERB_UNMAP) return
    }
    if (verb === VERB_TO_MIGRATION) {
      if ((pte & PTE_DIRTY) !== 0) this.#setDirty(frame)
      this.#i32[at] = mkMigrationPte(pte)
      this.notifiers.invalidatePage(mm, vpn)
      return
    }
    if (verb === VERB_FROM_MIGRATION) {
      if ((pte & PTE_PRESENT) === 0) this.tables.rewrite(at, pteFromMigration(pte, frame))
      else {
        // A fault at another address mapped the page while it was on its way.
        this.tables.rewrite(at, mkPte(frame, pte & PTE_FLAGS_MASK))
        this.notifiers.invalidatePage(mm, vpn)
      }
      return
    }
    if ((pte & PTE_PRESENT) === 0 && verb !== VERB_UNMAP_ALL) {
      // On the way to another frame: what the entry will allow there can change already.
      if (verb === VERB_MKCLEAN) this.#i32[at] = mkMigrationPte(pteFromMigration(pte, frame) & ~(PTE_WRITE | PTE_DIRTY))
      return
    }
    if (verb === VERB_REFERENCED) {
      if ((pte & PTE_YOUNG) !== 0) {
        this.tables.rewrite(at, pte & ~PTE_YOUNG)
        this.#hits++
      }
      if (this.notifiers.has(mm) && this.notifiers.clearFlushYoung(mm, vpn, vpn + 1)) this.#hits++
    } else if (verb === VERB_MKCLEAN) {
      if ((pte & (PTE_WRITE | PTE_DIRTY)) !== 0) {
        this.tables.rewrite(at, pte & ~(PTE_WRITE | PTE_DIRTY))
        this.#hits++
        this.notifiers.invalidatePage(mm, vpn)
      }
    } else if (verb !== VERB_LOCKED) this.#unmapOne(frame, vma, mm, vpn, at, pte, slot)
  }

  #unmapOne(frame: number, vma: number, mm: number, vpn: number, at: number, pte: number, slot: number): void {
    if ((pte & PTE_DIRTY) !== 0) this.#setDirty(frame)
    const soft = pteSoftDirty(pte)
    let left = 0
    if ((this.frames.row(frame, F_FLAGS) & PG_ANON) !== 0) {
      if (slot !== 0) {
        left = mkSwapPte(slot, soft)
        this.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_EXCLUSIVE
        this.swap.count[slot]++
        this.mms.w[(mm << MM_SHIFT) + MM_SWAPENTS]++
      }
    } else {
      const prot = ptePageProt(pte)
      const index = this.frames.row(frame, F_INDEX)
      if (prot !== PAGE_PROT_DEFAULT || index !== this.vmas.linearIndex(vma, vpn)) left = pgoffToPte(index, prot, soft)
    }
    this.removeRmap(frame, mm, vma, vpn)
    this.tables.set(at, left)
    this.notifiers.invalidatePage(mm, vpn)
    if (left === 0) this.tables.releaseIfEmpty(at)
    this.#hits++
  }
}
