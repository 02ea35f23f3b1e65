#!/usr/bin/env node
/**
 * The verdict of a mutation run: 85 % of the mutants must be killed, those that no test of the suite reaches counted as
 * survivors.
 *
 *     node tools/mutants/score.mjs [REPORT.json...]     build/mutants/report.json if none is given; a line a room; exit
 *                                                       code 1 below 85 %
 *     node tools/mutants/score.mjs --left [REPORT...]   the lines whose mutants were not killed, for `npm run mutants
 *                                                       -- --mutate`
 *
 * The runner keeps all tests in one process: what only happens between two threads that run at once is not reached. It
 * is counted by file, and tested by test/threads and `npm run stress`.
 */
import { isKilled, left, readReports } from './reports.mjs'

const LEAST = 85
const args = process.argv.slice(2)
const files = readReports(args.filter(arg => !arg.startsWith('--')))

if (args.includes('--left')) console.log(left(files).join(','))
else verdict()

function verdict() {
  const rooms = new Map()
  const unreached = []
  const all = { killed: 0, survived: 0, missed: 0 }
  for (const [file, { mutants }] of files) {
    const name = file.split('/')[1]
    const room = rooms.get(name) ?? { killed: 0, survived: 0, missed: 0 }
    rooms.set(name, room)
    const missed = mutants.filter(({ status }) => status === 'NoCoverage').length
    for (const sum of [room, all]) {
      sum.killed += mutants.filter(isKilled).length
      sum.survived += mutants.filter(({ status }) => status === 'Survived').length
      sum.missed += missed
    }
    if (missed > 0) unreached.push([file, missed])
  }
  console.log('room       killed  survived  not reached    score  of those reached')
  for (const [name, { killed, survived, missed }] of [...rooms, ['all', all]]) {
    const cells = [String(killed).padStart(6), String(survived).padStart(8), String(missed).padStart(11)]
    const scores = [percent(killed, survived + missed).padStart(7), percent(killed, survived).padStart(16)]
    console.log(`${name.padEnd(9)}  ${[...cells, ...scores].join('  ')}`)
  }
  if (unreached.length > 0) {
    console.log('\nnot reached by tests in one process:')
    for (const [file, missed] of unreached.sort((a, b) => b[1] - a[1]))
      console.log(`  ${String(missed).padStart(4)}  ${file}`)
  }
  const score = (100 * all.killed) / Math.max(1, all.killed + all.survived + all.missed)
  if (score >= LEAST) return
  console.log(`\nonly ${score.toFixed(1)} % of the mutants were killed; ${LEAST} % are asked for`)
  process.exitCode = 1
}

function percent(killed, others) {
  return `${((100 * killed) / Math.max(1, killed + others)).toFixed(1)} %`
}
