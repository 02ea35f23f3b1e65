/** Two kinds of chart as SVG text: lines on logarithmic axes, and bars on one. Readable on light and dark pages. */

const COLORS = ['#2f7ed8', '#e07b00', '#2a9d5c', '#b5489a', '#7d6608', '#888888']
const STYLE =
  'text{font:12px system-ui,sans-serif;fill:#777}.title{font-size:14px;font-weight:600}.grid{stroke:#8884;stroke-width:1}.goal{stroke:#d33;stroke-width:1.5;stroke-dasharray:5 3}'

export interface Line {
  readonly name: string
  readonly points: readonly (readonly [number, number])[]
}

export interface LineChart {
  readonly title: string
  readonly xTitle: string
  readonly yTitle: string
  readonly lines: readonly Line[]
  readonly formatX: (x: number) => string
  readonly formatY: (y: number) => string
}

export interface Bar {
  readonly name: string
  readonly value: number
  /** What stands after the bar. */
  readonly label: string
  /** Index of its colour; equal for bars of one kind. */
  readonly kind: number
}

export interface BarChart {
  readonly title: string
  readonly bars: readonly Bar[]
  /** Where a line is drawn across, and its name. */
  readonly goal?: { readonly value: number; readonly name: string }
  /** What each kind is; no legend when absent. */
  readonly kinds?: readonly string[]
}

/**
 * A logarithmic scale from the values' range to pixels. Grid lines are at the powers of `base` within and around it.
 */
export function logScale(
  values: readonly number[],
  from: number,
  to: number,
  base = 10
): { place(value: number): number; ticks: number[] } {
  const usable = values.filter(value => value > 0 && Number.isFinite(value))
  const log = (value: number): number => Math.log(value) / Math.log(base)
  // A power that is met but for rounding is met.
  const low = usable.length === 0 ? 0 : Math.floor(log(Math.min(...usable)) + 1e-9)
  const high = Math.max(low + 1, usable.length === 0 ? 1 : Math.ceil(log(Math.max(...usable)) - 1e-9))
  const place = (value: number): number => from + ((log(value) - low) / (high - low)) * (to - from)
  const step = Math.ceil((high - low) / 8)
  const ticks: number[] = []
  for (let power = low; power <= high; power += step) ticks.push(base ** power)
  return { place, ticks }
}

export function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

function textAt(x: number, y: number, text: string, attributes = ''): string {
  return `<text x="${round(x)}" y="${round(y)}"${attributes}>${escapeXml(text)}</text>`
}

function lineAt(x1: number, y1: number, x2: number, y2: number, className: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${className}"/>`
}

function round(n: number): number {
  return Math.round(n * 10) / 10
}

function svg(width: number, height: number, title: string, parts: readonly string[]): string {
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`
  return `${[head, `<title>${escapeXml(title)}</title>`, `<style>${STYLE}</style>`, textAt(16, 22, title, ' class="title"'), ...parts, '</svg>'].join('\n')}\n`
}

function legend(names: readonly string[], x: number, y: number): string[] {
  let at = x
  return names.flatMap((name, i) => {
    const parts = [
      `<rect x="${at}" y="${y - 9}" width="10" height="10" fill="${COLORS[i % COLORS.length]}"/>`,
      textAt(at + 15, y, name)
    ]
    at += 35 + name.length * 7
    return parts
  })
}

/** Both axes logarithmic: powers of 4 across for sizes that are powers of 2, else of 10. */
export function lineChart(chart: LineChart): string {
  const { title, xTitle, yTitle, lines, formatX, formatY } = chart
  const [width, height, left, top, right, bottom] = [720, 360, 64, 64, 690, 306]
  const points = lines.flatMap(line => line.points)
  const xs = points.map(([x]) => x)
  const inPowersOf2 = xs.length > 0 && xs.every(x => Number.isInteger(Math.log2(x)) && x > 1)
  const x = logScale(xs, left, right, inPowersOf2 ? 4 : 10)
  const y = logScale(
    points.map(([, y]) => y),
    bottom,
    top
  )
  const parts = [
    ...legend(
      lines.map(line => line.name),
      16,
      46
    )
  ]
  for (const tick of x.ticks) {
    parts.push(lineAt(x.place(tick), top, x.place(tick), bottom, 'grid'))
    parts.push(textAt(x.place(tick), bottom + 18, formatX(tick), ' text-anchor="middle"'))
  }
  for (const tick of y.ticks) {
    parts.push(lineAt(left, y.place(tick), right, y.place(tick), 'grid'))
    parts.push(textAt(left - 8, y.place(tick) + 4, formatY(tick), ' text-anchor="end"'))
  }
  for (const [i, line] of lines.entries()) {
    const color = COLORS[i % COLORS.length]
    const places = line.points.map(([px, py]) => [round(x.place(px)), round(y.place(py))] as const)
    parts.push(
      `<polyline points="${places.map(place => place.join(',')).join(' ')}" fill="none" stroke="${color}" stroke-width="2"/>`
    )
    for (const [cx, cy] of places) parts.push(`<circle cx="${cx}" cy="${cy}" r="3" fill="${color}"/>`)
  }
  parts.push(textAt((left + right) / 2, height - 14, xTitle, ' text-anchor="middle"'))
  parts.push(textAt(right, 46, yTitle, ' text-anchor="end"'))
  return svg(width, height, title, parts)
}

/** Bars from the left edge of a logarithmic axis, names before and labels after them. */
export function barChart(chart: BarChart): string {
  const { title, bars, goal, kinds } = chart
  const [width, left, right, top, rowHeight] = [720, 210, 600, kinds === undefined ? 56 : 76, 22]
  const bottom = top + bars.length * rowHeight
  const values = [...bars.map(bar => bar.value), ...(goal === undefined ? [] : [goal.value])]
  const x = logScale(values, left, right)
  const parts = kinds === undefined ? [] : legend(kinds, 16, 46)
  for (const tick of x.ticks) {
    parts.push(lineAt(x.place(tick), top, x.place(tick), bottom, 'grid'))
    parts.push(textAt(x.place(tick), bottom + 16, String(Number(tick.toPrecision(3))), ' text-anchor="middle"'))
  }
  for (const [i, bar] of bars.entries()) {
    const y = top + i * rowHeight
    const end = Math.max(x.place(bar.value), left + 2)
    const color = COLORS[bar.kind % COLORS.length]
    parts.push(textAt(left - 8, y + 15, bar.name, ' text-anchor="end"'))
    parts.push(`<rect x="${left}" y="${y + 4}" width="${round(end - left)}" height="14" fill="${color}"/>`)
    parts.push(textAt(end + 6, y + 15, bar.label))
  }
  if (goal !== undefined) {
    parts.push(lineAt(x.place(goal.value), top - 4, x.place(goal.value), bottom, 'goal'))
    parts.push(textAt(x.place(goal.value), top - 8, goal.name, ' text-anchor="middle"'))
  }
  return svg(width, bottom + 28, title, parts)
}
