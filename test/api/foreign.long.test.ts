/**
 * Every call that takes bytes, a number or an object is given all kinds of strange ones, in both kinds of memory: it
 * works or throws, code of the caller does not run in the middle of it, and the memory is whole afterwards.
 */
import vm from 'node:vm'
import { afterEach, describe, expect, test } from 'vitest'
import { type MappedFile, type Mapping, Memory, memoryStore, type Store } from '../../src/index.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { sys_mincore } from '../../src/syscall/memory.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import { NO_BYTES, strangeThings, TRUE_BYTES } from '../support/strange.ts'

const PAGE = 4096
const PAGES = 64

interface Rig {
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
  /** A byte that was stored and not synced, in a file that no call touches. */
  readonly witness: Mapping
}

const open: Memory[] = []

afterEach(() => {
  for (const memory of open.splice(0)) {
    try {
      memory.close()
    } catch {}
  }
})

/** Page p of the file begins with p + 1. Of 64 pages 16 fit into memory. */
function rig(threads: number, store: Store = memoryStore({ sizeBytes: PAGES * PAGE })): Rig {
  const memory = new Memory({ size: 20 * (PAGE + 44), readahead: 0, faultAroundPages: 1, threads })
  open.push(memory)
  const witness = memory.space().map(memory.open(memoryStore({ sizeBytes: PAGE })), { writable: true })
  witness.setUint8(100, 42)
  const file = memory.open(store)
  const map = memory.space().map(file, { writable: true })
  for (let page = 0; page < PAGES; page++) map.setUint8(page * PAGE, page + 1)
  return { memory, file, map, witness }
}

function expectWhole({ memory, witness }: Rig, label: string): void {
  expect(memory.check(), label).toEqual([])
  expect(witness.getUint8(100), label).toBe(42)
  witness.sync()
}

/** The result, or what was thrown. */
async function outcome(act: () => unknown): Promise<unknown> {
  try {
    return await act()
  } catch (error) {
    return error
  }
}

/** Calls that fill bytes with those of page 2 of the file, and such that store bytes to page 5. */
const reads: [string, (rig: Rig, bytes: Uint8Array) => unknown][] = [
  ['map.read', ({ map }, bytes) => map.read(bytes, 2 * PAGE)],
  ['map.readAsync', ({ map }, bytes) => map.readAsync(bytes, 2 * PAGE)],
  ['file.read', ({ file }, bytes) => file.read(bytes, 2 * PAGE)],
  ['file.readAsync', ({ file }, bytes) => file.readAsync(bytes, 2 * PAGE)],
  ['pread', ({ memory, file }, bytes) => f.sys_pread(memory.machine, file.fd, bytes, 2 * PAGE)],
  ['copy from user', ({ map }, bytes) => f.sys_copy_from_user(map.space.mm, map.address + 2 * PAGE, bytes)],
  ['a read of /proc/PID/mem', ({ map }, bytes) => sys_mem_read(map.space.mm, map.address + 2 * PAGE, bytes)]
]
const writes: [string, (rig: Rig, bytes: Uint8Array) => unknown][] = [
  ['map.write', ({ map }, bytes) => map.write(bytes, 5 * PAGE)],
  ['file.write', ({ file }, bytes) => file.write(bytes, 5 * PAGE)],
  ['pwrite', ({ memory, file }, bytes) => f.sys_pwrite(memory.machine, file.fd, bytes, 5 * PAGE)],
  ['copy to user', ({ map }, bytes) => f.sys_copy_to_user(map.space.mm, map.address + 5 * PAGE, bytes)],
  ['a write of /proc/PID/mem', ({ map }, bytes) => sys_mem_write(map.space.mm, map.address + 5 * PAGE, bytes)]
]

