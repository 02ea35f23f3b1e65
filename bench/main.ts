/**
 * The benchmark: every figure that the project promises, as ratios in one run on one machine.
 *
 * It is a report: a row that falls short is printed and the exit is 0. Exit 1: the sides of a row found different
 * things, a row threw, or there is no build. Exit 2: wrong flags.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Command, CommanderError } from 'commander'
import { type BenchRow, Context } from './context.ts'
import { clearProgress, parseFilter, parseRounds, projectRoot, showProgress, showRound } from './flags.ts'
import { type RowResult, type RunOptions, runRow } from './harness.ts'
import { installPeers } from './install-peers.ts'
import { parseCauses, writeMarkdownReport } from './markdown.ts'
import { describeMachine, formatReport, type Report } from './report.ts'
import { peerRows, QUICK_ROUNDS, ROUNDS, ROWS, WARMUPS, warmupMs } from './rows.ts'
import { runSeries, type SeriesPlan, type SeriesResult, seriesPlans } from './series.ts'
import { loadSubject, type Subject } from './subject.ts'

interface Flags {
  readonly json?: string
  readonly report?: string
  readonly filter?: RegExp
  readonly rounds?: number
  readonly quick: boolean
  readonly series: boolean
  readonly peers: boolean
  readonly baselines: boolean
  readonly build?: string
  readonly files?: string
  readonly list: boolean
}

interface Plan {
  readonly rows: readonly BenchRow[]
  readonly series: readonly SeriesPlan[]
}

function parseFlags(args: readonly string[]): Flags {
  const command = new Command('bench')
    .description('Measures the built fremap against what one would use in its place.')
    .option('--json <file>', 'write the report as JSON too')
    .option('--report <file>', 'write the report as Markdown too, its charts in a folder beside it; means --series')
    .option('--filter <regex>', 'only rows and series whose name matches', parseFilter)
    .option('--rounds <n>', `rounds that count, of each side (default: ${ROUNDS}; quick: ${QUICK_ROUNDS})`, parseRounds)
    .option('--quick', 'smaller sizes and fewer rounds: to see that it works, not to quote', false)
    .option('--series', 'measure too how costs change as the work grows', false)
    .option('--peers', 'measure other packages too; installs them into bench/peers', false)
    .option('--baselines', 'run only the other sides; needs no build', false)
    .option('--build <directory>', 'the build to measure (default: dist)')
    .option('--files <directory>', 'where to put the temporary files that are mapped (default: the system’s)')
    .option('--list', 'print the names of the rows and series and stop', false)
    .allowExcessArguments(false)
    .exitOverride()
  return command.parse(args, { from: 'user' }).opts<Flags>()
}

function planOf(flags: Flags): Plan {
  const wanted = ({ name }: { name: string }): boolean => flags.filter?.test(name) ?? true
  const withSeries = (flags.series || flags.report !== undefined) && !flags.baselines
  return {
    rows: [...ROWS, ...(flags.peers ? peerRows : [])].filter(wanted),
    series: withSeries ? seriesPlans.filter(wanted) : []
  }
}

async function measure(
  plan: Plan,
  flags: Flags,
  rounds: number
): Promise<{ rows: RowResult[]; series: SeriesResult[]; failures: string[] }> {
  const root = projectRoot()
  const buildDirectory = resolve(flags.build ?? join(root, 'dist'))
  const subject = flags.baselines ? undefined : await loadSubject(buildDirectory)
  const sources = join(root, 'bench')
  if (plan.rows.some(row => row.name.startsWith('peers/'))) {
    showProgress('installing the peers')
    const failure = installPeers(join(sources, 'peers'))
    clearProgress()
    if (failure !== undefined) process.stderr.write(`warning: the peers were not installed: ${failure}\n`)
  }
  const context = new Context({ quick: flags.quick, parent: flags.files, sources, buildDirectory })
  const options: RunOptions = {
    rounds,
    warmups: WARMUPS,
    warmupMs: warmupMs(flags.quick),
    onProgress: (row, round) => showRound(row, round, rounds)
  }
  const rows: RowResult[] = []
  try {
    for (const row of plan.rows) rows.push(await runRow(row, context, subject, options))
    return { rows, ...(subject === undefined ? noSeries : runAllSeries(plan.series, context, subject, rounds)) }
  } finally {
    clearProgress()
    context.close()
  }
}

interface AllSeries {
  readonly series: SeriesResult[]
  /** What went wrong, a line each. */
  readonly failures: string[]
}

const noSeries: AllSeries = { series: [], failures: [] }

function runAllSeries(plans: readonly SeriesPlan[], context: Context, subject: Subject, rounds: number): AllSeries {
  const all: AllSeries = { series: [], failures: [] }
  const onProgress = (name: string, x: number): void => showProgress(`${name} at ${x}`)
  for (const plan of plans) {
    try {
      all.series.push(runSeries(plan, context, subject, { rounds: Math.min(rounds, 5), onProgress }))
    } catch (error) {
      all.failures.push(`${plan.name}: ${error instanceof Error ? error.message : error}`)
    }
  }
  return all
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
  const plan = planOf(flags)
  const names = [...plan.rows, ...plan.series].map(({ name }) => name)
  if (names.length === 0) {
    process.stderr.write('error: no row matches --filter; --list prints their names\n')
    return 2
  }
  if (flags.list) {
    process.stdout.write(names.map(name => `${name}\n`).join(''))
    return 0
  }
  const rounds = flags.rounds ?? (flags.quick ? QUICK_ROUNDS : ROUNDS)
  const { rows, series, failures } = await measure(plan, flags, rounds)
  const report: Report = {
    format: 1,
    date: new Date().toISOString(),
    machine: describeMachine(),
    rounds,
    warmups: WARMUPS,
    quick: flags.quick,
    rows,
    series
  }
  process.stdout.write(formatReport(report))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`)
  if (flags.report !== undefined) {
    const causes = parseCauses(readFileSync(join(projectRoot(), 'bench', 'causes.md'), 'utf8'))
    writeMarkdownReport(report, causes, flags.report)
  }
  for (const failure of failures) process.stderr.write(`error: ${failure}\n`)
  return failures.length > 0 || rows.some(row => row.status === 'checksum' || row.status === 'failed') ? 1 : 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}
