/**
 * MMU notifiers: tell secondary MMUs (shadow tables, device TLBs, mirrors) what happens to the page tables.
 *
 * A secondary MMU registers its operations for one address space. The contract (Linux, mmu_notifier.h, 3.19):
 *
 *  - between invalidateRangeStart and invalidateRangeEnd it must not establish translations in the range; what it
 *    had there is gone when start returns. The pages stay valid until start has returned;
 *  - a page is not reused before invalidatePage has returned;
 *  - release comes once, before the pages of a dying address space go.
 *
 * The retry protocol for a secondary fault, lock-free (after KVM):
 *
 *     seq = notify.seq(mm)          translate through the primary tables (may fault)
 *     if (notify.count(mm) !== 0 || notify.seq(mm) !== seq) start again
 *     else establish the translation
 *
 * `count` is the number of ranges being invalidated; `seq` grows at each invalidateRangeEnd and invalidatePage,
 * before `count` falls. Operations must not throw, and must not call back into the machine: where the mmap lock is held
 * such a call gives EDEADLK, but it is not held in a fault, reclaim, truncation or writeback (docs/locking.md).
 *
 * An operation must not throw. If one does, the call goes on as if it had not, and the error comes up as an unhandled
 * rejection.
 *
 * Ranges are virtual page numbers, [start, end).
 */
import { MM_NOTIFY_COUNT, MM_NOTIFY_SEQ, MM_SHIFT, type MmTable } from '../frame/mm-table.ts'

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
}

export class Notifiers {
  readonly mms: MmTable
  /** Registered ones by address space; undefined is the common, free case. */
  readonly #ops: (MmuNotifier[] | undefined)[] = []

  constructor(mms: MmTable) {
    this.mms = mms
  }

  /** Adds `ops`. The caller holds the mmap lock for writing (Linux: mm_take_all_locks). */
  register(mm: number, ops: MmuNotifier): void {
    const list = this.#ops[mm]
    if (list === undefined) this.#ops[mm] = [ops]
    else list.push(ops)
  }

  /** Takes `ops` out, calling its release first. False when it was not registered. */
  unregister(mm: number, ops: MmuNotifier): boolean {
    const list = this.#ops[mm]
    const at = list === undefined ? -1 : list.indexOf(ops)
    if (list === undefined || at < 0) return false
    safely(() => ops.release?.(mm))
    list.splice(at, 1)
    if (list.length === 0) this.#ops[mm] = undefined
    return true
  }

  has(mm: number): boolean {
    return this.#ops[mm] !== undefined
  }

  count(mm: number): number {
    return this.mms.row(mm, MM_NOTIFY_COUNT)
  }

  seq(mm: number): number {
    return this.mms.row(mm, MM_NOTIFY_SEQ)
  }

  rangeStart(mm: number, start: number, end: number): void {
    const list = this.#ops[mm]
    if (list === undefined) return
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_COUNT]++
    for (const ops of list) safely(() => ops.invalidateRangeStart?.(mm, start, end))
  }

  rangeEnd(mm: number, start: number, end: number): void {
    const list = this.#ops[mm]
    if (list === undefined) return
    for (const ops of list) safely(() => ops.invalidateRangeEnd?.(mm, start, end))
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_COUNT]--
  }

  invalidatePage(mm: number, vpn: number): void {
    const list = this.#ops[mm]
    if (list === undefined) return
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    for (const ops of list) safely(() => ops.invalidatePage?.(mm, vpn))
  }

  clearFlushYoung(mm: number, start: number, end: number): boolean {
    const list = this.#ops[mm]
    if (list === undefined) return false
    let young = false
    for (const ops of list) if (safely(() => ops.clearFlushYoung?.(mm, start, end)) === true) young = true
    return young
  }

  testYoung(mm: number, vpn: number): boolean {
    const list = this.#ops[mm]
    return list?.some(ops => safely(() => ops.testYoung?.(mm, vpn)) === true) ?? false
  }

  changePte(mm: number, vpn: number, frame: number): void {
    const list = this.#ops[mm]
    if (list === undefined) return
    this.mms.w[(mm << MM_SHIFT) + MM_NOTIFY_SEQ]++
    for (const ops of list) {
      safely(() => (ops.changePte === undefined ? ops.invalidatePage?.(mm, vpn) : ops.changePte(mm, vpn, frame)))
    }
  }

  /** The address space dies: each notifier's release, then none are left. */
  release(mm: number): void {
    const list = this.#ops[mm]
    if (list === undefined) return
    this.#ops[mm] = undefined
    for (const ops of list) safely(() => ops.release?.(mm))
  }
}

/** Runs an operation of a secondary MMU; what it throws must not end the verb half way. */
function safely<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch (thrown) {
    void Promise.reject(thrown)
    return undefined
  }
}
