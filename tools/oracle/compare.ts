/**
 * Comparing results, by level: how much a caller would notice.
 *
 *   1  errno, results, values, faults, file contents, sizes
 *   2  nonlinear pages, locked memory, residency (mincore)
 *   3  mappings: borders, permissions, files, flags
 *   4  resident and swapped pages, pagemap
 *   5  proportional shares, clean and dirty, anonymous, allocated pages
 *
 * What depends on the details of reclaim (which pages it took, and swap readahead) counts as level 5 once a script
 * has reclaimed. Keys that begin with `_` are not compared.
 */
import type { Op, Result } from './trace.ts'

export const NR_LEVELS = 5 as const

export interface Mismatch {
  readonly level: number
  /** Where in the result, such as `v[2].NL`. */
  readonly path: string
  readonly expected: unknown
  readonly got: unknown
}

export interface Comparison {
  /** Bit n is set when something of level n was compared. */
  readonly levels: number
  /** In order of level. */
  readonly mismatches: readonly Mismatch[]
}

export type ReclaimState = 'never' | 'reclaimed'

/** Level by operation and key; what is not here is level 1. */
const LEVELS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  rss: { rss: 4, nl: 2, swap: 4, lck: 2, ok: 4 },
  stat: { pages: 5 },
  mincore: { vec: 2 },
  nrmlock: { pages: 2 },
  maps: { m: 3 },
  pagemap: { pm: 4 }
}
const SMAPS_LEVELS: Readonly<Record<string, number>> = { s: 3, e: 3, fl: 3, NL: 2, Rss: 4, Swap: 4 }
const RECLAIM_DETAILS = new Set(['rss.rss', 'rss.swap', 'mincore.vec', 'pagemap.pm', 'smaps.Rss', 'smaps.Swap'])

export function compare(op: Op, got: Result, reclaim: ReclaimState): Comparison {
  const mismatches: Mismatch[] = []
  let levels = 0
  const check = (level: number, path: string, expected: unknown, actual: unknown): void => {
    levels |= 1 << level
    if (!equal(expected, actual)) mismatches.push({ level, path, expected, got: actual })
  }
  for (const key of keysOf(op.expected, got)) {
    const expected = op.expected[key]
    if (op.op === 'smaps' && key === 'v' && Array.isArray(expected) && Array.isArray(got.v)) {
      compareSmaps(expected, got.v, reclaim, check)
    } else check(levelOf(op.op, key, LEVELS[op.op]?.[key] ?? 1, reclaim), key, expected, got[key])
  }
  mismatches.sort((a, b) => a.level - b.level)
  return { levels, mismatches }
}

function levelOf(op: string, key: string, level: number, reclaim: ReclaimState): number {
  return reclaim === 'reclaimed' && RECLAIM_DETAILS.has(`${op}.${key}`) ? 5 : level
}

function compareSmaps(
  expected: readonly Result[],
  got: readonly Result[],
  reclaim: ReclaimState,
  check: (level: number, path: string, expected: unknown, got: unknown) => void
): void {
  const borders = (rows: readonly Result[]): unknown[] => rows.map(row => [row.s, row.e])
  check(3, 'v', borders(expected), borders(got))
  if (!equal(borders(expected), borders(got))) return
  for (const [i, row] of expected.entries()) {
    for (const key of keysOf(row, got[i])) {
      check(levelOf('smaps', key, SMAPS_LEVELS[key] ?? 5, reclaim), `v[${i}].${key}`, row[key], got[i][key])
    }
  }
}

function keysOf(a: Result, b: Result): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(key => !key.startsWith('_'))
}

function equal(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}
