/** Writeback: which pages go together, in which order, what is counted, and who hears of errors. */
import { describe, expect, test } from 'vitest'
import { EIO, ENOSPC } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { NR_DIRTY, PGPGOUT, STORE_FLUSHES, STORE_WRITES, WRITE_ERRORS } from '../../src/frame/vmstat.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { type Rig, type RigFile, useMachines } from '../support/machine.ts'

const rig = useMachines()
const P = 4096

/** First page and bytes, in pages, of each write. */
function writes({ store }: RigFile): [number, number][] {
  return store.log.filter(call => call.op === 'write').map(({ position, length }) => [position / P, length / P])
}

/** A machine that writes 8 pages at once, and a file whose pages are stored to in the order given. */
function dirty(pages: number, order: readonly number[]): { r: Rig; file: RigFile; at: number } {
  const r = rig({ nrFrames: 128, readaheadBytes: 8 * P, faultAroundPages: 1 })
  const file = r.file(pages)
  const at = r.map(file.fd, pages, abi.MAP_SHARED)
  mem.sys_madvise(r.mm, at, pages * P, abi.MADV_RANDOM)
  for (const page of order) expect(r.store(at + page * P, 100 + page)).toBe(0)
  return { r, file, at }
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i)

describe('a sync', () => {
  test('writes neighbours together, so many at once, and in the order of the file', () => {
    for (const order of [upTo(20), upTo(20).reverse(), upTo(20).map(i => (i * 7) % 20)]) {
      const { r, file } = dirty(24, order)
      expect(f.sys_fsync(r.m, file.fd)).toBe(0)
      expect(writes(file)).toEqual([
        [0, 8],
        [8, 8],
        [16, 4]
      ])
      expect(upTo(24).map(i => r.storedWord(file.store, i))).toEqual(upTo(24).map(i => (i < 20 ? 100 + i : i + 1)))
      const { vmstat } = r.m
      expect([vmstat[STORE_WRITES], vmstat[PGPGOUT], vmstat[STORE_FLUSHES], vmstat[NR_DIRTY]]).toEqual([3, 20, 1, 0])
      expect(f.sys_fsync(r.m, file.fd)).toBe(0)
      expect([file.store.calls.write, file.store.calls.flush]).toEqual([3, 2])
    }
  })

  test('leaves clean pages between dirty ones alone', () => {
    const { r, file, at } = dirty(24, [1, 2, 5, 9, 10, 23])
    for (const page of [3, 4, 11]) r.load(at + page * P)
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
    expect(writes(file)).toEqual([
      [1, 2],
      [5, 1],
      [9, 2],
      [23, 1]
    ])
    expect(r.m.vmstat[PGPGOUT]).toBe(6)
  })

  test('of a range takes only its pages, however many there are', () => {
    const { r, file, at } = dirty(24, [2, 3, 20])
    expect(mem.sys_msync(r.mm, at + 3 * P, 10 * P, abi.MS_SYNC)).toBe(0)
    expect(writes(file)).toEqual([[3, 1]])
    expect(mem.sys_msync(r.mm, at + 20 * P, P, abi.MS_SYNC)).toBe(0)
    expect(mem.sys_msync(r.mm, at, 2 * P, abi.MS_SYNC)).toBe(0)
    expect(writes(file)).toEqual([
      [3, 1],
      [20, 1]
    ])
    for (const page of [0, 1, 4, 5, 6]) r.store(at + page * P, 1)
    expect(mem.sys_msync(r.mm, at + P, 2 * P, abi.MS_SYNC)).toBe(0)
    expect(writes(file).slice(2)).toEqual([[1, 2]])
  })

  test('writes no byte past the end, and zeroes them in memory', () => {
    const { r, file, at } = dirty(3, [])
    f.sys_ftruncate(r.m, file.fd, 2 * P + 100)
    r.store(at + P, 5)
    r.store(at + 2 * P + 96, 6)
    r.store(at + 2 * P + 200, 7)
    expect(r.load(at + 2 * P + 200)).toBe(7)
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
    expect(writes(file)).toEqual([[1, 1 + 100 / P]])
    expect([r.load(at + 2 * P + 200), r.load(at + 2 * P + 96)]).toEqual([0, 6])
    expect(file.store.inner.size()).toBe(2 * P + 100)
  })

  test('makes the store as long as the file, also where no page was written', () => {
    const { r, file, at } = dirty(2, [])
    const resized = (): number[] => file.store.log.filter(call => call.op === 'truncate').map(call => call.position / P)
    f.sys_pwrite(r.m, file.fd, Uint8Array.of(1), 9 * P)
    r.store(at, 5)
    expect(file.store.inner.size()).toBe(2 * P)
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(0)
    expect([file.store.inner.size(), resized()]).toEqual([9 * P + 1, [9 + 1 / P]])
    r.store(at, 6)
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(0)
    f.sys_pwrite(r.m, file.fd, Uint8Array.of(1), 12 * P)
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
    expect(resized().length).toBe(1)
    expect(file.store.inner.size()).toBe(12 * P + 1)
    f.sys_pwrite(r.m, file.fd, Uint8Array.of(1), 14 * P)
    r.store(at, 7)
    file.store.arm({ kind: 'error-once', op: 'truncate', errno: ENOSPC })
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(-ENOSPC)
    expect(r.m.vmstat[WRITE_ERRORS]).toBe(1)
    expect(mem.sys_msync(r.mm, at, P, abi.MS_SYNC)).toBe(0)
    expect(file.store.inner.size()).toBe(14 * P + 1)
  })

  test('of memory, and of a store that only reads, asks no store', () => {
    const r = rig()
    const memory = r.memory(2)
    expect(f.sys_fsync(r.m, memory)).toBe(0)
    const reads = r.file(2, f.O_RDONLY)
    r.fileWord(reads.fd, 0)
    expect([f.sys_fsync(r.m, reads.fd), r.m.vmstat[STORE_WRITES]]).toEqual([0, 0])
  })
})

