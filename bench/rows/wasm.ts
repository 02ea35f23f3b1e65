/**
 * A WebAssembly guest on resident pages: through the shadow table, against the same work on plain addresses of a memory of
 * the same kind. Both sides are functions of guest/index.ts; its build stands beside the build being measured.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Guest, type GuestMemory, makeGuestMemory, startGuest } from '../../test/support/guest.ts'
import type { BenchRow, Context } from '../context.ts'
import { type Sample, type Side, Skip, timed } from '../harness.ts'
import { permutation, SEED, stamp, uniform } from '../random.ts'
import { type Mapping, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20
/** Accesses in one call of the guest: V8 takes up better code for a function only when it is called again. */
const CALL = 1 << 16

interface Work {
  readonly words: number
  /** Byte offsets of what is read or stored to, in this order, `passes` times. */
  readonly offsets: Int32Array
  readonly passes: number
}

/** What a side has to work with: a guest, where its offsets lie, and for the plain side where its words do. */
interface Ready {
  readonly guest: Guest
  readonly place: GuestMemory
  readonly work: Work
}

type Body = (ready: Ready) => number

function resident(context: Context): Work {
  const words = context.size(256 * MIB, 32 * MIB) / 4
  const offsets = uniform(context.size(1 << 22, 1 << 20), words, SEED + 1).map(index => index * 4)
  return { words, offsets, passes: 1 }
}

function hot(context: Context): Work {
  const words = (64 * 1024) / 4
  return { words, offsets: uniform(CALL, words, SEED + 2).map(index => index * 4), passes: context.size(256, 64) }
}

function scan(context: Context): Work {
  return { words: context.size(64 * MIB, 16 * MIB) / 4, offsets: new Int32Array(0), passes: 1 }
}

function binaryOf(context: Context): Uint8Array {
  const path = join(context.buildDirectory, 'guest.wasm')
  if (!existsSync(path)) throw new Skip('this build has no guest.wasm')
  return readFileSync(path)
}

function handOver({ place, work }: Ready): void {
  new Int32Array(place.memory.buffer, place.scratchAt, work.offsets.length).set(work.offsets)
}

/** The words lie in a mapped file, whose window shows its pages in random order. */
function shadowSide(context: Context, subject: Subject, work: Work, body: Body): Side {
  const { Memory, ShadowTable } = subject
  if (ShadowTable === undefined) throw new Skip('this build has no ShadowTable')
  const binary = binaryOf(context)
  const lengthBytes = work.words * 4
  const size = Math.ceil(lengthBytes * 1.125) + 16 * MIB
  const place = makeGuestMemory(size, work.offsets.length * 4)
  const memory = new Memory({ size, ram: place.ram })
  const map: Mapping = memory.space().map(memory.shared(lengthBytes), { writable: true })
  map.remapPages(0, permutation(lengthBytes / PAGE))
  for (let i = 0; i < work.words; i++) map.setUint32(i * 4, stamp(i))
  const table = new ShadowTable(map, place.table)
  const guest = startGuest(binary, place.memory, {
    fault: (page, access) => table.fault(page, access),
    passed: () => {}
  })
  const ready = { guest, place, work }
  handOver(ready)
  return { run: () => timedPasses(ready, body), cleanup: () => memory.close() }
}

/** The words lie in a row where the other side has its frames. */
function plainSide(context: Context, work: Work, body: Body): Side {
  const binary = binaryOf(context)
  const place = makeGuestMemory(work.words * 4, work.offsets.length * 4)
  const array = new Uint32Array(place.memory.buffer, place.ram.byteOffset, work.words)
  for (let i = 0; i < work.words; i++) array[i] = stamp(i)
  const guest = startGuest(binary, place.memory, { fault: () => {}, passed: () => {} })
  const ready = { guest, place, work }
  handOver(ready)
  return { run: () => timedPasses(ready, body), cleanup: () => {} }
}

function timedPasses(ready: Ready, body: Body): Sample {
  const { passes, offsets, words } = ready.work
  const operations = offsets.length === 0 ? (words * 4) / 1024 : passes * offsets.length
  return timed(operations, () => {
    let sum = 0
    for (let pass = 0; pass < passes; pass++) sum = (sum + body(ready)) | 0
    return sum
  })
}

function overOffsets({ place, work }: Ready, call: (at: number, count: number) => number): number {
  let sum = 0
  const { length } = work.offsets
  for (let from = 0; from < length; from += CALL) {
    sum = (sum + call(place.scratchAt + from * 4, Math.min(CALL, length - from))) | 0
  }
  return sum
}

const loads: Body = ready => overOffsets(ready, (at, n) => ready.guest.sumAt(at, n))
const plainLoads: Body = ready => overOffsets(ready, (at, n) => ready.guest.rawSumAt(ready.place.ram.byteOffset, at, n))

// Each pass takes back what the one before did, so that all rounds find the same: the sum of the first words.
const stores: Body = ready =>
  overOffsets(ready, (at, n) => {
    ready.guest.rewriteAt(at, n, 0x55555555)
    ready.guest.rewriteAt(at, n, 0x55555555)
    return ready.guest.sumAt(at, 1)
  })
const plainStores: Body = ready =>
  overOffsets(ready, (at, n) => {
    const base = ready.place.ram.byteOffset
    ready.guest.rawRewriteAt(base, at, n, 0x55555555)
    ready.guest.rawRewriteAt(base, at, n, 0x55555555)
    return ready.guest.rawSumAt(base, at, 1)
  })

const sums: Body = ({ guest, work }) => overBytes(work, (from, n) => guest.sum(from, n))
const plainSums: Body = ({ guest, work, place }) =>
  overBytes(work, (from, n) => guest.rawSum(place.ram.byteOffset + from, n))

function overBytes({ words }: Work, call: (from: number, length: number) => bigint): number {
  let sum = 0
  for (let from = 0; from < words * 4; from += MIB) sum = (sum + Number(call(from, MIB))) | 0
  return sum
}

function wasmRow(
  name: string,
  what: string,
  unit: string,
  work: (context: Context) => Work,
  ours: Body,
  theirs: Body
): BenchRow {
  return {
    name: `wasm/${name}`,
    what,
    against: 'the same by plain loads and stores of the same guest, its words in a row',
    unit,
    sense: 'cost',
    reach: { ratio: 2, better: 'lower' },
    ours: (context, subject) => shadowSide(context, subject, work(context), ours),
    theirs: context => plainSide(context, work(context), theirs)
  }
}

const RESIDENT =
  'of 256 MiB, resident, the window in random page order, by a WebAssembly guest through its shadow table'

export const wasmRows: readonly BenchRow[] = [
  wasmRow('resident', `random 4-byte loads ${RESIDENT}`, 'ns/load', resident, loads, plainLoads),
  wasmRow('hot', 'the same within 64 KiB', 'ns/load', hot, loads, plainLoads),
  wasmRow('store', `random 4-byte words changed twice, ${RESIDENT}`, 'ns/word', resident, stores, plainStores),
  wasmRow('store-hot', 'the same within 64 KiB', 'ns/word', hot, stores, plainStores),
  wasmRow(
    'scan',
    'sum of all bytes of 64 MiB by the guest, window in random page order',
    'ns/KiB',
    scan,
    sums,
    plainSums
  )
]
