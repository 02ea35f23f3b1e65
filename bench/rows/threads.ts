/** Several threads on one memory: how far they get together, and what sharing costs a thread that is alone. */
import type { BenchRow, Context } from '../context.ts'
import { Crew, type CrewRun, READ_FILE_PAGES, READ_PAGES, READ_WORDS, REMAP_PAGES } from '../crew.ts'
import { inBlocks, type Sample, type Side, Skip, timed } from '../harness.ts'
import { fold, permutation, SEED, stamp, uniform } from '../random.ts'
import { type Mapping, type Memory, PAGE, type Store, type Subject } from '../subject.ts'

const MIB = 2 ** 20
/** This thread, the crew, and one to spare. */
const THREADS = 4

interface Room {
  readonly memory: Memory
  readonly map: Mapping
  readonly crew: Crew
}

function needThreads(subject: Subject): void {
  if (typeof subject.Memory.attach !== 'function') throw new Skip('this build has no threads')
}

/** Half of `count` indexes below `half`, half of them above: what two threads read without meeting. */
function disjointHalves(count: number, half: number): Int32Array {
  const low = uniform(count / 2, half, SEED + 3)
  const high = uniform(count / 2, half, SEED + 4).map(word => word + half)
  const indexes = new Int32Array(count)
  indexes.set(low)
  indexes.set(high, count / 2)
  return indexes
}

const residentBytes = (context: Context): number => context.size(64 * MIB, 16 * MIB)

async function residentRoom(context: Context, subject: Subject, crewSize: number): Promise<Room & { count: number }> {
  needThreads(subject)
  const bytes = residentBytes(context)
  const memory = new subject.Memory({ size: bytes + 16 * MIB, threads: THREADS })
  const map = memory.space().map(memory.shared(bytes), { writable: true })
  for (let word = 0; word < bytes / 4; word += PAGE / 4) map.setUint32(word * 4, stamp(word))
  map.populateSync()
  const count = context.size(1 << 22, 1 << 20)
  const indexes = disjointHalves(count, bytes / 8).map(word => word * 4)
  const crew = await Crew.start(crewSize, {
    build: context.buildDirectory,
    memory: memory.handle,
    mapping: map.handle,
    indexes
  })
  return { memory, map, crew, count }
}

function sampleOf(run: CrewRun, operations: number, combine: (results: readonly number[]) => number): Sample {
  return { value: run.elapsedNs / operations, checksum: combine(run.results) >>> 0 }
}

const sum = (results: readonly number[]): number => results.reduce((total, result) => (total + result) | 0, 0)

async function resident(context: Context, subject: Subject, threads: 1 | 2): Promise<Side> {
  const { memory, crew, count } = await residentRoom(context, subject, threads)
  const spans = halves(count, threads)
  return {
    run: () => sampleOf(crew.run(READ_WORDS, spans), count, sum),
    cleanup: () => end(memory, crew)
  }
}

function halves(count: number, threads: 1 | 2): [number, number][] {
  return threads === 1
    ? [[0, count]]
    : [
        [0, count / 2],
        [count / 2, count]
      ]
}

function end(memory: Memory, crew: Crew): void {
  crew.leave()
  memory.close()
}

const faultBytes = (context: Context): number => context.size(128 * MIB, 16 * MIB)

/** Either half of the file in an order of its own: the threads' pages lie apart, as in `threads/resident`. */
function halvesApart(pages: number): Int32Array {
  const half = pages / 2
  const order = new Int32Array(pages)
  order.set(permutation(half))
  order.set(
    permutation(half, SEED + 1).map(page => page + half),
    half
  )
  return order
}

const inOrder = (pages: number): Int32Array => Int32Array.from({ length: pages }, (_, page) => page)

