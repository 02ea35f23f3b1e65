/**
 * Programs that end without having closed their memory. Each is a process of its own, on the bundles and a real file.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ensureBuilt, ROOT } from '../support/built.ts'

const PAGES = 40
const P = 4096
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-exit-'))
const file = path.join(directory, 'file')

beforeAll(ensureBuilt)
afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true })
})

const HEAD = `
  import fs from 'node:fs'
  import { isMainThread, threadId, Worker, workerData, parentPort } from 'node:worker_threads'
  import { Memory } from ${JSON.stringify(pathToFileURL(path.join(ROOT, 'dist/fremap.js')).href)}
  import { nodeFile, nodeFiles } from ${JSON.stringify(pathToFileURL(path.join(ROOT, 'dist/node.js')).href)}
  const file = ${JSON.stringify(file)}
  const P = ${P}
  const me = new URL(import.meta.url)
  const opened = (options = {}, store = nodeFile(file, 'r+')) => {
    const memory = new Memory({ size: '1MiB', ...options })
    const map = memory.space().map(memory.open(store), { writable: true })
    return { memory, map }
  }
`

/** Runs a program over a file of dots. → what the file has then, and stderr. */
function run(program: string, ...options: string[]) {
  fs.writeFileSync(file, Buffer.alloc(PAGES * P, '.'))
  const script = path.join(directory, 'program.mjs')
  fs.writeFileSync(script, HEAD + program)
  const { status, stderr, stdout } = spawnSync(process.execPath, [...options, script], { encoding: 'utf8' })
  const bytes = fs.readFileSync(file)
  return { status, stderr, stdout, first: bytes.toString('latin1', 0, 1), bytes }
}

const right = { status: 0, stderr: '', first: 'A' }

describe('stores that were not synced are in the file', () => {
  test.each([
    ['at the normal end', ''],
    ['after unmap', 'map.unmap()'],
    ['at process.exit', 'process.exit(0)'],
    ['through a page that is lent still', `const lent = map.borrow(0, 'write'); map.sync(); lent.bytes[0] = 65`],
    ['of a memory for threads', 'new Memory({ size: "1MiB" }).close()', '{ threads: 3 }']
  ])('%s', (_, tail, options = '{}') => {
    const program = `const { memory, map } = opened(${options}); map.setUint8(0, 65); map.setUint8(39 * P, 66)\n`
    const ended = run(program + tail)
    expect(ended).toMatchObject(right)
    expect(ended.bytes[39 * P]).toBe(66)
  })

  test('after an exception that nobody catches', () => {
    const { status, first } = run(`const { map } = opened(); map.setUint8(0, 65); throw new Error('over')`)
    expect([status, first]).toEqual([1, 'A'])
  })

  test('when a store ends the program, in the middle of a call on it', () => {
    const { status, stderr, first } = run(`
      const inner = nodeFile(file, 'r+')
      let calls = 0
      const store = { name: 'disk', identity: 'x', readOnly: false, durable: true, size: () => inner.size(),
        read: (...a) => inner.read(...a), flush: () => 0, truncate: n => inner.truncate(n), punch: () => -95, close: () => 0,
        write: (...a) => calls++ === 0 ? process.exit(3) : inner.write(...a) }
      const { map } = opened({}, store)
      map.setUint8(0, 65)
      map.sync()`)
    expect([status, stderr, first]).toEqual([3, '', 'A'])
  })

  test('also past the old end of the file, with its size', () => {
    const { bytes, stderr } = run(`const { memory } = opened(); const f = memory.open(nodeFile(file, 'r+'))
      f.write(Buffer.from('end'), 50 * P); f.truncate(60 * P)`)
    expect([stderr, bytes.length, bytes.toString('latin1', 50 * P, 50 * P + 3)]).toEqual(['', 60 * P, 'end'])
  })

  test('of a memory that nobody refers to any more, while the program goes on', () => {
    const program = `
      (() => opened().map.setUint8(0, 65))()
      const open = () => fs.readdirSync('/proc/self/fd').filter(fd => {
        try { return fs.readlinkSync('/proc/self/fd/' + fd) === file } catch { return false }
      }).length
      const before = process.platform === 'linux' ? open() : 1
      const look = () => {
        gc()
        if (fs.readFileSync(file, 'latin1')[0] !== 'A') return setTimeout(look, 1)
        console.log(before, process.platform === 'linux' ? open() : 0, process.listenerCount('exit'))
      }
      look()`
    const { stdout, ...ended } = run(program, '--expose-gc')
    expect(ended).toMatchObject(right)
    expect(stdout).toBe('1 0 0\n')
  })

  test('of a memory that is looked at by a mapping alone, it stays open', () => {
    const program = `
      const map = (() => opened().map)()
      map.setUint8(0, 66)
      for (let i = 0; i < 5; i++) { gc(); await new Promise(resolve => setImmediate(resolve)) }
      map.setUint8(0, 65)
      map.sync()
      console.log(fs.readFileSync(file, 'latin1')[0])`
    expect(run(program, '--expose-gc')).toMatchObject({ ...right, stdout: 'A\n' })
  })
})

