/** What the live oracle found: the shrunk programs, with Linux's results, on this machine alone. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, vi } from 'vitest'
import { replay } from '../../tools/oracle/replay.ts'
import { readTrace } from '../../tools/oracle/trace.ts'
import { openLibc } from '../../tools/oracle-live/libc.ts'

vi.mock('koffi', () => {
  throw new Error('no binary for this platform')
})

const fixtures = fileURLToPath(new URL('./fixtures', import.meta.url))

it.each(readdirSync(fixtures))('%s', name => {
  const trace = readTrace(join(fixtures, name))
  expect(replay(trace, 3)).toMatchObject({ failure: undefined, nrOps: trace.ops.length })
})

it('says why when koffi does not load', async () => {
  const libc = await openLibc()
  expect(libc).toHaveProperty('reason')
  if (process.platform === 'linux')
    expect(libc).toMatchObject({ reason: expect.stringMatching(/^koffi does not load/) })
})
