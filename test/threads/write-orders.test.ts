/** Orders of a write to a file, as write(2) has them: whole against other writes, truncation, punches; beside syncs. */
import { describe, expect, test } from 'vitest'
import { PAGE, type ThreadRig, useThreads } from './support.ts'

const threads = useThreads()

describe('a write to the file', () => {
  /** Bytes of one kind. */
  const bytes = (value: number): Uint8Array => new Uint8Array(3 * PAGE - 200).fill(value)
  const written = async (rig: ThreadRig): Promise<Set<number>> => {
    const read = new Uint8Array(3 * PAGE - 200)
    expect(rig.file.read(read, 4 * PAGE + 100)).toBe(read.length)
    return new Set(read)
  }

  // The last page is written in part, so it is read first, and that is where the write stands: two pages are written.
  const half = async (rig: ThreadRig): Promise<[Promise<unknown>]> => {
    const [a] = rig.workers
    rig.hold('read', 6)
    const write = a.call(a.file, 'write', bytes(1), 4 * PAGE + 100)
    await rig.held('read')
    return [write]
  }

  test('and another one that overlaps it: one comes after the other, whole', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const [first] = await half(rig)
    const [second] = await rig.waiting(b, () => b.call(b.file, 'write', bytes(2), 4 * PAGE + 100))
    rig.release('read')
    await Promise.all([first, second])
    expect(await written(rig)).toEqual(new Set([2]))
  })

  test('and one from an address space: the same', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const at = await b.call<number>(b.space, 'map', null, { length: 3 * PAGE, writable: true })
    await b.call(at, 'fill', 2)
    const [first] = await half(rig)
    const [second] = await rig.waiting(b, () => b.do('writeUser', b.file, at, 3 * PAGE - 200, 4 * PAGE + 100))
    rig.release('read')
    await Promise.all([first, second])
    expect(await second).toBe(3 * PAGE - 200)
    expect(await written(rig)).toEqual(new Set([2]))
  })

  test.each([
    ['truncation', 'truncate', [2 * PAGE]],
    ['a punch', 'punch', [4 * PAGE, 2 * PAGE]]
  ] as const)('and %s: it comes after the write', async (_, method, args) => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const [write] = await half(rig)
    const [cut] = await rig.waiting(b, () => b.call(b.file, method, ...args))
    rig.release('read')
    await Promise.all([write, cut])
    if (method === 'truncate') expect(rig.file.size).toBe(2 * PAGE)
    else expect([rig.map.getUint8(5 * PAGE), rig.map.getUint8(6 * PAGE)]).toEqual([0, 1])
  })

  test('and MADV_REMOVE of its pages by a thread that others wait for: nobody waits in a circle', async () => {
    const rig = await threads({ workers: 3 })
    const [, b, c] = rig.workers
    const [write] = await half(rig)
    const [removed] = await rig.waiting(b, () => b.call(b.map, 'advise', 'remove', { offset: 4 * PAGE, length: PAGE }))
    // The mmap lock is free meanwhile.
    await c.call(c.map, 'remap', { at: 20, page: 30 })
    expect(await c.load(20)).toBe(31)
    rig.release('read')
    await Promise.all([write, removed])
    expect(await c.load(4)).toBe(0)
  })

  test('and a sync of the file: neither waits for the other', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(20, 1)
    rig.hold('flush')
    const sync = a.call(a.file, 'sync')
    await rig.held('flush')
    await b.call(b.file, 'write', bytes(2), 4 * PAGE + 100)
    rig.release('flush')
    await sync
    expect(await written(rig)).toEqual(new Set([2]))
  })

  test('and the end of its thread: the lock is free again, the pages that were reached are written', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    const [write] = await half(rig)
    write.catch(() => {})
    const [second] = await rig.waiting(b, () => b.call(b.file, 'write', Uint8Array.of(9), 5 * PAGE))
    await a.terminate()
    rig.release('read')
    await second
    expect([rig.map.getUint8(4 * PAGE + 100), rig.map.getUint8(5 * PAGE), rig.map.getUint8(6 * PAGE)]).toEqual([
      1, 9, 7
    ])
    expect(rig.memory.check()).toEqual([])
  })
})
