/**
 * The same work on one file through what a user could take in our place (`bench/peer-files.ts`): whole pages of 4 KiB,
 * one row for each work and peer. The rows of one work are measured on the same file in the same order.
 *
 * Every file is in the OS cache. None has a reach: the peers do different things, and some keep the whole file.
 */
import type { BenchRow, Context } from '../context.ts'
import { inBlocks, type Sample, type Side, timed } from '../harness.ts'
import { type Opening, openMapping, type PageFile, type Peer, peers } from '../peer-files.ts'
import { fold, permutation, SEED, uniform } from '../random.ts'
import { PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20

interface Touches {
  readonly file: PageFile
  readonly pages: Int32Array
}

type TouchBlock = (state: Touches, from: number, to: number, start: number) => number

/** Two bytes at each end of each page. Names nothing but its parameters: see `compiledAnew`. */
function touchBlock({ file, pages }: Touches, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let k = from; k < to; k++) {
    const bytes = file.page(pages[k])
    const word = bytes[0] | (bytes[1] << 8) | (bytes[4094] << 16) | (bytes[4095] << 24)
    checksum = (Math.imul(checksum, 31) + word) | 0
  }
  return checksum
}

/** One byte of each cache line. Names nothing but its parameters: see `compiledAnew`. */
function sumBlock({ file, pages }: Touches, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) {
    const bytes = file.page(pages[k])
    for (let i = k & 63; i < 4096; i += 64) sum = (sum + bytes[i]) | 0
  }
  return sum
}

/** The loop compiled for `name` alone, so that what one peer's pages are does not slow down another's. */
function compiledAnew(block: TouchBlock, name: string): TouchBlock {
  return new Function(`return /* ${name} */ ${block.toString()}`)() as TouchBlock
}

/** A file as one side opens it, and that side's own loops. */
interface Opened {
  readonly name: string
  open(): PageFile
}

interface Work {
  readonly name: string
  readonly what: string
  readonly unit: string
  readonly mode: Opening['mode']
  fileBytes(context: Context): number
  /** Undefined: no budget. */
  budgetBytes?(context: Context): number
  side(context: Context, opened: Opened): Side
}

const fileBytes = (context: Context): number => context.size(64 * MIB, 16 * MIB)

function oneByOne(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => i)
}

/** Looks at every one of `pages` when nothing of the file is kept. */
function coldSide(opened: Opened, pages: Int32Array, block: TouchBlock): Side {
  const loop = compiledAnew(block, `${opened.name} cold`)
  const file = opened.open()
  const run = (): Sample => {
    file.forget()
    return timed(pages.length, () => inBlocks(pages.length, { file, pages }, loop))
  }
  return { run, cleanup: () => void file.close() }
}

/** Opens the file once; what is measured is a later look at its pages. */
function openSide(opened: Opened, pages: Int32Array, block: TouchBlock): Side {
  const loop = compiledAnew(block, `${opened.name} open`)
  const file = opened.open()
  inBlocks(pages.length, { file, pages }, loop)
  return {
    run: () => timed(pages.length, () => inBlocks(pages.length, { file, pages }, loop)),
    cleanup: () => void file.close()
  }
}

/** Stores whole pages and syncs; then, outside the clock, reads them again. */
function writeSide(opened: Opened, pages: Int32Array): Side {
  const file = opened.open()
  const source = new Uint8Array(PAGE)
  const run = (): Sample => {
    const { value } = timed(pages.length, () => {
      file.commit(() => {
        for (let k = 0; k < pages.length; k++) {
          source.fill(k & 0xff)
          file.write(pages[k], source)
        }
      })
      return 0
    })
    let checksum = 0
    for (const page of pages) {
      const bytes = file.page(page)
      checksum = fold(checksum, bytes[1] + bytes[PAGE - 1])
    }
    return { value, checksum: checksum >>> 0 }
  }
  return { run, cleanup: () => void file.close() }
}

const works: readonly Work[] = [
  {
    name: 'cold-random',
    what: 'look at every page of a newly opened file of 64 MiB in random order',
    unit: 'ns/page',
    mode: 'r',
    fileBytes,
    side: (context, opened) => coldSide(opened, permutation(fileBytes(context) / PAGE), touchBlock)
  },
  {
    name: 'warm-random',
    what: 'look at random pages again',
    unit: 'ns/page',
    mode: 'r',
    fileBytes,
    side: (context, opened) => {
      const count = context.size(200_000, 50_000)
      return openSide(opened, uniform(count, fileBytes(context) / PAGE, SEED + 6), touchBlock)
    }
  },
  {
    name: 'write-sync',
    what: 'store 1000 random pages, and sync',
    unit: 'ns/page',
    mode: 'r+',
    fileBytes,
    side: (context, opened) => writeSide(opened, permutation(fileBytes(context) / PAGE, SEED + 7).subarray(0, 1000))
  },
  {
    name: 'scan',
    what: 'sum a byte of each cache line of a newly opened file, in file order',
    unit: 'ns/page',
    mode: 'r',
    fileBytes,
    side: (context, opened) => coldSide(opened, oneByOne(fileBytes(context) / PAGE), sumBlock)
  },
  {
    name: 'budget',
    what: 'look at random pages of a 256 MiB file with 16 MiB of memory',
    unit: 'ns/page',
    mode: 'r',
    fileBytes: context => context.size(256 * MIB, 64 * MIB),
    budgetBytes: context => context.size(256 * MIB, 64 * MIB) / 16,
    side: (context, opened) => {
      const pages = context.size(256 * MIB, 64 * MIB) / PAGE
      return openSide(opened, uniform(context.size(100_000, 25_000), pages, SEED + 8), touchBlock)
    }
  }
]

function opening(context: Context, work: Work): Opening {
  const sizeBytes = work.fileBytes(context)
  return {
    path: work.mode === 'r' ? context.file(sizeBytes) : context.scratchFile(sizeBytes),
    mode: work.mode,
    budgetBytes: work.budgetBytes?.(context) ?? Number.POSITIVE_INFINITY
  }
}

function ourSide(context: Context, subject: Subject, work: Work): Side {
  const file = opening(context, work)
  return work.side(context, { name: 'fremap', open: () => openMapping(subject, file) })
}

async function peerSide(context: Context, peer: Peer, work: Work): Promise<Side> {
  const file = opening(context, work)
  const path = (await peer.prepare?.(context, file.path)) ?? file.path
  const opened = (): PageFile => peer.open(context, { ...file, path })
  return work.side(context, { name: peer.name, open: opened })
}

export const peerRows: readonly BenchRow[] = works.flatMap(work =>
  peers
    .filter(peer => peer.budgeted || work.budgetBytes === undefined)
    .map(peer => ({
      name: `peers/${work.name}/${peer.name}`,
      what: work.what,
      against: peer.what,
      unit: work.unit,
      sense: 'cost',
      reach: undefined,
      ours: (context, subject) => ourSide(context, subject, work),
      theirs: context => peerSide(context, peer, work)
    }))
)
