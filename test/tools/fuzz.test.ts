/** The fuzzer: a short run on every kind of store, the same again from a saved case, and the shrinking of a failure. */
import { describe, expect, test } from 'vitest'
import { POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import type { FuzzCase, Op } from '../../tools/fuzz/ops.ts'
import { replay, runRandom, shrink } from '../../tools/fuzz/run.ts'
import { WINDOW_PAGES, World } from '../../tools/fuzz/world.ts'
import { rounds } from '../support/suite.ts'

describe.each(['shmem', 'memory', 'node'] as const)('on %s', store => {
  test.each(Array.from({ length: rounds(1, 4) }, (_, i) => i + 1))('seed %i passes, twice alike', async seed => {
    const { test: made, failure } = await runRandom(seed, 200, 1, { stores: [store], nrFrames: 0 })
    expect(failure).toBeUndefined()
    expect(made.ops.length).toBe(200)
    expect((await runRandom(seed, 200, 0, { stores: [store], nrFrames: 0 })).test).toEqual(made)
    expect((await replay(JSON.parse(JSON.stringify(made)) as FuzzCase, 1)).failure).toBeUndefined()
  })
})

test('a failure is shrunk to what makes it', async () => {
  const config = {
    store: 'shmem',
    nrFrames: 64,
    pageShift: 9,
    nrSlots: 0,
    policy: POLICY_NONLINEAR,
    faultAroundPages: 1,
    readaheadPages: 0,
    filePages: 8,
    faults: false,
    threads: 1,
    attached: 1,
    later: false
  } as const
  // An operation past the end of the file's model bytes stands for a machine that does wrong: the model throws.
  const broken: Op = { op: 'write', f: 0, pos: (config.filePages + WINDOW_PAGES) * 512, len: 1, fill: 1 }
  const harmless: Op[] = Array.from({ length: 20 }, (_, i) => ({ op: 'write', f: i % 3, pos: i * 10, len: 5, fill: i }))
  const small = await shrink({ config, ops: [...harmless, broken, ...harmless] }, 500, 1)
  expect(small.ops).toEqual([broken])
})

test('a wrong byte in RAM is found', async () => {
  const { test: made } = await runRandom(5, 100, 0, { stores: ['shmem'], nrFrames: 64 })
  const w = new World(made.config)
  const { fd, model } = w.files[0]
  expect(fd).toBeGreaterThanOrEqual(0)
  model.write(0, Uint8Array.of(1))
  expect(() => w.check()).toThrow(/has 0 bytes, not 1/)
  w.dispose()
})
