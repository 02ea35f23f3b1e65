/** What a machine counts and holds, as one snapshot. */
import { MM_NR_TABLES } from '../frame/mm-table.ts'
import { VMSTAT_NAMES } from '../frame/vmstat.ts'
import type { Kernel } from '../kernel.ts'
import type { Machine } from '../mm/machine.ts'
import {
  T_LOCK_CONTENDED,
  T_LOCK_TRIES,
  T_LOCK_WAITS,
  T_PLATFORM_ID,
  T_PROGRESS,
  T_RETRIES,
  T_STATE,
  T_WAITS,
  THREAD_ATTACHED
} from '../sync/threads.ts'

/** The arena's parts that grow with the number of frames. */
const FRAME_PARTS = ['frame table', 'free bitmap', 'page cache', 'reverse map']

/** How a thread is getting on. */
export interface ThreadStats {
  /** The platform's number for the thread, -1 if it gave none. */
  readonly thread: number
  /** How often it took the machine lock or came back from a store. */
  readonly lockTakes: number
  /** How often it found the machine lock taken; tried again, some 0.1 µs apart; slept for it. */
  readonly lockContended: number
  readonly lockTries: number
  readonly lockWaits: number
  /** How often it slept for another lock or page. */
  readonly waits: number
  /** How often a load was made again. */
  readonly retries: number
}

/** A snapshot of the counters. Pages unless the name says otherwise. */
export interface MemoryStats {
  readonly pageSize: number
  readonly frames: number
  readonly freeFrames: number
  /** Most frames in use at any time. */
  readonly peakFrames: number
  readonly pageTables: number
  readonly pageTableBytes: number
  readonly reverseMapSlabs: number
  /** Pages on their way from stores that answer later. */
  readonly pagesUnderWay: number
  readonly swapUsed: number
  readonly swapSlots: number
  /** Bytes of all that describes frames: their table, the cache's index, the reverse map with its nodes. */
  readonly frameOverheadBytes: number
  /** What lies beside the frames, by name, in bytes; mostly reserved and untouched until used. */
  readonly besideBytes: Readonly<Record<string, number>>
  /** The threads that are attached. */
  readonly threads: readonly ThreadStats[]
  /** pgfault, pgmajfault, pgpgin, pgsteal and the others of vmstat, by name. */
  readonly counters: Readonly<Record<string, number>>
}

/** The machine lock is held, or there is one thread. */
export function memoryStats(kernel: Kernel): MemoryStats {
  const m = kernel.machine
  const { pageSize } = m.ram
  let pageTables = 0
  for (let mm = 1; mm <= m.mms.maxMms; mm++) if (m.mms.isAlive(mm)) pageTables += m.mms.row(mm, MM_NR_TABLES)
  const counters: Record<string, number> = {}
  VMSTAT_NAMES.forEach((name, i) => {
    counters[name] = m.counters.total(i)
  })
  const slabs = m.nodes.nrSlabs
  const besideBytes: Record<string, number> = {
    'I/O buffer': m.filler.bounce.length,
    'fetch buffers': m.filler.requests.bufferBytes
  }
  for (const { name, bytes } of kernel.layout) besideBytes[name] = bytes
  return {
    pageSize,
    frames: m.ram.nrFrames,
    freeFrames: m.allocator.nrFree,
    peakFrames: m.allocator.peakUsed,
    pageTables,
    pageTableBytes: pageTables * pageSize,
    reverseMapSlabs: slabs,
    pagesUnderWay: m.filler.requests.nrUnderWay,
    swapUsed: m.swap.nrUsed,
    swapSlots: m.swap.nrSlots,
    frameOverheadBytes: FRAME_PARTS.reduce((sum, part) => sum + (besideBytes[part] ?? 0), 0) + slabs * pageSize,
    besideBytes,
    threads: threadStats(m),
    counters
  }
}

function threadStats(m: Machine): ThreadStats[] {
  const { threads } = m.sync
  const stats: ThreadStats[] = []
  for (let t = 0; t < threads.maxThreads; t++) {
    const row = threads.at(t, 0)
    if (threads.w[row + T_STATE] !== THREAD_ATTACHED) continue
    const word = (at: number) => threads.w[row + at]
    stats.push({
      thread: word(T_PLATFORM_ID),
      lockTakes: word(T_PROGRESS) >>> 0,
      lockContended: word(T_LOCK_CONTENDED),
      lockTries: word(T_LOCK_TRIES) >>> 0,
      lockWaits: word(T_LOCK_WAITS),
      waits: word(T_WAITS),
      retries: word(T_RETRIES)
    })
  }
  return stats
}
