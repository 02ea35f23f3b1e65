/**
 * The command line as users get it: `dist/cli.js` as a process of its own, on real files in a folder that is removed.
 *
 * `useBuiltCli` builds first if need be (test/support/built.ts).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach } from 'vitest'
import { ensureBuilt, ROOT } from '../support/built.ts'
import { LIMIT_MS } from '../support/suite.ts'

/** The program. */
export const CLI: string = join(ROOT, 'dist/cli.js')

export const PAGE = 4096

export interface Result {
  /** null when a signal ended the process. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: Buffer
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: Uint8Array | string
  /** A descriptor to take the input from instead. */
  readonly stdin?: number
  /** One to write the output to. */
  readonly stdout?: number
  readonly env?: NodeJS.ProcessEnv
}

/** A new folder for each test, as the working folder of its commands. */
export let folder = ''

export function useBuiltCli(): void {
  beforeAll(ensureBuilt)
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fremap-test-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true })
  })
}

/** Starts a command. Its end is in `ended`. */
export function start(
  args: readonly string[],
  options: RunOptions = {}
): { child: ChildProcess; ended: Promise<Result> } {
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: folder,
    env: { ...process.env, NO_COLOR: '1', ...options.env },
    stdio: [options.stdin ?? 'pipe', options.stdout ?? 'pipe', 'pipe']
  })
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk))
  const ended = new Promise<Result>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() })
    })
  })
  return { child, ended }
}

/** Runs a command to its end. Without input it gets none. */
export async function fremap(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { child, ended } = start(args, options)
  // A command that refuses its input closes it early.
  child.stdin?.on('error', () => {})
  child.stdin?.end(options.input)
  return ended
}

/** The same as text, for commands that must succeed. */
export async function fremapText(args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await fremap(args, options)
  if (code !== 0) throw new Error(`fremap ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stdout.toString()
}

/** Bytes of which no two pages are alike. */
export function sampleBytes(length: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4))
  let x = Math.imul(seed, 0x9e3779b1) | 1
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = x
  }
  return Buffer.from(words.buffer, 0, length)
}

/** Makes a file in the test's folder. → its bytes. */
export function makeFile(name: string, length: number, seed = 1): Buffer {
  const bytes = sampleBytes(length, seed)
  writeFileSync(join(folder, name), bytes)
  return bytes
}

export function at(name: string): string {
  return join(folder, name)
}

/** The pages of a file, the last one as long as it is. */
export function pagesOf(bytes: Buffer, pageSize: number = PAGE): Buffer[] {
  const pages: Buffer[] = []
  for (let i = 0; i < bytes.length; i += pageSize) pages.push(bytes.subarray(i, i + pageSize))
  return pages
}

/** Waits until `found` gives something. */
export async function until<T>(found: () => T | undefined, limitMs: number = LIMIT_MS): Promise<T> {
  const end = Date.now() + limitMs
  for (;;) {
    const value = found()
    if (value !== undefined) return value
    if (Date.now() > end) throw new Error('it did not happen in time')
    await sleep(5)
  }
}
