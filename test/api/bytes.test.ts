/**
 * Buffers that are not what they should be: what is no array of bytes is refused, and what runs code of its own does
 * not run it in a call.
 */
import { describe, expect, test } from 'vitest'
import type { MappedFile } from '../../src/api/file.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { Memory, memoryStore } from '../../src/index.ts'
import { sys_copy_from_user, sys_copy_to_user } from '../../src/syscall/file.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'

const PAGE = 4096

/** Throws whatever is asked of it. */
class Hostile extends Uint8Array {
  override set(): never {
    throw new Error('set was called')
  }

  override subarray(): never {
    throw new Error('subarray was called')
  }

  override fill(): never {
    throw new Error('fill was called')
  }
}

/** What a call takes that is not one of these: by mistake, or to do harm. */
const NO_BYTES: [string, unknown][] = [
  ['an array', [1, 2, 3, 4]],
  ['a string', 'four'],
  ['words', new Float64Array(4)],
  ['a DataView', new DataView(new ArrayBuffer(4))],
  ['something like bytes', { length: 4, buffer: new ArrayBuffer(4), byteOffset: 0 }]
]

interface Open {
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
}

describe.each([1, 2])('a memory for %d threads', threads => {
  function open(): Open {
    const memory = new Memory({ size: '1MiB', threads })
    const file = memory.open(memoryStore({ sizeBytes: 16 * PAGE }))
    const map = memory.space().map(file, { writable: true })
    for (let page = 0; page < 16; page++) map.setUint8(page * PAGE, page + 1)
    return { memory, file, map }
  }

  /** All is as it was, and everything works. */
  function expectWhole({ memory, file, map }: Open): void {
    expect(memory.check()).toEqual([])
    map.remap({ at: 0, page: 9 })
    expect(map.getUint8(0)).toBe(10)
    map.unmap()
    file.close()
    memory.close()
  }

  test('bytes with methods of their own are copied as any others', () => {
    const rig = open()
    const { map, file } = rig
    const { mm } = map.space
    const reads: [string, (target: Uint8Array) => unknown][] = [
      ['map.read', target => map.read(target, 2 * PAGE)],
      ['file.read', target => file.read(target, 2 * PAGE)],
      ['copy from user', target => sys_copy_from_user(mm, map.address + 2 * PAGE, target)],
      ['/proc/PID/mem', target => sys_mem_read(mm, map.address + 2 * PAGE, target)]
    ]
    for (const [name, read] of reads) {
      const target = new Hostile(2 * PAGE)
      read(target)
      expect([target[0], target[PAGE]], name).toEqual([3, 4])
    }
    const writes: [string, (source: Uint8Array) => unknown][] = [
      ['map.write', source => map.write(source, 5 * PAGE)],
      ['file.write', source => file.write(source, 5 * PAGE)],
      ['copy to user', source => sys_copy_to_user(mm, map.address + 5 * PAGE, source)],
      ['/proc/PID/mem', source => sys_mem_write(mm, map.address + 5 * PAGE, source)]
    ]
    writes.forEach(([name, write], i) => {
      const source = new Hostile(2 * PAGE)
      source[PAGE] = 100 + i
      write(source)
      expect(map.getUint8(6 * PAGE), name).toBe(100 + i)
    })
    expectWhole(rig)
  })

  test('what a subclass shows of a buffer is what is copied', () => {
    const rig = open()
    const whole = Buffer.alloc(3 * PAGE, 7)
    rig.map.read(whole.subarray(PAGE, 2 * PAGE), 4 * PAGE)
    expect([whole[PAGE - 1], whole[PAGE], whole[PAGE + 1], whole[2 * PAGE]]).toEqual([7, 5, 0, 7])
    rig.map.write(new Int8Array([-1]) as unknown as Uint8Array, 8)
    expect(rig.map.getUint8(8)).toBe(255)
    expectWhole(rig)
  })

  test.each(NO_BYTES)('%s is refused, and nothing is held afterwards', (_, none) => {
    const rig = open()
    const { map } = rig
    expect(() => map.read(none as Uint8Array, 0)).toThrow(TypeError)
    expect(() => map.write(none as Uint8Array, 0)).toThrow(TypeError)
    expect(() => rig.file.read(none as Uint8Array, 0)).toThrow(TypeError)
    expect(() => rig.file.write(none as Uint8Array, 0)).toThrow(TypeError)
    expect(map.getUint8(0)).toBe(1)
    expectWhole(rig)
  })
})
