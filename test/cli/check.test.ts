/** `fremap check` and `fremap demo`: reports that are true, and nothing left behind. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { at, fremap, fremapText, makeFile, PAGE, start, useBuiltCli } from './support.ts'

useBuiltCli()

/** The number in a row of a report. */
function value(text: string, name: string): number {
  const found = new RegExp(`^ {2}${name} +([0-9,.]+)`, 'm').exec(text)
  if (found === null) throw new Error(`no row '${name}' in:\n${text}`)
  return Number(found[1].replaceAll(',', ''))
}

test.each(['linear', 'reverse', 'shuffle', 'stride:64'])('check in %s order', async order => {
  makeFile('file', 1000 * PAGE + 1)
  const text = await fremapText(['check', 'file', '--order', order, '-m', '512KiB'])
  expect(text).toMatch(/^file: verified, 1,001 pages read as direct reads have them; the budget held\n$/m)
  expect(value(text, 'touched')).toBe(1001)
  expect(value(text, 'verified')).toBe(1001)
  expect(value(text, 'remapped')).toBe(order === 'linear' ? 0 : 1001)
  // 127 frames: nearly every page of both rounds was brought in, and had to leave.
  expect(value(text, 'evictions')).toBeGreaterThan(1800)
  expect(value(text, 'budget')).toBe(512)
})

test('check with a plan, in turns, with smaps', async () => {
  makeFile('file', 40 * PAGE)
  writeFileSync(at('plan'), '0 39\n1 0 39\n')
  const text = await fremapText(['check', 'file', '--order', '@plan', '-w', '16KiB', '--smaps'])
  expect(text).toMatch(/^ {2}window +4 pages {2}in 10 turns, order @plan$/m)
  expect(text).toMatch(/^Nonlinear:/m)
})

test('names with control characters do nothing to a terminal', async () => {
  makeFile('\u001b[2Jfile', PAGE)
  const text = await fremapText(['check', '\u001b[2Jfile'])
  expect(text).toMatch(/^\\u001b\[2Jfile: verified/m)
})

test('check of an empty file', async () => {
  makeFile('file', 0)
  expect(await fremapText(['check', 'file'])).toMatch(/^file: verified, 0 pages/m)
})

test('the demonstration verifies everything, reports it, and removes its file', async () => {
  mkdirSync(at('tmp'))
  const args = ['demo', '--size', '8MiB', '--memory', '512KiB', '--seed', '9']
  const { code, stdout, stderr } = await fremap(args, { env: { TMPDIR: at('tmp') } })
  const text = stdout.toString()
  expect([code, stderr]).toEqual([0, ''])
  expect(text).toMatch(/^A file of 8.00 MiB in shuffled order, in 512 KiB of memory.\n/)
  expect(text).toMatch(/^ {2}rewrite 256 pages /m)
  expect(text.endsWith('All 2,048 pages verified.\n')).toBe(true)
  expect(value(text, 'remapped')).toBe(2048)
  expect(value(text, 'written to the file')).toBeGreaterThanOrEqual(256)
  expect(readdirSync(at('tmp'))).toEqual([])
})

test('the demonstration is what runs without a command', async () => {
  mkdirSync(at('tmp'))
  const { child, ended } = start([], { env: { TMPDIR: at('tmp') } })
  child.stdout?.once('data', () => child.kill('SIGTERM'))
  const { stdout, signal } = await ended
  expect(stdout.toString()).toMatch(/^A file of 256 MiB in shuffled order, in 16.0 MiB of memory.\n/)
  expect(signal).toBe('SIGTERM')
  expect(readdirSync(at('tmp'))).toEqual([])
})

test('a demonstration whose window needs more page tables than there is memory', async () => {
  mkdirSync(at('tmp'))
  const args = ['demo', '--size', '256MiB', '--memory', '64KiB']
  const { code, stderr } = await fremap(args, { env: { TMPDIR: at('tmp') } })
  expect(code).toBe(2)
  expect(stderr).toBe('fremap: the page tables of a window of 256 MiB do not fit in a memory of 64.0 KiB\n')
  expect(readdirSync(at('tmp'))).toEqual([])
})
