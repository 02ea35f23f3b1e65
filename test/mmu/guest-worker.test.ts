/** A guest in a worker, its host in this thread: no frame is reused under it, none of its stores is lost. */
import { readFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import ts from 'typescript'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { type Mapping, Memory, ShadowTable } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { builtGuest } from '../support/built.ts'
import { type GuestMemory, makeGuestMemory } from '../support/guest.ts'
import { rounds } from '../support/suite.ts'

const PAGE = 4096
const PAGES = 90
const BUDGET = 128 * PAGE
const NR_OFFSETS = rounds(10_000, 50_000)
/** Odd: what is rewritten so often is rewritten. */
const TIMES = 101

let binary: Uint8Array
/** ShadowGuest as the worker loads it: it imports nothing. */
let source: string
beforeAll(async () => {
  binary = await builtGuest()
  const text = readFileSync(new URL('../../src/mmu/shadow-guest.ts', import.meta.url), 'utf8')
  const options = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext }
  source = ts.transpileModule(text, { compilerOptions: options }).outputText
})

type Answer = { page: number; access: number } | { result: unknown } | { error: string }

class Host {
  readonly memory: Memory
  readonly map: Mapping
  readonly table: ShadowTable
  readonly place: GuestMemory
  readonly #worker: Worker
  readonly #reply = new Int32Array(new SharedArrayBuffer(4))
  readonly #slot: number
  #answered: (answer: Answer) => void = () => {}
  #failed: (error: Error) => void = () => {}

  constructor(threads: number) {
    const place = makeGuestMemory(BUDGET, NR_OFFSETS * 4)
    this.place = place
    // Freed frames are filled with a pattern: a stale load would show it.
    this.memory = new Memory({ size: BUDGET, ram: place.ram, debug: true, threads })
    const store = memoryStore({ sizeBytes: PAGES * PAGE })
    store.write(0, sample(), 0, PAGES * PAGE)
    this.map = this.memory.space().map(this.memory.open(store), { writable: true })
    this.table = new ShadowTable(this.map, place.table)
    this.#slot = this.table.admit()
    this.#worker = new Worker(fileURLToPath(new URL('../support/guest-worker.mjs', import.meta.url)), {
      workerData: {
        source,
        binary,
        memory: place.memory,
        place: { buffer: place.memory.buffer, byteOffset: place.table.byteOffset },
        slot: this.#slot,
        reply: this.#reply
      }
    })
    this.#worker.on('message', (answer: Answer) => this.#receive(answer))
    this.#worker.on('error', error => this.#failed(error))
  }

  /**
   * Calls the guest so many times, and `meanwhile` in each turn of the event loop until it answers. → the last result.
   */
  async call(name: string, args: readonly number[], times: number, meanwhile: () => void): Promise<unknown> {
    let answer: Answer | undefined
    let failure: Error | undefined
    this.#answered = got => {
      answer = got
    }
    this.#failed = error => {
      failure = error
    }
    this.#worker.postMessage({ call: name, args, times })
    while (answer === undefined) {
      if (failure !== undefined) throw failure
      meanwhile()
      await turn()
    }
    if ('error' in answer) throw new Error(answer.error)
    return 'result' in answer ? answer.result : undefined
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
    this.table.expel(this.#slot)
    expect(this.table.verify()).toEqual([])
    expect(this.memory.check()).toEqual([])
    this.memory.close()
  }

  #receive(answer: Answer): void {
    if (!('page' in answer)) {
      this.#answered(answer)
      return
    }
    let filled = 1
    try {
      this.table.fault(answer.page, answer.access)
    } catch {
      filled = 2
    }
    Atomics.store(this.#reply, 0, filled)
    Atomics.notify(this.#reply, 0)
  }
}

const hosts: Host[] = []
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close()
})

/** `threads` above 1: others could attach, and the guest's thread is one that did not. */
function host(threads = 1): Host {
  const made = new Host(threads)
  hosts.push(made)
  return made
}

function sample(): Uint8Array {
  return Uint8Array.from({ length: PAGES * PAGE }, (_, i) => (i * 7 + (i >>> 12) * 13) & 0xff)
}

function sumOf(bytes: Uint8Array): bigint {
  let total = 0
  for (const byte of bytes) total += byte
  return BigInt(total)
}

const seed = Date.now() % 1_000_000
test.each([1, 2])(
  `pages are evicted and written under a guest, a memory of %i threads; seed ${seed}`,
  async threads => {
    const rng = new Prng(seed)
    const h = host(threads)
    const model = new Uint32Array(sample().buffer)
    const offsets = new Uint32Array(h.place.memory.buffer, h.place.scratchAt, NR_OFFSETS)
    for (let i = 0; i < NR_OFFSETS; i++) offsets[i] = rng.below(model.length) * 4
    // Few, and mostly single pages: a guest that waits for its faults all the time races with nothing.
    const disturb = (): void => {
      const what = rng.below(4000)
      const page = { offset: rng.below(PAGES) * PAGE, length: PAGE }
      if (what < 60) h.map.protect('write', page)
      else if (what < 90) h.map.remap({ at: page.offset / PAGE, page: page.offset / PAGE })
      else if (what < 100) h.map.sync()
      else if (what < 101) h.memory.shrink()
    }
    for (let round = 0; round < rounds(4, 10) || h.table.nrWaits < rounds(10, 50); round++) {
      let total = 0
      for (const at of offsets) total = (total + model[at / 4]) | 0
      expect(await h.call('sumAt', [h.place.scratchAt, NR_OFFSETS], TIMES, disturb), `round ${round}`).toBe(total)
      const value = rng.next() | 0
      await h.call('rewriteAt', [h.place.scratchAt, NR_OFFSETS, value], TIMES, disturb)
      for (const at of offsets) model[at / 4] ^= value
    }
    const bytes = new Uint8Array(PAGES * PAGE)
    h.map.read(bytes, 0)
    expect(Buffer.compare(bytes, new Uint8Array(model.buffer))).toBe(0)
  }
)

test('a page that cannot be had ends the call, and the next one works', async () => {
  const h = host()
  await expect(h.call('sum', [0, (PAGES + 1) * PAGE], 1, () => {})).rejects.toThrow(`page ${PAGES} cannot be had`)
  expect(await h.call('sum', [0, PAGES * PAGE], 1, () => {})).toBe(sumOf(sample()))
})
