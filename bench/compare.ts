/**
 * Compares the working tree with another revision: `npm run bench:compare -- REF`.
 *
 * The other revision is checked out in a temporary worktree and built there. Both builds then run the rows of this
 * tree, each in a process of its own (two builds in one would share, and so spoil, what V8 knows of a row's loop), in
 * turn, round by round. `ours` is the working tree, `theirs` the revision; below 1x is faster than it was.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError } from 'commander'
import type { Answer, Request } from './compare-side.ts'
import type { BenchRow } from './context.ts'
import { clearProgress, parseFilter, parseRounds, projectRoot, showProgress, showRound } from './flags.ts'
import { type Row, type RowResult, runRow, type Sample, type Side, Skip } from './harness.ts'
import { describeMachine, formatReport, type Report } from './report.ts'
import { QUICK_ROUNDS, ROUNDS, ROWS, WARMUPS, warmupMs } from './rows.ts'

interface Flags {
  readonly filter?: RegExp
  readonly rounds?: number
  readonly quick: boolean
  readonly json?: string
}

/** A process that measures one build. */
export class RemoteBuild {
  readonly #child: ChildProcess
  #settle: ((answer: Answer | Error) => void) | undefined

  constructor(buildDirectory: string, quick: boolean) {
    const program = fileURLToPath(new URL('./compare-side.js', import.meta.url))
    this.#child = fork(program, [buildDirectory, quick ? 'quick' : 'full'], { stdio: 'inherit' })
    this.#child.on('message', message => this.#settle?.(message as Answer))
    this.#child.on('exit', code => this.#settle?.(new Error(`the process that measures ended with ${code}`)))
    this.#child.on('error', error => this.#settle?.(error))
  }

  async #ask(request: Request): Promise<Answer> {
    if (!this.#child.connected) throw new Error('the process that measures has ended')
    const answer = await new Promise<Answer>((resolve, reject) => {
      this.#settle = found => (found instanceof Error ? reject(found) : resolve(found))
      this.#child.send(request)
    })
    this.#settle = undefined
    if (answer.kind === 'skip') throw new Skip(answer.reason)
    if (answer.kind === 'error') throw new Error(answer.reason)
    return answer
  }

  /** Sets up the row's side there. */
  async side(row: string): Promise<Side> {
    await this.#ask({ kind: 'open', row })
    const run = async (): Promise<Sample> => {
      const answer = await this.#ask({ kind: 'run' })
      if (answer.kind !== 'sample') throw new Error('no sample came back')
      return answer.sample
    }
    // It has no answer: a clean-up that fails there warns.
    return { run, cleanup: () => void (this.#child.connected && this.#child.send({ kind: 'close' } satisfies Request)) }
  }

  /** Ends the process when it has removed its files. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise<void>(resolve => this.#child.once('exit', () => resolve()))
    if (this.#child.connected) this.#child.disconnect()
    await ended
  }
}

/** The row with both sides run elsewhere, compared as figure over figure. */
export function remoteRow(row: BenchRow, revision: string): Row<RemoteBuild, RemoteBuild> {
  const { name, what, unit, sense } = row
  return {
    name,
    what,
    against: revision,
    unit,
    sense,
    reach: undefined,
    ours: (_other, tree) => tree.side(name),
    theirs: other => other.side(name)
  }
}

function parse(args: readonly string[]): { revision: string; flags: Flags } {
  const command = new Command('bench:compare')
    .description('Measures the working tree against another revision, row by row.')
    .argument('<revision>', 'what git is to check out, such as HEAD or a tag')
    .option('--filter <regex>', 'only rows whose name matches', parseFilter)
    .option('--rounds <n>', `rounds that count, of each side (default: ${ROUNDS}; quick: ${QUICK_ROUNDS})`, parseRounds)
    .option('--quick', 'smaller sizes and fewer rounds: to see that it works, not to quote', false)
    .option('--json <file>', 'write the report as JSON too')
    .allowExcessArguments(false)
    .exitOverride()
    .parse(args, { from: 'user' })
  return { revision: command.args[0], flags: command.opts<Flags>() }
}

function git(root: string, ...args: string[]): string {
  return execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()
}

function resolveRevision(root: string, revision: string): string {
  try {
    return git(root, 'rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`)
  } catch {
    throw new Error(`git knows no revision ${revision}`)
  }
}

/** Builds the revision in a worktree of its own with the packages of this tree. → its build, and how to remove it. */
function buildRevision(root: string, commit: string): { buildDirectory: string; remove(): void } {
  const parent = mkdtempSync(join(tmpdir(), 'fremap-compare-'))
  const tree = join(parent, 'tree')
  const remove = (): void => {
    try {
      git(root, 'worktree', 'remove', '--force', tree)
    } catch {
      // It was not made, or only half.
    }
    rmSync(parent, { recursive: true, force: true })
    git(root, 'worktree', 'prune')
  }
  try {
    git(root, 'worktree', 'add', '--detach', tree, commit)
    symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'), 'junction')
    execFileSync('npm', ['run', '-s', 'build'], { cwd: tree, stdio: 'pipe', shell: process.platform === 'win32' })
  } catch (error) {
    remove()
    const { stdout, stderr } = error as { stdout?: Buffer | string; stderr?: Buffer | string }
    throw new Error(`the revision does not build: ${stdout || stderr || (error as Error).message}`)
  }
  return { buildDirectory: join(tree, 'dist'), remove }
}

async function measure(rows: readonly BenchRow[], revision: string, flags: Flags): Promise<RowResult[]> {
  const root = projectRoot()
  const commit = resolveRevision(root, revision)
  showProgress(`building ${revision}`)
  const { buildDirectory, remove } = buildRevision(root, commit)
  const interrupted = (): void => {
    remove()
    process.exit(130)
  }
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  const tree = new RemoteBuild(join(root, 'dist'), flags.quick)
  const other = new RemoteBuild(buildDirectory, flags.quick)
  const rounds = flags.rounds ?? (flags.quick ? QUICK_ROUNDS : ROUNDS)
  const onProgress = (row: string, round: number): void => showRound(row, round, rounds)
  const options = { rounds, warmups: WARMUPS, warmupMs: warmupMs(flags.quick), onProgress }
  const results: RowResult[] = []
  try {
    for (const row of rows) results.push(await runRow(remoteRow(row, revision), other, tree, options))
  } finally {
    clearProgress()
    await Promise.all([tree.end(), other.end()])
    remove()
  }
  return results
}

/** → the exit code: 1 when a row failed, 2 for wrong flags. */
async function main(args: readonly string[]): Promise<number> {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(args)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    throw error
  }
  const { revision, flags } = parsed
  const rows = ROWS.filter(row => flags.filter?.test(row.name) ?? true)
  if (rows.length === 0) {
    process.stderr.write('error: no row matches --filter\n')
    return 2
  }
  const results = await measure(rows, revision, flags)
  const report: Report = {
    format: 1,
    date: new Date().toISOString(),
    machine: describeMachine(),
    rounds: flags.rounds ?? (flags.quick ? QUICK_ROUNDS : ROUNDS),
    warmups: WARMUPS,
    quick: flags.quick,
    rows: results,
    series: []
  }
  process.stdout.write(formatReport(report))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`)
  return results.some(row => row.status === 'checksum' || row.status === 'failed') ? 1 : 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    process.exitCode = await main(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`error: ${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  }
}
