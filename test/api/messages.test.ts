/** Errors that say what to do, and sizes as people write them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import vm from 'node:vm'
import { afterAll, expect, test } from 'vitest'
import { type Mapping, Memory, memoryStore, type Store } from '../../src/index.ts'
import { nodeFile } from '../../src/stores/node-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'fremap-'))
afterAll(() => rmSync(folder, { recursive: true }))

function machine(): { memory: Memory; map: Mapping } {
  const memory = new Memory({ size: '1MiB' })
  return { memory, map: memory.space().map(memory.shared('64KiB'), { writable: true }) }
}

test('an offset that is not aligned: the page size', () => {
  const { memory, map } = machine()
  expect(() => memory.space().map(map.file as never, { offset: 100, length: 4096 })).toThrow(
    expect.objectContaining({ code: 'EINVAL', message: expect.stringMatching(/offset 100 .* page size, 4096$/) })
  )
})

test('a file open for reading, mapped to be stored to: open it for writing', () => {
  const { memory } = machine()
  const file = memory.open(memoryStore({ name: 'mine', sizeBytes: 4096, readOnly: true }))
  expect(() => memory.space().map(file, { writable: true })).toThrow(
    expect.objectContaining({
      code: 'EACCES',
      message: expect.stringMatching(/mine is open for reading: .*private: true$/)
    })
  )
  memory.space().map(file, { writable: true, private: true }).setUint8(0, 1)
})

test('a closed file: that it is closed', () => {
  const { memory, map } = machine()
  map.file?.close()
  expect(() => memory.space().map(map.file as never, { length: 4096 })).toThrow(/EBADF.*shared memory is closed$/)
})

test('remapPages with a plain array: Int32Array.from', () => {
  const { map } = machine()
  expect(() => map.remapPages(0, [1, 2] as unknown as Int32Array)).toThrow(/Int32Array\.from\(pages\)/)
})

test('a path in place of a store: nodeFile', () => {
  const { memory } = machine()
  expect(() => memory.open('a.db' as unknown as Store)).toThrow(
    /nodeFile\('a\.db', 'r'\)\), with nodeFile of 'fremap\/node'/
  )
  for (const none of [undefined, null, {}, 7])
    expect(() => memory.open(none as unknown as Store)).toThrow(/takes a store/)
})

test('sizes are numbers or strings wherever bytes are taken', () => {
  const { memory } = machine()
  const file = memory.shared('64KiB')
  const map = memory.space().map(file, { offset: '8KiB', length: '16KiB', writable: true })
  expect([map.length, map.filePage(0)]).toEqual([16384, 2])
  expect(map.populateSync({ offset: '4KiB', length: '8KiB' })).toBe(2)
  expect([...map.residency({ length: '8 KiB' })]).toEqual([0, 1])
  map.sync({ length: '4k' })
  map.resize('32KiB')
  expect(map.length).toBe(32768)
  file.truncate('1MiB')
  expect(file.size).toBe(2 ** 20)
  file.punch(0, '4KiB')
  expect(() => memory.space().map(file, { length: 'much' })).toThrow(/"much" is not a size; write bytes or a unit/)
  expect(() => map.sync({ length: '-1' })).toThrow(/is not a size/)
  expect(() => memory.shared({} as unknown as string)).toThrow(/a object is not a size|not a size/)
  expect(() => memory.shared(1n as unknown as number)).toThrow(/not a size/)
})

test('an unknown protection: what there is', () => {
  const { map } = machine()
  expect(() => map.protect('rw' as 'read')).toThrow(/rw is no protection; it is 'none', 'read' or 'write'/)
})

test('as many mappings as there may be: the option', () => {
  const memory = new Memory({ size: '1MiB', maxMapCount: 8 })
  const space = memory.space()
  const map = space.map(null, { length: '256KiB', writable: true })
  const more = (): void => {
    for (let i = 1; i < 20; i += 2) map.protect('read', { offset: i * 4096, length: 4096 })
  }
  expect(more).toThrow(
    expect.objectContaining({ code: 'ENOMEM', message: expect.stringMatching(/8 mappings.*maxMapCount$/) })
  )
  const maps = (): void => {
    for (let i = 0; i < 20; i++) space.map(memory.shared(4096))
  }
  expect(maps).toThrow(/maxMapCount$/)
  expect(memory.check()).toEqual([])
})

test('a handle that went through JSON: postMessage', () => {
  const memory = new Memory({ size: '1MiB', threads: 2 })
  const { handle } = memory
  expect(() => Memory.attach(JSON.parse(JSON.stringify(handle)))).toThrow(/postMessage or workerData/)
  expect(() => Memory.attach({ kind: 'memory' } as never)).toThrow(/postMessage or workerData/)
  expect(() => Memory.attach(undefined as never)).toThrow(/takes the handle of a memory/)
})

test('shared memory of another realm is shared memory', () => {
  const buffer = vm.runInNewContext('new SharedArrayBuffer(2 ** 20)') as SharedArrayBuffer
  const memory = new Memory({ size: '256KiB', ram: { buffer, byteOffset: 0 } })
  const map = memory.space().map(memory.shared(4096), { writable: true })
  map.setUint8(0, 7)
  expect(new Uint8Array(buffer).includes(7)).toBe(true)
  expect(() => new Memory({ size: '256KiB', ram: { buffer: new ArrayBuffer(2 ** 20), byteOffset: 0 } })).toThrow(
    TypeError
  )
})

test('control characters in names are escaped, in messages and in tables', () => {
  const { memory } = machine()
  const name = 'a\u001b]0;owned\u0007\n\u202eb'
  const seen = 'a\\u001b]0;owned\\u0007\\u000a\\u202eb'
  const file = memory.open(nodeFile(join(folder, name), 'w+', { name }))
  file.truncate(4096)
  const space = memory.space()
  const map = space.map(file, { writable: true })
  file.truncate(0)
  expect(() => map.getUint8(0)).toThrow(expect.objectContaining({ file: name, message: expect.stringContaining(seen) }))
  expect(space.maps()).toContain(seen)
  expect(space.maps()).not.toContain(name)
  expect(space.smaps()).toContain(seen)
  memory.close()
})
