/**
 * Where programs run on the real kernel: a child process, so that what kills it is a result and not the end.
 *
 * A child takes a batch of programs and is then replaced. An answer is the results, in order, or why there are none:
 * the program crashed the child, hung, or was no program.
 */
import { type ChildProcess, fork } from 'node:child_process'
import type { Result } from '../oracle/trace.ts'
import type { Step } from './kernel-ops.ts'

export type Answer = readonly Result[] | string

export interface Executor {
  run(program: readonly Step[]): Promise<Answer>
  dispose(): void
}

/** What a child says first: that it can work, or why not. */
export interface Hello {
  readonly unavailable?: string
}

const BATCH = 50
const TIMEOUT_MS = 20_000

export class ChildExecutor implements Executor {
  readonly #script: string
  readonly #folder: string
  #child: ChildProcess | undefined
  #nrRun = 0

  /** `script` is child.ts as JavaScript; files of kind disk are made in `folder`. */
  constructor(script: string, folder: string) {
    this.#script = script
    this.#folder = folder
  }

  /** Whether the kernel can be called at all: '' or why not. */
  async available(): Promise<string> {
    const hello = await this.#start()
    return typeof hello === 'string' ? hello : ''
  }

  async run(program: readonly Step[]): Promise<Answer> {
    if (this.#nrRun === BATCH) this.dispose()
    if (this.#child === undefined) {
      const failed = await this.#start()
      if (typeof failed === 'string') return failed
    }
    this.#nrRun++
    const answer = await this.#ask(child => child.send(program))
    if (typeof answer === 'string') this.dispose()
    return answer as Answer
  }

  dispose(): void {
    this.#child?.removeAllListeners()
    this.#child?.kill('SIGKILL')
    this.#child = undefined
    this.#nrRun = 0
  }

  async #start(): Promise<unknown> {
    this.dispose()
    this.#child = fork(this.#script, [this.#folder], { execArgv: [] })
    const hello = await this.#ask(() => {})
    const reason = typeof hello === 'string' ? hello : (hello as Hello).unavailable
    if (reason !== undefined) this.dispose()
    return reason
  }

  /** → the child's next message, or what became of it. */
  #ask(send: (child: ChildProcess) => void): Promise<unknown> {
    const child = this.#child as ChildProcess
    return new Promise(resolve => {
      const end = (answer: unknown): void => {
        clearTimeout(timer)
        child.removeAllListeners()
        resolve(answer)
      }
      const timer = setTimeout(() => end(`the kernel did not answer in ${TIMEOUT_MS / 1000} s`), TIMEOUT_MS)
      child.once('message', end)
      child.once('error', error => end(`the child failed: ${error.message}`))
      child.once('exit', (code, signal) => end(`the child ended with ${signal ?? `code ${code}`}`))
      send(child)
    })
  }
}

/** Another executor, with a lie: the first result of `op` is not the kernel's. To see that lies are found. */
export class LyingExecutor implements Executor {
  readonly #honest: Executor
  readonly #op: string

  constructor(honest: Executor, op: string) {
    this.#honest = honest
    this.#op = op
  }

  async run(program: readonly Step[]): Promise<Answer> {
    const answer = await this.#honest.run(program)
    if (typeof answer === 'string') return answer
    const at = program.findIndex(({ op }) => op === this.#op)
    return answer.map((result, i) => (i === at ? { errno: 'ELIE' } : result))
  }

  dispose(): void {
    this.#honest.dispose()
  }
}
