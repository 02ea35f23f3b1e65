/**
 * The part of a software TLB that any thread runs, after SGI's GRU: drops translations, and waits for the thread that
 * may be using them. api/tlb fills and uses it.
 *
 * The TLB belongs to one thread, as a processor's does. Two words an entry, the entry of a page at its number modulo
 * their count:
 *
 *     tag    virtual page + 1, 0 for none
 *     word   as a shadow table's: byte address of the frame, WRITE, READ
 *
 * Only the owner writes a translation, and only it reads one, so it never sees half of one: others write zeros. It says
 * nothing about use (no clearFlushYoung), as the GRU: what it keeps is young in the page tables since it was filled,
 * until reclaim looks.
 *
 * Words of the row (notify/notifier.ts), after the common ones:
 *
 *     TABLE    where the TLB begins in RAM's buffer, in 32-bit words: KICK and its line, then the entries
 *     ENTRIES  how many there are, a power of two
 *     DROPPED  translations that were dropped by invalidations, ever
 *     WAITS    times that the owner was waited for
 *
 * Lock: the machine lock, for everything.
 */
import type { Ram } from '../frame/ram.ts'
import { type MmuNotifier, N_ID, N_MM, N_OWN } from '../notify/notifier.ts'
import type { Sync } from '../sync/sync.ts'
import { Guests, NR_GUEST_WORDS } from './guests.ts'
import { isTranslation, mkTranslation } from './translation.ts'

const TABLE = N_OWN
const ENTRIES: number = N_OWN + 1
const DROPPED: number = N_OWN + 2
const WAITS: number = N_OWN + 3

export class TlbMmu implements MmuNotifier {
  /** KICK and its line, and the entries. */
  readonly words: Int32Array
  readonly nrEntries: number
  readonly #row: Int32Array
  readonly #guests: Guests
  readonly #ram: Ram

  constructor(ram: Ram, sync: Sync, row: Int32Array) {
    this.#ram = ram
    this.#row = row
    this.nrEntries = row[ENTRIES]
    this.words = new Int32Array(ram.buffer, row[TABLE] * 4, NR_GUEST_WORDS + this.nrEntries * 2)
    this.#guests = new Guests(sync, this.words, row[N_ID])
  }

  get nrDropped(): number {
    return this.#row[DROPPED]
  }

  get nrWaits(): number {
    return this.#row[WAITS]
  }

  /** Index of a page's tag in `words`. */
  slotOf(vpn: number): number {
    return NR_GUEST_WORDS + ((vpn & (this.nrEntries - 1)) << 1)
  }

  /** The page's translation says what its entry allows, in the place of what was there. By the owner. */
  fill(vpn: number, pte: number): void {
    const at = this.slotOf(vpn)
    this.words[at] = vpn + 1
    this.words[at + 1] = mkTranslation(this.#ram, pte)
  }

  invalidateRangeStart(_mm: number, start: number, end: number): void {
    let dropped = 0
    if (end - start < this.nrEntries) for (let vpn = start; vpn < end; vpn++) dropped += this.#drop(vpn)
    else dropped = this.#dropAmong(start, end)
    if (dropped > 0) this.#waitForOwner()
  }

  invalidatePage(_mm: number, vpn: number): void {
    if (this.#drop(vpn) > 0) this.#waitForOwner()
  }

  release(): void {
    if (this.#dropAmong(0, Number.POSITIVE_INFINITY) > 0) this.#waitForOwner()
  }

  verify(pteOf: (mm: number, vpn: number) => number): string[] {
    const wrong: string[] = []
    const mm = this.#row[N_MM]
    for (let i = 0; i < this.nrEntries; i++) {
      const at = NR_GUEST_WORDS + i * 2
      const vpn = this.words[at] - 1
      if (vpn < 0) continue
      const pte = pteOf(mm, vpn)
      const word = this.words[at + 1]
      if (!isTranslation(this.#ram, word, pte)) {
        wrong.push(
          `TLB entry of page ${vpn} of space ${mm} is 0x${(word >>> 0).toString(16)}, the pte 0x${pte.toString(16)}`
        )
      }
    }
    return wrong
  }

  #dropAmong(start: number, end: number): number {
    let dropped = 0
    for (let at = NR_GUEST_WORDS; at < this.words.length; at += 2) {
      const vpn = this.words[at] - 1
      if (vpn >= start && vpn < end) dropped += this.#drop(vpn)
    }
    return dropped
  }

  /** → translations dropped: 0 or 1. */
  #drop(vpn: number): number {
    const at = this.slotOf(vpn)
    if (this.words[at] !== vpn + 1) return 0
    Atomics.store(this.words, at, 0)
    Atomics.store(this.words, at + 1, 0)
    this.#row[DROPPED]++
    return 1
  }

  #waitForOwner(): void {
    this.#row[WAITS] += this.#guests.wait(0)
  }
}
