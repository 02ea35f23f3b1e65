/**
 * Wrong use: one line on stderr that says what is wrong, exit code 2, nothing written. And help, which is right use.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { at, CLI, folder, fremap, fremapText, makeFile, PAGE, useBuiltCli } from './support.ts'

useBuiltCli()

const wrongUses: readonly (readonly [string, RegExp])[] = [
  ['nonsense', /unknown command 'nonsense'/],
  ['--nonsense', /unknown option '--nonsense'/],
  ['cat', /missing required argument 'file'/],
  ['cat file more', /too many arguments/],
  ['cat file --ordr linear', /unknown option '--ordr' \(Did you mean --order\?\)/],
  ['cat file --order', /argument missing/],
  ['cat file --order sideways', /the order 'sideways' is unknown: it is linear, reverse, shuffle/],
  ['cat file --order shuffle:x', /needs a whole number from 0 to 4294967295/],
  ['cat file --order @none', /none: no such file or directory/],
  ['cat file --order @folder', /folder: is a directory/],
  ['cat file --order @bad-plan', /bad-plan:2: "1 two 3" is not 'window-page file-page count'/],
  ['cat file --order @far-plan', /far-plan:1: file page 10 is beyond the end of file, which has 10 pages/],
  ['cat file --memory lots', /--memory <size>' argument 'lots' is invalid. "lots" is not a size/],
  ['cat file --memory 1KiB', /a memory of 1024 bytes cannot be/],
  ['cat file --memory 9000GiB', /a memory of 9663676416000 bytes cannot be/],
  ['cat file --page-size 1000', /a page of 1000 bytes cannot be; it is a power of two/],
  ['cat file --window 0', /a window of no bytes shows nothing/],
  ['cat none\u001b[31m', /fremap: none\\u001b\[31m: no such file or directory/],
  ['cat ', /fremap: '': no such file or directory/],
  ['cat none', /none: no such file or directory/],
  ['cat folder', /folder: is a directory/],
  ['cat file/below', /file\/below: a part of the path is not a directory/],
  ['cat /dev/null', /\/dev\/null: is a device, not a regular file/],
  ['cat file --out folder', /folder: is a directory/],
  ['cat file --out none/out', /none\/out: no such file or directory/],
  ['cat file --out none/../out', /none\/\.\.\/out: no such file or directory/],
  ['cat file --out out/', /out\/: is the name of a directory/],
  ['cat file --out loop', /loop: too many symbolic links/],
  ['cat file --out=', /the output has an empty name/],
  [
    'cat big --order shuffle --page-size 512',
    /big: larger than 128 GiB, the most that can be remapped in pages of 512/
  ],
  ['check', /missing required argument 'file'/],
  ['check none', /none: no such file or directory/],
  ['check folder', /folder: is a directory/],
  ['write folder', /folder: is a directory/],
  ['write none/new --size 1', /none\/new: no such file or directory/],
  ['write new --size -1', /"-1" is not a size/],
  ['demo more', /too many arguments/],
  ['demo --size 0x10', /"0x10" is not a size/],
  ['demo --seed 1.5', /a seed is a whole number/]
]

test.each(wrongUses)('fremap %s', async (line, message) => {
  makeFile('file', 10 * PAGE)
  mkdirSync(at('folder'))
  symlinkSync('loop', at('loop'))
  writeFileSync(at('bad-plan'), '0 1 2\n1 two 3\n')
  writeFileSync(at('far-plan'), '0 9 2\n')
  writeFileSync(at('big'), '')
  truncateSync(at('big'), 2 ** 37)
  const before = readdirSync(folder)
  const { code, stdout, stderr } = await fremap(line.split(' '), { input: 'some input' })
  expect(stderr).toMatch(message)
  expect(stderr).toMatch(/^fremap: [^\n]+\n$/)
  expect(stdout.length).toBe(0)
  expect(code).toBe(2)
  expect(readdirSync(folder)).toEqual(before)
})

test.skipIf(process.platform !== 'linux').each([
  ['/proc/cpuinfo', 'says that it has 0 bytes and has more'],
  ['/sys/devices/system/cpu/online', 'says that it has 4096 bytes and has fewer']
])('a file that does not have the size it says is refused: %s', async (path, what) => {
  for (const command of ['cat', 'check']) {
    const { code, stdout, stderr } = await fremap([command, path])
    expect(stderr).toMatch(new RegExp(`^fremap: ${path}: ${what}, [^\n]+\n$`))
    expect([code, stdout.length]).toEqual([2, 0])
  }
})

test.skipIf(process.platform === 'win32').each([
  ['true', '/dev/zero', '/dev/zero:1: the line has more than 10000 characters: this is no plan'],
  ['true', '/dev/urandom', '/dev/urandom:1: is not text, so no plan'],
  ["yes '0 0'", '/dev/stdin', '/dev/stdin: the plan has more than 4194304 lines, if it ends']
])(
  'a plan that does not end: %s | fremap cat file --order @%s',
  (feed, path, message) => {
    makeFile('file', PAGE)
    const command = `${feed} | "${process.execPath}" "${CLI}" cat file --order @${path}`
    const { status, stderr } = spawnSync('sh', ['-c', command], { cwd: folder, encoding: 'utf8' })
    expect([status, stderr]).toEqual([2, `fremap: ${message}\n`])
  },
  120_000
)

test.skipIf(process.getuid?.() === 0)('files that may not be read or written', async () => {
  makeFile('file', PAGE)
  chmodSync(at('file'), 0)
  const { code, stderr } = await fremap(['cat', 'file'])
  expect([code, stderr]).toEqual([2, 'fremap: file: permission denied\n'])
})

test.each(['', 'cat', 'write', 'check', 'demo'])('fremap %s --help', async command => {
  const text = await fremapText([...command.split(' ').filter(Boolean), '--help'])
  expect(text).toMatch(command === '' ? /^Usage: fremap / : new RegExp(`^Usage: fremap ${command} `))
  if (['cat', 'write', 'check'].includes(command)) {
    for (const word of ['shuffle[:SEED]', 'stride:N', '@PLAN', '--memory', 'default: 64MiB', 'default: linear']) {
      expect(text).toContain(word)
    }
  }
  for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(120)
})

test('--version is that of the package', async () => {
  expect(await fremapText(['--version'])).toMatch(/^\d+\.\d+\.\d+\n$/)
})
