/**
 * mm_populate: faults a range in, after the call that asked for it has dropped the mmap lock (Linux 3.9+).
 *
 * It works in bounded steps and lets go of the lock between them: then mappings may change. It populates what is mapped
 * when it gets there: holes are skipped, and so is what was mapped in the place of the range since the call (`ticket`,
 * from `vmas.clock`).
 *
 * Shared mappings are read-faulted and never dirtied; private writable ones get their copies. Ascending within a vma,
 * up to the first page that fails: the rest of that vma's part is then left alone, and the next vma tried (or, for
 * mlock, which reports it, nothing more).
 */
import { EAGAIN, EFAULT, ENOMEM } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_BUS, FAULT_OK, FAULT_OOM, FAULT_WAIT } from '../abi/fault.ts'
import { PTE_PRESENT, PTE_READ, PTE_READ_HIT, PTE_WRITE, PTE_YOUNG, pteFrame } from '../pgtable/pte.ts'
import { VM_LOCKED, VM_LOCKONFAULT, VM_SHARED, VM_WRITE } from '../vma/flags.ts'
import { makeRoom } from './balance.ts'
import { faultInside } from './fault.ts'
import { fetchError } from './filemap.ts'
import type { Machine } from './machine.ts'
import { mlockPage } from './mlock-pages.ts'

/** Pages that one step faults in. */
export const POPULATE_STEP_PAGES = 256 as const

/** Pages for which the mmap lock is held at a time: a writer waits for no more of them. */
const LOCKED_PAGES = 16

/** What follows a page that cannot be populated. */
export const ERROR_SKIPS_VMA = 0 as const
export const ERROR_ENDS = 1 as const
export type OnError = typeof ERROR_SKIPS_VMA | typeof ERROR_ENDS

export class PopulateCursor {
  vpn: number
  readonly end: number
  readonly ticket: number
  readonly onError: OnError
  /**
   * First error, -EFAULT, -ENOMEM or -EAGAIN (this thread may not wait for a page or a lock); 0 while there is none.
   */
  error = 0
  /** Where it came up, and the fault code: FAULT_OK when it was no fault, FAULT_WAIT when the page is on its way. */
  failedAt = -1
  fault: number = FAULT_OK
  /** Pages made present, or found so. */
  populated = 0
  /** Pages count as used, so that reclaim takes older ones before them: who asked waits for them. */
  marksUsed = false
  /** The page that was waited for last, and how many failures were noted before: whether it is one of them. */
  waitInode = 0
  waitIndex = 0
  since = 0
  /** Whether the last thing that it did was to wait: what comes next may be the same wait. */
  isWaiting = false

  constructor(vpn: number, end: number, ticket: number, onError: OnError = ERROR_SKIPS_VMA) {
    this.vpn = vpn
    this.end = end
    this.ticket = ticket
    this.onError = onError
  }

  get done(): boolean {
    return this.vpn >= this.end
  }

  /** Notes an error, if it is the first, and goes on at `vpn`. */
  fail(error: number, fault: number, vpn: number): void {
    if (this.error === 0) {
      this.error = error
      this.fault = fault
      this.failedAt = this.vpn
    }
    this.vpn = vpn
  }
}

/** Does one step of at most `maxPages` pages. The mmap lock is held (for reading) for a few pages at a time only. */
export function populateStep(m: Machine, mm: number, cursor: PopulateCursor, maxPages: number): void {
  let left = maxPages
  cursor.waitInode = 0
  cursor.since = m.filler.requests.nrFailures
  while (left > 0 && !cursor.done) {
    // One that has waited for a frame goes on at once: `makeRoom` is a verb of its own, at whose end it would have lost
    // its place.
    if (!m.sync.line.isIn) makeRoom(m)
    if (!m.lockMmRead(mm, 0)) {
      if (m.sync.line.isIn) m.giveBack(() => m.sync.line.leave())
      cursor.fail(m.refused === EAGAIN ? -EAGAIN : -EFAULT, FAULT_OK, cursor.end)
      return
    }
    const before = cursor.populated
    const error = populateOrWait(m, mm, cursor, Math.min(left, LOCKED_PAGES))
    left -= cursor.populated - before
    if (error !== 0) {
      if (error === EAGAIN) cursor.fail(-EAGAIN, FAULT_WAIT, cursor.end)
      else {
        m.lastError = error
        cursor.fail(-EFAULT, FAULT_BUS, cursor.end)
      }
      return
    }
  }
}

