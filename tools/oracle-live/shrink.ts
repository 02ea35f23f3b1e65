/** Makes a failing program short: leaves out operations, in ever smaller pieces, while what is left still fails. */
import type { Executor } from './executor.ts'
import { judge, type Program, type Verdict } from './judge.ts'

const MAX_RUNS = 1500

export interface Shrunk {
  readonly program: Program
  readonly verdict: Verdict
}

/** Any failure counts: a shorter program that fails in another way is as good. */
export async function shrink(program: Program, verdict: Verdict, executor: Executor): Promise<Shrunk> {
  // What was left out of both sides, and what comes after the failure, has no part in it.
  const ran = verdict.ran.slice(0, (verdict.failure?.at ?? 0) + 1).map(({ op, args }) => ({ op, args }))
  let best: Shrunk = { program: { ...program, steps: ran }, verdict }
  let runs = 0
  const attempt = async (steps: Program['steps']): Promise<boolean> => {
    runs++
    const candidate = { ...program, steps }
    const found = await judge(candidate, executor)
    if (found.failure !== undefined) best = { program: candidate, verdict: found }
    return found.failure !== undefined
  }
  if (!(await attempt(best.program.steps))) return { program, verdict }
  for (let size = Math.ceil(best.program.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let again = true; again && runs < MAX_RUNS; ) {
      again = false
      for (let at = best.program.steps.length - size; at > -size && runs < MAX_RUNS; at -= size) {
        const { steps } = best.program
        const from = Math.max(0, at)
        if (await attempt([...steps.slice(0, from), ...steps.slice(at + size)])) again = size === 1
      }
    }
  }
  return best
}
