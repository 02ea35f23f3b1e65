/** Filling the cache: how much is read at once, into which frames, and what an error leaves. */
import { describe, expect, test } from 'vitest'
import { EIO, ENOMEM } from '../../src/abi/errno.ts'
import { MAP_ANONYMOUS, MAP_PRIVATE } from '../../src/abi/mman.ts'
import { PGPGIN, READ_ERRORS, READAHEAD_HITS, READAHEAD_PAGES, STORE_READS } from '../../src/frame/vmstat.ts'
import { pteFrame } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { type Rig, type RigFile, useMachines } from '../support/machine.ts'

const rig = useMachines()
const P = 4096

/** First page and pages of each read. */
function reads({ store }: RigFile): [number, number][] {
  return store.log.filter(call => call.op === 'read').map(({ position, length }) => [position / P, length / P])
}

/** A machine that reads 16 pages ahead at most, and a file of 70. */
function sequential(): { r: Rig; file: RigFile } {
  const r = rig({ nrFrames: 256, readaheadBytes: 16 * P })
  return { r, file: r.file(70) }
}

describe('the window', () => {
  test('doubles while a file is read in order, up to its limit and to the end of the file', () => {
    const { r, file } = sequential()
    for (let i = 0; i < 70; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file)).toEqual([
      [0, 4],
      [4, 8],
      [12, 16],
      [28, 16],
      [44, 16],
      [60, 10]
    ])
    const { vmstat } = r.m
    expect([vmstat[STORE_READS], vmstat[PGPGIN], vmstat[READAHEAD_PAGES], vmstat[READAHEAD_HITS]]).toEqual([
      6, 70, 64, 64
    ])
    for (let i = 0; i < 70; i++) r.fileWord(file.fd, i)
    expect(vmstat[READAHEAD_HITS]).toBe(64)
  })

  test('is one page elsewhere, and begins again where reading goes on from there', () => {
    const { r, file } = sequential()
    for (const page of [30, 50, 51, 55, 10, 0]) r.fileWord(file.fd, page)
    expect(reads(file)).toEqual([
      [30, 1],
      [50, 1],
      [51, 4],
      [55, 8],
      [10, 1],
      [0, 4]
    ])
    expect([r.m.vmstat[READAHEAD_PAGES], r.m.vmstat[READAHEAD_HITS]]).toEqual([3 + 7 + 3, 0])
  })

  test('is that of each open of the file', () => {
    const { r, file } = sequential()
    const other = f.sys_reopen(r.m, file.fd, f.O_RDONLY)
    r.fileWord(file.fd, 20)
    r.fileWord(other, 21)
    r.fileWord(file.fd, 22)
    expect(reads(file)).toEqual([
      [20, 1],
      [21, 1],
      [22, 1]
    ])
    r.fileWord(other, 23)
    r.fileWord(file.fd, 24)
    expect(reads(file).slice(3)).toEqual([
      [23, 1],
      [24, 1]
    ])
  })

  test('ends before the first page that is there already', () => {
    const { r, file } = sequential()
    r.fileWord(file.fd, 6)
    for (let i = 0; i < 8; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file)).toEqual([
      [6, 1],
      [0, 4],
      [4, 2],
      [7, 1]
    ])
  })

  test('takes what memory there is', () => {
    const r = rig({ nrFrames: 80, readaheadBytes: 8 * P })
    const file = r.file(40)
    const own = r.map(-1, 100, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 100 && r.m.allocator.nrFree > 3; i++) r.store(own + i * P, 1)
    expect(r.fileWord(file.fd, 0)).toBe(1)
    expect(reads(file)).toEqual([[0, 3]])
    expect([1, 2, 3].map(i => r.fileWord(file.fd, i))).toEqual([2, 3, 4])
  })

  test('without any is no page, and not the one that was read before', () => {
    const { r, file } = sequential()
    expect(r.fileWord(file.fd, 5)).toBe(6)
    r.m.allocator.setFail(() => true)
    expect([r.fileWord(file.fd, 30), r.fileWord(file.fd, 5)]).toEqual([-ENOMEM, 6])
    r.m.allocator.setFail(undefined)
    expect(r.fileWord(file.fd, 30)).toBe(31)
  })

  test('makes room for itself by reclaim', () => {
    const r = rig({ nrFrames: 80, readaheadBytes: 8 * P })
    const old = r.file(200)
    for (let i = 199; i >= 0; i--) r.fileWord(old.fd, i)
    expect(r.m.allocator.nrFree).toBeLessThan(8)
    const file = r.file(40)
    for (let i = 0; i < 20; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file)).toEqual([
      [0, 4],
      [4, 8],
      [12, 8]
    ])
  })
})