/** With the mmap lock held, which is let go of. → 0 when something was populated or waited for, else an errno. */
function populateOrWait(m: Machine, mm: number, cursor: PopulateCursor, maxPages: number): number {
  try {
    if (populateLocked(m, mm, cursor, maxPages) !== FAULT_WAIT) {
      m.unlockMmRead(mm)
      cursor.isWaiting = false
      return 0
    }
    if (!cursor.isWaiting) m.sync.beginWait()
    cursor.isWaiting = true
    cursor.waitInode = m.waitInode
    cursor.waitIndex = m.waitIndex
    return m.waitForPageOutside(mm)
  } catch (thrown) {
    return -m.abandon(thrown)
  }
}

/**
 * As much of a step as is done without letting go of the lock. → FAULT_WAIT when a page is on its way, else FAULT_OK.
 */
function populateLocked(m: Machine, mm: number, cursor: PopulateCursor, maxPages: number): number {
  const { vmas } = m
  const vma = vmas.find(mm, cursor.vpn)
  if (vma === 0 || vmas.start[vma] >= cursor.end) {
    cursor.vpn = cursor.end
    return FAULT_OK
  }
  const stop = Math.min(cursor.end, vmas.end[vma])
  if (cursor.vpn < vmas.start[vma]) cursor.vpn = vmas.start[vma]
  const flags = vmas.flags[vma]
  if (vmas.birth[vma] > cursor.ticket || (flags & VM_LOCKONFAULT) !== 0) {
    cursor.vpn = stop
    return FAULT_OK
  }
  const access = (flags & (VM_WRITE | VM_SHARED)) === VM_WRITE ? ACCESS_WRITE : ACCESS_READ
  for (let left = maxPages; left > 0 && cursor.vpn < stop; left--) {
    const code = couldNotBeHad(m, cursor) ? FAULT_BUS : faultIn(m, mm, cursor.vpn, access, flags)
    if (code === FAULT_WAIT) return FAULT_WAIT
    if (code !== FAULT_OK) {
      const error = code === FAULT_OOM ? -ENOMEM : -EFAULT
      cursor.fail(error, code, cursor.onError === ERROR_ENDS ? cursor.end : stop)
      return FAULT_OK
    }
    if (cursor.marksUsed) markUsed(m, mm, cursor.vpn)
    cursor.vpn++
    cursor.populated++
  }
  return FAULT_OK
}

/** Whether the page that was waited for is known not to come. It is not asked for again. */
function couldNotBeHad(m: Machine, cursor: PopulateCursor): boolean {
  const { waitInode } = cursor
  if (waitInode === 0) return false
  const error = fetchError(m, cursor.since, waitInode, cursor.waitIndex)
  cursor.waitInode = 0
  if (error !== 0) m.lastError = error
  return error !== 0
}

/** The whole range, step by step. → 0, or the first error (which most callers ignore, as Linux does). */
export function mmPopulate(
  m: Machine,
  mm: number,
  start: number,
  end: number,
  ticket: number,
  onError: OnError = ERROR_SKIPS_VMA
): number {
  const cursor = new PopulateCursor(start, end, ticket, onError)
  while (!cursor.done) populateStep(m, mm, cursor, POPULATE_STEP_PAGES)
  return cursor.error
}

function markUsed(m: Machine, mm: number, vpn: number): void {
  const slot = m.tables.find(mm, vpn)
  const pte = m.ram.i32[slot]
  if ((pte & (PTE_PRESENT | PTE_YOUNG)) === PTE_PRESENT) m.tables.rewrite(slot, pte | PTE_YOUNG)
}

function faultIn(m: Machine, mm: number, vpn: number, access: number, vmFlags: number): number {
  const need = access === ACCESS_WRITE ? PTE_PRESENT | PTE_WRITE : PTE_PRESENT | PTE_READ
  let pte = m.tables.get(mm, vpn)
  if ((pte & need) !== need) {
    const code = faultInside(m, mm, vpn, access)
    if (code !== FAULT_OK) return code
    pte = m.tables.get(mm, vpn)
  }
  if ((vmFlags & VM_LOCKED) !== 0 && (pte & PTE_READ_HIT) !== 0) mlockPage(m, pteFrame(pte))
  return FAULT_OK
}