describe.each([1, 2])('a memory for %d threads', threads => {
  test.each(TRUE_BYTES)('%s: bytes as any others', async (_, make) => {
    const it = rig(threads)
    for (const [name, read] of reads) {
      const { given, plain } = make(2 * PAGE)
      expect(await outcome(() => read(it, given)), name).not.toBeInstanceOf(Error)
      expect([plain[0], plain[PAGE]], name).toEqual([3, 4])
      expectWhole(it, name)
    }
    let byte = 100
    for (const [name, write] of writes) {
      const { given, plain } = make(2 * PAGE)
      plain[0] = byte
      plain[2 * PAGE - 1] = ++byte
      expect(await outcome(() => write(it, given)), name).not.toBeInstanceOf(Error)
      expect([it.map.getUint8(5 * PAGE), it.map.getUint8(7 * PAGE - 1), it.map.getUint8(7 * PAGE)], name).toEqual([
        byte - 1,
        byte,
        8
      ])
      expectWhole(it, name)
    }
    const { given, plain } = make(4)
    it.map.populateSync({ offset: 0, length: PAGE })
    expect(sys_mincore(it.map.space.mm, it.map.address, PAGE, given)).toBe(0)
    expect(plain[0]).toBe(1)
    const contents = make(3)
    contents.plain[2] = 9
    const back = new Uint8Array(4)
    expect(memoryStore({ contents: contents.given }).read(0, back, 0, 4)).toBe(3)
    expect([...back]).toEqual([0, 0, 9, 0])
  })

  test.each(NO_BYTES)('%s: refused, by a TypeError or EFAULT', async (_, make) => {
    const it = rig(threads)
    for (const [name, call] of [...reads, ...writes]) {
      const said = await outcome(() => call(it, make() as Uint8Array))
      if (/^(map|file)\./.test(name)) expect(said, name).toBeInstanceOf(TypeError)
      else expect(said, name).toBe(-14)
      expectWhole(it, name)
    }
    expect(sys_mincore(it.map.space.mm, it.map.address, PAGE, make() as Uint8Array)).toBe(-14)
    if (make() !== undefined) expect(() => memoryStore({ contents: make() as Uint8Array })).toThrow(TypeError)
  })

  test('a store that takes the buffer away in the middle of a call', async () => {
    for (const [name, call] of [...reads, ...writes]) {
      const store = memoryStore({ sizeBytes: PAGES * PAGE })
      const buffer = new Uint8Array(40 * PAGE)
      let calls = Number.NEGATIVE_INFINITY
      const take = (): void => {
        if (++calls === 6) structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
      }
      const it = rig(threads, {
        ...store,
        name: 'taker',
        readOnly: false,
        identity: undefined,
        durable: false,
        size: () => store.size(),
        flush: () => store.flush(),
        truncate: size => store.truncate(size),
        punch: (at, length) => store.punch(at, length),
        close: () => store.close(),
        read: (at, bytes, from, length) => {
          take()
          return store.read(at, bytes, from, length)
        },
        write: (at, bytes, from, length) => {
          take()
          return store.write(at, bytes, from, length)
        }
      })
      it.map.sync()
      it.memory.shrink()
      calls = 0
      const said = await outcome(() => call(it, buffer))
      expect(calls, name).toBeGreaterThanOrEqual(6)
      if (/^(map|file)\./.test(name)) expect(said, name).toBeInstanceOf(TypeError)
      expectWhole(it, name)
      // No page holds anything but what it had, or what was written to it: zeros.
      for (let page = 0; page < PAGES; page++) expect([page + 1, 0], name).toContain(it.map.getUint8(page * PAGE))
    }
  })

  test('pages of another realm, and such as are none', () => {
    const it = rig(threads)
    const { mm } = it.map.space
    const pages = vm.runInNewContext('Int32Array.of(9, 8)') as Int32Array
    it.map.remapPages(0, pages)
    expect([it.map.getUint8(0), it.map.getUint8(PAGE)]).toEqual([10, 9])
    const liar = Object.defineProperty(Int32Array.of(7), 'length', { value: 60 })
    it.map.remapPages(0, liar)
    expect([it.map.getUint8(0), it.map.getUint8(PAGE)]).toEqual([8, 9])
    const none = [
      [1, 2],
      new Uint32Array(2),
      new Proxy(new Int32Array(2), {}),
      Object.create(Int32Array.prototype),
      null
    ]
    for (const given of none) {
      expect(() => it.map.remapPages(0, given as Int32Array)).toThrow('Int32Array.from(pages)')
      expect(sys_remap_file_pages_vec(mm, it.map.address, given as Int32Array, 0, 0)).toBe(-22)
    }
    expectWhole(it, 'pages')
  })

  test('a value is made a number before its page is looked up', () => {
    const it = rig(threads)
    const { map } = it
    const setters: [string, (value: number) => void, () => number | bigint][] = [
      ['setUint8', value => map.setUint8(8, value), () => map.getUint8(8)],
      ['setInt8', value => map.setInt8(8, value), () => map.getInt8(8)],
      ['setUint16', value => map.setUint16(8, value), () => map.getUint16(8)],
      ['setInt16', value => map.setInt16(8, value), () => map.getInt16(8)],
      ['setUint32', value => map.setUint32(8, value), () => map.getUint32(8)],
      ['setInt32', value => map.setInt32(8, value), () => map.getInt32(8)],
      ['setFloat32', value => map.setFloat32(8, value), () => map.getFloat32(8)],
      ['setFloat64', value => map.setFloat64(8, value), () => map.getFloat64(8)],
      ['setUint32, other byte order', value => map.setUint32(8, value, false), () => map.getUint32(8, false)],
      ['setUint32, unaligned', value => map.setUint32(9, value), () => map.getUint32(9)],
      ['setFloat64, across pages', value => map.setFloat64(PAGE - 4, value), () => map.getFloat64(PAGE - 4)],
      ['fill', value => map.fill(value, 8, 4), () => map.getUint8(11)]
    ]
    const big: [string, (value: bigint) => void, () => number | bigint][] = [
      ['setBigInt64', value => map.setBigInt64(8, value), () => map.getBigInt64(8)],
      ['setBigUint64', value => map.setBigUint64(8, value), () => map.getBigUint64(8)]
    ]
    const lazy = (value: unknown): never =>
      ({
        valueOf: () => {
          for (let page = 1; page < PAGES; page++) map.setUint8(page * PAGE + 50, 7)
          return value
        }
      }) as never
    const expectOthersWhole = (name: string): void => {
      for (let page = 1; page < PAGES; page++) {
        expect([map.getUint8(page * PAGE), map.getUint32(page * PAGE + 8)], `${name}, page ${page}`).toEqual([
          page + 1,
          0
        ])
      }
      expectWhole(it, name)
    }
    for (const [name, set, get] of setters) {
      set(1)
      set(lazy(77))
      expect(get(), name).toBe(77)
      for (const bad of [
        1n,
        Symbol('mine'),
        strangeThings(() => {}).find(([n]) => n === 'a valueOf that throws')?.[1]
      ]) {
        expect(() => set(bad as number), name).toThrow()
      }
      expect(get(), name).toBe(77)
      set('5' as unknown as number)
      expect(get(), name).toBe(5)
      map.fill(0, 8, 16)
      map.fill(0, PAGE - 4, 8)
      map.setUint8(PAGE, 2)
      expectOthersWhole(name)
    }
    for (const [name, set, get] of big) {
      set(1n)
      set(lazy(77n))
      expect(get(), name).toBe(77n)
      expect(() => set(1 as unknown as bigint), name).toThrow(TypeError)
      expect(get(), name).toBe(77n)
      map.fill(0, 8, 16)
      expectOthersWhole(name)
    }
  })

  test('a value whose code takes the window away stores nothing elsewhere', () => {
    for (const store of ['setUint8', 'setFloat64', 'fill'] as const) {
      const it = rig(threads)
      const { map } = it
      let other: Mapping | undefined
      const value = {
        valueOf: () => {
          const { address, space, length } = map
          map.unmap()
          other = space.map(null, { length, writable: true, address })
          return 7
        }
      } as unknown as number
      if (store === 'fill') expect(() => map.fill(value, 0, 8)).toThrow(RangeError)
      else expect(() => map[store](0, value)).toThrow(RangeError)
      expect(other?.getFloat64(0), store).toBe(0)
      expectWhole(it, store)
    }
  })

  test('a store that uses another memory in the middle of a value across pages', () => {
    const inner = rig(threads)
    inner.map.setBigUint64(PAGE - 4, 0x1122334455667788n)
    const store = memoryStore({ sizeBytes: PAGES * PAGE })
    const use = (): void => {
      inner.map.setUint32(2 * PAGE - 2, 0xffffffff)
      expect(inner.map.getBigUint64(PAGE - 4)).toBe(0x1122334455667788n)
    }
    const outer = rig(threads, {
      name: 'over another memory',
      identity: undefined,
      readOnly: false,
      durable: false,
      size: () => store.size(),
      flush: () => store.flush(),
      truncate: size => store.truncate(size),
      punch: (at, length) => store.punch(at, length),
      close: () => store.close(),
      read: (at, bytes, from, length) => {
        use()
        return store.read(at, bytes, from, length)
      },
      write: (at, bytes, from, length) => {
        use()
        return store.write(at, bytes, from, length)
      }
    })
    for (let page = 1; page < PAGES; page += 2) {
      outer.map.setBigUint64(page * PAGE - 3, BigInt(page) * 0x0101010101n)
      outer.memory.shrink()
      expect(outer.map.getBigUint64(page * PAGE - 3)).toBe(BigInt(page) * 0x0101010101n)
      outer.memory.shrink()
    }
    expectWhole(outer, 'outer')
    expectWhole(inner, 'inner')
  })
})
