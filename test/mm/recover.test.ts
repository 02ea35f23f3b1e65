/**
 * What a thread held goes back when it has ended (mm/recover). The thread is a second machine attached to the same
 * memory that the test runs up to some point and then no further; `test/threads/deaths.long.test.ts` ends real ones.
 */
import { expect, test } from 'vitest'
import { EOWNERDEAD } from '../../src/abi/errno.ts'
import { MAP_SHARED } from '../../src/abi/mman.ts'
import { MM_MMAP_LOCK } from '../../src/frame/mm-table.ts'
import { attachKernel, createKernel } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { recoverThread } from '../../src/mm/recover.ts'
import { checkMachine } from '../../src/observe/check.ts'
import type { StoreOpener } from '../../src/store/store.ts'
import { sharedStore, sharedStoreBuffer, sharedStores } from '../../src/stores/shared.ts'
import { IO_FILL, S_STARVING, T_STARVING } from '../../src/sync/threads.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'

const P = 4096
const PAGES = 16
/** The platform's numbers of the threads that end, and of one that does not. */
const DYING = 77
const OTHER = 78

interface Two {
  readonly m: Machine
  /** The thread that ends. */
  readonly dying: Machine
  readonly mm: Mm
  readonly mmThere: Mm
  readonly fd: number
  readonly at: number
}

function twoThreads(): Two {
  const buffer = sharedStoreBuffer(PAGES * P)
  const opener: StoreOpener = sharedStores({ data: buffer })
  const kernel = createKernel({ nrFrames: 64, threads: 3, maxInodes: 4, maxFiles: 8, maxSpaces: 2, maxVmas: 16 })
  const m = kernel.machine
  const dying = attachKernel(kernel.handle, undefined, DYING).machine
  dying.inodes.stores.addOpener(opener)
  const fd = f.sys_open(m, sharedStore(buffer, { name: 'data', sizeBytes: PAGES * P }), f.O_RDWR)
  const mm = sys_mm_create(m) as Mm
  const at = mem.sys_mmap(mm, 0, PAGES * P, 3, MAP_SHARED, fd, 0)
  return { m, dying, mm, mmThere: new Mm(dying, mm.id, mm.generation), fd, at }
}

/** The machine is whole, and everything works and comes back. */
function expectWhole({ m, mm, fd, at }: Two): void {
  expect(checkMachine(m)).toEqual([])
  expect(m.mms.row(mm.id, MM_MMAP_LOCK)).toBe(0)
  expect(sys_remap_file_pages(mm, at, P, 0, 9, 0)).toBe(0)
  expect(f.sys_copy_to_user(mm, at + P, Uint8Array.of(3))).toBe(1)
  expect(f.sys_ftruncate(m, fd, 4 * P)).toBe(0)
  expect(sys_exit(mm)).toBe(0)
  expect(f.sys_close(m, fd)).toBe(0)
  expect(m.allocator.nrFree).toBe(m.ram.nrFrames - 1)
  expect(checkMachine(m)).toEqual([])
}

test('pages that it read and that are gone by now are passed over, those that came are kept', () => {
  const two = twoThreads()
  const { m, dying, fd } = two
  const bytes = new Uint8Array(1)
  expect(f.sys_pread(m, fd, bytes, 5 * P)).toBe(1)
  const frame = m.cache.lookup(1, 5)
  expect(dying.sync.lock()).toBe(0)
  dying.sync.openWindow(IO_FILL, 1, 3, 4)
  expect(recoverThread(m, dying.sync.me, DYING)).toBe(0)
  expect(m.cache.lookup(1, 5)).toBe(frame)
  expectWhole(two)
})

test('who starved for the machine lock is not let go first any more', () => {
  const two = twoThreads()
  const { m, dying } = two
  // As while it slept for the lock.
  dying.sync.threads.w[dying.sync.row + T_STARVING] = 1
  Atomics.add(m.sync.words, S_STARVING, 1)
  expect(recoverThread(m, dying.sync.me, DYING)).toBe(0)
  expect(m.sync.words[S_STARVING]).toBe(0)
  expectWhole(two)
})

test('what it held goes back once, and not from whoever has its row next', () => {
  const two = twoThreads()
  const { m, dying, mmThere, at } = two
  expect(f.sys_copy_from_user(mmThere, at, new Uint8Array(P))).toBe(P)
  const { me } = dying.sync
  expect(recoverThread(m, me, OTHER), 'another thread’s').toBe(0)
  expect(m.sync.isAttached(me)).toBe(true)
  expect(recoverThread(m, me, DYING)).toBe(0)
  expect(m.sync.isAttached(me)).toBe(false)
  expect(recoverThread(m, me, DYING)).toBe(0)
  const row = m.sync.threads.attach(OTHER)
  expect(row).toBe(me)
  expect(recoverThread(m, me, DYING)).toBe(0)
  expect(m.sync.isAttached(me)).toBe(true)
  m.sync.threads.free(row)
  expectWhole(two)
})

test('a thread that had the machine lock breaks the machine, and whoever hears of it is told', () => {
  const { m, dying, mm, at } = twoThreads()
  expect(dying.enter()).toBe(true)
  expect(recoverThread(m, dying.sync.me, DYING)).toBe(EOWNERDEAD)
  expect(m.enter()).toBe(false)
  expect(m.refused).toBe(EOWNERDEAD)
  expect(f.sys_copy_from_user(mm, at, new Uint8Array(1))).toBeLessThan(0)
  expect(m.lastError).toBe(EOWNERDEAD)
  expect(mem.sys_msync(mm, at, P, 4)).toBe(-EOWNERDEAD)
  expect(f.sys_read_user(mm, at, P, 3, 0)).toBe(-EOWNERDEAD)
})
