/** Runs one trace on a fresh machine and compares each result. */
import { compare, type Mismatch, NR_LEVELS } from './compare.ts'
import { answerDifferently } from './differences.ts'
import { FILE_OPS } from './file-ops.ts'
import { explainDrift, explainMismatch, liveView, lookBefore } from './live.ts'
import { PROC_OPS } from './proc-ops.ts'
import { PROCESS_OPS } from './process-ops.ts'
import type { OpTable } from './result.ts'
import { Session } from './session.ts'
import { isNonlinear, type Op, type Result, type Trace } from './trace.ts'
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
  const session = new Session(trace.header)
  const replayer = new Replayer(session, strictLevel)
  let failure: Failure | undefined
  let nrOps = 0
  try {
    for (const op of trace.ops) {
      if (op.expected.skip !== undefined) continue
      nrOps++
      failure = isNonlinear(trace.header) ? replayer.step(op) : replayer.stepLive(op)
      if (failure !== undefined || replayer.isApart) break
    }
    failure ??= broken(trace, verifyMachine(session))
    if (failure === undefined) {
      session.end()
      failure = broken(trace, verifyEnd(session))
    }
  } finally {
    session.dispose()
  }
  const { levels, tolerated, differences } = replayer
  return { trace, nrOps, levels, failure, tolerated, differences }
}

class Replayer {
  readonly session: Session
  readonly strictLevel: number
  readonly levels: LevelCount[] = Array.from({ length: NR_LEVELS + 1 }, () => ({ seen: 0, equal: 0 }))
  readonly differences: Map<string, number> = new Map()
  readonly tolerated: Failure[] = []
  /** True once the two kernels' states are known to differ: nothing further can be compared. */
  isApart = false

  constructor(session: Session, strictLevel: number) {
    this.session = session
    this.strictLevel = strictLevel
  }

  step(op: Op): Failure | undefined {
    return this.#judge(op, this.#answer(op))
  }

  /** The same for a kernel that emulates remap_file_pages. */
  stepLive(op: Op): Failure | undefined {
    const { session } = this
    const before = lookBefore(session, op)
    const got = this.#answer(op)
    const seen = { ...op, expected: liveView(op, op.expected) }
    const { mismatches } = compare(seen, liveView(op, got), 'never')
    const verdict =
      mismatches.length === 0 ? explainDrift(session, op, got, before) : explainMismatch(session, op, got, before)
    if (verdict !== undefined) {
      this.#count(verdict.name)
      this.isApart = verdict.state === 'apart'
      return undefined
    }
    return this.#judge(seen, liveView(op, got))
  }

  /** What this machine says, or what stands for it where it differs on purpose. */
  #answer(op: Op): Result {
    const answer = answerDifferently(this.session, op)
    if (answer === undefined) return run(this.session, op)
    if (answer.difference !== undefined) this.#count(answer.difference)
    return answer.result
  }

  #count(difference: string): void {
    this.differences.set(difference, (this.differences.get(difference) ?? 0) + 1)
  }

  #judge(op: Op, got: Result): Failure | undefined {
    const { levels, strictLevel, tolerated } = this
    const { levels: compared, mismatches } = compare(op, got, this.session.reclaimed ? 'reclaimed' : 'never')
    for (let level = 1; level <= NR_LEVELS; level++) {
      if ((compared & (1 << level)) === 0) continue
      levels[level].seen++
      const wrong = mismatches.find(mismatch => mismatch.level === level)
      if (wrong === undefined) levels[level].equal++
      else if (level > strictLevel && !tolerated.some(known => known.level === level)) {
        tolerated.push(failureOf(op, wrong))
      }
    }
    const worst = mismatches[0]
    return worst !== undefined && worst.level <= strictLevel ? failureOf(op, worst) : undefined
  }
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
