#!/usr/bin/env node
/**
 * A mutation run and its verdict.
 *
 *     npm run mutants -- [what Stryker takes]
 *     npm run mutants:quick                      page tables and the reverse map, on machines of one thread
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const isQuick = process.argv[2] === '--quick'
const args = isQuick
  ? ['--mutate', 'src/pgtable/**/*.ts,src/rmap/**/*.ts', ...process.argv.slice(3)]
  : process.argv.slice(2)
const env = isQuick ? { ...process.env, MUTANTS_QUICK: '1' } : process.env

const stryker = spawnSync('stryker', ['run', ...args], { stdio: 'inherit', shell: process.platform === 'win32', env })
process.exitCode = stryker.status ?? 1
if (stryker.status === 0) {
  const score = fileURLToPath(new URL('score.mjs', import.meta.url))
  process.exitCode = spawnSync(process.execPath, [score], { stdio: 'inherit' }).status ?? 1
}
