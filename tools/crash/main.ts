/**
 * The crash checker: what is in the file after the power fails, or after the process is killed.
 *
 *     npm run crash -- --seed 1 --runs 200      programs from seed 1 on, each with and without failing writes
 *     npm run crash -- --minutes 5              as many as fit
 *     npm run crash -- --kill                   real processes on a real file, ended by SIGKILL
 *     npm run crash -- --end                    the same, ended by themselves without having closed anything
 *
 * A program that fails is cut down and printed. The last line is `N passed, N failed`; the exit code is 1 if any
 * failed.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { endOnce, killOnce } from './kill.ts'
import { losePower, shrink } from './power.ts'
import { type Faults, randomConfig, randomProgram } from './program.ts'

const USAGE = 'usage: npm run crash -- [--seed S] [--runs N] [--minutes M] [--ops N] [--samples N] [--kill | --end]'

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      runs: { type: 'string' },
      minutes: { type: 'string' },
      ops: { type: 'string' },
      samples: { type: 'string' },
      kill: { type: 'boolean', default: false },
      end: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) {
    console.log(USAGE)
    return 0
  }
  const seed = numberOf('seed', values.seed, Date.now() % 1_000_000)
  const minutes = numberOf('minutes', values.minutes, Number.POSITIVE_INFINITY)
  const isReal = values.kill || values.end
  const runs = numberOf('runs', values.runs, values.minutes === undefined ? (isReal ? 50 : 200) : 1e9)
  const nrOps = numberOf('ops', values.ops, 80)
  const samples = numberOf('samples', values.samples, 60)
  const deadline = performance.now() + minutes * 60_000
  const child = fileURLToPath(new URL('./child.js', import.meta.url))
  let passed = 0
  let failed = 0
  let images = 0
  console.log(`seed ${seed}`)
  for (let i = 0; i < runs && performance.now() < deadline; i++) {
    if (isReal) {
      const violation = values.end ? endOnce(child, seed + i) : (await killOnce(child, seed + i)).violation
      if (violation === undefined) passed++
      else {
        failed++
        console.log(`seed ${seed + i}: ${violation}`)
      }
      continue
    }
    for (const faults of ['without faults', 'with faults'] as const) {
      const found = runPower(seed + i, nrOps, samples, faults)
      images += found
      if (found >= 0) passed++
      else failed++
    }
  }
  if (!isReal) console.log(`${images} crash images`)
  console.log(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

/** → images checked, or -1 after printing what failed. */
function runPower(seed: number, nrOps: number, samples: number, faults: Faults): number {
  const config = randomConfig(seed)
  const program = randomProgram(config, seed, nrOps, faults)
  const options = { samples, seed }
  const { violation, nrImages } = losePower(config, program, options)
  if (violation === undefined) return nrImages
  const small = shrink(program, part => losePower(config, part, options).violation !== undefined)
  console.log(`seed ${seed}, ${faults}: ${violation}`)
  console.log(`cut down to ${small.length} operations: ${losePower(config, small, options).violation}`)
  console.log(`  ${JSON.stringify(config)}`)
  for (const op of small) console.log(`  ${JSON.stringify(op)}`)
  return -1
}

function numberOf(name: string, value: string | undefined, otherwise: number): number {
  if (value === undefined) return otherwise
  const n = Number(value)
  if (!(n >= 0)) throw new Error(`--${name} is ${value}, but must be a number; ${USAGE}`)
  return n
}

process.exitCode = await main()
