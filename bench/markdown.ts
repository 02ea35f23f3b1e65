/** The report as a Markdown page, with its charts as SVG files in a folder that is named after the page. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, extname, join } from 'node:path'
import { type Chart, chartNameOf, charts } from './charts.ts'
import type { RowResult } from './harness.ts'
import { formatNumber, formatReach, formatRounds, formatVerdict, gridsOf, type Machine, type Report } from './report.ts'

/** The sections of `bench/causes.md` by their headings, which are names of rows. */
export function parseCauses(markdown: string): Map<string, string> {
  const causes = new Map<string, string>()
  for (const section of markdown.split(/^## +/m).slice(1)) {
    const end = section.indexOf('\n')
    const name = (end < 0 ? section : section.slice(0, end)).trim().replaceAll('`', '')
    causes.set(name, end < 0 ? '' : section.slice(end).trim())
  }
  return causes
}

/** Writes the page at `path` and its charts. */
export function writeMarkdownReport(report: Report, causes: ReadonlyMap<string, string>, path: string): void {
  const folder = basename(path, extname(path))
  const directory = join(dirname(path), folder)
  mkdirSync(directory, { recursive: true })
  const drawn = charts(report)
  for (const { name, svg } of drawn) writeFileSync(join(directory, `${name}.svg`), svg)
  writeFileSync(path, formatMarkdown(report, causes, drawn, folder))
}

/** The page; charts are linked as `folder/name.svg`. */
export function formatMarkdown(
  report: Report,
  causes: ReadonlyMap<string, string>,
  drawn: readonly Chart[],
  folder: string
): string {
  const promised = report.rows.filter(row => row.reach !== undefined)
  const others = report.rows.filter(row => row.reach === undefined)
  const parts = [
    '# Benchmarks',
    'Written by `npm run bench -- --report docs/benchmarks.md`; changes by hand are lost.',
    report.quick ? '**A quick run: smaller sizes, few rounds. Not for quoting.**' : '',
    machineSection(report.machine, report),
    image(drawn, folder, 'reaches'),
    promised.length === 0 ? '' : ['## What is promised', promisedTable(promised)].join('\n\n'),
    others.length === 0 ? '' : ['## Beside it', OTHERS, othersTable(others)].join('\n\n'),
    causesSection(promised, causes),
    gridSection(report, drawn, folder),
    chartsSection(report, drawn, folder),
    comparedSection(report.rows)
  ]
  return `${parts.filter(part => part !== '').join('\n\n')}\n`
}

const OTHERS =
  'Rows without a reach, which show where a cost lies. The ratio is our figure over theirs: below 1 is faster.'

function machineSection(machine: Machine, report: Report): string {
  const memory = `${(machine.memoryBytes / 2 ** 30).toFixed(1)} GiB`
  const { cpu, cores, kernel, arch, node, v8 } = machine
  return [
    `${cpu}, ${cores} cores, ${memory}; ${kernel} ${arch}; Node ${node}, V8 ${v8}. ${report.date.slice(0, 10)}.`,
    `${formatRounds(report)}. Both sides of a row do the same work, proved by a checksum, and take turns round by round; ` +
      'the verdict is by the median of the ratios of the pairs.'
  ].join('\n\n')
}

/** A pipe would end the cell. */
function tableRow(cells: readonly string[]): string {
  return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

export function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = titles.map((_, i) => (i === 0 ? '---' : '---:'))
  return [tableRow(titles), `|${rule.join('|')}|`, ...rows.map(tableRow)].join('\n')
}

function figures(row: RowResult): string[] {
  const side = (of: RowResult['ours']): string => (of === undefined ? '-' : formatNumber(of.median))
  const ratio = row.pairwiseRatio === undefined ? '-' : `${formatNumber(row.pairwiseRatio)}x`
  return [`\`${row.name}\``, row.unit, side(row.ours), side(row.theirs), ratio]
}

function promisedTable(rows: readonly RowResult[]): string {
  const titles = ['row', 'unit', 'ours', 'theirs', 'ratio', 'reach', 'verdict']
  return markdownTable(
    titles,
    rows.map(row => [...figures(row), formatReach(row.reach), formatVerdict(row)])
  )
}

function othersTable(rows: readonly RowResult[]): string {
  const verdict = (row: RowResult): string => (row.reason === undefined ? '' : `${formatVerdict(row)}: ${row.reason}`)
  return markdownTable(
    ['row', 'unit', 'ours', 'theirs', 'ratio', ''],
    rows.map(row => [...figures(row), verdict(row)])
  )
}

function causesSection(rows: readonly RowResult[], causes: ReadonlyMap<string, string>): string {
  const sections = rows.flatMap(row => {
    if (row.status !== 'measured')
      return row.reason === undefined ? [] : [`\`${row.name}\` was not measured: ${row.reason}`]
    if (row.verdict === undefined || row.verdict.reached) return []
    return [`### \`${row.name}\`: ${formatVerdict(row)}`, causes.get(row.name) ?? 'The cause is not known yet.']
  })
  return sections.length === 0 ? '' : ['## What falls short, and why', ...sections].join('\n\n')
}

function gridSection(report: Report, drawn: readonly Chart[], folder: string): string {
  const sections = report.rows.flatMap(row =>
    gridsOf(row).map(({ who, columns, rows }) => {
      const table = markdownTable(
        ['', ...columns],
        rows.map(({ name, cells }) => [name, ...cells.map(formatNumber)])
      )
      const chart = image(drawn, folder, chartNameOf(row.name))
      return [`### \`${row.name}\`, ${who}`, `${row.what}; ${row.unit}`, table, chart].filter(Boolean).join('\n\n')
    })
  )
  return sections.length === 0 ? '' : ['## Parts of the figures', ...sections].join('\n\n')
}

function chartsSection(report: Report, drawn: readonly Chart[], folder: string): string {
  const series = report.series.map(({ name }) => image(drawn, folder, chartNameOf(name)))
  const peers = drawn.filter(({ name }) => name.startsWith('peers-')).map(({ name }) => image(drawn, folder, name))
  const sections = [
    ...(series.length === 0 ? [] : ['## As the work grows', ...series]),
    ...(peers.length === 0 ? [] : ['## Other packages', ...peers])
  ]
  return sections.join('\n\n')
}

function image(drawn: readonly Chart[], folder: string, name: string): string {
  const chart = drawn.find(candidate => candidate.name === name)
  return chart === undefined ? '' : `![${chart.title}](${folder}/${name}.svg)`
}

function comparedSection(rows: readonly RowResult[]): string {
  if (rows.length === 0) return ''
  return ['## The rows', ...rows.map(row => `- \`${row.name}\`: ${row.what}. Against: ${row.against}.`)]
    .join('\n')
    .replace('\n', '\n\n')
}
