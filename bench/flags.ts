/** What the commands of the benchmark have in common: reading flags, finding the project, a line of progress. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { InvalidArgumentError } from 'commander'

/** The folder with package.json: this file runs from `bench/` or, compiled, from `build/bench/`. */
export function projectRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory)
    if (parent === directory) throw new Error('no package.json above the benchmark')
    directory = parent
  }
  return directory
}

export function parseRounds(text: string): number {
  const rounds = /^\d+$/.test(text) ? Number(text) : 0
  if (rounds < 1 || rounds > 1000) throw new InvalidArgumentError('A whole number from 1 to 1000, please.')
  return rounds
}

export function parseFilter(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

/** A line on the terminal that is rewritten; nothing where stderr is not one. */
export function showProgress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

export function showRound(row: string, round: number, rounds: number): void {
  showProgress(`${row} ${round === 0 ? 'warming up' : `${round}/${rounds}`}`)
}

export function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
}
