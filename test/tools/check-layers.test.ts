import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'

interface Report {
  violations: { file: string; line: number; message: string }[]
  nrFiles: number
  nrImports: number
}

const tool = fileURLToPath(new URL('../../tools/check-layers.mjs', import.meta.url))
const { checkLayers }: { checkLayers(root: string): Report } = await import(/* @vite-ignore */ tool)

const roots: string[] = []

afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true })
})

/** Writes a small project: the text of each file by its path. */
function project(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'check-layers-'))
  roots.push(root)
  for (const [path, text] of Object.entries({ 'src/abi/errno.ts': 'export const EIO = 5\n', ...files })) {
    mkdirSync(join(root, dirname(path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return root
}

/** What the check says of these files, as it prints it. */
function check(files: Record<string, string>): string[] {
  return checkLayers(project(files)).violations.map(({ file, line, message }) => `${file}:${line}: ${message}`)
}

/** What it says of a file at `from` that imports `specifier`. */
function checkImport(from: string, specifier: string): string[] {
  return check({ [from]: `import '${specifier}'\n` })
}

describe('floors of src/', () => {
  const floors = [
    ['abi'],
    ['base'],
    ['sync'],
    ['frame', 'store'],
    ['pgtable', 'notify'],
    ['vma', 'cache', 'swap', 'mmu'],
    ['rmap'],
    ['reclaim'],
    ['mm'],
    ['kernel.ts'],
    ['syscall'],
    ['api'],
    ['worker']
  ]
  const fileIn = (room: string) => (room.endsWith('.ts') ? `src/${room}` : `src/${room}/x.ts`)
  const rooms = floors.flatMap((names, floor) => names.map(room => ({ room, floor })))

  it('hold for every pair of rooms', () => {
    for (const from of rooms) {
      const targets = rooms.filter(to => to.room !== from.room)
      const root = project({
        [fileIn(from.room)]: targets.map(to => `import '${relativeTo(fileIn(from.room), fileIn(to.room))}'\n`).join('')
      })
      const refused = checkLayers(root).violations.map(({ line }) => targets[line - 1]?.room)
      expect(refused, from.room).toEqual(targets.filter(to => to.floor >= from.floor).map(to => to.room))
    }
  })

  it('say which floors are meant, and where', () => {
    expect(check({ 'src/base/bits.ts': "\n\nimport { PAGE } from '../frame/units.ts'\n" })).toEqual([
      'src/base/bits.ts:3: base (floor 1) may not import frame (floor 3)'
    ])
    expect(checkImport('src/vma/tree.ts', '../swap/area.ts')).toEqual([
      'src/vma/tree.ts:1: vma (floor 5) may not import swap (floor 5)'
    ])
  })

  it('let a room import itself, at any depth', () => {
    expect(
      check({
        'src/mm/fault.ts': "import './anon/cow.ts'\nimport '../abi/errno.ts'\n",
        'src/mm/anon/cow.ts': "import '../populate.ts'\nimport '../../abi/errno.ts'\n",
        'src/mm/populate.ts': ''
      })
    ).toEqual([])
  })

  it.each([
    ["import type { A } from '../mm/a.ts'"],
    ["import { type A } from '../mm/a.ts'"],
    ["export { a } from '../mm/a.ts'"],
    ["export * from '../mm/a.ts'"],
    ["export type { A } from '../mm/a.ts'"],
    ["export const a = () => import('../mm/a.ts')"],
    ["export let a: import('../mm/a.ts').A"],
    ["import {\n  a\n} from '../mm/a.js'"]
  ])('see %s', text => {
    expect(check({ 'src/vma/x.ts': text, 'src/mm/a.ts': '' })).toEqual([
      'src/vma/x.ts:1: vma (floor 5) may not import mm (floor 8)'
    ])
  })

  it('do not see comments and strings', () => {
    const text = "// import '../mm/a.ts'\n/* export * from '../mm/a.ts' */\nexport const a = `import '../mm/a.ts'`\n"
    expect(check({ 'src/vma/x.ts': text })).toEqual([])
  })

  it('have a place for every file', () => {
    expect(check({ 'src/attic/x.ts': '', 'src/loose.ts': '' })).toEqual([
      'src/attic/x.ts:1: attic is not in the floor table of tools/check-layers.mjs',
      'src/loose.ts:1: loose.ts is not in the floor table of tools/check-layers.mjs'
    ])
    expect(checkImport('src/worker/x.ts', '../attic/x.ts')).toHaveLength(1)
    expect(checkImport('src/worker/x.ts', '../../test/x.ts')).toHaveLength(1)
  })
})

describe('src/index.ts', () => {
  it('imports anything', () => {
    const specifiers = ['./abi/errno.ts', './worker/x.ts', './stores/memory.ts', './observe/stats.ts', 'node:fs', 'pkg']
    expect(check({ 'src/index.ts': specifiers.map(name => `import '${name}'\n`).join('') })).toEqual([])
  })

  it.each(['api', 'worker', 'stores', 'observe'])('is not imported by %s', room => {
    expect(checkImport(`src/${room}/x.ts`, '../index.ts')).toEqual([
      `src/${room}/x.ts:1: src/index.ts is for those outside src/`
    ])
  })
})

describe('stores/', () => {
  it.each(['../abi/errno.ts', '../base/bits.ts', '../store/store.ts', './memory.ts', 'node:fs', 'fs', 'bun:ffi'])(
    'may import %s',
    specifier => {
      expect(checkImport('src/stores/x.ts', specifier)).toEqual([])
    }
  )

  it.each(['../sync/x.ts', '../frame/x.ts', '../api/x.ts', '../observe/x.ts', '../../cli/x.ts'])(
    'may not import %s',
    specifier => {
      const messages = checkImport('src/stores/x.ts', specifier)
      expect(messages).toEqual([
        expect.stringMatching(/^src\/stores\/x\.ts:1: stores may import abi, base, store only/)
      ])
    }
  )

  it('may not import a package', () => {
    expect(checkImport('src/stores/x.ts', 'pkg')).toEqual([
      'src/stores/x.ts:1: stores may import modules of a platform only, not pkg'
    ])
  })

  it('know one platform a file', () => {
    expect(check({ 'src/stores/x.ts': "import 'node:fs'\nimport 'fs'\nimport 'bun:ffi'\n" })).toEqual([
      'src/stores/x.ts:3: one platform a file: node and bun'
    ])
    expect(check({ 'src/stores/x.ts': "import 'node:fs'\n", 'src/stores/y.ts': "import 'bun:ffi'\n" })).toEqual([])
  })

  it.each(['mm', 'kernel.ts', 'api', 'observe'])('are not imported by %s', room => {
    const from = room === 'kernel.ts' ? 'src/kernel.ts' : `src/${room}/x.ts`
    expect(checkImport(from, relativeTo(from, 'src/stores/memory.ts'))).toHaveLength(1)
  })
})

describe('observe/', () => {
  it.each(['../abi/errno.ts', '../mm/x.ts', '../kernel.ts', './stats.ts'])('may import %s', specifier => {
    expect(checkImport('src/observe/x.ts', specifier)).toEqual([])
  })

  it.each(['../syscall/x.ts', '../api/x.ts', '../worker/x.ts', '../stores/x.ts'])('may not import %s', specifier => {
    expect(checkImport('src/observe/x.ts', specifier)).toEqual([
      `src/observe/x.ts:1: observe may import floors 0 to 9 only, not ${specifier.split('/')[1]}`
    ])
  })

  it.each(['syscall', 'api'])('may be imported by %s', room => {
    expect(checkImport(`src/${room}/x.ts`, '../observe/stats.ts')).toEqual([])
  })

  it.each(['mm', 'worker'])('may not be imported by %s', room => {
    expect(checkImport(`src/${room}/x.ts`, '../observe/stats.ts')).toEqual([
      `src/${room}/x.ts:1: ${room} may not import observe`
    ])
  })
})

describe('the world outside src/', () => {
  it.each(['src/abi/x.ts', 'src/mm/x.ts', 'src/kernel.ts', 'src/observe/x.ts'])('is not seen by %s', file => {
    for (const specifier of ['node:fs', 'fs', 'pkg']) {
      expect(checkImport(file, specifier)).toEqual([
        `${file}:1: ${file.split('/')[1]} may import nothing from outside src/, not ${specifier}`
      ])
    }
  })

  it.each(['src/syscall/x.ts', 'src/api/x.ts', 'src/worker/x.ts', 'cli/main.ts'])('is seen by %s', file => {
    expect(checkImport(file, 'node:fs')).toEqual([])
  })
})

describe.each(['cli', 'inspector'])('%s/', tree => {
  it.each(['./x.ts', '../src/index.ts', '../src/stores/node-file.ts', 'commander'])('may import %s', specifier => {
    expect(checkImport(`${tree}/main.ts`, specifier)).toEqual([])
  })

  it.each(['../src/api/x.ts', '../src/observe/x.ts', '../src/kernel.ts', '../bench/x.ts'])(
    'may not import %s',
    specifier => {
      expect(checkImport(`${tree}/main.ts`, specifier)).toEqual([
        `${tree}/main.ts:1: ${tree}/ may import src/index.ts and src/stores/ only`
      ])
    }
  )
})

it.each(['bench', 'tools', 'test'])('%s/ may import any room', tree => {
  expect(check({ [`${tree}/x.ts`]: "import '../src/mm/x.ts'\nimport '../src/observe/x.ts'\nimport 'pkg'\n" })).toEqual(
    []
  )
})

describe('cycles', () => {
  it('are refused, once each, with their path', () => {
    expect(
      check({
        'src/mm/a.ts': "import './b.ts'\n",
        'src/mm/b.ts': "\nimport './c.js'\n",
        'src/mm/c.ts': "\n\nexport * from './b.ts'\nexport const a = () => import('./a.ts')\n",
        'src/mm/self.ts': "import './self.ts'\n"
      })
    ).toEqual([
      'src/mm/c.ts:3: import cycle: src/mm/b.ts → src/mm/c.ts → src/mm/b.ts',
      'src/mm/c.ts:4: import cycle: src/mm/a.ts → src/mm/b.ts → src/mm/c.ts → src/mm/a.ts',
      'src/mm/self.ts:1: import cycle: src/mm/self.ts → src/mm/self.ts'
    ])
    expect(check({ 'test/a.ts': "import './b.ts'\n", 'test/b.ts': "import './a.ts'\n" })).toHaveLength(1)
  })

  it('may be closed by a type-only import', () => {
    for (const back of [
      "import type { A } from './a.ts'",
      "export type { A } from './a.ts'",
      "type A = import('./a.ts').A"
    ]) {
      expect(check({ 'src/mm/a.ts': "import './b.ts'\n", 'src/mm/b.ts': back })).toEqual([])
    }
  })

  it('may not be closed by an import of types that stays behind as an import', () => {
    const files = { 'src/mm/a.ts': "import './b.ts'\n", 'src/mm/b.ts': "import { type A } from './a.ts'\n" }
    expect(check(files)).toHaveLength(1)
  })

  it('are not found where two paths only meet', () => {
    expect(
      check({
        'src/mm/top.ts': "import './left.ts'\nimport './right.ts'\n",
        'src/mm/left.ts': "import './bottom.ts'\n",
        'src/mm/right.ts': "import './bottom.ts'\n",
        'src/mm/bottom.ts': ''
      })
    ).toEqual([])
  })
})

it.each(['src/mm', 'cli', 'inspector', 'bench', 'tools', 'test'])('a file in %s/ may have 600 lines, not 601', dir => {
  const lines = (n: number) => '//\n'.repeat(n)
  expect(
    check({ [`${dir}/x.ts`]: lines(600), [`${dir}/y.mjs`]: `${lines(599)}//`, [`${dir}/z.json`]: lines(700) })
  ).toEqual([])
  expect(check({ [`${dir}/x.ts`]: lines(601), [`${dir}/y.mjs`]: `${lines(600)}//` })).toEqual([
    `${dir}/x.ts:601: 601 lines: split at 600`,
    `${dir}/y.mjs:601: 601 lines: split at 600`
  ])
})

it('a comment may have 120 columns, not 121; what the formatter wraps is its own', () => {
  const text = (column: string) => `${column.padEnd(120, 'x')}\n`
  const fits = ['// ', ' * ', '/** ', '  /* '].map(text).join('')
  expect(check({ 'src/mm/x.ts': `${fits}const long = '${'x'.repeat(120)}'\n` })).toEqual([])
  expect(check({ 'src/mm/x.ts': fits.replaceAll('\n', 'x\n') })).toEqual(
    [1, 2, 3, 4].map(line => `src/mm/x.ts:${line}: a comment of 121 columns: wrap it at 120`)
  )
})

describe('the command', () => {
  const run = (root: string) => spawnSync(process.execPath, [tool, root], { encoding: 'utf8' })

  it('prints each violation and a summary, and exits with 1', () => {
    const { stdout, status } = run(
      project({ 'src/abi/x.ts': "import 'node:fs'\nimport '../mm/x.ts'\n", 'cli/main.ts': '' })
    )
    expect(stdout.split('\n')).toEqual([
      'src/abi/x.ts:1: abi may import nothing from outside src/, not node:fs',
      'src/abi/x.ts:2: abi (floor 0) may not import mm (floor 8)',
      'layers: 3 files, 2 imports, 2 violations',
      ''
    ])
    expect(status).toBe(1)
  })

  it('exits with 0 when all is well', () => {
    const { stdout, status } = run(project({ 'src/base/x.ts': "import '../abi/errno.ts'\n" }))
    expect(stdout).toBe('layers: 2 files, 1 imports, 0 violations\n')
    expect(status).toBe(0)
  })

  it('refuses a place without sources', () => {
    const root = project({})
    rmSync(join(root, 'src'), { recursive: true })
    const { stdout, status } = run(root)
    expect(stdout).toMatch(/^src:1: no source files/)
    expect(status).toBe(1)
  })
})

function relativeTo(from: string, to: string): string {
  return `${'../'.repeat(from.split('/').length - 1)}${to}`
}
