/** A file that is opened once more, in one memory or in two; and the limits of opening. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import type { Mapping } from '../../src/api/mapping.ts'
import { Memory } from '../../src/api/memory.ts'
import type { AddressSpace } from '../../src/api/space.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import { errorOf } from '../attached/support.ts'

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-open-again-'))
let files = 0
function fresh(contents: string): string {
  const file = path.join(directory, `${++files}`)
  fs.writeFileSync(file, contents)
  return file
}
const text = (file: string): string => fs.readFileSync(file, 'latin1')

afterAll(() => fs.rmSync(directory, { recursive: true }))

describe.each([1, 2])('in a memory of %d threads', threads => {
  test("'w+' cuts the file for all who have it open, also what was never written", () => {
    const file = fresh('old'.repeat(2000))
    const memory = new Memory({ size: '1MiB', threads, debug: true })
    const old = memory.open(nodeFile(file, 'r+'))
    const map = memory.space().map(old, { writable: true })
    map.setUint8(0, 65)
    old.write(Buffer.from('tail'), 9000)
    const now = memory.open(nodeFile(file, 'w+'))
    expect([now.size, old.size]).toEqual([0, 0])
    expect(errorOf(() => map.getUint8(0)).code).toBe('SIGBUS')
    now.write(Buffer.from('new'), 0)
    now.sync()
    expect([text(file), map.getUint8(0), map.getUint8(3)]).toEqual(['new', 110, 0])
    expect(memory.check()).toEqual([])
    memory.close()
    expect(text(file)).toBe('new')
  })

  test('what another program has cut or appended is seen by the next open; what is not written yet stays', () => {
    const file = fresh('x'.repeat(10_000))
    const memory = new Memory({ size: '1MiB', threads, debug: true })
    const old = memory.open(nodeFile(file, 'r+'))
    old.read(new Uint8Array(10_000), 0)
    fs.truncateSync(file, 5000)
    memory.open(nodeFile(file, 'r+')).close()
    expect(old.size).toBe(5000)
    fs.appendFileSync(file, 'y'.repeat(3000))
    const again = memory.open(nodeFile(file, 'r'))
    expect(old.size).toBe(8000)
    old.write(Buffer.from('z'), 8999)
    memory.open(nodeFile(file, 'r+')).close()
    const bytes = Buffer.alloc(9000)
    expect(again.read(bytes, 0)).toBe(9000)
    expect([bytes.toString('latin1', 4999, 5001), bytes[7999], bytes[8000], bytes[8999]]).toEqual(['xy', 121, 0, 122])
    expect(memory.check()).toEqual([])
    memory.close()
    expect(text(file).length).toBe(9000)
  })
})

describe('two memories with one file', () => {
  const open = (file: string, options = {}, mode: 'r' | 'r+' = 'r+') => {
    const memory = new Memory({ size: '256KiB' })
    return { memory, opened: memory.open(nodeFile(file, mode), options) }
  }

  test('for writing: EBUSY at the second open, until the first one has closed it', () => {
    const file = fresh('.'.repeat(4096))
    const first = open(file)
    const refusal = errorOf(() => open(file))
    expect(refusal).toMatchObject({ code: 'EBUSY', syscall: 'open', message: expect.stringContaining('coordinated') })
    expect(errorOf(() => open(file, { coordinated: true })).code).toBe('EBUSY')
    open(file, {}, 'r').memory.close()
    first.opened.close()
    const second = open(file)
    expect(errorOf(() => first.memory.open(nodeFile(file, 'r+'))).code).toBe('EBUSY')
    second.memory.close()
    first.memory.open(nodeFile(file, 'r+'))
    first.memory.close()
  })

  test('both coordinated: each writes what it has changed', () => {
    const file = fresh('.'.repeat(8192))
    const two = [open(file, { coordinated: true }), open(file, { coordinated: true })]
    for (const [i, { opened }] of two.entries()) opened.write(Buffer.from(String(i)), i * 4096)
    for (const { memory } of two) memory.close()
    expect([text(file)[0], text(file)[4096]]).toEqual(['0', '1'])
  })
})

describe('limits are named, and options', () => {
  test('files, opens and address spaces', () => {
    const memory = new Memory({ size: '256KiB', maxInodes: 2, maxFiles: 3, maxSpaces: 2 })
    const file = fresh('x')
    memory.shared(1)
    memory.open(nodeFile(file, 'r'))
    expect(errorOf(() => memory.shared(1)).message).toMatch(/^ENFILE: .*maxInodes is 2/)
    memory.open(nodeFile(file, 'r'))
    expect(errorOf(() => memory.open(nodeFile(file, 'r'))).message).toMatch(/maxFiles is 3/)
    const space = memory.space()
    memory.space()
    expect(errorOf(() => memory.space()).message).toMatch(/^ENOMEM: .*maxSpaces is 2/)
    expect(errorOf(() => space.fork()).message).toMatch(/maxSpaces is 2/)
    memory.close()
  })

  test('mappings: of an address space, and of all together', () => {
    const memory = new Memory({ size: '256KiB', maxMapCount: 8, maxVmas: 12 })
    const [space, other] = [memory.space(), memory.space()]
    const file = memory.shared('256KiB')
    const maps: Mapping[] = []
    const cut = (of: AddressSpace): void => {
      const map = of.map(file, { writable: true })
      maps.push(map)
      for (let page = 0; ; page += 2) map.protect('read', { offset: page * 4096, length: 4096 })
    }
    expect(errorOf(() => cut(space)).message).toMatch(/^ENOMEM: .*all the 8 mappings.*maxMapCount/)
    const advise = (): void => maps[0].advise('random', { offset: 40 * 4096, length: 4096 })
    expect(errorOf(advise).message).toMatch(/^EAGAIN: .*all the 8 mappings.*maxMapCount/)
    space.map(file, { length: 4096, private: true })
    expect(errorOf(() => space.map(file)).message).toMatch(/maxMapCount/)
    expect(errorOf(() => cut(other)).message).toMatch(/^ENOMEM: .*all the 12 mappings.*together.*maxVmas/)
    expect(errorOf(() => space.fork()).message).toMatch(/^ENOMEM: .*maxVmas/)
    expect(errorOf(() => new Memory({ size: '1MiB', maxVmas: 0 })).message).toMatch(/maxVmas is 0, but must be/)
    memory.close()
  })

  test('pages of an address space', () => {
    const memory = new Memory({ size: '256KiB', pageSize: 512 })
    const space = memory.space()
    const map = (): void => void space.map(null, { length: 2 ** 40 - 2 ** 20 })
    map()
    expect(errorOf(map).message).toMatch(/^ENOMEM: .*an address space has 2147483647 pages/)
    memory.close()
  })

  test('sizes as text are sizes', () => {
    expect(new Memory({ size: '64MiB', pageSize: '4096' }).stats().frames).toBe(
      new Memory({ size: '64MiB' }).stats().frames
    )
    expect(new Memory({ size: '1MiB', pageSize: '64KiB' }).pageSize).toBe(65_536)
    expect(() => new Memory({ size: '1MiB', pageSize: 'large' })).toThrow(RangeError)
  })
})
