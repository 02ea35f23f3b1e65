/**
 * The hot path allocates nothing: a million hits of each accessor leave the heap where it was.
 *
 * A separate process with a heap that is never collected while it counts: what is allocated shows as growth.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const build = fileURLToPath(new URL('../../dist/fremap.js', import.meta.url))

/**
 * Bytes an access. A single object each time would be 12 or more; what is left is the compiler's and the counting
 * itself.
 */
const LIMIT = 0.5

const program = (threads: number): string => `
import { Memory, MAP_NONBLOCK, sys_remap_file_pages } from ${JSON.stringify(build)}
const memory = new Memory({ size: '8MiB', threads: ${threads} })
const space = memory.space()
const map = space.map(memory.shared('4MiB'), { writable: true })
const mm = space.mm
const pages = 1024
let sum = 0
const runs = {
  getUint8: n => { for (let i = 0; i < n; i++) sum = (sum + map.getUint8(i & 0x3fffff)) | 0 },
  getUint32: n => { for (let i = 0; i < n; i++) sum = (sum + map.getUint32((i * 52) & 0x3ffffc)) | 0 },
  getInt16: n => { for (let i = 0; i < n; i++) sum = (sum + map.getInt16((i * 50) & 0x3ffffe)) | 0 },
  unaligned: n => { for (let i = 0; i < n; i++) sum = (sum + map.getUint32(((i * 52) & 0x3ffff8) + 1)) | 0 },
  setUint32: n => { for (let i = 0; i < n; i++) map.setUint32((i * 52) & 0x3ffffc, i) },
  setFloat64: n => { for (let i = 0; i < n; i++) map.setFloat64((i * 56) & 0x3ffff8, i | 0) },
  remap: n => {
    for (let i = 0; i < n; i++) {
      sum += sys_remap_file_pages(mm, map.address + (i % pages) * 4096, 4096, 0, (i * 7) % pages, MAP_NONBLOCK)
    }
  },
  fault: n => {
    for (let i = 0; i < n; i++) {
      sys_remap_file_pages(mm, map.address + (i % pages) * 4096, 4096, 0, (i * 7) % pages, MAP_NONBLOCK)
      sum = (sum + map.getUint32((i % pages) * 4096)) | 0
    }
  }
}
map.fill(1)
const result = {}
for (const [name, run] of Object.entries(runs)) {
  // The compiler works beside the program, and may be late: what it has compiled must not allocate.
  for (let times = 0; times < 20 && !(result[name] < ${LIMIT}); times++) {
    for (let i = 0; i < 30; i++) run(20_000)
    globalThis.gc()
    const before = process.memoryUsage().heapUsed
    run(1_000_000)
    result[name] = (process.memoryUsage().heapUsed - before) / 1_000_000
  }
}
result.sum = Number.isInteger(sum)
console.log(JSON.stringify(result))
`

test.each([
  ['a memory of one thread', 1],
  ['a memory that threads can share', 4]
])('bytes allocated by an access, a remap and a fault in %s', (_, threads) => {
  expect(existsSync(build), 'dist/fremap.js is missing: run npm run build first').toBe(true)
  const flags = ['--expose-gc', '--max-semi-space-size=128', '--min-semi-space-size=128', '--input-type=module']
  // A run under coverage would have the child count too, and that allocates.
  const env = { ...process.env }
  delete env.NODE_V8_COVERAGE
  const output = execFileSync(process.execPath, [...flags, '-e', program(threads)], { encoding: 'utf8', env })
  const { sum, ...bytes } = JSON.parse(output) as Record<string, number>
  expect(sum).toBe(true)
  for (const [name, each] of Object.entries(bytes)) expect(each, `${name}: ${each} bytes each`).toBeLessThan(LIMIT)
  expect(Object.keys(bytes).length).toBe(8)
})
