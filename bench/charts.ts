/** Which charts a report has. Drawn by `bench/svg.ts`; this says what goes on them. */
import type { RowResult } from './harness.ts'
import { formatBytes, formatNumber, formatVerdict, gridsOf, type Report } from './report.ts'
import type { SeriesResult } from './series.ts'
import type { Reach } from './statistics.ts'
import { barChart, lineChart } from './svg.ts'

export interface Chart {
  /** The name of its file, without the extension. */
  readonly name: string
  readonly title: string
  readonly svg: string
}

/** How much of its reach a figure is: 1 when it is just reached, 2 when it is twice as good. */
export function headroom(figure: number, reach: Reach): number {
  const target = 'ratio' in reach ? reach.ratio : reach.value
  return reach.better === 'lower' ? target / figure : figure / target
}

export function charts(report: Report): Chart[] {
  return [
    ...reachesChart(report.rows),
    ...report.rows.flatMap(gridChart),
    ...report.series.map(seriesChart),
    ...peerCharts(report.rows)
  ]
}

function reachesChart(rows: readonly RowResult[]): Chart[] {
  const bars = rows.flatMap(row => {
    const figure = row.reach !== undefined && 'ratio' in row.reach ? row.pairwiseRatio : row.ours?.median
    if (row.reach === undefined || row.verdict === undefined || figure === undefined) return []
    const kind = row.verdict.reached ? 0 : 1
    return [{ name: row.name, value: headroom(figure, row.reach), label: formatVerdict(row), kind }]
  })
  if (bars.length === 0) return []
  const title = 'How far each figure goes, as a multiple of what it is to reach'
  const kinds = ['reached', 'short']
  return [{ name: 'reaches', title, svg: barChart({ title, bars, goal: { value: 1, name: '1 = reached' }, kinds }) }]
}

/** A table whose rows begin with numbers is a line for each column. */
function gridChart(row: RowResult): Chart[] {
  return gridsOf(row)
    .filter(({ who }) => who === 'ours')
    .flatMap(({ columns, rows }) => {
      const xs = rows.map(({ name }) => Number(/\d+/.exec(name)?.[0]))
      if (xs.some(Number.isNaN)) return []
      const lines = columns.map((name, i) => ({
        name,
        points: rows.map(({ cells }, k) => [xs[k], cells[i]] as const)
      }))
      const title = `${row.name}, by ${rows[rows.length - 1].name.replace(/\d+ */, '')} and ${columns[0]} to ${columns[columns.length - 1]}`
      const svg = lineChart({
        title,
        xTitle: rows[rows.length - 1].name.replace(/\d+ */, ''),
        yTitle: row.unit,
        lines,
        formatX: formatNumber,
        formatY: formatNumber
      })
      return [{ name: chartNameOf(row.name), title, svg }]
    })
}

function seriesChart({ name, title, xTitle, xUnit, yTitle, lines }: SeriesResult): Chart {
  const formatX = xUnit === 'bytes' ? formatBytes : formatNumber
  return {
    name: chartNameOf(name),
    title,
    svg: lineChart({ title, xTitle, yTitle, lines, formatX, formatY: formatNumber })
  }
}

/** One chart for each work, our bar first: the median over all rows of the work, where we ran once for each peer. */
function peerCharts(rows: readonly RowResult[]): Chart[] {
  const works = new Map<string, RowResult[]>()
  for (const row of rows) {
    const [group, work] = row.name.split('/')
    if (group !== 'peers' || row.theirs === undefined) continue
    works.set(work, [...(works.get(work) ?? []), row])
  }
  return [...works].map(([work, ofWork]) => {
    const ours = ofWork.flatMap(row => (row.ours === undefined ? [] : [row.ours.median])).sort((a, b) => a - b)
    const bar = (name: string, value: number, kind: number) => {
      return { name, value, label: `${formatNumber(value)} ${ofWork[0].unit}`, kind }
    }
    const bars = [
      ...(ours.length === 0 ? [] : [bar('fremap', ours[ours.length >> 1], 0)]),
      ...ofWork.map(row => bar(row.name.split('/').slice(2).join('/'), row.theirs?.median ?? 0, 5))
    ]
    const title = `${work}: ${ofWork[0].what}`
    return { name: `peers-${work}`, title, svg: barChart({ title, bars }) }
  })
}

/** `group/name` as the name of a file. */
export function chartNameOf(rowName: string): string {
  return rowName.replaceAll(/[^a-z0-9]+/gi, '-')
}
