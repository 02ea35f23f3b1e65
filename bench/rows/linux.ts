/** Rows against remap_file_pages(2) of the live kernel, which emulates with vmas: `bench/linux/nonlinear.c`. */
import type { BenchRow, Context } from '../context.ts'
import { meanOfDiscontinuities, memoryForDiscontinuities, showBackwards } from '../discontinuities.ts'
import { inBlocks, type Sample, type Side, Skip, timed } from '../harness.ts'
import { fold, permutation, remapCalls, SEED, stamp } from '../random.ts'
import { MAP_NONBLOCK, type Mapping, type Mm, PAGE, type Subject } from '../subject.ts'

/** Below vm.max_map_count, or the kernel's side stops half-way. */
const CYCLE_PAGES = 60_000
const REMAP_PAGES = 32_768
const DISCONTINUITIES = 10_000_000

/** A shared window of `pages`, stamped, for one run. */
interface Window {
  readonly map: Mapping
  readonly mm: Mm
  close(): void
}

/**
 * Opens windows of one memory that lives as long as the row: its frames are in use from the warm-up on. One is kept,
 * for the reason that harness.ts gives.
 */
function windows(subject: Subject, pages: number): { open(): Window; cleanup(): void } {
  const memory = new subject.Memory({ size: Math.ceil((pages * PAGE * 5) / 4) + 32 * 2 ** 20 })
  const kept = memory.space().map(memory.shared(PAGE), { writable: true })
  const open = (): Window => {
    const shared = memory.shared(pages * PAGE)
    const space = memory.space()
    const map = space.map(shared, { writable: true })
    return {
      map,
      mm: space.mm,
      close: () => {
        space.close()
        shared.close()
      }
    }
  }
  const cleanup = (): void => {
    kept.unmap()
    memory.close()
  }
  return { open, cleanup }
}

function stampBlock(map: Mapping, from: number, to: number): number {
  for (let i = from; i < to; i++) map.setUint32(i * PAGE, stamp(i))
  return 0
}

function foldBlock(map: Mapping, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let i = from; i < to; i++) checksum = fold(checksum, map.getUint32(i * PAGE))
  return checksum
}

/** One call of the system call or of the mapping for each pair of `at` and `page`. */
interface Calls {
  readonly remapFilePages: Subject['sys_remap_file_pages']
  readonly map: Mapping
  readonly mm: Mm
  readonly at: Int32Array
  readonly page: Int32Array
  readonly flags: number
}

function sysBlock({ remapFilePages, map, mm, at, page, flags }: Calls, from: number, to: number): number {
  const start = map.address
  for (let k = from; k < to; k++) {
    const result = remapFilePages(mm, start + at[k] * PAGE, PAGE, 0, page[k], flags)
    if (result !== 0) refuse(result)
  }
  return 0
}

function apiBlock({ map, at, page }: Calls, from: number, to: number): number {
  for (let k = from; k < to; k++) map.remap({ at: at[k], page: page[k], count: 1 })
  return 0
}

function refuse(result: number): never {
  throw new Error(`remap_file_pages gave ${result}`)
}

function field(object: Record<string, unknown>, name: string): number {
  const value = object[name]
  if (typeof value !== 'number') throw new Error(`the live-kernel program printed no number ${name}`)
  return value
}

/** A side that runs the C program once a round. */
async function kernelSide(
  context: Context,
  args: (string | number)[],
  read: (lines: Record<string, unknown>[]) => Sample
): Promise<Side> {
  await context.liveKernel('cycle', 1) // compiles, and skips the row before our side is set up
  return { run: async () => read(await context.liveKernel(...args)), cleanup: () => {} }
}

