/** The fuzzer's store that answers later: what comes of its reads, and waiting for pages. */
import { FAULT_BUS, FAULT_OK } from '../../src/abi/fault.ts'
import { FremapError } from '../../src/api/errors.ts'
import { VM_LOCKONFAULT } from '../../src/vma/flags.ts'
import { expectedFault, flagsAt, isOnItsWay, READ, syncCopies, WRITE } from './effects.ts'
import { accessor } from './exec-window.ts'
import { Mismatch } from './mismatch.ts'
import { isPastEnd, mayWrite } from './model.ts'
import type { Arrival, OpOf } from './ops.ts'
import { notePopulated } from './soft-dirty.ts'
import { type FuzzSpace, LOW_PAGES, type World } from './world.ts'

/** A wait that takes longer has been forgotten. */
const LIMIT_MS = 20_000

export function arrive(w: World, op: OpOf<'arrive'>): void {
  w.later?.arrive(op.n, op.how)
}

/** Resolves when all that is due in this turn of the event loop is done. */
export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/** Awaits pages; reads come to their end one after the other, the first one as `how` says. */
export async function ready(w: World, space: FuzzSpace, op: OpOf<'ready'>): Promise<void> {
  if (op.p >= LOW_PAGES) return
  const n = Math.min(op.n, LOW_PAGES - op.p)
  const range = { offset: w.address(op.p), length: w.address(n) }
  let outcome: { readonly error?: unknown } | undefined
  void space.map.ready(range).then(
    () => (outcome = {}),
    error => (outcome = { error })
  )
  let how: Arrival = op.how
  let failed = false
  const start = Date.now()
  for (await turn(); outcome === undefined; await turn()) {
    if (w.later !== undefined && w.later.nrAsked > 0) {
      w.later.arrive(1, how)
      failed ||= how !== 'whole'
      how = 'whole'
    }
    if (Date.now() - start > LIMIT_MS) throw new Mismatch('ready does not come to an end')
  }
  notePopulated(space)
  syncCopies(w, space)
  if ('error' in outcome) checkRefusal(w, space, op.p, n, outcome.error, failed)
  else checkReady(w, space, op, n)
}

/** Each page is there, or could not be asked for: holes, and what is locked only when it is touched. */
function checkReady(w: World, space: FuzzSpace, op: OpOf<'ready'>, n: number): void {
  for (let p = op.p; p < op.p + n; p++) {
    const vpn = w.vpnOf(p)
    const page = space.pages.get(vpn)
    if (page === undefined || (flagsAt(w, space, vpn) & VM_LOCKONFAULT) !== 0) continue
    const fault = expectedFault(page, !page.shared && mayWrite(page) ? WRITE : READ)
    if (fault !== FAULT_OK) throw new Mismatch(`page ${vpn} is ready, but an access comes to fault ${fault}`)
    if (!w.isTight && !w.peeker.isResident(space.mm.id, vpn)) throw new Mismatch(`page ${vpn} is ready, but not there`)
  }
  accessor(w, space, { op: 'load', s: op.s, p: op.p, off: 0, len: 1 })
}

function checkRefusal(w: World, space: FuzzSpace, first: number, n: number, error: unknown, failed: boolean): void {
  if (!(error instanceof FremapError)) throw error
  for (let p = first; p < first + n; p++) {
    const vpn = w.vpnOf(p)
    const page = space.pages.get(vpn)
    if (error.code === 'SIGSEGV' && ![FAULT_OK, FAULT_BUS].includes(expectedFault(page, READ) as 0)) return
    if (error.code === 'SIGBUS' && page !== undefined && isPastEnd(page)) return
    if (error.code === 'EAGAIN' && isOnItsWay(w, space, vpn)) return
  }
  if (error.code === 'SIGBUS' && (failed || w.armed)) return
  if (error.code === 'ENOMEM' && (w.armed || w.isTight)) return
  throw new Mismatch(`ready is refused: ${error.message}`)
}
