/**
 * The tests of the machine once more, on machines made for two threads: with every lock taken, every wait possible, and
 * shared copies. What they do must be the same. Left out are the files that register JavaScript notifiers, which such
 * machines refuse.
 */
import '../cache/fill.test.ts'
import '../cache/writeback.test.ts'
import '../later/failures.test.ts'
import '../later/parked.test.ts'
import '../later/pieces.test.ts'
import '../later/ready.test.ts'
import '../mm/brk.test.ts'
import '../mm/calls.test.ts'
import '../mm/faults.test.ts'
import '../mm/files.test.ts'
import '../mm/madvise.test.ts'
import '../mm/migrate.test.ts'
import '../mm/mlock.test.ts'
import '../mm/mmap.test.ts'
import '../mm/mprotect.test.ts'
import '../mm/mremap.test.ts'
import '../mm/page-sizes.test.ts'
import '../mm/populate.test.ts'
import '../mm/queries.test.ts'
import '../mm/reclaim.test.ts'
import '../mm/remap.test.ts'
import '../mm/transfer.test.ts'
import '../mm/truncate.test.ts'
import '../mm/writeback.test.ts'
import '../pgtable/page-tables.test.ts'
import '../syscall/hostile.test.ts'
import { expect, test } from 'vitest'
import { Rig } from '../support/machine.ts'

// Read when a test makes its machine.
process.env.RIG_THREADS = '2'

test('these machines are made for two threads', () => {
  expect(new Rig({}).m.sync.isShared).toBe(true)
})
