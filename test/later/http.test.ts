/** A file on a server, mapped: from the request to the byte. */
import { afterEach, expect, test } from 'vitest'
import { Memory } from '../../src/api/memory.ts'
import { httpRange } from '../../src/stores/http-range.ts'
import { pattern } from '../stores/conformance.ts'
import { fileOf, type RangeServer, startRangeServer } from '../support/range-server.ts'
import { rounds } from '../support/suite.ts'
import { errorOf, PAGE, startThread, useThreads } from './support.ts'

const cleanup = useThreads()
let server: RangeServer | undefined

afterEach(async () => {
  await server?.close()
  server = undefined
})

const PAGES = rounds(300, 1000)
const SIZE = PAGES * PAGE + 123

function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i + 4 <= bytes.length; i += 4) {
    sum = (Math.imul(sum, 31) + (bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24))) | 0
  }
  return sum
}

test('a worker sums a file through a memory sixteen times smaller', async () => {
  const contents = pattern(SIZE)
  server = await startRangeServer(fileOf(contents))
  const memory = new Memory({ size: 64 * (PAGE + 44), threads: 2 })
  const file = await memory.openAsync(await httpRange(`${server.origin}/file`))
  const map = memory.space().map(file)
  const thread = await startThread(memory, cleanup)
  await thread.do('adopt', 'map', map.handle)
  expect(await thread.do<number>('checksum', SIZE)).toBe(checksum(contents))
  expect(memory.check()).toEqual([])
  const ranges = server.requests.slice(1).map(({ range }) => range as [number, number])
  // Each byte once, in requests of 8 pages at most: an eighth of memory.
  expect(ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0)).toBe(SIZE)
  expect(ranges.length).toBeLessThan(PAGES / 8 + 10)
  await thread.worker.terminate()
  await memory.closeAsync()
})

test('this thread reads what ready has brought', async () => {
  const contents = pattern(SIZE)
  server = await startRangeServer(fileOf(contents))
  const memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(await memory.openAsync(await httpRange(`${server.origin}/file`)))
  const bytes = new Uint8Array(SIZE)
  await map.readAsync(bytes, 0)
  expect(checksum(bytes)).toBe(checksum(contents))
  await map.ready({ offset: 150 * PAGE, length: 3 * PAGE })
  map.read(bytes.subarray(0, 3 * PAGE), 150 * PAGE)
  expect(bytes.subarray(0, 3 * PAGE)).toEqual(contents.subarray(150 * PAGE, 153 * PAGE))
  await memory.closeAsync()
})

test('the file changes on the server: SIGBUS with ESTALE, and never a byte of the other version', async () => {
  const [old, fresh] = [new Uint8Array(SIZE).fill(1), new Uint8Array(SIZE).fill(2)]
  server = await startRangeServer(fileOf(old))
  const memory = new Memory({ size: 64 * (PAGE + 44), threads: 2 })
  const map = memory.space().map(await memory.openAsync(await httpRange(`${server.origin}/file`)))
  const thread = await startThread(memory, cleanup)
  await thread.do('adopt', 'map', map.handle)
  // Changed while the worker reads: it sees the old version, or an error.
  server.before = (_asked, _response, nr) => {
    if (nr === 20)
      Object.assign(server as RangeServer, { file: Object.assign(server?.file as object, fileOf(fresh, '"two"')) })
    return false
  }
  const error = await thread.do('checkAll', SIZE, 1).then(
    () => undefined as never,
    e => e
  )
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -116 })
  expect(error.cause.message).toMatch(/^ESTALE: /)
  await expect(map.ready({ offset: 290 * PAGE, length: PAGE })).rejects.toMatchObject({
    code: 'SIGBUS',
    errno: -116,
    cause: { code: 'ESTALE', name: 'HttpRangeError' }
  })
  // What is in memory stays readable, and is of the old version.
  expect(map.residency().some(there => there === 1)).toBe(true)
  for (const [page, there] of map.residency().entries()) if (there === 1) expect(map.getUint8(page * PAGE)).toBe(1)
  const anew = memory.space().map(await memory.openAsync(await httpRange(`${server.origin}/file`)))
  await anew.ready({ offset: 0, length: PAGE })
  expect(anew.getUint8(0)).toBe(2)
  await thread.worker.terminate()
  await memory.closeAsync()
})

test('a memory that is closed while requests are under way ends them', async () => {
  server = await startRangeServer(fileOf(pattern(SIZE)))
  const memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(await memory.openAsync(await httpRange(`${server.origin}/file`)))
  let closed: Promise<unknown> | undefined
  const asked = new Promise<void>(resolve => {
    ;(server as RangeServer).before = (_asked, response) => {
      closed = new Promise(done => response.once('close', done))
      resolve()
      return true
    }
  })
  expect(errorOf(() => map.getUint8(0)).code).toBe('EAGAIN')
  await asked
  await memory.closeAsync()
  await closed
})
