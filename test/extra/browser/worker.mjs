/** A worker of the page: attaches to its memory and does what it says. */
import { blobStoreSync } from '/dist/blob.js'
import { Memory } from '/dist/fremap.js'
import { httpRange } from '/dist/http.js'

const PAGE = 4096
let memory
const things = {}

const calls = {
  attach: (handle, thread) => {
    memory = Memory.attach(handle, { thread })
  },
  adopt: (name, handle) => {
    things[name] = memory.adopt(handle)
  },
  open: async url => (await memory.openAsync(await httpRange(url))).handle,
  load: (name, offset) => things[name].getUint32(offset),
  store: (name, offset, value) => things[name].setUint32(offset, value),
  /** Of the first words of all pages. */
  sum: () => {
    let sum = 0
    for (let at = 0; at + 4 <= things.map.length; at += PAGE) sum += things.map.getUint32(at)
    return sum
  },
  /** Holds the machine lock until the gate opens. */
  holdLock: gate => {
    memory.machine.enter()
    Atomics.store(gate, 1, 1)
    Atomics.notify(gate, 1)
    Atomics.wait(gate, 0, 0)
    memory.machine.leave()
  },
  /** Through a mapping, with no promise anywhere. → how many bytes are wrong. */
  readBlob: file => {
    const own = new Memory({ size: '64KiB' })
    const bytes = new Uint8Array(file.size)
    own
      .space()
      .map(own.open(blobStoreSync(file)))
      .read(bytes, 0)
    own.close()
    return bytes.reduce((wrong, byte, i) => wrong + (byte === i % 251 ? 0 : 1), 0)
  },
  detach: () => memory.detach()
}

addEventListener('message', async ({ data: { id, call, args } }) => {
  try {
    postMessage({ id, value: await calls[call](...args) })
  } catch ({ message, code }) {
    postMessage({ id, error: { message, code } })
  }
})