describe('threads', () => {
  const shared = (worker: string, main: string) => `
    if (isMainThread) {
      const { memory, map } = opened({ threads: 3 })
      const worker = new Worker(me, { workerData: { memory: memory.handle, map: map.handle } })
      memory.watch(worker)
      ${main}
    } else {
      const memory = Memory.attach(workerData.memory, { stores: [nodeFiles], thread: threadId })
      const map = memory.adopt(workerData.map)
      ${worker}
    }`

  test('what a worker stored that has ended, the main thread writes', () => {
    expect(run(shared('map.setUint8(0, 65)', ''))).toMatchObject(right)
  })

  test('the main thread writes what a worker stored that is at work', () => {
    const main = `worker.once('message', () => process.exit(0))`
    const worker = `map.setUint8(0, 65); parentPort.postMessage(0); for (;;) map.setUint8(P, 1)`
    expect(run(shared(worker, main))).toMatchObject(right)
  })

  test('a worker that ends writes what it opened itself', () => {
    const main = 'map.setUint8(9, 9)'
    const worker = `
      const other = memory.open(nodeFile(file + 2, 'w+'))
      other.write(Buffer.from('A'), 0)`
    expect(run(shared(worker, main)).stderr).toBe('')
    expect(fs.readFileSync(`${file}2`, 'latin1')).toBe('A')
  })

  test('a memory of a worker is written when the worker ends', () => {
    const program = `
      if (isMainThread) new Worker(me).once('exit', () => console.log(fs.readFileSync(file, 'latin1')[0]))
      else opened().map.setUint8(0, 65)`
    expect(run(program)).toMatchObject({ ...right, stdout: 'A\n' })
  })

  test('threads of a memory that the first one has dropped attach and store', () => {
    const program = `
      if (isMainThread) {
        const start = () => {
          const { memory, map } = opened({ threads: 2 })
          return { memory: memory.handle, map: map.handle }
        }
        const given = start()
        for (let i = 0; i < 5; i++) { gc(); await new Promise(resolve => setImmediate(resolve)) }
        new Worker(me, { workerData: given })
      } else {
        const memory = Memory.attach(workerData.memory, { stores: [nodeFiles], thread: threadId })
        memory.adopt(workerData.map).setUint8(0, 65)
      }`
    expect(run(program, '--expose-gc')).toMatchObject(right)
  })
})

describe('what cannot be written is told', () => {
  const failing = (call: string) => `
    const inner = nodeFile(file, 'r+')
    const store = { name: 'disk', identity: 'x', readOnly: false, durable: true, size: () => inner.size(),
      read: (...a) => inner.read(...a), write: (...a) => inner.write(...a), flush: () => 0,
      truncate: n => inner.truncate(n), punch: () => -95, close: () => inner.close(), ${call} }
    const { memory, map } = opened({}, store)
    map.setUint8(0, 65)
    map.setUint8(7 * P, 65)\n`

  test('by a store that is full', () => {
    const { status, stderr } = run(failing('write: () => -28'))
    expect(status).toBe(0)
    expect(stderr).toBe(
      'fremap: 2 changed pages of disk (8192 bytes) could not be written when the thread ended: ENOSPC: no space left\n'
    )
  })

  test('where other files are written all the same', () => {
    const { stderr, first } = run(`${failing('write: () => -28')}
      memory.space().map(memory.open(nodeFile(file, 'r+')), { writable: true }).setUint8(0, 65)`)
    expect(stderr.split('\n')).toHaveLength(2)
    expect(first).toBe('A')
  })

  test('and a memory that was closed, or that has nothing to write, says nothing', () => {
    expect(
      run('const { memory, map } = opened(); map.setUint8(0, 65); memory.close(); opened().map.getUint8(0)')
    ).toEqual(expect.objectContaining(right))
  })

  test('one listener for all memories, and none when all are closed', () => {
    const { stdout } = run(`
      const before = process.listenerCount('exit')
      const memories = Array.from({ length: 20 }, () => new Memory({ size: '1MiB' }))
      console.log(process.listenerCount('exit') - before)
      for (const memory of memories) memory.close()
      console.log(process.listenerCount('exit') - before)`)
    expect(stdout).toBe('1\n0\n')
  })
})
