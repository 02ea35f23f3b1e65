/**
 * How a cost changes as the work grows: lines of points for the charts, measured by this run beside the rows.
 *
 * At each point the lines are measured in turn, round by round; a point is the median of its rounds.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import type { Context } from './context.ts'
import { meanOfDiscontinuities, memoryForDiscontinuities } from './discontinuities.ts'
import { inBlocks, timed } from './harness.ts'
import { fold, permutation, SEED, stamp, uniform } from './random.ts'
import { median } from './statistics.ts'
import { type Mapping, type Memory, PAGE, type Subject } from './subject.ts'

const KIB = 2 ** 10
const MIB = 2 ** 20
const GIB = 2 ** 30

/** One x of a series, set up. `sample` measures each line once, in the order of the series' `lines`. */
interface Point {
  sample(): number[]
  close(): void
}

export interface SeriesPlan {
  /** `series/name`: what `--filter` looks at. */
  readonly name: string
  readonly title: string
  readonly xTitle: string
  readonly xUnit: 'bytes' | 'count'
  readonly yTitle: string
  readonly lines: readonly string[]
  xs(context: Context): number[]
  open(x: number, context: Context, subject: Subject): Point
}

export interface SeriesResult extends Omit<SeriesPlan, 'xs' | 'open' | 'lines'> {
  readonly lines: readonly { readonly name: string; readonly points: readonly (readonly [number, number])[] }[]
}

export interface SeriesOptions {
  readonly rounds: number
  readonly onProgress?: (name: string, x: number) => void
}

/** One round before those that count. Throws what a point throws. */
export function runSeries(plan: SeriesPlan, context: Context, subject: Subject, options: SeriesOptions): SeriesResult {
  const { xs, open, lines, ...rest } = plan
  const points: [number, number][][] = lines.map(() => [])
  for (const x of xs(context)) {
    options.onProgress?.(plan.name, x)
    const point = open(x, context, subject)
    try {
      point.sample()
      const samples = Array.from({ length: options.rounds }, () => point.sample())
      for (const [i, line] of points.entries()) line.push([x, median(samples.map(sample => sample[i]))])
    } finally {
      point.close()
    }
  }
  return { ...rest, lines: lines.map((name, i) => ({ name, points: points[i] })) }
}

/** from, from * factor, ... up to `to`. */
export function steps(from: number, to: number, factor: number): number[] {
  const xs: number[] = []
  for (let x = from; x <= to; x *= factor) xs.push(x)
  return xs
}

function same(name: string, checksums: readonly number[]): void {
  if (new Set(checksums).size > 1) throw new Error(`${name}: checksums differ: ${checksums.join(' ')}`)
}

function discontinuities(count: number, _context: Context, subject: Subject): Point {
  const memory = memoryForDiscontinuities(subject)
  return {
    sample: () => [meanOfDiscontinuities(memory, count, 100_000).value],
    close: () => memory.close()
  }
}

/** Stores to frames and frees them, so that the system has given them to the process. */
function useFrames(memory: Memory, bytes: number): void {
  using shared = memory.shared(bytes)
  using space = memory.space()
  space.map(shared, { writable: true }).fill(1)
}

interface Faults {
  readonly map: Mapping
  readonly positions: Float64Array
}

function faultBlock({ map, positions }: Faults, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) checksum = fold(checksum, map.getUint32(positions[k]))
  return checksum
}

interface FileReads {
  readonly fd: number
  readonly page: Uint8Array
  readonly words: Uint32Array
  readonly positions: Float64Array
}

function fileBlock({ fd, page, words, positions }: FileReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) {
    readSync(fd, page, 0, PAGE, positions[k])
    checksum = fold(checksum, words[0])
  }
  return checksum
}

/**
 * Each of up to 4096 pages, spread evenly over a sparse file, read for the first time and in random order; small files
 * several times over, opened anew each time.
 */
