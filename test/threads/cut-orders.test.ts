/** Orders of truncation and punches, whose store is asked in a window, and what other threads do meanwhile. */
import { describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { type Call, errorOf, PAGE, type ThreadRig, type ThreadWorker, useThreads } from './support.ts'

const threads = useThreads()

/** A thread cuts pages 8 to the end, or 8 to 11, and its store is held. */
const cuts: readonly [string, Call, (worker: ThreadWorker) => Promise<unknown>][] = [
  ['truncation', 'truncate', w => w.call(w.file, 'truncate', 8 * PAGE)],
  ['a punch', 'punch', w => w.call(w.file, 'punch', 8 * PAGE, 4 * PAGE)]
]

const cutting = async (
  rig: ThreadRig,
  call: Call,
  cut: (worker: ThreadWorker) => Promise<unknown>
): Promise<[Promise<unknown>]> => {
  rig.hold(call)
  const result = cut(rig.workers[0])
  result.catch(() => {})
  await rig.held(call)
  return [result]
}

/** What a load of a page that was cut away gives. */
const expectCut = async (call: Call, load: Promise<number>): Promise<void> => {
  if (call === 'truncate') expect(await errorOf(load)).toMatchObject({ code: 'SIGBUS' })
  else expect(await load).toBe(0)
}

describe.each(cuts)('while the store is asked for %s', (_, call, cut) => {
  test('others fault in what stays and in other files, open, map, remap, unmap, sync another file, close it', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const [cutOff] = await cutting(rig, call, cut)
    expect(await b.load(3)).toBe(4)
    await b.store(4, 400)
    const file = await b.do<number>('openOther')
    const map = await b.call<number>(b.space, 'map', { thing: file }, { writable: true })
    await b.call(map, 'setUint32', 2 * PAGE, 77)
    await b.call(map, 'remap', { at: 0, page: 2 })
    expect(await b.call(map, 'getUint32', 0)).toBe(77)
    await b.call(file, 'sync')
    await b.call(map, 'unmap')
    await b.call(file, 'close')
    await b.call(b.map, 'remap', { at: 5, page: 2 })
    expect(await b.load(5)).toBe(3)
    expect(rig.memory.check()).toEqual([])
    rig.release(call)
    await cutOff
    expect(await b.load(4)).toBe(400)
  })

  test('a fault on what is cut away waits, and has what is there afterwards', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const [cutOff] = await cutting(rig, call, cut)
    const [load] = await rig.waiting(b, () => b.load(9))
    const reads = rig.calls('read')
    rig.release(call)
    await cutOff
    await expectCut(call, load)
    if (call === 'truncate') expect(rig.calls('read')).toBe(reads)
  })

  test('a remap of the window, while a fault on what is cut away waits: neither keeps the other', async () => {
    const rig = await threads({ workers: 3 })
    const [, b, c] = rig.workers
    const [cutOff] = await cutting(rig, call, cut)
    const [load] = await rig.waiting(b, () => b.load(9))
    await c.call(c.map, 'remap', { at: 9, page: 2 })
    rig.release(call)
    await cutOff
    expect(await load).toBe(3)
  })

  test('what was mapped of it is used until it goes', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    await b.store(9, 900)
    const [cutOff] = await cutting(rig, call, cut)
    expect(await b.load(9)).toBe(900)
    await b.store(9, 901)
    rig.release(call)
    await cutOff
    await expectCut(call, b.load(9))
  })

  test('the space of a mapping ends, and the descriptor is closed: the file is there until the cut is over', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    await b.store(4, 400)
    const [cutOff] = await cutting(rig, call, cut)
    await b.call(b.map, 'unmap')
    await b.call(b.file, 'close')
    expect(rig.calls('close')).toBe(0)
    rig.release(call)
    await cutOff
    expect(rig.calls('close')).toBe(1)
    expect(rig.storedWord(4)).toBe(400)
  })

  test('a sync, a write and another cut wait for it; a read of what stays does not', async () => {
    const rig = await threads({ workers: 4 })
    const [, b, c, d] = rig.workers
    const [cutOff] = await cutting(rig, call, cut)
    expect((await b.do<Uint8Array>('bytes', b.file, 'read', 4, 3 * PAGE))[0]).toBe(4)
    const [sync] = await rig.waiting(b, () => b.call(b.file, 'sync'))
    const [write] = await rig.waiting(c, () => c.call(c.file, 'write', Uint8Array.of(9), 3 * PAGE))
    const [other] = await rig.waiting(d, () => d.call(d.file, 'punch', 2 * PAGE, PAGE))
    rig.release(call)
    await Promise.all([cutOff, sync, write, other])
    expect([await b.load(2), await b.load(3)]).toEqual([0, 9])
  })

  test('and it refuses: who waited has the page as it was', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    await b.store(10, 1000)
    rig.fail(call, EIO)
    const [cutOff] = await cutting(rig, call, cut)
    const [load] = await rig.waiting(b, () => b.load(9))
    rig.release(call)
    expect(await errorOf(cutOff)).toMatchObject({ code: 'EIO' })
    expect([await load, await b.load(10)]).toEqual([10, 1000])
    expect(rig.file.size).toBe(64 * PAGE)
  })

  test.each([true, false])('and its thread ends (watched: %s): who waits goes on', async isWatched => {
    const rig = await threads({ workers: 3, isWatched, patienceMs: 60_000 })
    const [a, b, c] = rig.workers
    await b.store(10, 1000)
    await cutting(rig, call, cut)
    const [load] = await rig.waiting(b, () => b.load(9))
    const [other] = await rig.waiting(c, () => c.call(c.file, 'truncate', 60 * PAGE))
    await a.terminate()
    expect(await load).toBe(10)
    rig.release(call)
    await other
    expect([await b.load(10), await b.load(59)]).toEqual([1000, 60])
    await b.call(b.file, 'sync')
    expect(rig.storedWord(10)).toBe(1000)
    expect(rig.stored.size()).toBe(60 * PAGE)
    expect(rig.memory.check()).toEqual([])
  })
})
