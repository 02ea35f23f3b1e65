/** Numbers, durations and tables for people. */
import { escaped } from '../src/index.ts'

/** A name as a terminal may be given it: control characters are written out, such as \\u001b. */
export function printable(text: string): string {
  return escaped(text)
}

/** 65536 → 65,536. */
export function formatCount(n: number): string {
  return n.toLocaleString('en-US')
}

/** `3 pages`, `1 page`. */
export function plural(n: number, noun: string): string {
  return `${formatCount(n)} ${noun}${n === 1 ? '' : 's'}`
}

/** Three digits in the unit that fits: 58 ns, 3.21 µs, 12.4 ms, 1.52 s, 3 min 20 s. */
export function formatDuration(ms: number): string {
  if (ms < 1e-3) return `${threeDigits(ms * 1e6)} ns`
  if (ms < 1) return `${threeDigits(ms * 1e3)} µs`
  if (ms < 1e3) return `${threeDigits(ms)} ms`
  if (ms < 100e3) return `${threeDigits(ms / 1e3)} s`
  const seconds = Math.round(ms / 1e3)
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}

function threeDigits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

/** Name, number, unit, remark. Only the name and the number must be there. */
export type Row = readonly [name: string, value: string, unit?: string, remark?: string]

/** Rows with the names to the left, the numbers to the right. */
export function table(rows: readonly Row[], indent = '  '): string {
  const width = (column: number) => Math.max(0, ...rows.map(row => (row[column] ?? '').length))
  const [names, values, units] = [width(0), width(1), width(2)]
  return rows
    .map(([name, value, unit = '', remark = '']) => {
      const line = `${indent}${name.padEnd(names)}  ${value.padStart(values)} ${unit.padEnd(units)}  ${remark}`
      return `${escaped(line.trimEnd())}\n`
    })
    .join('')
}

/** A size as a number and its unit. */
export function sizeCells(text: string): [value: string, unit: string] {
  const [value, unit = ''] = text.split(' ')
  return [value, unit]
}
