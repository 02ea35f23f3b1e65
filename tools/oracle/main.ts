/**
 * Replays golden traces of Linux and compares, operation by operation.
 *
 *     npm run oracle -- PATH... [--level 1-5] [--live] [--verbose]
 *
 * PATH     a trace (.jsonl or .jsonl.gz), or a folder of them, wherever it is
 * --level  the levels up to which every operation must agree (3). See compare.ts
 * --live   replay the traces of a kernel that emulates remap_file_pages (after 4.0), not those of 3.19
 * --verbose  also show the first tolerated mismatch of each level in each trace
 *
 * A trace fails at its first mismatch of a level that must hold. Level 4 must agree on 99 % of operations in any case.
 * The last line is `N passed, N failed`, in traces; the exit code is 1 if any failed.
 */
import { parseArgs } from 'node:util'
import { type Outcome, replay } from './replay.ts'
import { differenceLines, failureLines, levelCount, tableLines } from './report.ts'
import { findTraces, isNonlinear, readTrace, type Trace } from './trace.ts'

const LEVEL_4_SHARE = 0.99
const USAGE = 'usage: npm run oracle -- PATH... [--level 1-5] [--live] [--verbose]'

interface Options {
  readonly paths: readonly string[]
  readonly level: number
  readonly live: boolean
  readonly verbose: boolean
}

function parseOptions(argv: readonly string[]): Options {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      level: { type: 'string', default: '3' },
      live: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false }
    }
  })
  if (positionals.length === 0) throw new Error(USAGE)
  if (!/^[1-5]$/.test(values.level)) throw new Error(`--level is ${values.level}, but must be 1 to 5`)
  return { paths: positionals, level: Number(values.level), live: values.live, verbose: values.verbose }
}

/** Replays all and prints the report. → true when all is as it must be. */
export function main(argv: readonly string[], print: (line: string) => void): boolean {
  const options = parseOptions(argv)
  const outcomes: Outcome[] = []
  let nrFailed = 0
  let nrOther = 0
  for (const path of findTraces(options.paths)) {
    const outcome = replayFile(path, options)
    if (outcome === undefined) {
      nrOther++
      continue
    }
    if (typeof outcome === 'string') {
      nrFailed++
      print(outcome)
      continue
    }
    outcomes.push(outcome)
    if (outcome.failure !== undefined) nrFailed++
    for (const line of outcome.failure === undefined ? [] : failureLines(outcome, outcome.failure)) print(line)
    if (options.verbose) for (const mismatch of outcome.tolerated) failureLines(outcome, mismatch).forEach(print)
  }
  print('')
  for (const line of tableLines(outcomes)) print(line)
  print('')
  for (const line of differenceLines(outcomes)) print(line)
  if (nrOther > 0) print(`${nrOther} traces of ${options.live ? 'nonlinear' : 'emulating'} kernels were left out`)
  if (options.live) print(comparedLine(outcomes))
  const level4 = levelCount(outcomes, 4)
  const enough = level4.equal >= level4.seen * LEVEL_4_SHARE
  if (!enough) print(`level 4 agrees on ${level4.equal} of ${level4.seen} operations: less than 99 %`)
  const nrPassed = outcomes.filter(outcome => outcome.failure === undefined).length
  if (nrPassed + nrFailed === 0) print('no traces were found')
  print(`${nrPassed} passed, ${nrFailed} failed`)
  return nrFailed === 0 && enough && nrPassed > 0
}

/** Traces end where the kernels' states drift apart. */
function comparedLine(outcomes: readonly Outcome[]): string {
  const sum = (count: (outcome: Outcome) => number): number => outcomes.reduce((n, outcome) => n + count(outcome), 0)
  return `${sum(o => o.nrOps)} of ${sum(o => o.trace.ops.length)} operations could be compared`
}

/** → an outcome, undefined for a trace of the other sort of kernel, or why it could not be replayed. */
function replayFile(path: string, options: Options): Outcome | string | undefined {
  try {
    const trace: Trace = readTrace(path)
    if (isNonlinear(trace.header) === options.live) return undefined
    return replay(trace, options.level)
  } catch (error) {
    return `${path}: ${(error as Error).stack}`
  }
}

function run(): void {
  try {
    process.exitCode = main(process.argv.slice(2), line => console.log(line)) ? 0 : 1
  } catch (error) {
    console.error((error as Error).message)
    process.exitCode = 2
  }
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) run()
