/** Opening, sharing and closing files: one inode for one store, references counted, errors told, nothing left. */
import { describe, expect, test } from 'vitest'
import { EBADF, EIO, EMFILE, ENFILE } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import type { Store } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit } from '../../src/syscall/process.ts'
import { keptStore, useMachines } from '../support/machine.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi

/** A store that says when it is closed; `identity` names the bytes behind it. */
function watched(inner: Store, readOnly: boolean, closes: string[], name: string, identity?: string): Store {
  return {
    name,
    identity,
    readOnly,
    durable: false,
    size: () => inner.size(),
    read: (position, buffer, offset, length) => inner.read(position, buffer, offset, length),
    write: (position, buffer, offset, length) => inner.write(position, buffer, offset, length),
    flush: () => inner.flush(),
    truncate: size => inner.truncate(size),
    punch: (position, length) => inner.punch(position, length),
    close: () => {
      closes.push(name)
      return 0
    }
  }
}

describe('stores over the same bytes', () => {
  test('are one file; the second one is closed at once, the first with the last descriptor', () => {
    const r = rig()
    const bytes = keptStore(2 * r.pageSize)
    const closes: string[] = []
    const one = f.sys_open(r.m, watched(bytes, false, closes, 'one', 'x'), f.O_RDWR)
    const two = f.sys_open(r.m, watched(bytes, false, closes, 'two', 'x'), f.O_RDWR)
    expect(closes).toEqual(['two'])
    f.sys_pwrite(r.m, one, Uint8Array.of(5, 0, 0, 0), 0)
    expect(r.fileWord(two, 0)).toBe(5)
    expect([f.sys_close(r.m, one), closes.length]).toEqual([0, 1])
    expect(r.fileWord(two, 0)).toBe(5)
    expect([f.sys_close(r.m, two), closes]).toEqual([0, ['two', 'one']])
  })

  test('that are one and the same store: it stays open until the last close', () => {
    const r = rig()
    const closes: string[] = []
    const store = watched(keptStore(r.pageSize), false, closes, 'one')
    const fds = [f.sys_open(r.m, store, f.O_RDWR), f.sys_open(r.m, store, f.O_RDONLY)]
    expect([f.sys_close(r.m, fds[1]), closes]).toEqual([0, []])
    expect([f.sys_close(r.m, fds[0]), closes]).toEqual([0, ['one']])
  })

  test('of which the first only reads: a writable one takes its place', () => {
    const r = rig()
    const bytes = keptStore(2 * r.pageSize)
    const closes: string[] = []
    const reads = f.sys_open(r.m, watched(bytes, true, closes, 'reads', 'x'), f.O_RDONLY)
    expect(f.sys_reopen(r.m, reads, f.O_RDWR)).toBe(-EBADF)
    const writes = f.sys_open(r.m, watched(bytes, false, closes, 'writes', 'x'), f.O_RDWR)
    expect(closes).toEqual(['reads'])
    f.sys_pwrite(r.m, writes, Uint8Array.of(6, 0, 0, 0), 0)
    expect(f.sys_fsync(r.m, reads)).toBe(0)
    const stored = new Uint8Array(4)
    bytes.read(0, stored, 0, 4)
    expect(stored[0]).toBe(6)
    const again = f.sys_open(r.m, watched(bytes, true, closes, 'again', 'x'), f.O_RDONLY)
    expect(closes).toEqual(['reads', 'again'])
    for (const fd of [reads, writes, again]) expect(f.sys_close(r.m, fd)).toBe(0)
    expect(closes).toEqual(['reads', 'again', 'writes'])
  })

  test('without identity are files of their own', () => {
    const r = rig()
    const bytes = keptStore(2 * r.pageSize)
    const closes: string[] = []
    const one = f.sys_open(r.m, watched(bytes, false, closes, 'one'), f.O_RDWR)
    const two = f.sys_open(r.m, watched(bytes, false, closes, 'two'), f.O_RDWR)
    f.sys_pwrite(r.m, one, Uint8Array.of(5, 0, 0, 0), 0)
    expect([r.fileWord(one, 0), r.fileWord(two, 0)]).toEqual([5, 0])
  })
})

describe('an open that fails', () => {
  test('closes the store, unless it is open already', () => {
    const r = rig()
    const closes: string[] = []
    const reads = watched(keptStore(r.pageSize), true, closes, 'reads')
    expect(f.sys_open(r.m, reads, f.O_RDWR)).toBe(-EBADF)
    expect(closes).toEqual(['reads'])
    const fd = f.sys_open(r.m, reads, f.O_RDONLY)
    expect(fd).toBeGreaterThan(2)
    expect(f.sys_open(r.m, reads, f.O_RDWR)).toBe(-EBADF)
    expect(closes).toEqual(['reads'])
    expect(f.sys_close(r.m, fd)).toBe(0)
    const unwell = { ...watched(keptStore(r.pageSize), false, closes, 'unwell'), size: () => -EIO }
    expect(f.sys_open(r.m, unwell, f.O_RDWR)).toBe(-EIO)
    expect(closes).toEqual(['reads', 'reads', 'unwell'])
  })

  test('for want of an inode, an open file or a descriptor leaves nothing', () => {
    const r = rig({ maxInodes: 2, maxFiles: 3 })
    const closes: string[] = []
    const store = (name: string): Store => watched(keptStore(r.pageSize), false, closes, name)
    const one = f.sys_open(r.m, store('one'), f.O_RDWR)
    const two = f.sys_open(r.m, store('two'), f.O_RDWR)
    expect(f.sys_open(r.m, store('three'), f.O_RDWR)).toBe(-ENFILE)
    expect(f.sys_memory(r.m, 'm', f.MEMORY_SHMEM, 1, 0)).toBe(-ENFILE)
    expect(closes).toEqual(['three'])
    const more = f.sys_reopen(r.m, one, f.O_RDWR)
    expect(more).toBeGreaterThan(two)
    expect(f.sys_reopen(r.m, one, f.O_RDWR)).toBe(-ENFILE)
    expect(f.sys_close(r.m, two)).toBe(0)
    expect(closes).toEqual(['three', 'two'])
    // A number that was given is never given again.
    expect(f.sys_reopen(r.m, one, f.O_RDWR)).toBe(two + r.m.fds.length)
    expect(f.sys_fsize(r.m, two)).toBe(-EBADF)
  })

  test('for want of a descriptor closes what it had opened', () => {
    const r = rig({ maxFiles: 4 })
    const closes: string[] = []
    const kept = r.m.fds.slice()
    r.m.fds.fill(1, 3)
    expect(f.sys_open(r.m, watched(keptStore(r.pageSize), false, closes, 'one'), f.O_RDWR)).toBe(-EMFILE)
    expect(closes).toEqual(['one'])
    r.m.fds.set(kept)
    expect(f.sys_memory(r.m, 'm', f.MEMORY_SHMEM, 1, 0)).toBe(3)
  })
})

