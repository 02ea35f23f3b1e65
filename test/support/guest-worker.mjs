/**
 * A thread that runs the guest of guest/ while the machine goes on in the main one. workerData: `source` (shadow-guest
 * as a module's text), `binary`, `memory`, `place` and `slot` of the table, `reply` (a word that answers a fault: 1 it
 * is filled, 2 it cannot be). Messages: `{ call, args }` in; `{ page, access }` for a fault, `{ result }` or `{ error
 * }` out.
 */
import { parentPort, workerData } from 'node:worker_threads'

const { source, binary, memory, place, slot, reply } = workerData
const { ShadowGuest } = await import(`data:text/javascript,${encodeURIComponent(source)}`)
const guest = new ShadowGuest(place, slot)
const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), {
  env: { memory },
  host: {
    fault: (page, access) => guest.outside(() => ask(page >>> 0, access)),
    passed: () => guest.passed()
  }
})

function ask(page, access) {
  Atomics.store(reply, 0, 0)
  parentPort.postMessage({ page, access })
  while (Atomics.load(reply, 0) === 0) Atomics.wait(reply, 0, 0)
  if (Atomics.load(reply, 0) !== 1) throw new Error(`page ${page} cannot be had`)
}

parentPort.on('message', ({ call, args, times }) => {
  try {
    let result
    for (let i = 0; i < times; i++) result = guest.run(() => instance.exports[call](...args))
    parentPort.postMessage({ result })
  } catch (error) {
    parentPort.postMessage({ error: error.message })
  }
})
