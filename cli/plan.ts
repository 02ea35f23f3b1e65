/**
 * Plans: orders written down, one remap a line.
 *
 *   # window-page  file-page  count
 *   0              1000       16       window pages 0 to 15 show file pages 1000 to 1015
 *   16             0                   window page 16 shows file page 0: a count left out is 1
 *
 * Lines apply from top to bottom, as calls of remap_file_pages do: a later one wins where two overlap. The window ends
 * with the last window page that a line names. Window pages that no line names show the file page of the same number,
 * as in a mapping that was just made.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { PTE_FILE_MAX_PAGES } from '../src/index.ts'
import { UsageError, withPath } from './failure.ts'
import type { Order } from './order.ts'

export interface PlanLine {
  /** Line number in the file, from 1. */
  readonly line: number
  readonly at: number
  readonly page: number
  readonly count: number
}

export interface Plan {
  readonly path: string
  readonly lines: readonly PlanLine[]
}

/** What may come from a device or a pipe that does not end. */
const MAX_LINE_CHARACTERS = 10_000
const MAX_LINES = 2 ** 22
const MAX_BYTES = 2 ** 28

/** Throws UsageError, with the line. */
export function readPlan(path: string): Plan {
  const lines: PlanLine[] = []
  let nr = 0
  for (const row of rowsOf(path)) {
    nr++
    if (row.length > MAX_LINE_CHARACTERS) {
      throw new UsageError(`${path}:${nr}: the line has more than ${MAX_LINE_CHARACTERS} characters: this is no plan`)
    }
    const comment = row.indexOf('#')
    const content = (comment < 0 ? row : row.slice(0, comment)).trim()
    if (content !== '') lines.push(parseLine(`${path}:${nr}`, nr, content))
    if (nr > MAX_LINES) throw new UsageError(`${path}: the plan has more than ${MAX_LINES} lines, if it ends`)
  }
  if (lines.length === 0) throw new UsageError(`${path}: the plan has no lines`)
  return { path, lines }
}

/** The lines as they come, one that is too long cut behind the most that it may have. */
function* rowsOf(path: string): Generator<string> {
  const fd = withPath(path, () => openSync(path, 'r'))
  try {
    const buffer = new Uint8Array(1 << 16)
    const decoder = new TextDecoder()
    let rest = ''
    for (let bytes = 0; ; ) {
      const got = withPath(path, () => readSync(fd, buffer))
      bytes += got
      if (bytes > MAX_BYTES) throw new UsageError(`${path}: the plan has more than ${MAX_BYTES} bytes, if it ends`)
      const rows = (rest + decoder.decode(buffer.subarray(0, got), { stream: got > 0 })).split('\n')
      rest = rows.pop() as string
      yield* rows
      if (got === 0 || rest.length > MAX_LINE_CHARACTERS) {
        yield rest
        return
      }
    }
  } finally {
    closeSync(fd)
  }
}

const LINE = /^([0-9]+)\s+([0-9]+)(?:\s+([0-9]+))?$/

function parseLine(where: string, line: number, content: string): PlanLine {
  const found = LINE.exec(content)
  if (found === null) {
    // Also what a terminal would take for a command.
    if (/[^\P{Cc}\t]|\uFFFD/u.test(content)) throw new UsageError(`${where}: is not text, so no plan`)
    const shown = content.length > 40 ? `${content.slice(0, 40)}...` : content
    throw new UsageError(
      `${where}: ${JSON.stringify(shown)} is not 'window-page file-page count', all of them whole numbers`
    )
  }
  const [at, page, count] = [Number(found[1]), Number(found[2]), Number(found[3] ?? 1)]
  if (count === 0) throw new UsageError(`${where}: a count of 0 shows nothing`)
  const last = PTE_FILE_MAX_PAGES - 2
  if (at + count - 1 > last) throw new UsageError(`${where}: window pages go up to ${last}`)
  if (page + count - 1 > last) throw new UsageError(`${where}: file pages go up to ${last}`)
  return { line, at, page, count }
}

/** Throws UsageError when the plan shows pages that the file does not have. */
export function planOrder(plan: Plan, filePages: number, fileName: string): Order {
  const has = `${fileName}, which has ${filePages} ${filePages === 1 ? 'page' : 'pages'}`
  for (const { line, page, count } of plan.lines) {
    if (page + count > filePages) {
      throw new UsageError(`${plan.path}:${line}: file page ${Math.max(page, filePages)} is beyond the end of ${has}`)
    }
  }
  const runs = new Runs(plan.lines)
  const gap = runs.firstLinear(filePages)
  if (gap < runs.pages) {
    throw new UsageError(
      `${plan.path}: window page ${gap} is on no line, so it shows file page ${gap}, beyond the end of ${has}`
    )
  }
  return {
    name: `@${plan.path}`,
    pages: runs.pages,
    fill: (first, out) => runs.fill(first, out),
    timesShown: page => runs.timesShown(page)
  }
}

/** The window as runs side by side, each under the last line that names it, or linear. Finding a run takes log time. */
class Runs {
  /** Window pages in all. */
  readonly pages: number
  /** First window page of each run, ascending from 0, and the end of the last one. */
  readonly #starts: Int32Array
  /** File page of a run's first page, less its window page. */
  readonly #shifts: Int32Array
  readonly #isNamed: Uint8Array

  constructor(lines: readonly PlanLine[]) {
    const bounds = new Set([0])
    for (const { at, count } of lines) bounds.add(at).add(at + count)
    this.#starts = Int32Array.from(bounds).sort()
    const nrRuns = this.#starts.length - 1
    this.pages = this.#starts[nrRuns]
    this.#shifts = new Int32Array(nrRuns)
    this.#isNamed = new Uint8Array(nrRuns)
    // From the last line to the first, each takes the runs that are still free; `next` skips over those that are not.
    const next = Int32Array.from(this.#starts, (_, run) => run)
    for (let i = lines.length - 1; i >= 0; i--) {
      const { at, page, count } = lines[i]
      for (let run = skip(next, this.#find(at)); this.#starts[run] < at + count; run = skip(next, run)) {
        this.#shifts[run] = page - at
        this.#isNamed[run] = 1
        next[run] = run + 1
      }
    }
  }

  fill(first: number, out: Int32Array): void {
    let run = this.#find(first)
    for (let i = 0; i < out.length; i++) {
      if (first + i === this.#starts[run + 1]) run++
      out[i] = first + i + this.#shifts[run]
    }
  }

  /** The first window page from `from` on that no line names, or the end of the window. */
  firstLinear(from: number): number {
    for (let run = 0; run < this.#isNamed.length; run++) {
      if (this.#isNamed[run] === 0 && this.#starts[run + 1] > from) return Math.max(from, this.#starts[run])
    }
    return this.pages
  }

  timesShown(page: number): number {
    let times = 0
    for (let run = 0; run < this.#shifts.length; run++) {
      const at = page - this.#shifts[run]
      if (at >= this.#starts[run] && at < this.#starts[run + 1]) times++
    }
    return times
  }

  /** The run that holds a window page. */
  #find(at: number): number {
    let low = 0
    let high = this.#starts.length - 1
    while (low + 1 < high) {
      const middle = (low + high) >>> 1
      if (this.#starts[middle] <= at) low = middle
      else high = middle
    }
    return low
  }
}

/** The first free run from `run` on. Shortens the way for the next time. */
function skip(next: Int32Array, run: number): number {
  while (next[run] !== run) {
    next[run] = next[next[run]]
    run = next[run]
  }
  return run
}
