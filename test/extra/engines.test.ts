/**
 * What is built, run by other engines: they compile to other code, and some move and merge plain loads of shared memory, which the memory
 * model allows. Two threads read 64 pages in 40 frames, so that frames change hands all the time; page p holds p + 1 everywhere.
 *
 * A protocol that relies on the order of plain loads shows the bytes of other pages here, within seconds in most runs, with Deno 2.9 and
 * Bun 1.4. Skipped where these are missing.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ensureBuilt, ROOT } from '../support/built.ts'

const BIN = join(process.env.ENGINES ?? '', 'node_modules/.bin')
const ENGINES = [
  { name: 'Bun', program: join(BIN, 'bun'), words: ['run'] },
  { name: 'Deno', program: join(BIN, 'deno'), words: ['run', '-A', '--quiet'] }
]
const RUNS = 3
const LIMIT_MS = 240_000

const built = (name: string) => JSON.stringify(pathToFileURL(join(ROOT, 'dist', name)).href)
const READS = `
import { isMainThread, parentPort, threadId, Worker, workerData } from 'node:worker_threads'
import { Memory } from ${built('fremap.js')}
import { nodeFile } from ${built('node.js')}
const PAGES = 64
const name = 'reads.db'
const opener = { kind: 'node-file', open: handle => nodeFile(handle.name, 'r') }
if (isMainThread) {
  const memory = new Memory({ size: 40 * 4096, threads: 3 })
  const map = memory.space().map(memory.open(nodeFile(name, 'r')))
  const workers = [0, 1].map(part => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { memory: memory.handle, map: map.handle, part } })
    memory.watch(worker)
    return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  })
  const reports = await Promise.all(workers)
  console.log(JSON.stringify({
    wrong: reports.flatMap(report => report.wrong),
    loads: reports.reduce((sum, report) => sum + report.loads, 0),
    repeated: reports.reduce((sum, report) => sum + report.repeated, 0)
  }))
  process.exit(0)
}
const memory = Memory.attach(workerData.memory, { stores: [opener], thread: threadId })
const map = memory.adopt(workerData.map)
const wrong = []
let loads = 0
const check = at => {
  const byte = map.getUint8(at)
  if (byte !== 1 + (at >> 12)) wrong.push('page ' + (at >> 12) + ' shows ' + byte)
}
for (const end = Date.now() + 5000; Date.now() < end && wrong.length < 10; ) {
  if (workerData.part === 0) for (let k = 0; k < 4096; k++, loads++) check((k & 15) * 4096 + k)
  else for (let page = 0; page < PAGES; page++, loads++) check(page * 4096 + 5)
}
parentPort.postMessage({ wrong, loads, repeated: Math.max(...memory.stats().threads.map(thread => thread.retries)) })
`

for (const { name, program, words } of ENGINES) {
  const isMissing = process.env.ENGINES === undefined || !existsSync(program)
  const how = 'npm install --prefix FOLDER bun deno, and ENGINES=FOLDER'
  if (isMissing) console.warn(`test/extra/engines.test.ts skipped for ${name}, it needs: ${how}`)

  describe.skipIf(isMissing)(isMissing ? `${name} (needs ${how})` : name, () => {
    const folder = mkdtempSync(join(tmpdir(), 'fremap-engine-'))
    const run = (cwd: string, ...args: string[]): string =>
      execFileSync(program, [...words, ...args], { cwd, encoding: 'utf8', timeout: LIMIT_MS })

    beforeAll(ensureBuilt)
    afterAll(() => rmSync(folder, { recursive: true, force: true }))

    test('a load gives a byte of its own page', { timeout: LIMIT_MS }, () => {
      writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
      writeFileSync(join(folder, 'reads.mjs'), READS)
      writeFileSync(
        join(folder, 'reads.db'),
        new Uint8Array(64 * 4096).map((_, i) => 1 + (i >> 12))
      )
      for (let i = 0; i < RUNS; i++) {
        const { wrong, loads, repeated } = JSON.parse(run(folder, 'reads.mjs')) as {
          wrong: string[]
          loads: number
          repeated: number
        }
        expect(wrong).toEqual([])
        expect(loads).toBeGreaterThan(1000)
        expect(repeated).toBeGreaterThan(0)
      }
    })

    // Not with threads that are ended: how one hears of that is Node's.
    test.each(['lanes', 'holes', 'storm', 'guests'])(
      'threads agree with the model: %s',
      scenario => {
        const options = ['--seed', '3', '--threads', '2', '--seconds', '5', '--scenario', scenario]
        const said = run(ROOT, 'build/tools/stress/main.js', ...options)
        expect(said).toMatch(/\n[1-9]\d* passed, 0 failed\n$/)
      },
      LIMIT_MS
    )
  })
}
