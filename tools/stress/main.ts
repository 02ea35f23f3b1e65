/**
 * The stress: threads that do everything at once on one memory, with a model of what each of them must see, for as long
 * as one likes.
 *
 *     npm run stress -- --minutes 10 --threads 4 --seed 1
 *     npm run stress -- --seed 1 --only 17 --times 50       round 17 of that seed, again and again
 *
 * A round is one memory, some 1 s of one scenario, and the check of all bytes; its configuration comes from the seed.
 * What the threads do comes from it too, but in which order they do it does not: a failure is repeated by running its
 * round many times. Exit code 0 when all passed, 1 when one failed, 2 for a bad command line.
 */
import { Worker } from 'node:worker_threads'
import { Command, Option } from 'commander'
import { clearProgress, parsed, positive, progress, whole } from '../command-line.ts'
import { SCENARIOS, type Scenario } from './env.ts'
import { configOf, type RoundResult, runRound } from './round.ts'

interface Arguments {
  seed: number
  minutes?: number
  seconds?: number
  threads: number
  scenario?: Scenario
  only?: number
  times: number
}

const command = new Command('stress')
  .description('Lets threads loose on one memory and checks what each of them sees, and all bytes in the end.')
  .option('--seed <n>', 'where chance begins', whole(0), Date.now() % 1_000_000)
  .option('--minutes <m>', 'go on for so long', positive)
  .option('--seconds <s>', 'or for so long (30)', positive)
  .option('--threads <n>', 'threads that work, beside the main one', whole(2), 4)
  .addOption(new Option('--scenario <name>', 'only this one').choices(SCENARIOS))
  .option('--only <round>', 'only this round of the seed', whole(0))
  .option('--times <n>', 'how often, with --only', whole(1), 1)

/** What all rounds of a scenario came to. */
class Tally {
  rounds = 0
  operations = 0
  checked = 0
  outOfMemory = 0
  checks = 0
  faults = 0
  evictions = 0
  broken = 0
  inDoubt = 0

  add(result: RoundResult): void {
    this.rounds++
    this.checks += result.checks
    if (result.isBroken) this.broken++
    this.inDoubt += result.inDoubt
    this.faults += result.counters.pgfault ?? 0
    this.evictions += result.counters.pgsteal ?? 0
    for (const { operations, checked, outOfMemory } of result.reports) {
      this.operations += operations
      this.checked += checked
      this.outOfMemory += outOfMemory
    }
  }

  row(name: string): string {
    const { rounds, operations, checked, outOfMemory, checks, faults, evictions, broken, inDoubt } = this
    return [name, rounds, operations, checked, outOfMemory, faults, evictions, checks, broken, inDoubt]
      .map((cell, i) => (i === 0 ? String(cell).padEnd(8) : String(cell).padStart(12)))
      .join('')
  }
}

const HEAD = [
  'scenario',
  'rounds',
  'operations',
  'compared',
  'no memory',
  'faults',
  'evictions',
  'checks',
  'broken',
  'in doubt'
]
  .map((cell, i) => (i === 0 ? cell.padEnd(8) : cell.padStart(12)))
  .join('')

function newWorker(): Worker {
  return new Worker(new URL('./worker.js', import.meta.url))
}

async function main(): Promise<number> {
  const refused = parsed(command)
  if (refused !== undefined) return refused
  const options = command.opts<Arguments>()
  console.log(`seed ${options.seed}, ${options.threads} threads`)
  const workers = Array.from({ length: options.threads }, newWorker)
  const tallies = new Map<string, Tally>()
  const failed = await rounds(options, workers, tallies)
  clearProgress()
  console.log(HEAD)
  let passed = failed === undefined ? 0 : -1
  for (const [name, tally] of tallies) {
    passed += tally.rounds
    console.log(tally.row(name))
  }
  console.log(`${passed} passed, ${failed === undefined ? 0 : 1} failed`)
  for (const worker of workers) {
    worker.removeAllListeners()
    await worker.terminate()
  }
  return failed === undefined ? 0 : 1
}

/** → the result of the round that failed, if one did. */
async function rounds(
  options: Arguments,
  workers: Worker[],
  tallies: Map<string, Tally>
): Promise<RoundResult | undefined> {
  const { seed, only, times, threads } = options
  const limitMs = options.minutes === undefined ? (options.seconds ?? 30) * 1000 : options.minutes * 60_000
  const start = performance.now()
  // On a slow machine, too, each scenario has its turn.
  const least = options.scenario === undefined ? SCENARIOS.length : 1
  const goesOn = (n: number): boolean => n < least || performance.now() - start < limitMs
  for (let n = 0; only === undefined ? goesOn(n) : n < times; n++) {
    const round = only ?? n
    const scenario = options.scenario ?? SCENARIOS[round % SCENARIOS.length]
    const result = await runRound(configOf(seed, round, scenario, threads), workers)
    let tally = tallies.get(scenario)
    if (tally === undefined) tallies.set(scenario, (tally = new Tally()))
    tally.add(result)
    if (result.wrong.length > 0) {
      report(seed, result, threads)
      return result
    }
    // In the place of those that were ended.
    for (let i = 0; i < workers.length; i++) if (workers[i].threadId < 0) workers[i] = newWorker()
    progress(() => `${n + 1} rounds in ${Math.round((performance.now() - start) / 1000)} s`)
  }
  return undefined
}

function report(seed: number, { config, wrong }: RoundResult, threads: number): void {
  clearProgress()
  console.log(`round ${config.round} of seed ${seed} failed: ${JSON.stringify(config)}`)
  for (const line of wrong) console.log(`  ${line}`)
  console.log(`repeat it with --seed ${seed} --threads ${threads} --only ${config.round} --times 50`)
}

process.exitCode = await main()
