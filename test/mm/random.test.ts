/**
 * Short random programs, always the same ones, against the model of tools/fuzz; everything checked after every
 * operation.
 */
import { expect, test } from 'vitest'
import { runRandom } from '../../tools/fuzz/run.ts'
import { rounds } from '../support/suite.ts'

const OPERATIONS = 150

test.each(
  Array.from(
    { length: rounds(6, 16) },
    (_, i) => ({ seed: 1000 + i, store: i % 2 === 0 ? 'shmem' : 'memory' }) as const
  )
)('seed $seed on $store', async ({ seed, store }) => {
  expect((await runRandom(seed, OPERATIONS, 1, { stores: [store], nrFrames: 0 })).failure).toBeUndefined()
})
