/**
 * What calls answer when the handle, the machine, the limit or an argument is not one they can work with; and that
 * nothing changes by it.
 */
import { describe, expect, test } from 'vitest'
import {
  EAGAIN,
  EDEADLK,
  EFAULT,
  EINVAL,
  EMFILE,
  ENFILE,
  ENODEV,
  ENOMEM,
  EPERM,
  ESRCH,
  errnoName
} from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { MM_LOCKED_VM, MM_MAP_COUNT } from '../../src/frame/mm-table.ts'
import { createKernel } from '../../src/kernel.ts'
import { MMU_TLB } from '../../src/mmu/kinds.ts'
import type { MmuNotifier } from '../../src/notify/notifier.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import * as fremap from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import * as lock from '../../src/syscall/mlock.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import * as proc from '../../src/syscall/process.ts'
import { keptStore, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()
const ANON = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS
const notifier: MmuNotifier = {}

/** Calls that take an address space, as calls of the space alone. */
const calls: Record<string, (mm: Mm, at: number, P: number) => unknown> = {
  fork: mm => proc.sys_fork(mm),
  exit: mm => proc.sys_exit(mm),
  setrlimit: mm => proc.sys_setrlimit(mm, proc.RLIMIT_AS, 5),
  clear_refs: mm => proc.sys_clear_refs(mm, 1),
  register: mm => proc.sys_mmu_notifier_register(mm, notifier),
  unregister: mm => proc.sys_mmu_notifier_unregister(mm, notifier),
  'register of a kind': mm => proc.sys_mmu_kind_register(mm, MMU_TLB, -1, []),
  'unregister of a kind': mm => proc.sys_mmu_kind_unregister(mm, 1),
  brk: mm => mem.sys_brk(mm, 0),
  munlockall: mm => lock.sys_munlockall(mm),
  'remap of a vector': (mm, at) => fremap.sys_remap_file_pages_vec(mm, at, Int32Array.of(1), 0, 0),
  'copy from user': (mm, at) => f.sys_copy_from_user(mm, at, new Uint8Array(1)),
  'copy to user': (mm, at) => f.sys_copy_to_user(mm, at, new Uint8Array(1)),
  'read of /proc/PID/mem': (mm, at) => sys_mem_read(mm, at, new Uint8Array(1)),
  'write of /proc/PID/mem': (mm, at) => sys_mem_write(mm, at, new Uint8Array(1))
}

describe.each(Object.entries(calls))('%s', (_name, call) => {
  test('of a space that ended, of what has its row next, of a closed machine, of no space at all', () => {
    const r = rig()
    const P = r.pageSize
    const ended = r.space()
    expect(proc.sys_exit(ended)).toBe(0)
    const next = r.space()
    expect(next.id).toBe(ended.id)
    const at = r.map(-1, 2, ANON, RW, 0, next)
    r.store(at, 7, next)
    const map = r.row(MM_MAP_COUNT, next)
    for (const handle of [ended, undefined, {}, { machine: r.m, id: next.id, generation: 0, isAlive: true }]) {
      expect(call(handle as Mm, at, P)).toBe(-ESRCH)
    }
    expect(r.load(at, next)).toBe(7)
    expect(r.row(MM_MAP_COUNT, next)).toBe(map)
    const closed = createKernel({ nrFrames: 16 }).machine
    const late = proc.sys_mm_create(closed) as Mm
    closed.open = false
    expect(call(late, at, P)).toBe(-ESRCH)
  })
})

test('a closed machine opens nothing, and says so before it looks at a store', () => {
  const { machine } = createKernel({ nrFrames: 16 })
  machine.open = false
  const store = memoryStore({ sizeBytes: 4096 })
  expect(f.sys_open(machine, store, f.O_RDONLY)).toBe(-ENODEV)
  expect(store.read(0, new Uint8Array(1), 0, 1), 'the store is still the caller’s').toBe(1)
})

test('calls on a machine from within a call', () => {
  const r = rig()
  const { fd, store } = r.file(2)
  let results: unknown[] = []
  store.arm({
    kind: 'hook',
    op: 'read',
    run: () => {
      results = [
        f.sys_quota(r.m, 5),
        proc.sys_mmu_kind_register(r.mm, MMU_TLB, -1, []),
        proc.sys_mmu_kind_unregister(r.mm, 1),
        sys_mem_read(r.mm, 0x1000, new Uint8Array(1))
      ]
    }
  })
  expect(r.fileWord(fd, 1)).toBe(2)
  expect(results).toEqual([-EDEADLK, -EDEADLK, -EDEADLK, -EDEADLK])
  // None of them took a group, a row or a lock.
  expect(f.sys_quota(r.m, 5)).toBe(1)
})

describe('arguments that are none', () => {
  test('of clear_refs and setrlimit', () => {
    const r = rig()
    for (const kind of [0, 6, 1.5, Number.NaN]) expect(proc.sys_clear_refs(r.mm, kind)).toBe(-EINVAL)
    for (const pages of [-2, 2 ** 31, 0.5]) expect(proc.sys_setrlimit(r.mm, proc.RLIMIT_AS, pages)).toBe(-EINVAL)
    expect(proc.sys_setrlimit(r.mm, 7, 5)).toBe(-EINVAL)
    expect(r.map(-1, 100, ANON)).toBeGreaterThan(0)
  })

  test('of brk: the heap stays', () => {
    const r = rig()
    const end = mem.sys_brk(r.mm, 0)
    for (const none of [-1, 0.5, 2n ** 64n]) expect(mem.sys_brk(r.mm, none)).toBe(-EINVAL)
    expect(mem.sys_brk(r.mm, 0)).toBe(end)
  })

  test('of copies to and from a space', () => {
    const r = rig()
    const at = r.map(-1, 1, ANON)
    const bytes = new Uint8Array(4)
    for (const call of [f.sys_copy_from_user, f.sys_copy_to_user]) {
      for (const address of [-1, 0.5, 2 ** 31 * r.pageSize]) expect(call(r.mm, address, bytes)).toBe(-EFAULT)
      expect(call(r.mm, at, [1] as unknown as Uint8Array)).toBe(-EFAULT)
      expect(call(r.mm, at, bytes)).toBe(4)
    }
  })

  test('protection that asks for a mapping that grows: EINVAL, as Linux where the mapping does not', () => {
    const r = rig()
    const at = r.map(-1, 1, ANON)
    for (const grows of [abi.PROT_GROWSDOWN, abi.PROT_GROWSUP]) {
      expect(mem.sys_mprotect(r.mm, at, r.pageSize, abi.PROT_READ | grows)).toBe(-EINVAL)
    }
    expect(r.store(at, 5)).toBe(0)
  })

  test('mremap to a place within a page', () => {
    const r = rig()
    const P = r.pageSize
    const at = r.map(-1, 2, ANON)
    r.store(at, 5)
    const fixed = abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED
    expect(mem.sys_mremap(r.mm, at, P, P, fixed, at + 8 * P + 8)).toBe(-EINVAL)
    expect(r.load(at)).toBe(5)
  })

  test('a file page that no double can hold exactly', () => {
    const r = rig()
    const at = r.map(r.memory(2), 2, abi.MAP_SHARED)
    expect(fremap.sys_remap_file_pages(r.mm, at, r.pageSize, 0, 2n ** 60n, 0)).toBe(-EINVAL)
    // A BigInt that one can hold is as good as a number.
    expect(fremap.sys_remap_file_pages(r.mm, at, r.pageSize, 0, 1n, 0)).toBe(0)
    expect(r.load(at)).toBe(2)
  })
})

describe('limits', () => {
  test('no locked memory at all is EPERM, also on demand; unlocking works', () => {
    const r = rig()
    const at = r.map(-1, 2, ANON)
    proc.sys_setrlimit(r.mm, proc.RLIMIT_MEMLOCK, 0)
    expect(lock.sys_mlock(r.mm, at, r.pageSize)).toBe(-EPERM)
    expect(lock.sys_mlock2(r.mm, at, r.pageSize, abi.MLOCK_ONFAULT)).toBe(-EPERM)
    expect(lock.sys_munlock(r.mm, at, r.pageSize)).toBe(0)
    expect(r.row(MM_LOCKED_VM)).toBe(0)
  })

  test('a range to lock that passes 2^64 wraps, as in C', () => {
    const r = rig()
    const P = BigInt(r.pageSize)
    const at = r.map(-1, 2, ANON)
    // From the second byte of the page all around to its beginning: whole pages, none are left.
    expect(lock.sys_mlock(r.mm, at + 1, 2n ** 64n - 1n)).toBe(0)
    expect(lock.sys_mlock(r.mm, BigInt(at) + P, 2n ** 64n - P)).toBe(-EINVAL)
    expect(r.row(MM_LOCKED_VM)).toBe(0)
  })

  test('address spaces, inodes, files and descriptors are used up', () => {
    const { m } = rig({ maxSpaces: 2, maxInodes: 3, maxFiles: 4 })
    const spaces = [proc.sys_mm_create(m), proc.sys_mm_create(m)]
    expect(spaces[1]).toBe(-ENOMEM)
    expect(proc.sys_fork(spaces[0] as Mm)).toBe(-ENOMEM)
    const memory = (): number => f.sys_memory(m, 'x', f.MEMORY_SHMEM, 4096, 0)
    const fds = [memory(), memory(), memory()]
    expect(Math.min(...fds)).toBeGreaterThan(0)
    expect(memory()).toBe(-ENFILE)
    const store = keptStore(4096)
    expect(f.sys_open(m, store, f.O_RDWR)).toBe(-ENFILE)
    expect(f.sys_reopen(m, fds[0], f.O_RDWR)).toBeGreaterThan(0)
    expect(f.sys_reopen(m, fds[0], f.O_RDWR)).toBe(-ENFILE)
    expect(f.sys_close(m, fds[1])).toBe(0)
    expect(f.sys_open(m, store, f.O_RDWR)).toBe(fds[1] + m.fds.length)
  })

  test('accounting groups are used up', () => {
    const { m } = rig()
    const groups = Array.from({ length: 100 }, () => f.sys_quota(m, 10))
    const used = groups.indexOf(-ENFILE)
    expect(groups.slice(0, used)).toEqual(Array.from({ length: used }, (_, i) => i + 1))
    expect(groups.slice(used).every(group => group === -ENFILE)).toBe(true)
  })
})

test('a memory of one thread keeps descriptors apart from rows: the last one is refused with EMFILE', () => {
  const { m } = rig({ maxFiles: 4 })
  // As many descriptors as rows: with all descriptors taken by hand, the row that was made goes back.
  const taken = m.fds.findIndex((file, fd) => fd >= 3 && file === 0)
  m.fds.fill(1, taken)
  expect(f.sys_memory(m, 'x', f.MEMORY_SHMEM, 4096, 0)).toBe(-EMFILE)
  expect(m.files.refs.every(refs => refs === 0)).toBe(true)
  expect(m.inodes.kind.every(kind => kind === 0)).toBe(true)
  m.fds.fill(0, taken)
})

test('an error number has a name, known or not', () => {
  expect(errnoName(EAGAIN)).toBe('EAGAIN')
  expect(errnoName(4095)).toBe('E4095')
})
