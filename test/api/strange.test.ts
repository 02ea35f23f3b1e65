/**
 * Every argument of every call in turn is something strange: the call throws or not, and the memory is whole
 * afterwards.
 */
import { afterEach, describe, expect, test } from 'vitest'
import { type MappedFile, type Mapping, Memory, memoryStore, type Range, ShadowTable, Tlb } from '../../src/index.ts'
import { MEMORY_SHMEM, sys_close, sys_memory, sys_pread, sys_pwrite, sys_quota } from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { sys_madvise, sys_mmap, sys_mprotect, sys_mremap, sys_msync, sys_munmap } from '../../src/syscall/memory.ts'
import { strangeThings } from '../support/strange.ts'
import { rounds } from '../support/suite.ts'

const P = 4096
/** The descriptor of the rig's file: the witness has the first one. */
const FILE = 1

interface Rig {
  readonly memory: Memory
  readonly file: MappedFile
  readonly map: Mapping
  readonly table: ShadowTable
  readonly tlb: Tlb
}

/**
 * A lock of more than there is room for fails, and what it has come to stays locked: nothing else would find room then.
 */
function lockShortly(map: Mapping, range: Range): void {
  try {
    map.lock(range)
  } finally {
    map.unlock()
  }
}

/** A call, with arguments that are good. */
type Call = [string, (rig: Rig, ...args: never[]) => unknown, unknown[]]

const calls: Call[] = [
  ['getUint8', ({ map }, at) => map.getUint8(at), [8]],
  ['getUint32', ({ map }, at, le) => map.getUint32(at, le), [9, true]],
  ['getBigInt64', ({ map }, at) => map.getBigInt64(at), [P - 3]],
  ['setUint8', ({ map }, at, value) => map.setUint8(at, value), [8, 1]],
  ['setFloat64', ({ map }, at, value) => map.setFloat64(at, value), [P - 3, 1]],
  ['setBigInt64', ({ map }, at, value) => map.setBigInt64(at, value), [8, 1n]],
  ['fill', ({ map }, value, at, length) => map.fill(value, at, length), [1, 8, P]],
  ['copyWithin', ({ map }, to, from, length) => map.copyWithin(to, from, length), [8, P, P]],
  ['read', ({ map }, bytes, at) => map.read(bytes, at), [new Uint8Array(9), P]],
  ['write', ({ map }, bytes, at) => map.write(bytes, at), [new Uint8Array(9), P]],
  ['page', ({ map }, page) => map.page(page), [1]],
  ['borrow', ({ map }, page, access) => map.borrow(page, access).release(), [1, 'write']],
  ['remap', ({ map }, options) => map.remap(options), [{ at: 0, page: 3 }]],
  ['remap at', ({ map }, at, page, count) => map.remap({ at, page, count }), [0, 3, 2]],
  ['remapPages', ({ map }, at, pages, options) => map.remapPages(at, pages, options), [0, Int32Array.of(1), {}]],
  ['filePage', ({ map }, page) => map.filePage(page), [0]],
  ['sync', ({ map }, range) => map.sync(range), [{ offset: 0, length: P }]],
  ['sync of a range', ({ map }, offset, length) => map.sync({ offset, length }), [0, P]],
  ['protect', ({ map }, to, range) => map.protect(to, range), ['write', { length: P }]],
  ['advise', ({ map }, advice, range) => map.advise(advice, range), ['random', { length: P }]],
  ['lock', ({ map }, range) => lockShortly(map, range), [{ offset: 0, length: P }]],
  ['lock of a range', ({ map }, offset, length) => lockShortly(map, { offset, length }), [0, P]],
  ['unlock', ({ map }, range) => map.unlock(range), [{ length: P }]],
  ['populateSync', ({ map }, range) => map.populateSync(range), [{ length: P }]],
  ['residency', ({ map }, range) => map.residency(range), [{ length: P }]],
  ['resize', ({ map }, size) => map.resize(size), [4 * P]],
  ['map', ({ memory }, file, options) => memory.space().map(file, options), [null, { length: P }]],
  [
    'map at',
    ({ memory, file }, offset, length, address) => memory.space().map(file, { offset, length, address }).unmap(),
    [P, P, 64 * P]
  ],
  ['file.read', ({ file }, bytes, at) => file.read(bytes, at), [new Uint8Array(9), 0]],
  ['file.write', ({ file }, bytes, at) => file.write(bytes, at), [new Uint8Array(9), 0]],
  ['truncate', ({ file }, size) => file.truncate(size), [20 * P]],
  ['punch', ({ file }, at, length) => file.punch(at, length), [0, P]],
  ['shared', ({ memory }, size, name) => memory.shared(size, name).close(), [P, 'mine']],
  ['open', ({ memory }, store) => memory.open(store).close(), [memoryStore()]],
  ['adopt', ({ memory }, handle) => memory.adopt(handle), [{ kind: 'file', fd: 0 }]],
  ['trace', ({ memory }, most) => memory.trace(most), [3]],
  ['a shadow fault', ({ table }, page, access) => table.guest().run(() => table.fault(page, access)), [0, 1]],
  ['a shadow fill', ({ table }, page, access) => table.fill(page, access), [0, 0]],
  ['a shadow entry', ({ table }, page) => table.entry(page), [0]],
  ['expel', ({ table }, slot) => table.expel(slot), [1]],
  [
    'translate',
    ({ tlb, map }, vpn, access) => tlb.guest().run(() => tlb.translate(vpn ?? map.address / P, access)),
    [16, 1]
  ],
  [
    'sys_mmap',
    ({ map }, ...args) => sys_mmap(map.space.mm, ...(args as unknown as [0, 0, 0, 0, 0, 0])),
    [0, P, 3, 0x22, -1, 0]
  ],
  ['sys_munmap', ({ map }, at, length) => sys_munmap(map.space.mm, at, length), [800 * P, P]],
  ['sys_mprotect', ({ map }, ...args) => sys_mprotect(map.space.mm, ...(args as unknown as [0, 0, 0])), [16 * P, P, 3]],
  [
    'sys_mremap',
    ({ map }, ...args) => sys_mremap(map.space.mm, ...(args as unknown as [0, 0, 0, 0, 0])),
    [900 * P, P, P, 1, 0]
  ],
  ['sys_msync', ({ map }, ...args) => sys_msync(map.space.mm, ...(args as unknown as [0, 0, 0])), [16 * P, P, 4]],
  ['sys_madvise', ({ map }, ...args) => sys_madvise(map.space.mm, ...(args as unknown as [0, 0, 0])), [16 * P, P, 1]],
  [
    'sys_remap_file_pages',
    ({ map }, ...args) => sys_remap_file_pages(map.space.mm, ...(args as unknown as [0, 0, 0, 0, 0])),
    [16 * P, P, 0, 3, 0]
  ],
  [
    'sys_remap_file_pages_vec',
    ({ map }, ...args) => sys_remap_file_pages_vec(map.space.mm, ...(args as unknown as [0, Int32Array, 0, 0])),
    [16 * P, Int32Array.of(3, 1), 0, 0]
  ],
  [
    'sys_pread',
    ({ memory }, ...args) => sys_pread(memory.machine, ...(args as unknown as [0, Uint8Array, 0])),
    [FILE, new Uint8Array(9), P - 3]
  ],
  [
    'sys_pwrite',
    ({ memory }, ...args) => sys_pwrite(memory.machine, ...(args as unknown as [0, Uint8Array, 0])),
    [FILE, new Uint8Array(9), P - 3]
  ],
  ['sys_quota', ({ memory }, pages) => sys_quota(memory.machine, pages), [3]],
  [
    'memory of a quota',
    ({ memory }, quota) => sys_close(memory.machine, sys_memory(memory.machine, 'mine', MEMORY_SHMEM, P, quota)),
    [0]
  ]
]

