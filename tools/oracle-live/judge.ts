/**
 * Runs a program on a fresh machine and on the running Linux, and compares each result.
 *
 * The machine goes first: what differences.ts leaves out is decided by its state, and dropped from the program on both
 * sides. Then the machine is checked, closed, and checked again, as after every golden trace.
 */
import { compare } from '../oracle/compare.ts'
import { FILE_OPS } from '../oracle/file-ops.ts'
import { liveView } from '../oracle/live.ts'
import { PROC_OPS } from '../oracle/proc-ops.ts'
import { PROCESS_OPS } from '../oracle/process-ops.ts'
import type { OpTable } from '../oracle/result.ts'
import { Session } from '../oracle/session.ts'
import type { Header, Op, Result } from '../oracle/trace.ts'
import { verifyEnd, verifyMachine } from '../oracle/verify.ts'
import { leftOut } from './differences.ts'
import type { Executor } from './executor.ts'
import type { Step } from './kernel-ops.ts'

export interface Program {
  readonly header: Header
  readonly steps: readonly Step[]
}

export interface Failure {
  /** In `ran`; its length when the end of the program failed. */
  readonly at: number
  readonly path: string
  /** What Linux gave. */
  readonly expected: unknown
  readonly got: unknown
}

export interface Verdict {
  /** The operations that both sides ran, with Linux's results. */
  readonly ran: readonly Op[]
  readonly failure: Failure | undefined
  /** How many operations were left out, by name. */
  readonly leftOut: ReadonlyMap<string, number>
}

interface OurRun {
  readonly steps: Step[]
  readonly results: Result[]
  readonly leftOut: Map<string, number>
  /** What went wrong on this side alone, or ''. */
  broken: string
}

const OPS: OpTable = { ...FILE_OPS, ...PROCESS_OPS, ...PROC_OPS }

export async function judge(program: Program, executor: Executor): Promise<Verdict> {
  const ours = runOurs(program)
  const { steps, results, broken } = ours
  const answer = await executor.run(steps)
  const theirs = typeof answer === 'string' ? [] : answer
  const ran = steps.map((step, i): Op => ({ ...step, line: i + 2, expected: theirs[i] ?? {} }))
  const verdict = (failure: Failure | undefined): Verdict => ({ ran, failure, leftOut: ours.leftOut })
  if (typeof answer === 'string') {
    return verdict({ at: steps.length, path: 'Linux', expected: answer, got: 'an answer' })
  }
  for (const [i, op] of ran.entries()) {
    if (results[i] === undefined) break
    const { mismatches } = compare({ ...op, expected: view(op, op.expected) }, view(op, results[i]), 'never')
    const [worst] = mismatches
    if (worst !== undefined) {
      return verdict({ at: i, path: worst.path, expected: worst.expected, got: worst.got })
    }
  }
  if (broken === '') return verdict(undefined)
  return verdict({ at: results.length, path: 'machine', expected: 'every invariant', got: broken })
}

/** The part of a result that must agree. */
function view(op: Op, result: Result): Result {
  // Pages that a memory file holds are the same in both; those of a file on disk are not told.
  return op.op === 'stat' ? result : liveView(op, result)
}

function runOurs({ header, steps }: Program): OurRun {
  const session = new Session(header)
  const run: OurRun = { steps: [], results: [], leftOut: new Map(), broken: '' }
  try {
    for (const step of steps) {
      if (step.args.file !== undefined && !session.files.has(step.args.file as number)) continue
      const name = leftOut(session, step)
      if (name !== undefined) {
        run.leftOut.set(name, (run.leftOut.get(name) ?? 0) + 1)
        continue
      }
      run.steps.push(step)
      run.results.push(OPS[step.op](session, step.args))
    }
    run.broken = verifyMachine(session)
    if (run.broken !== '') return run
    session.end()
    run.broken = verifyEnd(session)
  } catch (error) {
    run.broken = String((error as Error).stack)
  } finally {
    session.dispose()
  }
  return run
}
