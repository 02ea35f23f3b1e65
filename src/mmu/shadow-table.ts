/**
 * Shadow tables: a secondary MMU after KVM's shadow paging, for a guest that translates its addresses itself.
 *
 * The guest is code that sees the frames in its own memory: a WebAssembly program whose `WebAssembly.Memory` holds this
 * memory's RAM (`new Memory({ ram })`). Its addresses are offsets in a mapping. For each page of it there is one word:
 *
 *     31 ............. pageShift | pageShift - 1 .. 2 |   1     0
 *     byte address of the frame  |         0          | WRITE READ      0: ask the host
 *
 * A load takes the word of its page, tests READ and goes to the frame; a store tests WRITE. A word that does not allow the
 * access is a guest fault: the guest calls `fault`, which fills the word or throws, and looks again. The machine clears words
 * through the MMU notifiers before what they say becomes wrong. Nothing is pinned: every page stays evictable.
 *
 *  fault            the guest's import: makes the word allow an access, or throws the FaultError
 *  fill             the same with a fault code
 *  admit, expel     threads that run the guest beside this one; see below
 *  verify           what is wrong with the words: each must agree with the page tables
 *  close            no word is left, and none is filled any more
 *
 * Filling follows the retry protocol of notify/notifier.ts. WRITE is given only if the page-table entry has it, so the
 * first store to a clean page faults and is counted, and again after writeback has cleaned it. There is no accessed bit, as in
 * KVM for processors without one: a word that is there says that the page was used, and telling so clears it. A page
 * that is really in use faults again, which finds it in the page tables.
 *
 * One thread: the guest runs only while the machine does not, so a cleared word is never in use. Between two calls of the
 * host the guest may keep what it translated.
 *
 * A guest in another thread may be between its translation and its access when the word is cleared. Reading the word again
 * after the access would show that for a load, at the price of a fence for each; a store cannot be taken back. So the host
 * waits, as for a TLB shootdown, until the guest has passed a safe point. Words before the entries, each changed by Atomics:
 *
 *     0       KICK: not 0 while the host waits
 *     1..15   one for each admitted thread: 1 while it runs in the guest, 0 while it does not
 *
 *     guest   enter       its word = 1; if KICK: its word = 0, wake the host, wait until KICK is 0, again
 *             leave       its word = 0; if KICK: wake the host
 *             safe point  if KICK: leave, enter. At least once in each loop, keeping no translation across it
 *             fault       leave, ask the host, enter
 *     host    clears words of the table; KICK = 1; waits until no word is 1; KICK = 0, wakes the guests
 *
 * Either the guest's `enter` saw KICK, or the host sees its 1: each writes its own word before it reads the other's. What
 * the guest stored before it left is there when the host goes on, and it sees the cleared words when it enters again. The
 * guest's own loads and stores are plain. With nobody admitted there is no wait and no KICK.
 *
 * The notifier's operations run wherever the machine calls them; the host thread must be one that may wait. Lock: none, for
 * one host thread.
 */
import { ESRCH } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_MAPERR, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import { faultError, orThrow } from '../api/errors.ts'
import type { Mapping } from '../api/mapping.ts'
import { translate } from '../mm/access.ts'
import type { Machine } from '../mm/machine.ts'
import type { MmuNotifier } from '../notify/notifier.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE, pteFrame } from '../pgtable/pte.ts'
import { sys_mmu_notifier_register, sys_mmu_notifier_unregister } from '../syscall/process.ts'

export const SHADOW_READ = 1 as const
/** Never without SHADOW_READ. */
export const SHADOW_WRITE = 2 as const

/** What stands before the entries: KICK and the words of the admitted threads. */
export const SHADOW_HEADER_BYTES = 64 as const
const HEADER_WORDS = 16
const KICK = 0
const INSIDE = 1

/** Tries of a fill. A second one finds the page in memory; more are for notifiers that other notifiers bring about. */
const MAX_TRIES = 100

export interface ShadowPlace {
  /** Shared memory, such as the buffer of the guest's WebAssembly.Memory. */
  readonly buffer: ArrayBufferLike
  /** Where the header begins, a multiple of 4; `SHADOW_HEADER_BYTES` further on the entries do. */
  readonly byteOffset: number
  /** Entries, one a page from the mapping's first. There may be more than the mapping has pages: those stay 0. */
  readonly nrEntries: number
}

