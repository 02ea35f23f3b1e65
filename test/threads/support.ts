/**
 * Threads for tests: a memory, and workers that attach to it and do what the test says. Workers run the built bundle;
 * this thread runs the sources, so that what it does shows in the coverage.
 *
 *     const threads = useThreads()                 once a test file
 *     const rig = await threads({ workers: 2 })    a memory, a gated file of marked pages mapped once, and two workers
 *     rig.hold('read')                             calls of the file's store wait from here on ...
 *     const load = rig.workers[0].load(rig.map, 0)
 *     await rig.held('read')                       ... until this one has come,
 *     rig.release('read')                          and go on
 *
 * So orders are forced, and every step is awaited: `held` for a call at its gate, `waiting` for a thread that sleeps
 * until another one lets go of a lock or a page. Page i of the file begins with the 32-bit word i + 1.
 *
 * After each test the workers leave the memory, the machine is checked, and all frames must have come back. Workers
 * that are as good as new serve the next test: to start one costs more than most tests do.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import * as fremap from '../../src/index.ts'
import { T_OS_THREAD, T_WAITS } from '../../src/sync/threads.ts'
import { ensureBuilt, ROOT } from '../support/built.ts'
import { LIMIT_MS } from '../support/suite.ts'
import { G_CALLS, G_CLOSED, G_ERRNO, G_HELD, G_POSITION, G_TICKETS, gateAt, gatedStore, newGates } from './gate.mjs'

export const PAGE = 4096
const FRAME_BYTES = PAGE + 44

export type Call = 'read' | 'answer' | 'write' | 'flush' | 'truncate' | 'punch' | 'size' | 'close'

export interface ThreadOptions {
  readonly workers?: number
  /** Page frames. Default 256. */
  readonly frames?: number
  /** Pages of the file. Default 64. */
  readonly pages?: number
  /** Slots of a swap area in shared memory, behind the gates too. Default 0. */
  readonly swapSlots?: number
  /** Whether the main thread is told when a worker ends. Default true. */
  readonly isWatched?: boolean
  /** Whether the operating system can be asked for a thread, where it can be at all. Default true. */
  readonly isAskable?: boolean
  readonly patienceMs?: number
  readonly readahead?: number
  readonly faultAroundPages?: number
}

/** An error that a worker's operation ended in. */
export interface WorkerError extends Error {
  readonly code?: string
  readonly errno?: number
  readonly syscall?: string
}

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: Error) => void
}

/** Workers that have left the memory of an earlier test. */
const spare: Worker[] = []
/** Operations after which a worker is not as good as new. */
const HARMFUL = ['exhaustStack', 'exit', 'openSilent', 'throwUncaught']

function newWorker(): Worker {
  const workerData = { dist: pathToFileURL(`${ROOT}dist/fremap.js`).href }
  return new Worker(new URL('./worker.mjs', import.meta.url), { workerData })
}

export class ThreadWorker {
  readonly worker: Worker
  /** Resolves with the exit code. */
  readonly ended: Promise<number>
  /** Row in the thread table. */
  row = -1
  /** Things of the rig in this thread. */
  map = -1
  file = -1
  space = -1
  readonly memory = 0
  readonly #pending = new Map<number, Pending>()
  #nextId = 1
  #failure: Error | undefined
  #isHarmed = false

  constructor(worker: Worker) {
    this.worker = worker
    worker.on('message', ({ id, value, error }: { id: number; value: never; error?: WorkerError }) => {
      const pending = this.#pending.get(id)
      this.#pending.delete(id)
      if (error === undefined) pending?.resolve(value)
      else pending?.reject(Object.assign(new Error(error.message), error))
    })
    worker.on('error', error => {
      this.#failure = error as Error
    })
    this.ended = new Promise(resolve => {
      worker.once('exit', code => {
        this.#isHarmed = true
        for (const { reject } of this.#pending.values())
          reject(this.#failure ?? new Error(`the worker ended (${code})`))
        resolve(code)
      })
    })
  }

  /** Whether it waits for the next operation, and nothing of those before is left. */
  get isAsNew(): boolean {
    return !this.#isHarmed && this.#pending.size === 0
  }

  async attach(place: object): Promise<void> {
    this.row = await this.do<number>('attach', place)
  }

  do<T = unknown>(op: string, ...args: unknown[]): Promise<T> {
    const id = this.#nextId++
    const result = this.#expect<T>(id)
    this.#isHarmed ||= HARMFUL.includes(op)
    this.worker.postMessage({ id, op, args })
    return result
  }

  /** A call of the everyday API on one of this worker's things: `call(w.map, 'remap', { ... })`. */
  call<T = unknown>(thing: number, method: string, ...args: unknown[]): Promise<T> {
    return this.do<T>('call', thing, method, ...args)
  }

  /** The word at the beginning of a page of the map. */
  load(page: number, offset = 0): Promise<number> {
    return this.call<number>(this.map, 'getUint32', page * PAGE + offset)
  }

  store(page: number, value: number, offset = 0): Promise<void> {
    return this.call<void>(this.map, 'setUint32', page * PAGE + offset, value)
  }

  /** Ends the thread, wherever it is. */
  async terminate(): Promise<void> {
    await this.worker.terminate()
    await this.ended
  }

  #expect<T>(id: number): Promise<T> {
    const result = new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: never) => void, reject })
    })
    // A test may look at it late, or never.
    result.catch(() => {})
    return result
  }
}

