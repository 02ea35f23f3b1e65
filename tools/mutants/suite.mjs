/** The tests that a mutation run tries: those that look at the machine's own rooms, and are fast. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const FOLDERS = ['test/mm', 'test/pgtable', 'test/rmap', 'test/reclaim', 'test/cache', 'test/history']

/** Absolute paths, in order. */
export function testFiles(root) {
  return FOLDERS.flatMap(folder =>
    readdirSync(join(root, folder))
      .filter(name => name.endsWith('.test.ts'))
      .sort()
      .map(name => join(root, folder, name))
  )
}
