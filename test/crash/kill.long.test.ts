import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { endOnce, killOnce } from '../../tools/crash/kill.ts'
import { rounds } from '../support/suite.ts'

const NR_KILLS = rounds(8, 36)
const AT_ONCE = 4
const NR_ENDS = rounds(3, 8)

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-child-'))
const script = path.join(directory, 'child.mjs')

// The sources as they are now, in one file that plain Node runs.
beforeAll(async () => {
  await build({
    configFile: false,
    logLevel: 'silent',
    build: {
      ssr: fileURLToPath(new URL('../../tools/crash/child.ts', import.meta.url)),
      outDir: directory,
      target: 'node20',
      rollupOptions: { output: { entryFileNames: 'child.mjs' } }
    }
  })
})

afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true })
})

test('what a process acknowledged before kill -9 is in the file, and nothing half-done', async () => {
  const seed = 1 + (Date.now() % 1_000_000)
  const wrong: string[] = []
  let killed = 0
  let syncs = 0
  let next = 0
  const worker = async () => {
    while (next < NR_KILLS) {
      const run = seed + next++
      const { nrSyncs, violation } = await killOnce(script, run)
      killed++
      syncs += nrSyncs
      if (violation !== undefined) wrong.push(`seed ${run}: ${violation}`)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  expect(wrong).toEqual([])
  expect(killed).toBe(NR_KILLS)
  // The processes were at work when they died.
  expect(syncs).toBeGreaterThan(NR_KILLS * 10)
})

test('what a process stored that ends without closing anything is in the file', () => {
  const seed = 1 + (Date.now() % 1_000_000)
  const wrong: string[] = []
  for (let run = seed; run < seed + NR_ENDS; run++) {
    const violation = endOnce(script, run)
    if (violation !== undefined) wrong.push(`seed ${run}: ${violation}`)
  }
  expect(wrong).toEqual([])
})

test('a process that fails by itself is reported with what it said', async () => {
  const { violation } = await killOnce(path.join(directory, 'none.mjs'), 1)
  expect(violation).toContain('the process ended with 1')
  expect(violation).toContain('none.mjs')
})
