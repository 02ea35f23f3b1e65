/**
 * A thread of `crew.ts`: attaches to the memory, waits for a command, runs it between two looks at the clock.
 *
 * Commands lie in shared words. The loops are functions of this module that take what they read by parameter, as the
 * harness asks.
 */
import { openSync, readFileSync, readSync } from 'node:fs'
import { threadId, workerData } from 'node:worker_threads'
import { COMMAND, type CrewData, READ_FILE_PAGES, READ_PAGES, READ_WORDS, REMAP_PAGES, SPAN } from './crew.ts'
import { fold } from './random.ts'
import { nextRound, reportDone, sharedClock } from './roll-call.ts'
import { loadSubject, type Mapping } from './subject.ts'

const data = workerData as CrewData
const { control, results, indexes, slot } = data

function readWords(map: Mapping, offsets: Int32Array, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = (sum + map.getUint32(offsets[k])) | 0
  return sum
}

/** A word of each page, 4 KiB apart. */
function readPages(map: Mapping, pages: Int32Array, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let k = from; k < to; k++) sum = fold(sum, map.getUint32(pages[k] * 4096))
  return sum
}

/** What `readPages` costs without a memory: each page by a read of its own, to its place in a pool. */
function readFilePages(fd: number, pool: Uint8Array, pages: Int32Array, from: number, to: number): number {
  const words = new Uint32Array(pool.buffer)
  let sum = 0
  for (let k = from; k < to; k++) {
    readSync(fd, pool, pages[k] * 4096, 4096, pages[k] * 4096)
    sum = fold(sum, words[pages[k] * 1024])
  }
  return sum
}

/** Calls longer than this may have waited for a processor. */
const LONG_MS = 0.1

/** How long this thread has been ready to run and had no processor, in ms; 0 where the system does not tell. */
function waitedForProcessorMs(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6
  } catch {
    return 0
  }
}

/**
 * One page after another is made to show another one, each call timed alone. → the longest call in ns, but for waits
 * for a processor.
 */
function remapPages(map: Mapping, pages: Int32Array, from: number, to: number): number {
  let longest = 0
  let waited = waitedForProcessorMs()
  const what = { at: 0, page: 0 }
  for (let k = from; k < to; k++) {
    what.at = pages[k]
    what.page = pages[to - 1 - (k - from)]
    const start = performance.now()
    map.remap(what)
    let took = performance.now() - start
    if (took > LONG_MS) {
      const now = waitedForProcessorMs()
      took = Math.max(0, took - (now - waited))
      waited = now
    }
    if (took > longest) longest = took
  }
  return longest * 1e6
}

const subject = await loadSubject(data.build)
const memory = subject.Memory.attach(data.memory, { stores: [subject.nodeFiles], thread: threadId })
const map = memory.adopt(data.mapping)
const plainFd = data.plain === undefined ? -1 : openSync(data.plain.path, 'r')
const plainPool = new Uint8Array(data.plain?.pool ?? new SharedArrayBuffer(0))
reportDone(control)

for (let round = 0; ; ) {
  round = nextRound(control, round)
  const command = control[COMMAND]
  if (command < 0) break
  const from = control[SPAN + 2 * slot]
  const to = control[SPAN + 2 * slot + 1]
  if (to > from) run(command, from, to)
  reportDone(control)
}
memory.detach()

function run(command: number, from: number, to: number): void {
  const start = sharedClock()
  let result = 0
  if (command === READ_WORDS) result = readWords(map, indexes, from, to, 0)
  else if (command === READ_PAGES) result = readPages(map, indexes, from, to, 0)
  else if (command === READ_FILE_PAGES) result = readFilePages(plainFd, plainPool, indexes, from, to)
  else if (command === REMAP_PAGES) result = remapPages(map, indexes, from, to)
  const end = sharedClock()
  results[slot * 4] = result
  results[slot * 4 + 1] = start
  results[slot * 4 + 2] = end
}
