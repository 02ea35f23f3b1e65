/**
 * The process that is killed: runs the program of a seed on a real file until that happens. Or one that ends by itself,
 * after some operations, without having closed anything.
 *
 *     node child.js SEED FILE
 *     node child.js SEED FILE OPERATIONS end|exit|throw|collect
 *
 * After each acknowledged sync it writes a line with the number of syncs so far to standard output, by a call that has
 * handed the line over when it returns.
 */
import fs from 'node:fs'
import { remember } from '../../src/api/exit.ts'
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
let executor: Executor | undefined = new Executor(config, medium)
const [, , , , operations, how] = process.argv
if (operations === undefined) {
  fs.writeSync(1, '0\n')
  for (let i = 0; i < KILL_OPS; i++) executor.step(operation(i))
  executor.finish()
} else {
  remember(executor.kernel, undefined, false)
  for (let i = 0; i < Number(operations); i++) executor.step(operation(i))
  if (how === 'exit') process.exit(0)
  if (how === 'throw') throw new Error('the program ends here')
  if (how === 'collect') {
    executor = undefined
    process.once('beforeExit', () => gc?.())
  }
}
