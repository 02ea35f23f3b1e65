/**
 * Tlb: a software TLB for one thread, a secondary MMU after SGI's GRU: for an emulator, whose guest reaches a whole
 * address space of any size by a table of fixed size.
 *
 *     const tlb = new Tlb(space, { byteOffset: 0x10000, nrEntries: 1024 })
 *     tlb.guest().run(() => {
 *       const word = u32[(tlb.translate(vpn, SHADOW_READ) + offset) >>> 2]     u32: over the buffer that the frames are
 *                                                                              in
 *       tlb.safePoint()
 *     })
 *
 * It keeps no page and pins none. Whoever changes entries drops their translations and waits until the guest is at a
 * safe point or has left (mmu/guests), so what `translate` gave is good until the next `safePoint`, or call of
 * `translate` that misses.
 *
 * A miss takes the locks as a shadow table's fault does and is right for the same reasons (shadow-table.ts). The GRU
 * has a count of active ranges for which its faults wait; here that is the mmap lock, and the count is looked at for
 * machines of one thread.
 */
import { ESRCH } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import { defineHidden, inspectedAs, summary } from '../base/printing.ts'
import { lockEntry } from '../mm/fault.ts'
import type { Machine } from '../mm/machine.ts'
import { KICK, NR_GUEST_WORDS } from '../mmu/guests.ts'
import { MMU_TLB } from '../mmu/kinds.ts'
import type { ShadowGuest } from '../mmu/shadow-guest.ts'
import { TlbMmu } from '../mmu/tlb-mmu.ts'
import { SHADOW_READ, SHADOW_WRITE } from '../mmu/translation.ts'
import { sys_mmu_kind_register, sys_mmu_kind_unregister } from '../syscall/process.ts'
import { checkAttached, checkSpace } from './belongs.ts'
import { faultError, orThrow, systemError } from './errors.ts'
import { clearPlace, guestOf, unknownGuest } from './mmu-place.ts'
import type { AddressSpace } from './space.ts'

export interface TlbPlace {
  /** Where it begins in the memory that the frames are in, a multiple of 4: 64 bytes, then 8 for each entry. */
  readonly byteOffset: number
  /** A power of two. */
  readonly nrEntries: number
}

export class Tlb {
  static {
    inspectedAs(Tlb, tlb => {
      const isOpen = tlb.#machine.notifiers.isRegistered(tlb.#id)
      return summary('Tlb', { nrEntries: tlb.mask + 1, nrMisses: tlb.nrMisses }, isOpen ? '' : 'closed')
    })
  }

  readonly space: AddressSpace
  readonly #machine: Machine
  readonly #mm: number
  readonly #id: number
  readonly #mmu: TlbMmu
  readonly #guest: ShadowGuest
  // What a hit needs. TypeScript's private: V8 reads such fields faster than #names in the flattened build.
  // Hidden (base/printing), so without definitions of their own.
  declare private words: Int32Array
  declare private readonly mask: number
  declare private readonly frameMask: number
  nrMisses = 0

