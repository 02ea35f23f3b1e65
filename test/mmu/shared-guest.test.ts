/** Guests in threads that attached: faults served where they happen, while other threads take the pages away. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { threadId, Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import {
  EOPNOTSUPP,
  type MappedFile,
  type Mapping,
  Memory,
  SHADOW_READ,
  ShadowTable,
  sys_mmu_notifier_register
} from '../../src/index.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { compileGuest } from '../support/compile-guest.ts'
import { compileInto } from '../support/compiled.ts'
import { type GuestMemory, makeGuestMemory } from '../support/guest.ts'

const PAGE = 4096
const BUDGET = 512 * 1024
const WORKER = fileURLToPath(new URL('../support/shared-guest-worker.mjs', import.meta.url))
const [STOP, READY] = [0, 1]

let binary: Uint8Array
let folder: string
let modules: { readonly index: string; readonly nodeFile: string }
beforeAll(async () => {
  binary = await compileGuest()
  folder = mkdtempSync(join(tmpdir(), 'fremap-shared-guest-'))
  modules = { index: compileInto(folder, 'index'), nodeFile: compileInto(folder, 'stores/node-file') }
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Answer = { result: unknown } | { error: string; code: string | undefined }

class Thread {
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

class World {
  readonly place: GuestMemory
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
  table: ShadowTable
  readonly path: string
  readonly control = new Int32Array(new SharedArrayBuffer(8))
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
    while (Atomics.load(this.control, READY) < nr) {
      const now = Atomics.load(this.control, READY)
      if (now >= nr) return
      await (Atomics as unknown as { waitAsync(a: Int32Array, i: number, v: number): { value: unknown } }).waitAsync(
        this.control,
        READY,
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
    }
  }
}

const worlds: World[] = []
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.end()
})

function world(bytes: Uint8Array): World {
  const made = new World(bytes)
  worlds.push(made)
  return made
}

/** Bytes that are all different from page to page. */
function sample(pages: number): Uint8Array {
  const words = new Uint32Array(pages * (PAGE / 4))
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 0x9e3779b1) ^ (i >>> 7)
  return new Uint8Array(words.buffer)
}

function sumOf(bytes: Uint8Array): bigint {
  let total = 0
  for (const byte of bytes) total += byte
  return BigInt(total)
}

const seed = Date.now() % 1_000_000
test(`a file 100 times the budget, two guests, a third thread that takes pages away; seed ${seed}`, async () => {
  const rng = new Prng(seed)
  const pages = (100 * BUDGET) / PAGE
  const lanePages = Math.floor(pages * 0.45)
  const laneBytes = lanePages * PAGE
  const tail = [pages - 64, 64]
  const own = [2 * lanePages, tail[0] - 2 * lanePages]
  const model = sample(pages)
  model.fill(0, tail[0] * PAGE)
  const w = world(model)
  // Each lane of the window shows its lane of the file in another order.
  const shown = Int32Array.from({ length: pages }, (_, i) => i)
  for (const first of [0, lanePages]) {
    for (let i = lanePages - 1; i > 0; i--) {
      const j = rng.below(i + 1)
      const kept = shown[first + i]
      shown[first + i] = shown[first + j]
      shown[first + j] = kept
    }
  }
  w.map.remapPages(0, shown.subarray(0, 2 * lanePages))
  const disturber = w.thread({ table: false })
  const guests = [w.thread(), w.thread()]
  const disturbed = disturber.do('disturb', { seed, shown: [...shown], own, tail, spare: 2 * lanePages - 1 })
  await w.ready(1)

  const work = async (guest: Thread, lane: number): Promise<void> => {
    const first = lane * laneBytes
    const bytes = model.subarray(first, first + laneBytes)
    for (let round = 0; round < 3; round++) {
      const value = rng.between(1, 255)
      await guest.call('rewrite', first, laneBytes, value)
      for (let i = 0; i < bytes.length; i++) bytes[i] ^= value
      expect(await guest.call('sum', first, laneBytes), `lane ${lane}, round ${round}`).toBe(sumOf(bytes))
    }
  }
  await Promise.all(guests.map(work))

  // Ended while it is in the guest, on a page that stays; the others go on.
  w.map.sync()
  w.map.lock({ length: PAGE })
  void guests[0].do('hot', { first: 0, length: PAGE }).catch(() => {})
  await w.ready(2)
  await guests[0].terminate()
  w.map.unlock({ length: PAGE })
  await Promise.all([work(w.thread(), 0), work(guests[1], 1)])

  Atomics.store(w.control, STOP, 1)
  const counts = (await disturbed) as Record<string, number>
  expect(Math.min(...Object.values(counts)), JSON.stringify(counts)).toBeGreaterThan(0)
  expect(w.memory.check()).toEqual([])
  expect(w.table.nrWaits).toBeGreaterThan(0)
  expect(w.memory.stats().counters.pgsteal).toBeGreaterThan(pages)
  w.file.sync()
  // A guest saw window pages in their order, the file has its own; sums do not tell them apart, so bytes must.
  const file = readFileSync(w.path)
  for (let at = 0; at < 2 * lanePages; at++) {
    const page = shown[at]
    const found = file.subarray(page * PAGE, (page + 1) * PAGE)
    if (Buffer.compare(found, model.subarray(page * PAGE, (page + 1) * PAGE)) !== 0) {
      expect.unreachable(`file page ${page}, window page ${at}, is not as it was written`)
    }
  }
}, 240_000)

