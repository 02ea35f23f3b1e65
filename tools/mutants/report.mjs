#!/usr/bin/env node
/**
 * Writes docs/mutants.md from what mutation runs found.
 *
 *     node tools/mutants/report.mjs [REPORT.json...]     build/mutants/report.json if none is given
 *
 * Reports of several parts may be given together; a mutant that is in two counts as the last one says. What survives
 * must have its reason in tools/mutants/survivors.json, a list of
 *
 *     { "file", "code", "mutators"?, "kind", "reason" }
 *
 * which stands for all survivors in lines of that file (or, with a `*` at the end, of all such files) that contain
 * `code`, of those mutators only, if it names any. The first one that fits counts.
 * Survivors without a reason, and reasons without a survivor, are printed; exit code 1 if there are any of the former.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { isKilled, isLeft, readReports } from './reports.mjs'

const ROOT = new URL('../../', import.meta.url)
const KINDS = new Map([
  ['equivalent', 'no program can tell the difference'],
  ['performance', 'the result is the same, later or with more memory'],
  ['statistics', 'only a counter that people read differs'],
  ['defence', 'guards against what the rest of the code never does'],
  ['untested', 'a test could tell, and is missing']
])

const files = readReports(process.argv.slice(2))
const date = new Date().toISOString().slice(0, 10)
const rules = JSON.parse(readFileSync(new URL('tools/mutants/survivors.json', ROOT), 'utf8'))
for (const rule of rules) if (!KINDS.has(rule.kind)) throw new Error(`${rule.file}: no such kind: ${rule.kind}`)

const used = new Set()
const unexplained = []
const rooms = new Map()
const kinds = new Map()
const lists = []

for (const [name, { source, mutants }] of files) {
  const lines = source.split('\n')
  const count = { killed: 0, survived: 0 }
  const rows = new Map()
  for (const mutant of mutants) {
    if (isKilled(mutant)) count.killed++
    if (!isLeft(mutant)) continue
    count.survived++
    const code = lines[mutant.location.start.line - 1].trim()
    const rule = rules.find(r => explains(r, name, code, mutant))
    if (rule === undefined) {
      const change = mutant.replacement.replace(/\s+/g, ' ').slice(0, 60)
      unexplained.push(`${name}:${mutant.location.start.line} ${mutant.mutatorName} ${code} => ${change}`)
      continue
    }
    used.add(rule)
    kinds.set(rule.kind, (kinds.get(rule.kind) ?? 0) + 1)
    const key = `${code}\0${rule.kind}\0${rule.reason}`
    rows.set(key, (rows.get(key) ?? 0) + 1)
  }
  const room = name.split('/').slice(0, 2).join('/')
  const total = rooms.get(room) ?? { killed: 0, survived: 0 }
  rooms.set(room, { killed: total.killed + count.killed, survived: total.survived + count.survived })
  if (rows.size > 0) lists.push(survivorsOf(name, count, rows))
}

writeFileSync(new URL('docs/mutants.md', ROOT), page())
for (const line of unexplained) console.log(`no reason: ${line}`)
for (const rule of rules) if (!used.has(rule)) console.log(`no survivor: ${rule.file}: ${rule.code}`)
console.log(`docs/mutants.md written; ${unexplained.length} survivors without a reason`)
process.exitCode = unexplained.length > 0 ? 1 : 0

function explains(rule, file, code, mutant) {
  const inFile = rule.file.endsWith('*') ? file.startsWith(rule.file.slice(0, -1)) : rule.file === file
  if (!inFile || !code.includes(rule.code)) return false
  return rule.mutators === undefined || rule.mutators.includes(mutant.mutatorName)
}

function percent({ killed, survived }) {
  return `${((100 * killed) / (killed + survived)).toFixed(1)} %`
}

function survivorsOf(name, count, rows) {
  const table = [...rows].map(([key, n]) => {
    const [code, kind, reason] = key.split('\0')
    return `| \`${code.slice(0, 110).replaceAll('|', '\\|')}\` | ${n} | ${kind}: ${reason} |`
  })
  const head = `### ${name}: ${count.survived} of ${count.killed + count.survived}`
  return `${head}\n\n| line | survivors | why |\n|---|---|---|\n${table.join('\n')}\n`
}

function page() {
  const all = [...rooms.values()].reduce((a, b) => ({ killed: a.killed + b.killed, survived: a.survived + b.survived }))
  const scores = [...rooms, ['all', all]].map(
    ([room, n]) => `| ${room} | ${n.killed + n.survived} | ${n.survived} | ${percent(n)} |`
  )
  const counts = [...KINDS].map(([kind, meaning]) => `| ${kind} | ${meaning} | ${kinds.get(kind) ?? 0} |`)
  return `# Mutants

Written by \`npm run mutants:report\` after \`npm run mutants\`, ${date}. [testing.md](testing.md) says how it works.

| room | mutants | survived | killed |
|---|---|---|---|
${scores.join('\n')}

| why a mutant survives | | |
|---|---|---|
${counts.join('\n')}

## Survivors

${lists.join('\n')}`
}
