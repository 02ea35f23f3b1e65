/** Random 4-byte reads of resident pages, through a window that shows them in random order, against a typed array. */
import type { BenchRow, Context } from '../context.ts'
import { inBlocks, type Sample, type Side, timed } from '../harness.ts'
import { permutation, SEED, stamp, uniform } from '../random.ts'
import { type Mapping, PAGE, type Subject } from '../subject.ts'

interface Reads {
  readonly words: number
  /** Which words are read, in this order, `passes` times. */
  readonly indexes: Int32Array
  readonly passes: number
}

const MIB = 2 ** 20

function resident(context: Context): Reads {
  const words = context.size(256 * MIB, 32 * MIB) / 4
  return { words, indexes: uniform(context.size(1 << 22, 1 << 20), words, SEED + 1), passes: 1 }
}

function hot(context: Context): Reads {
  return { words: (64 * 1024) / 4, indexes: uniform(1 << 16, (64 * 1024) / 4, SEED + 2), passes: context.size(256, 64) }
}

// The next two loops are one text on purpose: each side's copy sees only its own types.

interface ArrayReads {
  readonly array: Uint32Array
  readonly indexes: Int32Array
}

function arrayBlock({ array, indexes }: ArrayReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + array[indexes[k]]) | 0
  return sum
}

interface MappingReads {
  readonly map: Mapping
  readonly offsets: Int32Array
}

function mappingBlock({ map, offsets }: MappingReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + map.getUint32(offsets[k])) | 0
  return sum
}

type Block = (state: null, from: number, to: number, start: number) => number

/**
 * The same loop compiled anew, so that it is the only closure of its text, and V8 folds `source` and `indexes` into
 * its code as constants: how a loop over a module's own `const` runs.
 */
function constantBlock(name: string, read: string, source: unknown, indexes: Int32Array): Block {
  const text = `return (state, from, to, start) => { // ${name}, ${read}
    let sum = start | 0
    for (let k = from; k < to; k++) sum = (sum + ${read}) | 0
    return sum
  }`
  return new Function('source', 'indexes', text)(source, indexes)
}

function timedPasses<State>(reads: Reads, state: State, block: Parameters<typeof inBlocks<State>>[2]): Sample {
  const { passes, indexes } = reads
  return timed(passes * indexes.length, () => {
    let sum = 0
    for (let pass = 0; pass < passes; pass++) sum = (sum + inBlocks(indexes.length, state, block)) | 0
    return sum
  })
}

function filledArray(words: number): Uint32Array {
  const array = new Uint32Array(words)
  for (let i = 0; i < words; i++) array[i] = stamp(i)
  return array
}

function arraySide(reads: Reads): Side {
  const state = { array: filledArray(reads.words), indexes: reads.indexes }
  return { run: () => timedPasses(reads, state, arrayBlock), cleanup: () => {} }
}

function constantArraySide(name: string, reads: Reads): Side {
  const block = constantBlock(name, 'source[indexes[k]]', filledArray(reads.words), reads.indexes)
  return { run: () => timedPasses(reads, null, block), cleanup: () => {} }
}

function filledMapping(subject: Subject, words: number): { map: Mapping; close(): void } {
  const bytes = words * 4
  const memory = new subject.Memory({ size: Math.ceil(bytes * 1.125) + 16 * MIB })
  const map = memory.space().map(memory.shared(bytes), { writable: true })
  map.remapPages(0, permutation(bytes / PAGE))
  for (let i = 0; i < words; i++) map.setUint32(i * 4, stamp(i))
  return { map, close: () => memory.close() }
}

function mappingSide(subject: Subject, reads: Reads): Side {
  const { map, close } = filledMapping(subject, reads.words)
  const state = { map, offsets: reads.indexes.map(index => index * 4) }
  return { run: () => timedPasses(reads, state, mappingBlock), cleanup: close }
}

function constantMappingSide(name: string, subject: Subject, reads: Reads): Side {
  const { map, close } = filledMapping(subject, reads.words)
  const offsets = reads.indexes.map(index => index * 4)
  const block = constantBlock(name, 'source.getUint32(indexes[k])', map, offsets)
  return { run: () => timedPasses(reads, null, block), cleanup: close }
}

const ONE_ARRAY = 'the same reads of one Uint32Array'

function readRowPair(name: string, what: string, ratio: number, reads: (context: Context) => Reads): BenchRow[] {
  const common = { against: ONE_ARRAY, unit: 'ns/read', sense: 'cost', reach: { ratio, better: 'lower' } } as const
  return [
    {
      ...common,
      name: `read/${name}`,
      what,
      ours: (context, subject) => mappingSide(subject, reads(context)),
      theirs: context => arraySide(reads(context))
    },
    {
      ...common,
      name: `read/${name}-const`,
      what: `${what}; array and mapping are constants to V8, not parameters`,
      ours: (context, subject) => constantMappingSide(name, subject, reads(context)),
      theirs: context => constantArraySide(name, reads(context))
    }
  ]
}

export const readRows: readonly BenchRow[] = [
  ...readRowPair(
    'resident',
    'random 4-byte reads of 256 MiB, resident, the window in random page order',
    1.5,
    resident
  ),
  ...readRowPair('hot', 'the same within 64 KiB', 2.5, hot)
]