  /**
   * Throws RangeError for a place that cannot be, ENOMEM for the 64th secondary MMU of a memory. What stands there is
   * lost.
   */
  constructor(space: AddressSpace, { byteOffset, nrEntries }: TlbPlace) {
    const { machine } = space
    if (!Number.isSafeInteger(nrEntries) || nrEntries < 1 || 2 ** Math.floor(Math.log2(nrEntries)) !== nrEntries) {
      throw new RangeError(`a TLB has a power of two of entries, not ${nrEntries}`)
    }
    const own = [clearPlace(machine.ram, byteOffset, NR_GUEST_WORDS * 4 + nrEntries * 8), nrEntries]
    this.space = space
    this.#machine = machine
    this.#mm = space.mm.id
    this.#id = orThrow(sys_mmu_kind_register(space.mm, MMU_TLB, machine.sync.me, own), 'mmu_notifier_register')
    const mmu = machine.quietly(() => machine.notifiers.view(this.#id))
    if (!(mmu instanceof TlbMmu)) throw systemError(-ESRCH, 'mmu_notifier_register')
    this.#mmu = mmu
    this.#guest = guestOf(machine, this.#id, mmu.words)
    defineHidden(this, { words: mmu.words, mask: nrEntries - 1, frameMask: -machine.ram.pageSize })
    machine.reaches.add(this)
  }

  /** @internal This thread has detached: nothing is translated any more. */
  leave(): void {
    this.words = new Int32Array(0)
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    const isOpen = this.#machine.notifiers.isRegistered(this.#id)
    return { kind: 'tlb', space: this.space.toJSON(), nrEntries: this.mask + 1, nrMisses: this.nrMisses, isOpen }
  }

  /** Runs what uses the TLB in this thread. */
  guest(): ShadowGuest {
    return this.#guest
  }

  /** Translations that others dropped, and how often they waited for this thread. */
  get nrDropped(): number {
    return this.#mmu.nrDropped
  }

  get nrWaits(): number {
    return this.#mmu.nrWaits
  }

  /**
   * Where a virtual page is in the buffer that the frames are in, in bytes; `access` is SHADOW_READ or SHADOW_WRITE.
   * Throws FaultError where Linux would send a signal.
   */
  translate(vpn: number, access: number): number {
    const at = NR_GUEST_WORDS + ((vpn & this.mask) << 1)
    const word = this.words[at + 1]
    if (this.words[at] === vpn + 1 && (word & access) !== 0) return (word & this.frameMask) >>> 0
    return this.miss(vpn, access)
  }

  /** No translation from before is in use. At least once in any loop. */
  safePoint(): void {
    if (Atomics.load(this.words, KICK) !== 0) this.#guest.passed()
  }

  /** Takes the TLB off its address space. */
  close(): void {
    if (!this.#machine.hasLeft && this.#machine.notifiers.isRegistered(this.#id)) {
      orThrow(sys_mmu_kind_unregister(this.space.mm, this.#id), 'mmu_notifier_unregister')
    }
  }

  [Symbol.dispose](): void {
    this.close()
  }

  private miss(vpn: number, access: number): number {
    checkAttached(this.#machine, 'access')
    if (access !== SHADOW_READ && access !== SHADOW_WRITE) throw new RangeError(`${String(access)} is no access`)
    if (!Number.isSafeInteger(vpn)) throw new RangeError(`${String(vpn)} is no page of an address space`)
    this.nrMisses++
    const wanted = access === SHADOW_WRITE ? ACCESS_WRITE : ACCESS_READ
    const m = this.#machine
    const at = this.#mmu.slotOf(vpn)
    for (;;) {
      let code: number = FAULT_OK
      if (this.#guest.isInside) code = this.#guest.outside(() => this.#fill(vpn, wanted))
      else if (!m.sync.isShared) code = this.#fill(vpn, wanted)
      else throw unknownGuest()
      if (code !== FAULT_OK) return this.#fail(vpn, code, wanted)
      // It may have been dropped while this thread was outside.
      const word = this.words[at + 1]
      if (this.words[at] === vpn + 1 && (word & access) !== 0) return (word & this.frameMask) >>> 0
    }
  }

  #fail(vpn: number, code: number, access: number): never {
    const m = this.#machine
    const address = vpn * m.ram.pageSize
    checkSpace(this.space.mm, 'access', address)
    const kind = access === ACCESS_WRITE ? 'write' : 'read'
    if (m.sync.broken !== 0) throw systemError(-m.sync.broken, kind, address)
    throw faultError(code, m.lastError, address, kind, undefined, undefined, 0)
  }

  #fill(vpn: number, access: number): number {
    const m = this.#machine
    const code = lockEntry(m, this.#mm, this.space.mm.generation, vpn, access)
    if (code !== FAULT_OK) return code
    const filled = m.notifiers.isRegistered(this.#id) && m.notifiers.count(this.#mm) === 0
    if (filled) this.#mmu.fill(vpn, m.tables.get(this.#mm, vpn))
    m.unlockMmRead(this.#mm)
    m.lastError = 0
    return filled ? FAULT_OK : FAULT_OOM
  }
}