function kernelCycle(context: Context, nonblock: boolean, value: 'nsPerPage' | 'remapNsPerPage'): Promise<Side> {
  const pages = cyclePages(context)
  return kernelSide(context, [nonblock ? 'cycle-nonblock' : 'cycle', pages, SEED], ([line]) => ({
    value: field(line, value),
    checksum: field(line, 'checksum'),
    phases: {
      write: field(line, 'writeNsPerPage'),
      remap: field(line, 'remapNsPerPage'),
      read: field(line, 'readNsPerPage'),
      unmap: field(line, 'unmapNsPerPage')
    }
  }))
}

function kernelRemap(context: Context, nonblock: boolean): Promise<Side> {
  return kernelSide(context, ['remap', REMAP_PAGES, remapCallCount(context), SEED], lines => {
    const line = lines.find(candidate => candidate.nonblock === nonblock)
    if (line === undefined) throw new Error('the live-kernel program printed no such line')
    return { value: field(line, 'nsPerCall'), checksum: field(line, 'checksum') }
  })
}

function cyclePages(context: Context): number {
  return context.size(CYCLE_PAGES, 10_000)
}

function remapCallCount(context: Context): number {
  return context.size(100_000, 20_000)
}

/** The whole cycle; `remapAll` makes one call for each page. */
function cycle(context: Context, subject: Subject, remapAll: (window: Window, shown: Int32Array) => void): Side {
  const pages = cyclePages(context)
  const shown = permutation(pages)
  const { open, cleanup } = windows(subject, pages)
  const run = (): Sample => {
    const window = open()
    const t0 = performance.now()
    inBlocks(pages, window.map, stampBlock)
    const t1 = performance.now()
    remapAll(window, shown)
    const t2 = performance.now()
    const checksum = inBlocks(pages, window.map, foldBlock) >>> 0
    const t3 = performance.now()
    window.close()
    const t4 = performance.now()
    const nsPerPage = (from: number, to: number): number => ((to - from) * 1e6) / pages
    return {
      value: nsPerPage(t0, t4),
      checksum,
      phases: { write: nsPerPage(t0, t1), remap: nsPerPage(t1, t2), read: nsPerPage(t2, t3), unmap: nsPerPage(t3, t4) }
    }
  }
  return { run, cleanup }
}

/** Only the remapping is timed; `remapAll` does all calls. The window's content is the checksum. */
function remapAlone(subject: Subject, pages: number, operations: number, remapAll: (window: Window) => void): Side {
  const { open, cleanup } = windows(subject, pages)
  const run = (): Sample => {
    const window = open()
    inBlocks(pages, window.map, stampBlock)
    const { value } = timed(operations, () => {
      remapAll(window)
      return 0
    })
    const checksum = inBlocks(pages, window.map, foldBlock) >>> 0
    window.close()
    return { value, checksum }
  }
  return { run, cleanup }
}

function sysCycle(context: Context, subject: Subject, flags: number): Side {
  const at = Int32Array.from({ length: cyclePages(context) }, (_, i) => i)
  const remapFilePages = subject.sys_remap_file_pages
  return cycle(context, subject, ({ map, mm }, page) => {
    inBlocks(at.length, { remapFilePages, map, mm, at, page, flags }, sysBlock)
  })
}

function remapCalled(context: Context, subject: Subject, flags: number, block: typeof sysBlock): Side {
  const { at, page } = remapCalls(REMAP_PAGES, remapCallCount(context))
  const remapFilePages = subject.sys_remap_file_pages
  return remapAlone(subject, REMAP_PAGES, at.length, ({ map, mm }) => {
    inBlocks(at.length, { remapFilePages, map, mm, at, page, flags }, block)
  })
}

function vectoredRemap(context: Context, subject: Subject): Side {
  const shown = permutation(cyclePages(context))
  return remapAlone(subject, shown.length, shown.length, ({ map }) => map.remapPages(0, shown))
}

