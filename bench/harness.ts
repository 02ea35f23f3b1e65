/**
 * Runs benchmark rows: two sides that do the same work, measured in turn, compared round by round.
 *
 * A side times its own work and says what it found as a checksum; a row whose sides disagree measured two
 * different things and fails. The rounds go ours, theirs, ours, theirs, after warm-up rounds that do not count,
 * with a garbage collection before each so that neither side pays for the other's.
 *
 * Rules for a row's code, or it measures the optimiser:
 *  - both sides run textually the same loop over indexes that were computed before the clock started;
 *  - each side has its own copy of that loop, so that one side's types never slow down the other's;
 *  - the loop is the body of a block for `inBlocks`: a function of the module that takes its arrays by parameter.
 *    V8 would replace one long loop while it runs, and fold the variables of the first closure made, and only of the
 *    first, into its code as constants; each made a read 2 to 8 times slower or faster by what else had run;
 *  - its checksum starts as `start | 0`, or V8 may not see an int32 and adds doubles;
 *  - all that is read goes into the checksum;
 *  - a row that makes its mappings anew each round keeps one that stays. Memory is collected between rounds,
 *    and V8 throws away all code that it compiled for a class of which a collection leaves no instance: each round then
 *    measured the compiler, not the code.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import {
  pairwiseRatio,
  type Reach,
  ratio,
  type Sense,
  type Spread,
  spread,
  type Verdict,
  verdict
} from './statistics.ts'

/** What one run of one side found. */
export interface Sample {
  /** In the row's unit. */
  readonly value: number
  /** Equal on both sides and in all rounds. */
  readonly checksum: number
  /**
   * Parts of the value by name, in the row's unit unless the name says another. Names made by `cell` are shown as a
   * table.
   */
  readonly phases?: Readonly<Record<string, number>>
}

/** One side of a row, ready to run any number of times. */
export interface Side {
  run(): Sample | Promise<Sample>
  cleanup(): void
}

export interface Row<Context, Subject> {
  /** `group/name`: what `--filter` looks at. */
  readonly name: string
  readonly what: string
  readonly against: string
  /** Such as `ns/page`. */
  readonly unit: string
  readonly sense: Sense
  /** Undefined for a row that only tells where a cost lies. Its ratio is our figure over theirs. */
  readonly reach: Reach | undefined
  /** Sets up our side on the build being measured. */
  ours(context: Context, subject: Subject): Side | Promise<Side>
  /**
   * Sets up the other side; absent where the reach is a value and nothing is compared. `subject` is for the rows
   * that compare a build with itself; it is undefined when only the other sides are run.
   */
  theirs?(context: Context, subject: Subject | undefined): Side | Promise<Side>
}

/** Thrown by a side's set-up when this machine cannot run it. The row is reported by name as skipped. */
export class Skip extends Error {}

export interface SideResult extends Spread {
  readonly samples: readonly number[]
  /** The median of each phase. */
  readonly phases: Readonly<Record<string, number>>
}

export interface RowResult {
  readonly name: string
  readonly what: string
  readonly against: string
  readonly unit: string
  readonly reach: Reach | undefined
  /** `baseline`: only the other side was asked for. `checksum`: the sides disagree. `failed`: a side threw. */
  readonly status: 'measured' | 'baseline' | 'skipped' | 'checksum' | 'failed'
  /** Why a row has no figures. */
  readonly reason: string | undefined
  readonly ours: SideResult | undefined
  readonly theirs: SideResult | undefined
  readonly ratioOfMedians: number | undefined
  readonly pairwiseRatio: number | undefined
  /** By the pair-wise ratio, or by our median where the reach is a value. */
  readonly verdict: Verdict | undefined
}

export interface RunOptions {
  readonly rounds: number
  /** Rounds that do not count: at least `warmups`, and until `warmupMs` have passed. */
  readonly warmups: number
  readonly warmupMs: number
  /** Called before each round, for a progress line. Rounds that count begin at 1, the warm-up is 0. */
  readonly onProgress?: (row: string, round: number) => void
}

/** The name of a phase that stands in a table, at the row and the column of these names. */
export function cell(row: string, column: string): string {
  return `${row} | ${column}`
}

/** The row and the column of a phase's name, or undefined if it is in no table. */
export function placeOf(phase: string): [row: string, column: string] | undefined {
  const [row, column] = phase.split(' | ')
  return column === undefined ? undefined : [row, column]
}

/** Times `work` and divides by `operations`. The value is in ns per operation; `work` returns the checksum. */
export function timed(operations: number, work: () => number): Sample {
  const start = performance.now()
  const checksum = work()
  const end = performance.now()
  return { value: ((end - start) * 1e6) / operations, checksum: checksum >>> 0 }
}

const BLOCK = 1024

/**
 * Calls `block(state, from, to, start)` over 0 .. count in steps of 1024, handing each one's checksum to the next as
 * its start. → the last checksum.
 */
