/** Ends before the end: readers that go away, Ctrl-C, and disks that fill up leave nothing half made. */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, truncateSync } from 'node:fs'
import { expect, test } from 'vitest'
import { at, CLI, folder, makeFile, sampleBytes, start, until, useBuiltCli } from './support.ts'

useBuiltCli()

/** A file that takes long to read and no disk. */
function makeLongFile(name: string): void {
  makeFile(name, 0)
  truncateSync(at(name), 2 ** 35)
}

test('a reader that has enough ends it quietly', async () => {
  makeLongFile('file')
  const { child, ended } = start(['cat', 'file', '--stats'])
  child.stdout?.once('data', () => child.stdout?.destroy())
  const { code, stderr } = await ended
  expect([code, stderr]).toEqual([0, ''])
})

test.each(['SIGINT', 'SIGTERM'] as const)('%s in the middle of cat --out removes the beginning', async signal => {
  makeLongFile('file')
  const old = makeFile('out', 100, 2)
  const { child, ended } = start(['cat', 'file', '--order', 'reverse', '--out', 'out'])
  await until(() => readdirSync(folder).find(name => name.startsWith('.out.')))
  child.kill(signal)
  expect((await ended).signal).toBe(signal)
  expect(readdirSync(folder).sort()).toEqual(['file', 'out'])
  expect(readFileSync(at('out')).equals(old)).toBe(true)
})

test('SIGINT while write waits for more removes the file that it made', async () => {
  const { child, ended } = start(['write', 'new', '--size', '1MiB'])
  child.stdin?.write(sampleBytes(5000))
  await until(() => existsSync(at('new')) || undefined)
  child.kill('SIGINT')
  expect((await ended).signal).toBe('SIGINT')
  expect(readdirSync(folder)).toEqual([])
})

test('SIGINT in the middle of the demonstration removes its folder', async () => {
  mkdirSync(at('tmp'))
  const { child, ended } = start(['demo', '--size', '64MiB', '-m', '1MiB'], { env: { TMPDIR: at('tmp') } })
  await until(() => readdirSync(at('tmp'))[0])
  child.stdout?.on('data', (chunk: Buffer) => {
    if (chunk.includes('shuffled')) child.kill('SIGINT')
  })
  expect((await ended).signal).toBe('SIGINT')
  expect(readdirSync(at('tmp'))).toEqual([])
})

test('an output that cannot take more is an I/O error, told in one line', async () => {
  if (!existsSync('/dev/full')) return
  makeFile('file', 10_000)
  const { ended } = start(['cat', 'file', '--out', '/dev/full'])
  const { code, stderr } = await ended
  expect(code).toBe(1)
  expect(stderr).toBe('fremap: /dev/full: no space left on the device\n')
})

test
  .skipIf(!existsSync('/dev/full'))
  .each([
    'cat file',
    'check file',
    'cat file -o out --stats',
    'write file --stats',
    'demo --size 64KiB -m 64KiB',
    '--help',
    'cat --help',
    '--version'
  ])('a full standard output is told in one line: %s', async command => {
  makeFile('file', 100_000)
  const stdout = openSync('/dev/full', 'w')
  const { child, ended } = start(command.split(' '), { stdout })
  closeSync(stdout)
  child.stdin?.end()
  const { code, stderr } = await ended
  expect([code, stderr]).toEqual([1, 'fremap: standard output: no space left on the device\n'])
})

test('so is one that takes a part of the bytes, and then no more', async () => {
  makeFile('file', 100_000)
  const command = `ulimit -f 64; "${process.execPath}" "${CLI}" cat file > out`
  const { status, stderr } = spawnSync('sh', ['-c', command], { cwd: folder, encoding: 'utf8' })
  expect([status, stderr]).toEqual([1, 'fremap: standard output: the file would be too large\n'])
})

test('a file that loses its end meanwhile is a fault, told in one line, and leaves no output', async () => {
  makeLongFile('file')
  const { ended } = start(['cat', 'file', '--order', 'reverse', '--out', 'out'])
  await until(() => readdirSync(folder).find(name => name.startsWith('.out.')))
  truncateSync(at('file'), 0)
  const { code, stderr } = await ended
  expect(code).toBe(1)
  expect(stderr).toMatch(/^fremap: [^\n]+\n$/)
  expect(readdirSync(folder)).toEqual(['file'])
})
