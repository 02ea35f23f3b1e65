import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { chartNameOf, charts, headroom } from '../../bench/charts.ts'
import { cell, compare, placeOf, type RowResult, type Sample } from '../../bench/harness.ts'
import { PageLru } from '../../bench/lru.ts'
import { formatMarkdown, markdownTable, parseCauses, writeMarkdownReport } from '../../bench/markdown.ts'
import { describeMachine, formatBytes, formatReport, gridsOf, type Report } from '../../bench/report.ts'
import { peerRows, ROWS } from '../../bench/rows.ts'
import { seriesPlans, steps } from '../../bench/series.ts'
import type { Reach } from '../../bench/statistics.ts'
import { NullStore } from '../../bench/stores.ts'
import { barChart, escapeXml, lineChart, logScale } from '../../bench/svg.ts'

const LOWER: Reach = { ratio: 1.5, better: 'lower' }

function result(name: string, reach: Reach | undefined, ours: Sample, theirs?: Sample): RowResult {
  const row = { name, what: `what <${name}> does`, against: 'another', unit: 'ns/page', sense: 'cost', reach } as const
  return compare(row, [ours], theirs === undefined ? [] : [theirs])
}

function sample(value: number, phases?: Record<string, number>): Sample {
  return phases === undefined ? { value, checksum: 1 } : { value, checksum: 1, phases }
}

const grid = sample(900, {
  [cell('1 mapper', '1 MiB')]: 10,
  [cell('1 mapper', '1 GiB')]: 11,
  [cell('1000 mappers', '1 MiB')]: 800,
  [cell('1000 mappers', '1 GiB')]: 900,
  write: 3
})

function report(): Report {
  return {
    format: 1,
    date: '2000-01-01T00:00:00.000Z',
    machine: describeMachine(),
    rounds: 1,
    warmups: 0,
    quick: false,
    rows: [
      result('read/good', LOWER, sample(1), sample(1)),
      result('read/short', LOWER, sample(3), sample(1)),
      result('rmap/punch', undefined, grid, sample(800)),
      result('peers/scan/@scope/other', undefined, sample(5), sample(50))
    ],
    series: [
      {
        name: 'series/size',
        title: 'By size',
        xTitle: 'size',
        xUnit: 'bytes',
        yTitle: 'ns/read',
        lines: [
          { name: 'a', points: [1, 4, 16].map(n => [n * 2 ** 20, n] as const) },
          { name: 'b', points: [1, 4, 16].map(n => [n * 2 ** 20, 2 * n] as const) }
        ]
      }
    ]
  }
}

describe('rows and series', () => {
  test('names are unique, and a group and a name', () => {
    const names = [...ROWS, ...peerRows, ...seriesPlans].map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    for (const name of names) expect(name).toMatch(/^[a-z]+\/\S+$/)
  })

  test('only the sequential scans are promised', () => {
    const scans = ROWS.filter(({ name }) => name.startsWith('scan/'))
    const promised = scans.filter(row => row.reach !== undefined).map(({ name }) => name)
    expect(promised).toEqual(['scan/views', 'scan/bulk'])
  })

  test('steps go up to the end and no further', () => {
    expect(steps(1000, 1e5, 10)).toEqual([1000, 10_000, 100_000])
    expect(steps(1, 60, 4)).toEqual([1, 4, 16])
  })

  test('a row without a reach has a ratio of costs, ours over theirs, and no verdict', () => {
    const { pairwiseRatio, verdict } = result('a/b', undefined, sample(2), sample(8))
    expect(pairwiseRatio).toBe(0.25)
    expect(verdict).toBeUndefined()
  })
})