function coldFaults(sizeBytes: number, context: Context, subject: Subject): Point {
  const path = context.sparseFile(sizeBytes)
  const count = Math.min(sizeBytes / PAGE, 4096)
  const stride = sizeBytes / count
  const positions = Float64Array.from(permutation(count), i => i * stride)
  const repeats = Math.ceil(4096 / count)
  const memory = new subject.Memory({ size: 64 * MIB })
  useFrames(memory, 56 * MIB)
  const fd = openSync(path, 'r')
  const page = new Uint8Array(PAGE)
  const reads = { fd, page, words: new Uint32Array(page.buffer), positions }
  const fault = (): { value: number; checksum: number } => {
    const file = memory.open(subject.nodeFile(path, 'r'))
    const space = memory.space()
    const map = space.map(file)
    const sample = timed(count, () => inBlocks(count, { map, positions }, faultBlock))
    space.close()
    file.close()
    return sample
  }
  const sample = (): number[] => {
    let [ours, theirs] = [0, 0]
    for (let i = 0; i < repeats; i++) {
      const mapped = fault()
      const read = timed(count, () => inBlocks(count, reads, fileBlock))
      same('series/file-size', [mapped.checksum, read.checksum])
      ours += mapped.value
      theirs += read.value
    }
    return [ours / repeats, theirs / repeats]
  }
  const close = (): void => {
    memory.close()
    closeSync(fd)
  }
  return { sample, close }
}

interface ResidentReads {
  readonly map: Mapping
  readonly offsets: Int32Array
}

function residentBlock({ map, offsets }: ResidentReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + map.getUint32(offsets[k])) | 0
  return sum
}

interface ArrayReads {
  readonly array: Uint32Array
  readonly indexes: Int32Array
}

function arrayBlock({ array, indexes }: ArrayReads, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + array[indexes[k]]) | 0
  return sum
}

/** Random words of shared memory that fills three quarters of the budget, shown in random page order. */
function residentReads(budgetBytes: number, context: Context, subject: Subject): Point {
  const pages = (budgetBytes / PAGE / 4) * 3
  const words = (pages * PAGE) / 4
  const count = context.size(1 << 20, 1 << 18)
  const indexes = uniform(count, words, SEED + 5)
  const offsets = indexes.map(index => index * 4) // below 2^31 up to a budget of 2 GiB
  const memory = new subject.Memory({ size: budgetBytes })
  const map = memory.space().map(memory.shared(pages * PAGE), { writable: true })
  map.remapPages(0, permutation(pages))
  const array = new Uint32Array(words)
  for (let i = 0; i < words; i++) array[i] = stamp(i)
  const bytes = new Uint8Array(array.buffer)
  for (let offset = 0; offset < bytes.length; offset += 64 * KIB) {
    map.write(bytes.subarray(offset, offset + 64 * KIB), offset)
  }
  const sample = (): number[] => {
    const ours = timed(count, () => inBlocks(count, { map, offsets }, residentBlock))
    const theirs = timed(count, () => inBlocks(count, { array, indexes }, arrayBlock))
    same('series/budget', [ours.checksum, theirs.checksum])
    return [ours.value, theirs.value]
  }
  return { sample, close: () => memory.close() }
}

export const seriesPlans: readonly SeriesPlan[] = [
  {
    name: 'series/discontinuities',
    title: 'Remapping a page, by pages that stand alone in the mapping',
    xTitle: 'discontinuities in one mapping',
    xUnit: 'count',
    yTitle: 'ns/page',
    lines: ['Mapping.remapPages'],
    xs: context => steps(1000, context.size(1e7, 1e5), 10),
    open: discontinuities
  },
  {
    name: 'series/file-size',
    title: 'First touch of a random page, by size of the (sparse) file',
    xTitle: 'size of the file',
    xUnit: 'bytes',
    yTitle: 'ns/page',
    lines: ['mapping', 'fs.readSync of 4 KiB'],
    xs: context => steps(MIB, context.size(64 * GIB, GIB), 4),
    open: coldFaults
  },
  {
    name: 'series/budget',
    title: 'Random 4-byte read of resident pages, by size of the memory',
    xTitle: 'budget of the memory, three quarters of it read',
    xUnit: 'bytes',
    yTitle: 'ns/read',
    lines: ['mapping', 'one Uint32Array'],
    xs: context => [...steps(MIB, context.size(512 * MIB, 64 * MIB), 4), ...(context.quick ? [] : [GIB, 2 * GIB])],
    open: residentReads
  }
]