/** How often the threads of a memory took the machine lock, found it taken, and tried again until it was free. */
function lockUse(memory: Memory): [number, number, number] {
  const total: [number, number, number] = [0, 0, 0]
  for (const { lockTakes, lockContended, lockTries } of memory.stats().threads) {
    total[0] += lockTakes
    total[1] += lockContended
    total[2] += lockTries
  }
  return total
}

type How = typeof READ_PAGES | typeof READ_FILE_PAGES

/**
 * First touches of a file in the OS cache, before each round everything is evicted; or as many reads of it without a
 * mapping.
 */
async function faults(
  context: Context,
  subject: Subject,
  threads: 1 | 2,
  order: (pages: number) => Int32Array,
  how: How = READ_PAGES
): Promise<Side> {
  needThreads(subject)
  const bytes = faultBytes(context)
  const memory = new subject.Memory({ size: Math.ceil(bytes * 1.25) + 16 * MIB, threads: THREADS })
  const file = memory.open(subject.nodeFile(context.file(bytes), 'r'))
  const map = memory.space().map(file)
  const pages = bytes / PAGE
  const crew = await Crew.start(threads, {
    build: context.buildDirectory,
    memory: memory.handle,
    mapping: map.handle,
    indexes: order(pages),
    ...(how === READ_FILE_PAGES ? { plain: { path: context.file(bytes), pool: new SharedArrayBuffer(bytes) } } : {})
  })
  const spans = halves(pages, threads)
  // One thread folds one half after the other as two do, so that the checksums are the same.
  const runs = threads === 1 ? halves(pages, 2).map(span => [span]) : [spans]
  const run = (): Sample => {
    memory.shrink()
    const before = lockUse(memory)
    let elapsedNs = 0
    const results: number[] = []
    for (const part of runs) {
      const found = crew.run(how, part)
      elapsedNs += found.elapsedNs
      results.push(...found.results)
    }
    const sample = sampleOf({ elapsedNs, results }, pages, found => found.reduce((total, word) => fold(total, word), 0))
    const after = lockUse(memory)
    const [takes, contended, tries] = after.map((count, i) => (count - before[i]) / pages)
    return {
      ...sample,
      phases: {
        'machine lock taken, times a page': takes,
        'found taken, times a page': contended,
        'tries until it was free, a page': tries
      }
    }
  }
  return { run, cleanup: () => end(memory, crew) }
}

// The hit of a mapping of a shared memory beside that of a memory of one thread: the same loop, a copy for each.

interface MappingReads {
  readonly map: Mapping
  readonly offsets: Int32Array
}

function sharedBlock({ map, offsets }: MappingReads, from: number, to: number, start: number): number {
  let total = start | 0
  for (let k = from; k < to; k++) total = (total + map.getUint32(offsets[k])) | 0
  return total
}

function aloneBlock({ map, offsets }: MappingReads, from: number, to: number, start: number): number {
  let total = start | 0
  for (let k = from; k < to; k++) total = (total + map.getUint32(offsets[k])) | 0
  return total
}

function sharedStores({ map, offsets }: MappingReads, from: number, to: number, start: number): number {
  for (let k = from; k < to; k++) map.setUint32(offsets[k], k)
  return start
}

function aloneStores({ map, offsets }: MappingReads, from: number, to: number, start: number): number {
  for (let k = from; k < to; k++) map.setUint32(offsets[k], k)
  return start
}

function hits(context: Context, subject: Subject, bytes: number, threads: number, block: typeof sharedBlock): Side {
  if (threads > 1) needThreads(subject)
  const memory = new subject.Memory({ size: bytes * 1.25 + 16 * MIB, ...(threads > 1 ? { threads } : {}) })
  const map = memory.space().map(memory.shared(bytes), { writable: true })
  for (let word = 0; word < bytes / 4; word += PAGE / 4) map.setUint32(word * 4, stamp(word))
  const offsets = uniform(1 << 16, bytes / 4, SEED + 5).map(word => word * 4)
  const passes = context.size(64, 16)
  const state = { map, offsets }
  const run = (): Sample =>
    timed(passes * offsets.length, () => {
      let total = 0
      for (let pass = 0; pass < passes; pass++) total = (total + inBlocks(offsets.length, state, block)) | 0
      return total
    })
  return { run, cleanup: () => memory.close() }
}

