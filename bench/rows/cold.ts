/**
 * First touch of a file's pages: the file is in the OS cache and none of it in ours, against `fs.readSync`.
 *
 * The memory lives as long as the row, so its frames belong to the process after the warm-up, as those of a long
 * running program do. Each round opens the file anew; where the kernel counts the bytes a process reads, a round
 * that did not read the whole file was not cold and fails the row.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { type BenchRow, bytesReadSoFar, type Context } from '../context.ts'
import { inBlocks, type Sample, type Side, timed } from '../harness.ts'
import { fold, permutation } from '../random.ts'
import { type Mapping, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20

function fileBytes(context: Context): number {
  return context.size(128 * MIB, 16 * MIB)
}

interface Touches {
  readonly map: Mapping
  readonly offsets: Float64Array
}

function touchBlock({ map, offsets }: Touches, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) checksum = fold(checksum, map.getUint32(offsets[k]))
  return checksum
}

function mappingSide(context: Context, subject: Subject, offsets: Float64Array): Side {
  const length = fileBytes(context)
  const path = context.file(length)
  const memory = new subject.Memory({ size: Math.ceil(length * 1.25) + 16 * MIB })
  const kept = memory.space().map(memory.open(subject.nodeFile(context.file(MIB), 'r')))
  const run = (): Sample => {
    const file = memory.open(subject.nodeFile(path, 'r'))
    const space = memory.space()
    const map = space.map(file)
    const before = bytesReadSoFar()
    const sample = timed(offsets.length, () => inBlocks(offsets.length, { map, offsets }, touchBlock))
    const after = bytesReadSoFar()
    space.close()
    file.close()
    if (before !== undefined && after !== undefined && after - before < length) {
      throw new Error(`not cold: only ${after - before} of ${length} bytes were read`)
    }
    return sample
  }
  const cleanup = (): void => {
    kept.unmap()
    memory.close()
  }
  return { run, cleanup }
}

// The file's words are little-endian, and so are those of the arrays here wherever Node runs today.

interface PageReads {
  readonly fd: number
  readonly page: Uint8Array
  readonly words: Uint32Array
  readonly positions: Float64Array
}

interface ChunkReads {
  readonly fd: number
  readonly chunk: Uint8Array
  readonly words: Uint32Array
}

function readSyncBlock({ fd, page, words, positions }: PageReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) {
    readSync(fd, page, 0, PAGE, positions[k])
    checksum = fold(checksum, words[0])
  }
  return checksum
}

function readSyncRandom(context: Context, offsets: Float64Array): Side {
  const fd = openSync(context.file(fileBytes(context)), 'r')
  const page = new Uint8Array(PAGE)
  const state = { fd, page, words: new Uint32Array(page.buffer), positions: offsets }
  const run = (): Sample => timed(offsets.length, () => inBlocks(offsets.length, state, readSyncBlock))
  return { run, cleanup: () => closeSync(fd) }
}

function sequentialBlock({ fd, chunk, words }: ChunkReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let i = from; i < to; i++) {
    readSync(fd, chunk, 0, MIB, i * MIB)
    for (let word = 0; word < MIB / 4; word += PAGE / 4) checksum = fold(checksum, words[word])
  }
  return checksum
}

function readSyncSequential(context: Context): Side {
  const length = fileBytes(context)
  const fd = openSync(context.file(length), 'r')
  const chunk = new Uint8Array(MIB)
  const state = { fd, chunk, words: new Uint32Array(chunk.buffer) }
  const run = (): Sample => timed(length / PAGE, () => inBlocks(length / MIB, state, sequentialBlock))
  return { run, cleanup: () => closeSync(fd) }
}

interface PoolReads {
  readonly fd: number
  readonly pool: Uint8Array
  readonly words: Uint32Array
  readonly positions: Float64Array
}

function poolBlock({ fd, pool, words, positions }: PoolReads, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) {
    readSync(fd, pool, k * PAGE, PAGE, positions[k])
    checksum = fold(checksum, words[k * (PAGE / 4)])
  }
  return checksum
}

interface ChunkPool {
  readonly fd: number
  readonly pool: Uint8Array
  readonly words: Uint32Array
}

function chunkPoolBlock({ fd, pool, words }: ChunkPool, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let i = from; i < to; i++) {
    readSync(fd, pool, i * MIB, MIB, i * MIB)
    for (let word = 0; word < MIB / 4; word += PAGE / 4) checksum = fold(checksum, words[i * (MIB / 4) + word])
  }
  return checksum
}

/** A pool as large as the file, in use since the warm-up, as the frames on our side are. */
function poolSide(context: Context, read: (fd: number, pool: Uint8Array, words: Uint32Array) => number): Side {
  const length = fileBytes(context)
  const fd = openSync(context.file(length), 'r')
  const pool = new Uint8Array(length)
  const words = new Uint32Array(pool.buffer)
  return { run: () => timed(length / PAGE, () => read(fd, pool, words)), cleanup: () => closeSync(fd) }
}

function readSyncPool(context: Context): Side {
  const positions = randomOrder(context)
  return poolSide(context, (fd, pool, words) => inBlocks(positions.length, { fd, pool, words, positions }, poolBlock))
}

function readSyncChunkPool(context: Context): Side {
  return poolSide(context, (fd, pool, words) => inBlocks(fileBytes(context) / MIB, { fd, pool, words }, chunkPoolBlock))
}

function randomOrder(context: Context): Float64Array {
  return Float64Array.from(permutation(fileBytes(context) / PAGE), page => page * PAGE)
}

function inOrder(context: Context): Float64Array {
  return Float64Array.from({ length: fileBytes(context) / PAGE }, (_, page) => page * PAGE)
}

export const coldRows: readonly BenchRow[] = [
  {
    name: 'cold/random',
    what: 'first touch of every page of a 128 MiB file in random order, one word a page',
    against: 'fs.readSync of 4 KiB for each',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.2, better: 'lower' },
    ours: (context, subject) => mappingSide(context, subject, randomOrder(context)),
    theirs: context => readSyncRandom(context, randomOrder(context))
  },
  {
    name: 'cold/sequential',
    what: 'the same in file order, with readahead',
    against: 'fs.readSync of 1 MiB chunks',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.15, better: 'lower' },
    ours: (context, subject) => mappingSide(context, subject, inOrder(context)),
    theirs: context => readSyncSequential(context)
  },
  {
    name: 'cold/random-pool',
    what: 'cold/random once more',
    against: 'fs.readSync of 4 KiB, each page into a buffer of its own, as what keeps them must',
    unit: 'ns/page',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => mappingSide(context, subject, randomOrder(context)),
    theirs: readSyncPool
  },
  {
    name: 'cold/sequential-pool',
    what: 'cold/sequential once more',
    against: 'fs.readSync of 1 MiB chunks, each into a buffer of its own',
    unit: 'ns/page',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => mappingSide(context, subject, inOrder(context)),
    theirs: readSyncChunkPool
  }
]
