/** What the everyday layer shows of itself: maps, smaps, the trace ring, the checker, the high-water mark. */

import { expect, test } from 'vitest'
import { F_INDEX, F_MAPCOUNT, F_MAPPING, FRAME_SHIFT } from '../../src/frame/frame-table.ts'
import { Memory, memoryStore } from '../../src/index.ts'

const PAGE = 4096

test('maps shows one line for a nonlinear mapping, smaps counts its pages', () => {
  using memory = new Memory({ size: '1MiB' })
  const space = memory.space()
  const map = space.map(memory.shared(16 * PAGE, 'ledger'), { writable: true })
  map.remap({ at: 0, page: 8, count: 4, populate: true })
  const lines = space.maps().trim().split('\n')
  expect(lines.length).toBe(1)
  expect(lines[0]).toContain('rw-s 00000000')
  expect(lines[0]).toContain('ledger')
  const nonlinear = /^Nonlinear: +(\d+) kB$/m.exec(space.smaps())
  expect(nonlinear?.[1]).toBe('16')
  expect(space.smaps()).toMatch(/^VmFlags:.* nl /m)
})

test('the trace ring holds the last events, and none unless asked for', () => {
  using memory = new Memory({ size: 40 * PAGE, traceEntries: 16 })
  const file = memory.open(memoryStore({ name: 'tape', sizeBytes: 100 * PAGE }))
  const map = memory.space().map(file)
  map.remap({ at: 3, page: 50 })
  expect(memory.trace(1)[0]).toMatch(/remap +space 1 page \d+ \+1 to file page 50/)
  for (let i = 0; i < 100; i += 7) map.getUint8(i * PAGE)
  const lines = memory.trace()
  expect(lines.length).toBe(16)
  expect(lines.join('\n')).toMatch(/read +tape page 98 \+1/)
  expect(lines.at(-1)).toMatch(/fault +space 1 page \d+ load$/)
  const numbers = lines.map(line => Number.parseInt(line, 10))
  expect(numbers).toEqual(numbers.map((_, i) => numbers[0] + i))
  map.unmap()
  file.close()
  expect(memory.trace().join('\n')).toMatch(/read +inode 1 page 98 \+1/)
  using silent = new Memory({ size: '1MiB' })
  silent.space().map(silent.shared(PAGE), { writable: true }).setUint8(0, 1)
  expect(silent.trace()).toEqual([])
})

test('check finds a broken machine', () => {
  using memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(memory.shared(4 * PAGE), { writable: true })
  map.setUint8(0, 1)
  expect(memory.check()).toEqual([])
  const { frames } = memory.machine
  const isMapped = (f: number): boolean =>
    frames.row(f, F_MAPCOUNT) === 1 && frames.row(f, F_MAPPING) > 0 && frames.row(f, F_INDEX) === 0
  const frame = Array.from({ length: memory.machine.ram.nrFrames }, (_, f) => f).findIndex(isMapped)
  frames.w[(frame << FRAME_SHIFT) + F_MAPCOUNT]++
  expect(memory.check().length).toBeGreaterThan(0)
  frames.w[(frame << FRAME_SHIFT) + F_MAPCOUNT]--
})

test('the most frames ever used are remembered', () => {
  using memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(memory.shared(100 * PAGE), { writable: true })
  map.fill(1)
  map.unmap()
  memory.shrink()
  const { peakFrames, frames } = memory.stats()
  expect(peakFrames).toBeGreaterThanOrEqual(101)
  expect(peakFrames).toBeLessThan(frames)
})
