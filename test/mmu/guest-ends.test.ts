/**
 * A guest in a worker that did not attach, which ends in the middle of the guest, or stays there: its host does not
 * wait for ever.
 */
import { readFileSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import ts from 'typescript'
import { afterEach, describe, expect, test } from 'vitest'
import { type Mapping, Memory, SHADOW_READ, ShadowTable } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'

const PAGE = 4096
const FRAMES = 64
const TABLE_AT = FRAMES * PAGE
const INSIDE = 1

const options = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext }
const source = ts.transpileModule(readFileSync(new URL('../../src/mmu/shadow-guest.ts', import.meta.url), 'utf8'), {
  compilerOptions: options
}).outputText

/** Enters the guest and stays in it, without a safe point. */
const program = `
import { workerData } from 'node:worker_threads'
const { source, place, slot, control } = workerData
const { ShadowGuest } = await import('data:text/javascript,' + encodeURIComponent(source))
new ShadowGuest(place, slot).run(() => {
  Atomics.store(control, 0, 1)
  Atomics.notify(control, 0)
  for (;;) if (Atomics.load(control, 1) !== 0) break
})
`

class Rig {
  readonly memory: Memory
  readonly map: Mapping
  readonly table: ShadowTable
  readonly slot: number
  readonly worker: Worker
  readonly words: Int32Array
  readonly #control = new Int32Array(new SharedArrayBuffer(8))

  constructor(threads: number, patienceMs: number) {
    const buffer = new SharedArrayBuffer(TABLE_AT + PAGE)
    this.memory = new Memory({ size: FRAMES * PAGE, ram: { buffer, byteOffset: 0 }, threads, patienceMs })
    const store = memoryStore({ sizeBytes: 8 * PAGE })
    for (let page = 0; page < 8; page++) store.write(page * PAGE, Uint8Array.of(page + 1), 0, 1)
    this.map = this.memory.space().map(this.memory.open(store), { writable: true })
    this.table = new ShadowTable(this.map, { byteOffset: TABLE_AT, nrEntries: 8 })
    this.slot = this.table.admit()
    this.words = new Int32Array(buffer, TABLE_AT, 16)
    const place = { buffer, byteOffset: TABLE_AT }
    const workerData = { source, place, slot: this.slot, control: this.#control }
    const url = new URL(`data:text/javascript,${encodeURIComponent(program)}`)
    this.worker = new Worker(url, { workerData })
  }

  /** The guest is inside, and has a translation of page 0. */
  async inside(): Promise<void> {
    await (Atomics as unknown as { waitAsync(a: Int32Array, i: number, v: number): { value: unknown } }).waitAsync(
      this.#control,
      0,
      0
    ).value
    expect(this.table.fill(0, 1)).toBe(0)
    expect(this.table.entry(0) & SHADOW_READ).not.toBe(0)
  }

  leave(): void {
    Atomics.store(this.#control, 1, 1)
  }
}

const rigs: Rig[] = []
afterEach(async () => {
  for (const rig of rigs.splice(0)) await rig.worker.terminate()
})

async function rig(threads: number, patienceMs: number): Promise<Rig> {
  const made = new Rig(threads, patienceMs)
  rigs.push(made)
  await made.inside()
  return made
}

// Where the operating system tells whether a thread exists.
describe.runIf(process.platform === 'linux').each([1, 2])('in a memory for %i threads', threads => {
  test('a guest whose thread ends while its host waits for it, without a turn of the event loop: the host goes on', async () => {
    const r = await rig(threads, 60_000)
    void r.worker.terminate()
    r.map.remap({ at: 0, page: 3 })
    expect(r.map.getUint8(0)).toBe(4)
    expect(r.table.entry(0)).toBe(0)
    // The next one need not find out again.
    expect(r.words[r.slot]).toBe(0)
    expect(r.memory.check()).toEqual([])
    r.table.expel(r.slot)
    r.memory.close()
  })

  test('the same when the host closes the memory', async () => {
    const r = await rig(threads, 60_000)
    void r.worker.terminate()
    r.memory.close()
    expect(r.words[0]).toBe(0)
  })
})

describe.each([1, 2])('in a memory for %i threads, where the system cannot be asked', threads => {
  test('a guest that has no safe point: the memory is broken, nothing is taken from the guest, and nobody hangs', async () => {
    const r = await rig(threads, 50)
    r.words[r.slot] = INSIDE
    expect(() => r.map.remap({ at: 0, page: 3 })).toThrow('EOWNERDEAD')
    expect(() => r.map.remap({ at: 1, page: 3 })).toThrow('EOWNERDEAD')
    expect(() => r.memory.space()).toThrow('EOWNERDEAD')
    expect(() => r.memory.close()).toThrow('EOWNERDEAD')
    // Nor does the guest, once it comes to a safe point.
    expect(r.words[0]).toBe(0)
  })

  test('a guest that only takes long is waited for', async () => {
    const r = await rig(threads, 60_000)
    r.words[r.slot] = INSIDE
    r.leave()
    r.map.remap({ at: 0, page: 3 })
    expect(r.map.getUint8(0)).toBe(4)
    r.memory.close()
  })
})
