/**
 * A secondary MMU after KVM's shadow tables: keeps translations of its own, learns of changes through the notifiers,
 * and pins nothing.
 *
 * Offers `read` and `write` of bytes of an address space through those translations, `verify` (none is stale) and
 * counters. The protocol is the one at the head of src/notify/notifier.ts: a translation is established only if no
 * invalidation began, ran or ended while the primary tables were asked.
 *
 * The caller must not use it after `release`, which is what the end of the address space calls.
 */
import { ACCESS_READ, ACCESS_WRITE } from '../../src/abi/fault.ts'
import { translate } from '../../src/mm/access.ts'
import type { Machine } from '../../src/mm/machine.ts'
import type { MmuNotifier } from '../../src/notify/notifier.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE, pteFrame } from '../../src/pgtable/pte.ts'

export interface Translation {
  readonly frame: number
  readonly writable: boolean
  young: boolean
}

/** Tries of a device fault before it gives up. */
const MAX_TRIES = 100

export class MirrorDevice implements MmuNotifier {
  readonly machine: Machine
  readonly mm: number
  readonly translations: Map<number, Translation> = new Map()
  readonly #active: { readonly start: number; readonly end: number }[] = []
  nrFaults = 0
  nrRetries = 0
  nrInvalidated = 0
  released = false

  constructor(machine: Machine, mm: number) {
    this.machine = machine
    this.mm = mm
  }

  /** One byte of a page, or -(fault code). */
  read(vpn: number, offset: number): number {
    const found = this.#translate(vpn, ACCESS_READ)
    if (typeof found === 'number') return found
    return this.machine.ram.u8[found.frame * this.machine.ram.pageSize + offset]
  }

  /** Stores one byte. → 0, or -(fault code). */
  write(vpn: number, offset: number, value: number): number {
    const found = this.#translate(vpn, ACCESS_WRITE)
    if (typeof found === 'number') return found
    this.machine.ram.u8[found.frame * this.machine.ram.pageSize + offset] = value
    return 0
  }

  /** What is wrong with the translations that are kept now: each must agree with the primary tables. */
  verify(): string[] {
    const wrong: string[] = []
    for (const [vpn, { frame, writable }] of this.translations) {
      const pte = this.machine.tables.get(this.mm, vpn)
      const need = PTE_PRESENT | PTE_READ | (writable ? PTE_WRITE : 0)
      if ((pte & need) !== need || pteFrame(pte) !== frame) {
        wrong.push(
          `the device keeps page ${vpn} of space ${this.mm} at frame ${frame}, the entry is 0x${pte.toString(16)}`
        )
      }
    }
    if (this.#active.length > 0) wrong.push(`${this.#active.length} invalidations have not ended`)
    return wrong
  }

  invalidateRangeStart(_mm: number, start: number, end: number): void {
    this.#active.push({ start, end })
    if (end - start < this.translations.size) {
      for (let vpn = start; vpn < end; vpn++) this.#drop(vpn)
    } else for (const vpn of [...this.translations.keys()]) if (vpn >= start && vpn < end) this.#drop(vpn)
  }

  invalidateRangeEnd(_mm: number, start: number, end: number): void {
    const at = this.#active.findIndex(range => range.start === start && range.end === end)
    if (at < 0) throw new Error(`the end of an invalidation of [${start}, ${end}) that did not start`)
    this.#active.splice(at, 1)
  }

  invalidatePage(_mm: number, vpn: number): void {
    this.#drop(vpn)
  }

  clearFlushYoung(_mm: number, start: number, end: number): boolean {
    let young = false
    for (let vpn = start; vpn < end; vpn++) {
      const found = this.translations.get(vpn)
      if (found?.young !== true) continue
      young = true
      found.young = false
    }
    return young
  }

  testYoung(_mm: number, vpn: number): boolean {
    return this.translations.get(vpn)?.young ?? false
  }

  release(): void {
    this.translations.clear()
    this.released = true
  }

  #drop(vpn: number): void {
    if (this.translations.delete(vpn)) this.nrInvalidated++
  }

  #translate(vpn: number, access: number): Translation | number {
    const kept = this.translations.get(vpn)
    if (kept !== undefined && (access === ACCESS_READ || kept.writable)) {
      kept.young = true
      return kept
    }
    this.nrFaults++
    const { notifiers, tables } = this.machine
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const seq = notifiers.seq(this.mm)
      const frame = translate(this.machine, this.mm, vpn, access)
      if (frame < 0) return frame
      if (notifiers.count(this.mm) !== 0 || notifiers.seq(this.mm) !== seq) {
        this.nrRetries++
        continue
      }
      const writable = (tables.get(this.mm, vpn) & PTE_WRITE) !== 0
      const made = { frame, writable, young: true }
      this.translations.set(vpn, made)
      return made
    }
    throw new Error(`the device fault on page ${vpn} does not come to an end`)
  }
}