describe('tables of phases', () => {
  test('a cell has a place, another phase has none', () => {
    expect(placeOf(cell('10 mappers', '64 GiB'))).toEqual(['10 mappers', '64 GiB'])
    expect(placeOf('write')).toBeUndefined()
  })

  test('cells become a table in the order they came in; a missing one is NaN', () => {
    const row = result('a/b', undefined, sample(1, { [cell('r', 'x')]: 1, [cell('s', 'y')]: 2, write: 3 }))
    expect(gridsOf(row)).toEqual([
      {
        who: 'ours',
        columns: ['x', 'y'],
        rows: [
          { name: 'r', cells: [1, Number.NaN] },
          { name: 's', cells: [Number.NaN, 2] }
        ]
      }
    ])
  })

  test('the text shows tables and series', () => {
    const text = formatReport(report())
    expect(text).toContain('  rmap/punch ours: write 3\n')
    expect(text).toMatch(/^ {2}rmap\/punch ours +1 MiB +1 GiB\n.*\n {2}1 mapper +10 +11\n {2}1000 mappers +800 +900$/m)
    expect(text).toMatch(/^series\/size: By size\nns\/read +a +b\n.*\n1 MiB +1 +2\n4 MiB +4 +8\n16 MiB +16 +32$/m)
  })

  test.each([
    [1, '1 B'],
    [4096, '4 KiB'],
    [64 * 2 ** 30, '64 GiB'],
    [1.5 * 2 ** 20, '1.50 MiB']
  ])('%d bytes read %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })
})

describe('charts', () => {
  test('a logarithmic scale covers its values with powers of the base', () => {
    const { place, ticks } = logScale([20, 500], 0, 200)
    expect(ticks).toEqual([10, 100, 1000])
    expect(place(10)).toBeCloseTo(0)
    expect(place(100)).toBeCloseTo(100)
    expect(place(1000)).toBeCloseTo(200)
    expect(logScale([1000], 0, 1).ticks).toEqual([1000, 10_000].map(n => expect.closeTo(n)))
    expect(logScale([2 ** 20, 2 ** 24], 0, 1, 4).ticks).toEqual([2 ** 20, 2 ** 22, 2 ** 24])
    expect(logScale([1, 1e24], 0, 1).ticks.length).toBeLessThanOrEqual(9)
  })

  test.each([[[]], [[0, -1, Number.NaN]]])('values that have no logarithm leave a scale of its own: %j', values => {
    expect(logScale(values, 0, 1).ticks).toEqual([1, 10])
  })

  test('headroom is above 1 when a reach is exceeded, in either direction', () => {
    expect(headroom(0.75, LOWER)).toBe(2)
    expect(headroom(30, { ratio: 15, better: 'higher' })).toBe(2)
    expect(headroom(128, { value: 64, better: 'lower' })).toBe(0.5)
  })

  test('names are escaped', () => {
    expect(escapeXml('<a & "b">')).toBe('&lt;a &amp; &quot;b&quot;&gt;')
    const bars = [{ name: 'a<b', value: 2, label: 'x & y', kind: 0 }]
    const svg = barChart({ title: '<t>', bars, goal: { value: 1, name: 'g' } })
    expect(svg).toContain('a&lt;b')
    expect(svg).not.toMatch(/<t>|x & y|NaN|Infinity/)
  })

  test('a line has a place for each point', () => {
    const points = [1, 2, 4].map(n => [n * 1000, n] as const)
    const lines = [{ name: 'a', points }]
    const formatX = String
    const svg = lineChart({ title: 't', xTitle: 'x', yTitle: 'y', lines, formatX, formatY: formatX })
    expect(svg.match(/<circle /g)).toHaveLength(3)
    expect(svg).not.toMatch(/NaN|Infinity|undefined/)
  })

  test('a report has the promises, the tables, the series and the peers', () => {
    const drawn = charts(report())
    expect(drawn.map(({ name }) => name)).toEqual(['reaches', 'rmap-punch', 'series-size', 'peers-scan'])
    expect(drawn[3].svg).toContain('@scope/other')
    expect(chartNameOf('series/file-size')).toBe('series-file-size')
  })
})

describe('the page', () => {
  test('causes are found by the names of rows', () => {
    const causes = parseCauses(
      '# Title\n\nHead.\n\n## read/short\n\nBecause.\n\nAnd so on.\n## `cold/random`\n\n## last'
    )
    expect([...causes]).toEqual([
      ['read/short', 'Because.\n\nAnd so on.'],
      ['cold/random', ''],
      ['last', '']
    ])
  })

  test('pipes do not end a cell', () => {
    expect(markdownTable(['a', 'b'], [['x|y', '1']])).toBe('| a | b |\n|---|---:|\n| x\\|y | 1 |')
  })

  test('a shortfall stands with its cause, or with the lack of one; what is reached does not', () => {
    const page = (causes: Map<string, string>): string => formatMarkdown(report(), causes, [], 'f')
    expect(page(new Map([['read/short', 'The cause.']]))).toContain('### `read/short`: short by 2x\n\nThe cause.')
    expect(page(new Map())).toContain('### `read/short`: short by 2x\n\nThe cause is not known yet.')
    expect(page(new Map())).not.toContain('### `read/good`')
    expect(page(new Map())).toContain('| 1000 mappers | 800 | 900 |')
  })

  test('every chart that the page links is written beside it', () => {
    const directory = mkdtempSync(join(tmpdir(), 'fremap-report-'))
    try {
      const path = join(directory, 'figures.md')
      writeMarkdownReport(report(), new Map(), path)
      const links = [...readFileSync(path, 'utf8').matchAll(/\]\((figures\/.*?\.svg)\)/g)].map(match => match[1])
      expect(links).toHaveLength(4)
      for (const link of links) expect(existsSync(join(directory, link))).toBe(true)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('the causes that are kept name rows', () => {
    const kept = parseCauses(readFileSync(new URL('../../bench/causes.md', import.meta.url), 'utf8'))
    const names = ROWS.map(({ name }) => name)
    for (const name of kept.keys()) expect(names).toContain(name)
  })
})

function tempFile(): { fd: number; bytes: Uint8Array<ArrayBuffer>; close(): void } {
  const directory = mkdtempSync(join(tmpdir(), 'fremap-lru-'))
  const bytes = Uint8Array.from({ length: 3 * 4096 }, (_, i) => (i * 7 + (i >>> 12)) & 0xff)
  writeFileSync(join(directory, 'pages'), bytes)
  const fd = openSync(join(directory, 'pages'), 'r')
  const close = (): void => {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  }
  return { fd, bytes, close }
}

describe('what the sides use', () => {
  test('a store that keeps nothing reads as zero up to its end', () => {
    const store = new NullStore(10)
    const buffer = new Uint8Array(8).fill(1)
    expect(store.write(0, buffer, 0, 8)).toBe(8)
    expect(store.read(6, buffer, 1, 6)).toBe(4)
    expect([...buffer]).toEqual([1, 0, 0, 0, 0, 1, 1, 1])
    expect(store.read(20, buffer, 0, 8)).toBe(0)
  })

  test('an LRU of no slots to spare gives each page its own bytes', () => {
    const { fd, close, bytes } = tempFile()
    try {
      const lru = new PageLru(fd, 2 * 4096, 4096)
      for (const page of [0, 1, 2, 0, 2, 1]) expect(lru.page(page)[5]).toBe(bytes[page * 4096 + 5])
      lru.clear()
      expect(lru.readWord(4096)).toBe(new DataView(bytes.buffer).getUint32(4096, true))
    } finally {
      close()
    }
  })
})
