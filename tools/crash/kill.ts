/**
 * kill -9: a process that stores through mappings of a real file is ended at a random moment, and the file compared
 * with what it had acknowledged.
 *
 * The parent retraces the program on memory, up to the sync after the last one it was told of: the process may have
 * come that far. What a killed process wrote is in the system's cache, so this shows that a sync writes all that it
 * acknowledges and that nothing half-done reaches the file; power.ts shows what the flush is for.
 *
 * A process that ends by itself leaves all that it stored in the file, synced or not, whether it closed its memory or
 * not.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { memoryStore } from '../../src/stores/memory.ts'
import { Executor, type Medium } from './executor.ts'
import { KILL_OPS, killProgram } from './kill-program.ts'
import { pattern, Source } from './program.ts'
import { staysOpen } from './stays-open.ts'

/** Syncs after which the process is killed at the latest. */
const MAX_SYNCS = 120

export interface KillResult {
  /** Syncs that the process told of before it died. */
  readonly nrSyncs: number
  readonly violation: string | undefined
}

/** Runs the process at `script` (child.ts, as JavaScript) with a seed, kills it, and checks the file. */
export async function killOnce(script: string, seed: number): Promise<KillResult> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-kill-'))
  try {
    const file = path.join(directory, 'file')
    const { initialBytes } = killProgram(seed).config
    fs.writeFileSync(file, pattern(0, initialBytes))
    const chance = new Source(seed * 2 + 1)
    const nrSyncs = await runAndKill(script, seed, file, chance.below(MAX_SYNCS), chance.below(3000))
    if (typeof nrSyncs === 'string') return { nrSyncs: 0, violation: nrSyncs }
    const violation = retrace(seed, nrSyncs, fs.readFileSync(file))
    return { nrSyncs, violation: violation === undefined ? undefined : `killed after sync ${nrSyncs}, ${violation}` }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** → the last sync that the process told of, or what it died of instead. Killed `delayUs` after sync `killAt`. */
function runAndKill(
  script: string,
  seed: number,
  file: string,
  killAt: number,
  delayUs: number
): Promise<number | string> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, [script, String(seed), file], { stdio: ['ignore', 'pipe', 'pipe'] })
    let told = ''
    let errors = ''
    let killed = false
    child.stdout.on('data', (data: Buffer) => {
      told += data.toString('latin1')
      if (killed || lastLine(told) < killAt) return
      killed = true
      const start = performance.now()
      while ((performance.now() - start) * 1000 < delayUs);
      child.kill('SIGKILL')
    })
    child.stderr.on('data', (data: Buffer) => {
      errors += data.toString()
    })
    child.on('error', error => resolve(`the process cannot be started: ${error.message}`))
    child.on('close', (code, signal) => {
      resolve(signal === 'SIGKILL' ? lastLine(told) : `the process ended with ${signal ?? code}: ${errors}`)
    })
  })
}

/** The number on the last whole line; -1 before the first. */
function lastLine(told: string): number {
  const lines = told.slice(0, told.lastIndexOf('\n') + 1).split('\n')
  return lines.length < 2 ? -1 : Number(lines[lines.length - 2])
}

/** How a process ends that closes nothing. */
const ENDS = ['end', 'exit', 'throw', 'collect'] as const

/** Runs the process for some operations, and compares the file that it leaves. → what is wrong. */
export function endOnce(script: string, seed: number): string | undefined {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-end-'))
  try {
    const file = path.join(directory, 'file')
    const { config, operation } = killProgram(seed)
    fs.writeFileSync(file, pattern(0, config.initialBytes))
    const chance = new Source(seed * 2 + 1)
    const operations = chance.below(400)
    const how = chance.pick(ENDS)
    const args = ['--expose-gc', script, String(seed), file, String(operations), how]
    const { status, signal, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    const isRight = how === 'throw' ? status === 1 : status === 0 && stderr === ''
    if (!isRight) return `the process ended with ${signal ?? status}: ${stderr}`
    const { executor } = onMemory(seed)
    for (let i = 0; i < operations; i++) executor.step(operation(i))
    const { model } = executor
    const wanted = model.bytes.subarray(0, model.size)
    if (Buffer.compare(wanted, fs.readFileSync(file)) === 0) return undefined
    return `${how} after ${operations} operations: the file does not have what the process stored`
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** What is wrong with a file left by a process that told of `nrSyncs` syncs. */
function retrace(seed: number, nrSyncs: number, found: Uint8Array): string | undefined {
  const { operation } = killProgram(seed)
  const { executor, syncs } = onMemory(seed)
  // Eras are numbered as syncs: the one that the process was in ends with the next sync.
  for (let i = 0; i < KILL_OPS && syncs() <= nrSyncs; i++) executor.step(operation(i))
  return executor.model.check(found, nrSyncs)
}

/** The program of a seed on a store in memory, and how many syncs it has acknowledged. */
function onMemory(seed: number): { executor: Executor; syncs: () => number } {
  const { config } = killProgram(seed)
  const store = memoryStore({ contents: pattern(0, config.initialBytes) })
  let syncs = 0
  const medium: Medium = {
    open: () => staysOpen(store, config.punch),
    position: () => syncs + 1,
    contents: () => {
      const bytes = new Uint8Array(store.size())
      store.read(0, bytes, 0, bytes.length)
      return bytes
    },
    acknowledged: n => {
      syncs = n
    }
  }
  return { executor: new Executor(config, medium), syncs: () => syncs }
}
