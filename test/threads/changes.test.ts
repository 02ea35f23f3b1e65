/**
 * A load through a shared mapping looks afterwards whether anything was taken away, and is made again if so. Were the
 * compiler to leave that out, nobody would notice until a page went away in the wrong moment. Here another thread tells
 * of changes all the time, and the reader must see it.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const build = fileURLToPath(new URL('../../dist/fremap.js', import.meta.url))

const program = `
import { Worker } from 'node:worker_threads'
import { Memory } from ${JSON.stringify(build)}
const memory = new Memory({ size: '1MiB', threads: 2 })
const map = memory.space().map(memory.shared(65536), { writable: true })
for (let i = 0; i < 65536; i += 4) map.setUint32(i, i)
for (let i = 0; i < 65536; i += 4) map.getUint32(i)
const { threads, row } = memory.machine.sync
const words = threads.w
const stop = new Int32Array(new SharedArrayBuffer(8))
const source = "const { workerData: { words, at, stop } } = require('node:worker_threads');" +
  "Atomics.store(stop, 1, 1); Atomics.notify(stop, 1); while (Atomics.load(stop, 0) === 0) Atomics.add(words, at, 1)"
const worker = new Worker(source, { eval: true, execArgv: [], workerData: { words, at: row + 30, stop } })
await new Promise(resolve => worker.once('online', resolve))
Atomics.wait(stop, 1, 0, 10_000)
const retries = () => memory.stats().threads[0].retries
let wrong = 0
const loops = []
for (const read of [o => map.getUint32(o), o => map.getUint8(o), o => map.getFloat64(o)]) {
  const before = retries()
  const end = Date.now() + 20_000
  for (let k = 0; k < 2_000_000 || (retries() === before && Date.now() < end); k++) {
    const offset = (k * 52) & 0xfff8
    const value = read(offset)
    if (read.toString().includes('Uint32') && value !== offset) wrong++
  }
  loops.push(retries() - before)
}
Atomics.store(stop, 0, 1)
console.log(JSON.stringify({ wrong, loops }))
`

test('a load sees that something has changed, also in optimised code', () => {
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  const { wrong, loops } = JSON.parse(output) as { wrong: number; loops: number[] }
  expect(wrong).toBe(0)
  for (const retries of loops) expect(retries).toBeGreaterThan(0)
})
