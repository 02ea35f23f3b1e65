/** The stress (tools/stress) for some seconds, as `npm run stress` runs it: a round of each scenario and a few more. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { ensureBuilt, ROOT } from '../support/built.ts'
import { rounds } from '../support/suite.ts'

const SECONDS = rounds(3, 20)

beforeAll(ensureBuilt)

interface Ended {
  readonly code: number
  readonly output: string
}

function stress(...args: string[]): Promise<Ended> {
  return new Promise(resolve => {
    const command = [join(ROOT, 'build/tools/stress/main.js'), ...args]
    execFile(process.execPath, command, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
    })
  })
}

test('four threads on one memory see what they must', async () => {
  const seed = Date.now() % 1_000_000
  const { code, output } = await stress('--seed', String(seed), '--seconds', String(SECONDS))
  // The output names the seed, and the round that failed.
  expect(output).toMatch(/^\d+ passed, 0 failed$/m)
  expect(output).toMatch(/^lanes .*^holes .*^storm .*^guests .*^deaths /ms)
  expect(code, output).toBe(0)
})

test('a bad command line is refused', async () => {
  expect((await stress('--threads', '1')).code).toBe(2)
  expect((await stress('--scenario', 'calm')).code).toBe(2)
})