export function inBlocks<State>(
  count: number,
  state: State,
  block: (state: State, from: number, to: number, start: number) => number
): number {
  let checksum = 0
  for (let from = 0; from < count; from += BLOCK) checksum = block(state, from, Math.min(from + BLOCK, count), checksum)
  return checksum
}

let gc: (() => void) | undefined

export function collectGarbage(): void {
  if (gc === undefined) {
    setFlagsFromString('--expose-gc')
    gc = runInNewContext('gc') as () => void
  }
  gc()
}

/** A row is its sides measured, or the reason why not. Never throws for what a side does. */
export async function runRow<Context, Subject>(
  row: Row<Context, Subject>,
  context: Context,
  subject: Subject | undefined,
  options: RunOptions
): Promise<RowResult> {
  const sides: Side[] = []
  let result: RowResult
  try {
    const theirs = await row.theirs?.(context, subject)
    if (theirs !== undefined) sides.push(theirs)
    const ours = subject === undefined ? undefined : await row.ours(context, subject)
    if (ours !== undefined) sides.push(ours)
    result = await measure(row, ours, theirs, options)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    result = withoutFigures(row, error instanceof Skip ? 'skipped' : 'failed', reason)
  }
  for (const side of sides) {
    try {
      side.cleanup()
    } catch (error) {
      result = withoutFigures(row, 'failed', `cleanup: ${error instanceof Error ? error.message : error}`)
    }
  }
  collectGarbage()
  return result
}

async function measure(
  row: Row<never, never>,
  ours: Side | undefined,
  theirs: Side | undefined,
  options: RunOptions
): Promise<RowResult> {
  if (ours === undefined && theirs === undefined) return withoutFigures(row, 'skipped', 'it has no other side')
  const ourSamples: Sample[] = []
  const theirSamples: Sample[] = []
  const playRound = async (): Promise<void> => {
    if (ours !== undefined) {
      collectGarbage()
      ourSamples.push(await ours.run())
    }
    if (theirs !== undefined) {
      collectGarbage()
      theirSamples.push(await theirs.run())
    }
  }
  options.onProgress?.(row.name, 0)
  const start = performance.now()
  let warmups = 0
  for (; warmups < options.warmups || performance.now() - start < options.warmupMs; warmups++) await playRound()
  for (let round = 1; round <= options.rounds; round++) {
    options.onProgress?.(row.name, round)
    await playRound()
  }
  const checksums = new Set([...ourSamples, ...theirSamples].map(sample => sample.checksum))
  if (checksums.size > 1) {
    const show = (samples: Sample[]): string => [...new Set(samples.map(sample => sample.checksum))].join(' ')
    const reason = `checksums differ: ours ${show(ourSamples)}, theirs ${show(theirSamples)}`
    return withoutFigures(row, 'checksum', reason)
  }
  return compare(row, ourSamples.slice(warmups), theirSamples.slice(warmups))
}

/** The figures of a row from the samples that count. An empty list is a side that was not run. */
export function compare(
  row: Omit<Row<never, never>, 'ours' | 'theirs'>,
  ourSamples: readonly Sample[],
  theirSamples: readonly Sample[]
): RowResult {
  const ours = ourSamples.length === 0 ? undefined : summary(ourSamples)
  const theirs = theirSamples.length === 0 ? undefined : summary(theirSamples)
  const { reach, sense } = row
  const better = reach?.better ?? 'lower'
  const both = ours !== undefined && theirs !== undefined
  const pairs = both ? pairwiseRatio(ours.samples, theirs.samples, sense, better) : undefined
  const figure = reach === undefined || 'ratio' in reach ? pairs : ours?.median
  return {
    ...withoutFigures(row, ours === undefined ? 'baseline' : 'measured', undefined),
    ours,
    theirs,
    ratioOfMedians: both ? ratio(ours.median, theirs.median, sense, better) : undefined,
    pairwiseRatio: pairs,
    verdict: figure === undefined || reach === undefined ? undefined : verdict(figure, reach)
  }
}

function summary(samples: readonly Sample[]): SideResult {
  const values = samples.map(sample => sample.value)
  const phases: Record<string, number> = {}
  for (const name of Object.keys(samples[0].phases ?? {})) {
    phases[name] = spread(samples.map(sample => sample.phases?.[name] ?? Number.NaN)).median
  }
  return { ...spread(values), samples: values, phases }
}

function withoutFigures(
  row: Omit<Row<never, never>, 'ours' | 'theirs'>,
  status: RowResult['status'],
  reason: string | undefined
): RowResult {
  const { name, what, against, unit, reach } = row
  return {
    name,
    what,
    against,
    unit,
    reach,
    status,
    reason,
    ours: undefined,
    theirs: undefined,
    ratioOfMedians: undefined,
    pairwiseRatio: undefined,
    verdict: undefined
  }
}