/** A store of zeros that takes so long for each change, and for its close. */
const SLOW_MS = 20

function slowStore(sizeBytes: number): Store {
  const clock = new Int32Array(new SharedArrayBuffer(4))
  const slowly = (result: number): number => {
    Atomics.wait(clock, 0, 0, SLOW_MS)
    return result
  }
  return {
    name: 'slow',
    identity: undefined,
    readOnly: false,
    durable: false,
    size: () => sizeBytes,
    read: (_position, buffer, offset, length) => {
      buffer.fill(0, offset, offset + length)
      return length
    },
    write: (_position, _buffer, _offset, length) => slowly(length),
    flush: () => slowly(0),
    truncate: () => slowly(0),
    punch: () => slowly(0),
    close: () => slowly(0)
  }
}

/** Opens a file of a slow store, writes to it, cuts it and closes it. */
function useSlowFile(memory: Memory): void {
  const file = memory.open(slowStore(MIB))
  file.write(Uint8Array.of(1), 0)
  file.punch(4 * PAGE, PAGE)
  file.truncate(8 * PAGE)
  file.close()
}

const BESIDE_CUTS = 'cuts'
const BESIDE_POPULATE = 'beside'
const ALONE = 'alone'

/**
 * The longest of many remaps, while this thread populates a locked mapping of the same address space, uses a file whose
 * store is slow, or works on nothing.
 */
async function remapWait(
  context: Context,
  subject: Subject,
  how: typeof BESIDE_POPULATE | typeof BESIDE_CUTS | typeof ALONE
): Promise<Side> {
  needThreads(subject)
  const bytes = context.size(1024 * MIB, 64 * MIB)
  const memory = new subject.Memory({ size: bytes * 1.25 + 64 * MIB, threads: THREADS })
  const space = memory.space()
  const window = space.map(memory.shared(MIB), { writable: true })
  const crew = await Crew.start(1, {
    build: context.buildDirectory,
    memory: memory.handle,
    mapping: window.handle,
    indexes: uniform(1 << 20, MIB / PAGE, SEED + 6)
  })
  const calls = context.size(200_000, 20_000)
  const spans: [number, number][] = [[0, calls]]
  const run = (): Sample => {
    if (how === ALONE) {
      crew.begin(REMAP_PAGES, spans)
      // Not asleep: what takes the processor from a call is in both sides then.
      while (!crew.isDone);
      return { value: crew.end(spans).results[0] / 1e6, checksum: 0 }
    }
    if (how === BESIDE_CUTS) {
      crew.begin(REMAP_PAGES, spans)
      let uses = 0
      do useSlowFile(memory)
      while (++uses && !crew.isDone)
      return { value: crew.end(spans).results[0] / 1e6, checksum: 0, phases: { 'files cut and closed': uses } }
    }
    const file = memory.shared(bytes)
    crew.begin(REMAP_PAGES, spans)
    const start = performance.now()
    const big = space.map(file, { locked: true })
    const populatedMs = performance.now() - start
    const found = crew.end(spans)
    big.unmap()
    file.close()
    return { value: found.results[0] / 1e6, checksum: 0, phases: { 'populating the whole, ms': populatedMs } }
  }
  return { run, cleanup: () => end(memory, crew) }
}

function remapWaitRow(name: string, work: string, how: typeof BESIDE_POPULATE | typeof BESIDE_CUTS): BenchRow {
  return {
    name,
    what: `the longest of 200,000 remaps in one thread while another ${work}`,
    against: 'the longest while the other thread spins: what the clock and the collector make of a call',
    unit: 'ms',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => remapWait(context, subject, how),
    theirs: (context, subject) => remapWait(context, subject as Subject, ALONE)
  }
}