export class ShadowTable implements MmuNotifier {
  readonly map: Mapping
  readonly nrEntries: number
  readonly #machine: Machine
  readonly #mm: number
  readonly #words: Int32Array
  /** Address of frame 0 in the guest's memory. */
  readonly #ramAt: number
  /** Page number of entry 0. */
  #startVpn: number
  /** Entries that are not 0. */
  #nrPresent = 0
  /** Bit by slot. */
  #admitted = 0
  #closed = false
  /** Guest faults, tries that had to be repeated, entries cleared, waits for guests of other threads. */
  nrFaults = 0
  nrRetries = 0
  nrCleared = 0
  nrWaits = 0

  /**
   * A table for a mapping; what stands at `place` is lost. Throws TypeError for memory that is not shared, RangeError when
   * the table or the frames do not fit into 32-bit addresses, or into each other's way.
   */
  constructor(map: Mapping, place: ShadowPlace) {
    const { buffer, byteOffset, nrEntries } = place
    const { ram } = map.machine
    if (!(buffer instanceof SharedArrayBuffer)) throw new TypeError('a shadow table must lie in shared memory')
    if (!Number.isSafeInteger(nrEntries) || nrEntries < 1) throw new RangeError(`${nrEntries} entries are no table`)
    const end = byteOffset + ShadowTable.bytesFor(nrEntries)
    const ramEnd = ram.byteOffset + ram.nrFrames * ram.pageSize
    if (ramEnd > 2 ** 32) throw new RangeError('the frames must lie below 4 GiB in the guest’s memory')
    if (buffer === ram.buffer && byteOffset < ramEnd && end > ram.byteOffset) {
      throw new RangeError(`the table at bytes ${byteOffset} to ${end} lies among the frames`)
    }
    this.map = map
    this.nrEntries = nrEntries
    this.#machine = map.machine
    this.#mm = map.mmId
    this.#words = new Int32Array(buffer, byteOffset, HEADER_WORDS + nrEntries)
    this.#ramAt = ram.byteOffset
    this.#startVpn = map.address / ram.pageSize
    // Fresh memory is zero, and stays untouched so.
    for (let i = 0; i < this.#words.length; i++) if (this.#words[i] !== 0) this.#words[i] = 0
    orThrow(sys_mmu_notifier_register(map.space.mm, this), 'mmu_notifier_register')
  }

  static bytesFor(nrEntries: number): number {
    return SHADOW_HEADER_BYTES + nrEntries * 4
  }

  /** Entries that are not 0. */
  get nrPresent(): number {
    return this.#nrPresent
  }

  /** The entry of a page of the mapping, as the guest sees it. */
  entry(page: number): number {
    return Atomics.load(this.#words, HEADER_WORDS + page) >>> 0
  }

  /**
   * The guest's fault: `access` is SHADOW_READ or SHADOW_WRITE. Throws FaultError where Linux would send a signal, and
   * FremapError (ESRCH) when the address space has ended. The guest must look at the entry again.
   */
  fault(page: number, access: number): void {
    const wanted = access === SHADOW_WRITE ? ACCESS_WRITE : ACCESS_READ
    // A guest's i32 may come as a negative number.
    const at = page >>> 0
    const code = this.fill(at, wanted)
    if (code === FAULT_OK) return
    const { map } = this
    orThrow(map.space.isAlive ? 0 : -ESRCH, 'access', map.address)
    const shown = at < map.pageCount ? map.filePage(at) : -1
    const kind = wanted === ACCESS_WRITE ? 'write' : 'read'
    const address = this.#startVpn * map.pageSize + at * map.pageSize
    const file = map.isMapped && at < map.pageCount ? map.file?.name : undefined
    throw faultError(code, this.#machine.lastError, address, kind, file, shown < 0 ? undefined : shown, 0)
  }

  /** Makes the entry of a page allow an access. → FAULT_OK, or the fault code. */
  fill(page: number, access: number): number {
    const { map } = this
    const m = this.#machine
    this.nrFaults++
    if (this.#closed || page >= Math.min(map.pageCount, this.nrEntries)) return FAULT_MAPERR
    this.#follow()
    const vpn = this.#startVpn + page
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const seq = m.notifiers.seq(this.#mm)
      const frame = translate(m, this.#mm, vpn, access)
      if (frame < 0) return -frame
      if (m.notifiers.count(this.#mm) !== 0 || m.notifiers.seq(this.#mm) !== seq) {
        this.nrRetries++
        continue
      }
      const rights = (m.tables.get(this.#mm, vpn) & PTE_WRITE) !== 0 ? SHADOW_READ | SHADOW_WRITE : SHADOW_READ
      const at = HEADER_WORDS + page
      if (this.#words[at] === 0) this.#nrPresent++
      Atomics.store(this.#words, at, (this.#ramAt + frame * map.pageSize) | rights)
      return FAULT_OK
    }
    m.lastError = 0
    return FAULT_OOM
  }

  /**
   * A slot for a thread that will run the guest beside this one (`ShadowGuest`): its word in the header. Throws RangeError
   * for the sixteenth.
   */
  admit(): number {
    for (let slot = KICK + 1; slot < HEADER_WORDS; slot++) {
      if ((this.#admitted & (1 << slot)) !== 0) continue
      this.#admitted |= 1 << slot
      return slot
    }
    throw new RangeError(`no more than ${HEADER_WORDS - 1} threads can run a guest of one table`)
  }

  /**
   * The thread of a slot has ended, or will not run the guest any more: nobody waits for it. A thread that is ended while
   * it is in the guest leaves its word at 1, so until this is called the machine must not be used.
   */
  expel(slot: number): void {
    Atomics.store(this.#words, slot, 0)
    this.#admitted &= ~(1 << slot)
  }

  /** What is wrong with the entries that are there now, a line each. */
  verify(): string[] {
    const wrong: string[] = []
    const { tables, ram } = this.#machine
    let present = 0
    for (let page = 0; page < this.nrEntries; page++) {
      const word = this.entry(page)
      if (word === 0) continue
      present++
      const pte = tables.get(this.#mm, this.#startVpn + page)
      const need = PTE_PRESENT | PTE_READ | ((word & SHADOW_WRITE) !== 0 ? PTE_WRITE : 0)
      const address = this.#ramAt + pteFrame(pte) * ram.pageSize
      if ((pte & need) !== need || word - (word % ram.pageSize) !== address) {
        wrong.push(`shadow entry ${page} of space ${this.#mm} is 0x${word.toString(16)}, the pte 0x${pte.toString(16)}`)
      }
    }
    if (present !== this.#nrPresent) wrong.push(`${present} shadow entries, counted ${this.#nrPresent}`)
    return wrong
  }

  /** Takes the table off its address space. Every later guest fault is SIGSEGV. */
  close(): void {
    if (this.#closed) return
    if (this.map.space.isAlive) {
      orThrow(sys_mmu_notifier_unregister(this.map.space.mm, this), 'mmu_notifier_unregister')
    }
    this.#closed = true
  }

  [Symbol.dispose](): void {
    this.close()
  }

  invalidateRangeStart(_mm: number, start: number, end: number): void {
    const from = Math.max(0, start - this.#startVpn)
    const to = Math.min(this.nrEntries, end - this.#startVpn)
    let cleared = 0
    for (let page = from; page < to && this.#nrPresent > 0; page++) cleared += this.#clear(page)
    if (cleared > 0) this.#waitForGuests()
  }

  invalidatePage(_mm: number, vpn: number): void {
    if (this.#clear(vpn - this.#startVpn) > 0) this.#waitForGuests()
  }

  /** The guest has used the page if it has an entry: it loses it, and faults when it uses the page again. */
  clearFlushYoung(_mm: number, start: number, end: number): boolean {
    let cleared = 0
    for (let vpn = start; vpn < end; vpn++) cleared += this.#clear(vpn - this.#startVpn)
    // Who clears an entry waits, also when the page stays: the next invalidation of it finds no entry to wait for.
    if (cleared > 0) this.#waitForGuests()
    return cleared > 0
  }

  testYoung(_mm: number, vpn: number): boolean {
    const page = vpn - this.#startVpn
    return page >= 0 && page < this.nrEntries && this.#words[HEADER_WORDS + page] !== 0
  }

  release(): void {
    for (let page = 0; page < this.nrEntries && this.#nrPresent > 0; page++) this.#clear(page)
    this.#closed = true
    this.#waitForGuests()
  }

  /** → entries cleared: 0 or 1. */
  #clear(page: number): number {
    if (page < 0 || page >= this.nrEntries || this.#words[HEADER_WORDS + page] === 0) return 0
    Atomics.store(this.#words, HEADER_WORDS + page, 0)
    this.#nrPresent--
    this.nrCleared++
    return 1
  }

  /** The mapping was moved (`resize`), which has taken all its old entries away. */
  #follow(): void {
    this.#startVpn = this.map.address / this.map.pageSize
  }

  /** Returns when no guest of another thread uses a translation that was cleared before. */
  #waitForGuests(): void {
    if (this.#admitted === 0) return
    const words = this.#words
    Atomics.store(words, KICK, 1)
    for (let slot = KICK + 1; slot < HEADER_WORDS; slot++) {
      if (Atomics.load(words, slot) !== INSIDE) continue
      this.nrWaits++
      while (Atomics.load(words, slot) === INSIDE) Atomics.wait(words, slot, INSIDE)
    }
    Atomics.store(words, KICK, 0)
    Atomics.notify(words, KICK)
  }
}
