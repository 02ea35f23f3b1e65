/**
 * Orders of truncation, punches and last closes, whose store works in a window, and what other threads do meanwhile.
 */
import { describe, expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { ROUNDS, STOP } from './loops.mjs'
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

/** The last reference that a thread lets go of: what it has opened and mapped by `openOther`. */
const closes: readonly [string, (w: ThreadWorker, file: number, map: number, space: number) => Promise<unknown>][] = [
  [
    'a close',
    async (w, file, map) => {
      await w.call(map, 'unmap')
      await w.call(file, 'close')
    }
  ],
  [
    'an unmap',
    async (w, file, map) => {
      await w.call(file, 'close')
      await w.call(map, 'unmap')
    }
  ],
  [
    'the end of its space',
    async (w, file, _, space) => {
      await w.call(file, 'close')
      await w.call(space, 'close')
    }
  ]
]

describe.each(closes)('while a file that nobody has any more is written, by %s', (kind, close) => {
  /** A worker has page 2 of the other file dirty, lets it go, and is held. */
  const closing = async (rig: ThreadRig, call: Call = 'write'): Promise<[Promise<unknown>]> => {
    const [a] = rig.workers
    const file = await a.do<number>('openOther')
    const space = kind === 'the end of its space' ? await a.call<number>(a.memory, 'space') : a.space
    const map = await a.call<number>(space, 'map', { thing: file }, { writable: true })
    await a.call(map, 'setUint32', 2 * PAGE, 77)
    rig.hold(call)
    const closed = close(a, file, map, space)
    closed.catch(() => {})
    await rig.held(call)
    return [closed]
  }
  const stored = (rig: ThreadRig): number => {
    const bytes = new Uint8Array(4)
    rig.other.read(2 * PAGE, bytes, 0, 4)
    return new DataView(bytes.buffer).getUint32(0, true)
  }
  const loadOther = async (b: ThreadWorker, file: number): Promise<number> =>
    new DataView((await b.do<Uint8Array>('bytes', file, 'read', 4, 2 * PAGE)).buffer).getUint32(0, true)

  test.each(['write', 'close'] as const)(
    'and held in %s: others fault, map, remap, unmap in the same space',
    async call => {
      const rig = await threads({ workers: 2 })
      const b = rig.workers[1]
      const [closed] = await closing(rig, call)
      expect(await b.load(3)).toBe(4)
      await b.call(b.map, 'remap', { at: 5, page: 2 })
      const map = await b.call<number>(b.space, 'map', { thing: b.file })
      expect(await b.call(map, 'getUint32', 9 * PAGE)).toBe(10)
      await b.call(map, 'unmap')
      expect(rig.memory.check()).toEqual([])
      rig.release(call)
      await closed
      expect(stored(rig)).toBe(77)
    }
  )

  test('an open of the same file waits, and has what was stored', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    const [closed] = await closing(rig)
    const [open] = await rig.waiting(b, () => b.do<number>('openOther'))
    rig.release('write')
    await closed
    expect(await loadOther(b, await open)).toBe(77)
  })

  test('an error of it is told by the one that let go', async () => {
    const rig = await threads({ workers: 2 })
    const b = rig.workers[1]
    rig.fail('write', EIO)
    const [closed] = await closing(rig)
    const [open] = await rig.waiting(b, () => b.do<number>('openOther'))
    rig.release('write')
    expect(await errorOf(closed)).toMatchObject({ code: 'EIO' })
    rig.fail('write', 0)
    expect(await loadOther(b, await open)).toBe(0)
  })

  test.each(['write', 'close'] as const)('its thread ends in %s: whoever opens it has what was stored', async call => {
    const rig = await threads({ workers: 3, isWatched: false, patienceMs: 60_000 })
    const [a, b] = rig.workers
    await closing(rig, call)
    const [open] = await rig.waiting(b, () => b.do<number>('openOther'))
    // Whoever waits is told by the operating system, where it can be asked.
    if (process.platform !== 'linux') rig.memory.watch(a.worker)
    await a.terminate()
    rig.release(call)
    expect(await loadOther(b, await open)).toBe(77)
    expect(stored(rig)).toBe(77)
    expect(rig.memory.check()).toEqual([])
  })
})

test('threads that open, store to and let go of one file without pause: each finds what it stored', async () => {
  const rig = await threads({ workers: 3, frames: 64 })
  const loops = rig.workers.map((w, i) =>
    w.do<{ count: number; bad: number; example?: string }>('loop', 'openAndClose', w.memory, i)
  )
  await rig.word(ROUNDS, rounds => rounds > 256)
  rig.setWord(STOP, 1)
  const seen = await Promise.all(loops)
  const bytes = new Uint8Array(4)
  seen.forEach(({ count, bad, example }, i) => {
    expect([bad, example]).toEqual([0, undefined])
    for (const page of [2, 8 + i]) {
      rig.other.read(page * PAGE + 8 * i, bytes, 0, 4)
      expect(new DataView(bytes.buffer).getUint32(0, true)).toBe(count)
    }
  })
})
