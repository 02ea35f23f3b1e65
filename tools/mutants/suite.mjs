/**
 * The tests that a mutation run tries: those that look at the machine's own rooms, are fast, and need no second thread.
 * A quick run (MUTANTS_QUICK=1) has those of machines of one thread alone.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const FOLDERS = ['test/mm', 'test/pgtable', 'test/rmap', 'test/reclaim', 'test/cache', 'test/history']
const FILES = [
  'test/api/borrowed-fork.test.ts',
  'test/api/mapping.test.ts',
  'test/attached/copies.test.ts',
  'test/attached/deaths.test.ts',
  'test/attached/early-read.test.ts',
  'test/attached/later.test.ts',
  'test/attached/pager.test.ts',
  'test/attached/stores.test.ts',
  'test/attached/waits.test.ts',
  'test/frame/apart.test.ts',
  'test/syscall/hostile.test.ts',
  'test/syscall/reentry.test.ts',
  'test/api/observe.test.ts',
  'test/api/read-only-remap.test.ts',
  'test/api/shared-mapping.test.ts',
  'test/later/failures.test.ts',
  'test/later/parked.test.ts',
  'test/later/pieces.test.ts',
  'test/later/ready.test.ts',
  'test/observe/check.test.ts',
  'test/observe/proc.test.ts'
]
const isQuick = process.env.MUTANTS_QUICK === '1'
const SAME = 'test/threads/same.long.test.ts'
/** Parts of names of tests that take long and reach little that others do not. */
const SLOW = [
  'arguments that are none',
  'every width, offset and byte order',
  'httpRange hands over',
  'more requests than the queue holds',
  'closing the file and its windows'
]

/** Absolute paths, in order. */
export function testFiles(root) {
  const inFolders = FOLDERS.flatMap(folder =>
    readdirSync(join(root, folder))
      .filter(name => name.endsWith('.test.ts'))
      .sort()
      .map(name => join(root, folder, name))
  )
  return isQuick ? inFolders : [...inFolders, ...FILES.map(file => join(root, file))]
}

export function isSlow(name) {
  return SLOW.some(part => name.includes(part))
}

/** Those of them that run once more on machines for two threads, as `npm test` does. */
export function testsForTwoThreads(root) {
  if (isQuick) return []
  const imports = readFileSync(join(root, SAME), 'utf8').matchAll(/^import '(.+\.test\.ts)'$/gm)
  return Array.from(imports, ([, path]) => join(root, 'test/threads', path))
}