export const threadRows: readonly BenchRow[] = [
  {
    name: 'threads/resident',
    what: 'random 4-byte reads of resident pages, two threads on halves of 64 MiB',
    against: 'one thread that makes all the reads',
    unit: 'ns/read',
    sense: 'cost',
    reach: { ratio: 1.8, better: 'higher' },
    ours: (context, subject) => resident(context, subject, 2),
    theirs: (context, subject) => resident(context, subject as Subject, 1)
  },
  {
    name: 'threads/faults',
    what: 'first touch of every page of a 128 MiB file, two threads on halves of the file, each in random order',
    against: 'one thread that touches them all',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.6, better: 'higher' },
    ours: (context, subject) => faults(context, subject, 2, halvesApart),
    theirs: (context, subject) => faults(context, subject as Subject, 1, halvesApart)
  },
  {
    name: 'threads/faults-mixed',
    what: 'the same where the pages of both threads lie mixed: halves of one random order',
    against: 'one thread that touches them all',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.6, better: 'higher' },
    ours: (context, subject) => faults(context, subject, 2, permutation),
    theirs: (context, subject) => faults(context, subject as Subject, 1, permutation)
  },
  {
    name: 'threads/plain-reads',
    what: 'the pages of threads/faults without a memory: two threads read each into a pool by readSync; what the system itself gives',
    against: 'one thread that reads them all',
    unit: 'ns/page',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => faults(context, subject, 2, halvesApart, READ_FILE_PAGES),
    theirs: (context, subject) => faults(context, subject as Subject, 1, halvesApart, READ_FILE_PAGES)
  },
  {
    name: 'threads/faults-in-order',
    what: 'first touch of every page of a 128 MiB file in its order, with readahead, two threads on halves of the file',
    against: 'one thread that touches them all',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.6, better: 'higher' },
    ours: (context, subject) => faults(context, subject, 2, inOrder),
    theirs: (context, subject) => faults(context, subject as Subject, 1, inOrder)
  },
  {
    name: 'threads/hit-hot',
    what: 'random reads within 64 KiB through a mapping of a memory that threads can share',
    against: 'the same through a mapping of a memory of one thread',
    unit: 'ns/read',
    sense: 'cost',
    reach: { ratio: 2, better: 'lower' },
    ours: (context, subject) => hits(context, subject, 64 * 1024, THREADS, sharedBlock),
    theirs: (context, subject) => hits(context, subject as Subject, 64 * 1024, 1, aloneBlock)
  },
  {
    name: 'threads/hit-resident',
    what: 'random reads of resident pages of 64 MiB through a mapping of a memory that threads can share',
    against: 'the same through a mapping of a memory of one thread',
    unit: 'ns/read',
    sense: 'cost',
    reach: { ratio: 2, better: 'lower' },
    ours: (context, subject) => hits(context, subject, residentBytes(context), THREADS, sharedBlock),
    theirs: (context, subject) => hits(context, subject as Subject, residentBytes(context), 1, aloneBlock)
  },
  {
    name: 'threads/store-hot',
    what: 'random stores within 64 KiB through a mapping of a memory that threads can share',
    against: 'the same through a mapping of a memory of one thread',
    unit: 'ns/store',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => hits(context, subject, 64 * 1024, THREADS, sharedStores),
    theirs: (context, subject) => hits(context, subject as Subject, 64 * 1024, 1, aloneStores)
  },
  remapWaitRow(
    'threads/remap-wait',
    'populates a locked mapping of 1 GiB, without the time in which the system gave the thread no processor',
    BESIDE_POPULATE
  ),
  remapWaitRow(
    'threads/cut-wait',
    'opens, writes, punches, truncates and closes a file whose store takes 20 ms for each',
    BESIDE_CUTS
  )
]
