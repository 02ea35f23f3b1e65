/** Installs the packages of `bench/peers`, which are no dependencies of the project. */
import { spawnSync } from 'node:child_process'

/** They are optional: one that does not build here is left out, and its rows are skipped by name. → what went wrong. */
export function installPeers(directory: string): string | undefined {
  const args = ['install', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error']
  const { status, error, stderr } = spawnSync('npm', args, {
    cwd: directory,
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    shell: process.platform === 'win32'
  })
  if (error !== undefined) return error.message
  return status === 0 ? undefined : stderr.trim() || `npm ended with ${status}`
}
