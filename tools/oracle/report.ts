/** What the replayer prints. */
import { basename } from 'node:path'
import { NR_LEVELS } from './compare.ts'
import { DIFFERENCES } from './differences.ts'
import { LIVE_DIFFERENCES } from './live.ts'
import type { Failure, LevelCount, Outcome } from './replay.ts'

const RANDOM_FAMILY = /^(shmem|disk|reclaim|kio)-\d+/
const MAX_SHOWN = 300

/** `shmem`, `disk`, `reclaim`, `kio` for generated scripts, else `scenarios`. */
export function familyOf(outcome: Outcome): string {
  return RANDOM_FAMILY.exec(outcome.trace.header.script)?.[1] ?? 'scenarios'
}

export function failureLines(outcome: Outcome, failure: Failure): string[] {
  return [
    `${basename(outcome.trace.path)}:${failure.line}: level ${failure.level}: ${shown(failure.op)}`,
    `    expected ${failure.path}: ${shown(failure.expected)}`,
    `    got      ${failure.path}: ${shown(failure.got)}`
  ]
}

function shown(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}... (${text.length} characters)`
}

export function tableLines(outcomes: readonly Outcome[]): string[] {
  const families = new Map<string, Outcome[]>()
  for (const outcome of outcomes) {
    const family = familyOf(outcome)
    families.set(family, [...(families.get(family) ?? []), outcome])
  }
  const lines = [row('family', 'traces', 'failed', 'ops', ['level 1', 'level 2', 'level 3', 'level 4', 'level 5'])]
  for (const family of [...families.keys()].sort()) lines.push(familyRow(family, families.get(family) ?? []))
  if (families.size > 1) lines.push(familyRow('all', outcomes))
  return lines
}

function familyRow(name: string, outcomes: readonly Outcome[]): string {
  const nrFailed = outcomes.filter(outcome => outcome.failure !== undefined).length
  const ops = outcomes.reduce((n, outcome) => n + outcome.nrOps, 0)
  const levels: string[] = []
  for (let level = 1; level <= NR_LEVELS; level++) levels.push(percentage(levelCount(outcomes, level)))
  return row(name, `${outcomes.length}`, `${nrFailed}`, `${ops}`, levels)
}

function row(name: string, traces: string, nrFailed: string, ops: string, levels: readonly string[]): string {
  const cells = [traces, nrFailed, ops].map(cell => cell.padStart(8))
  return name.padEnd(10) + cells.join('') + levels.map(level => level.padStart(10)).join('')
}

export function levelCount(outcomes: readonly Outcome[], level: number): LevelCount {
  const sum = { seen: 0, equal: 0 }
  for (const outcome of outcomes) {
    sum.seen += outcome.levels[level].seen
    sum.equal += outcome.levels[level].equal
  }
  return sum
}

/** Rounded down, so that 100 % means all. */
function percentage({ seen, equal }: LevelCount): string {
  return seen === 0 ? '-' : `${(Math.floor((equal / seen) * 10_000) / 100).toFixed(2)} %`
}

export function differenceLines(outcomes: readonly Outcome[]): string[] {
  const counts = new Map<string, number>()
  for (const { differences } of outcomes) {
    for (const [name, n] of differences) counts.set(name, (counts.get(name) ?? 0) + n)
  }
  if (counts.size === 0) return ['no differences on purpose were met']
  const purpose = DIFFERENCES.filter(({ name }) => counts.has(name)).map(
    ({ name, ours }) => `difference on purpose: ${name}, ${counts.get(name)} operations: ${ours}`
  )
  const live = LIVE_DIFFERENCES.filter(({ name }) => counts.has(name)).map(
    ({ name, what }) => `difference between kernels: ${name}, ${counts.get(name)} operations: ${what}`
  )
  return [...purpose, ...live]
}
