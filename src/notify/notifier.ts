/**
 * MMU notifiers: tell secondary MMUs (shadow tables, TLBs, mirrors) what happens to the page tables.
 *
 * A secondary MMU registers its operations for one address space. The contract (Linux, mmu_notifier.h, 3.19):
 *
 *  - between invalidateRangeStart and invalidateRangeEnd it must not establish translations in the range; what it
 *    had there is gone when start returns. The pages stay valid until start has returned;
 *  - a page is not reused before invalidatePage has returned;
 *  - release comes once, before the pages of a dying address space go.
 *
 * The retry protocol for a secondary fault of a machine of one thread (after KVM):
 *
 *     seq = notify.seq(mm)          translate through the primary tables (may fault)
 *     if (notify.count(mm) !== 0 || notify.seq(mm) !== seq) start again
 *     else establish the translation
 *
 * `count` is the number of ranges being invalidated; `seq` grows at each invalidateRangeEnd and invalidatePage,
 * before `count` falls. Where threads share the machine the translation is established with the locks still held
 * (mm/shared-access, `lockEntry`): then nobody changes entries meanwhile, and only `count` is left to look at.
 *
 * An operation runs in whichever thread changes the entries, with that thread's locks held. There are two ways to
 * register:
 *
 *  register       an object of this thread. Refused (-EOPNOTSUPP) where threads share the machine: another one cannot
 *                 call it, and must not wait for this one, which may be waiting for a lock that the other holds
 *  registerKind   a row of the table below, from which each thread makes an object of its own. All that such a
 *                 secondary MMU knows must be in the row and in memory that all threads see
 *
 *     word     0       1    2     3              4 .. 15
 *     row 0    version
 *     a row    kind    mm   id    thread + 1     the kind's own
 *
 * The version grows with each registration and its end; a thread that sees a new one makes its list again. That is all
 * that a machine without secondary MMUs has to look at. A row that belongs to a thread (word 3) goes with it.
 *
 * Operations must not throw, and must not call back into the machine: where the mmap lock is held such a call gives
 * EDEADLK, but it is not held in a fault, reclaim, truncation or writeback (docs/locking.md). If one does throw, the
 * call goes on as if it had not, and the error comes up as an unhandled rejection.
 *
 * Ranges are virtual page numbers, [start, end). Lock: the machine lock, for all but `count` and `seq`; to register,
 * the mmap lock for writing as well.
 */
import { EOPNOTSUPP } from '../abi/errno.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import { MM_NOTIFY_COUNT, MM_NOTIFY_SEQ, MM_SHIFT, type MmTable } from '../frame/mm-table.ts'
import { BrokenMachine } from '../sync/sync.ts'

export interface MmuNotifier {
  /** Drop and stop establishing translations in [start, end). */
  invalidateRangeStart?(mm: number, start: number, end: number): void
  invalidateRangeEnd?(mm: number, start: number, end: number): void
  /** Drop the translation of one page, now. */
  invalidatePage?(mm: number, vpn: number): void
  /** Was any page of [start, end) used since the last call? Forget that it was. */
  clearFlushYoung?(mm: number, start: number, end: number): boolean
  /** Was the page used, without forgetting it? */
  testYoung?(mm: number, vpn: number): boolean
  /** The pte was replaced in place by one for another frame. Without this, invalidatePage is called. */
  changePte?(mm: number, vpn: number, frame: number): void
  /** The address space goes away. Drop everything. */
  release?(mm: number): void
  /** For the checker: what is wrong with the translations, each of which must agree with the page tables. */
  verify?(pteOf: (mm: number, vpn: number) => number): string[]
}

/** Makes a thread's object for a row. */
export type NotifierKind = (row: Int32Array) => MmuNotifier

/** 0 is a free row. */
export const N_KIND = 0 as const
export const N_MM = 1 as const
/** No two registrations have the same; its low six bits are the row. */
export const N_ID = 2 as const
export const N_THREAD = 3 as const
/** What follows is the kind's own. */
export const N_OWN = 4 as const

const ROW_SHIFT = 4
const ROW_BITS = 6
const NR_ROWS: number = 1 << ROW_BITS
const ROW_MASK: number = NR_ROWS - 1
const MAX_VERSION = 0x1ffffff
/** In row 0. */
const VERSION = 0

interface Registered {
  readonly mm: number
  readonly ops: MmuNotifier
}

