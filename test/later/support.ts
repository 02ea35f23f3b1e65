/**
 * Memories over stores that answer later, for tests that hold the answers back.
 *
 *     const rigs = useLater()                              once a test file
 *     const { store, map } = await rigs({ pages: 64 })     a memory, a store of marked pages that can be held, and a
 *                                                          window over it
 *     const worker = await rig.thread()                    a thread that attached and adopted the window
 *
 * Page i of the file begins with the 32-bit word i + 1. After each test the threads are ended, the machine is checked,
 * everything is closed, and all frames, buffers and reads must have come back.
 */
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterEach, beforeEach, expect } from 'vitest'
import type { MappedFile } from '../../src/api/file.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { type AttachOptions, Memory, type OpenAsyncOptions } from '../../src/api/memory.ts'
import type { MemoryOptions } from '../../src/api/memory-options.ts'
import type { AddressSpace } from '../../src/api/space.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { ensureBuilt, ROOT } from '../support/built.ts'
import { type LaterStore, type LaterStoreOptions, laterStore } from '../support/later-store.ts'

export const PAGE = 4096
const FRAME_BYTES = PAGE + 44

export interface LaterOptions extends Partial<MemoryOptions>, LaterStoreOptions, OpenAsyncOptions {
  readonly frames?: number
  /** Pages of the file. Default 64. */
  readonly pages?: number
  /** Bytes that it has beyond them. */
  readonly tail?: number
}

/** What came of a call in another thread that failed. */
export interface ThreadError extends Error {
  readonly code: string
  readonly errno: number
  readonly fault: number
  readonly bytesDone: number
}

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: unknown) => void
}

export class LaterThread {
  readonly worker: Worker
  readonly ended: Promise<unknown>
  readonly #pending = new Map<number, Pending>()
  #nextId = 1

  constructor(worker: Worker) {
    this.worker = worker
    worker.on('message', ({ id, value, error }) => {
      const pending = this.#pending.get(id)
      this.#pending.delete(id)
      if (error === undefined) pending?.resolve(value as never)
      else pending?.reject(Object.assign(new Error(error.message), error))
    })
    let failure: unknown = new Error('the thread has ended')
    worker.on('error', error => {
      failure = error
    })
    this.ended = new Promise(resolve => {
      worker.once('exit', code => {
        for (const { reject } of this.#pending.values()) reject(failure)
        resolve(code)
      })
    })
  }

  answer<T>(id: number): Promise<T> {
    const result = new Promise<T>((resolve, reject) => this.#pending.set(id, { resolve, reject }))
    // A test may look at it late, or never.
    result.catch(() => {})
    return result
  }

  do<T = void>(call: string, ...args: unknown[]): Promise<T> {
    const id = this.#nextId++
    const result = this.answer<T>(id)
    this.worker.postMessage({ id, call, args })
    return result
  }

  loads(...pages: number[]): Promise<number[]> {
    return this.do('loads', pages)
  }

  call<T = void>(thing: string, method: string, ...args: unknown[]): Promise<T> {
    return this.do('call', thing, method, args)
  }
}

/** A thread that has attached, to be ended by whoever looks after `threads`. */
export async function startThread(
  memory: Memory,
  threads: LaterThread[],
  options: AttachOptions = {}
): Promise<LaterThread> {
  await ensureBuilt()
  const workerData = { entry: pathToFileURL(join(ROOT, 'dist/fremap.js')).href, handle: memory.handle, options }
  const thread = new LaterThread(new Worker(new URL('./worker.mjs', import.meta.url), { workerData }))
  threads.push(thread)
  memory.watch(thread.worker)
  await thread.answer(0)
  return thread
}

async function endThreads(threads: LaterThread[]): Promise<void> {
  for (const { worker, ended } of threads.splice(0)) {
    void worker.terminate()
    await ended
  }
}

/** Call at the top of a test file that makes its memories itself. → for `startThread`: ended after each test. */
export function useThreads(): LaterThread[] {
  const threads: LaterThread[] = []
  afterEach(() => endThreads(threads))
  return threads
}

export class LaterRig {
  readonly memory: Memory
  readonly store: LaterStore
  readonly space: AddressSpace
  readonly threads: LaterThread[] = []
  file!: MappedFile
  map!: Mapping
  readonly #freeAtStart: number

  constructor(options: LaterOptions) {
    const { frames = 128, pages = 64, tail = 0 } = options
    // test/threads/same runs these tests on memories for two threads too.
    const threads = Number(process.env.RIG_THREADS ?? 1)
    this.memory = new Memory({ size: frames * FRAME_BYTES, debug: true, threads, ...options })
    this.#freeAtStart = this.memory.stats().freeFrames
    const contents = new Uint8Array(pages * PAGE + tail)
    for (let page = 0; page * PAGE + 4 <= contents.length; page++) {
      new DataView(contents.buffer).setUint32(page * PAGE, page + 1, true)
    }
    this.store = laterStore(memoryStore({ contents, readOnly: true, name: 'later' }), options)
    this.space = this.memory.space()
  }

  /** The word at the beginning of a page. */
  load(page: number): number {
    return this.map.getUint32(page * PAGE)
  }

  /** Pages that the store was asked for, a read each: [first, pages]. */
  get reads(): [number, number][] {
    return this.store.log
      .filter(({ op }) => op === 'read')
      .map(({ position, length }) => [position / PAGE, Math.ceil(length / PAGE)])
  }

  async thread(options: AttachOptions = {}): Promise<LaterThread> {
    const thread = await startThread(this.memory, this.threads, options)
    await thread.do('adopt', 'map', this.map.handle)
    await thread.do('adopt', 'file', this.file.handle)
    return thread
  }

  /** Resolves when so many waits for pages or locks were counted, of all threads. */
  async waits(atLeast: number): Promise<void> {
    const count = (): number => this.memory.stats().threads.reduce((sum, { waits }) => sum + waits, 0)
    while (count() < atLeast) await turn()
  }

  async finish(): Promise<void> {
    await endThreads(this.threads)
    const { memory } = this
    if (memory.machine.open && memory.machine.sync.broken === 0) {
      expect(memory.check()).toEqual([])
      await memory.closeAsync()
    }
    if (memory.machine.sync.broken !== 0) return
    expect(memory.check()).toEqual([])
    const { freeFrames, pagesUnderWay, besideBytes } = memory.stats()
    const left = { frames: this.#freeAtStart - freeFrames, pagesUnderWay, buffers: besideBytes['fetch buffers'] }
    expect(left).toEqual({ frames: 0, pagesUnderWay: 0, buffers: 0 })
    expect(await this.store.read(0, new Uint8Array(1), 0, 1)).toBe(-9)
  }
}

/** Call at the top of a test file. → `rigs(options)`. */
export function useLater(): (options?: LaterOptions) => Promise<LaterRig> {
  const rigs: LaterRig[] = []
  // Where a failed test leaves some, as in a mutation run, they are not the next one's.
  beforeEach(() => {
    rigs.length = 0
  })
  afterEach(async () => {
    for (const rig of rigs.splice(0)) await rig.finish()
  })
  return async (options = {}) => {
    const rig = new LaterRig(options)
    rigs.push(rig)
    rig.file = await rig.memory.openAsync(rig.store, options)
    rig.map = rig.space.map(rig.file)
    return rig
  }
}

/** The error that a call ends in. */
export function errorOf<E = ThreadError>(act: () => unknown): E {
  try {
    act()
  } catch (error) {
    return error as E
  }
  throw new Error('no error came')
}

export { turn }
