/**
 * What a logger shows of public objects: one short line or a small plain object, at once, and nothing of how they work.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import {
  createKernel,
  FaultError,
  Memory,
  memoryStore,
  ShadowTable,
  sharedStore,
  sharedStoreBuffer,
  Tlb
} from '../../src/index.ts'
import { HttpRangeError } from '../../src/stores/http-range.ts'
import { nodeFile } from '../../src/stores/node-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'fremap-'))
afterAll(() => rmSync(folder, { recursive: true }))

function thrownBy(act: () => unknown): unknown {
  try {
    return act()
  } catch (error) {
    return error
  }
}

/** Public objects by name, and the line that they are inspected as, where it is ours. */
function objects(threads: number): [string, object, RegExp | undefined][] {
  const wasm = new SharedArrayBuffer(2 ** 21)
  const memory = new Memory({ size: '1MiB', threads, ram: { buffer: wasm, byteOffset: 2 ** 20 } })
  const space = memory.space()
  const file = memory.shared('64KiB', 'a\tname\u001b[2J')
  const map = space.map(file, { writable: true })
  const own = space.map(null, { length: 8192, writable: true })
  const unmapped = space.map(file)
  unmapped.unmap()
  const closed = memory.shared(4096)
  closed.close()
  const page = map.borrow(0, 'write')
  const given = map.borrow(1)
  given.release()
  const table = new ShadowTable(map, { byteOffset: 0, nrEntries: 16 })
  const tlb = new Tlb(space, { byteOffset: 4096, nrEntries: 16 })
  const ended = new Memory({ size: '1MiB' })
  const late = ended.space()
  const lost = late.map(null, { length: 4096 })
  ended.close()
  const result: [string, object, RegExp | undefined][] = [
    ['a memory', memory, new RegExp(`^Memory { size: '1.00 MiB', pageSize: 4096, threads: ${threads} }$`)],
    ['a closed memory', ended, /^Memory { size: '1.00 MiB', pageSize: 4096, threads: 1, closed }$/],
    ['a machine', memory.machine, /^Machine { frames: \d+, pageSize: 4096 }$/],
    ['a kernel', createKernel({ nrFrames: 16 }), undefined],
    ['a space', space, /^AddressSpace { id: 1 }$/],
    ['an ended space', late, /^AddressSpace { id: 1, ended }$/],
    ['a handle of the calls', space.mm, undefined],
    ['a mapping', map, /^Mapping { file: 'a\\u0009name\\u001b\[2J', length: 65536, writable: true, at 0x[0-9a-f]+ }$/],
    ['memory of its own', own, /^Mapping { length: 8192, writable: true, at 0x[0-9a-f]+ }$/],
    ['an unmapped mapping', unmapped, /^Mapping { file: .*, length: 0, writable: false, unmapped }$/],
    ['a mapping of a closed memory', lost, /^Mapping { length: 4096/],
    ['a file', file, /^MappedFile { name: 'a\\u0009name\\u001b\[2J', size: 65536, writable: true }$/],
    ['a closed file', closed, /^MappedFile { name: 'shared memory', writable: true, closed }$/],
    ['a page', page, /^BorrowedPage { length: 4096, writable: true }$/],
    ['a page that was given back', given, /^BorrowedPage { length: 4096, writable: false, given back }$/],
    ['a shadow table', table, /^ShadowTable { nrEntries: 16, nrFaults: 0 }$/],
    ['a TLB', tlb, /^Tlb { nrEntries: 16, nrMisses: 0 }$/],
    ['a guest', tlb.guest(), undefined],
    ['a memory store', memoryStore({ sizeBytes: 2 ** 30, contents: new Uint8Array(100_000) }), undefined],
    ['a shared store', sharedStore(sharedStoreBuffer(2 ** 20)), undefined],
    ['a file of Node', nodeFile(join(folder, 'file'), 'w+'), undefined],
    ['the handle of a space', space.handle, undefined],
    ['the handle of a file', file.handle, undefined],
    ['the handle of a mapping', map.handle, undefined],
    ['the handle of a shadow table', table.handle, undefined]
  ]
  if (threads > 1) result.push(['the handle of a memory', memory.handle, undefined])
  return result
}

/** Everything that the enumerable own properties of an object lead to. */
function reach(from: object, found: Set<object> = new Set()): Set<object> {
  if (found.has(from) || ArrayBuffer.isView(from)) return found
  found.add(from)
  for (const value of Object.values(from)) if (typeof value === 'object' && value !== null) reach(value, found)
  return found
}

describe.each([1, 3])('of a memory for %d threads', threads => {
  test.each(objects(threads))('%s', (name, object, line) => {
    const seen = inspect(object)
    const json = JSON.stringify({ object })
    if (line !== undefined) expect(seen).toMatch(line)
    if (line !== undefined) expect(seen).not.toContain('\n')
    const isMemory = name === 'the handle of a memory' || name === 'a kernel'
    expect(seen.length).toBeLessThan(isMemory ? 2000 : 400)
    expect(json.length).toBeLessThan(isMemory ? 2000 : 400)
    expect(JSON.parse(json).object).toBeTypeOf('object')
    if (name !== 'a kernel' && name !== 'a machine') expect(reach(object).size).toBeLessThan(20)
  })
})

test('errors: the message is there, and their fields', () => {
  const memory = new Memory({ size: '1MiB' })
  const map = memory.space().map(memory.shared('8KiB'))
  const fault = thrownBy(() => map.setUint8(5, 1))
  expect(fault).toBeInstanceOf(FaultError)
  const { name, code, message, access, page } = JSON.parse(JSON.stringify(fault))
  expect({ name, code, access, page }).toEqual({ name: 'FaultError', code: 'SIGSEGV', access: 'write', page: 0 })
  expect(message).toContain('the protection forbids it')
  expect(inspect(fault)).toContain("code: 'SIGSEGV'")
  const error = new HttpRangeError('EIO', 'it broke', { url: 'http://h/', range: 'bytes=0-1' })
  expect(JSON.parse(JSON.stringify(error))).toMatchObject({ code: 'EIO', message: error.message })
  expect(inspect(error).length).toBeLessThan(2000)
})