export class Notifiers {
  readonly mms: MmTable
  readonly #w: Int32Array
  readonly #isShared: boolean
  /** By kind; kind 0 is none. */
  readonly #kinds: readonly (NotifierKind | undefined)[]
  /** Objects of this thread that were registered as such. */
  readonly #plain: Registered[] = []
  /** Objects of this thread for rows, and the ids that the rows had. */
  readonly #views: (MmuNotifier | undefined)[] = []
  readonly #ids: number[] = []
  /** All of them by address space, as of version `#seen`; undefined is the common, free case. */
  readonly #ops: (MmuNotifier[] | undefined)[] = []
  #seen = 0
  /** How many operations are running. */
  #nrCalls = 0

  constructor(columns: ColumnSource, mms: MmTable, isShared: boolean, kinds: readonly (NotifierKind | undefined)[]) {
    this.mms = mms
    this.#w = columns.int32('notifiers', NR_ROWS << ROW_SHIFT)
    this.#isShared = isShared
    this.#kinds = kinds
  }

  /**
   * Adds an object of this thread. The caller holds the mmap lock for writing (Linux: mm_take_all_locks). → 0 or
   * -errno.
   */
  register(mm: number, ops: MmuNotifier): number {
    if (this.#isShared) return -EOPNOTSUPP
    this.#plain.push({ mm, ops })
    this.#w[VERSION]++
    return 0
  }

  /** Takes `ops` out, calling its release first. False when it was not registered. */
  unregister(mm: number, ops: MmuNotifier): boolean {
    const at = this.#plain.findIndex(one => one.mm === mm && one.ops === ops)
    if (at < 0) return false
    this.#safely(() => ops.release?.(mm))
    this.#plain.splice(at, 1)
    this.#w[VERSION]++
    return true
  }

  /**
   * Adds a secondary MMU of a kind; `own` are the first of its own words, the others are 0. `thread` is whose it is, -1
   * for one that is everybody's. → its id, whose low bits are the row, or 0 when no row is free.
   */
  registerKind(mm: number, kind: number, thread: number, own: readonly number[]): number {
    const w = this.#w
    for (let row = 1; row < NR_ROWS; row++) {
      const at = row << ROW_SHIFT
      if (w[at + N_KIND] !== 0) continue
      w.fill(0, at, at + (1 << ROW_SHIFT))
      w.set(own, at + N_OWN)
      w[at + N_MM] = mm
      w[at + N_THREAD] = thread + 1
      w[at + N_ID] = ((++w[VERSION] & MAX_VERSION) << ROW_BITS) | row
      w[at + N_KIND] = kind
      return w[at + N_ID]
    }
    return 0
  }

  /** Takes one of a kind out, calling its release first. False when it has ended already. */
  unregisterKind(id: number): boolean {
    const ops = this.view(id)
    if (ops === undefined) return false
    const row = id & ROW_MASK
    this.#safely(() => ops.release?.(this.#w[(row << ROW_SHIFT) + N_MM]))
    this.#free(row)
    return true
  }

  isRegistered(id: number): boolean {
    const at = (id & ROW_MASK) << ROW_SHIFT
    return this.#w[at + N_KIND] !== 0 && this.#w[at + N_ID] === id
  }

  /** This thread's object for a registration, undefined when it has ended. */
  view(id: number): MmuNotifier | undefined {
    this.#refreshIfOld()
    return this.isRegistered(id) ? this.#views[id & ROW_MASK] : undefined
  }

  /** A thread has ended: rows that were its own go. Nobody waits for it any more. */
  forgetThread(thread: number): void {
    for (let row = 1; row < NR_ROWS; row++) {
      const at = row << ROW_SHIFT
      if (this.#w[at + N_KIND] !== 0 && this.#w[at + N_THREAD] === thread + 1) this.#free(row)
    }
  }

  /** Whoever held the mmap lock for writing has ended: so have its ranges. Entries are whole, changed or not. */
  abandonRanges(mm: number): void {
    const at = mm << MM_SHIFT
    if (this.mms.w[at + MM_NOTIFY_COUNT] === 0) return
    this.mms.w[at + MM_NOTIFY_SEQ]++
    this.mms.w[at + MM_NOTIFY_COUNT] = 0
  }

  /** For the checker: what is wrong with any secondary MMU's translations, a line each. */
  verify(pteOf: (mm: number, vpn: number) => number): string[] {
    this.#refreshIfOld()
    return this.#ops.flatMap(list => list?.flatMap(ops => ops.verify?.(pteOf) ?? []) ?? [])
  }

  has(mm: number): boolean {
    return this.#of(mm) !== undefined
  }

  /** Whether an operation of a secondary MMU runs in this thread. */
  get areCalled(): boolean {
    return this.#nrCalls !== 0
  }

  count(mm: number): number {
    return this.mms.row(mm, MM_NOTIFY_COUNT)
  }

  seq(mm: number): number {
    return this.mms.row(mm, MM_NOTIFY_SEQ)
  }

  rangeStart(mm: number, start: number, end: number): void {
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_COUNT]++
    const list = this.#of(mm)
    if (list === undefined) return
    for (const ops of list) this.#safely(() => ops.invalidateRangeStart?.(mm, start, end))
  }

  rangeEnd(mm: number, start: number, end: number): void {
    const list = this.#of(mm)
    if (list !== undefined) for (const ops of list) this.#safely(() => ops.invalidateRangeEnd?.(mm, start, end))
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_COUNT]--
  }

