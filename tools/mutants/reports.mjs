/**
 * What mutation runs found, put together: a run of everything, and runs of parts of it that came later.
 *
 *   readReports(paths)     → by file name: `{ source, mutants }`. A mutant that is in several reports counts as the
 *                          last one says; a file whose source has changed since is the last one's alone
 *   left(files)            the lines that have mutants which were not killed, as Stryker's --mutate takes them
 */
import { readFileSync } from 'node:fs'

export const REPORT = process.env.MUTANTS_REPORT ?? 'build/mutants/report.json'

export function readReports(paths) {
  const files = new Map()
  for (const path of paths.length > 0 ? paths : [REPORT]) {
    for (const [name, file] of Object.entries(JSON.parse(readFileSync(path, 'utf8')).files)) {
      const known = files.get(name)
      const mutants = known?.source === file.source ? known.mutants : new Map()
      for (const mutant of file.mutants) mutants.set(keyOf(mutant), mutant)
      files.set(name, { source: file.source, mutants })
    }
  }
  return new Map(
    [...files].sort().map(([name, { source, mutants }]) => [name, { source, mutants: [...mutants.values()] }])
  )
}

export function isKilled({ status }) {
  return status === 'Killed' || status === 'Timeout'
}

/** Survived, or reached by no test. */
export function isLeft({ status }) {
  return status === 'Survived' || status === 'NoCoverage'
}

export function left(files) {
  const ranges = []
  for (const [name, { mutants }] of files) {
    // A mutant is tried if all of its lines are in one range.
    let last
    const lines = mutants.filter(isLeft).map(({ location: { start, end } }) => [start.line, end.line])
    for (const [from, to] of lines.sort((a, b) => a[0] - b[0])) {
      if (last === undefined || from > last.to) ranges.push((last = { name, from, to }))
      else last.to = Math.max(last.to, to)
    }
  }
  return ranges.map(({ name, from, to }) => `${name}:${from}-${to}`)
}

function keyOf({ mutatorName, replacement, location: { start, end } }) {
  return [mutatorName, replacement, start.line, start.column, end.line, end.column].join('\0')
}
