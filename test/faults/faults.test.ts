/**
 * Every failure that a store or the allocator can give, at every call of the scenario.
 *
 * In each run one call fails, or all from one on until they are lifted: after the step in which that began, or when the
 * scenario is over. World judges each step; here is what to inject, and that it was.
 */
import { describe, expect, test } from 'vitest'
import { rounds } from '../support/suite.ts'
import { Injector, type Kind, type Lasting, type Plan } from './injector.ts'
import { Wrong } from './model.ts'
import { SCENARIO } from './scenario.ts'
import { World } from './world.ts'

type Punches = 'punch' | 'zeros'
type Lift = 'after the step' | 'at the end'

/** → errors that the calls gave, or what went wrong. */
function run(
  plan: Plan | undefined,
  lift: Lift,
  punches: Punches = 'punch'
): { injector: Injector; nrErrors: number; wrong: string | undefined } {
  const injector = new Injector(plan)
  const world = new World(injector, punches)
  let wrong: string | undefined
  try {
    for (const [name, step] of SCENARIO) {
      world.guard(name, () => step(world))
      if (injector.fired > 0 && lift === 'after the step') injector.lift()
    }
    world.guard('settle', () => world.settle())
    world.guard('end', () => world.end())
  } catch (error) {
    wrong = error instanceof Wrong ? error.message : String((error as Error).stack)
  }
  return { injector, nrErrors: world.nrErrors, wrong }
}

const calls = run(undefined, 'at the end').injector.calls
const callsWithZeros = run(undefined, 'at the end', 'zeros').injector.calls

const KINDS: readonly (readonly [target: string, kinds: readonly Kind[], punches?: Punches])[] = [
  ['file.size', ['EIO']],
  ['file.read', ['EIO', 'short']],
  ['file.write', ['EIO', 'ENOSPC', 'torn']],
  ['file.flush', ['EIO', 'ENOSPC']],
  ['file.truncate', ['EIO', 'ENOSPC']],
  ['file.punch', ['EIO', 'EOPNOTSUPP']],
  ['file.close', ['EIO']],
  ['swap.read', ['EIO', 'short']],
  ['swap.write', ['EIO', 'ENOSPC', 'torn']],
  ['frame', ['none']],
  ['file.write', ['EIO', 'ENOSPC', 'torn'], 'zeros']
]

const HOW: readonly (readonly [Lasting, Lift])[] = [
  ['once', 'at the end'],
  ['for good', 'after the step'],
  ['for good', 'at the end']
]

test('without a failure nothing fails, and every target is called', () => {
  const { nrErrors, wrong } = run(undefined, 'at the end')
  expect(wrong).toBeUndefined()
  expect(nrErrors).toBe(0)
  expect(SCENARIO.length).toBeGreaterThanOrEqual(60)
  expect([...calls.keys()].sort()).toEqual([...new Set(KINDS.map(([target]) => target))].sort())
  expect(callsWithZeros.get('file.write')).toBeGreaterThan(calls.get('file.write') as number)
})

describe.each(KINDS.map(([target, kinds, punches = 'punch']) => [target, punches, kinds] as const))(
  '%s, holes by %s',
  (target, punches, kinds) => {
    test.each(kinds.flatMap(kind => HOW.map(([lasting, lift], how) => [kind, lasting, lift, how] as const)))(
      '%s, %s, lifted %s',
      (kind, lasting, lift, how) => {
        const nrCalls = (punches === 'punch' ? calls : callsWithZeros).get(target) as number
        const wrong: string[] = []
        let surfaced = 0
        // Of many calls the short suite lets each fail in one way alone, or each third one.
        const step = rounds(nrCalls < 9 ? 1 : nrCalls < 40 ? 3 : 9, 1)
        for (let call = 1 + ((4 * how) % step); call <= nrCalls; call += step) {
          const result = run({ target, kind, call, lasting }, lift, punches)
          if (result.wrong !== undefined) wrong.push(`call ${call} of ${nrCalls}: ${result.wrong}`)
          else expect(result.injector.fired, `call ${call} fails`).toBeGreaterThan(0)
          if (result.nrErrors > 0) surfaced++
        }
        expect(wrong).toEqual([])
        // What cannot punch writes zeros, and a page that cannot be swapped out makes room for another to be.
        const hides = kind === 'EOPNOTSUPP' || (target === 'swap.write' && lift !== 'at the end')
        if (!hides && lasting === 'for good') expect(surfaced).toBeGreaterThan(0)
      }
    )
  }
)
