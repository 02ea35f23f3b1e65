/**
 * Threads touch the pages of a shared file in random order while one of them cuts: it truncates the file and lets it
 * grow back, and punches holes (after LTP's holetest and the hole punching of shmem in Linux 3.16).
 *
 * A word of a thread's own is what it stored, or zero if a cut came after the store; and it is zero if the cut began
 * after the store was done and ended before the load began. SIGBUS comes only while the file is short.
 *
 *   CUTS              odd while a cut is made
 *   PLACES + page     the odd value of CUTS for the last cut that took the page, once that cut has returned
 */
import type { MappedFile, Mapping } from '../../src/index.ts'
import { CUTS, codeOf, type Env, PLACES } from './env.ts'
import { laneAt } from './lanes.ts'

/** What lies behind all lanes in a page. */
const PART_BYTES = 16

export interface HoleModel {
  readonly stored: Uint32Array
}

export function holes(env: Env): HoleModel {
  const { config, memory, task, me } = env
  const map = memory.adopt(task.whole)
  const stored = new Uint32Array(config.pages)
  if (me === 0) cut(env)
  else touch(env, map, stored)
  return { stored }
}

function touch(env: Env, map: Mapping, stored: Uint32Array): void {
  const { config, words, prng, report } = env
  const file = env.file()
  /** CUTS when the last store to a page was done, and before it began. */
  const done = new Int32Array(config.pages)
  const begun = new Int32Array(config.pages)
  while (!env.isOver) {
    const page = prng.below(config.pages)
    const offset = page * config.pageSize + laneAt(env.me)
    const lastCut = Atomics.load(words, PLACES + page)
    const before = Atomics.load(words, CUTS)
    report.operations++
    try {
      const seen = prng.oneIn(8) ? readWord(file, offset) : map.getUint32(offset)
      if (prng.oneIn(256)) map.advise('willneed')
      const mayBeCut = (begun[page] & 1) !== 0 || Atomics.load(words, CUTS) !== begun[page]
      report.checked++
      if (seen !== stored[page] && !(seen === 0 && mayBeCut)) {
        env.wrong(`page ${page} has ${seen}, but ${stored[page]} was stored`)
      }
      if (seen !== 0 && done[page] < lastCut) env.wrong(`page ${page} has ${seen}, which was cut away before`)
      if (prng.oneIn(2)) {
        const value = prng.next() | 1
        begun[page] = Atomics.load(words, CUTS)
        map.setUint32(offset, value)
        done[page] = Atomics.load(words, CUTS)
        stored[page] = value >>> 0
      } else if (seen !== stored[page]) stored[page] = seen
    } catch (error) {
      // A store that failed stored nothing; what was there may be cut.
      begun[page] = -1
      if (codeOf(error) === 'ENOMEM') report.outOfMemory++
      else if (codeOf(error) !== 'SIGBUS' || ((before & 1) === 0 && Atomics.load(words, CUTS) === before)) {
        env.wrong(`page ${page}: ${(error as Error).stack}`)
      }
    }
  }
}

/** By read(); past the end of the file there is nothing to read, as there is nothing to load. */
function readWord(file: MappedFile, offset: number): number {
  const bytes = new Uint8Array(4)
  if (file.read(bytes, offset) < 4) throw Object.assign(new Error('past the end of the file'), { code: 'SIGBUS' })
  return new DataView(bytes.buffer).getUint32(0, true)
}

function cut(env: Env): void {
  const { config, words, prng, report } = env
  const { pageSize, pages } = config
  const file = env.file()
  const size = pages * pageSize
  while (!env.isOver) {
    const first = prng.below(pages)
    const count = prng.between(1, pages - first)
    const number = Atomics.add(words, CUTS, 1) + 1
    report.operations++
    const isTruncated = prng.oneIn(2)
    // In the middle of the page before, which must be in memory for that.
    const keepsPart = first > 0 && prng.oneIn(2)
    let isDone = true
    try {
      if (!isTruncated) file.punch(first * pageSize, count * pageSize)
      else {
        file.truncate(first * pageSize - (keepsPart ? PART_BYTES : 0))
        file.truncate(size)
      }
    } catch (error) {
      isDone = false
      if (codeOf(error) === 'ENOMEM') report.outOfMemory++
      else env.wrong(`${isTruncated ? 'truncate' : 'punch'} at page ${first}: ${(error as Error).stack}`)
      if (isTruncated) grow(env, size)
    }
    const end = isTruncated ? pages : first + count
    if (isDone) for (let page = first; page < end; page++) Atomics.store(words, PLACES + page, number)
    Atomics.add(words, CUTS, 1)
    if (prng.oneIn(16)) env.attempt('sync', () => file.sync())
    if (prng.oneIn(4)) Atomics.wait(words, CUTS + 2, 0, 1)
  }
}

function grow(env: Env, size: number): void {
  env.attempt('growing back', () => env.file().truncate(size))
}
