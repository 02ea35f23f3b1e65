#!/usr/bin/env node
/**
 * Checks the layers of the house: who may import whom, in which order, and how long a file may grow.
 *
 *     node tools/check-layers.mjs [root]     one line a violation, `file:line: message`; exit code 1 if any
 *
 * Rules
 *  1. A room of src/ imports itself and lower floors, by the table below. Rooms on one floor do not see each other.
 *  2. stores/ imports abi, base and store alone; a file in it knows the modules of one platform (`node:`, ...).
 *  3. observe/ imports floors 0 to 9; only syscall/, api/ and src/index.ts import it.
 *  4. Floors 0 to 9 and observe/ import nothing from outside src/: no `node:` module, no package.
 *  5. cli/ and inspector/ import src/index.ts and src/stores/ alone. Nothing in src/ imports src/index.ts.
 *  6. No import cycles between files.
 *  7. No file longer than MAX_LINES.
 *  8. No comment wider than MAX_COLUMNS: the formatter leaves comments as they are.
 *
 * src/index.ts, bench/, tools/ and test/ may import anything. A type-only import is an import, except for rule 6,
 * because it is gone before the code runs. `import { type T }` is not type-only: `import {}` stays behind.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { join, posix, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const FLOORS = new Map([
  ['abi', 0],
  ['base', 1],
  ['sync', 2],
  ['frame', 3],
  ['store', 3],
  ['pgtable', 4],
  ['notify', 4],
  ['vma', 5],
  ['cache', 5],
  ['swap', 5],
  ['mmu', 5],
  ['rmap', 6],
  ['reclaim', 7],
  ['mm', 8],
  ['kernel.ts', 9],
  ['syscall', 10],
  ['api', 11],
  ['worker', 12]
])
const MACHINE_TOP = 9
const SEEN_BY_STORES = ['abi', 'base', 'store']
const SEES_OBSERVE = ['syscall', 'api']
const SEEN_FROM_OUTSIDE = ['index.ts', 'stores']
const OUTSIDE = ['/cli', '/inspector']
const TREES = ['src', 'cli', 'inspector', 'bench', 'tools', 'test']
const MAX_LINES = 600
const MAX_COLUMNS = 120

/**
 * @typedef {{ file: string, line: number, message: string }} Violation
 * @typedef {{ specifier: string, line: number, typeOnly: boolean }} Import
 */

/**
 * Checks the tree under `root`. Paths in the result are relative to it, with forward slashes.
 * @param {string} root
 * @returns {{ violations: Violation[], nrFiles: number, nrImports: number }}
 */
export function checkLayers(root) {
  const violations = []
  const files = new Map(listFiles(root).map(file => [file, readFileSync(join(root, file), 'utf8')]))
  const graph = new Map()
  let nrImports = 0

  for (const [file, text] of files) {
    const report = (line, message) => message && violations.push({ file, line, message })
    const room = roomOf(file)
    if (file.startsWith('src/')) report(1, refusedRoom(room))
    report(MAX_LINES + 1, refusedLength(text))
    for (const [i, line] of text.split('\n').entries()) report(i + 1, refusedWidth(line))

    const imports = importsOf(file, text)
    nrImports += imports.length
    graph.set(file, [])
    const platforms = new Set()
    for (const { specifier, line, typeOnly } of imports) {
      if (!specifier.startsWith('.')) {
        report(line, refusedExternal(room, specifier, platforms))
        continue
      }
      const target = resolveFile(file, specifier, files)
      report(line, refusedRoomImport(room, roomOf(target)))
      if (!typeOnly && files.has(target)) graph.get(file).push({ target, line })
    }
  }
  if (![...files.keys()].some(file => file.startsWith('src/'))) {
    violations.push({ file: 'src', line: 1, message: 'no source files: is this the root of the project?' })
  }
  violations.push(...findCycles(graph))
  violations.sort((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1))
  return { violations, nrFiles: files.size, nrImports }
}

function listFiles(root) {
  return TREES.filter(tree => existsSync(join(root, tree)))
    .flatMap(tree => readdirSync(join(root, tree), { recursive: true }).map(path => join(tree, path)))
    .map(path => path.split(sep).join('/'))
    .filter(path => /\.[cm]?[jt]sx?$/.test(path) && !path.includes('/node_modules/'))
    .sort()
}

/** `abi` for src/abi/errno.ts, `kernel.ts` for src/kernel.ts, `/cli` for cli/main.ts. */
function roomOf(path) {
  const [top, room] = path.split('/')
  return top === 'src' ? room : `/${top}`
}

