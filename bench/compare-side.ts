/**
 * A process of `bench/compare.ts` that measures our side of rows on the build in argv[2], one request at a time.
 *
 * `open` a row, `run` it any number of times, `close` it, which has no answer. It ends when its parent lets go.
 */
import { join } from 'node:path'
import { Context } from './context.ts'
import { projectRoot } from './flags.ts'
import { collectGarbage, type Sample, type Side, Skip } from './harness.ts'
import { ROWS } from './rows.ts'
import { loadSubject, type Subject } from './subject.ts'

export type Request =
  | { readonly kind: 'open'; readonly row: string }
  | { readonly kind: 'run' }
  | { readonly kind: 'close' }

export type Answer =
  | { readonly kind: 'opened' }
  | { readonly kind: 'sample'; readonly sample: Sample }
  | { readonly kind: 'skip'; readonly reason: string }
  | { readonly kind: 'error'; readonly reason: string }

const [buildDirectory, scale] = process.argv.slice(2)
const context = new Context({ quick: scale === 'quick', sources: join(projectRoot(), 'bench'), buildDirectory })
let subject: Subject | undefined
let side: Side | undefined

async function answer(request: Request): Promise<Answer | undefined> {
  if (request.kind === 'open') {
    const row = ROWS.find(({ name }) => name === request.row)
    if (row === undefined) throw new Error(`there is no row ${request.row}`)
    subject ??= await loadSubject(buildDirectory)
    side = await row.ours(context, subject)
    return { kind: 'opened' }
  }
  if (request.kind === 'close') {
    const open = side
    side = undefined
    open?.cleanup()
    return undefined
  }
  if (side === undefined) throw new Error('no row is open')
  collectGarbage()
  return { kind: 'sample', sample: await side.run() }
}

let last: Promise<void> = Promise.resolve()

async function reply(request: Request): Promise<void> {
  let found: Answer | undefined
  try {
    found = await answer(request)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    found = { kind: error instanceof Skip ? 'skip' : 'error', reason }
    if (request.kind === 'close') process.stderr.write(`warning: cleanup: ${reason}\n`)
  }
  if (found !== undefined && request.kind !== 'close') process.send?.(found)
}

process.on('message', (request: Request) => {
  last = last.then(() => reply(request))
})
process.on('disconnect', () => {
  void last.then(() => {
    context.close()
    process.exit(0)
  })
})
// The parent decides when to end: it disconnects, also when it is interrupted.
process.on('SIGINT', () => {})
