/**
 * A frame that is pinned as often as can be counted: what would pin it once more is refused, and nothing has changed;
 * then it works again.
 */
import { expect, test } from 'vitest'
import { EFAULT, ENOMEM } from '../../src/abi/errno.ts'
import { FAULT_OOM } from '../../src/abi/fault.ts'
import { MADV_DONTNEED, MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED } from '../../src/abi/mman.ts'
import { MAX_PINS } from '../../src/frame/frame-table.ts'
import { pteFrame } from '../../src/pgtable/pte.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_madvise } from '../../src/syscall/memory.ts'
import { type Rig, useMachines } from '../support/machine.ts'

const rig = useMachines()

/** Does something while the frame has all the pins that there are. */
function withAllPins<T>({ m }: Rig, frame: number, act: () => T): T {
  let pins = 0
  while (m.frames.pin(frame)) pins++
  expect(pins).toBe(MAX_PINS)
  try {
    return act()
  } finally {
    for (; pins > 0; pins--) m.frames.unpin(frame)
  }
}

test('a private copy of a page of a file cannot be made', () => {
  const r = rig()
  const { fd } = r.file(4)
  const shared = r.map(fd, 4, MAP_SHARED)
  const own = r.map(fd, 4, MAP_PRIVATE)
  expect(r.load(shared)).toBe(1)
  const frame = pteFrame(r.pte(shared))
  // From nothing, and from an entry that shows the page already.
  for (const prepare of [() => sys_madvise(r.mm, own, r.pageSize, MADV_DONTNEED), () => r.load(own)]) {
    prepare()
    expect(withAllPins(r, frame, () => r.store(own, 9))).toBe(-FAULT_OOM)
    expect(r.m.lastError).toBe(ENOMEM)
    expect(r.load(own)).toBe(1)
  }
  expect(r.store(own, 9)).toBe(0)
  expect([r.load(own), r.load(shared)]).toEqual([9, 1])
})

test('a page that is shared by a fork cannot be copied', () => {
  const r = rig()
  const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  r.store(at, 5)
  const child = r.fork()
  expect(withAllPins(r, pteFrame(r.pte(at)), () => r.store(at, 6, child))).toBe(-FAULT_OOM)
  expect([r.load(at), r.load(at, child)]).toEqual([5, 5])
  expect(r.store(at, 6, child)).toBe(0)
  expect([r.load(at), r.load(at, child)]).toEqual([5, 6])
})

test('a page that comes back to one of two spaces from swap, while the other one has it, cannot be mapped', () => {
  const r = rig({ swapSlots: 128, nrFrames: 32 })
  const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  r.store(at, 5)
  const child = r.fork()
  // Out with it.
  const more = r.map(-1, 60, MAP_PRIVATE | MAP_ANONYMOUS)
  for (let i = 0; i < 60; i++) r.store(more + i * r.pageSize, i)
  expect(r.pte(at) & 1).toBe(0)
  expect(r.load(at)).toBe(5)
  const frame = pteFrame(r.pte(at))
  expect(withAllPins(r, frame, () => r.load(at, child))).toBe(-FAULT_OOM)
  expect(r.load(at, child)).toBe(5)
})

test('a file cannot be cut in the middle of the page, nor read into memory from it', () => {
  const r = rig()
  const { fd, store } = r.file(4)
  const own = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  expect(r.fileWord(fd, 2)).toBe(3)
  const frame = r.m.cache.lookup(r.m.files.inode[r.m.fds[fd]], 2)
  withAllPins(r, frame, () => {
    expect(f.sys_ftruncate(r.m, fd, 2 * r.pageSize + 100)).toBe(-ENOMEM)
    expect(f.sys_read_user(r.mm, own, 4, fd, 2 * r.pageSize)).toBe(-EFAULT)
  })
  expect(f.sys_fsize(r.m, fd)).toBe(4 * r.pageSize)
  expect(store.size()).toBe(4 * r.pageSize)
  expect(f.sys_read_user(r.mm, own, 4, fd, 2 * r.pageSize)).toBe(4)
  expect(r.load(own)).toBe(3)
})

test('a bulk copy of a memory that threads share stops at the page, or begins with an error', () => {
  const r = rig({ threads: 2 })
  const { fd } = r.file(4)
  const at = r.map(fd, 4, MAP_SHARED)
  expect(r.loads(at, 4)).toEqual([1, 2, 3, 4])
  const frame = pteFrame(r.pte(at + 2 * r.pageSize))
  const bytes = new Uint8Array(4 * r.pageSize)
  withAllPins(r, frame, () => {
    expect(f.sys_copy_from_user(r.mm, at, bytes)).toBe(2 * r.pageSize)
    expect(f.lastCopyFault()).toBe(FAULT_OOM)
    expect(f.sys_copy_from_user(r.mm, at + 2 * r.pageSize, bytes)).toBe(-EFAULT)
    expect(r.load(at + 3 * r.pageSize)).toBe(4)
  })
  expect(f.sys_copy_from_user(r.mm, at, bytes)).toBe(4 * r.pageSize)
})
