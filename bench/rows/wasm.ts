/**
 * A WebAssembly guest on resident pages: through the shadow table, against the same work on plain addresses of a memory
 * of the same kind. Both sides are functions of guest/index.ts; its build stands beside the build being measured.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Guest, type GuestMemory, makeGuestMemory, startGuest } from '../../test/support/guest.ts'
import type { BenchRow, Context } from '../context.ts'
import { GuestCrew } from '../guest-crew.ts'
import { inBlocks, type Sample, type Side, Skip, timed } from '../harness.ts'
import { permutation, SEED, stamp, uniform } from '../random.ts'
import { type Mapping, type Memory, PAGE, type Subject } from '../subject.ts'

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

/** Guests in so many threads at once, on equal parts of the same loads. */
async function crewSide(context: Context, subject: Subject, threads: 1 | 2): Promise<Side> {
  const { Memory, ShadowTable } = subject
  if (ShadowTable?.adopt === undefined) throw new Skip('this build has no shadow tables that threads share')
  const words = context.size(64 * MIB, 16 * MIB) / 4
  const offsets = uniform(context.size(1 << 22, 1 << 20), words, SEED + 3).map(index => index * 4)
  const size = Math.ceil(words * 4 * 1.125) + 16 * MIB
  const place = makeGuestMemory(size, offsets.length * 4)
  const memory = new Memory({ size, ram: place.ram, threads: 3 })
  const map = memory.space().map(memory.shared(words * 4), { writable: true })
  map.remapPages(0, permutation((words * 4) / PAGE))
  for (let i = 0; i < words; i++) map.setUint32(i * 4, stamp(i))
  const table = new ShadowTable(map, place.table)
  new Int32Array(place.memory.buffer, place.scratchAt, offsets.length).set(offsets)
  const shared = {
    build: context.buildDirectory,
    binary: binaryOf(context),
    memory: memory.handle,
    mapping: map.handle,
    table: table.handle,
    wasm: place.memory
  }
  const crew = await GuestCrew.start(threads, shared, place.scratchAt, offsets.length)
  return {
    run: () => {
      const { elapsedNs, sum } = crew.run()
      return { value: elapsedNs / offsets.length, checksum: sum >>> 0 }
    },
    cleanup: () => {
      crew.leave()
      memory.close()
    }
  }
}

// The two software TLBs of a memory that threads share: the one that is told, and that of the accessors, which looks.

interface TlbReads {
  readonly words: Uint32Array
  readonly tlb: InstanceType<NonNullable<Subject['Tlb']>>
  readonly firstVpn: number
  readonly offsets: Int32Array
}

function tlbBlock({ words, tlb, firstVpn, offsets }: TlbReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) {
    const at = offsets[k]
    sum = (sum + words[(tlb.translate(firstVpn + (at >>> 12), 1) + (at & 4095)) >>> 2]) | 0
  }
  tlb.safePoint()
  return sum
}

interface AccessorReads {
  readonly map: Mapping
  readonly offsets: Int32Array
}

function accessorBlock({ map, offsets }: AccessorReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + map.getUint32(offsets[k])) | 0
  return sum
}

interface SharedWords {
  readonly memory: Memory
  readonly map: Mapping
  readonly offsets: Int32Array
  readonly place: GuestMemory
}

function sharedWords(context: Context, subject: Subject): SharedWords {
  if (subject.Tlb === undefined) throw new Skip('this build has no Tlb')
  const bytes = context.size(16 * MIB, 4 * MIB)
  const offsets = uniform(context.size(1 << 22, 1 << 20), bytes / 4, SEED + 4).map(index => index * 4)
  const size = bytes * 1.125 + 16 * MIB
  const place = makeGuestMemory(size, MIB)
  const memory = new subject.Memory({ size, ram: place.ram, threads: 2 })
  const map = memory.space().map(memory.shared(bytes), { writable: true })
  for (let i = 0; i < bytes / 4; i++) map.setUint32(i * 4, stamp(i))
  return { memory, map, offsets, place }
}

function tlbSide(context: Context, subject: Subject): Side {
  const { memory, map, offsets, place } = sharedWords(context, subject)
  const { Tlb } = subject
  if (Tlb === undefined) throw new Skip('this build has no Tlb')
  const tlb = new Tlb(map.space, { byteOffset: place.scratchAt, nrEntries: 8192 })
  const words = new Uint32Array(place.memory.buffer)
  const state = { words, tlb, firstVpn: map.address / PAGE, offsets }
  const run = (): Sample =>
    tlb.guest().run(() => timed(offsets.length, () => inBlocks(offsets.length, state, tlbBlock)))
  return { run, cleanup: () => memory.close() }
}

function accessorSide(context: Context, subject: Subject): Side {
  const { memory, map, offsets } = sharedWords(context, subject)
  const state = { map, offsets }
  const run = (): Sample => timed(offsets.length, () => inBlocks(offsets.length, state, accessorBlock))
  return { run, cleanup: () => memory.close() }
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
  ),
  {
    name: 'wasm/two-guests',
    what: 'random 4-byte loads of 64 MiB, resident, by guests in two threads through one shadow table',
    against: 'a guest in one thread that makes all the loads',
    unit: 'ns/load',
    sense: 'cost',
    reach: { ratio: 1.8, better: 'higher' },
    ours: (context, subject) => crewSide(context, subject, 2),
    theirs: (context, subject) => crewSide(context, subject as Subject, 1)
  },
  {
    name: 'wasm/tlb',
    what: 'random 4-byte loads of 16 MiB, resident, in a memory that threads share, by JavaScript through a Tlb of 8,192 entries',
    against: 'the same by the accessors of a mapping, which look again after each load',
    unit: 'ns/load',
    sense: 'cost',
    reach: undefined,
    ours: tlbSide,
    theirs: (context, subject) => accessorSide(context, subject as Subject)
  }
]
