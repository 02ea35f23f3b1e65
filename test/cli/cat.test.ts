/** `fremap cat`: every order, plans, windows in turns, page sizes, where the bytes and the reports go. */
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { expect, test } from 'vitest'
import { orderFor, parseOrder } from '../../cli/order.ts'
import { at, folder, fremap, fremapText, makeFile, PAGE, pagesOf, start, until, useBuiltCli } from './support.ts'

useBuiltCli()

/** The pages of `bytes` in an order. */
function ordered(bytes: Buffer, order: string, pageSize = PAGE): Buffer {
  const pages = pagesOf(bytes, pageSize)
  const { pages: nrPages, fill } = orderFor(parseOrder(order), pages.length, 'file')
  const shown = new Int32Array(nrPages)
  fill(0, shown)
  return Buffer.concat([...shown].map(page => pages[page]))
}

test.each(['linear', 'reverse', 'shuffle', 'shuffle:4000000000', 'stride:16', 'stride:7'])(
  '%s order, in a memory much smaller than the file',
  async order => {
    const bytes = makeFile('file', 700 * PAGE + 123)
    const { code, stdout, stderr } = await fremap(['cat', 'file', '--order', order, '--memory', '128KiB', '--verify'])
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout.equals(ordered(bytes, order))).toBe(true)
  }
)

test('linear is the default, and what cat prints', async () => {
  const bytes = makeFile('file', 100_001)
  expect((await fremap(['cat', 'file'])).stdout.equals(bytes)).toBe(true)
})

test.each(['512', '4KiB', '64KiB'])('pages of %s', async size => {
  const pageSize = size === '512' ? 512 : Number.parseInt(size, 10) * 1024
  const bytes = makeFile('file', 1_000_000)
  const { stdout } = await fremap(['cat', 'file', '--page-size', size, '--order', 'reverse', '--memory', '1MiB'])
  expect(stdout.equals(ordered(bytes, 'reverse', pageSize))).toBe(true)
})

test.each(['1', '64KiB', '1MiB', '1GiB'])('a window of %s shows the same in turns', async window => {
  const bytes = makeFile('file', 300 * PAGE + 1)
  const { stdout } = await fremap(['cat', 'file', '--order', 'shuffle:3', '--window', window, '-m', '256KiB'])
  expect(stdout.equals(ordered(bytes, 'shuffle:3'))).toBe(true)
})

test('the smallest memory that there is', async () => {
  const bytes = makeFile('file', 3000 * PAGE)
  const { stdout, stderr } = await fremap(['cat', 'file', '--order', 'shuffle', '-m', '33120', '--verify'])
  expect(stderr).toBe('')
  expect(stdout.equals(ordered(bytes, 'shuffle'))).toBe(true)
})

test('a plan: pages may be left out, come again, and be the cut last one in the middle', async () => {
  const bytes = makeFile('file', 10 * PAGE + 77)
  const pages = pagesOf(bytes)
  writeFileSync(at('plan'), '# window file count\n0 10 1\n1 2 3\n6 10\n5 2\n')
  const { code, stdout } = await fremap(['cat', 'file', '--order', '@plan', '--verify'])
  expect(code).toBe(0)
  expect(stdout.equals(Buffer.concat([10, 2, 3, 4, 4, 2, 10].map(page => pages[page])))).toBe(true)
})

test('an empty file has nothing to show', async () => {
  makeFile('file', 0)
  for (const order of ['linear', 'shuffle', 'stride:3']) {
    const { code, stdout, stderr } = await fremap(['cat', 'file', '--order', order, '--verify'])
    expect([code, stdout.length, stderr]).toEqual([0, 0, ''])
  }
  await fremapText(['cat', 'file', '--out', 'empty'])
  expect(statSync(at('empty')).size).toBe(0)
})

test('--out makes a file, quietly, and leaves nothing else', async () => {
  const bytes = makeFile('file', 50 * PAGE)
  expect(await fremapText(['cat', 'file', '--order', 'reverse', '--out', 'out'])).toBe('')
  expect(readFileSync(at('out')).equals(ordered(bytes, 'reverse'))).toBe(true)
  expect(readdirSync(folder).sort()).toEqual(['file', 'out'])
})

test('--out replaces a file whole, keeps its mode, follows links, and may name the input', async () => {
  const bytes = makeFile('file', 9 * PAGE)
  makeFile('old', 5)
  chmodSync(at('old'), 0o640)
  linkSync(at('old'), at('other name'))
  symlinkSync('old', at('link'))
  await fremapText(['cat', 'file', '--order', 'reverse', '-o', 'link'])
  expect(readFileSync(at('old')).equals(ordered(bytes, 'reverse'))).toBe(true)
  expect(statSync(at('old')).mode & 0o777).toBe(0o640)
  expect(statSync(at('other name')).size).toBe(5)
  await fremapText(['cat', 'file', '--order', 'reverse', '-o', 'file'])
  expect(readFileSync(at('file')).equals(ordered(bytes, 'reverse'))).toBe(true)
})

