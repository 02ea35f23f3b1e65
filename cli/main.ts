/** The command line: reads the arguments, runs the command, turns what it throws into one line and an exit code. */
import { makeProgram } from './args.ts'
import { describe } from './failure.ts'

async function main(words: readonly string[]): Promise<void> {
  // Both end quietly when their reader goes away; a command that writes to stdout also learns it from the write.
  process.stdout.on('error', ignorePipe)
  process.stderr.on('error', ignorePipe)
  try {
    await makeProgram().parseAsync(words.length === 0 ? ['demo'] : words, { from: 'user' })
  } catch (error) {
    const { line, exitCode } = describe(error)
    if (line !== '') process.stderr.write(`fremap: ${line}\n`)
    process.exitCode = exitCode
  }
}

function ignorePipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

await main(process.argv.slice(2))
