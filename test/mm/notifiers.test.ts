/** Secondary MMUs: a mirror device never serves a stale byte, whatever happens to the page tables. */
import { describe, expect, test } from 'vitest'
import { EINVAL } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import * as f from '../../src/syscall/file.ts'
import * as mem from '../../src/syscall/memory.ts'
import {
  sys_clear_refs,
  sys_exit,
  sys_mmu_notifier_register,
  sys_mmu_notifier_unregister
} from '../../src/syscall/process.ts'
import { type Rig, useMachines } from '../support/machine.ts'
import { MirrorDevice } from '../support/mirror.ts'

const rig = useMachines()
const { MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS } = abi

interface Setting {
  readonly r: Rig
  readonly at: number
  readonly fd: number
  readonly device: MirrorDevice
  readonly vpn: number
}

/** A device that has read all eight pages of a window whose first half is remapped. */
function mirrored(flags: number = MAP_SHARED): Setting {
  const r = rig({ swapSlots: 64, nrFrames: 96 })
  const { fd } = r.file(8)
  const at = r.map(fd, 8, flags)
  if (flags === MAP_SHARED) for (let i = 0; i < 4; i++) r.remap(at + i * r.pageSize, 1, 7 - i)
  const device = new MirrorDevice(r.m, r.mm.id)
  expect(sys_mmu_notifier_register(r.mm, device)).toBe(0)
  const vpn = at / r.pageSize
  for (let i = 0; i < 8; i++) device.read(vpn + i, 0)
  expect(device.translations.size).toBe(8)
  return { r, at, fd, device, vpn }
}

function forkAfterStore({ r, at }: Setting): number {
  const result = r.store(at, 1)
  r.fork()
  return result
}

describe('a device has dropped what changed, and only that', () => {
  const cases: readonly (readonly [string, number, (s: Setting) => number, number])[] = [
    ['remap of two pages', MAP_SHARED, s => s.r.remap(s.at, 2, 0), 6],
    ['munmap', MAP_SHARED, s => mem.sys_munmap(s.r.mm, s.at, 3 * s.r.pageSize), 5],
    ['mprotect', MAP_SHARED, s => mem.sys_mprotect(s.r.mm, s.at, 3 * s.r.pageSize, 1), 5],
    ['MADV_DONTNEED', MAP_SHARED, s => mem.sys_madvise(s.r.mm, s.at, 3 * s.r.pageSize, abi.MADV_DONTNEED), 5],
    ['clear_refs', MAP_SHARED, s => sys_clear_refs(s.r.mm, 4), 0],
    ['truncation to 2 pages', MAP_SHARED, s => f.sys_ftruncate(s.r.m, s.fd, 2 * s.r.pageSize), 0],
    ['punching page 7', MAP_SHARED, s => f.sys_fallocate(s.r.m, s.fd, 3, 7 * s.r.pageSize, s.r.pageSize), 6],
    ['reclaim', MAP_SHARED, s => Math.min(0, s.r.m.reclaim.shrinkAll()), 0],
    ['fork of private pages', MAP_PRIVATE, forkAfterStore, 0]
  ]
  test.each(cases)('%s', (_name, flags, change, left) => {
    const s = mirrored(flags)
    expect(change(s)).toBe(0)
    expect(s.device.verify()).toEqual([])
    expect(s.device.translations.size).toBe(left)
    for (let i = 0; i < 8; i++) {
      const seen = s.device.read(s.vpn + i, 0)
      const word = s.r.load(s.at + i * s.r.pageSize)
      expect(seen).toBe(word < 0 ? word : word & 0xff)
    }
  })

  test('mremap: nothing at the old place', () => {
    const { r, at, device, vpn } = mirrored()
    const to = mem.sys_mremap(r.mm, at, 8 * r.pageSize, 8 * r.pageSize, 3, at + 64 * r.pageSize)
    expect(device.translations.size).toBe(0)
    expect(device.read(vpn, 0)).toBeLessThan(0)
    expect(device.read(to / r.pageSize, 0)).toBe(8)
  })
})

test('writeback takes the right to write: what the device stores later is not lost', () => {
  const { r, fd, at, device, vpn } = mirrored()
  expect(device.write(vpn, 0, 77)).toBe(0)
  expect(r.load(at) & 0xff).toBe(77)
  expect(f.sys_fsync(r.m, fd)).toBe(0)
  expect(device.verify()).toEqual([])
  expect(device.write(vpn, 0, 78)).toBe(0)
  r.m.reclaim.shrinkAll()
  expect(r.fileWord(fd, 7) & 0xff).toBe(78)
})

test('copy-on-write moves the device to the copy', () => {
  const r = rig()
  const at = r.map(-1, 1, MAP_PRIVATE | MAP_ANONYMOUS)
  r.store(at, 5)
  const child = r.fork()
  const device = new MirrorDevice(r.m, r.mm.id)
  sys_mmu_notifier_register(r.mm, device)
  const vpn = at / r.pageSize
  expect(device.read(vpn, 0)).toBe(5)
  expect(r.store(at, 6)).toBe(0)
  expect([device.read(vpn, 0), r.load(at, child)]).toEqual([6, 5])
})

test('a page that only the device uses counts as used', () => {
  const { r, at, device, vpn } = mirrored()
  // Twice: what faulting left, and then what the device alone has used.
  for (let i = 0; i < 2; i++) {
    device.read(vpn, 0)
    const frame = r.m.tables.get(r.mm.id, vpn) >>> 8
    expect(r.m.rmap.pageReferenced(frame)).toBeGreaterThan(0)
  }
  const frame = r.m.tables.get(r.mm.id, vpn) >>> 8
  expect(r.m.rmap.pageReferenced(frame)).toBe(0)
  expect(r.load(at)).toBe(8)
})

test('release comes once, at the end of the address space or when taken off', () => {
  const { r, device } = mirrored()
  expect(sys_mmu_notifier_unregister(r.mm, device)).toBe(0)
  expect(device.released).toBe(true)
  expect(sys_mmu_notifier_unregister(r.mm, device)).toBe(-EINVAL)
  let released = 0
  const child = r.fork()
  sys_mmu_notifier_register(child, { release: () => released++ })
  expect(sys_exit(child)).toBe(0)
  expect(released).toBe(1)
})

test('a device does not establish translations while a range is invalidated', () => {
  const { r, at, vpn } = mirrored()
  const counts: number[] = []
  const watcher = {
    invalidateRangeStart: () => counts.push(r.m.notifiers.count(r.mm.id)),
    invalidateRangeEnd: () => counts.push(r.m.notifiers.count(r.mm.id))
  }
  sys_mmu_notifier_register(r.mm, watcher)
  const seq = r.m.notifiers.seq(r.mm.id)
  expect(r.remap(at, 1, 3)).toBe(0)
  expect(counts.length).toBe(2)
  expect(Math.min(...counts)).toBe(1)
  expect(r.m.notifiers.count(r.mm.id)).toBe(0)
  expect(r.m.notifiers.seq(r.mm.id)).toBeGreaterThan(seq)
  expect(vpn).toBeGreaterThan(0)
})
