import { expect, it } from 'vitest'
import { createKernel } from '../../src/kernel.ts'
import { formatMaps, maps } from '../../src/observe/maps.ts'
import { formatPagemap, pagemap } from '../../src/observe/pagemap.ts'
import { formatSmaps, smaps } from '../../src/observe/smaps.ts'
import type { Mm } from '../../src/syscall/args.ts'
import { MEMORY_SHMEM, sys_copy_to_user, sys_memory } from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import { sys_mmap } from '../../src/syscall/memory.ts'
import { sys_mlock } from '../../src/syscall/mlock.ts'
import { sys_mm_create } from '../../src/syscall/process.ts'

const PAGE = 4096
const AT = 0x10000000

it('shows a nonlinear mapping as /proc does', () => {
  const { machine: m } = createKernel({ nrFrames: 64, faultAroundPages: 1 })
  const mm = sys_mm_create(m) as Mm
  const fd = sys_memory(m, '/dev/shm/window', MEMORY_SHMEM, 16 * PAGE, 0)
  expect(sys_mmap(mm, AT, 8 * PAGE, 3, 0x11, fd, 2 * PAGE)).toBe(AT)
  expect(sys_mmap(mm, AT + 64 * PAGE, PAGE, 1, 0x32, -1, 0)).toBe(AT + 64 * PAGE)
  expect(sys_remap_file_pages(mm, AT, 2 * PAGE, 0, 9, 0)).toBe(0)
  expect(sys_remap_file_pages(mm, AT + 3 * PAGE, PAGE, 0, 1, 0x10000)).toBe(0)
  expect(sys_copy_to_user(mm, AT, new Uint8Array([1]))).toBe(1)
  expect(sys_mlock(mm, AT + 64 * PAGE, PAGE)).toBe(0)

  const lines = formatMaps(m, maps(m, mm.id)).split('\n')
  expect(lines).toEqual([
    '10000000-10008000 rw-s 00002000 00:00 1                                  /dev/shm/window',
    '10040000-10041000 r--p 00000000 00:00 0 ',
    ''
  ])
  const text = formatSmaps(m, smaps(m, mm.id))
  expect(text.split('\n').slice(0, 18)).toEqual([
    lines[0],
    'Size:                 32 kB',
    'Rss:                   8 kB',
    'Pss:                   8 kB',
    'Shared_Clean:          0 kB',
    'Shared_Dirty:          0 kB',
    'Private_Clean:         4 kB',
    'Private_Dirty:         4 kB',
    'Referenced:            4 kB',
    'Anonymous:             0 kB',
    'AnonHugePages:         0 kB',
    'Swap:                  0 kB',
    'KernelPageSize:        4 kB',
    'MMUPageSize:           4 kB',
    'Locked:                0 kB',
    'Nonlinear:            12 kB',
    'VmFlags: rd wr sh mr mw me ms nl sd ',
    lines[1]
  ])
  // The zero page is present, but belongs to nobody.
  expect(text).toContain('VmFlags: rd mr mw me lo sd ')
  expect(text.match(/^Nonlinear/gm)).toHaveLength(1)
  const anonymous = formatPagemap(pagemap(m, mm.id, AT / PAGE + 63, 3))
  expect(anonymous).toEqual(['', 'PD', ''])
  expect(smaps(m, mm.id)[1].rss).toBe(0)
  expect(formatPagemap(pagemap(m, mm.id, AT / PAGE, 4))).toEqual(['PFD', 'PFD', 'D', 'D'])
})

it('looks at page tables, not at the size of a mapping', () => {
  const { machine: m } = createKernel({ nrFrames: 64, faultAroundPages: 1 })
  const mm = sys_mm_create(m) as Mm
  const pages = 2 ** 30
  const fd = sys_memory(m, 'huge', MEMORY_SHMEM, pages * PAGE, 0)
  expect(sys_mmap(mm, AT, pages * PAGE, 3, 0x11, fd, 0)).toBe(AT)
  expect(sys_copy_to_user(mm, AT + (pages - 1) * PAGE, new Uint8Array([1]))).toBe(1)
  const before = process.cpuUsage()
  expect(smaps(m, mm.id)[0]).toMatchObject({ rss: 1, privateDirty: 1, nonlinear: undefined })
  // Processor time, so that it is no matter what else the machine does.
  expect(process.cpuUsage(before).user).toBeLessThan(1_000_000)
})
