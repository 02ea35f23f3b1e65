/** `fremap write`: the inverse of `cat`, and what happens with inputs of every length. */
import { closeSync, existsSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { at, fremap, fremapText, makeFile, PAGE, pagesOf, sampleBytes, useBuiltCli } from './support.ts'

useBuiltCli()

test.each(['linear', 'reverse', 'shuffle:5', 'stride:9'])(
  'what cat printed in %s order, write puts back',
  async order => {
    const bytes = makeFile('file', 500 * PAGE + 99)
    const { stdout } = await fremap(['cat', 'file', '--order', order])
    makeFile('copy', bytes.length, 2)
    const args = ['write', 'copy', '--order', order, '-m', '128KiB', '--verify']
    const { code, stdout: text, stderr } = await fremap(args, { input: stdout })
    expect([code, text.toString(), stderr]).toEqual([0, '', ''])
    expect(readFileSync(at('copy')).equals(bytes)).toBe(true)
  }
)

test('in turns of a small window', async () => {
  const bytes = makeFile('file', 100 * PAGE + 5)
  const input = (await fremap(['cat', 'file', '--order', 'shuffle'])).stdout
  makeFile('copy', bytes.length, 2)
  await fremapText(['write', 'copy', '--order', 'shuffle', '-w', '12KiB', '-m', '64KiB', '--verify'], { input })
  expect(readFileSync(at('copy')).equals(bytes)).toBe(true)
})

test('--size makes a file of that size', async () => {
  const input = sampleBytes(3 * PAGE)
  await fremapText(['write', 'new', '--size', '20KiB', '--order', 'reverse', '--verify'], { input })
  const expected = Buffer.concat([Buffer.alloc(2 * PAGE), ...pagesOf(input).reverse()])
  expect(readFileSync(at('new')).equals(expected)).toBe(true)
})

test('--size is refused for a file that exists, and without it the file must exist', async () => {
  const before = makeFile('file', 100)
  const exists = await fremap(['write', 'file', '--size', '1KiB'], { input: 'x' })
  expect([exists.code, exists.stderr]).toEqual([
    2,
    'fremap: file: it exists already; --size is for a file to be made\n'
  ])
  expect(readFileSync(at('file')).equals(before)).toBe(true)
  const missing = await fremap(['write', 'none'], { input: 'x' })
  expect([missing.code, missing.stderr]).toEqual([2, 'fremap: none: no such file; --size makes one\n'])
  expect(existsSync(at('none'))).toBe(false)
})

test('a shorter input changes as many bytes and no more', async () => {
  const before = Buffer.from(makeFile('file', 4 * PAGE + 10))
  const text = await fremapText(['write', 'file', '--order', 'reverse', '--verify', '--stats', '--smaps'], {
    input: 'hello, pages'
  })
  before.write('hello, pag', 4 * PAGE)
  before.write('es', 3 * PAGE)
  expect(readFileSync(at('file')).equals(before)).toBe(true)
  expect(text).toMatch(/^ {2}written +2 pages/m)
  expect(text).toMatch(/^VmFlags: rd wr sh .*nl/m)
})

test('no input changes nothing', async () => {
  const before = makeFile('file', 4 * PAGE)
  await fremapText(['write', 'file', '--verify'], { input: '' })
  expect(readFileSync(at('file')).equals(before)).toBe(true)
})

test('a longer input from a pipe fills the window, then fails', async () => {
  makeFile('file', 2 * PAGE + 1)
  const input = sampleBytes(2 * PAGE + 2, 3)
  const { code, stderr } = await fremap(['write', 'file'], { input })
  expect(code).toBe(1)
  expect(stderr).toBe(
    'fremap: the input has more bytes than the 8,193 bytes of the window over file; what fits is written\n'
  )
  expect(readFileSync(at('file')).equals(input.subarray(0, 2 * PAGE + 1))).toBe(true)
})

test('a longer file as input is refused before anything is written; what was read of it before does not count', async () => {
  const before = makeFile('file', PAGE)
  const input = makeFile('input', PAGE + 10, 2)
  const stdin = openSync(at('input'), 'r')
  const refused = await fremap(['write', 'file'], { stdin })
  expect(refused.code).toBe(2)
  expect(refused.stderr).toMatch(
    /^fremap: the input has 4,106 bytes, more than the 4,096 bytes of the window over file\n$/
  )
  expect(readFileSync(at('file')).equals(before)).toBe(true)
  readSync(stdin, Buffer.alloc(10))
  await fremapText(['write', 'file'], { stdin })
  closeSync(stdin)
  expect(readFileSync(at('file')).equals(input.subarray(10))).toBe(true)
})

test('a file made by a command that then fails is removed', async () => {
  const { code } = await fremap(['write', 'new', '--size', '100'], { input: sampleBytes(101) })
  expect(code).toBe(1)
  expect(existsSync(at('new'))).toBe(false)
  writeFileSync(at('plan'), '0 99\n')
  expect((await fremap(['write', 'new', '--size', '100', '--order', '@plan'], { input: 'x' })).code).toBe(2)
  expect(existsSync(at('new'))).toBe(false)
})

test('a plan that shows a file page twice: the later window page wins, and verifies', async () => {
  makeFile('file', 4 * PAGE)
  writeFileSync(at('plan'), '0 1\n1 3\n2 1\n')
  const input = sampleBytes(3 * PAGE, 7)
  await fremapText(['write', 'file', '--order', '@plan', '--verify'], { input })
  const pages = pagesOf(readFileSync(at('file')))
  expect(pages[1].equals(input.subarray(2 * PAGE))).toBe(true)
  expect(pages[3].equals(input.subarray(PAGE, 2 * PAGE))).toBe(true)
})

test('the file itself, or a folder, is no input', async () => {
  const before = makeFile('file', PAGE)
  const stdin = openSync(at('file'), 'r')
  const { code, stderr } = await fremap(['write', 'file'], { stdin })
  closeSync(stdin)
  expect([code, stderr]).toEqual([2, 'fremap: file: it is the input as well\n'])
  expect(readFileSync(at('file')).equals(before)).toBe(true)
  const dir = openSync(at('.'), 'r')
  const fromFolder = await fremap(['write', 'file'], { stdin: dir })
  closeSync(dir)
  expect([fromFolder.code, fromFolder.stderr]).toEqual([2, 'fremap: the input is a directory\n'])
})
