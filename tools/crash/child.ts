/**
 * The process that is killed: runs the program of a seed on a real file until that happens.
 *
 *     node child.js SEED FILE
 *
 * After each acknowledged sync it writes a line with the number of syncs so far to standard output, by a call that has
 * handed the line over when it returns.
 */
import fs from 'node:fs'
import { nodeFile } from '../../src/stores/node-file.ts'
import { Executor, type Medium } from './executor.ts'
import { KILL_OPS, killProgram } from './kill-program.ts'

const seed = Number(process.argv[2])
const file = process.argv[3]
const medium: Medium = {
  open: () => nodeFile(file, 'r+'),
  position: () => 0,
  contents: () => fs.readFileSync(file),
  acknowledged: syncs => {
    fs.writeSync(1, `${syncs}\n`)
  }
}
const { config, operation } = killProgram(seed)
const executor = new Executor(config, medium)
fs.writeSync(1, '0\n')
for (let i = 0; i < KILL_OPS; i++) executor.step(operation(i))
executor.finish()
