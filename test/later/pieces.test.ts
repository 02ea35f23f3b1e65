/** Stores that hand their bytes over in pieces: pages are there as soon as they are whole. */
import { expect, test } from 'vitest'
import type { Mapping } from '../../src/api/mapping.ts'
import { httpRange } from '../../src/stores/http-range.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { pattern } from '../stores/conformance.ts'
import { laterStore } from '../support/later-store.ts'
import { fileOf, startRangeServer } from '../support/range-server.ts'
import { errorOf, type LaterRig, PAGE, turn, useLater } from './support.ts'

const rigs = useLater()

interface Asked {
  readonly position: number
  readonly length: number
  readonly signal: AbortSignal | undefined
  readonly take: (piece: Uint8Array) => void
  readonly end: (result: number) => void
  readonly fail: (error: unknown) => void
}

/**
 * A window over a file of `pages` pages and `tail` bytes; each read of its store is in `asked`, for the test to answer.
 */
async function pieces(
  rig: LaterRig,
  pages: number,
  options: { tail?: number; timeoutMs?: number } = {}
): Promise<{ map: Mapping; asked: Asked[]; contents: Uint8Array }> {
  const contents = pattern(pages * PAGE + (options.tail ?? 0))
  const asked: Asked[] = []
  const store = laterStore(memoryStore({ contents, name: 'pieces' }))
  store.readPieces = (position, length, take, signal) =>
    new Promise((end, fail) => asked.push({ position, length, signal, take, end, fail }))
  const file = await rig.memory.openAsync(store, { timeoutMs: options.timeoutMs ?? 0 })
  return { map: rig.space.map(file), asked, contents }
}

/** Hands over bytes [from, to) of a read. */
function hand({ position, take }: Asked, contents: Uint8Array, from: number, to: number): void {
  take(contents.slice(position + from, position + to))
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}

test('pieces of any size end up in their places, each page as soon as it is whole', async () => {
  const rig = await rigs()
  const { map, asked, contents } = await pieces(rig, 12, { tail: 100 })
  const ready = map.ready()
  await until(() => asked.length === 1)
  const [read] = asked
  expect(read).toMatchObject({ position: 0, length: 12 * PAGE + 100 })
  let at = 0
  for (const n of [1, PAGE - 1, 1, PAGE, 3 * PAGE + 7, 2 * PAGE, 0, PAGE - 9]) {
    hand(read, contents, at, at + n)
    at += n
    const whole = Math.floor(at / PAGE)
    expect(map.residency()).toEqual(Uint8Array.from({ length: 13 }, (_, page) => (page < whole ? 1 : 0)))
    expect(rig.memory.check()).toEqual([])
  }
  expect(map.getUint8(3 * PAGE + 5)).toBe(contents[3 * PAGE + 5])
  hand(read, contents, at, 12 * PAGE + 100)
  read.end(12 * PAGE + 100)
  expect(await ready).toBe(13)
  const bytes = new Uint8Array(13 * PAGE)
  map.read(bytes, 0)
  expect(bytes.subarray(0, contents.length)).toEqual(contents)
  expect(bytes.subarray(contents.length).every(byte => byte === 0)).toBe(true)
})

test('one that fails in the middle: what came whole stays, the rest fails with the cause', async () => {
  const rig = await rigs()
  const { map, asked, contents } = await pieces(rig, 10)
  const ready = map.ready()
  await until(() => asked.length === 1)
  hand(asked[0], contents, 0, 4 * PAGE + 17)
  const cause = Object.assign(new Error('in the middle'), { code: 'ESTALE' })
  asked[0].fail(cause)
  const error = await ready.then(
    () => undefined,
    e => e
  )
  expect(error).toMatchObject({ code: 'SIGBUS', errno: -116, address: map.address + 4 * PAGE })
  expect(error.cause).toBe(cause)
  expect(map.residency()).toEqual(Uint8Array.of(1, 1, 1, 1, 0, 0, 0, 0, 0, 0))
  expect(map.getUint8(3 * PAGE)).toBe(contents[3 * PAGE])
  const again = map.ready()
  await until(() => asked.length === 2)
  expect(asked[1]).toMatchObject({ position: 4 * PAGE, length: 6 * PAGE })
  hand(asked[1], contents, 0, 6 * PAGE)
  asked[1].end(6 * PAGE)
  expect(await again).toBe(10)
})

