/**
 * A memory that several threads share, a file mapped in it, and threads that attach (shared-guest-worker.mjs):
 * `useWorlds()` at the top of a test file gives `world(bytes)`, and after each test every world is checked, ended, and
 * compared with its start.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { threadId, Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { type MappedFile, type Mapping, Memory, ShadowTable } from '../../src/index.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import { builtGuest, ROOT } from './built.ts'
import { type GuestMemory, makeGuestMemory } from './guest.ts'

export const PAGE = 4096 as const
export const BUDGET: number = 512 * 1024
const WORKER = fileURLToPath(new URL('./shared-guest-worker.mjs', import.meta.url))
/** Words of `control`. */
export const STOP = 0 as const
export const READY = 1 as const
export const DROPPED = 2 as const

let binary: Uint8Array
let folder: string
const modules = { index: join(ROOT, 'dist/fremap.js'), nodeFile: join(ROOT, 'dist/node.js') }

type Answer = { result: unknown } | { error: string; code: string | undefined }

export class Thread {
  readonly #worker: Worker
  #settle: ((answer: Answer) => void) | undefined
  #fail: ((error: Error) => void) | undefined

  constructor(worker: Worker) {
    this.#worker = worker
    worker.on('message', (answer: Answer) => this.#settle?.(answer))
    worker.on('error', error => this.#fail?.(error))
  }

  /** → what the command gives. Rejects with its error. */
  async do(command: string, options: object = {}): Promise<unknown> {
    const answer = await new Promise<Answer>((resolve, reject) => {
      this.#settle = resolve
      this.#fail = reject
      this.#worker.postMessage({ command, ...options })
    })
    if ('error' in answer) throw Object.assign(new Error(answer.error), { code: answer.code })
    return answer.result
  }

  call(name: string, ...args: number[]): Promise<unknown> {
    return this.do('call', { name, args })
  }

  /** Resolves when the thread has ended by itself. */
  ended(): Promise<void> {
    return new Promise(resolve => this.#worker.once('exit', () => resolve()))
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate()
  }
}

export class World {
  readonly place: GuestMemory
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
  table: ShadowTable
  readonly path: string
  readonly control: Int32Array = new Int32Array(new SharedArrayBuffer(12))
  readonly freeAtStart: number
  readonly #threads: Thread[] = []

  constructor(bytes: Uint8Array) {
    this.path = join(folder, 'data')
    writeFileSync(this.path, bytes)
    this.place = makeGuestMemory(BUDGET, 1 << 20)
    // Freed frames are filled with a pattern: a stale load would show it.
    this.memory = new Memory({ size: BUDGET, ram: this.place.ram, threads: 6, thread: threadId, debug: true })
    this.freeAtStart = this.memory.stats().freeFrames
    this.file = this.memory.open(nodeFile(this.path, 'r+'))
    this.map = this.memory.space().map(this.file, { writable: true })
    this.table = new ShadowTable(this.map, this.place.table)
  }

  thread(options: { watched?: boolean; patienceMs?: number; table?: boolean } = {}): Thread {
    const { watched = true, patienceMs, table = true } = options
    const worker = new Worker(WORKER, {
      workerData: {
        modules,
        memory: this.memory.handle,
        mapping: this.map.handle,
        table: table ? this.table.handle : undefined,
        wasm: this.place.memory,
        binary,
        control: this.control,
        patienceMs
      }
    })
    if (watched) this.memory.watch(worker)
    const thread = new Thread(worker)
    this.#threads.push(thread)
    return thread
  }

  /** Resolves when so many commands have said that they have begun. */
  async ready(nr: number): Promise<void> {
    await this.reached(READY, nr)
  }

  /** Resolves when a word of `control` has come to `nr`. */
  async reached(word: number, nr: number): Promise<void> {
    for (let now = Atomics.load(this.control, word); now < nr; now = Atomics.load(this.control, word)) {
      await (Atomics as unknown as { waitAsync(a: Int32Array, i: number, v: number): { value: unknown } }).waitAsync(
        this.control,
        word,
        now
      ).value
    }
  }

  async end(): Promise<void> {
    Atomics.store(this.control, STOP, 1)
    for (const thread of this.#threads) await thread.terminate()
    if (this.memory.machine.sync.broken === 0) {
      expect(this.memory.check()).toEqual([])
      // Nothing was pinned: all that is left is what the window holds of its page tables.
      this.memory.shrink()
      expect(this.table.nrPresent).toBe(0)
      this.table.close()
      this.map.space.close()
      this.file.close()
      this.memory.shrink()
      expect(this.memory.stats().freeFrames).toBe(this.freeAtStart)
      expect(this.memory.check()).toEqual([])
      this.memory.close()
    } else expect(() => this.memory.close()).toThrow(/EOWNERDEAD/)
  }
}

/** Call at the top of a test file. → `world(bytes)`, for one test. */
export function useWorlds(): (bytes: Uint8Array) => World {
  const worlds: World[] = []
  beforeAll(async () => {
    binary = await builtGuest()
    folder = mkdtempSync(join(tmpdir(), 'fremap-shared-guest-'))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  afterEach(async () => {
    for (const world of worlds.splice(0)) await world.end()
  })
  return bytes => {
    const made = new World(bytes)
    worlds.push(made)
    return made
  }
}

/** Bytes that are all different from page to page. */
export function sample(pages: number): Uint8Array {
  const words = new Uint32Array(pages * (PAGE / 4))
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 0x9e3779b1) ^ (i >>> 7)
  return new Uint8Array(words.buffer)
}

export function sumOf(bytes: Uint8Array): bigint {
  let total = 0
  for (const byte of bytes) total += byte
  return BigInt(total)
}
