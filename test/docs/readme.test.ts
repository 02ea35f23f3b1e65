/** The documents' programs, run as they stand there against the build: each `// prints X` is what is printed. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { at, useBuiltCli } from '../cli/support.ts'

useBuiltCli()

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const text = readFileSync(join(ROOT, 'README.md'), 'utf8')
const programs = ['README.md', 'docs/shadow.md', 'docs/later.md'].flatMap(document => {
  const found = [...readFileSync(join(ROOT, document), 'utf8').matchAll(/^```js\n([\s\S]*?)^```$/gm)]
  return found.map(([, program], i) => [i + 1, document, program] as const)
})

test.each(programs)('program %i of %s', (_number, _document, program) => {
  const expected = [...program.matchAll(/\/\/ prints ([^:\n]+)/g)].map(([, output]) => output)
  expect(expected.length).toBeGreaterThan(0)
  // The package finds itself by name from its own folder; other files go to the test's.
  const source = program.replace(/'(\w+\.db)'/, (_, name) => JSON.stringify(at(name)))
  const script = join(ROOT, 'build', `program-${process.pid}.mjs`)
  writeFileSync(script, source)
  let output = ''
  try {
    output = execFileSync(process.execPath, [script], { encoding: 'utf8' })
  } finally {
    rmSync(script)
  }
  expect(output.trim().split('\n')).toEqual(expected)
  expect(existsSync(join(ROOT, 'example.db'))).toBe(false)
})

test('every document that is linked exists, and every script that is named', () => {
  for (const [, path] of text.matchAll(/\]\((docs\/[^)#]+)\)/g)) expect(existsSync(join(ROOT, path)), path).toBe(true)
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: object }
  for (const [, name] of text.matchAll(/npm run ([a-z:]+)/g)) expect(scripts, name).toHaveProperty([name])
})
