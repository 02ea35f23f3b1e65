/** A mutation run and its verdict: `npm run mutants -- [what Stryker takes]`. */
import { spawnSync } from 'node:child_process'

const { status } = spawnSync('stryker', ['run', ...process.argv.slice(2)], {
  stdio: 'inherit',
  shell: process.platform === 'win32'
})
if (status === 0) await import('./score.mjs')
else process.exitCode = status ?? 1
