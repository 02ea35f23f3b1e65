/**
 * A picture of a window over its file, drawn from the live mapping:
 *
 *   dots    the window from left to right, the file from top to bottom: a dot for each of some evenly spaced window
 *           pages at the file page that it shows. A linear window is a diagonal.
 *   blocks  how much of each part of the window is in memory.
 */
import type { Mapping } from '../src/index.ts'
import { formatCount } from './format.ts'

/** Characters. Each holds 2 by 4 dots. */
const COLUMNS = 56
const ROWS = 8
const BRAILLE = 0x2800
/** The bit of each dot in a braille character, by row and column. */
const DOTS: readonly (readonly [number, number])[] = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80]
]
const BLOCKS = ' ▁▂▃▄▅▆▇█'

export function picture(mapping: Mapping, filePages: number): string {
  const { pageCount } = mapping
  const cells = Array.from({ length: ROWS }, () => new Uint8Array(COLUMNS))
  for (let x = 0; x < COLUMNS * 2; x++) {
    const at = Math.floor((x * pageCount) / (COLUMNS * 2))
    const y = Math.floor((mapping.filePage(at) * ROWS * 4) / filePages)
    cells[y >>> 2][x >>> 1] |= DOTS[y & 3][x & 1]
  }
  const last = formatCount(filePages - 1)
  const lines = cells.map((row, y) => {
    const label = y === 0 ? 'file 0' : y === ROWS - 1 ? last : ''
    return `${label.padStart(12)} │${braille(row)}│`
  })
  const edge = '─'.repeat(COLUMNS)
  const lastAt = formatCount(pageCount - 1)
  return [
    `${' '.repeat(12)} ┌${edge}┐`,
    ...lines,
    `${' '.repeat(12)} ├${edge}┤`,
    `${'in memory'.padStart(12)} │${residency(mapping)}│`,
    `${' '.repeat(12)} └${edge}┘`,
    `${'window 0'.padStart(14 + 7)}${lastAt.padStart(COLUMNS - 7)}`,
    ''
  ].join('\n')
}

function braille(row: Uint8Array): string {
  return Array.from(row, dots => String.fromCharCode(BRAILLE + dots)).join('')
}

function residency(mapping: Mapping): string {
  const present = mapping.residency()
  let line = ''
  for (let column = 0; column < COLUMNS; column++) {
    const from = Math.floor((column * present.length) / COLUMNS)
    const end = Math.max(from + 1, Math.floor(((column + 1) * present.length) / COLUMNS))
    let sum = 0
    for (let i = from; i < end; i++) sum += present[i] ?? 0
    line += BLOCKS[Math.ceil((sum / (end - from)) * (BLOCKS.length - 1))]
  }
  return line
}
