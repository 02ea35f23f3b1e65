/**
 * A memory that is broken: by an exception that comes up in the middle of a change, while its thread holds the machine
 * lock, or by a thread that ends there. Every thread hears of it, also those that wait or are in a call of a store, and
 * nobody changes anything any more.
 */
import { describe, expect, test } from 'vitest'
import { ENOTRECOVERABLE, EOWNERDEAD } from '../../src/abi/errno.ts'
import { F_INDEX, FRAME_SHIFT } from '../../src/frame/frame-table.ts'
import { type Call, errorOf, PAGE, type ThreadRig, type ThreadWorker, until, useThreads } from './support.ts'

const threads = useThreads()
const BUG = 'a bug of ours'

const broken = {
  code: 'ENOTRECOVERABLE',
  errno: -ENOTRECOVERABLE,
  message: expect.stringContaining('memory is broken')
}
const ownerDead = { code: 'EOWNERDEAD', errno: -EOWNERDEAD }

/** Every call of every thread says so. */
async function expectBroken(rig: ThreadRig, other: ThreadWorker): Promise<void> {
  expect(rig.memory.machine.sync.lockOwner).toBe(-1)
  expect(await errorOf(other.load(33))).toMatchObject(broken)
  expect(await errorOf(other.store(34, 1))).toMatchObject(broken)
  expect(await errorOf(other.call(other.map, 'remap', { at: 7, page: 40 }))).toMatchObject(broken)
  expect(await errorOf(other.call(other.map, 'write', new Uint8Array(8), 35 * PAGE))).toMatchObject(broken)
  expect(await errorOf(other.call(other.file, 'sync'))).toMatchObject(broken)
  expect(await errorOf(other.call(other.memory, 'space'))).toMatchObject(broken)
  expect(await errorOf(other.call(other.map, 'borrow', 36))).toMatchObject(broken)
  expect(await errorOf(rig.start())).toMatchObject(broken)
  expect(() => rig.map.getUint32(37 * PAGE)).toThrow('ENOTRECOVERABLE')
  expect(() => rig.memory.close()).toThrow('ENOTRECOVERABLE')
}

describe('an exception in the middle of', () => {
  /** The part and method that throw, and what a worker does to come there. */
  const middles: readonly [string, [string, string], (w: ThreadWorker) => Promise<unknown>][] = [
    ['a fault', ['cache', 'add'], w => w.load(9)],
    ['a store\u2019s fault', ['cache', 'setDirty'], w => w.store(9, 1)],
    ['a bulk copy', ['frames', 'unpin'], w => w.call(w.map, 'write', new Uint8Array(2 * PAGE), 9 * PAGE)],
    ['a read of the file', ['cache', 'add'], w => w.do('bytes', w.file, 'read', 8, 9 * PAGE)],
    ['a write to the file', ['cache', 'setDirty'], w => w.call(w.file, 'write', new Uint8Array(8), 9 * PAGE)],
    ['a remap', ['tables', 'ensure'], w => w.call(w.map, 'remap', { at: 2, page: 30 })],
    ['populating', ['cache', 'add'], w => w.call(w.space, 'map', { thing: w.file }, { populate: true })],
    ['mapping', ['vmas', 'link'], w => w.call(w.space, 'map', { thing: w.file })],
    ['unmapping', ['vmas', 'unlink'], w => w.call(w.map, 'unmap')],
    ['a fork', ['mms', 'alloc'], w => w.call(w.space, 'fork')],
    ['msync', ['cache', 'clearDirty'], async w => [await w.store(3, 1), await w.call(w.map, 'sync')]],
    ['fsync', ['cache', 'clearDirty'], async w => [await w.store(3, 1), await w.call(w.file, 'sync')]],
    ['a truncation', ['cache', 'collect'], w => w.call(w.file, 'truncate', 5 * PAGE)],
    ['a punch', ['cache', 'collect'], w => w.call(w.file, 'punch', 0, 5 * PAGE)],
    ['reclaim', ['reclaim', 'shrinkAll'], w => w.call(w.memory, 'shrink')],
    ['locking pages', ['vmas', 'link'], w => w.call(w.map, 'lock', { length: PAGE })],
    ['making a space', ['mms', 'alloc'], w => w.call(w.memory, 'space')]
  ]

  test.each(middles)('%s: its own call throws it, all others say ENOTRECOVERABLE', async (_, [part, method], act) => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.load(1)
    await a.do('sabotage', part, method, BUG)
    expect((await errorOf(act(a))).message).toBe(BUG)
    expect(await errorOf(a.call(a.memory, 'space'))).toMatchObject(broken)
    await expectBroken(rig, b)
  })

  test('a fault, with threads waiting for its mmap lock, its page and its inode lock: all are told', async () => {
    const rig = await threads({ workers: 4 })
    const [a, b, c, d] = rig.workers
    rig.hold('read')
    const load = a.load(9)
    await rig.held('read')
    // A thread does not see messages while it is in a call: its machine is bent from here, through what all share.
    const [fault] = await rig.waiting(c, () => c.load(9))
    const [punch] = await rig.waiting(d, () => d.call(d.file, 'punch', 9 * PAGE, PAGE))
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    rig.memory.machine.sync.declareBroken(ENOTRECOVERABLE)
    for (const waiting of [fault, punch, remap]) expect(await errorOf(waiting)).toMatchObject(broken)
    rig.release('read')
    expect(await errorOf(load)).toMatchObject(broken)
    await expectBroken(rig, b)
  })

  test('a verb, from an assertion of ours: a page is not where its hash says', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.do('bytes', a.file, 'read', 8, 9 * PAGE)
    const { cache, frames } = rig.memory.machine
    const frame = cache.lookup(rig.memory.machine.files.inode[rig.memory.machine.fds[rig.file.fd]], 9)
    frames.w[(frame << FRAME_SHIFT) + F_INDEX] ^= 1
    expect((await errorOf(a.call(a.memory, 'shrink'))).message).toContain('internal invariant broken')
    await expectBroken(rig, b)
  })

  test('a call of the main thread: it is told too, and so are the workers', async () => {
    const rig = await threads({ workers: 1 })
    const [a] = rig.workers
    const { machine } = rig.memory
    machine.tables.ensure = () => {
      throw new Error(BUG)
    }
    expect(() => rig.map.remap({ at: 2, page: 30 })).toThrow(BUG)
    await expectBroken(rig, a)
  })

  test.each([['remap', { at: 2, page: 30 }], ['getUint32', 9 * PAGE], ['fill', 7, 0, 3 * PAGE], ['sync']])(
    '%s, where the stack is full, is not begun: nothing is broken, and nobody waits',
    async (method, ...args) => {
      const rig = await threads({ workers: 2 })
      const [a, b] = rig.workers
      const ends = await a.do<Record<string, number>>('exhaustStack', a.map, method, ...args)
      expect(ends.RangeError).toBeGreaterThan(0)
      const { sync } = rig.memory.machine
      expect(sync.lockOwner).toBe(-1)
      expect(sync.broken).toBe(0)
      await b.call(b.map, 'remap', { at: 2, page: 31 })
      expect(await b.load(2)).toBe(32)
    }
  )
})

