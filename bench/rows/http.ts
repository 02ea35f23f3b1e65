/**
 * A file on a server, read from its first byte to its last: by ranges through the store, and by one `fetch` whose body
 * is looked at as it comes and kept nowhere.
 *
 * The server is a process of its own, on loopback, and sends from memory: what a figure shows is the work on this side
 * and the time that passes between two requests. Each of our rounds opens the file anew.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type * as HttpStores from '../../src/stores/http-range.ts'
import type { BenchRow, Context } from '../context.ts'
import { type Sample, type Side, Skip } from '../harness.ts'
import { fold } from '../random.ts'
import { PAGE } from '../subject.ts'

const MIB = 2 ** 20
const READ = 8 * MIB

export function fileBytes(context: Context): number {
  return context.size(64 * MIB, 16 * MIB)
}

/** Where the row's file is served, and the end of it. */
export async function serve(context: Context): Promise<{ url: string; end: () => void }> {
  const program = fileURLToPath(new URL('../file-server.js', import.meta.url))
  const child: ChildProcess = fork(program, [context.file(fileBytes(context))], { execArgv: [] })
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', message => resolve(message as number))
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`the file server ended with ${code}`)))
  })
  return { url: `http://127.0.0.1:${port}/file`, end: () => child.disconnect() }
}

export async function timedRun(context: Context, work: () => Promise<number>): Promise<Sample> {
  const start = performance.now()
  const checksum = await work()
  const end = performance.now()
  return { value: ((end - start) * 1e6) / (fileBytes(context) / 1024), checksum: checksum >>> 0 }
}

// Each side has its own copy of the loop over the first bytes of pages. Pieces of a body end anywhere.

function foldPiece(piece: Uint8Array, position: number, start: number): number {
  let checksum = start | 0
  for (let i = (PAGE - (position % PAGE)) % PAGE; i < piece.length; i += PAGE) checksum = fold(checksum, piece[i])
  return checksum
}

function foldRead(buffer: Uint8Array, length: number, start: number): number {
  let checksum = start | 0
  for (let i = 0; i < length; i += PAGE) checksum = fold(checksum, buffer[i])
  return checksum
}

function foldBare(buffer: Uint8Array, length: number, start: number): number {
  let checksum = start | 0
  for (let i = 0; i < length; i += PAGE) checksum = fold(checksum, buffer[i])
  return checksum
}

async function rangeReads(context: Context): Promise<Side> {
  const build = join(context.buildDirectory, 'http.js')
  if (!existsSync(build)) throw new Skip('the build to measure has no http.js')
  const { httpRange } = (await import(pathToFileURL(build).href)) as typeof HttpStores
  const { url, end } = await serve(context)
  const buffer = new Uint8Array(READ)
  const run = (): Promise<Sample> =>
    timedRun(context, async () => {
      let checksum = 0
      const store = await httpRange(url)
      for (let position = 0; position < fileBytes(context); position += READ) {
        const got = await store.read(position, buffer, 0, READ)
        if (got !== READ) throw new Error(`read ${got} bytes`)
        checksum = foldRead(buffer, got, checksum)
      }
      await store.close()
      return checksum
    })
  return { run, cleanup: end }
}

export async function plainFetch(context: Context): Promise<Side> {
  const { url, end } = await serve(context)
  const run = (): Promise<Sample> =>
    timedRun(context, async () => {
      let checksum = 0
      let position = 0
      const response = await fetch(url)
      const reader = (response.body as NonNullable<typeof response.body>).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return checksum
        checksum = foldPiece(value, position, checksum)
        position += value.length
      }
    })
  return { run, cleanup: end }
}

/** What the store does by hand, without its checks: the least that reads by ranges can cost here. */
async function bareRanges(context: Context): Promise<Side> {
  const { url, end } = await serve(context)
  const buffer = new Uint8Array(READ)
  const run = (): Promise<Sample> =>
    timedRun(context, async () => {
      let checksum = 0
      for (let position = 0; position < fileBytes(context); position += READ) {
        const response = await fetch(url, { headers: { range: `bytes=${position}-${position + READ - 1}` } })
        const reader = (response.body as NonNullable<typeof response.body>).getReader()
        let length = 0
        for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
          buffer.set(piece.value, length)
          length += piece.value.length
        }
        checksum = foldBare(buffer, length, checksum)
      }
      return checksum
    })
  return { run, cleanup: end }
}

export const httpRows: readonly BenchRow[] = [
  {
    name: 'http/sequential',
    what: 'a file of 64 MiB on a server on loopback, opened and read in order, 8 MiB a read',
    against: 'one fetch of it, its body read as a stream',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: { ratio: 1.2, better: 'lower' },
    ours: rangeReads,
    theirs: plainFetch
  },
  {
    name: 'http/sequential-bare',
    what: 'http/sequential once more',
    against: 'bare fetches of the same ranges, copied into one buffer and not checked',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: undefined,
    ours: rangeReads,
    theirs: bareRanges
  }
]
