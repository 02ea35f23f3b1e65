/** How results are shown: an aligned table for people, and the same as JSON with the machine it was measured on. */
import { readFileSync } from 'node:fs'
import { arch, cpus, platform, release, totalmem } from 'node:os'
import { cell, placeOf, type RowResult, type SideResult } from './harness.ts'
import type { SeriesResult } from './series.ts'
import type { Reach } from './statistics.ts'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryBytes: number
  readonly arch: string
  /** Platform and kernel release. */
  readonly kernel: string
  readonly node: string
  readonly v8: string
  /** Where Linux's own nonlinear emulation stops; absent elsewhere. */
  readonly maxMapCount: number | undefined
}

export interface Report {
  readonly format: 1
  readonly date: string
  readonly machine: Machine
  readonly rounds: number
  /** At least so many rounds of each row did not count. */
  readonly warmups: number
  readonly quick: boolean
  readonly rows: readonly RowResult[]
  readonly series: readonly SeriesResult[]
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    arch: arch(),
    kernel: `${platform()} ${release()}`,
    node: process.version,
    v8: process.versions.v8,
    maxMapCount: readMaxMapCount()
  }
}

function readMaxMapCount(): number | undefined {
  try {
    return Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'))
  } catch {
    return undefined
  }
}

/** Three significant digits, and a unit of thousands where that is shorter: `0.412`, `41.2`, `4120`, `65.5k`, `10M`. */
export function formatNumber(n: number): string {
  if (!Number.isFinite(n)) return String(n)
  const rounded = Number(n.toPrecision(3))
  const size = Math.abs(rounded)
  if (size >= 1e6) return `${Number((rounded / 1e6).toPrecision(3))}M`
  if (size >= 1e4) return `${Number((rounded / 1e3).toPrecision(3))}k`
  if (size >= 1000 || Number.isInteger(n)) return String(rounded)
  return size >= 1e-3 || size === 0 ? rounded.toPrecision(3) : rounded.toExponential(2)
}

/** A whole number of the largest unit: `1 MiB`, `64 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.max(0, Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10)))
  return `${formatNumber(bytes / 2 ** (10 * power))} ${units[power]}`
}

export function formatRounds(report: Report): string {
  const { rounds, warmups, quick } = report
  return `${rounds} rounds after at least ${warmups} to warm up, medians${quick ? '; quick: smaller, not for quoting' : ''}`
}

export function formatReach(reach: Reach | undefined): string {
  if (reach === undefined) return '-'
  const sign = reach.better === 'lower' ? '<=' : '>='
  return 'ratio' in reach ? `${sign} ${reach.ratio}x` : `${sign} ${formatNumber(reach.value)}`
}

/** What stands in the last column: `reached`, `short by 1.25x`, or why there is no verdict. */
export function formatVerdict(row: RowResult): string {
  if (row.status === 'skipped') return 'SKIPPED'
  if (row.status === 'checksum') return 'CHECKSUM DIFFERS'
  if (row.status === 'failed') return 'FAILED'
  if (row.verdict === undefined) return '-'
  return row.verdict.reached ? 'reached' : `short by ${formatNumber(row.verdict.shortBy)}x`
}

export interface Column {
  readonly title: string
  readonly align: 'left' | 'right'
}

