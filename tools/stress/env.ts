/**
 * What all threads of a stress round share: its configuration, the words by which the main thread starts and stops it,
 * and how a thread says what it did and what was wrong.
 */
import type {
  FileHandle,
  Machine,
  MappedFile,
  MappingHandle,
  Memory,
  MemoryHandle,
  ShadowHandle,
  SpaceHandle
} from '../../src/index.ts'
import { Prng } from '../fuzz/prng.ts'

/** `deaths` is lanes, of which one thread is ended in the middle. */
export type Scenario = 'lanes' | 'holes' | 'storm' | 'guests' | 'deaths'
export const SCENARIOS: readonly Scenario[] = ['lanes', 'holes', 'storm', 'guests', 'deaths']

/** Where the file's bytes are: a real file, a buffer that threads share, or nowhere (shared memory). */
export type Backing = 'file' | 'buffer' | 'memory'

export interface RoundConfig {
  readonly round: number
  readonly seed: number
  readonly scenario: Scenario
  readonly backing: Backing
  /** Threads that work; the main thread looks on, checks, and makes memory scarce. */
  readonly threads: number
  readonly frames: number
  readonly pageSize: number
  readonly pages: number
  readonly swapSlots: number
  readonly readaheadPages: number
  readonly faultAroundPages: number
  readonly sliceMs: number
  /** Whether stores sleep now and then. */
  readonly isSlow: boolean
}

/** What a worker gets to take part in a round. */
export interface RoundTask {
  readonly config: RoundConfig
  /** This thread's number, from 0. */
  readonly me: number
  readonly memory: MemoryHandle
  readonly file: FileHandle
  readonly space: SpaceHandle
  /** The whole file, in the space that all share. */
  readonly whole: MappingHandle
  /** Private memory in that space. */
  readonly own: MappingHandle
  /** For guests: a window that is changed under them, its shadow table, and where the TLBs lie, one a thread. */
  readonly guests: { readonly stage: MappingHandle; readonly table: ShadowHandle; readonly tlbAt: number } | undefined
  readonly buffers: Record<string, SharedArrayBuffer>
  readonly words: SharedArrayBuffer
}

/** What a thread did. */
export interface Report {
  readonly me: number
  operations: number
  /** Values that were compared with what they had to be. */
  checked: number
  /** Operations that there was no memory for. */
  outOfMemory: number
  /** The first things that were wrong. */
  readonly wrong: string[]
  /** What the thread stored last, for the check at the end. */
  model?: unknown
}

/** Words of the shared buffer. */
export const STOP = 0
/** Odd while pages are cut away (holes). */
export const CUTS = 1
/** Threads that have begun. */
export const READY = 2
/** From here on, four for each place (storm) or page (guests), or one for each page (holes). */
export const PLACES = 16
export const NR_WORDS = 4096

const MOST_WRONG = 5

export class Env {
  readonly config: RoundConfig
  readonly me: number
  readonly memory: Memory
  readonly machine: Machine
  readonly task: RoundTask
  readonly words: Int32Array
  readonly prng: Prng
  readonly report: Report

  constructor(task: RoundTask, memory: Memory) {
    this.config = task.config
    this.me = task.me
    this.task = task
    this.memory = memory
    this.machine = memory.machine
    this.words = new Int32Array(task.words)
    this.prng = new Prng(Math.imul(task.config.seed, 31) + task.me)
    this.report = { me: task.me, operations: 0, checked: 0, outOfMemory: 0, wrong: [] }
  }

  /** The round is over, or the memory is broken by the death of a thread. */
  get isOver(): boolean {
    return Atomics.load(this.words, STOP) !== 0 || this.isBroken
  }

  get isBroken(): boolean {
    return this.config.scenario === 'deaths' && this.machine.sync.broken !== 0
  }

  file(): MappedFile {
    return this.memory.adopt(this.task.file)
  }

  wrong(what: string): void {
    if (this.report.wrong.length < MOST_WRONG) this.report.wrong.push(`thread ${this.me}: ${what}`)
  }

  expect(seen: number, expected: number, what: () => string): void {
    this.report.checked++
    if (seen !== expected) this.wrong(`${what()} is ${seen} in place of ${expected}`)
  }

  /** Runs an operation. → whether it was done: false where there was no memory for it. Other errors are wrong. */
  attempt(what: string, run: () => void): boolean {
    this.report.operations++
    try {
      run()
      return true
    } catch (error) {
      if (isOutOfMemory(error)) this.report.outOfMemory++
      else if (!(this.isBroken && codeOf(error) === 'EOWNERDEAD')) this.wrong(`${what}: ${(error as Error).stack}`)
      return false
    }
  }
}

export function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code)
}

/** EAGAIN is what mlock says where not all pages fit. */
export function isOutOfMemory(error: unknown): boolean {
  return ['ENOMEM', 'EAGAIN', 'ENOSPC'].includes(codeOf(error))
}