describe('reclaim of a dirty page', () => {
  test.each([
    [upTo(20), [0, 8]],
    [
      [10, ...upTo(10), 11, 12, 13, 14, 15, 16, 17, 18, 19],
      [6, 8]
    ],
    [
      [19, ...upTo(19)],
      [15, 5]
    ],
    [
      [3, 1, 2, 9, 10],
      [1, 3]
    ],
    [
      [5, 7, 3],
      [5, 1]
    ]
  ])('writes it with its dirty neighbours: %j', (order, expected) => {
    const { r, file, at } = dirty(24, order)
    r.load(at + 22 * P)
    // Also where clean pages go first: there is one of them.
    expect(r.m.reclaim.shrink(2)).toBeGreaterThanOrEqual(2)
    expect(writes(file)[0]).toEqual(expected)
    expect(r.load(at + order[0] * P)).toBe(100 + order[0])
  })
})

describe('errors', () => {
  test('a write that comes short is one', () => {
    const { r, file } = dirty(24, [0, 1])
    const { write } = file.store
    file.store.write = (...args) => write.apply(file.store, args) - 1
    expect(f.sys_fsync(r.m, file.fd)).toBe(-EIO)
    expect(r.m.vmstat[NR_DIRTY]).toBe(2)
    file.store.write = write
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
  })

  test('of one write keep the others from nothing; the first one is told', () => {
    const { r, file } = dirty(24, [0, 5, 9])
    file.store.arm({ kind: 'error-once', op: 'write', errno: ENOSPC })
    file.store.arm({ kind: 'error-once', op: 'write', call: 2 })
    expect(f.sys_fsync(r.m, file.fd)).toBe(-ENOSPC)
    expect(writes(file).length).toBe(3)
    expect([r.m.vmstat[WRITE_ERRORS], r.m.vmstat[NR_DIRTY], r.m.vmstat[PGPGOUT]]).toEqual([2, 2, 1])
    expect([0, 5, 9].map(i => r.storedWord(file.store, i))).toEqual([1, 6, 109])
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
    expect([0, 5, 9].map(i => r.storedWord(file.store, i))).toEqual([100, 105, 109])
  })

  test('behind everyone’s back are told once to each who has the file open, the last one’s number', () => {
    const { r, file } = dirty(24, [0])
    const other = f.sys_reopen(r.m, file.fd, f.O_RDWR)
    file.store.arm({ kind: 'error-once', op: 'write' })
    file.store.arm({ kind: 'error-once', op: 'write', call: 2, errno: ENOSPC })
    expect(r.m.reclaim.shrink(1)).toBe(1)
    expect([file.store.calls.write, r.m.vmstat[WRITE_ERRORS]]).toEqual([3, 2])
    const late = f.sys_reopen(r.m, file.fd, f.O_RDWR)
    expect([file.fd, other, late].map(fd => f.sys_fsync(r.m, fd))).toEqual([-ENOSPC, -ENOSPC, 0])
    expect([file.fd, other, late].map(fd => f.sys_fsync(r.m, fd))).toEqual([0, 0, 0])
  })

  test('of the flush are told to the others, too; a failed write is told before a failed flush', () => {
    const { r, file } = dirty(24, [0])
    const other = f.sys_reopen(r.m, file.fd, f.O_RDWR)
    file.store.arm({ kind: 'error-once', op: 'flush' })
    expect(f.sys_fsync(r.m, file.fd)).toBe(-EIO)
    expect([f.sys_fsync(r.m, other), r.m.vmstat[WRITE_ERRORS]]).toEqual([-EIO, 1])
    f.sys_pwrite(r.m, file.fd, Uint8Array.of(1), 0)
    file.store.arm({ kind: 'error-once', op: 'write', errno: ENOSPC })
    file.store.arm({ kind: 'error-once', op: 'flush' })
    expect(f.sys_fsync(r.m, file.fd)).toBe(-ENOSPC)
    expect(f.sys_fsync(r.m, file.fd)).toBe(0)
  })
})