describe('a call that comes back from its store to a broken memory', () => {
  const calls: readonly [string, Call, (w: ThreadWorker) => Promise<unknown>][] = [
    ['a load', 'read', w => w.load(9)],
    ['a bulk copy', 'read', w => w.do('bytes', w.map, 'read', 8, 9 * PAGE)],
    ['a read of the file', 'read', w => w.do('bytes', w.file, 'read', 8, 9 * PAGE)],
    ['a write to a part of a page', 'read', w => w.call(w.file, 'write', new Uint8Array(8), 9 * PAGE)],
    ['willneed', 'read', w => w.call(w.map, 'advise', 'willneed')],
    ['populating', 'read', w => w.call(w.map, 'lock')],
    ['msync', 'write', w => w.call(w.map, 'sync')],
    ['fsync', 'flush', w => w.call(w.file, 'sync')]
  ]

  test.each(calls)('%s: EOWNERDEAD, and nothing has changed', async (_, call, act) => {
    const rig = await threads({ workers: 3, readahead: 8 * PAGE })
    const [a, b, c] = rig.workers
    await b.store(1, 100)
    // Another file, so that its truncation need not wait.
    const file = await c.call<number>(c.memory, 'shared', 4 * PAGE)
    rig.hold(call)
    const result = act(a)
    await rig.held(call)
    await c.do('sabotage', 'cache', 'collect', BUG)
    expect((await errorOf(c.call(file, 'truncate', 0))).message).toBe(BUG)
    await until(() => rig.memory.machine.sync.broken !== 0, 'the memory to be broken')
    const before = state(rig)
    rig.release(call)
    expect(await errorOf(result)).toMatchObject(broken)
    expect(state(rig).equals(before)).toBe(true)
  })

  test('also when another thread ended', async () => {
    const rig = await threads({ workers: 3 })
    const [a, , c] = rig.workers
    await a.load(3)
    rig.hold('size')
    void c.do('openOther')
    await rig.held('size')
    const load = a.load(9)
    await c.terminate()
    rig.release('size')
    expect(await errorOf(load)).toMatchObject(ownerDead)
  })
})

/** All of the arena but the rows of threads, counters and the trace, which lie before the frame table. */
function state(rig: ThreadRig): Buffer {
  const { buffer, byteOffset } = rig.memory.machine.frames.w
  return Buffer.from(new Uint8Array(buffer, byteOffset).slice())
}
