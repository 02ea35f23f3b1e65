/**
 * Room made in time: in a memory that threads share, a thread that is about to use frames frees some first when few are
 * left, where it has no lock yet and nothing is half done (Linux: kswapd, which is a thread of its own there).
 *
 *  makeRoom         before a verb takes its locks
 *  makeRoomWithin   within one, between two pages, where no mmap lock is held
 *
 * So reclaim can give the machine lock back while it writes pages, and a slow store holds up nobody else. What an
 * allocation finds missing all the same is reclaimed in its middle, under the lock: clean pages if there are some. So
 * nothing is done here while the pages that reclaim would take next are clean.
 */
import { RECLAIM_WRITES_LOCKED } from '../frame/vmstat.ts'
import type { Machine } from './machine.ts'

/** Pages that one fault writes at most: its own time counts, too. */
const MOST_AT_ONCE = 8
/**
 * After an attempt that freed nothing a thread makes so many faults before the next one, twice as many each time unless
 * that was because there are clean pages; none once it had to write a page with the lock held.
 */
const FIRST_REST = 16
const LONGEST_REST = 1024

/** How one thread makes room. */
export class Balance {
  /** Fewer free frames than these are few; 0 where room is never made ahead. */
  readonly low: number
  rest = 0
  nextRest: number = FIRST_REST
  /** Frames that it had been given at its last attempt: who uses none makes no room for others. */
  nrHanded = 0
  /** Writes with the lock held that this thread had made at its last attempt. */
  writesLocked = 0

  constructor(low: number) {
    this.low = low
  }
}

export function makeRoom(m: Machine): void {
  if (!isWanted(m) || m.inside || isResting(m)) return
  if (!m.enter()) return
  try {
    free(m)
    m.leave()
  } catch (thrown) {
    m.abandon(thrown)
  }
}

export function makeRoomWithin(m: Machine): void {
  if (isWanted(m) && !isResting(m)) free(m)
}

function isWanted({ allocator, balance }: Machine): boolean {
  return allocator.nrFree < balance.low && allocator.nrHanded !== balance.nrHanded
}

function isResting({ balance, vmstat }: Machine): boolean {
  if (balance.rest === 0 || balance.writesLocked !== vmstat[RECLAIM_WRITES_LOCKED]) return false
  balance.rest--
  return true
}

function free(m: Machine): void {
  const { balance, allocator } = m
  if (balance.writesLocked !== m.vmstat[RECLAIM_WRITES_LOCKED]) {
    balance.writesLocked = m.vmstat[RECLAIM_WRITES_LOCKED]
    balance.nextRest = FIRST_REST
  }
  const used = allocator.nrHanded - balance.nrHanded
  balance.nrHanded = allocator.nrHanded
  const wanted = Math.min(MOST_AT_ONCE, 2 * used, 2 * balance.low - allocator.nrFree)
  if (wanted <= 0 || m.reclaim.makeRoom(wanted) > 0) {
    balance.rest = 0
    balance.nextRest = FIRST_REST
    return
  }
  balance.rest = balance.nextRest
  if (m.reclaim.endedAtClean) balance.rest = Math.min(FIRST_REST, allocator.nrFree >>> 1)
  else balance.nextRest = Math.min(LONGEST_REST, 2 * balance.nextRest)
}
