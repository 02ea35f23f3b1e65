/** Every system call with every hostile argument in every place: Linux's errno, nothing thrown, nothing changed. */
import { beforeEach, describe, expect, test } from 'vitest'
import {
  createKernel,
  EBADF,
  EFAULT,
  EINVAL,
  ENODEV,
  EOPNOTSUPP,
  EPERM,
  ESRCH,
  formatSmaps,
  type Machine,
  type Mm,
  memoryStore,
  smaps
} from '../../src/index.ts'
import { assertMachine } from '../../src/observe/check.ts'
import * as file from '../../src/syscall/file.ts'
import * as fremap from '../../src/syscall/fremap.ts'
import * as memory from '../../src/syscall/memory.ts'
import * as mlock from '../../src/syscall/mlock.ts'
import * as process from '../../src/syscall/process.ts'

const P = 4096
const NO_QUANTITY = [
  -1,
  -P,
  0.5,
  P + 0.25,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** 53,
  2 ** 64,
  -1n,
  2n ** 64n,
  '4096',
  null,
  undefined,
  {},
  [],
  true
]
const NO_INT = [
  0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 32,
  -(2 ** 31) - 1,
  2n ** 40n,
  -1n,
  '1',
  null,
  undefined,
  {}
]
const NO_FD = [-1, 1000, 2 ** 40, 0.5, Number.NaN, 0, 1, 2, '3', null, undefined, {}]

let m: Machine
let mm: Mm
let fd: number
let at: number

beforeEach(() => {
  m = createKernel({ nrFrames: 64, swap: { store: memoryStore(), nrSlots: 16 } }).machine
  mm = process.sys_mm_create(m) as Mm
  fd = file.sys_memory(m, 'target', file.MEMORY_SHMEM, 8 * P, 0)
  at = memory.sys_mmap(mm, 0, 8 * P, 3, 1, fd, 0)
  file.sys_copy_to_user(mm, at, new Uint8Array(8 * P).fill(7))
  fremap.sys_remap_file_pages(mm, at, P, 0, 5, 0)
})

/** All that a call could have changed and a user could see. */
function digest(): string {
  const bytes = new Uint8Array(8 * P)
  file.sys_copy_from_user(mm, at, bytes)
  return JSON.stringify([
    formatSmaps(m, smaps(m, mm.id)),
    file.sys_fsize(m, fd),
    file.sys_fpages(m, fd),
    m.allocator.nrFree,
    m.swap.nrUsed,
    m.vmas.nrInUse,
    [...m.files.refs].filter(n => n > 0),
    bytes.reduce((sum, byte, i) => (sum + byte * (i + 1)) % 1_000_000_007, 0)
  ])
}

type Kind = 'quantity' | 'int' | 'fd' | 'bytes'
type Call = (...args: never[]) => unknown

/** Name, call, good arguments after the handle (functions of the set-up), and what each of them is. */
const calls: [string, Call, () => unknown[], Kind[]][] = [
  ['mmap', memory.sys_mmap, () => [0, P, 3, 1, fd, 0], ['quantity', 'quantity', 'int', 'int', 'fd', 'quantity']],
  ['munmap', memory.sys_munmap, () => [at, P], ['quantity', 'quantity']],
  ['mprotect', memory.sys_mprotect, () => [at, P, 1], ['quantity', 'quantity', 'int']],
  [
    'mremap',
    memory.sys_mremap,
    () => [at, 8 * P, 4 * P, 1, 0],
    ['quantity', 'quantity', 'quantity', 'int', 'quantity']
  ],
  ['msync', memory.sys_msync, () => [at, P, 4], ['quantity', 'quantity', 'int']],
  ['madvise', memory.sys_madvise, () => [at, P, 4], ['quantity', 'quantity', 'int']],
  ['mincore', memory.sys_mincore, () => [at, P, new Uint8Array(1)], ['quantity', 'quantity', 'bytes']],
  ['mlock', mlock.sys_mlock, () => [at, P], ['quantity', 'quantity']],
  ['mlock2', mlock.sys_mlock2, () => [at, P, 0], ['quantity', 'quantity', 'int']],
  ['munlock', mlock.sys_munlock, () => [at, P], ['quantity', 'quantity']],
  ['mlockall', mlock.sys_mlockall, () => [1], ['int']],
  [
    'remap_file_pages',
    fremap.sys_remap_file_pages,
    () => [at, P, 0, 3, 0],
    ['quantity', 'quantity', 'int', 'quantity', 'int']
  ],
  ['read into memory', file.sys_read_user, () => [at, P, fd, 0], ['quantity', 'quantity', 'fd', 'quantity']],
  ['write from memory', file.sys_write_user, () => [at, P, fd, 0], ['quantity', 'quantity', 'fd', 'quantity']]
]