  invalidatePage(mm: number, vpn: number): void {
    const list = this.#of(mm)
    if (list === undefined) return
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    for (const ops of list) this.#safely(() => ops.invalidatePage?.(mm, vpn))
  }

  clearFlushYoung(mm: number, start: number, end: number): boolean {
    const list = this.#of(mm)
    if (list === undefined) return false
    let young = false
    for (const ops of list) if (this.#safely(() => ops.clearFlushYoung?.(mm, start, end)) === true) young = true
    return young
  }

  testYoung(mm: number, vpn: number): boolean {
    return this.#of(mm)?.some(ops => this.#safely(() => ops.testYoung?.(mm, vpn)) === true) ?? false
  }

  changePte(mm: number, vpn: number, frame: number): void {
    const list = this.#of(mm)
    if (list === undefined) return
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    for (const ops of list) {
      this.#safely(() => (ops.changePte === undefined ? ops.invalidatePage?.(mm, vpn) : ops.changePte(mm, vpn, frame)))
    }
  }

  /** The address space dies: each notifier's release, then none are left. */
  release(mm: number): void {
    const list = this.#of(mm)
    if (list === undefined) return
    for (const ops of list) this.#safely(() => ops.release?.(mm))
    for (let row = 1; row < NR_ROWS; row++) if (this.#w[(row << ROW_SHIFT) + N_MM] === mm) this.#free(row)
    for (let i = this.#plain.length - 1; i >= 0; i--) if (this.#plain[i].mm === mm) this.#plain.splice(i, 1)
    this.#w[VERSION]++
  }

  /** Runs an operation; what it throws must not end the verb half way. */
  #safely<T>(run: () => T): T | undefined {
    this.#nrCalls++
    try {
      return run()
    } catch (thrown) {
      // Nothing may go on: a guest may be using what was to be taken from it.
      if (thrown instanceof BrokenMachine) throw thrown
      void Promise.reject(thrown)
      return undefined
    } finally {
      this.#nrCalls--
    }
  }

  #of(mm: number): readonly MmuNotifier[] | undefined {
    this.#refreshIfOld()
    return this.#ops[mm]
  }

  #free(row: number): void {
    const at = row << ROW_SHIFT
    this.#w.fill(0, at, at + (1 << ROW_SHIFT))
    this.#w[VERSION]++
  }

  #refreshIfOld(): void {
    if (this.#w[VERSION] !== this.#seen) this.#refresh()
  }

  /** Makes this thread's lists anew: objects for new rows, none for those that are gone. */
  #refresh(): void {
    const w = this.#w
    this.#seen = w[VERSION]
    this.#ops.length = 0
    for (const { mm, ops } of this.#plain) this.#list(mm, ops)
    for (let row = 1; row < NR_ROWS; row++) {
      const at = row << ROW_SHIFT
      const kind = w[at + N_KIND]
      if (kind === 0) {
        this.#views[row] = undefined
        continue
      }
      if (this.#views[row] === undefined || this.#ids[row] !== w[at + N_ID]) {
        this.#views[row] = this.#kinds[kind]?.(w.subarray(at, at + (1 << ROW_SHIFT)))
        this.#ids[row] = w[at + N_ID]
      }
      this.#list(w[at + N_MM], this.#views[row])
    }
  }

  #list(mm: number, ops: MmuNotifier | undefined): void {
    if (ops === undefined) return
    const list = this.#ops[mm]
    if (list === undefined) this.#ops[mm] = [ops]
    else list.push(ops)
  }
}
