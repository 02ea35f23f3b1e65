/** The command line: reads the arguments, runs the command, turns what it throws into one line and an exit code. */
import { makeProgram } from './args.ts'
import { codeOf, describe, writeFailure } from './failure.ts'

async function main(words: readonly string[]): Promise<void> {
  // Both end quietly when their reader goes away; a command that writes to stdout also learns it from the write.
  process.stdout.on('error', error => {
    if (codeOf(error) !== 'EPIPE') fail(writeFailure('standard output', error))
  })
  // Where nothing can be told any more, the exit code still can.
  process.stderr.on('error', error => {
    if (codeOf(error) !== 'EPIPE') process.exitCode = 1
  })
  try {
    await makeProgram().parseAsync(words.length === 0 ? ['demo'] : words, { from: 'user' })
  } catch (error) {
    fail(error)
  }
}

let hasFailed = false

/** Says so in one line, for the first failure alone: what follows comes of it. */
function fail(error: unknown): void {
  if (hasFailed) return
  const { line, exitCode } = describe(error)
  hasFailed = exitCode !== 0
  if (line !== '') process.stderr.write(`fremap: ${line}\n`)
  process.exitCode = exitCode
}

await main(process.argv.slice(2))