const wrong: Record<Exclude<Kind, 'bytes'>, unknown[]> = { quantity: NO_QUANTITY, int: NO_INT, fd: NO_FD }

function run(call: Call, args: unknown[]): unknown {
  return (call as unknown as (...args: unknown[]) => unknown)(...args)
}

describe.each(calls)('%s', (_name, call, good, kinds) => {
  test('arguments that are none', () => {
    const before = digest()
    kinds.forEach((kind, place) => {
      if (kind === 'bytes') return
      for (const value of wrong[kind]) {
        const args = good()
        args[place] = value
        const result = run(call, [mm, ...args])
        const label = `argument ${place} = ${typeof value === 'bigint' ? `${value}n` : (JSON.stringify(value) ?? String(value))}`
        expect(result, label).toBe(kind === 'fd' ? -EBADF : -EINVAL)
        expect(digest(), label).toBe(before)
      }
    })
    assertMachine(m)
  })

  test('handles that are none, stale or of a closed machine', () => {
    const other = process.sys_mm_create(m) as Mm
    process.sys_exit(other)
    const before = digest()
    for (const handle of [null, undefined, 1, {}, { machine: m, id: 1, generation: 1, isAlive: true }, other]) {
      expect(run(call, [handle, ...good()])).toBe(-ESRCH)
      expect(digest()).toBe(before)
    }
    const closed = createKernel({ nrFrames: 16 }).machine
    const late = process.sys_mm_create(closed) as Mm
    closed.open = false
    expect(run(call, [late, ...good()])).toBe(-ESRCH)
  })

  test('the good arguments are good', () => {
    const result = run(call, [mm, ...good()])
    expect(result).toBeGreaterThanOrEqual(0)
    assertMachine(m)
  })
})

