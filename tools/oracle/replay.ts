/** Runs one trace on a fresh machine and compares each result. */
import { compare, type Mismatch, NR_LEVELS } from './compare.ts'
import { answerDifferently } from './differences.ts'
import { FILE_OPS } from './file-ops.ts'
import { PROC_OPS } from './proc-ops.ts'
import { PROCESS_OPS } from './process-ops.ts'
import type { OpTable } from './result.ts'
import { Session } from './session.ts'
import type { Op, Result, Trace } from './trace.ts'
import { verifyEnd, verifyMachine } from './verify.ts'

export interface LevelCount {
  seen: number
  equal: number
}

export interface Failure {
  readonly line: number
  readonly op: string
  readonly level: number
  readonly path: string
  readonly expected: unknown
  readonly got: unknown
}

export interface Outcome {
  readonly trace: Trace
  readonly nrOps: number
  /** By level, from 1; [0] is not used. */
  readonly levels: readonly LevelCount[]
  /** Why the trace failed: the first mismatch of a level that must hold, or a broken machine. */
  readonly failure: Failure | undefined
  /** First mismatch of each level that need not hold. */
  readonly tolerated: readonly Failure[]
  readonly differences: ReadonlyMap<string, number>
}

const OPS: OpTable = { ...FILE_OPS, ...PROCESS_OPS, ...PROC_OPS }

/** Replays up to the first mismatch of a level up to `strictLevel`. */
export function replay(trace: Trace, strictLevel: number): Outcome {
  const levels = Array.from({ length: NR_LEVELS + 1 }, () => ({ seen: 0, equal: 0 }))
  const differences = new Map<string, number>()
  const tolerated: Failure[] = []
  const session = new Session(trace.header)
  let failure: Failure | undefined
  let nrOps = 0
  try {
    for (const op of trace.ops) {
      if (op.expected.skip !== undefined) continue
      nrOps++
      failure = step(session, op, strictLevel, levels, differences, tolerated)
      if (failure !== undefined) break
    }
    failure ??= broken(trace, verifyMachine(session))
    if (failure === undefined) {
      session.end()
      failure = broken(trace, verifyEnd(session))
    }
  } finally {
    session.dispose()
  }
  return { trace, nrOps, levels, failure, tolerated, differences }
}

function step(
  session: Session,
  op: Op,
  strictLevel: number,
  levels: LevelCount[],
  differences: Map<string, number>,
  tolerated: Failure[]
): Failure | undefined {
  const answer = answerDifferently(session, op)
  let got: Result
  if (answer !== undefined) {
    const { difference } = answer
    if (difference !== undefined) differences.set(difference, (differences.get(difference) ?? 0) + 1)
    got = answer.result
  } else got = run(session, op)
  const { levels: compared, mismatches } = compare(op, got, session.reclaimed ? 'reclaimed' : 'never')
  const worst = mismatches[0]
  for (let level = 1; level <= NR_LEVELS; level++) {
    if ((compared & (1 << level)) === 0) continue
    levels[level].seen++
    const wrong = mismatches.find(mismatch => mismatch.level === level)
    if (wrong === undefined) levels[level].equal++
    else if (level > strictLevel && !tolerated.some(known => known.level === level)) {
      tolerated.push(failureOf(op, wrong))
    }
  }
  return worst !== undefined && worst.level <= strictLevel ? failureOf(op, worst) : undefined
}

function run(session: Session, op: Op): Result {
  const operation = OPS[op.op]
  if (operation === undefined) throw new Error(`unknown operation ${op.op} in line ${op.line}`)
  return operation(session, op.args)
}

function failureOf(op: Op, wrong: Mismatch): Failure {
  return { line: op.line, op: JSON.stringify({ op: op.op, ...op.args }), ...wrong }
}

function broken(trace: Trace, problem: string): Failure | undefined {
  if (problem === '') return undefined
  return {
    line: trace.ops.at(-1)?.line ?? 1,
    op: 'end',
    level: 0,
    path: 'machine',
    expected: 'every invariant',
    got: problem
  }
}
