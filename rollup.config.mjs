/**
 * What ships: the output of `tsc -p tsconfig.build.json` (in build/) flattened into one file an entry (in dist/).
 *
 * - The core is flattened because V8 does not fold a constant that another module exports, and hot code is made of
 *   such constants.
 * - The core lives in `fremap.js` alone. Two copies would be two sets of classes and two sets of module state, so
 *   the other bundles import it, and `holdsOnly` fails the build when one takes a core module in.
 * - An entry that has no source yet is reported and left out.
 */
import { chmodSync, existsSync, readFileSync } from 'node:fs'
import { relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('.', import.meta.url))
const built = path => resolve(root, 'build', path)

const { dependencies } = JSON.parse(readFileSync(resolve(root, 'package.json'), 'utf8'))
const packages = Object.keys(dependencies)

/** What each bundle is made of: `entry` and `holds` are paths in build/. */
const bundles = [
  { file: 'fremap.js', entry: 'src/index.js', holds: ['src/'] },
  // The error numbers are constants and pure functions: a second copy of them does no harm.
  { file: 'node.js', entry: 'src/stores/node-file.js', holds: ['src/stores/', 'src/abi/'] },
  { file: 'blob.js', entry: 'src/stores/blob.js', holds: ['src/stores/', 'src/abi/'] },
  { file: 'http.js', entry: 'src/stores/http-range.js', holds: ['src/stores/', 'src/abi/'] },
  { file: 'cli.js', entry: 'cli/main.js', holds: ['cli/'], executable: true }
]

const present = bundles.filter(hasSource)
if (present.length === 0) process.exit(0)

export default present.map(bundle => {
  const others = bundles.filter(other => other !== bundle && !other.executable)
  return {
    input: built(bundle.entry),
    external: id => id.startsWith('node:') || isPackage(id) || others.some(other => id === built(other.entry)),
    output: {
      file: resolve(root, 'dist', bundle.file),
      format: 'es',
      sourcemap: true,
      generatedCode: 'es2015',
      inlineDynamicImports: true,
      paths: Object.fromEntries(others.map(other => [built(other.entry), `./${other.file}`])),
      banner: bundle.executable ? '#!/usr/bin/env node' : ''
    },
    plugins: [readBuilt(), holdsOnly(bundle), bundle.executable && makeExecutable()],
    // A warning is an unresolved import or a cycle: nothing that may ship. Only what tsc writes for `using` may warn.
    onLog: (level, log, handle) => {
      if (log.code !== 'THIS_IS_UNDEFINED') handle(level === 'warn' ? 'error' : level, log)
    }
  }
})

function hasSource({ file, entry }) {
  const found = existsSync(built(entry))
  if (!found) console.warn(`rollup: dist/${file} left out: ${entry.replace(/js$/, 'ts')} does not exist`)
  return found
}

function isPackage(id) {
  return packages.some(name => id === name || id.startsWith(`${name}/`))
}

/** Reads tsc's source map with each file, so that maps lead to the TypeScript; the banner is the one `#!` line. */
function readBuilt() {
  return {
    name: 'read-built',
    load: id => ({
      code: readFileSync(id, 'utf8').replace(/^#!.*/, ''),
      map: existsSync(`${id}.map`) ? readFileSync(`${id}.map`, 'utf8') : null
    })
  }
}

function holdsOnly({ file, holds }) {
  return {
    name: 'holds-only',
    generateBundle(_options, bundle) {
      for (const id of Object.values(bundle).flatMap(chunk => chunk.moduleIds ?? [])) {
        const path = relative(built('.'), id).split(sep).join('/')
        if (!holds.some(prefix => path.startsWith(prefix))) {
          this.error(`${path} must not be bundled into ${file}: it may hold ${holds.join(', ')} only`)
        }
      }
    }
  }
}

function makeExecutable() {
  return {
    name: 'make-executable',
    writeBundle: ({ file }) => chmodSync(file, 0o755)
  }
}
