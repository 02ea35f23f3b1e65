/**
 * The HTTP store against servers that developers have at hand: Vite's, and busybox's (skipped where it is not
 * installed).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { type PreviewServer, preview } from 'vite'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { httpRange } from '../../src/stores/http-range.ts'
import { expectBytes, pattern, readLater } from '../stores/conformance.ts'

const SIZE = 300_000
const HAS_BUSYBOX = spawnSync('busybox', ['httpd', '--help']).status === 0
if (!HAS_BUSYBOX) console.warn('test/extra/real-servers.test.ts: busybox skipped: apt-get install busybox')

let root = ''
let vite: PreviewServer | undefined
let busybox: ChildProcess | undefined

beforeAll(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-servers-'))
  for (const [name, size] of [
    ['file', SIZE],
    ['small', 5],
    ['empty', 0]
  ] as const) {
    fs.writeFileSync(path.join(root, name), pattern(size))
    // Old enough to be pinned by.
    fs.utimesSync(path.join(root, name), 1_700_000_000, 1_700_000_000)
  }
})

afterAll(async () => {
  busybox?.kill()
  await vite?.close()
  fs.rmSync(root, { recursive: true, force: true })
})

async function expectServed(origin: string): Promise<void> {
  for (const [name, size] of [
    ['file', SIZE],
    ['small', 5],
    ['empty', 0]
  ] as const) {
    const store = await httpRange(`${origin}/${name}`, { backoffMs: 1 })
    expect(await store.size()).toBe(size)
    expectBytes(await readLater(store, 0, size), pattern(size))
    expectBytes(await readLater(store, 0, 1), pattern(size).slice(0, 1))
    expectBytes(await readLater(store, 3, 1000), pattern(size).slice(3, 1003))
    await store.close()
  }
}

test('Vite', async () => {
  vite = await preview({
    root,
    configFile: false,
    logLevel: 'silent',
    build: { outDir: '.' },
    preview: { host: '127.0.0.1' }
  })
  await expectServed(`http://127.0.0.1:${(vite.httpServer.address() as net.AddressInfo).port}`)
})

test.skipIf(!HAS_BUSYBOX)('busybox', async () => {
  const port = await freePort()
  busybox = spawn('busybox', ['httpd', '-f', '-p', `127.0.0.1:${port}`, '-h', root], { stdio: 'ignore' })
  while (!(await listens(port))) await new Promise(resolve => setTimeout(resolve, 20))
  await expectServed(`http://127.0.0.1:${port}`)
})

async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