function oursDiscontinuities(subject: Subject): Side {
  const memory = memoryForDiscontinuities(subject)
  const run = (): Sample => {
    const { count, nsPerPage, checksum } = showBackwards(memory, DISCONTINUITIES)
    return { value: count, checksum, phases: { 'ns/page': nsPerPage } }
  }
  return { run, cleanup: () => memory.close() }
}

function costOfDiscontinuities(subject: Subject, pages: number): Side {
  const memory = memoryForDiscontinuities(subject)
  return { run: () => meanOfDiscontinuities(memory, pages), cleanup: () => memory.close() }
}

const LIVE = 'the same in C on the live kernel'

export const linuxRows: readonly BenchRow[] = [
  {
    name: 'linux/cycle',
    what: 'write each page of a shared window, remap each by one call, read each, unmap',
    against: LIVE,
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 15, better: 'higher' },
    ours: (context, subject) => sysCycle(context, subject, 0),
    theirs: context => kernelCycle(context, false, 'nsPerPage')
  },
  {
    name: 'linux/cycle-nonblock',
    what: 'the same, each call with MAP_NONBLOCK, so that the reads fault',
    against: LIVE,
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 15, better: 'higher' },
    ours: (context, subject) => sysCycle(context, subject, MAP_NONBLOCK),
    theirs: context => kernelCycle(context, true, 'nsPerPage')
  },
  {
    name: 'linux/remap',
    what: 'remap of one random page, sys_remap_file_pages alone, which populates',
    against: LIVE,
    unit: 'ns/call',
    sense: 'cost',
    reach: { ratio: 100, better: 'higher' },
    ours: (context, subject) => remapCalled(context, subject, 0, sysBlock),
    theirs: context => kernelRemap(context, false)
  },
  {
    name: 'linux/remap-nonblock',
    what: 'the same with MAP_NONBLOCK',
    against: LIVE,
    unit: 'ns/call',
    sense: 'cost',
    reach: { ratio: 100, better: 'higher' },
    ours: (context, subject) => remapCalled(context, subject, MAP_NONBLOCK, sysBlock),
    theirs: context => kernelRemap(context, true)
  },
  {
    name: 'linux/remap-api',
    what: 'the same by Mapping.remap',
    against: `${LIVE}, with MAP_NONBLOCK`,
    unit: 'ns/call',
    sense: 'cost',
    reach: { ratio: 100, better: 'higher' },
    ours: (context, subject) => remapCalled(context, subject, MAP_NONBLOCK, apiBlock),
    theirs: context => kernelRemap(context, true)
  },
  {
    name: 'linux/remap-vectored',
    what: 'a whole window permuted by one Mapping.remapPages',
    against: `one call for each page in C on the live kernel, with MAP_NONBLOCK`,
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 500, better: 'higher' },
    ours: vectoredRemap,
    theirs: context => kernelCycle(context, true, 'remapNsPerPage')
  },
  {
    name: 'linux/discontinuities',
    what: 'pages that each stand alone in one mapping, up to 10 million',
    against: 'as many as the live kernel gives until ENOMEM',
    unit: 'pages',
    sense: 'count',
    reach: { value: DISCONTINUITIES, better: 'higher' },
    ours: (_context, subject) => oursDiscontinuities(subject),
    theirs: context =>
      kernelSide(context, ['discontinuities'], ([line]) => ({
        value: field(line, 'count'),
        checksum: field(line, 'checksum'),
        phases: { 'ns/page': field(line, 'nsPerPage') }
      }))
  },
  {
    name: 'linux/discontinuity-cost',
    what: 'vectored remap until 10 million discontinuities are in the mapping',
    against: 'this build until 60,000 are ("the same cost" read as within 1.25x)',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.25, better: 'lower' },
    ours: (_context, subject) => costOfDiscontinuities(subject, DISCONTINUITIES),
    theirs: (_context, subject) => {
      if (subject === undefined) throw new Skip('it compares a build with itself, and none was given')
      return costOfDiscontinuities(subject, CYCLE_PAGES)
    }
  }
]
