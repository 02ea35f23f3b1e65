/**
 * The verdict of a mutation run: of the mutants that some test of the suite reaches, 85 % must be killed.
 *
 *     node tools/mutants/score.mjs     after `stryker run`; a line a room; exit code 1 below 85 %
 *
 * The runner keeps all tests in one process, so what only a second thread or a promise reaches is not reached: it is counted apart,
 * by file, and tested by test/threads, test/later and `npm run stress`.
 */
import { readFileSync } from 'node:fs'

const LEAST = 85
const path = process.env.MUTANTS_REPORT ?? 'build/mutants/report.json'
const { files } = JSON.parse(readFileSync(path, 'utf8'))
const rooms = new Map()
const unreached = []

for (const [file, { mutants }] of Object.entries(files)) {
  const count = status => mutants.filter(mutant => mutant.status === status).length
  const killed = count('Killed') + count('Timeout')
  const survived = count('Survived')
  const missed = count('NoCoverage')
  const room = rooms.get(file.split('/')[1]) ?? { killed: 0, survived: 0, missed: 0 }
  rooms.set(file.split('/')[1], {
    killed: room.killed + killed,
    survived: room.survived + survived,
    missed: room.missed + missed
  })
  if (missed > 0) unreached.push([file, missed])
}

const all = { killed: 0, survived: 0, missed: 0 }
for (const room of rooms.values()) for (const key of Object.keys(all)) all[key] += room[key]
const score = ({ killed, survived }) => (100 * killed) / Math.max(1, killed + survived)

console.log('room       killed  survived  not reached   score')
for (const [name, room] of [...rooms, ['all', all]]) {
  const { killed, survived, missed } = room
  const cells = [String(killed).padStart(6), String(survived).padStart(8), String(missed).padStart(11)]
  console.log(`${name.padEnd(9)}  ${cells.join('  ')}  ${score(room).toFixed(1).padStart(5)} %`)
}
if (unreached.length > 0) {
  console.log('\nnot reached by tests of one thread:')
  for (const [file, missed] of unreached.sort((a, b) => b[1] - a[1]))
    console.log(`  ${String(missed).padStart(4)}  ${file}`)
}
if (score(all) < LEAST) {
  console.log(`\nonly ${score(all).toFixed(1)} % of the mutants that are reached were killed; ${LEAST} % are asked for`)
  process.exitCode = 1
}