const open: Memory[] = []

afterEach(() => {
  for (const memory of open.splice(0)) memory.close()
})

/** The whole machine is looked at after so many things, and after the last one for each argument. */
const EVERY = rounds(100, 4)

describe.each([1, 2])('a memory for %d threads', threads => {
  test.each(calls)('%s', (_, call, good) => {
    const ram = { buffer: new SharedArrayBuffer(2 ** 19), byteOffset: 2 ** 16 }
    const memory = new Memory({ size: 40 * (P + 44), readahead: 0, faultAroundPages: 1, threads, ram })
    open.push(memory)
    const witness = memory.space().map(memory.shared(P), { writable: true })
    witness.setUint8(100, 42)
    const file = memory.shared(64 * P)
    const space = memory.space()
    const map = space.map(file, { writable: true })
    const table = new ShadowTable(map, { byteOffset: 0, nrEntries: 64 })
    const tlb = new Tlb(space, { byteOffset: 4096, nrEntries: 16 })
    const it = { memory, file, map, table, tlb }
    const act = (): void => {
      map.getUint8(5 * P)
      memory.shrink()
    }
    for (let place = 0; place < good.length; place++) {
      const things = strangeThings(act)
      for (const [i, [name, thing]] of things.entries()) {
        const args = [...good]
        args[place] = thing
        try {
          ;(call as (rig: Rig, ...args: unknown[]) => unknown)(it, ...args)
        } catch (error) {
          expect(String((error as { code?: unknown } | undefined)?.code), name).not.toMatch(/ENOTRECOVERABLE|EDEADLK/)
        }
        expect(witness.getUint8(100), name).toBe(42)
        if ((things.length - 1 - i) % EVERY === 0) expect(memory.check(), `argument ${place}: ${name}`).toEqual([])
      }
    }
    expect(table.verify()).toEqual([])
  })
})