describe('the last reference', () => {
  test('is whichever of descriptors, mappings, and mappings of children goes last', () => {
    const r = rig()
    const closes: string[] = []
    const fd = f.sys_open(r.m, watched(keptStore(4 * r.pageSize), false, closes, 'one'), f.O_RDWR)
    const at = r.map(fd, 4, MAP_SHARED)
    const child = r.fork()
    expect(f.sys_close(r.m, fd)).toBe(0)
    expect(f.sys_close(r.m, fd)).toBe(-EBADF)
    expect(mem.sys_mprotect(r.mm, at + r.pageSize, r.pageSize, 1)).toBe(0)
    expect(mem.sys_munmap(r.mm, at, 4 * r.pageSize)).toBe(0)
    expect([r.load(at, child), closes.length]).toEqual([0, 0])
    expect(sys_exit(child)).toBe(0)
    expect(closes).toEqual(['one'])
  })

  test('writes what is dirty, also what only an entry knows, and makes the store as long as the file', () => {
    const r = rig()
    const bytes = keptStore(r.pageSize)
    const fd = f.sys_open(r.m, watched(bytes, false, [], 'one'), f.O_RDWR)
    f.sys_ftruncate(r.m, fd, 4 * r.pageSize)
    const at = r.map(fd, 4, MAP_SHARED)
    r.remap(at, 1, 2)
    r.store(at, 77)
    f.sys_pwrite(r.m, fd, Uint8Array.of(1), 6 * r.pageSize)
    expect(f.sys_ftruncate(r.m, fd, 8 * r.pageSize)).toBe(0)
    f.sys_close(r.m, fd)
    expect(mem.sys_munmap(r.mm, at, 4 * r.pageSize)).toBe(0)
    const word = new Uint8Array(4)
    bytes.read(2 * r.pageSize, word, 0, 4)
    expect([word[0], bytes.size()]).toEqual([77, 8 * r.pageSize])
  })

  test.each(['munmap', 'exit', 'mmap over it'])('that could not write says so: %s', how => {
    const r = rig()
    const { fd, store } = r.file(2)
    const mm = r.space()
    const at = r.map(fd, 2, MAP_SHARED, 3, 0, mm)
    r.store(at, 5, mm)
    f.sys_close(r.m, fd)
    store.arm({ kind: 'error-for-good', op: 'write' })
    const call = {
      munmap: () => mem.sys_munmap(mm, at, 2 * r.pageSize),
      exit: () => sys_exit(mm),
      'mmap over it': () => mem.sys_mmap(mm, at, 2 * r.pageSize, 3, MAP_PRIVATE | MAP_ANONYMOUS | abi.MAP_FIXED, -1, 0)
    }[how]
    expect(call?.()).toBe(-EIO)
    expect(mm.isAlive).toBe(how !== 'exit')
  })

  test('frees shared memory, in RAM and in swap, and its share of the quota', () => {
    const r = rig({ swapSlots: 16 })
    const group = f.sys_quota(r.m, 4)
    const fd = r.memory(4, group)
    r.m.reclaim.shrink(2)
    expect(r.m.swap.nrUsed).toBeGreaterThan(0)
    const other = f.sys_memory(r.m, 'more', f.MEMORY_SHMEM, r.pageSize, group)
    expect(f.sys_pwrite(r.m, other, Uint8Array.of(1), 0)).toBeLessThan(0)
    expect(f.sys_close(r.m, fd)).toBe(0)
    expect(r.m.swap.nrUsed).toBe(0)
    expect(f.sys_pwrite(r.m, other, new Uint8Array(4 * r.pageSize), 0)).toBe(4 * r.pageSize)
  })
})

test('there are so many groups of quotas', () => {
  const r = rig()
  let last = 0
  for (let i = 0; i < 100; i++) {
    const id = f.sys_quota(r.m, 1)
    if (id < 0) {
      expect(id).toBe(-ENFILE)
      break
    }
    expect(id).toBe(last + 1)
    last = id
  }
  expect(last).toBe(63)
  const fd = f.sys_memory(r.m, 'm', f.MEMORY_SHMEM, 2 * r.pageSize, last)
  expect(f.sys_pwrite(r.m, fd, new Uint8Array(2 * r.pageSize), 0)).toBe(r.pageSize)
})

test('a store larger than can be numbered is cut there', () => {
  const r = rig()
  const fd = f.sys_open(r.m, memoryStore({ sizeBytes: 2 ** 50 }), f.O_RDONLY)
  expect(f.sys_fsize(r.m, fd)).toBe(0x7fffffff * r.pageSize)
})
