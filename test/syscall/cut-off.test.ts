/**
 * Verbs that an exception cuts off, in a machine of one thread: its call throws it, and every other call says
 * ENOTRECOVERABLE. And code of callers that could throw in the middle of a verb, but is looked at before: then nothing
 * is broken.
 */
import { describe, expect, test } from 'vitest'
import { EDEADLK, EINVAL, ENOTRECOVERABLE } from '../../src/abi/errno.ts'
import { Memory } from '../../src/api/memory.ts'
import { createKernel } from '../../src/kernel.ts'
import type { Store } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_munmap } from '../../src/syscall/memory.ts'
import { sys_mm_create } from '../../src/syscall/process.ts'

const PAGE = 4096

test('one thread: the call throws, the others say why they cannot be made', () => {
  const memory = new Memory({ size: '1MiB' })
  const file = memory.open(memoryStore({ sizeBytes: 8 * PAGE }))
  const map = memory.space().map(file, { writable: true })
  map.setUint32(0, 7)
  const { machine } = memory
  machine.vmas.unlink = () => {
    throw new Error('a bug of ours')
  }
  expect(() => map.unmap()).toThrow('a bug of ours')
  expect(sys_munmap(map.space.mm, map.address, PAGE)).toBe(-ENOTRECOVERABLE)
  expect(sys_mm_create(machine)).toBe(-ENOTRECOVERABLE)
  expect(() => file.sync()).toThrow('ENOTRECOVERABLE')
  expect(() => memory.space()).toThrow(/memory is broken/)
  expect(() => memory.close()).toThrow('ENOTRECOVERABLE')
})

test('one thread, where the verb that was cut off could not even say so: the next call finds it', () => {
  const { machine } = createKernel({ nrFrames: 64 })
  // What a verb leaves behind if there is no stack left for its `abandon`.
  expect(machine.enter()).toBe(true)
  expect(sys_mm_create(machine)).toBe(-ENOTRECOVERABLE)
})

test('a call from a store is refused, and is not taken for a verb that was cut off', () => {
  const memory = new Memory({ size: '1MiB' })
  const seen: unknown[] = []
  const store = memoryStore({ sizeBytes: 8 * PAGE })
  const { read } = store
  store.read = (...args) => {
    seen.push(sys_mm_create(memory.machine))
    return read.apply(store, args)
  }
  const map = memory.space().map(memory.open(store))
  expect(map.getUint32(0)).toBe(0)
  expect(seen).toEqual([-EDEADLK])
  memory.close()
})

describe('a store', () => {
  const { machine: m } = createKernel({ nrFrames: 64, threads: 2 })
  const throwing = (name: string): Store => {
    const store = memoryStore({ sizeBytes: PAGE })
    Object.defineProperty(store, name, {
      get() {
        throw new Error(`no ${name} today`)
      }
    })
    return store
  }

  test.each(['name', 'identity', 'readOnly', 'durable', 'handle'])('whose %s throws is none', name => {
    expect(f.sys_open(m, throwing(name), f.O_RDWR)).toBe(-EINVAL)
    expect(m.sync.broken).toBe(0)
    expect(sys_mm_create(m)).toBeInstanceOf(Mm)
  })

  const handles: readonly [string, () => { kind: string; self?: unknown }][] = [
    ['has itself in it', () => ({ kind: 'x', self: null })],
    ['is too large a number', () => ({ kind: 'x', self: 2n ** 70n })],
    [
      'has code of its own',
      () => ({
        kind: 'x',
        toJSON() {
          throw new Error('not now')
        }
      })
    ]
  ]

  test.each(handles)('whose handle %s can be opened, by this thread alone', (_, make) => {
    const handle = make()
    if (handle.self === null) handle.self = handle
    const fd = f.sys_open(m, { ...plain(), handle }, f.O_RDWR)
    expect(fd).toBeGreaterThan(2)
    expect(m.inodes.store(m.files.inode[m.fds[fd]])?.handle).toBeUndefined()
    expect(f.sys_close(m, fd)).toBe(0)
    expect(m.sync.broken).toBe(0)
  })

  test.each(['read', 'write', 'size', 'truncate', 'flush', 'punch', 'close'])(
    'without a function %s: EIO where it is called, and nothing is broken',
    name => {
      const store = { ...plain(), [name]: name === 'read' ? () => undefined : 'no function' } as unknown as Store
      const fd = f.sys_open(m, store, f.O_RDWR)
      if (fd >= 0) {
        f.sys_pread(m, fd, new Uint8Array(8), 0)
        f.sys_pwrite(m, fd, new Uint8Array(8), 0)
        f.sys_fsync(m, fd)
        f.sys_ftruncate(m, fd, 100)
        f.sys_fallocate(m, fd, 3, 0, PAGE)
        f.sys_close(m, fd)
      }
      expect(m.sync.broken).toBe(0)
      expect(sys_mm_create(m)).toBeInstanceOf(Mm)
    }
  )

  function plain(): Store {
    const s = memoryStore({ sizeBytes: PAGE })
    return {
      name: 'plain',
      identity: undefined,
      readOnly: false,
      durable: false,
      size: () => s.size(),
      read: (...args) => s.read(...args),
      write: (...args) => s.write(...args),
      flush: () => s.flush(),
      truncate: n => s.truncate(n),
      punch: (...args) => s.punch(...args),
      close: () => s.close()
    }
  }
})

describe('bytes of a class that extends Uint8Array', () => {
  class Odd extends Uint8Array {
    static get [Symbol.species](): Uint8ArrayConstructor {
      throw new Error('no part of it')
    }

    override set(): void {
      throw new Error('not to be set')
    }
  }

  test.each([1, 2])('are bytes; its code does not run in a verb (%i threads)', threads => {
    const memory = new Memory({ size: '1MiB', threads })
    const file = memory.open(memoryStore({ sizeBytes: 8 * PAGE }))
    const map = memory.space().map(file, { writable: true })
    const bytes = new Odd(PAGE + 8).fill(7)
    file.write(bytes, 100)
    map.write(bytes, 3 * PAGE)
    const read = new Odd(PAGE + 8)
    expect(file.read(read, 100)).toBe(PAGE + 8)
    expect(read.every(byte => byte === 7)).toBe(true)
    read.fill(0)
    map.read(read, 3 * PAGE)
    expect(read.every(byte => byte === 7)).toBe(true)
    expect(() => map.read({ length: 8 } as Uint8Array, 0)).toThrow(TypeError)
    const odd = {
      valueOf() {
        map.unmap()
        return 9
      }
    }
    expect(() => map.fill(odd as unknown as number, 0, 8)).toThrow()
    expect(memory.machine.sync.broken).toBe(0)
    expect(memory.check()).toEqual([])
    memory.close()
  })
})
