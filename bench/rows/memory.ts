/** What the machine keeps beside the bytes of its pages: by its own count, and by what the process grows. */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { BenchRow, Context } from '../context.ts'
import type { Sample, Side } from '../harness.ts'
import { permutation } from '../random.ts'
import { type MemoryStats, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20

function pageCount(context: Context): number {
  return context.size(512 * MIB, 128 * MIB) / PAGE
}

/** Fills a memory through a permuted window of as many pages, and gives what `figure` says of its own count. */
function ownCount(context: Context, subject: Subject, figure: (stats: MemoryStats) => number): Side {
  const pages = pageCount(context)
  const shown = permutation(pages)
  const run = (): Sample => {
    using memory = new subject.Memory({ size: Math.ceil(pages * PAGE * 1.0625) + 4 * MIB })
    const map = memory.space().map(memory.shared(pages * PAGE), { writable: true })
    map.remapPages(0, shown)
    for (let i = 0; i < pages; i++) map.setUint32(i * PAGE, i + 1)
    return { value: figure(memory.stats()), checksum: 0 }
  }
  return { run, cleanup: () => {} }
}

/** The same in a process of its own, by its resident set: `bench/rss.ts`, compiled beside this folder. */
function processGrowth(context: Context): Side {
  const pages = pageCount(context)
  const program = fileURLToPath(new URL('../rss.js', import.meta.url))
  const run = (): Sample => {
    const grown = Number(execFileSync(process.execPath, [program, context.buildDirectory, String(pages)]))
    return { value: grown / pages - PAGE, checksum: 0 }
  }
  return { run, cleanup: () => {} }
}

export const memoryRows: readonly BenchRow[] = [
  {
    name: 'memory/frame',
    what: 'bytes that describe one frame, the frames in use and none at its linear place',
    against: 'nothing',
    unit: 'B/frame',
    sense: 'cost',
    reach: { value: 64, better: 'lower' },
    ours: (context, subject) => ownCount(context, subject, stats => stats.frameOverheadBytes / stats.frames)
  },
  {
    name: 'memory/tables',
    what: 'bytes of page tables for each page of the window: 4 B an entry, and a hundredth for the upper levels',
    against: 'nothing',
    unit: 'B/page',
    sense: 'cost',
    reach: { value: 4.04, better: 'lower' },
    ours: (context, subject) => ownCount(context, subject, stats => stats.pageTableBytes / pageCount(context))
  },
  {
    name: 'memory/rss',
    what: 'growth of a process beyond the pages written: 64 B and 4 B, and the heap and code that go with them',
    against: 'nothing',
    unit: 'B/page',
    sense: 'cost',
    reach: { value: 68, better: 'lower' },
    ours: processGrowth
  }
]
