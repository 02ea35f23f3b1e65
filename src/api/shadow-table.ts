/**
 * Shadow tables: a secondary MMU after KVM's shadow paging, for a guest that translates its addresses itself.
 *
 * The guest is code that sees the frames in its own memory: a WebAssembly program whose `WebAssembly.Memory` holds this
 * memory's RAM (`new Memory({ ram })`). Its addresses are offsets in a mapping. For each page of it there is one word:
 *
 *     31 ............. pageShift | pageShift - 1 .. 2 |   1     0
 *     byte address of the frame  |         0          | WRITE READ      0: ask the host
 *
 * A load takes the word of its page, tests READ and goes to the frame; a store tests WRITE. A word that does not allow
 * the access is a guest fault: the guest calls `fault`, which fills the word or throws, and looks again. The machine
 * clears words through the MMU notifiers before what they say becomes wrong. Nothing is pinned: every page stays
 * evictable.
 *
 *  fault            the guest's import: makes the word allow an access, or throws the FaultError
 *  fill             the same with a fault code
 *  handle, adopt    the table in another thread that attached: its guest's faults are served there
 *  guest            runs the guest in this thread while others work on the memory (mmu/shadow-guest)
 *  admit, expel     threads that run the guest but did not attach: they ask one that did
 *  verify           what is wrong with the words: each must agree with the page tables
 *  close            no word is left, and none is filled any more
 *
 * WRITE is given only if the page-table entry has it, so the first store to a clean page faults and is counted, and
 * again after writeback has cleaned it. There is no accessed bit, as in KVM for processors without one: a word that is
 * there says that the page was used, and telling so clears it. A page that is really in use faults again, which finds
 * it in the page tables.
 *
 * Why a fill is right, whatever other threads do at the same time:
 *
 *  1. `lockEntry` gives the page's entry, which allows the access, with the mmap lock (for reading) and the machine
 *     lock held.
 *  2. Entries change, and words of the table are cleared, under the machine lock alone. So between the look at the
 *     entry and the store of the word nothing changes, and what changes later finds the word and clears it.
 *  3. A verb that gives the machine lock back in the middle of a range it invalidates (for a store's call in munmap,
 *     for one) has cleared the range's words already and does so once. It has the mmap lock for writing all that time,
 *     so step 1 waits for it. That `count` is 0 is looked at all the same: in a machine of one thread it shows a fault
 *     from within such a range.
 *  4. The guest of this thread is outside since before step 1 (mmu/guests), so whoever holds one of the locks of step 1
 *     and waits for guests does not wait for this one. After the fill it enters, looks at the word again, and asks once
 *     more if it is gone.
 *
 * In a machine of one thread the same runs without the locks. There the guest runs only while the machine does not, so
 * a cleared word is never in use; between two calls of the host the guest may keep what it translated.
 */
import { EINVAL, ESRCH } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import { inspectedAs, summary } from '../base/printing.ts'
import { lockEntry } from '../mm/fault.ts'
import type { Machine } from '../mm/machine.ts'
import { NR_GUEST_WORDS } from '../mmu/guests.ts'
import { MMU_SHADOW } from '../mmu/kinds.ts'
import type { ShadowGuest } from '../mmu/shadow-guest.ts'
import { ShadowMmu } from '../mmu/shadow-mmu.ts'
import { SHADOW_WRITE } from '../mmu/translation.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE } from '../pgtable/pte.ts'
import { sys_mmu_kind_register, sys_mmu_kind_unregister } from '../syscall/process.ts'
import { checkMemory, checkSpace } from './belongs.ts'
import { faultError, orThrow, systemError } from './errors.ts'
import type { Mapping } from './mapping.ts'
import { clearPlace, guestOf, unknownGuest } from './mmu-place.ts'

export { SHADOW_READ, SHADOW_WRITE } from '../mmu/translation.ts'

/** What stands before the entries: KICK and the words of the admitted threads. */
export const SHADOW_HEADER_BYTES = 64 as const

/** Tries of a fill. The first one is enough unless the window moves meanwhile. */
const MAX_TRIES = 100

export interface ShadowPlace {
  /**
   * Where the header begins in the memory that the frames are in, a multiple of 4; the entries do `SHADOW_HEADER_BYTES`
   * further on.
   */
  readonly byteOffset: number
  /** Entries, one a page from the mapping's first. There may be more than the mapping has pages: those stay 0. */
  readonly nrEntries: number
}

