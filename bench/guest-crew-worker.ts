/** A thread of `guest-crew.ts`: attaches to the memory and runs the guest on its offsets, round by round. */
import { threadId, workerData } from 'node:worker_threads'
import { startGuest } from '../test/support/guest.ts'
import { type GuestCrewData, OVER } from './guest-crew.ts'
import { nextRound, reportDone, sharedClock } from './roll-call.ts'
import { loadSubject } from './subject.ts'

/** Accesses in one call of the guest: V8 takes up better code for a function only when it is called again. */
const CALL = 1 << 16

const { build, binary, memory, mapping, table, wasm, offsetsAt, count, control, results, slot } =
  workerData as GuestCrewData
const { Memory, ShadowTable } = await loadSubject(build)
if (ShadowTable === undefined) throw new Error('this build has no ShadowTable')
const attached = Memory.attach(memory, { thread: threadId })
const shadow = ShadowTable.adopt(attached.adopt(mapping), table)
const guest = shadow.guest()
const program = startGuest(binary, wasm, {
  fault: (page, access) => shadow.fault(page, access),
  passed: () => guest.passed()
})

reportDone(control)
for (let round = 0; ; ) {
  round = nextRound(control, round)
  if (control[OVER] !== 0) break
  const start = sharedClock()
  let sum = 0
  for (let from = 0; from < count; from += CALL) {
    sum = (sum + guest.run(() => program.sumAt(offsetsAt + from * 4, Math.min(CALL, count - from)))) | 0
  }
  results[slot * 3] = sum
  results[slot * 3 + 1] = start
  results[slot * 3 + 2] = sharedClock()
  reportDone(control)
}
attached.detach()