describe('the frames', () => {
  /** Frees the frames of these of 60 private pages, which lie in ascending ones. */
  function withFree(free: (page: number) => boolean): { r: Rig; file: RigFile } {
    const r = rig({ nrFrames: 256, readaheadBytes: 16 * P })
    const file = r.file(40)
    const own = r.map(-1, 60, MAP_PRIVATE | MAP_ANONYMOUS)
    for (let i = 0; i < 60; i++) r.store(own + i * P, 1)
    const frames = Array.from({ length: 60 }, (_, i) => pteFrame(r.pte(own + i * P)))
    expect(frames.slice(2).every((frame, i) => frame === frames[i + 1] + 1)).toBe(true)
    for (let i = 2; i < 58; i++) if (free(i)) mem.sys_munmap(r.mm, own + i * P, P)
    return { r, file }
  }

  test('that lie in long runs are read into, run by run', () => {
    const { r, file } = withFree(page => page < 6 || (page > 6 && page < 11) || (page > 20 && page < 25))
    for (let i = 0; i < 12; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file)).toEqual([
      [0, 4],
      [4, 4],
      [8, 4]
    ])
    expect(r.m.vmstat[STORE_READS]).toBe(3)
  })

  test('that lie scattered are filled by one read all the same', () => {
    const { r, file } = withFree(page => page % 2 === 0)
    file.store.arm({ kind: 'error-once', op: 'read' })
    expect(r.fileWord(file.fd, 30)).toBe(-EIO)
    file.store.arm({ kind: 'error-once', op: 'read' })
    for (let i = 0; i < 12; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file).slice(1, 3)).toEqual([
      [0, 4],
      [0, 1]
    ])
    expect(reads(file).at(-1)).toEqual([6, 8])
  })

  test('of an average run of less than four are filled by one read', () => {
    const { r, file } = withFree(page => page % 4 !== 0)
    for (let i = 0; i < 28; i++) expect(r.fileWord(file.fd, i)).toBe(i + 1)
    expect(reads(file)).toEqual([
      [0, 4],
      [4, 8],
      [12, 16]
    ])
  })
})

describe('an error', () => {
  test('of a read ahead is tried again with the one page that was asked for', () => {
    const { r, file } = sequential()
    file.store.arm({ kind: 'error-once', op: 'read' })
    const free = r.m.allocator.nrFree
    expect(r.fileWord(file.fd, 0)).toBe(1)
    expect(reads(file)).toEqual([
      [0, 4],
      [0, 1]
    ])
    expect([free - r.m.allocator.nrFree, r.m.vmstat[READ_ERRORS], r.m.vmstat[READAHEAD_PAGES]]).toEqual([1, 1, 0])
  })

  test('of that page alone is the caller’s, and keeps no memory', () => {
    const { r, file } = sequential()
    const free = r.m.allocator.nrFree
    const fault = file.store.arm({ kind: 'error-for-good', op: 'read' })
    expect([r.fileWord(file.fd, 0), r.fileWord(file.fd, 30)]).toEqual([-EIO, -EIO])
    expect([r.m.allocator.nrFree, r.m.vmstat[READ_ERRORS], f.sys_fpages(r.m, file.fd)]).toEqual([free, 3, 0])
    fault.disarm()
    expect([r.fileWord(file.fd, 0), r.fileWord(file.fd, 30)]).toEqual([1, 31])
  })

  test('is a read that ends before the store does; after its end bytes are zeros', () => {
    const r = rig({ readaheadBytes: 0 })
    const file = r.file(4)
    file.store.arm({ kind: 'short-read', bytes: 100 })
    expect([r.fileWord(file.fd, 1), r.m.vmstat[READ_ERRORS]]).toEqual([-EIO, 1])
    f.sys_ftruncate(r.m, file.fd, 3 * P + 100)
    const bytes = new Uint8Array(8)
    expect(f.sys_pread(r.m, file.fd, bytes, 3 * P)).toBe(8)
    expect([bytes[0], r.m.vmstat[READ_ERRORS]]).toEqual([4, 1])
    f.sys_ftruncate(r.m, file.fd, 4 * P)
    expect(f.sys_pread(r.m, file.fd, bytes, 3 * P + 100)).toBe(8)
    expect([...bytes]).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
  })
})
