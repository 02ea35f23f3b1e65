import { afterAll, describe, expect, it } from 'vitest'
import { BASE } from '../../tools/oracle/quantity.ts'
import type { Result } from '../../tools/oracle/trace.ts'
import { runProgram, type Step } from '../../tools/oracle-live/kernel-ops.ts'
import { because, close, kernel, unavailable } from './support.ts'

afterAll(close)

/** The results of operations written as [op, arguments]. */
function run(...program: [op: string, args?: Step['args']][]): Result[] {
  return runProgram(
    kernel(),
    program.map(([op, args = {}]) => ({ op, args }))
  )
}

const FILE: [string, Step['args']] = ['file', { id: 1, kind: 'shmem', pages: 4 }]
const MAP: [string, Step['args']] = ['mmap', { at: 2, len: 6, prot: 'rw', flags: 'SHARED', file: 1, pgoff: 0 }]
const word = (page: number): number => 2 ** 24 + page

describe.skipIf(unavailable !== '')(`the running kernel${because}`, () => {
  it('loads and stores through the mapping, and tells the three faults apart', () => {
    const results = run(
      FILE,
      MAP,
      ['read', { at: 3 }],
      ['read', { at: '3+4092' }],
      ['write', { at: 3, value: 77 }],
      ['pread', { file: 1, off: 1 }],
      ['read', { at: 6 }],
      ['read', { at: 1 }],
      ['mprotect', { at: 2, len: 1, prot: 'r' }],
      ['write', { at: 2, value: 78 }],
      ['read', { at: 2 }],
      ['mprotect', { at: 2, len: 1, prot: '' }],
      ['read', { at: 2 }],
      ['write', { at: 6, value: 79 }],
      ['scan', { at: 1, pages: 6 }],
      ['fill', { at: 2, pages: 2, value: 80 }]
    )
    expect(results.slice(1)).toEqual([
      { ret: 2 },
      { val: word(1) },
      { val: word(1) },
      { ok: true },
      { val: 77 },
      { fault: 'BUS' },
      { fault: 'SEGV_MAPERR' },
      { ret: 0 },
      { fault: 'SEGV_ACCERR' },
      { val: word(0) },
      { ret: 0 },
      { fault: 'SEGV_ACCERR' },
      { fault: 'BUS' },
      { v: ['SEGV_MAPERR', 'SEGV_ACCERR', 77, word(2), word(3), 'BUS'] },
      { v: ['SEGV_ACCERR', 1] }
    ])
  })

  it('remaps, moves, punches and dumps', () => {
    const results = run(
      FILE,
      MAP,
      ['remap', { at: 2, size: 1, pgoff: 3 }],
      ['read', { at: 2 }],
      ['mremap', { at: 2, old: 1, new: 1, flags: 'MREMAP_MAYMOVE|MREMAP_FIXED', to: 20 }],
      ['read', { at: 20 }],
      ['punch', { file: 1, off: 3, len: 1 }],
      ['read', { at: 20 }],
      ['fdump', { file: 1 }],
      ['stat', { file: 1 }],
      ['remap', { at: 20, size: 1, prot: 1, pgoff: 0 }],
      ['maps']
    )
    expect(results.slice(2)).toEqual([
      { ret: 0 },
      { val: word(3) },
      { ret: 20 },
      { val: word(3) },
      { ret: 0 },
      { val: 0 },
      { size: 16384, v: [word(0), word(1), word(2), 0] },
      { size: 16384, pages: 4 },
      { errno: 'EINVAL' },
      {
        m: [
          [3, 8, 'rw-s', 1, 1],
          [20, 21, 'rw-s', 3, 1]
        ]
      }
    ])
  })

  it('knows locked and resident pages, and what goes by /proc/self/mem', () => {
    const results = run(
      ['mmap', { at: 0, len: 3, prot: 'rw', flags: 'SHARED', anon: 'heap' }],
      ['mlock', { at: 0, len: 2 }],
      ['rss'],
      ['mincore', { at: 0, len: 3 }],
      ['maps'],
      ['memwrite', { at: 1, value: 5 }],
      ['memread', { at: 1 }],
      ['memread', { at: 9 }],
      ['msync', { at: 0, len: 1, flags: 8 }]
    )
    expect(results.slice(2)).toEqual([
      { lck: 2 },
      { ret: 0, vec: '110' },
      // Two vmas, as only one is locked, of the same memory.
      {
        m: [
          [0, 2, 'rw-s', 0, 'heap'],
          [2, 3, 'rw-s', 2, 'heap']
        ]
      },
      { ret: 4 },
      { val: 5 },
      { errno: 'EIO' },
      { errno: 'EINVAL' }
    ])
  })

  it('works on a file on disk, and on descriptors of other modes', () => {
    const results = run(
      ['file', { id: 2, kind: 'disk', pages: 2, size: '1+100' }],
      ['mmap', { at: 0, len: 2, prot: 'rw', flags: 'SHARED', file: 2, open: 'r' }],
      ['mmap', { at: 0, len: 2, prot: 'rw', flags: 'PRIVATE', file: 2, open: 'r' }],
      ['write', { at: 0, value: 9 }],
      ['read', { at: 0 }],
      ['fsync', { file: 2 }],
      ['truncate', { file: 2, size: 0 }],
      ['read', { at: 0 }],
      ['fdump', { file: 2 }]
    )
    expect(results.slice(1)).toEqual([
      { errno: 'EACCES' },
      { ret: 0 },
      { ok: true },
      { val: 9 },
      { ret: 0 },
      { ret: 0 },
      { fault: 'BUS' },
      { size: 0, v: [] }
    ])
  })

  it('starts each program with an empty arena and no locked pages', () => {
    run(FILE, MAP, ['mlock', { at: 2, len: 1 }])
    expect(run(['maps'], ['rss'])).toEqual([{ m: [] }, { lck: 0 }])
  })

  it.each<[string, Step['args']]>([
    ['munmap', { at: -1, len: 1 }],
    ['munmap', { at: 0, len: 4097 }],
    ['mprotect', { at: '0x1000', len: 1, prot: 'r' }],
    ['madvise', { at: 0, len: `0x${(2n ** 64n - 4096n).toString(16)}`, advice: 'DONTNEED' }],
    ['mmap', { at: 4096, len: 1, prot: 'r', flags: 'PRIVATE', anon: 'a' }],
    ['mremap', { at: 0, old: 1, new: 1, flags: 'MREMAP_MAYMOVE|MREMAP_FIXED', to: 5000 }],
    ['mremap', { at: 4095, old: 1, new: 2, flags: 0 }],
    ['write', { at: `0x${(BASE - 4096n).toString(16)}`, value: 1 }]
  ])('refuses %s outside the arena: %o', (op, args) => {
    expect(() => run([op, args])).toThrow('outside the arena')
  })

  it('refuses operations that it does not know', () => {
    expect(() => run(['fork', { child: 1 }])).toThrow('unknown operation fork')
  })
})