/** Columns padded to their widest cell, two spaces apart. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const titles = columns.map(column => column.title)
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map(row => row[i].length)))
  const pad = (cell: string, i: number): string =>
    columns[i].align === 'right' ? cell.padStart(widths[i]) : cell.padEnd(widths[i])
  const line = (cells: readonly string[]): string => cells.map(pad).join('  ').trimEnd()
  return [titles, widths.map(width => '-'.repeat(width)), ...rows].map(line).join('\n')
}

const COLUMNS: readonly Column[] = [
  { title: 'row', align: 'left' },
  { title: 'unit', align: 'left' },
  { title: 'ours', align: 'right' },
  { title: 'min..max', align: 'left' },
  { title: 'theirs', align: 'right' },
  { title: 'min..max', align: 'left' },
  { title: 'ratio', align: 'right' },
  { title: 'by pairs', align: 'right' },
  { title: 'reach', align: 'right' },
  { title: 'verdict', align: 'left' }
]

/** The whole report as text: machine, table, phases, what each row compares, and by name what was not measured. */
export function formatReport(report: Report): string {
  const { machine, rows } = report
  const memory = `${(machine.memoryBytes / 2 ** 30).toFixed(1)} GiB`
  const parts = [
    `${machine.cpu}, ${machine.cores} cores, ${memory}, ${machine.kernel} ${machine.arch}, node ${machine.node}`,
    formatRounds(report),
    '',
    formatTable(COLUMNS, rows.map(cells))
  ]
  const phases = rows.flatMap(phaseLines)
  if (phases.length > 0) parts.push('', 'parts of the figures', ...phases)
  parts.push('', 'rows', ...rows.map(row => `  ${row.name}: ${row.what}; against ${row.against}`))
  for (const { name, title, xUnit, yTitle, lines } of report.series) {
    const columns: Column[] = [{ title: yTitle, align: 'left' }, ...lines.map(right)]
    const formatX = xUnit === 'bytes' ? formatBytes : formatNumber
    const points = lines[0].points.map(([x], i) => [formatX(x), ...lines.map(line => formatNumber(line.points[i][1]))])
    parts.push('', `${name}: ${title}`, formatTable(columns, points))
  }
  const missing = rows.filter(row => row.reason !== undefined)
  if (missing.length > 0) {
    parts.push('', 'NOT MEASURED', ...missing.map(row => `  ${row.name}: ${formatVerdict(row)}: ${row.reason}`))
  }
  return `${parts.join('\n')}\n`
}

function cells(row: RowResult): string[] {
  return [
    row.name,
    row.unit,
    row.ours === undefined ? '-' : formatNumber(row.ours.median),
    formatSpread(row.ours),
    row.theirs === undefined ? '-' : formatNumber(row.theirs.median),
    formatSpread(row.theirs),
    row.ratioOfMedians === undefined ? '-' : `${formatNumber(row.ratioOfMedians)}x`,
    row.pairwiseRatio === undefined ? '-' : `${formatNumber(row.pairwiseRatio)}x`,
    formatReach(row.reach),
    formatVerdict(row)
  ]
}

function formatSpread(side: SideResult | undefined): string {
  return side === undefined ? '-' : `${formatNumber(side.min)}..${formatNumber(side.max)}`
}

function right({ name }: { name: string }): Column {
  return { title: name, align: 'right' }
}

/** The phases of a side that are cells of a table. */
export interface Grid {
  readonly who: 'ours' | 'theirs'
  readonly columns: readonly string[]
  /** NaN where a cell is missing. */
  readonly rows: readonly { readonly name: string; readonly cells: readonly number[] }[]
}

/** The tables of a row, of whichever side has one. */
export function gridsOf(row: RowResult): Grid[] {
  const grids: Grid[] = []
  for (const who of ['ours', 'theirs'] as const) {
    const phases = row[who]?.phases ?? {}
    const names = Object.keys(phases).flatMap(name => {
      const place = placeOf(name)
      return place === undefined ? [] : [place]
    })
    if (names.length === 0) continue
    const columns = [...new Set(names.map(([, column]) => column))]
    const rows = [...new Set(names.map(([name]) => name))].map(name => {
      return { name, cells: columns.map(column => phases[cell(name, column)] ?? Number.NaN) }
    })
    grids.push({ who, columns, rows })
  }
  return grids
}

function phaseLines(row: RowResult): string[] {
  const line = (who: string, side: SideResult | undefined): string[] => {
    const entries = Object.entries(side?.phases ?? {}).filter(([name]) => placeOf(name) === undefined)
    if (entries.length === 0) return []
    return [`  ${row.name} ${who}: ${entries.map(([name, value]) => `${name} ${formatNumber(value)}`).join(', ')}`]
  }
  const grids = gridsOf(row).flatMap(({ who, columns, rows }) => {
    const titles: Column[] = [{ title: `${row.name} ${who}`, align: 'left' }, ...columns.map(name => right({ name }))]
    const table = formatTable(
      titles,
      rows.map(({ name, cells }) => [name, ...cells.map(formatNumber)])
    )
    return table.split('\n').map(text => `  ${text}`)
  })
  return [...line('ours', row.ours), ...line('theirs', row.theirs), ...grids]
}