// Each `refused...` returns why something is refused, or undefined.

function refusedRoom(room) {
  if (FLOORS.has(room) || ['index.ts', 'stores', 'observe'].includes(room)) return
  return `${room} is not in the floor table of tools/check-layers.mjs`
}

function refusedLength(text) {
  const nrLines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0)
  if (nrLines > MAX_LINES) return `${nrLines} lines: split at ${MAX_LINES}`
}

function refusedWidth(line) {
  if (line.length > MAX_COLUMNS && /^\s*(\/\/|\/?\*)/.test(line)) {
    return `a comment of ${line.length} columns: wrap it at ${MAX_COLUMNS}`
  }
}

function refusedRoomImport(from, to) {
  const isFree = from === 'index.ts' || (from.startsWith('/') && !OUTSIDE.includes(from))
  if (from === to || isFree) return
  if (OUTSIDE.includes(from)) {
    return SEEN_FROM_OUTSIDE.includes(to) ? undefined : `${from.slice(1)}/ may import src/index.ts and src/stores/ only`
  }
  if (to === 'index.ts') return 'src/index.ts is for those outside src/'
  if (from === 'stores') {
    return SEEN_BY_STORES.includes(to) ? undefined : `stores may import ${SEEN_BY_STORES.join(', ')} only, not ${to}`
  }
  if (from === 'observe') {
    return FLOORS.get(to) <= MACHINE_TOP ? undefined : `observe may import floors 0 to ${MACHINE_TOP} only, not ${to}`
  }
  if (to === 'observe') return SEES_OBSERVE.includes(from) ? undefined : `${from} may not import observe`
  if (FLOORS.get(to) < FLOORS.get(from)) return
  const where = FLOORS.has(to) ? `floor ${FLOORS.get(to)}` : 'no floor below'
  return `${from} (floor ${FLOORS.get(from)}) may not import ${to} (${where})`
}

/** `platforms` collects what this file of stores/ has imported so far. */
function refusedExternal(room, specifier, platforms) {
  if (room === 'observe' || FLOORS.get(room) <= MACHINE_TOP) {
    return `${room} may import nothing from outside src/, not ${specifier}`
  }
  if (room !== 'stores') return
  const platform = isBuiltin(specifier) ? 'node' : /^(\w+):(?!\/)/.exec(specifier)?.[1]
  if (platform === undefined) return `stores may import modules of a platform only, not ${specifier}`
  platforms.add(platform)
  if (platforms.size > 1) return `one platform a file: ${[...platforms].join(' and ')}`
}

/** @returns {Import[]} */
function importsOf(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest)
  const imports = []
  const add = (node, literal, typeOnly) => {
    if (!literal || !ts.isStringLiteralLike(literal)) return
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1
    imports.push({ specifier: literal.text, line, typeOnly })
  }
  const visit = node => {
    if (ts.isImportDeclaration(node)) add(node, node.moduleSpecifier, node.importClause?.isTypeOnly ?? false)
    else if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly)
    else if (ts.isImportTypeNode(node)) add(node, node.argument.literal, true)
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node, node.arguments[0], false)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return imports
}

/** Both `./x.ts` and `./x.js` name x.ts. */
function resolveFile(file, specifier, files) {
  const path = posix.join(posix.dirname(file), specifier)
  const typescript = path.replace(/\.([cm]?)js$/, '.$1ts')
  return !files.has(path) && files.has(typescript) ? typescript : path
}

/** Depth first: an import of a file that is still being visited closes a cycle, which is reported once, there. */
function findCycles(graph) {
  const violations = []
  const done = new Set()
  const path = []
  const visit = file => {
    path.push(file)
    for (const { target, line } of graph.get(file)) {
      const start = path.indexOf(target)
      if (start >= 0) {
        const message = `import cycle: ${[...path.slice(start), target].join(' → ')}`
        violations.push({ file, line, message })
      } else if (!done.has(target)) visit(target)
    }
    path.pop()
    done.add(file)
  }
  for (const file of graph.keys()) if (!done.has(file)) visit(file)
  return violations
}

function main() {
  const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url))
  const { violations, nrFiles, nrImports } = checkLayers(root)
  for (const { file, line, message } of violations) console.log(`${file}:${line}: ${message}`)
  console.log(`layers: ${nrFiles} files, ${nrImports} imports, ${violations.length} violations`)
  process.exitCode = violations.length === 0 ? 0 : 1
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main()
