/** A thread of `guest-crew.ts`: attaches to the memory and runs the guest on its offsets, round by round. */
import { threadId, workerData } from 'node:worker_threads'
import { startGuest } from '../test/support/guest.ts'
import { DONE, type GuestCrewData, ROUND } from './guest-crew.ts'
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

function done(): void {
  Atomics.add(control, DONE, 1)
  Atomics.notify(control, DONE)
}

done()
for (let round = 0; ; ) {
  Atomics.wait(control, ROUND, round)
  round = Atomics.load(control, ROUND)
  if (round < 0) break
  const start = performance.timeOrigin + performance.now()
  let sum = 0
  for (let from = 0; from < count; from += CALL) {
    sum = (sum + guest.run(() => program.sumAt(offsetsAt + from * 4, Math.min(CALL, count - from)))) | 0
  }
  results[slot * 3] = sum
  results[slot * 3 + 1] = start
  results[slot * 3 + 2] = performance.timeOrigin + performance.now()
  done()
}
attached.detach()
