/**
 * A file on a server, mapped and read from its first byte to its last through a memory half its size: by a thread that
 * blocks while this one brings the pages, and by this thread with `ready`. The memory is made once, as in a program
 * that opens many files; each round opens the file anew, and its pages go with it.
 */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import type { Mapping, Memory } from '../../src/index.ts'
import type * as HttpStores from '../../src/stores/http-range.ts'
import type { BenchRow, Context } from '../context.ts'
import { type Sample, type Side, Skip } from '../harness.ts'
import type { ScanTask } from '../http-scan.ts'
import { fold } from '../random.ts'
import { PAGE, type Subject } from '../subject.ts'
import { fileBytes, plainFetch, serve, timedRun } from './http.ts'

function memoryFor(context: Context, subject: Subject): Memory {
  if (typeof subject.Memory.prototype.openAsync !== 'function') {
    throw new Skip('the build to measure maps no stores that answer later')
  }
  return new subject.Memory({ size: fileBytes(context) / 2, threads: 2 })
}

async function loadHttpRange(context: Context): Promise<typeof HttpStores.httpRange> {
  const build = join(context.buildDirectory, 'http.js')
  if (!existsSync(build)) throw new Skip('the build to measure has no http.js')
  return ((await import(pathToFileURL(build).href)) as typeof HttpStores).httpRange
}

/** One round: opens, maps, has `scan` read all of it, and lets everything go again. */
async function mappedRun(
  context: Context,
  memory: Memory,
  open: () => ReturnType<typeof HttpStores.httpRange>,
  scan: (map: Mapping) => Promise<number>
): Promise<Sample> {
  return timedRun(context, async () => {
    const file = await memory.openAsync(await open())
    const space = memory.space()
    const checksum = await scan(space.map(file))
    space.close()
    file.close()
    return checksum
  })
}

async function byWorker(context: Context, subject: Subject): Promise<Side> {
  const memory = memoryFor(context, subject)
  const httpRange = await loadHttpRange(context)
  const { url, end } = await serve(context)
  const build = pathToFileURL(join(context.buildDirectory, 'fremap.js')).href
  const worker = new Worker(fileURLToPath(new URL('../http-scan.js', import.meta.url)), { workerData: { build } })
  const scan = (map: Mapping): Promise<number> => {
    const task: ScanTask = { memory: memory.handle, mapping: map.handle }
    const answer = once(worker, 'message') as Promise<[number]>
    worker.postMessage(task)
    return answer.then(([checksum]) => checksum)
  }
  return {
    run: () => mappedRun(context, memory, () => httpRange(url), scan),
    cleanup: async () => {
      await worker.terminate()
      await memory.closeAsync()
      end()
    }
  }
}

async function byReady(context: Context, subject: Subject): Promise<Side> {
  const memory = memoryFor(context, subject)
  const httpRange = await loadHttpRange(context)
  const { url, end } = await serve(context)
  const length = fileBytes(context) / 16
  const scan = async (map: Mapping): Promise<number> => {
    let checksum = 0
    let next = map.ready({ offset: 0, length })
    for (let from = 0; from < map.length; from += length) {
      await next
      // The next part is on its way while this one is read.
      if (from + length < map.length) next = map.ready({ offset: from + length, length })
      for (let at = from; at < from + length; at += PAGE) checksum = fold(checksum, map.getUint8(at))
    }
    return checksum
  }
  return {
    run: () => mappedRun(context, memory, () => httpRange(url), scan),
    cleanup: async () => {
      await memory.closeAsync()
      end()
    }
  }
}

export const httpMappedRows: readonly BenchRow[] = [
  {
    name: 'http/mapped',
    what: 'a file of 64 MiB on a server on loopback, mapped and read in order by a blocking worker, in 32 MiB',
    against: 'one fetch of it, its body read as a stream',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: { ratio: 1.2, better: 'lower' },
    ours: byWorker,
    theirs: plainFetch
  },
  {
    name: 'http/mapped-ready',
    what: 'http/mapped by one thread that awaits ready() for the next 4 MiB while it reads these',
    against: 'one fetch of it, its body read as a stream',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: undefined,
    ours: byReady,
    theirs: plainFetch
  }
]