test('--out goes where a redirection of the shell would', async () => {
  const bytes = makeFile('file', 3 * PAGE)
  mkdirSync(at('folder/below'), { recursive: true })
  symlinkSync('folder/below', at('link'))
  symlinkSync('folder/new', at('dangling'))
  symlinkSync('dangling', at('twice'))
  // Behind a link, `..` is not what its name says.
  await fremapText(['cat', 'file', '-o', 'link/../up'])
  await fremapText(['cat', 'file', '-o', 'twice'])
  for (const name of ['folder/up', 'folder/new']) expect(readFileSync(at(name)).equals(bytes)).toBe(true)
  for (const name of ['link', 'dangling', 'twice']) expect(lstatSync(at(name)).isSymbolicLink()).toBe(true)
  expect(readdirSync(folder).sort()).toEqual(['dangling', 'file', 'folder', 'link', 'twice'])
  expect(readdirSync(at('folder')).sort()).toEqual(['below', 'new', 'up'])
})

test('--out makes a file with the permissions of any new file, and nobody else can read it before', async () => {
  makeFile('file', 0)
  truncateSync(at('file'), 2 ** 35)
  makeFile('old', 5)
  chmodSync(at('old'), 0o644)
  for (const out of ['old', 'new']) {
    const { child, ended } = start(['cat', 'file', '-o', out])
    const name = await until(() => readdirSync(folder).find(one => one.endsWith('.fremap')))
    expect(statSync(at(name)).mode & 0o777).toBe(0o600)
    child.kill('SIGTERM')
    await ended
  }
  truncateSync(at('file'), 5)
  await fremapText(['cat', 'file', '-o', 'new'])
  expect(statSync(at('new')).mode & 0o777).toBe(0o666 & ~process.umask())
})

test('--out with a name as long as names may be', async () => {
  makeFile('file', PAGE)
  await fremapText(['cat', 'file', '-o', 'x'.repeat(255)])
  expect(readdirSync(folder).sort()).toEqual(['file', 'x'.repeat(255)])
})

test.skipIf(process.getuid?.() !== 0)('--out keeps the owner of the file', async () => {
  makeFile('file', PAGE)
  makeFile('old', 5)
  chownSync(at('old'), 65534, 65534)
  chmodSync(at('old'), 0o640)
  await fremapText(['cat', 'file', '-o', 'old'])
  expect(statSync(at('old'))).toMatchObject({ size: PAGE, uid: 65534, gid: 65534 })
  expect(statSync(at('old')).mode & 0o777).toBe(0o640)
})

test('--out to a device writes to it and does not replace it', async () => {
  makeFile('file', 9 * PAGE)
  await fremapText(['cat', 'file', '-o', '/dev/null'])
  expect(statSync('/dev/null').isCharacterDevice()).toBe(true)
})

test('reports go to stderr beside data on stdout, and to stdout beside a file', async () => {
  const bytes = makeFile('file', 200 * PAGE)
  const args = ['cat', 'file', '--order', 'shuffle', '-m', '128KiB', '--stats', '--smaps']
  const toStdout = await fremap(args)
  expect(toStdout.stdout.equals(ordered(bytes, 'shuffle'))).toBe(true)
  expect(toStdout.stderr).toMatch(/^ {2}file +200 pages {2}of 4.00 KiB: 800 KiB$/m)
  expect(toStdout.stderr).toMatch(/^ {2}copied +200 pages .* a page/m)
  expect(toStdout.stderr).toMatch(/^ {2}evictions +1\d\d pages$/m)
  expect(toStdout.stderr).toMatch(/^Nonlinear: +\d+ kB$/m)
  expect(toStdout.stderr).toMatch(/^VmFlags: .*\bnl\b/m)
  const toFile = await fremap([...args, '-o', 'out'])
  expect(toFile.stderr).toBe('')
  expect(toFile.stdout.toString()).toMatch(/^ {2}faults +\d+/m)
  // Numbers stand in one column.
  const rows = toFile.stdout.toString().split('\n').slice(0, 6)
  expect(new Set(rows.map(row => /^ {2}.*?[\d,.]+(?= |$)/.exec(row)?.[0].length)).size).toBe(1)
})

test('a plan that does not fit the file leaves no output behind, nor touches the old one', async () => {
  makeFile('file', 5 * PAGE)
  const old = makeFile('out', 10, 2)
  writeFileSync(at('plan'), '0 5 1\n')
  const { code } = await fremap(['cat', 'file', '--order', '@plan', '-o', 'out'])
  expect(code).toBe(2)
  expect(readFileSync(at('out')).equals(old)).toBe(true)
  expect(existsSync(at('none'))).toBe(false)
  expect(readdirSync(folder).sort()).toEqual(['file', 'out', 'plan'])
})
