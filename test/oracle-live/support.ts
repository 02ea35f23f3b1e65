/** The running Linux for tests: in the test's own process, or why there is none. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Answer, Executor } from '../../tools/oracle-live/executor.ts'
import { type LiveKernel, openKernel } from '../../tools/oracle-live/kernel.ts'
import { runProgram, type Step } from '../../tools/oracle-live/kernel-ops.ts'

export const folder: string = mkdtempSync(join(tmpdir(), 'fremap-live-'))
const opened = await openKernel(folder)

/** '' or why the running kernel cannot be called. */
export const unavailable: string = 'reason' in opened ? opened.reason : ''

/** What to put behind a test's name, so that a skipped one says why. */
export const because: string = unavailable === '' ? '' : ` (SKIPPED: ${unavailable})`

export function kernel(): LiveKernel {
  if ('reason' in opened) throw new Error(opened.reason)
  return opened
}

export function close(): void {
  if (!('reason' in opened)) opened.dispose()
  rmSync(folder, { recursive: true, force: true })
}

export class LocalExecutor implements Executor {
  nrRuns = 0

  async run(program: readonly Step[]): Promise<Answer> {
    this.nrRuns++
    return runProgram(kernel(), program)
  }

  dispose(): void {}
}
