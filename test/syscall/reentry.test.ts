/** Calls from within a call, by a store or a notifier: EDEADLK for all that would change the machine. */
import { describe, expect, test } from 'vitest'
import { EDEADLK } from '../../src/abi/errno.ts'
import { FAULT_BUS } from '../../src/abi/fault.ts'
import * as abi from '../../src/abi/mman.ts'
import { assertMachine } from '../../src/observe/check.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import * as lock from '../../src/syscall/mlock.ts'
import * as proc from '../../src/syscall/process.ts'
import { keptStore, type Rig, RW, useMachines } from '../support/machine.ts'

const rig = useMachines()

/** Every call that changes the machine, with arguments that would do. */
function everything(r: Rig, at: number, fd: number): Record<string, () => unknown> {
  const { m, mm, pageSize: P } = r
  const other = keptStore(P)
  return {
    mmap: () => mem.sys_mmap(mm, 0, P, RW, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS, -1, 0),
    munmap: () => mem.sys_munmap(mm, at, P),
    mprotect: () => mem.sys_mprotect(mm, at, P, 1),
    mremap: () => mem.sys_mremap(mm, at, P, 2 * P, abi.MREMAP_MAYMOVE, 0),
    msync: () => mem.sys_msync(mm, at, P, abi.MS_SYNC),
    madvise: () => mem.sys_madvise(mm, at, P, abi.MADV_DONTNEED),
    mincore: () => mem.sys_mincore(mm, at, P, new Uint8Array(1)),
    brk: () => mem.sys_brk(mm, 0),
    remap: () => sys_remap_file_pages(mm, at, P, 0, 3, 0),
    remapv: () => sys_remap_file_pages_vec(mm, at, Int32Array.of(3), 0, 0),
    mlock: () => lock.sys_mlock(mm, at, P),
    mlock2: () => lock.sys_mlock2(mm, at, P, abi.MLOCK_ONFAULT),
    munlock: () => lock.sys_munlock(mm, at, P),
    mlockall: () => lock.sys_mlockall(mm, abi.MCL_CURRENT),
    munlockall: () => lock.sys_munlockall(mm),
    fork: () => proc.sys_fork(mm),
    exit: () => proc.sys_exit(mm),
    create: () => proc.sys_mm_create(m),
    clear_refs: () => proc.sys_clear_refs(mm, 4),
    register: () => proc.sys_mmu_notifier_register(mm, {}),
    unregister: () => proc.sys_mmu_notifier_unregister(mm, {}),
    open: () => f.sys_open(m, other, f.O_RDWR),
    reopen: () => f.sys_reopen(m, fd, f.O_RDWR),
    memory: () => f.sys_memory(m, 'x', f.MEMORY_SHMEM, P, 0),
    close: () => f.sys_close(m, fd),
    ftruncate: () => f.sys_ftruncate(m, fd, P),
    fallocate: () => f.sys_fallocate(m, fd, 3, 0, P),
    pread: () => f.sys_pread(m, fd, new Uint8Array(4), 0),
    pwrite: () => f.sys_pwrite(m, fd, new Uint8Array(4), 0),
    fsync: () => f.sys_fsync(m, fd)
  }
}

/** Runs everything from a callback. → what each call gave. */
function attempt(r: Rig, at: number, fd: number): Record<string, unknown> {
  return Object.fromEntries(Object.entries(everything(r, at, fd)).map(([name, call]) => [name, call()]))
}

function expectRefused(results: Record<string, unknown> | undefined): void {
  expect(results).toBeDefined()
  expect(results).toEqual(Object.fromEntries(Object.keys(results ?? {}).map(name => [name, -EDEADLK])))
}

describe.each(['read', 'write', 'flush', 'truncate', 'punch'] as const)('from the %s of a store', op => {
  test('every call is refused, the outer one goes on', () => {
    const r = rig({ readaheadBytes: 0 })
    const { fd, store } = r.file(8)
    const at = r.map(fd, 8, abi.MAP_SHARED)
    r.store(at + 5 * r.pageSize, 50)
    r.store(at + 7 * r.pageSize, 70)
    let results: Record<string, unknown> | undefined
    let fault = 0
    let copied = 0
    store.arm({
      kind: 'hook',
      op,
      run: () => {
        results = attempt(r, at, fd)
        fault = r.load(at + 4 * r.pageSize)
        copied = f.sys_read_user(r.mm, at, 4, fd, 3 * r.pageSize)
      }
    })
    if (op === 'read') expect(r.load(at)).toBe(1)
    else if (op === 'truncate') expect(f.sys_ftruncate(r.m, fd, 6 * r.pageSize)).toBe(0)
    else if (op === 'punch') expect(f.sys_fallocate(r.m, fd, 3, r.pageSize, r.pageSize)).toBe(0)
    else expect(f.sys_fsync(r.m, fd)).toBe(0)
    expectRefused(results)
    expect(fault).toBe(-FAULT_BUS)
    expect(copied).toBeLessThan(0)
    assertMachine(r.m)
    expect(r.load(at + 5 * r.pageSize)).toBe(50)
  })
})

describe.each(['invalidateRangeStart', 'invalidateRangeEnd', 'invalidatePage', 'clearFlushYoung'] as const)(
  'from %s of a notifier',
  operation => {
    test('every call is refused, the outer one goes on', () => {
      const r = rig({ swapSlots: 32 })
      const { fd } = r.file(8)
      const at = r.map(fd, 8, abi.MAP_SHARED)
      r.remap(at, 4, 4)
      let results: Record<string, unknown> | undefined
      proc.sys_mmu_notifier_register(r.mm, {
        [operation]: () => {
          results = attempt(r, at, fd)
          return false
        }
      })
      expect(r.remap(at, 1, 6)).toBe(0)
      expect(f.sys_ftruncate(r.m, fd, 6 * r.pageSize)).toBe(0)
      // A fault that reclaims.
      const own = r.map(-1, 100, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS)
      for (let i = 0; i < 60; i++) r.store(own + i * r.pageSize, i)
      expectRefused(results)
      assertMachine(r.m)
      expect(r.load(at + r.pageSize)).toBe(6)
    })
  }
)