test('a guest whose thread ends while another one waits for it: that one goes on', async () => {
  const w = world(sample(8))
  const [dying, other] = [w.thread(), w.thread()]
  void dying.do('die', { kick: w.place.table.byteOffset / 4 }).catch(() => {})
  await w.ready(1)
  const ended = dying.ended()
  const remapped = other.do('remap', { at: 0, page: 3 })
  await Promise.all([ended, remapped])
  expect(await other.call('sum', 0, PAGE)).toBe(sumOf(sample(8).subarray(3 * PAGE, 4 * PAGE)))
  expect(w.table.nrWaits).toBe(1)
})

test('the same with nobody to notice it: the memory is declared broken, and nobody hangs', async () => {
  const w = world(sample(8))
  const [dying, other] = [w.thread({ watched: false }), w.thread({ patienceMs: 100 })]
  void dying.do('die', { kick: w.place.table.byteOffset / 4 }).catch(() => {})
  await w.ready(1)
  await other.do('remap', { at: 0, page: 3 }).catch(() => {})
  await expect(other.call('sum', PAGE, PAGE)).rejects.toMatchObject({ code: 'SIGBUS' })
  expect(() => w.map.remap({ at: 0, page: 1 })).toThrow(/EOWNERDEAD/)
})

test('what another thread changed is what a guest sees from then on', async () => {
  const w = world(sample(8))
  const [guest, other] = [w.thread(), w.thread()]
  const part = (page: number): bigint => sumOf(sample(8).subarray(page * PAGE, (page + 1) * PAGE))
  expect(await guest.call('sum', 0, PAGE)).toBe(part(0))
  await other.do('remap', { at: 0, page: 5 })
  expect(await guest.call('sum', 0, PAGE)).toBe(part(5))
  w.map.remap({ at: 0, page: 6 })
  expect(await guest.call('sum', 0, PAGE)).toBe(part(6))
  await guest.call('rewrite', 0, PAGE, 0xff)
  expect(w.map.getUint8(0)).toBe(sample(8)[6 * PAGE] ^ 0xff)
  await other.do('truncate', { size: 2 * PAGE })
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGBUS' })
  w.map.unmap()
  expect(w.table.nrPresent).toBe(0)
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGSEGV' })
})

test('a thread that never heard of the table tells it all the same', async () => {
  const w = world(sample(8))
  w.table.close()
  const stranger = w.thread({ table: false })
  // It looks whom to tell: nobody.
  await stranger.do('remap', { at: 0, page: 4 })
  w.table = new ShadowTable(w.map, w.place.table)
  const guest = w.thread()
  const part = (page: number): bigint => sumOf(sample(8).subarray(page * PAGE, (page + 1) * PAGE))
  expect(await guest.call('sum', 0, PAGE)).toBe(part(4))
  await stranger.do('remap', { at: 0, page: 5 })
  expect(w.table.nrCleared).toBe(1)
  expect(await guest.call('sum', 0, PAGE)).toBe(part(5))
})

test('a window that grows and moves in one thread takes the guests of all with it', async () => {
  const w = world(sample(8))
  const guest = w.thread()
  w.map.space.map(null, { length: PAGE, address: w.map.address + 8 * PAGE })
  expect(await guest.call('sum', 0, 8 * PAGE)).toBe(sumOf(sample(8)))
  w.file.truncate(12 * PAGE)
  const { address } = w.map
  w.map.resize(12 * PAGE)
  expect(w.map.address).not.toBe(address)
  // The table hears of it with the next fault of the thread that moved the window.
  w.table.guest().run(() => w.table.fault(0, SHADOW_READ))
  expect(await guest.call('sum', 0, 12 * PAGE)).toBe(sumOf(sample(8)))
})

test('refuses what others could not know of', async () => {
  const w = world(sample(8))
  expect(sys_mmu_notifier_register(w.map.space.mm, {})).toBe(-EOPNOTSUPP)
  const guest = w.thread()
  await expect(guest.do('bare', { name: 'sum', args: [0, PAGE] })).rejects.toMatchObject({ code: 'EPERM' })
  expect(() => w.table.fault(0, SHADOW_READ)).toThrow(/guest\(\)\.run/)
  const { handle } = w.table
  w.table.close()
  expect(() => ShadowTable.adopt(w.map, handle)).toThrow(/ESRCH/)
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGSEGV' })
})
