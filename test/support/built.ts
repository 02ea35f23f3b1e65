/**
 * What users get: the bundles in dist/, and the tools in build/. `ensureBuilt` builds them if they are missing or older
 * than the sources (after `npm ci` they are neither).
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { LIMIT_MS } from './suite.ts'

export const ROOT: string = fileURLToPath(new URL('../../', import.meta.url))
const LOCK = join(ROOT, 'node_modules/.fremap-build')

let built: Promise<void> | undefined

/** Looks once in a process. */
export function ensureBuilt(): Promise<void> {
  built ??= build()
  return built
}

async function build(): Promise<void> {
  if (isBuilt()) return
  // Test files run at the same time: one of them builds.
  for (const end = Date.now() + LIMIT_MS; ; ) {
    try {
      mkdirSync(LOCK)
      break
    } catch {
      if (Date.now() > end) throw new Error(`${LOCK} is in the way: remove it`)
      await sleep(200)
    }
  }
  try {
    if (isBuilt()) return
    execFileSync('npm', ['run', '-s', 'build'], { cwd: ROOT, stdio: 'pipe', shell: process.platform === 'win32' })
  } catch (error) {
    const output = (error as { stdout?: Buffer }).stdout?.toString() ?? ''
    throw new Error(`npm run build failed, so there is nothing built to test:\n${output}`)
  } finally {
    rmSync(LOCK, { recursive: true, force: true })
  }
}

/** The guest program of guest/. → the WebAssembly module's bytes. */
export async function builtGuest(): Promise<Uint8Array> {
  await ensureBuilt()
  return readFileSync(join(ROOT, 'dist/guest.wasm'))
}

/** Whether what was built last is there and newer than all that it is made of. */
function isBuilt(): boolean {
  const built = mtimeMs(join(ROOT, 'dist/cli.js'))
  return ['src', 'cli', 'guest', 'tools'].every(tree =>
    readdirSync(join(ROOT, tree), { recursive: true }).every(path => mtimeMs(join(ROOT, tree, String(path))) <= built)
  )
}

function mtimeMs(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}
