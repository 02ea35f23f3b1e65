/**
 * A thread of a test: attaches to a memory and does what it is told, by messages `{ id, op, args }`, each answered by
 * `{ id, value }` or `{ id, error }`. Things that calls make (mappings, borrowed pages) stay here under numbers.
 *
 * `call` reaches every call of the everyday API; the other operations are loops, which run until a word of `words` says
 * stop.
 */
import { parentPort, threadId, workerData } from 'node:worker_threads'
import { G_CLOSED, G_HELD, gateAt, gatedStore, gatedStores } from './gate.mjs'
import { ASKED, loops } from './loops.mjs'

/** A word of the thread table's rows (src/sync/threads.ts): how often the thread slept for another one. */
const T_WAITS = 12

const fremap = await import(workerData.dist)
let gates
let words
let opener
let memory
let things = []

const other = () => memory.open(gatedStore(opener.open({ kind: 'shared', name: 'other' }), gates))

const ops = {
  /** → this thread's row in the thread table. */
  attach(place) {
    gates = place.gates
    words = place.words
    opener = fremap.sharedStores(place.buffers)
    memory = fremap.Memory.attach(place.handle, { stores: [opener, gatedStores(opener, gates)], thread: threadId })
    things = [memory]
    return memory.machine.sync.me
  },
  /** Lets go of everything of the test; another one may attach this thread again. */
  leave() {
    if (memory?.machine.sync.broken === 0) memory.detach()
    gates = words = opener = memory = undefined
    things = []
  },
  /** What another thread's handle names. → its number here. */
  adopt: other => things.push(memory.adopt(other)) - 1,
  /** A call of thing `n`. Things that it makes are kept; bytes that it fills are the result. */
  call(n, method, ...args) {
    const value = things[n][method](...args.map(arg => (arg?.thing === undefined ? arg : things[arg.thing])))
    if (value !== null && typeof value === 'object' && !ArrayBuffer.isView(value)) return things.push(value) - 1
    return ArrayBuffer.isView(value) ? value.slice() : value
  },
  /**
   * Opens a gate once the thread in a row of the thread table has gone to sleep for another one; before that makes
   * `calls`, each as `call` is given them. → whether it has slept.
   */
  openWhenWaiting(call, row, ...calls) {
    const { threads } = memory.machine.sync
    const waits = threads.at(row, T_WAITS)
    const before = threads.w[waits]
    for (let i = 0; i < 5000 && threads.w[waits] === before; i++) Atomics.wait(gates, gateAt(call, G_CLOSED), 1, 1)
    const hasWaited = threads.w[waits] !== before
    for (const args of calls) ops.call(...args)
    Atomics.store(gates, gateAt(call, G_CLOSED), 0)
    return hasWaited
  },
  /** `call`, once somebody is held at a gate. */
  callWhenHeld(call, ...args) {
    while (Atomics.load(gates, gateAt(call, G_HELD)) === 0) Atomics.wait(gates, gateAt(call, G_CLOSED), 1, 1)
    return ops.call(...args)
  },
  /** Opens the rig's other file. → its number here. */
  openOther: () => things.push(other()) - 1,
  /**
   * Opens a store that answers later, and never does; word ASKED tells how often it was asked to read. → its handle.
   */
  async openSilent(pages) {
    const never = () => {
      Atomics.add(words, ASKED, 1)
      return new Promise(() => {})
    }
    const gone = async () => 0
    const store = {
      name: 'silent',
      identity: undefined,
      readOnly: true,
      durable: false,
      size: async () => pages * 4096
    }
    const calls = { read: never, write: never, flush: gone, truncate: gone, punch: gone, close: gone }
    return (await memory.openAsync({ ...store, ...calls })).handle
  },
  /** Bytes that a call of thing `n` fills. */
  bytes(n, method, length, ...args) {
    const target = new Uint8Array(length)
    things[n][method](target, ...args)
    return target
  },
  /** pwrite(2) of the first bytes of mapping `map` to file `n`. */
  writeUser(n, map, length, position) {
    const { space, address } = things[map]
    return fremap.sys_write_user(space.mm, address, length, things[n].fd, position)
  },
  property: (n, name) => things[n][name],
  /** Stores to a borrowed page. */
  poke(n, at, value) {
    things[n].bytes[at] = value
  },
  peek: (n, at) => things[n].bytes[at],
  /** A method of a part of this thread's machine throws from now on: a bug in the middle of whatever calls it. */
  sabotage(part, method, message) {
    memory.machine[part][method] = () => {
      throw new Error(message)
    }
  },
  /**
   * Makes call after call where the stack ends, each a little deeper than the one before. → how many ended in which
   * way.
   */
  exhaustStack(n, method, ...args) {
    const ends = {}
    const note = name => {
      ends[name] = (ends[name] ?? 0) + 1
    }
    const deeper = () => {
      try {
        deeper()
      } catch {
        // Here there is room for a few frames, one more at each return.
      }
      try {
        things[n][method](...args)
        note('done')
      } catch (error) {
        note(error.code ?? error.name)
        throw error
      }
    }
    try {
      deeper()
    } catch {}
    return ends
  },
  loop: (name, n, ...args) => loops[name]({ thing: things[n], things, words, fremap, other }, ...args),
  exit: code => process.exit(code),
  throwUncaught(message) {
    setImmediate(() => {
      throw new Error(message)
    })
  }
}

parentPort.on('message', async ({ id, op, args }) => {
  try {
    const result = ops[op](...args)
    parentPort.postMessage({ id, value: result instanceof Promise ? await result : result })
  } catch (error) {
    const { name, code, errno, syscall, message, stack } = error
    parentPort.postMessage({ id, error: { name, code, errno, syscall, message, stack } })
  }
})