/** What another thread adopts a table by: structured-cloneable. */
export interface ShadowHandle {
  readonly kind: 'shadow'
  readonly memory: number
  readonly id: number
}

export class ShadowTable {
  static {
    inspectedAs(ShadowTable, table => {
      return summary(
        'ShadowTable',
        { nrEntries: table.nrEntries, nrFaults: table.nrFaults },
        table.isOpen ? '' : 'closed'
      )
    })
  }

  readonly map: Mapping
  readonly nrEntries: number
  readonly #machine: Machine
  readonly #mm: number
  readonly #generation: number
  readonly #id: number
  readonly #mmu: ShadowMmu
  readonly #guest: ShadowGuest
  /** Where this thread's mapping was when the table last heard of it. */
  #address: number
  #pageCount: number
  /** Guest faults of this thread, and tries that had to be repeated. */
  nrFaults = 0
  nrRetries = 0

  /**
   * A table for a mapping; what stands at `place` is lost. Throws RangeError when the table or the frames do not fit
   * into 32-bit addresses, or into each other's way; ENOMEM for the 64th secondary MMU of a memory.
   */
  constructor(map: Mapping, place: ShadowPlace)
  /** @internal Use `ShadowTable.adopt`. */
  constructor(map: Mapping, place: ShadowPlace | undefined, id?: number)
  constructor(map: Mapping, place: ShadowPlace | undefined, id?: number) {
    this.map = map
    this.#machine = map.machine
    this.#mm = map.mmId
    this.#generation = map.space.mm.generation
    this.#address = map.address
    this.#pageCount = map.pageCount
    this.#id = place === undefined ? (id ?? 0) : register(map, place)
    const mmu = this.#machine.quietly(() => this.#machine.notifiers.view(this.#id))
    if (!(mmu instanceof ShadowMmu)) throw systemError(-ESRCH, 'adopt', undefined, 'the shadow table was closed')
    if (mmu.mm !== map.mmId)
      throw systemError(-EINVAL, 'adopt', undefined, 'the shadow table is over another address space')
    this.#mmu = mmu
    this.nrEntries = mmu.nrEntries
    this.#guest = guestOf(this.#machine, this.#id, mmu.words)
  }

  /**
   * The table that another thread sent the handle of, over this thread's object for the same mapping. Throws ESRCH when
   * it was closed.
   */
  static adopt(map: Mapping, handle: ShadowHandle): ShadowTable {
    if (handle?.kind !== 'shadow') throw new TypeError('ShadowTable.adopt takes the handle of a shadow table')
    checkMemory(map.machine, handle.memory, 'adopt', 'the handle of the shadow table')
    return new ShadowTable(map, undefined, handle.id)
  }

  static bytesFor(nrEntries: number): number {
    return SHADOW_HEADER_BYTES + nrEntries * 4
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    const { nrEntries, nrFaults, isOpen } = this
    return { kind: 'shadow table', map: this.map.toJSON(), nrEntries, nrFaults, isOpen }
  }

