/** The commands, their flags and their help. What they do is in the file of each one's name. */
import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { parseSize } from '../src/index.ts'
import { type CatOptions, cat } from './cat.ts'
import { type CheckOptions, check } from './check.ts'
import { type DemoOptions, demo } from './demo.ts'
import { UsageError } from './failure.ts'
import { type OrderSpec, parseOrder } from './order.ts'
import { print } from './output.ts'
import { type WriteOptions, write } from './write.ts'

const ORDERS = `
Orders (which file page each page of the window shows):
  linear            the file as it is
  reverse           the last page first
  stride:N          every Nth page, then every Nth from page 1 on, and so forth
  shuffle[:SEED]    a permutation of all pages; the same seed, the same permutation
  @PLAN             a file of lines "window-page file-page count", with # comments;
                    a later line wins, pages on no line stay linear`

const EXIT_CODES = `
Exit codes: 0 done, 1 failed (I/O, verification), 2 wrong use (flags, sizes, plans, files that cannot be used).`

const SIZES = `
Sizes are bytes or have a unit: 65536, 64KiB, 1.5GiB.`

/** The program. Parsing it runs the command; errors come as exceptions. */
export function makeProgram(): Command {
  const program = new Command('fremap')
    .description('Shows the pages of files through a window, in any order, in little memory.')
    .usage('[command] [options]')
    .version(version())
    .exitOverride()
    .configureOutput({ writeOut: print, outputError: () => {} })
    .addHelpText('after', `\nWithout a command: demo.\n${EXIT_CODES}`)
  addCat(program)
  addWrite(program)
  addCheck(program)
  addDemo(program)
  return program
}

function addCat(program: Command): void {
  withWindowOptions(
    program
      .command('cat')
      .summary('print the pages of a file in an order')
      .description(
        'Prints the window over FILE: its pages in window order, the last page of the file as long as it is there.'
      )
      .argument('<file>', 'the file to show')
  )
    .option('-o, --out <file>', 'write to a file, which appears when it is complete, not to the standard output')
    .option('--verify', 'compare each page with a direct read of the file')
    .option('--stats', 'report what happened: faults, evictions, reads, time, memory')
    .option('--smaps', 'show the mapping as /proc/PID/smaps would, when all is read')
    .addHelpText(
      'after',
      `${ORDERS}\n${SIZES}\n\nReports go to the standard error, or with --out to the standard output.`
    )
    .action((file: string, options: CatOptions) => cat(file, options))
}

function addWrite(program: Command): void {
  withWindowOptions(
    program
      .command('write')
      .summary('put the standard input into the pages of a file, in an order')
      .description(
        'Writes the standard input through the window over FILE and syncs: the inverse of cat with the same order.\n\n' +
          'FILE keeps its size and is changed in place: after an error it may have some of the changes. Input shorter ' +
          'than the window changes only as many bytes. Longer input is refused before anything is written if it is a ' +
          'regular file; from a pipe, it fills the window and then fails.'
      )
      .argument('<file>', 'the file to change')
  )
    .option('--size <size>', 'make the file, with this size; it must not exist', size)
    .option('--verify', 'then compare each page with what was written, by direct reads')
    .option('--stats', 'report what happened: faults, evictions, writes, time, memory')
    .option('--smaps', 'show the mapping as /proc/PID/smaps would, when all is written')
    .addHelpText('after', `${ORDERS}\n${SIZES}`)
    .action((file: string, options: WriteOptions) => write(file, options))
}

function addCheck(program: Command): void {
  withWindowOptions(
    program
      .command('check')
      .summary('remap a whole file and verify every page')
      .description(
        'Remaps FILE, touches every page, then compares every page with direct reads. Reports the time for a page, faults, ' +
          'evictions, and whether the process stayed within the memory given (and 32 MiB for Node itself).'
      )
      .argument('<file>', 'the file to check; it is only read')
  )
    .option('--smaps', 'show the mapping as /proc/PID/smaps would, when all is read')
    .addHelpText('after', `${ORDERS}\n${SIZES}`)
    .action((file: string, options: CheckOptions) => check(file, options))
}

function addDemo(program: Command): void {
  program
    .command('demo')
    .summary('do everything once, on a sample file of its own')
    .description(
      'Makes a sample file in the temporary folder, shows it shuffled, reads it all, rewrites a part through the ' +
        'window, syncs, verifies every page by direct reads, reports, and removes the file.'
    )
    .addOption(sizeOption('--size <size>', 'the size of the sample', '256MiB'))
    .addOption(sizeOption('-m, --memory <size>', 'the memory to use', '16MiB'))
    .option('--seed <number>', 'the seed of the shuffle', seed, 1)
    .addHelpText('after', SIZES)
    .action((options: DemoOptions) => demo(options))
}

function withWindowOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--order <order>', 'the order of the pages')
        .argParser(order)
        .default({ kind: 'linear' } satisfies OrderSpec, 'linear')
    )
    .addOption(sizeOption('-m, --memory <size>', 'the memory to use', '64MiB'))
    .addOption(sizeOption('-p, --page-size <size>', '512 to 64KiB, a power of two', '4KiB'))
    .option(
      '-w, --window <size>',
      'the size of the window; a larger order is shown in turns (default: all of it, if its page tables fit)',
      windowSize
    )
}

function sizeOption(flags: string, description: string, byDefault: string): Option {
  return new Option(flags, description).argParser(size).default(parseSize(byDefault), byDefault)
}

function size(text: string): number {
  try {
    return parseSize(text)
  } catch (error) {
    throw new InvalidArgumentError((error as RangeError).message)
  }
}

function windowSize(text: string): number {
  const bytes = size(text)
  if (bytes > 0) return bytes
  throw new InvalidArgumentError('a window of no bytes shows nothing')
}

function seed(text: string): number {
  const n = /^[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (n <= 0xffffffff) return n
  throw new InvalidArgumentError('a seed is a whole number from 0 to 4294967295')
}

function order(text: string): OrderSpec {
  return parseOrder(text)
}

/** Of the package that this file is shipped in. */
function version(): string {
  const path = new URL('../package.json', import.meta.url)
  try {
    return String((JSON.parse(readFileSync(path, 'utf8')) as { version?: unknown }).version)
  } catch {
    throw new UsageError('the package.json beside dist/ cannot be read')
  }
}
