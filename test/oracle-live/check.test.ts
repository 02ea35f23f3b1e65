import { readFileSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { replay } from '../../tools/oracle/replay.ts'
import { Session } from '../../tools/oracle/session.ts'
import { readTrace } from '../../tools/oracle/trace.ts'
import { LEFT_OUT, leftOut, leftOutTable } from '../../tools/oracle-live/differences.ts'
import { ChildExecutor, LyingExecutor } from '../../tools/oracle-live/executor.ts'
import { generate } from '../../tools/oracle-live/generate.ts'
import { judge } from '../../tools/oracle-live/judge.ts'
import { check, type Options, parseOptions } from '../../tools/oracle-live/main.ts'
import { shrink } from '../../tools/oracle-live/shrink.ts'
import { rounds } from '../support/suite.ts'
import { because, close, folder, LocalExecutor, unavailable } from './support.ts'

const RUNS = rounds(5, 20)

afterAll(close)

async function run(options: Partial<Options>): Promise<{ ok: boolean; lines: string[] }> {
  const lines: string[] = []
  const all = { ...parseOptions(['--seed', '1', '--ops', '60', '--out', folder]), ...options }
  const ok = await check(all, new LocalExecutor(), line => lines.push(line))
  return { ok, lines }
}

describe.skipIf(unavailable !== '')(`against the running kernel${because}`, () => {
  it('random programs agree', async () => {
    const { ok, lines } = await run({ runs: RUNS })
    expect(lines.at(-1)).toBe(`${RUNS} passed, 0 failed`)
    expect(ok).toBe(true)
  })

  it('a wrong answer is found, shrunk, and written as a trace that replays', async () => {
    const { ok, lines } = await run({ runs: 5, lie: 'remap' })
    expect(ok).toBe(false)
    expect(lines.at(-1)).toMatch(/^\d passed, 1 failed$/)
    const path = lines.map(line => /^(\S+\.jsonl):\d+: /.exec(line)?.[1]).find(name => name !== undefined) ?? ''
    const trace = readTrace(path)
    expect(trace.ops.map(({ op }) => op)).toEqual(['remap'])
    // The lie is in it, so the replayer stumbles over the same operation; the kernel itself does not lie again.
    expect(replay(trace, 1)).toMatchObject({ nrOps: 1 })
    expect((await run({ replay: path })).lines.at(-1)).toBe('1 passed, 0 failed')
    expect((await run({ replay: path, lie: 'remap' })).lines.at(-1)).toBe('0 passed, 1 failed')
  })

  it('shrinking keeps what a failure needs and nothing else', async () => {
    const program = {
      header: { script: 'long', purpose: 'test', kernel: release() },
      steps: [
        { op: 'file', args: { id: 1, kind: 'shmem', pages: 3 } },
        { op: 'file', args: { id: 2, kind: 'shmem', pages: 3 } },
        { op: 'mmap', args: { at: 0, len: 3, prot: 'rw', flags: 'SHARED', file: 1, pgoff: 0 } },
        ...Array.from({ length: 30 }, (_, i) => ({ op: 'write', args: { at: i % 3, value: 1001 + i } })),
        { op: 'stat', args: { file: 2 } },
        { op: 'write', args: { at: 0, value: 5 } }
      ]
    }
    const liar = new LyingExecutor(new LocalExecutor(), 'stat')
    const verdict = await judge(program, liar)
    expect(verdict.failure?.at).toBe(33)
    const small = await shrink(program, verdict, liar)
    expect(small.program.steps.map(({ op }) => op)).toEqual(['file', 'stat'])
    expect(small.verdict.failure).toBeDefined()
  })

  it('an error of ours that is no answer is a failure too', async () => {
    const steps = [{ op: 'no such operation', args: {} }]
    const header = { script: 'wrong', purpose: 'test', kernel: release() }
    const silent = { run: async () => [], dispose: () => {} }
    expect((await judge({ header, steps }, silent)).failure).toMatchObject({ path: 'machine' })
  })
})

describe('the child process', () => {
  const child = (name: string, text: string): string => {
    const path = join(folder, `${name}.mjs`)
    writeFileSync(path, text)
    return path
  }

  it('says why it cannot work', async () => {
    const executor = new ChildExecutor(child('poor', "process.send({ unavailable: 'no kernel' })"), folder)
    expect(await executor.available()).toBe('no kernel')
  })

  it('may crash, which is an answer, and is replaced', async () => {
    const text = `process.send({})
      process.on('message', p => p.length === 0 ? process.kill(process.pid, 'SIGSEGV') : process.send(p.map(() => ({}))))`
    const executor = new ChildExecutor(child('crash', text), folder)
    expect(await executor.available()).toBe('')
    expect(await executor.run([])).toBe('the child ended with SIGSEGV')
    expect(await executor.run([{ op: 'maps', args: {} }])).toEqual([{}])
    executor.dispose()
  })

  it('that crashes makes a program fail', async () => {
    const program = generate(1, 20, '6.0')
    const crashing = { run: async () => 'the child ended with SIGBUS', dispose: () => {} }
    expect((await judge(program, crashing)).failure).toMatchObject({ path: 'Linux' })
  })
})

describe('programs', () => {
  it('depend on the seed alone', () => {
    expect(generate(5, 50, '6.0')).toEqual(generate(5, 50, '6.0'))
    expect(generate(5, 50, '6.0')).not.toEqual(generate(6, 50, '6.0'))
  })

  it('contain every kind of operation', () => {
    const ops = new Set(
      Array.from({ length: 30 }, (_, seed) => generate(seed, 100, '6.0').steps)
        .flat()
        .map(s => s.op)
    )
    expect(ops.size).toBe(30)
  })
})

describe('what is left out', () => {
  it('is in docs/conformance.md', () => {
    const text = readFileSync(fileURLToPath(new URL('../../docs/conformance.md', import.meta.url)), 'utf8')
    const between = text.split('<!-- left-out -->')[1]?.split('<!-- /left-out -->')[0] ?? ''
    expect(cellsOf(between)).toEqual(cellsOf(leftOutTable()))
    expect(new Set(LEFT_OUT.map(({ name }) => name)).size).toBe(LEFT_OUT.length)
  })

  it('depends on what is mapped', () => {
    const session = new Session({ script: 'empty', purpose: 'test', kernel: '6.0' })
    const name = (op: string, args: Readonly<Record<string, unknown>>): string | undefined =>
      leftOut(session, { op, args })
    expect(name('remap', { at: 0, size: 2, pgoff: 0 })).toBeUndefined()
    expect(name('madvise', { at: 0, len: 1, advice: 'REMOVE' })).toBeUndefined()
    expect(name('mremap', { at: 0, old: 1, new: 1, flags: 0 })).toBe('unmapped-source')
    expect(name('write', { at: 0, value: 1 })).toBeUndefined()
    session.end()
  })
})

describe('the command line', () => {
  it('has defaults and refuses what is no number', () => {
    expect(parseOptions([])).toMatchObject({ runs: 200, ops: 80, minutes: Infinity, replay: undefined })
    expect(parseOptions(['--minutes', '2'])).toMatchObject({ runs: Infinity, minutes: 2 })
    expect(() => parseOptions(['--runs', 'x'])).toThrow('--runs must be a number')
    expect(() => parseOptions(['--nonsense'])).toThrow()
  })
})

/** The words of each cell, whatever the padding. */
function cellsOf(table: string): string[][] {
  const rows = table.split('\n').filter(line => line.startsWith('|') && !/^\|[\s|-]+$/.test(line))
  return rows.map(row => row.split('|').map(cell => cell.trim()))
}