describe('limits of the address space', () => {
  const far = [2n ** 64n - 1n, 2n ** 64n - 4096n, 2n ** 63n, 2 ** 52, (2 ** 31 - 1) * P, 2 ** 31 * P]

  test('addresses and lengths at the end of 2^64 and of the space', () => {
    const before = digest()
    for (const x of far) {
      for (const [name, call, good] of calls) {
        for (const place of [0, 1]) {
          const args = good()
          if (typeof args[place] !== 'number' || name === 'mlockall') continue
          // Linux rounds a length of 2^64 - 1 up to 0: nothing to do, or for mremap a duplicate; a hint is only a hint.
          const rounded =
            place === 1 && x === 2n ** 64n - 1n && ['msync', 'mlock', 'mlock2', 'munlock', 'mremap'].includes(name)
          if (rounded || (name === 'mmap' && place === 0)) continue
          // A source that shrinks by unmapping what lies beyond it needs a length that fits.
          args[place] = x
          const result = run(call, [mm, ...args]) as number
          // What is mapped comes first in the range, and madvise and msync do that part; DONTNEED shows no change here.
          expect(result, `${name} argument ${place} = ${x}`).toBeLessThan(0)
          if (!['mlock', 'mlock2', 'munlock', 'mprotect', 'madvise'].includes(name)) {
            expect(digest(), `${name} argument ${place} = ${x}`).toBe(before)
          }
          mlock.sys_munlockall(mm)
          memory.sys_mprotect(mm, at, 8 * P, 3)
          file.sys_copy_from_user(mm, at, new Uint8Array(8 * P))
        }
      }
    }
    assertMachine(m)
  })

  test('unaligned, wrapping and unmapped ranges', () => {
    const before = digest()
    expect(memory.sys_munmap(mm, at + 1, P)).toBe(-EINVAL)
    expect(memory.sys_munmap(mm, at, 0)).toBe(-EINVAL)
    expect(memory.sys_mprotect(mm, at + 1, P, 1)).toBe(-EINVAL)
    expect(memory.sys_mmap(mm, 0, P, 3, 1, fd, 1)).toBe(-EINVAL)
    expect(memory.sys_mmap(mm, 0, 0, 3, 1, fd, 0)).toBe(-EINVAL)
    expect(memory.sys_mmap(mm, at + 1, P, 3, 0x11, fd, 0)).toBe(-EINVAL)
    expect(memory.sys_mmap(mm, at, P, 3, 0x100001, fd, 0)).toBe(-17)
    expect(memory.sys_mmap(mm, 0, P, 3, 0, fd, 0)).toBe(-EINVAL)
    expect(memory.sys_mmap(mm, 0, P, 3, 3 | 0x80000, fd, 0)).toBe(-EOPNOTSUPP)
    expect(memory.sys_madvise(mm, at, P, 100)).toBe(-EPERM)
    expect(memory.sys_madvise(mm, at, P, 77)).toBe(-EINVAL)
    expect(memory.sys_mincore(mm, at, 2 * P, new Uint8Array(1))).toBe(-EFAULT)
    expect(memory.sys_mincore(mm, at, P, null)).toBe(-EFAULT)
    expect(fremap.sys_remap_file_pages(mm, at, P, 1, 0, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages(mm, at, P - 1, 0, 0, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages(mm, at, P, 0, 2 ** 28 - 1, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages(mm, at, P, 0, 2n ** 64n - 1n, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages_vec(mm, at, Int32Array.of(0, -1), 0, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages_vec(mm, at + 1, Int32Array.of(0), 0, 0)).toBe(-EINVAL)
    expect(fremap.sys_remap_file_pages_vec(mm, at, [0] as unknown as Int32Array, 0, 0)).toBe(-EINVAL)
    expect(digest()).toBe(before)
    expect(memory.sys_mmap(mm, 0, P, 3, 3, fd, 0)).toBeGreaterThan(0)
    expect(fremap.sys_remap_file_pages(mm, at, P, 0, 2 ** 28 - 2, 0x10000)).toBe(0)
  })
})

test('descriptors and positions that are none', () => {
  const before = digest()
  const buffer = new Uint8Array(4)
  for (const bad of NO_FD as number[]) {
    expect(file.sys_close(m, bad)).toBe(-EBADF)
    expect(file.sys_ftruncate(m, bad, 0)).toBe(-EBADF)
    expect(file.sys_fallocate(m, bad, 3, 0, P)).toBe(-EBADF)
    expect(file.sys_pread(m, bad, buffer, 0)).toBe(-EBADF)
    expect(file.sys_pwrite(m, bad, buffer, 0)).toBe(-EBADF)
    expect(file.sys_fsync(m, bad)).toBe(-EBADF)
    expect(file.sys_fsize(m, bad)).toBe(-EBADF)
  }
  for (const bad of NO_QUANTITY as number[]) {
    expect(file.sys_ftruncate(m, fd, bad)).toBe(-EINVAL)
    expect(file.sys_fallocate(m, fd, 3, bad, P)).toBe(-EINVAL)
    expect(file.sys_fallocate(m, fd, 3, 0, bad)).toBe(-EINVAL)
    expect(file.sys_pread(m, fd, buffer, bad)).toBe(-EINVAL)
    expect(file.sys_pwrite(m, fd, buffer, bad)).toBe(-EINVAL)
    expect(file.sys_memory(m, 'x', 0, bad, 0)).toBe(-EINVAL)
  }
  expect(file.sys_fallocate(m, fd, 8, 0, P)).toBe(-EOPNOTSUPP)
  expect(file.sys_open(m, memoryStore({ readOnly: true, sizeBytes: P }), file.O_RDWR)).toBe(-EBADF)
  expect(file.sys_open(m, memoryStore(), 7)).toBe(-EINVAL)
  expect(digest()).toBe(before)
  m.open = false
  expect(file.sys_memory(m, 'x', 0, P, 0)).toBe(-ENODEV)
  expect(process.sys_mm_create(m)).toBe(-ENODEV)
})
