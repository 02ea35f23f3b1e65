/** The figures of /proc/PID/status: what grows them, what they remember, and the lines. */
import { expect, test } from 'vitest'
import * as abi from '../../src/abi/mman.ts'
import { Memory } from '../../src/index.ts'
import { smaps } from '../../src/observe/smaps.ts'
import { formatStatus, spaceStatus } from '../../src/observe/status.ts'
import { sys_munmap } from '../../src/syscall/memory.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import { useMachines } from '../support/machine.ts'

const rig = useMachines()

test('sizes, pages, locks, swap and faults of a space', () => {
  const r = rig({ swapSlots: 16, readaheadBytes: 0, faultAroundPages: 1 })
  const P = r.pageSize
  const status = () => spaceStatus(r.m, r.mm.id)
  expect(Object.values(status()).every(n => n === 0)).toBe(true)
  const { fd } = r.file(8)
  const at = r.map(fd, 8, abi.MAP_SHARED)
  const own = r.map(-1, 4, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS)
  r.loads(at, 3)
  for (const i of [0, 1]) r.store(own + i * P, 1)
  expect(sys_mlock(r.mm, at, P)).toBe(0)
  expect(status()).toMatchObject({ size: 12 * P, resident: 5 * P, anonymous: 2 * P, ofFiles: 3 * P, locked: P })
  expect(status()).toMatchObject({ mappings: 3, minorFaults: 2, majorFaults: 3, swapped: 0 })
  r.m.reclaim.shrinkAll()
  expect(status()).toMatchObject({ resident: P, peakResident: 5 * P, swapped: 2 * P })
  const sum = smaps(r.m, r.mm.id).reduce((n, row) => n + row.rss, 0)
  expect(status().resident).toBe(sum * P)
  expect(sys_munmap(r.mm, own, 4 * P)).toBe(0)
  expect(status()).toMatchObject({ size: 8 * P, peakSize: 12 * P, swapped: 0 })
  const lines = formatStatus(status()).split('\n')
  expect(lines.slice(0, 2)).toEqual(['VmPeak:\t      48 kB', 'VmSize:\t      32 kB'])
  expect(lines.map(line => line.split(':')[0])).toEqual([
    ...['VmPeak', 'VmSize', 'VmLck', 'VmHWM', 'VmRSS', 'VmPTE', 'VmSwap'],
    ''
  ])
})

test('the everyday class has them, zeros once it is closed', () => {
  const memory = new Memory({ size: '1MiB' })
  const space = memory.space()
  const map = space.map(null, { length: 8192, writable: true })
  map.setUint8(0, 1)
  expect(space.status()).toMatchObject({ size: 8192, resident: 4096, anonymous: 4096, mappings: 1 })
  space.close()
  expect(space.status()).toMatchObject({ size: 0, resident: 0, mappings: 0 })
  memory.close()
})
