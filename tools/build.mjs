/**
 * `npm run build`: compiles what has changed since the last build, and bundles it. Nothing changed: nothing is done.
 *
 *   tsc       incremental (build/tsc.tsbuildinfo): src, cli, bench and tools to build/, types to dist/types
 *   rollup    when tsc wrote anything, or a bundle is missing
 *   asc       when a file of guest/ is newer than dist/guest.wasm
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')
const bin = name => join(root, 'node_modules', '.bin', name)
const info = join(root, 'build', 'tsc.tsbuildinfo')
const bundles = ['fremap.js', 'node.js', 'http.js', 'blob.js', 'cli.js'].map(name => join(root, 'dist', name))
const guest = join(root, 'dist', 'guest.wasm')

const run = (program, ...args) => {
  const { status, signal } = spawnSync(bin(program), args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? (signal === null ? 1 : 2))
}
const timeOf = path => (existsSync(path) ? statSync(path).mtimeMs : 0)
const newest = (folder, skip) =>
  Math.max(
    ...readdirSync(folder, { recursive: true })
      .filter(name => !skip?.test(name))
      .map(name => timeOf(join(folder, name)))
  )

// Its record would say that they are still there.
if (!existsSync(join(root, 'dist', 'types')) || !existsSync(join(root, 'build', 'src'))) rmSync(info, { force: true })

const inputs = Math.max(
  ...['src', 'cli', 'bench', 'tools'].map(name => newest(join(root, name))),
  ...['package.json', 'tsconfig.json', 'tsconfig.build.json', 'rollup.config.mjs'].map(name => timeOf(join(root, name)))
)
if (Math.min(...[info, ...bundles].map(timeOf)) < inputs) {
  run('tsc', '-p', 'tsconfig.build.json')
  run('rollup', '-c', '--silent')
}
if (timeOf(guest) < newest(join(root, 'guest'))) run('asc', '--config', 'guest/asconfig.json')
