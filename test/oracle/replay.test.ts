import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { NR_LEVELS } from '../../tools/oracle/compare.ts'
import { DIFFERENCES, differencesTable, PGOFF_BITS } from '../../tools/oracle/differences.ts'
import { liveTable } from '../../tools/oracle/live.ts'
import { main } from '../../tools/oracle/main.ts'
import { resultPage, translated, translatedLength } from '../../tools/oracle/quantity.ts'
import { type Outcome, replay } from '../../tools/oracle/replay.ts'
import { readTrace } from '../../tools/oracle/trace.ts'

const fixtures = fileURLToPath(new URL('./fixtures', import.meta.url))
const fixture = (name: string): string => join(fixtures, `${name}.jsonl`)
const run = (name: string, strictLevel: number): Outcome => replay(readTrace(fixture(name)), strictLevel)

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fremap-replay-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

function cli(...argv: string[]): { ok: boolean; lines: string[] } {
  const lines: string[] = []
  const ok = main(argv, line => lines.push(line))
  return { ok, lines }
}

describe('replay', () => {
  it.each(['window', 'kinds', 'reclaim', 'far-pages'])('%s agrees at every level', name => {
    const outcome = run(name, NR_LEVELS)
    expect(outcome.failure).toBeUndefined()
    expect(outcome.nrOps).toBe(outcome.trace.ops.length)
    for (const { seen, equal } of outcome.levels) expect(equal).toBe(seen)
  })

  it.each([1, 2, 3, 4, 5])('finds what is wrong at level %i, and only from that level on', level => {
    const name = `wrong-level-${level}`
    expect(run(name, level).failure).toMatchObject({ line: 5, level })
    if (level > 1) {
      const lenient = run(name, level - 1)
      expect(lenient.failure).toBeUndefined()
      expect(lenient.tolerated).toMatchObject([{ line: 5, level }])
    }
  })

  it('names the difference that an operation is about, and only there', () => {
    expect([...run('far-pages', NR_LEVELS).differences]).toEqual([[PGOFF_BITS, 2]])
    expect(run('window', NR_LEVELS).differences.size).toBe(0)
  })
})

describe('replay of a kernel that emulates', () => {
  it('compares up to a difference that the emulation explains', () => {
    const outcome = run('live', 3)
    expect(outcome.failure).toBeUndefined()
    expect([...outcome.differences.keys()]).toEqual(['several-mappings'])
    expect(outcome.nrOps).toBe(5)
  })

  it('fails on what nothing explains', () => {
    expect(run('live-wrong', 3).failure).toMatchObject({ line: 5, level: 1 })
  })
})

describe('the command', () => {
  it('passes on plain and gzipped traces, and ends with the count', () => {
    writeFileSync(join(folder, 'window.jsonl.gz'), gzipSync(readFileSync(fixture('window'))))
    const { ok, lines } = cli(folder, fixture('kinds'))
    expect(lines.at(-1)).toBe('2 passed, 0 failed')
    expect(ok).toBe(true)
  })

  it('fails with trace, line, operation, expected and got', () => {
    const { ok, lines } = cli(fixture('wrong-level-1'))
    expect(ok).toBe(false)
    expect(lines.at(-1)).toBe('0 passed, 1 failed')
    expect(lines.slice(0, 3).join('\n')).toMatch(
      /wrong-level-1\.jsonl:5: level 1: .*"op":"read".*\n *expected val: 16777216\n *got +val: 16777219/
    )
  })

  it('fails when level 4 agrees on less than 99 % of operations', () => {
    const { ok, lines } = cli(fixture('wrong-level-4'))
    expect(lines.at(-1)).toBe('1 passed, 0 failed')
    expect(lines.join('\n')).toContain('less than 99 %')
    expect(ok).toBe(false)
  })

  it('counts a file that is no trace as failed, and finding none as a failure', () => {
    const path = join(folder, 'broken.jsonl')
    writeFileSync(path, '{"script":"x"}\n')
    expect(cli(path)).toMatchObject({ ok: false })
    expect(cli(path).lines.at(-1)).toBe('0 passed, 1 failed')
    expect(cli(fixture('window'), '--live').ok).toBe(false)
    expect(() => cli()).toThrow('usage')
    expect(() => cli(path, '--level', '6')).toThrow('1 to 5')
  })
})

/** The cells of a table, however it is aligned. */
function cellsOf(table: string): string[][] {
  const rows = table.split('\n').filter(line => line.startsWith('|') && !/^\|[\s|-]*$/.test(line))
  return rows.map(line => line.split('|').map(cell => cell.trim()))
}

describe('addresses', () => {
  it('keep their distance from the end of the address space', () => {
    const linuxEnd = 0x7ffffffff000n
    const ourEnd = 0x7fffffff000n
    expect(translated(linuxEnd)).toBe(ourEnd)
    expect(translated(linuxEnd - 4096n)).toBe(ourEnd - 4096n)
    expect(translated(0x1000000000n)).toBe(0x1000000000n)
    expect(translated(0xffffffffffffffffn)).toBe(0xffffffffffffffffn)
    expect(translatedLength(0x1000000000n, linuxEnd - 0x1000000000n)).toBe(ourEnd - 0x1000000000n)
    expect(resultPage(Number(ourEnd - 4096n))).toBe(Number((linuxEnd - 4096n - 0x1000000000n) / 4096n))
  })
})

it('docs/conformance.md has the tables of differences', () => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/conformance.md', import.meta.url)), 'utf8')
  const between = (name: string): string => text.split(`<!-- ${name} -->`)[1]?.split(`<!-- /${name} -->`)[0] ?? ''
  expect(cellsOf(between('differences'))).toEqual(cellsOf(differencesTable()))
  expect(cellsOf(between('live'))).toEqual(cellsOf(liveTable()))
  expect(new Set(DIFFERENCES.map(({ name }) => name)).size).toBe(DIFFERENCES.length)
})