test('a store that says it gave more, or less, than it did', async () => {
  const rig = await rigs()
  for (const [given, said] of [
    [4 * PAGE, 5 * PAGE],
    [4 * PAGE, 4 * PAGE]
  ]) {
    const { map, asked, contents } = await pieces(rig, 5)
    const ready = map.ready()
    await until(() => asked.length === 1)
    hand(asked[0], contents, 0, given)
    asked[0].end(said)
    await expect(ready).rejects.toMatchObject({
      errno: -5,
      cause: { message: `pieces ended after ${4 * PAGE} of ${5 * PAGE} bytes` }
    })
  }
  const { map, asked, contents } = await pieces(rig, 5)
  const ready = map.ready()
  await until(() => asked.length === 1)
  // What goes beyond is left out.
  asked[0].take(new Uint8Array([...contents, ...contents]))
  asked[0].end(5 * PAGE)
  expect(await ready).toBe(5)
  expect(map.getUint8(4 * PAGE)).toBe(contents[4 * PAGE])
})

test('pieces that come after a time-out go nowhere, though the pages are asked for again', async () => {
  const rig = await rigs()
  const { map, asked, contents } = await pieces(rig, 5, { timeoutMs: 20 })
  await expect(map.ready()).rejects.toMatchObject({ errno: -110 })
  expect(asked[0].signal?.aborted).toBe(true)
  const again = map.ready()
  await until(() => asked.length === 2)
  asked[0].take(new Uint8Array(5 * PAGE).fill(0xee))
  asked[0].end(5 * PAGE)
  hand(asked[1], contents, 0, 5 * PAGE)
  asked[1].end(5 * PAGE)
  expect(await again).toBe(5)
  expect(map.getUint8(PAGE)).toBe(contents[PAGE])
})

test('pieces that come after the file was closed go nowhere', async () => {
  const rig = await rigs()
  const { map, asked } = await pieces(rig, 5)
  expect(errorOf(() => map.getUint8(0)).code).toBe('EAGAIN')
  await until(() => asked.length === 1)
  map.unmap()
  map.file?.close()
  await turn()
  expect(asked[0].signal?.aborted).toBe(true)
  const own = rig.memory.space().map(null, { length: 8 * PAGE, writable: true })
  own.fill(7)
  asked[0].take(new Uint8Array(5 * PAGE).fill(0xee))
  for (let page = 0; page < 8; page++) expect(own.getUint8(page * PAGE)).toBe(7)
})

test('httpRange hands over what it reads, also over a body that breaks off', async () => {
  const contents = pattern(300_000)
  const server = await startRangeServer(fileOf(contents))
  try {
    const store = await httpRange(`${server.origin}/file`, { backoffMs: 1 })
    server.before = (asked, response, nr) => {
      if (nr !== 2) return false
      response.writeHead(206, {
        etag: '"one"',
        'content-length': 250_000,
        'content-range': `bytes 1000-250999/${contents.length}`
      })
      response.write(contents.subarray(1000, 101_000), () => response.destroy())
      return asked.method === 'GET'
    }
    const got: Uint8Array[] = []
    expect(await store.readPieces?.(1000, 250_000, piece => got.push(piece))).toBe(250_000)
    expect(Buffer.concat(got)).toEqual(Buffer.from(contents.subarray(1000, 251_000)))
    expect(server.requests.length).toBeGreaterThan(2)
    expect(await store.readPieces?.(300_000, 10, () => {})).toBe(0)
    expect(await store.readPieces?.(-1, 10, () => {})).toBe(-22)
    await store.close()
    expect(await store.readPieces?.(0, 10, () => {})).toBe(-9)
  } finally {
    await server.close()
  }
})
