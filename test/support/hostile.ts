/**
 * A server that misbehaves as a test says, and a store over its file.
 *
 * Offers ways to open (`start`, `open`, `both`), to misbehave (`answerNext`, `always`, `partial`, `status`), and to
 * judge (`failure`, `expectGood`, `expectStale`). What is started and opened here ends with the test.
 */
import type http from 'node:http'
import { afterEach, expect, vi } from 'vitest'
import { HttpRangeError, type HttpRangeOptions, type HttpRangeStore, httpRange } from '../../src/stores/http-range.ts'
import { expectBytes, pattern, readLater } from '../stores/conformance.ts'
import { contentRange, fileOf, type RangeServer, type ServedFile, startRangeServer } from './range-server.ts'

export type Answer = (response: http.ServerResponse, range: readonly [first: number, last: number]) => void

export const SIZE = 300_000
export const CONTENTS: Uint8Array = pattern(SIZE)
/** No test waits longer than it must. */
export const QUICK: HttpRangeOptions = { backoffMs: 1, timeoutMs: 10_000 }

const servers: RangeServer[] = []
const stores: HttpRangeStore[] = []

afterEach(async () => {
  vi.unstubAllGlobals()
  for (const store of stores.splice(0)) await store.close()
  for (const server of servers.splice(0)) await server.close()
})

export async function start(file: ServedFile = fileOf(CONTENTS)): Promise<RangeServer> {
  const server = await startRangeServer(file)
  servers.push(server)
  return server
}

export async function open(url: string, options: HttpRangeOptions = {}): Promise<HttpRangeStore> {
  return track(await httpRange(url, { ...QUICK, ...options }))
}

/** The store is closed after the test. */
export function track(store: HttpRangeStore): HttpRangeStore {
  stores.push(store)
  return store
}

/** A server and a store that is open already. */
export async function both(
  options: HttpRangeOptions = {},
  file?: ServedFile
): Promise<{ server: RangeServer; store: HttpRangeStore }> {
  const server = await start(file)
  return { server, store: await open(`${server.origin}/file`, options) }
}

/** The next requests are answered by these, in order; those after them as a good server does. */
export function answerNext(server: RangeServer, ...answers: Answer[]): void {
  server.before = ({ range }, response) => {
    const answer = answers.shift()
    answer?.(response, range ?? [0, SIZE - 1])
    return answer !== undefined
  }
}

export function always(server: RangeServer, answer: Answer): void {
  server.before = ({ range }, response) => {
    answer(response, range ?? [0, SIZE - 1])
    return true
  }
}

/** Headers of a good answer to `range`, with changes; undefined takes a header away. */
export function partial(
  response: http.ServerResponse,
  [first, last]: readonly [number, number],
  changes: Record<string, string | undefined> = {},
  status = 206
): void {
  const good = { etag: '"one"', 'content-range': contentRange(first, last, SIZE) }
  for (const [name, value] of Object.entries({ ...good, ...changes })) {
    if (value !== undefined) response.setHeader(name, value)
  }
  response.writeHead(status)
}

export function bodyOf([first, last]: readonly [number, number]): Uint8Array {
  return CONTENTS.subarray(first, last + 1)
}

export function status(code: number, headers: http.OutgoingHttpHeaders = {}): Answer {
  return response => response.writeHead(code, headers).end('sorry')
}

export async function failure(promise: Promise<unknown>): Promise<HttpRangeError> {
  const result = await promise.then(
    value => `resolved to ${value}`,
    (error: unknown) => error
  )
  expect(result).toBeInstanceOf(HttpRangeError)
  return result as HttpRangeError
}

export async function expectGood(store: HttpRangeStore, position = 1000, length = 200_000): Promise<void> {
  expectBytes(await readLater(store, position, length), CONTENTS.slice(position, position + length))
}

/** A server that can be asked no more: for every call one error, the same one, and no request. */
export async function expectStale(server: RangeServer, store: HttpRangeStore): Promise<void> {
  const error = await failure(readLater(store, 1000, 200_000))
  expect(error.code).toBe('ESTALE')
  expect(error.errno).toBe(-116)
  server.before = () => false
  server.file.etag = '"one"'
  const asked = server.requests.length
  expect(await failure(readLater(store, 0, 1))).toBe(error)
  expect(await failure(store.size())).toBe(error)
  expect(server.requests).toHaveLength(asked)
}

/** Timers of so many ms fire at once from now on, to the end of the test. → how long they were to be. */
export function skipWaits(leastMs: number, mostMs: number): number[] {
  const waits: number[] = []
  const real = globalThis.setTimeout
  // The platform's own timers for requests go through here as well; none is in the ranges that the tests name.
  const skipping = (act: (...args: unknown[]) => void, ms: number, ...args: unknown[]): NodeJS.Timeout => {
    const isWait = ms >= leastMs && ms <= mostMs
    if (isWait) waits.push(ms)
    return real(act, isWait ? 0 : ms, ...args)
  }
  vi.stubGlobal('setTimeout', skipping)
  return waits
}
