/** posix_fadvise: what is read ahead, what leaves memory, and how an open file is read from then on. */
import { expect, test } from 'vitest'
import { EBADF, EINVAL } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { Memory } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_madvise } from '../../src/syscall/memory.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED } = abi

function cached(r: Rig, fd: number, pages: number): string {
  const inode = r.m.files.inode[r.m.fds[fd]]
  return Array.from({ length: pages }, (_, i) => (r.m.cache.lookup(inode, i) === 0 ? '.' : 'x')).join('')
}

test('WILLNEED brings a range in, DONTNEED takes away what is whole in it and nobody has mapped', () => {
  const r = rig({ readaheadBytes: 0, faultAroundPages: 1 })
  const { fd, store } = r.file(10)
  const P = r.pageSize
  expect(f.sys_fadvise(r.m, fd, 2 * P + 5, 3 * P, abi.POSIX_FADV_WILLNEED)).toBe(0)
  expect(cached(r, fd, 10)).toBe('..xxxx....')
  expect(f.sys_fadvise(r.m, fd, 7 * P, 0, abi.POSIX_FADV_WILLNEED)).toBe(0)
  expect(cached(r, fd, 10)).toBe('..xxxx.xxx')
  const at = r.map(fd, 10, MAP_SHARED)
  expect(r.load(at + 3 * P)).toBe(4)
  expect(f.sys_pwrite(r.m, fd, Uint8Array.of(77, 0, 0, 0), 4 * P)).toBe(4)
  const reads = store.calls.read
  expect(f.sys_fadvise(r.m, fd, 2 * P + 1, 3 * P - 2, abi.POSIX_FADV_DONTNEED)).toBe(0)
  expect(cached(r, fd, 10)).toBe('..xxxx.xxx')
  expect(f.sys_fadvise(r.m, fd, 2 * P, 3 * P, abi.POSIX_FADV_DONTNEED)).toBe(0)
  expect([cached(r, fd, 10), r.storedWord(store, 4)]).toEqual(['...x.x.xxx', 77])
  expect(f.sys_fadvise(r.m, fd, 0, 0, abi.POSIX_FADV_DONTNEED)).toBe(0)
  expect([cached(r, fd, 10), store.calls.read]).toEqual(['...x......', reads])
  expect([r.fileWord(fd, 4), r.load(at + 3 * P)]).toEqual([77, 4])
})

test('the last page of a file goes with the range that ends with the file, and stays if its write fails', () => {
  const r = rig({ readaheadBytes: 0 })
  const { fd, store } = r.file(2)
  expect(f.sys_ftruncate(r.m, fd, r.pageSize + 100)).toBe(0)
  expect(f.sys_pwrite(r.m, fd, Uint8Array.of(9), r.pageSize)).toBe(1)
  store.arm({ kind: 'error-once', op: 'write' })
  const all = () => f.sys_fadvise(r.m, fd, 0, r.pageSize + 100, abi.POSIX_FADV_DONTNEED)
  expect([all(), cached(r, fd, 2)]).toEqual([0, '.x'])
  expect(f.sys_fsync(r.m, fd)).toBeLessThan(0)
  expect([all(), cached(r, fd, 2)]).toEqual([0, '..'])
})

test('RANDOM and SEQUENTIAL change how reads and mappings read ahead, until NORMAL; madvise comes first', () => {
  const r = rig({ readaheadBytes: 8 * 4096, faultAroundPages: 1 })
  const P = r.pageSize
  const after = (advice: number, look: (fd: number) => void) => {
    const { fd } = r.file(12)
    expect(f.sys_fadvise(r.m, fd, 0, 0, advice)).toBe(0)
    look(fd)
    return cached(r, fd, 12)
  }
  const byRead = (fd: number) => r.fileWord(fd, 0)
  const byLoad = (fd: number) => r.load(r.map(fd, 12, MAP_SHARED))
  for (const look of [byRead, byLoad]) {
    expect(after(abi.POSIX_FADV_NORMAL, look)).toBe('xxxx........')
    expect(after(abi.POSIX_FADV_RANDOM, look)).toBe('x...........')
    expect(after(abi.POSIX_FADV_SEQUENTIAL, look)).toBe('xxxxxxxx....')
  }
  const own = after(abi.POSIX_FADV_SEQUENTIAL, fd => {
    const at = r.map(fd, 12, MAP_SHARED)
    expect(sys_madvise(r.mm, at, 12 * P, abi.MADV_RANDOM)).toBe(0)
    expect(r.load(at)).toBe(1)
  })
  expect(own).toBe('x...........')
})

test('what is refused, and what memory makes of it', () => {
  const r = rig()
  const fd = r.memory(2)
  const advise = (file: number, off: number, len: number, advice: number) => f.sys_fadvise(r.m, file, off, len, advice)
  expect(advise(999, -1, -1, 99)).toBe(-EBADF)
  expect([advise(fd, 0, -1, 0), advise(fd, 0, 0, 6), advise(fd, 0, 0, -1), advise(fd, 0, 0, 0.5)]).toEqual(
    Array(4).fill(-EINVAL)
  )
  for (let advice = 0; advice <= abi.POSIX_FADV_NOREUSE; advice++) expect(advise(fd, 0, 0, advice)).toBe(0)
  expect([r.fileWord(fd, 0), r.fileWord(fd, 1)]).toEqual([1, 2])
})

test('the everyday classes have them: allocate, zero, advise, and a mapping that is paged out', () => {
  const store = memoryStore({ sizeBytes: 4 * 4096 })
  const memory = new Memory({ size: '1MiB' })
  const file = memory.open(store)
  file.write(new Uint8Array(4 * 4096).fill(5), 0)
  file.allocate(6 * 4096, 100)
  expect(file.size).toBe(6 * 4096 + 100)
  file.allocate(90 * 4096, 1, { keepSize: true })
  file.zero(4096, 4096)
  file.zero(80 * 4096, 1, { keepSize: true })
  const bytes = new Uint8Array(3)
  file.read(bytes, 2 * 4096 - 1)
  expect([file.size, ...bytes]).toEqual([6 * 4096 + 100, 0, 5, 5])
  const map = memory.space().map(file, { writable: true })
  map.setUint8(0, 6)
  map.advise('cold')
  map.advise('pageout')
  expect([file.dirtyPages, map.residency()[0]]).toEqual([2, 0])
  file.advise('dontneed')
  file.advise('willneed', { offset: 0, length: 1 })
  expect([file.dirtyPages, map.residency()[0], map.getUint8(0)]).toEqual([0, 1, 6])
  for (const advice of ['normal', 'random', 'sequential'] as const) file.advise(advice)
  expect(() => file.advise('soon' as 'normal')).toThrow('soon is no advice; it is one of normal, random')
  memory.close()
})
