/**
 * The part of a shadow table that any thread runs: clears words before what they say becomes wrong, and waits for the
 * guests that may be using them. api/shadow-table fills them; what a word means stands there.
 *
 *  fill              one word, from a page-table entry
 *  moveTo            the window's pages are elsewhere in the address space
 *  the notifier's operations, `verify`
 *
 * Words of the row (notify/notifier.ts), after the common ones:
 *
 *     TABLE     where the table begins in RAM's buffer, in 32-bit words: KICK and the guests' words, then the entries
 *     ENTRIES   how many there are
 *     START     page of the address space that entry 0 is for
 *     PAGES     entries that a guest may ask for: the window's pages
 *     PRESENT   entries that are not 0
 *     CLEARED   entries that were cleared, ever; and guests that were waited for
 *     WAITS
 *     ADMITTED  bit by word: guests in threads that did not attach
 *
 * A guest may load an entry that another thread's fault has just filled, with nothing between them but the entry. So it
 * loads it as it was written, by Atomics: then what was put into the page before is seen, by the memory model of
 * JavaScript and WebAssembly.
 *
 * Lock: the machine lock, for everything.
 */
import type { Ram } from '../frame/ram.ts'
import { type MmuNotifier, N_ID, N_MM, N_OWN } from '../notify/notifier.ts'
import type { Sync } from '../sync/sync.ts'
import { Guests, NR_GUEST_WORDS, OUTSIDE } from './guests.ts'
import { isTranslation, mkTranslation } from './translation.ts'

const TABLE = N_OWN
const ENTRIES: number = N_OWN + 1
const START: number = N_OWN + 2
const PAGES: number = N_OWN + 3
const PRESENT: number = N_OWN + 4
const CLEARED: number = N_OWN + 5
const WAITS: number = N_OWN + 6
const ADMITTED: number = N_OWN + 7

export class ShadowMmu implements MmuNotifier {
  /** KICK, the guests' words, and the entries. */
  readonly words: Int32Array
  readonly nrEntries: number
  readonly #row: Int32Array
  readonly #guests: Guests
  readonly #ram: Ram

  constructor(ram: Ram, sync: Sync, row: Int32Array) {
    this.#ram = ram
    this.#row = row
    this.nrEntries = row[ENTRIES]
    this.words = new Int32Array(ram.buffer, row[TABLE] * 4, NR_GUEST_WORDS + this.nrEntries)
    this.#guests = new Guests(sync, this.words, row[N_ID])
  }

  /** The address space that it is over. */
  get mm(): number {
    return this.#row[N_MM]
  }

  /** Page of the address space that entry 0 is for. */
  get startVpn(): number {
    return this.#row[START]
  }

  /** Entries that a guest may ask for. */
  get nrPages(): number {
    return this.#row[PAGES]
  }

  get nrPresent(): number {
    return this.#row[PRESENT]
  }

  get nrCleared(): number {
    return this.#row[CLEARED]
  }

  get nrWaits(): number {
    return this.#row[WAITS]
  }

  /** Whether guests run in threads that did not attach. */
  get hasAdmitted(): boolean {
    return this.#row[ADMITTED] !== 0
  }

  entry(page: number): number {
    return Atomics.load(this.words, NR_GUEST_WORDS + page) >>> 0
  }

  /** The word of a page says what its entry allows, if that is enough for `need` (PTE_*). → whether it is. */
  fill(page: number, pte: number, need: number): boolean {
    if ((pte & need) !== need) return false
    const at = NR_GUEST_WORDS + page
    if (this.words[at] === 0) this.#row[PRESENT]++
    Atomics.store(this.words, at, mkTranslation(this.#ram, pte))
    return true
  }

  /** From now on the table is for `nrPages` pages from `startVpn`. */
  moveTo(startVpn: number, nrPages: number): void {
    if (startVpn !== this.startVpn) this.#clearRange(0, this.nrEntries)
    this.#row[START] = startVpn
    this.#row[PAGES] = Math.min(nrPages, this.nrEntries)
  }

  /** A word for a guest in a thread that did not attach, 0 when there is none left. */
  admit(): number {
    for (let slot = 1; slot < NR_GUEST_WORDS; slot++) {
      if ((this.#row[ADMITTED] & (1 << slot)) !== 0) continue
      this.#row[ADMITTED] |= 1 << slot
      return slot
    }
    return 0
  }

  /** Nobody is inside by this word. Needs no lock: whoever has it may be waiting for just that. */
  releaseSlot(slot: number): void {
    Atomics.store(this.words, slot, OUTSIDE)
    Atomics.notify(this.words, slot)
  }

  expel(slot: number): void {
    this.#row[ADMITTED] &= ~(1 << slot)
  }

  invalidateRangeStart(_mm: number, start: number, end: number): void {
    this.#clearRange(start - this.startVpn, end - this.startVpn)
  }

  invalidatePage(_mm: number, vpn: number): void {
    if (this.#clear(vpn - this.startVpn) > 0) this.#waitForGuests()
  }

  /** The guest has used the page if it has an entry: it loses it, and faults when it uses the page again. */
  clearFlushYoung(_mm: number, start: number, end: number): boolean {
    // Who clears an entry waits, also when the page stays: the next invalidation of it finds no entry to wait for.
    return this.#clearRange(start - this.startVpn, end - this.startVpn) > 0
  }

  testYoung(_mm: number, vpn: number): boolean {
    const page = vpn - this.startVpn
    return page >= 0 && page < this.nrEntries && this.words[NR_GUEST_WORDS + page] !== 0
  }

  release(): void {
    this.#row[PAGES] = 0
    this.#clearRange(0, this.nrEntries)
  }

  verify(pteOf: (mm: number, vpn: number) => number): string[] {
    const wrong: string[] = []
    const mm = this.#row[N_MM]
    let present = 0
    for (let page = 0; page < this.nrEntries; page++) {
      const word = this.entry(page)
      if (word === 0) continue
      present++
      const pte = pteOf(mm, this.startVpn + page)
      if (!isTranslation(this.#ram, word, pte)) {
        wrong.push(`shadow entry ${page} of space ${mm} is 0x${word.toString(16)}, the pte 0x${pte.toString(16)}`)
      }
    }
    if (present !== this.nrPresent) wrong.push(`${present} shadow entries, counted ${this.nrPresent}`)
    return wrong
  }

  /** → entries cleared. */
  #clearRange(from: number, to: number): number {
    const end = Math.min(this.nrEntries, to)
    let cleared = 0
    for (let page = Math.max(0, from); page < end && this.nrPresent > 0; page++) cleared += this.#clear(page)
    if (cleared > 0) this.#waitForGuests()
    return cleared
  }

  /** → entries cleared: 0 or 1. */
  #clear(page: number): number {
    if (page < 0 || page >= this.nrEntries || this.words[NR_GUEST_WORDS + page] === 0) return 0
    Atomics.store(this.words, NR_GUEST_WORDS + page, 0)
    this.#row[PRESENT]--
    this.#row[CLEARED]++
    return 1
  }

  #waitForGuests(): void {
    this.#row[WAITS] += this.#guests.wait(this.#row[ADMITTED])
  }
}