export class ThreadRig {
  readonly memory: fremap.Memory
  readonly file: fremap.MappedFile
  readonly space: fremap.AddressSpace
  /** A window over the whole file, writable and shared, for the main thread; workers have one in `map`. */
  readonly map: fremap.Mapping
  readonly workers: ThreadWorker[] = []
  /** For loops: what they are told and what they tell. */
  readonly words: Int32Array = new Int32Array(new SharedArrayBuffer(1024))
  /** The file's bytes, past all caches. */
  readonly stored: fremap.Store
  /** The bytes of another file, which threads open by `openOther`. */
  readonly other: fremap.Store
  readonly gates: Int32Array = newGates()
  readonly #options: ThreadOptions
  readonly #buffers: Record<string, SharedArrayBuffer>
  readonly #freeAtStart: number

  constructor(options: ThreadOptions) {
    const { frames = 256, pages = 64, workers = 1, swapSlots = 0, patienceMs } = options
    this.#options = options
    const data = fremap.sharedStoreBuffer(pages * PAGE * 4)
    const other = fremap.sharedStoreBuffer(16 * PAGE)
    this.#buffers = { data, other, swap: fremap.sharedStoreBuffer(swapSlots * PAGE) }
    this.other = fremap.sharedStore(other, { name: 'other', sizeBytes: 16 * PAGE })
    this.stored = fremap.sharedStore(data, { name: 'data', sizeBytes: pages * PAGE })
    for (let page = 0; page < pages; page++) this.putStored(page, page + 1)
    const swap = gatedStore(fremap.sharedStore(this.#buffers.swap, { name: 'swap' }), this.gates)
    this.memory = new fremap.Memory({
      size: frames * FRAME_BYTES,
      threads: workers + 2,
      readahead: options.readahead ?? 0,
      faultAroundPages: options.faultAroundPages ?? 1,
      debug: true,
      traceEntries: 4096,
      ...(patienceMs === undefined ? {} : { patienceMs }),
      ...(swapSlots === 0 ? {} : { swap: { store: swap, size: swapSlots * PAGE } })
    })
    this.#freeAtStart = this.memory.stats().freeFrames
    this.file = this.memory.open(gatedStore(fremap.sharedStore(data, { name: 'data' }), this.gates))
    this.space = this.memory.space()
    this.map = this.space.map(this.file, { writable: true })
  }

  /** Starts one more worker, with the rig's things adopted. */
  async start(): Promise<ThreadWorker> {
    const { isWatched = true, isAskable = true } = this.#options
    const worker = new ThreadWorker(spare.pop() ?? newWorker())
    this.workers.push(worker)
    if (isWatched) this.memory.watch(worker.worker)
    const { handle } = this.memory
    await worker.attach({ handle, gates: this.gates, buffers: this.#buffers, words: this.words })
    const { threads } = this.memory.machine.sync
    if (!isAskable) threads.w[threads.at(worker.row, T_OS_THREAD)] = 0
    worker.space = await worker.do('adopt', this.space.handle)
    worker.file = await worker.do('adopt', this.file.handle)
    worker.map = await worker.do('adopt', this.map.handle)
    return worker
  }

  /** The word at the beginning of a page in the store itself. */
  storedWord(page: number, offset = 0): number {
    const bytes = new Uint8Array(4)
    this.stored.read(page * PAGE + offset, bytes, 0, 4)
    return new DataView(bytes.buffer).getUint32(0, true)
  }

  putStored(page: number, word: number): void {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, word, true)
    this.stored.write(page * PAGE, bytes, 0, 4)
  }

  /** Calls of this kind wait from now on; with a page, only those that touch its first byte. */
  hold(call: Call, page = -1): void {
    this.gates[gateAt(call, G_POSITION)] = page < 0 ? -1 : page * PAGE
    Atomics.store(this.gates, gateAt(call, G_CLOSED), 1)
  }

  release(call: Call): void {
    Atomics.store(this.gates, gateAt(call, G_CLOSED), 0)
    Atomics.notify(this.gates, gateAt(call, G_CLOSED))
  }

  /** Lets one call pass that is held, or the next one. */
  letOnePass(call: Call): void {
    Atomics.add(this.gates, gateAt(call, G_TICKETS), 1)
  }

  /** Calls fail with this errno from now on; 0 to have them work. */
  fail(call: Call, errno: number): void {
    Atomics.store(this.gates, gateAt(call, G_ERRNO), errno)
  }

  /** How many calls of this kind there were. */
  calls(call: Call): number {
    return this.gates[gateAt(call, G_CALLS)]
  }

  /** Resolves when so many calls are held at the gate. */
  async held(call: Call, count = 1): Promise<void> {
    await until(() => Atomics.load(this.gates, gateAt(call, G_HELD)) >= count, `${count} held in ${call}`)
  }

  /** How often a thread has gone to sleep for a lock or a page. */
  waits(worker: ThreadWorker): number {
    return Atomics.load(this.memory.machine.sync.threads.w, this.memory.machine.sync.threads.at(worker.row, T_WAITS))
  }

  /**
   * Runs an operation and resolves once its thread sleeps for a lock or a page; the result is a promise within an
   * array.
   */
  async waiting<T>(worker: ThreadWorker, run: () => Promise<T>): Promise<[Promise<T>]> {
    const before = this.waits(worker)
    const result = run()
    let isOver = false
    const note = () => {
      isOver = true
    }
    result.then(note, note)
    await until(() => isOver || this.waits(worker) > before, 'a thread to wait')
    expect(isOver, 'the operation ended without having to wait').toBe(false)
    return [result]
  }

  /** Resolves when a word of `words` holds. */
  async word(at: number, holds: (value: number) => boolean): Promise<void> {
    await until(() => holds(Atomics.load(this.words, at)), `word ${at}`)
  }

  setWord(at: number, value: number): void {
    Atomics.store(this.words, at, value)
    Atomics.notify(this.words, at)
  }

  /** Ends all workers and the memory, and expects everything to have come back. */
  async finish(): Promise<void> {
    for (const call of ['read', 'answer', 'write', 'flush', 'truncate', 'punch', 'size', 'close'] as const) {
      this.fail(call, 0)
      this.release(call)
    }
    this.words.fill(1, 0, 1)
    const { isWatched = true, isAskable = true } = this.#options
    const { machine } = this.memory
    // A thread that leaves might wait for what another one held when it ended. It leaves a broken memory without a
    // call.
    const isCalm = isWatched && isAskable && this.workers.every(worker => worker.isAsNew)
    const mayLeave = isCalm || machine.sync.broken !== 0
    for (const worker of this.workers) {
      if (mayLeave && worker.isAsNew) {
        await worker.do('leave')
        for (const event of ['message', 'error', 'exit']) worker.worker.removeAllListeners(event)
        spare.push(worker.worker)
      } else await worker.terminate()
    }
    if (machine.sync.broken !== 0) return
    expect(this.memory.check()).toEqual([])
    for (let mm = 1; mm <= machine.mms.maxMms; mm++) {
      if (machine.mms.isAlive(mm)) fremap.sys_exit(new fremap.Mm(machine, mm))
    }
    const { fds, fdSeqs } = machine
    for (let slot = 0; slot < fds.length; slot++) {
      if (fds[slot] !== 0) fremap.sys_close(machine, fdSeqs[slot] * fds.length + slot)
    }
    expect(this.memory.check()).toEqual([])
    expect(this.#freeAtStart - this.memory.stats().freeFrames, 'frames that did not come back').toBe(0)
    this.memory.close()
  }
}

/** Call at the top of a test file. → `threads(options)`, which makes a memory and workers for one test. */
export function useThreads(): (options?: ThreadOptions) => Promise<ThreadRig> {
  const rigs: ThreadRig[] = []
  beforeAll(ensureBuilt)
  afterEach(async () => {
    for (const rig of rigs.splice(0)) await rig.finish()
  })
  afterAll(async () => {
    for (const worker of spare.splice(0)) await worker.terminate()
  })
  return async (options = {}) => {
    const rig = new ThreadRig(options)
    rigs.push(rig)
    for (let i = 0; i < (options.workers ?? 1); i++) await rig.start()
    return rig
  }
}

/** Resolves once `holds`. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + LIMIT_MS; !holds(); await sleep(1)) {
    if (Date.now() > end) throw new Error(`waited too long for ${what}`)
  }
}

/** The error that an operation ends in. */
export async function errorOf(result: Promise<unknown>): Promise<WorkerError> {
  try {
    await result
  } catch (error) {
    return error as WorkerError
  }
  throw new Error('it succeeded')
}
