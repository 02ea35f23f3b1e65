/** Runs of the fuzzer: one by chance, one from a list, and the shrinking of a list that fails. */
import { execute } from './exec.ts'
import { turn } from './exec-later.ts'
import { type Choices, Generator, makeConfig } from './generate.ts'
import type { FuzzCase, Op } from './ops.ts'
import { Prng } from './prng.ts'
import { World } from './world.ts'

export interface RunResult {
  readonly test: FuzzCase
  /** What went wrong, or undefined. */
  readonly failure: string | undefined
  readonly nrOutOfMemory: number
}

/** Operations by chance, up to `nrOps`, checked after every `checkEvery`. */
export async function runRandom(seed: number, nrOps: number, checkEvery: number, choices: Choices): Promise<RunResult> {
  const rng = new Prng(seed)
  const config = makeConfig(rng, choices)
  const generator = new Generator(rng, config)
  const ops: Op[] = []
  const outcome = await perform(new World(config), nrOps, checkEvery, w => {
    const op = generator.next(w)
    ops.push(op)
    return op
  })
  return { test: { config, ops }, ...outcome }
}

/** The operations of a case. */
export async function replay(test: FuzzCase, checkEvery: number): Promise<RunResult> {
  let at = 0
  return { test, ...(await perform(new World(test.config), test.ops.length, checkEvery, () => test.ops[at++])) }
}

async function perform(
  w: World,
  nrOps: number,
  checkEvery: number,
  next: (w: World) => Op
): Promise<{ failure: string | undefined; nrOutOfMemory: number }> {
  let at = 0
  let op: Op | undefined
  try {
    for (; at < nrOps; at++) {
      op = next(w)
      const done = execute(w, op)
      if (done !== undefined) await done
      // What was asked of the store that answers later reaches it, and what came is delivered.
      if (w.later !== undefined) await turn()
      if (checkEvery > 0 && at % checkEvery === checkEvery - 1) w.check()
    }
    op = undefined
    for (; w.later !== undefined && w.later.nrAsked > 0; await turn()) w.later.arrive(1, 'whole')
    w.finish()
    return { failure: undefined, nrOutOfMemory: w.nrOutOfMemory }
  } catch (error) {
    const place = op === undefined ? 'at the end' : `operation ${at} ${JSON.stringify(op)}`
    return { failure: `${place}: ${describe(error)}`, nrOutOfMemory: w.nrOutOfMemory }
  } finally {
    w.dispose()
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.constructor.name === 'Mismatch' ? error.message : (error.stack ?? error.message)
}

/** Leaves out operations, in ever smaller pieces, while what is left still fails. */
export async function shrink(test: FuzzCase, maxRuns: number, checkEvery: number): Promise<FuzzCase> {
  let ops = test.ops
  let runs = 0
  const fails = async (candidate: readonly Op[]): Promise<boolean> => {
    runs++
    return (await replay({ config: test.config, ops: candidate }, checkEvery)).failure !== undefined
  }
  for (let size = Math.ceil(ops.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let again = true; again && runs < maxRuns; ) {
      again = false
      for (let at = 0; at < ops.length && runs < maxRuns; ) {
        const candidate = [...ops.slice(0, at), ...ops.slice(at + size)]
        if (await fails(candidate)) {
          ops = candidate
          again = size === 1
        } else at += size
      }
    }
  }
  return { config: test.config, ops }
}