  get handle(): ShadowHandle {
    return { kind: 'shadow', memory: this.#machine.id, id: this.#id }
  }

  /** Entries that are not 0. */
  get nrPresent(): number {
    return this.isOpen ? this.#mmu.nrPresent : 0
  }

  /** Entries that were cleared, and guests of other threads that were waited for, by all threads. */
  get nrCleared(): number {
    return this.#mmu.nrCleared
  }

  get nrWaits(): number {
    return this.#mmu.nrWaits
  }

  /** False once it was closed, or its address space has ended. */
  get isOpen(): boolean {
    return !this.#machine.hasLeft && this.#machine.notifiers.isRegistered(this.#id)
  }

  /** The entry of a page of the mapping, as the guest sees it. */
  entry(page: number): number {
    return this.#mmu.entry(page)
  }

  /** Runs the guest in this thread. */
  guest(): ShadowGuest {
    return this.#guest
  }

  /**
   * The guest's fault: `access` is SHADOW_READ or SHADOW_WRITE. Throws FaultError where Linux would send a signal, and
   * FremapError (ESRCH) when the address space has ended. The guest must look at the entry again.
   */
  fault(page: number, access: number): void {
    if (this.#guest.isInside) this.#guest.outside(() => this.#serve(page, access))
    else if (!this.#machine.sync.isShared || this.#mmu.hasAdmitted) this.#serve(page, access)
    else throw unknownGuest()
  }

  /** Makes the entry of a page allow an access. → FAULT_OK, or the fault code. Not from inside the guest. */
  fill(page: number, access: number): number {
    const m = this.#machine
    if (!Number.isSafeInteger(page) || page < 0) return FAULT_MAPERR
    this.nrFaults++
    this.#follow()
    const need = PTE_PRESENT | (access === ACCESS_WRITE ? PTE_WRITE : PTE_READ)
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const start = this.#mmu.startVpn
      if (!this.isOpen || page >= this.#mmu.nrPages) return FAULT_MAPERR
      const code = lockEntry(m, this.#mm, this.#generation, start + page, access)
      if (code !== FAULT_OK) return code
      const filled =
        this.isOpen &&
        this.#mmu.startVpn === start &&
        m.notifiers.count(this.#mm) === 0 &&
        this.#mmu.fill(page, m.tables.get(this.#mm, start + page), need)
      m.unlockMmRead(this.#mm)
      if (filled) return FAULT_OK
      this.nrRetries++
    }
    m.lastError = 0
    return FAULT_OOM
  }

  /**
   * A slot for a thread that did not attach and will run the guest (`ShadowGuest`): its word in the header. Throws
   * RangeError for the sixteenth.
   */
  admit(): number {
    const slot = this.#machine.quietly(() => (this.isOpen ? this.#mmu.admit() : 0))
    if (slot !== 0) return slot
    throw new RangeError(`no more than ${NR_GUEST_WORDS - 1} threads can run a guest of one table`)
  }

  /**
   * The thread of a slot has ended, or will not run the guest any more: nobody waits for it. A thread that is ended
   * while it is in the guest leaves its word at 1, so until this is called every change of what the guest sees waits.
   */
  expel(slot: number): void {
    if (!Number.isInteger(slot) || slot < 1 || slot >= NR_GUEST_WORDS)
      throw new RangeError(`${String(slot)} is no slot`)
    this.#mmu.releaseSlot(slot)
    this.#machine.quietly(() => this.isOpen && this.#mmu.expel(slot))
  }

  /** What is wrong with the entries that are there now, a line each. */
  verify(): string[] {
    const { tables } = this.#machine
    return this.#machine.quietly(() => (this.isOpen ? this.#mmu.verify((mm, vpn) => tables.get(mm, vpn)) : []))
  }

  /** Takes the table off its address space, for all threads. Every later guest fault is SIGSEGV. */
  close(): void {
    if (this.isOpen) orThrow(sys_mmu_kind_unregister(this.map.space.mm, this.#id), 'mmu_notifier_unregister')
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #serve(page: number, access: number): void {
    const m = this.#machine
    const wanted = access === SHADOW_WRITE ? ACCESS_WRITE : ACCESS_READ
    // A guest's i32 may come as a negative number.
    const at = page >>> 0
    const code = this.fill(at, wanted)
    if (code === FAULT_OK) return
    const { map } = this
    checkSpace(map.space.mm, 'access', map.address)
    if (at < map.pageCount) map.failAt(map.address / map.pageSize + at, code, wanted)
    const kind = wanted === ACCESS_WRITE ? 'write' : 'read'
    throw faultError(code, m.lastError, this.#address + at * map.pageSize, kind, undefined, undefined, 0)
  }

  /** The mapping was moved or cut (`resize`, `unmap`) by this thread, which has taken all its old entries away. */
  #follow(): void {
    const { map } = this
    if (map.address === this.#address && map.pageCount === this.#pageCount) return
    // One that is unmapped has no address any more.
    if (map.isMapped) this.#address = map.address
    this.#pageCount = map.pageCount
    this.#machine.quietly(() => {
      if (this.isOpen) this.#mmu.moveTo(this.#address / map.pageSize, this.#pageCount)
    })
  }
}

/** → the id of the registration. */
function register(map: Mapping, { byteOffset, nrEntries }: ShadowPlace): number {
  const { ram } = map.machine
  if (!Number.isSafeInteger(nrEntries) || nrEntries < 1) throw new RangeError(`${nrEntries} entries are no table`)
  const first = clearPlace(ram, byteOffset, ShadowTable.bytesFor(nrEntries))
  const own = [first, nrEntries, map.address / ram.pageSize, Math.min(map.pageCount, nrEntries)]
  return orThrow(sys_mmu_kind_register(map.space.mm, MMU_SHADOW, -1, own), 'mmu_notifier_register')
}
