/**
 * The fuzzer: random operations on random machines, against a model of bytes, in the manner of fsx.
 *
 *     npm run fuzz -- --seed 1 --minutes 10
 *     npm run fuzz -- --replay fuzz-failure-1-17.json
 *
 * A run is one machine and some hundred operations; run r of seed S is the same everywhere. The first failure ends it:
 * its operations are shrunk and written to a file that `--replay` takes. Exit code 0 when all passed, 1 when one
 * failed, 2 for a bad command line.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { clearProgress, parsed, positive, progress, whole } from '../command-line.ts'
import type { FuzzCase, StoreKind } from './ops.ts'
import { replay, runRandom, shrink } from './run.ts'

interface Arguments {
  seed: number
  ops: number
  minutes?: number
  store: StoreKind | 'all'
  frames: number
  checkEvery: number
  length: number
  replay?: string
}

/** A case as it is saved: checking looks at pages, and so may change what is found. */
interface Saved extends FuzzCase {
  readonly checkEvery?: number
}

const STORES: readonly StoreKind[] = ['shmem', 'memory', 'node']
const MAX_SHRINK_RUNS = 3000

const command = new Command('fuzz')
  .description('Runs random operations on random machines and compares the outcome with a model of bytes.')
  .option('--seed <n>', 'where chance begins', whole(0), Date.now() % 1_000_000)
  .option('--ops <n>', 'operations in all', whole(1), 50_000)
  .option('--minutes <m>', 'go on for so long instead', positive)
  .addOption(new Option('--store <kind>', 'what files are kept in').choices(['all', ...STORES]).default('all'))
  .option('--frames <n>', 'page frames of each machine, 0 for various', whole(0), 0)
  .option('--check-every <k>', 'check the whole machine after every k operations, 0 for the end only', whole(0), 1)
  .option('--length <n>', 'operations in a run', whole(1), 300)
  .option('--replay <file>', 'run the operations of a failure that was saved')

async function main(): Promise<number> {
  const refused = parsed(command)
  if (refused !== undefined) return refused
  const options = command.opts<Arguments>()
  return options.replay === undefined ? fuzz(options) : replayFile(options.replay)
}

async function replayFile(file: string): Promise<number> {
  const test = JSON.parse(readFileSync(file, 'utf8')) as Saved
  const { failure } = await replay(test, test.checkEvery ?? 1)
  if (failure !== undefined) console.log(failure)
  console.log(failure === undefined ? '1 passed, 0 failed' : '0 passed, 1 failed')
  return failure === undefined ? 0 : 1
}

async function fuzz(options: Arguments): Promise<number> {
  const { seed, ops, minutes, checkEvery, length } = options
  const choices = { stores: options.store === 'all' ? STORES : [options.store], nrFrames: options.frames }
  console.log(`seed ${seed}`)
  const start = performance.now()
  const deadline = minutes === undefined ? Infinity : start + minutes * 60_000
  let done = 0
  let passed = 0
  let outOfMemory = 0
  for (let run = 0; (minutes !== undefined || done < ops) && performance.now() < deadline; run++) {
    const result = await runRandom(runSeed(seed, run), length, checkEvery, choices)
    done += result.test.ops.length
    outOfMemory += result.nrOutOfMemory
    if (result.failure !== undefined) {
      clearProgress()
      await report(seed, run, result.failure, { ...result.test, checkEvery })
      console.log(`${passed} passed, 1 failed`)
      return 1
    }
    passed++
    progress(() => `${passed} runs, ${done} operations, ${rate(done, start)} a second`)
  }
  clearProgress()
  const seconds = (performance.now() - start) / 1000
  console.log(
    `${done} operations in ${seconds.toFixed(1)} s (${rate(done, start)} a second), ` +
      `${outOfMemory} of them out of memory as they should be`
  )
  console.log(`${passed} passed, 0 failed`)
  return 0
}

function rate(done: number, start: number): number {
  return Math.round((done * 1000) / (performance.now() - start))
}

function runSeed(seed: number, run: number): number {
  return (Math.imul(seed, 0x01000193) ^ Math.imul(run + 1, 0x9e3779b1)) | 0
}

async function report(seed: number, run: number, failure: string, test: Saved): Promise<void> {
  console.log(`run ${run} of seed ${seed} failed: ${failure}`)
  const checkEvery = test.checkEvery ?? 1
  const small: Saved = { ...(await shrink(test, MAX_SHRINK_RUNS, checkEvery)), checkEvery }
  const file = `fuzz-failure-${seed}-${run}.json`
  writeFileSync(file, `${JSON.stringify(small, null, 1)}\n`)
  console.log(
    `shrunk from ${test.ops.length} to ${small.ops.length} operations: ${(await replay(small, checkEvery)).failure}`
  )
  for (const op of small.ops) console.log(`  ${JSON.stringify(op)}`)
  console.log(`replay it with --replay ${file}`)
}

process.exitCode = await main()
