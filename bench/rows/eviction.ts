/** Uniform random reads of a file under a budget 16 times smaller, against an LRU cache as a user would write it. */
import { closeSync, openSync } from 'node:fs'
import type { BenchRow, Context } from '../context.ts'
import { inBlocks, type Sample, type Side, timed } from '../harness.ts'
import { PageLru } from '../lru.ts'
import { fold, SEED, uniform } from '../random.ts'
import { type Mapping, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20

interface Reads {
  readonly fileBytes: number
  /** For everything: the whole memory on our side, the page slots alone on the other. */
  readonly budgetBytes: number
  /** Aligned byte positions. */
  readonly positions: Float64Array
}

function reads(context: Context): Reads {
  const fileBytes = context.size(256 * MIB, 64 * MIB)
  const words = uniform(context.size(200_000, 50_000), fileBytes / 4, SEED + 3)
  return { fileBytes, budgetBytes: fileBytes / 16, positions: Float64Array.from(words, word => word * 4) }
}

// The next two loops are one text on purpose: each side's copy sees only its own types.

interface MappingReads {
  readonly map: Mapping
  readonly positions: Float64Array
}

function mapBlock({ map, positions }: MappingReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) checksum = fold(checksum, map.getUint32(positions[k]))
  return checksum
}

interface CacheReads {
  readonly cache: PageLru
  readonly positions: Float64Array
}

function cacheBlock({ cache, positions }: CacheReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) checksum = fold(checksum, cache.readWord(positions[k]))
  return checksum
}

function mappingSide(context: Context, subject: Subject): Side {
  const { fileBytes, budgetBytes, positions } = reads(context)
  const memory = new subject.Memory({ size: budgetBytes })
  const file = memory.open(subject.nodeFile(context.file(fileBytes), 'r'))
  const map = memory.space().map(file)
  const run = (): Sample => timed(positions.length, () => inBlocks(positions.length, { map, positions }, mapBlock))
  return { run, cleanup: () => memory.close() }
}

function lruSide(context: Context): Side {
  const { fileBytes, budgetBytes, positions } = reads(context)
  const fd = openSync(context.file(fileBytes), 'r')
  const cache = new PageLru(fd, budgetBytes, PAGE)
  const run = (): Sample => timed(positions.length, () => inBlocks(positions.length, { cache, positions }, cacheBlock))
  return { run, cleanup: () => closeSync(fd) }
}

export const evictionRows: readonly BenchRow[] = [
  {
    name: 'eviction/uniform',
    what: 'uniform random 4-byte reads of a 256 MiB file under a 16 MiB budget that also holds the tables',
    against: 'own LRU of 16 MiB of page buffers over fs.readSync',
    unit: 'ns/read',
    sense: 'cost',
    reach: { ratio: 1, better: 'higher' },
    ours: mappingSide,
    theirs: lruSide
  }
]
