/**
 * A thread that attaches to a memory and does what the test says: methods of its memory, mapping or file, by name. A
 * call that waits keeps the thread; its answer tells.
 *
 * `open` makes it the pager of a store of marked pages (page i begins with the 32-bit word i + 1), whose reads wait
 * while the gate, a shared word, is 1.
 */
import { parentPort, threadId, workerData } from 'node:worker_threads'

/** A word of the thread table's rows (src/sync/threads.ts): how often the thread slept for another one. */
const T_WAITS = 12

const { entry, handle, options } = workerData
const { Memory } = await import(entry)
const memory = Memory.attach(handle, { thread: threadId, ...options })
const things = { memory }

function markedStore(pages, gate) {
  let isClosed = false
  return {
    name: 'of another thread',
    identity: undefined,
    readOnly: true,
    durable: false,
    size: async () => pages * memory.pageSize,
    async read(position, buffer, offset, length) {
      Atomics.add(gate, 1, 1)
      Atomics.notify(gate, 1)
      while (Atomics.load(gate, 0) === 1) {
        const { value } = Atomics.waitAsync(gate, 0, 1)
        await value
      }
      if (isClosed) throw Object.assign(new Error('closed'), { code: 'ECANCELED' })
      const view = new DataView(buffer.buffer, buffer.byteOffset + offset, length)
      buffer.fill(0, offset, offset + length)
      for (let at = 0; at + 4 <= length; at += memory.pageSize) {
        view.setUint32(at, (position + at) / memory.pageSize + 1, true)
      }
      return length
    },
    write: async () => -9,
    flush: async () => 0,
    truncate: async () => -9,
    punch: async () => -9,
    async close() {
      isClosed = true
      return 0
    }
  }
}

const calls = {
  adopt: (name, thing) => {
    things[name] = memory.adopt(thing)
  },
  open: async (pages, gate) => {
    things.file = await memory.openAsync(markedStore(pages, gate))
    return things.file.handle
  },
  /** The word at the beginning of each of these pages. */
  loads: pages => pages.map(page => things.map.getUint32(page * memory.pageSize)),
  bytes: (thing, offset, length) => {
    const target = new Uint8Array(length)
    things[thing].read(target, offset)
    return target
  },
  /** Of the words of the first so many bytes of the mapping. */
  checksum: lengthBytes => {
    let sum = 0
    for (let at = 0; at + 4 <= lengthBytes; at += 4) sum = (Math.imul(sum, 31) + things.map.getInt32(at)) | 0
    return sum
  },
  /** Throws when one of the first so many bytes is another one than `byte`. */
  checkAll: (lengthBytes, byte) => {
    const buffer = new Uint8Array(memory.pageSize)
    for (let at = 0; at < lengthBytes; at += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, lengthBytes - at))
      things.map.read(part, at)
      if (part.some(one => one !== byte)) throw new Error(`another byte than ${byte} in page ${at / buffer.length}`)
    }
  },
  /** Keeps the thread from its event loop until the gate opens. */
  block: gate => Atomics.wait(gate, 0, 1),
  /** Opens the gate once the thread in a row of the thread table has gone to sleep for another one. */
  openWhenWaiting: (gate, row) => {
    const { threads } = memory.machine.sync
    const waits = threads.at(row, T_WAITS)
    for (const before = Atomics.load(threads.w, waits); Atomics.load(threads.w, waits) === before; )
      Atomics.wait(gate, 0, 1, 1)
    Atomics.store(gate, 0, 0)
    Atomics.notify(gate, 0)
  },
  patience: ms => {
    memory.machine.sync.patienceMs = ms
  },
  call: (thing, method, args) => things[thing][method](...args)
}

parentPort.on('message', async ({ id, call, args }) => {
  try {
    parentPort.postMessage({ id, value: await calls[call](...args) })
  } catch (error) {
    const { name, code, errno, syscall, message, fault, bytesDone } = error
    const cause = error.cause === undefined ? undefined : { message: error.cause.message, code: error.cause.code }
    parentPort.postMessage({ id, error: { name, code, errno, syscall, message, fault, bytesDone, cause } })
  }
})
parentPort.postMessage({ id: 0 })
