/**
 * The running Linux as a second oracle: random programs of system calls on this machine and on that kernel.
 *
 *     npm run oracle:live -- --seed 1 --runs 500
 *     npm run oracle:live -- --seed 1 --minutes 5 --ops 60
 *     npm run oracle:live -- --replay oracle-live-795474205.jsonl
 *
 * --seed      where chance begins; run r of seed S is the same program everywhere
 * --runs      programs (200)
 * --ops       operations of each (80)
 * --minutes   go on for so long instead of --runs
 * --replay    run the program of a trace file again, on both
 * --out       where failures are written (the working directory)
 * --lie OP    falsify Linux's first result of each OP, to see that it is noticed
 *
 * The first failure ends it: its program is shrunk, and written and printed as a trace that `npm run oracle` reads too.
 * The last line is `N passed, N failed`, in programs; the exit code is 0 when none failed, 1 when one did, 2 for a bad
 * command line. Where there is no Linux or koffi does not load, it says so and passes with `0 passed, 0 failed`.
 */
import { statfsSync, writeFileSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readTrace } from '../oracle/trace.ts'
import { LEFT_OUT } from './differences.ts'
import { ChildExecutor, type Executor, LyingExecutor } from './executor.ts'
import { generate } from './generate.ts'
import { judge, type Program, type Verdict } from './judge.ts'
import { shrink } from './shrink.ts'
import { formatTrace } from './trace-file.ts'

export interface Options {
  readonly seed: number
  readonly runs: number
  readonly ops: number
  readonly minutes: number
  readonly replay: string | undefined
  readonly lie: string | undefined
  readonly out: string
}

const USAGE =
  'usage: npm run oracle:live -- [--seed S] [--runs N] [--ops K] [--minutes M] [--replay FILE] [--out FOLDER]'
const TMPFS_MAGIC = 0x01021994

export function parseOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      seed: { type: 'string' },
      runs: { type: 'string' },
      ops: { type: 'string' },
      minutes: { type: 'string' },
      replay: { type: 'string' },
      lie: { type: 'string' },
      out: { type: 'string', default: '.' }
    }
  })
  const number = (name: 'seed' | 'runs' | 'ops' | 'minutes', otherwise: number): number => {
    const value = values[name] === undefined ? otherwise : Number(values[name])
    if (values[name]?.trim() === '' || !(value >= 0)) throw new Error(`--${name} must be a number from 0\n${USAGE}`)
    return value
  }
  const minutes = number('minutes', Infinity)
  return {
    seed: number('seed', Date.now() % 1_000_000),
    runs: number('runs', values.minutes === undefined ? 200 : Infinity),
    ops: number('ops', 80),
    minutes,
    replay: values.replay,
    lie: values.lie,
    out: values.out
  }
}

/** Runs what the options say and prints the report. → true when nothing failed. */
export async function check(options: Options, kernel: Executor, print: (line: string) => void): Promise<boolean> {
  const executor = options.lie === undefined ? kernel : new LyingExecutor(kernel, options.lie)
  const deadline = performance.now() + options.minutes * 60_000
  const counts = new Map<string, number>()
  let passed = 0
  let nrOps = 0
  let failed = 0
  print(options.replay === undefined ? `seed ${options.seed}` : options.replay)
  for (const program of programs(options)) {
    if (performance.now() > deadline) break
    const verdict = await judge(program, executor)
    nrOps += verdict.ran.length
    for (const [name, n] of verdict.leftOut) counts.set(name, (counts.get(name) ?? 0) + n)
    if (verdict.failure === undefined) passed++
    else {
      failed++
      await report(program, verdict, executor, options.out, print)
      break
    }
  }
  for (const { name, what, why } of LEFT_OUT) {
    if (counts.has(name)) print(`left out: ${name}, ${counts.get(name)} operations: ${what}: ${why}`)
  }
  print(`${nrOps} operations were compared, on Linux ${release()}`)
  print(`${passed} passed, ${failed} failed`)
  return failed === 0
}

function* programs({ seed, runs, ops, replay }: Options): Iterable<Program> {
  if (replay !== undefined) {
    const { header, ops: steps } = readTrace(replay)
    yield { header, steps: steps.map(({ op, args }) => ({ op, args })) }
    return
  }
  for (let run = 0; run < runs; run++) yield generate(runSeed(seed, run), ops, release())
}

function runSeed(seed: number, run: number): number {
  return (Math.imul(seed, 0x01000193) ^ Math.imul(run + 1, 0x9e3779b1)) >>> 0
}

async function report(
  program: Program,
  verdict: Verdict,
  executor: Executor,
  folder: string,
  print: (line: string) => void
): Promise<void> {
  const small = await shrink(program, verdict, executor)
  const { failure, ran } = small.verdict
  const trace = formatTrace(small.program, ran)
  const file = join(folder, `oracle-live-${program.header.seed ?? 'replay'}.jsonl`)
  writeFileSync(file, trace)
  print(`${program.header.script} failed; shrunk from ${verdict.ran.length} to ${ran.length} operations:`)
  print(trace.trimEnd())
  const op = ran[failure?.at ?? 0]
  print(
    `${file}:${op?.line ?? ran.length + 1}: ${op === undefined ? 'end' : JSON.stringify({ op: op.op, ...op.args })}`
  )
  print(`    Linux ${failure?.path}: ${JSON.stringify(failure?.expected)}`)
  print(`    here  ${failure?.path}: ${typeof failure?.got === 'string' ? failure.got : JSON.stringify(failure?.got)}`)
}

/** A folder on a disk, where pages are written back. */
function diskFolder(): string {
  const folders = [tmpdir(), '/var/tmp', process.cwd()]
  return folders.find(folder => statfsOf(folder) !== TMPFS_MAGIC) ?? tmpdir()
}

function statfsOf(folder: string): number {
  try {
    return statfsSync(folder).type
  } catch {
    return TMPFS_MAGIC
  }
}

async function run(): Promise<number> {
  const print = (line: string): void => console.log(line)
  let executor: ChildExecutor | undefined
  try {
    const options = parseOptions(process.argv.slice(2))
    executor = new ChildExecutor(fileURLToPath(new URL('./child.js', import.meta.url)), diskFolder())
    const reason = await executor.available()
    if (reason !== '') {
      print(`SKIPPED: the live oracle: ${reason}`)
      print('0 passed, 0 failed')
      return 0
    }
    return (await check(options, executor, print)) ? 0 : 1
  } catch (error) {
    console.error((error as Error).message)
    return 2
  } finally {
    executor?.dispose()
  }
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) process.exitCode = await run()
