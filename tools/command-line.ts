/**
 * What the random testers' command lines share: numbers that are checked, and a line of progress that is written over.
 */
import { type Command, InvalidArgumentError } from 'commander'

const EVERY_MS = 200
/** In a log each line stays. */
const EVERY_MS_IN_LOG = 60_000

export function whole(min: number): (text: string) => number {
  return text => {
    const n = Number(text)
    if (!Number.isSafeInteger(n) || n < min) throw new InvalidArgumentError(`must be a whole number from ${min}`)
    return n
  }
}

export function positive(text: string): number {
  const n = Number(text)
  if (!(n > 0)) throw new InvalidArgumentError('must be a number above 0')
  return n
}

/**
 * Parses the arguments of the process. → the exit code to end with at once, for a request of help or a bad command
 * line.
 */
export function parsed(command: Command): number | undefined {
  try {
    command.exitOverride().parse()
    return undefined
  } catch (error) {
    return (error as { exitCode?: number }).exitCode === 0 ? 0 : 2
  }
}

let last = 0

/** Shows a line, unless the last one is too young; `line` is made only then. */
export function progress(line: () => string): void {
  const now = performance.now()
  const isTerminal = process.stderr.isTTY
  if (now - last < (isTerminal ? EVERY_MS : EVERY_MS_IN_LOG)) return
  // A log is told what there is after a while, not that it begins.
  if (last > 0 || isTerminal) process.stderr.write(isTerminal ? `\r${line()} ` : `${line()}\n`)
  last = now
}

export function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
}
