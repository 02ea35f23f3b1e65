/**
 * The benchmark: every figure that the project promises, as ratios in one run on one machine.
 *
 * It is a report: a row that falls short is printed and the exit is 0. Exit 1: the sides of a row found different
 * things, a row threw, or there is no build. Exit 2: wrong flags.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { type BenchRow, Context } from './context.ts'
import { type RowResult, type RunOptions, runRow } from './harness.ts'
import { describeMachine, formatReport, type Report } from './report.ts'
import { coldRows } from './rows/cold.ts'
import { evictionRows } from './rows/eviction.ts'
import { linuxRows } from './rows/linux.ts'
import { memoryRows } from './rows/memory.ts'
import { readRows } from './rows/reads.ts'
import { scanRows } from './rows/scan.ts'
import { loadSubject } from './subject.ts'

const ROWS: readonly BenchRow[] = [...linuxRows, ...readRows, ...scanRows, ...coldRows, ...evictionRows, ...memoryRows]
const WARMUPS = 3
const WARMUP_MS = 1000
const QUICK_WARMUP_MS = 200

interface Flags {
  readonly json?: string
  readonly filter?: RegExp
  readonly rounds?: number
  readonly quick: boolean
  readonly baselines: boolean
  readonly build?: string
  readonly files?: string
  readonly list: boolean
}

/** The folder with package.json: this file runs from `bench/` or, compiled, from `build/bench/`. */
function projectRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory)
    if (parent === directory) throw new Error('no package.json above the benchmark')
    directory = parent
  }
  return directory
}

function parseRounds(text: string): number {
  const rounds = /^\d+$/.test(text) ? Number(text) : 0
  if (rounds < 1 || rounds > 1000) throw new InvalidArgumentError('A whole number from 1 to 1000, please.')
  return rounds
}

function parseFilter(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

function parseFlags(args: readonly string[]): Flags {
  const command = new Command('bench')
    .description('Measures the built fremap against what one would use in its place.')
    .option('--json <file>', 'write the report as JSON too')
    .option('--filter <regex>', 'only rows whose name matches', parseFilter)
    .option('--rounds <n>', 'rounds that count, of each side (default: 7; quick: 3)', parseRounds)
    .option('--quick', 'smaller sizes and fewer rounds: to see that it works, not to quote', false)
    .option('--baselines', 'run only the other sides; needs no build', false)
    .option('--build <directory>', 'the build to measure (default: dist)')
    .option('--files <directory>', 'where to put the temporary files that are mapped (default: the system’s)')
    .option('--list', 'print the names of the rows and stop', false)
    .allowExcessArguments(false)
    .exitOverride()
  return command.parse(args, { from: 'user' }).opts<Flags>()
}

/** A line on the terminal that is rewritten; nothing where stderr is not one. */
function showProgress(row: string, round: number, rounds: number): void {
  if (!process.stderr.isTTY) return
  process.stderr.write(`\r\x1b[K${row} ${round === 0 ? 'warming up' : `${round}/${rounds}`}`)
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
}

async function runRows(rows: readonly BenchRow[], flags: Flags, rounds: number): Promise<RowResult[]> {
  const root = projectRoot()
  const buildDirectory = resolve(flags.build ?? join(root, 'dist'))
  const subject = flags.baselines ? undefined : await loadSubject(buildDirectory)
  const sourceFile = join(root, 'bench', 'linux', 'nonlinear.c')
  const context = new Context({ quick: flags.quick, parent: flags.files, sourceFile, buildDirectory })
  const options: RunOptions = {
    rounds,
    warmups: WARMUPS,
    warmupMs: flags.quick ? QUICK_WARMUP_MS : WARMUP_MS,
    onProgress: (row, round) => showProgress(row, round, rounds)
  }
  const results: RowResult[] = []
  try {
    for (const row of rows) results.push(await runRow(row, context, subject, options))
  } finally {
    clearProgress()
    context.close()
  }
  return results
}

/** → the exit code. */
async function main(args: readonly string[]): Promise<number> {
  let flags: Flags
  try {
    flags = parseFlags(args)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    throw error
  }
  const rows = ROWS.filter(row => flags.filter?.test(row.name) ?? true)
  if (rows.length === 0) {
    process.stderr.write('error: no row matches --filter; --list prints their names\n')
    return 2
  }
  if (flags.list) {
    process.stdout.write(rows.map(row => `${row.name}\n`).join(''))
    return 0
  }
  const rounds = flags.rounds ?? (flags.quick ? 3 : 7)
  const results = await runRows(rows, flags, rounds)
  const report: Report = {
    format: 1,
    date: new Date().toISOString(),
    machine: describeMachine(),
    rounds,
    warmups: WARMUPS,
    quick: flags.quick,
    rows: results
  }
  process.stdout.write(formatReport(report))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`)
  return results.some(row => row.status === 'checksum' || row.status === 'failed') ? 1 : 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}
