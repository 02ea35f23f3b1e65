/**
 * This thread waits: for pages and locks that workers have, until another worker sees it asleep and lets them go on.
 * `orders.test.ts` has workers wait for each other; here every way to wait is gone once, in the thread that the test
 * can look into.
 */
import { describe, expect, test } from 'vitest'
import { EBADF, ESRCH } from '../../src/abi/errno.ts'
import { MADV_POPULATE_READ, MADV_POPULATE_WRITE, MAP_SHARED } from '../../src/abi/mman.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { sys_read_user } from '../../src/syscall/file.ts'
import { sys_madvise, sys_mincore, sys_mmap } from '../../src/syscall/memory.ts'
import { sys_mem_read } from '../../src/syscall/proc-mem.ts'
import { type Call, PAGE, type ThreadRig, type ThreadWorker, useThreads } from './support.ts'

const threads = useThreads()
/** This thread's row in the thread table. */
const ME = 0

function word(bytes: Uint8Array, at = 0): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true)
}

function errorFrom(act: () => unknown): Error & { code?: string; errno?: number } {
  try {
    act()
  } catch (error) {
    return error as Error
  }
  throw new Error('it succeeded')
}

/** Does something that must sleep: `opener` opens the gate once this thread has, after `calls`. */
async function asleep<T>(
  opener: ThreadWorker,
  call: Call,
  act: () => T,
  ...calls: [number, string, ...unknown[]][]
): Promise<T> {
  const opened = opener.do<boolean>('openWhenWaiting', call, ME, ...calls)
  const result = act()
  expect(await opened, 'this thread slept').toBe(true)
  return result
}

/**
 * A rig whose first worker is reading page 4, held in the store; and a private mapping of the file, for this thread.
 */
async function reading(workers = 2): Promise<{ rig: ThreadRig; load: Promise<number>; own: Mapping }> {
  const rig = await threads({ workers })
  const own = rig.space.map(rig.file, { writable: true, private: true })
  rig.hold('read', 4)
  const load = rig.workers[0].load(4)
  await rig.held('read')
  return { rig, load, own }
}

describe('for a page that another thread reads', () => {
  const uses: [string, (rig: ThreadRig, own: Mapping) => unknown, unknown][] = [
    ['a load', rig => rig.map.getUint32(4 * PAGE), 5],
    ['a store', rig => rig.map.setUint32(4 * PAGE, 44), undefined],
    [
      'a bulk copy',
      rig => {
        const bytes = new Uint8Array(3 * PAGE)
        rig.map.read(bytes, 3 * PAGE)
        return [word(bytes), word(bytes, PAGE), word(bytes, 2 * PAGE)]
      },
      [4, 5, 6]
    ],
    [
      'a read of the file',
      rig => {
        const bytes = new Uint8Array(PAGE)
        return [rig.file.read(bytes, 4 * PAGE), word(bytes)]
      },
      [PAGE, 5]
    ],
    ['a write of the whole page', rig => rig.file.write(new Uint8Array(PAGE).fill(1), 4 * PAGE), PAGE],
    ['populate', rig => rig.map.populateSync({ offset: 3 * PAGE, length: 3 * PAGE }), 3],
    ['a lock', rig => rig.map.lock({ offset: 4 * PAGE, length: PAGE }), undefined],
    [
      'a read of /proc/PID/mem',
      rig => {
        const bytes = new Uint8Array(4)
        return [sys_mem_read(rig.space.mm, rig.map.address + 4 * PAGE, bytes), word(bytes)]
      },
      [4, 5]
    ],
    [
      'a read of the file into a mapping',
      (rig, own) => {
        return [sys_read_user(rig.space.mm, own.address, PAGE, rig.file.fd, 4 * PAGE), own.getUint32(0)]
      },
      [PAGE, 5]
    ],
    [
      'madvise that populates',
      rig => sys_madvise(rig.space.mm, rig.map.address + 3 * PAGE, 3 * PAGE, MADV_POPULATE_READ),
      0
    ],
    ['a cut of the file', rig => rig.file.truncate(4 * PAGE), undefined],
    ['a cut in the middle of the page', rig => rig.file.truncate(4 * PAGE + 100), undefined],
    ['a hole', rig => rig.file.punch(4 * PAGE, PAGE), undefined],
    ['a hole within the page', rig => rig.file.punch(4 * PAGE + 8, 8), undefined]
  ]

  test.each(uses)('%s', async (_, use, result) => {
    const { rig, own } = await reading()
    expect(await asleep(rig.workers[1], 'read', () => use(rig, own))).toEqual(result)
    expect(rig.memory.check()).toEqual([])
    expect(rig.map.getUint32(3 * PAGE)).toBe(4)
    rig.map.unlock()
  })

  test('a copy of the page for a private mapping', async () => {
    const { rig, own } = await reading()
    await asleep(rig.workers[1], 'read', () => own.setUint32(4 * PAGE + 8, 9))
    expect([own.getUint32(4 * PAGE), own.getUint32(4 * PAGE + 8)]).toEqual([5, 9])
    expect(rig.map.getUint32(4 * PAGE + 8)).toBe(0)
  })

  test('that cannot be read: this thread reads it itself, and hears the error', async () => {
    const { rig, load } = await reading()
    rig.fail('read', 5)
    const error = await asleep(rig.workers[1], 'read', () => errorFrom(() => rig.map.getUint32(4 * PAGE)))
    expect(error).toMatchObject({ code: 'SIGBUS', errno: -5 })
    await expect(load).rejects.toMatchObject({ code: 'SIGBUS', errno: -5 })
    rig.fail('read', 0)
    expect(rig.map.getUint32(4 * PAGE)).toBe(5)
  })
})

describe('for a page that another thread writes', () => {
  test('a sync, a cut of the file and a hole', async () => {
    for (const act of [
      (rig: ThreadRig) => rig.map.sync(),
      (rig: ThreadRig) => rig.file.truncate(4 * PAGE),
      (rig: ThreadRig) => rig.file.punch(4 * PAGE, PAGE)
    ]) {
      const rig = await threads({ workers: 2 })
      const [a, b] = rig.workers
      await a.store(4, 400)
      rig.hold('write')
      const sync = a.call(a.map, 'sync')
      await rig.held('write')
      await asleep(b, 'write', () => act(rig))
      await sync
      expect(rig.file.dirtyPages).toBe(0)
      expect(rig.memory.check()).toEqual([])
    }
  })
})

describe('for the mmap lock', () => {
  test('a change of mappings, while another thread faults', async () => {
    const { rig, load } = await reading()
    await asleep(rig.workers[1], 'read', () => rig.map.remap({ at: 2, page: 30 }))
    expect(rig.map.getUint32(2 * PAGE)).toBe(31)
    expect(await load).toBe(5)
  })

  test('a load, while another thread changes mappings', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    rig.hold('read')
    const advice = a.call(a.map, 'advise', 'willneed')
    await rig.held('read')
    expect(await asleep(b, 'read', () => rig.map.getUint32(50 * PAGE))).toBe(51)
    await advice
  })

  test('a load, while another thread waits to change mappings', async () => {
    const { rig } = await reading(3)
    const [, b, c] = rig.workers
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 2, page: 30 }))
    expect(await asleep(c, 'read', () => rig.map.getUint32(2 * PAGE))).toBe(31)
    await remap
  })

  test('of a space that has ended meanwhile: a load is SIGSEGV, a call is ESRCH', async () => {
    // Both are readers of the lock, and the writer that waits, to end the space, comes before them. Of two writers
    // either may be first.
    const reads: [(rig: ThreadRig) => unknown, unknown][] = [
      [rig => errorFrom(() => rig.map.getUint32(0)).code, 'SIGSEGV'],
      [rig => sys_mincore(rig.space.mm, rig.map.address, PAGE, new Uint8Array(1)), -ESRCH]
    ]
    for (const [read, result] of reads) {
      const { rig, load } = await reading(3)
      const [, b, c] = rig.workers
      const [end] = await rig.waiting(b, () => b.call(b.space, 'close'))
      expect(await asleep(c, 'read', () => read(rig))).toBe(result)
      await end
      await load.catch(() => {})
      expect(rig.memory.check()).toEqual([])
    }
  })

  test('to map a file whose descriptor is closed, and is another file’s, meanwhile: EBADF', async () => {
    const { rig, load } = await reading()
    const [, b] = rig.workers
    const { fd } = rig.file
    const at = await asleep(
      b,
      'read',
      () => sys_mmap(rig.space.mm, 0, PAGE, 1, MAP_SHARED, fd, 0),
      [b.file, 'close'],
      [b.memory, 'shared', PAGE, 'another']
    )
    expect(at).toBe(-EBADF)
    expect(await load).toBe(5)
    expect(rig.space.maps()).not.toMatch(/another/)
  })
})

describe('for the inode lock', () => {
  /** A second worker cuts or punches the file, and waits for the page that the first one reads. */
  async function cutting(
    method: 'truncate' | 'punch',
    ...args: number[]
  ): Promise<{ rig: ThreadRig; cut: Promise<unknown> }> {
    const { rig } = await reading(3)
    const [, b] = rig.workers
    const [cut] = await rig.waiting(b, () => b.call(b.file, method, ...args))
    return { rig, cut }
  }

  test('a read of the file ends where it was cut meanwhile', async () => {
    const { rig, cut } = await cutting('truncate', 2 * PAGE)
    const bytes = new Uint8Array(2 * PAGE).fill(9)
    expect(await asleep(rig.workers[2], 'read', () => rig.file.read(bytes, 7 * PAGE))).toBe(0)
    expect(bytes.every(byte => byte === 9)).toBe(true)
    await cut
  })

  test('a load beyond what was cut meanwhile is SIGBUS', async () => {
    const { rig, cut } = await cutting('truncate', 2 * PAGE)
    const error = await asleep(rig.workers[2], 'read', () => errorFrom(() => rig.map.getUint32(7 * PAGE)))
    expect(error).toMatchObject({ code: 'SIGBUS' })
    expect(error.message).toMatch(/beyond the end of the file/)
    await cut
  })

  test('a load within what was punched meanwhile is zero; beside it nobody waits', async () => {
    const { rig, cut } = await cutting('punch', 4 * PAGE, 8 * PAGE)
    expect(rig.map.getUint32(20 * PAGE)).toBe(21)
    expect(await asleep(rig.workers[2], 'read', () => rig.map.getUint32(7 * PAGE))).toBe(0)
    await cut
  })

  test('a write into a page, of a file that was cut meanwhile, makes it longer again, with zeros between', async () => {
    const { rig, cut } = await cutting('truncate', 2 * PAGE)
    const from = 7 * PAGE + 100
    expect(await asleep(rig.workers[2], 'read', () => rig.file.write(new Uint8Array(50).fill(3), from))).toBe(50)
    await cut
    expect(rig.file.size).toBe(from + 50)
    const bytes = new Uint8Array(from + 50)
    expect(rig.file.read(bytes, 0)).toBe(from + 50)
    expect(word(bytes, PAGE)).toBe(2)
    expect(bytes.subarray(2 * PAGE, from).every(byte => byte === 0)).toBe(true)
    expect(bytes.subarray(from).every(byte => byte === 3)).toBe(true)
    expect(rig.memory.check()).toEqual([])
  })

  test('a write of whole pages, which needs none of those that are cut, comes after the cut all the same', async () => {
    const { rig, cut } = await cutting('truncate', 2 * PAGE)
    const write = (): number => rig.file.write(new Uint8Array(2 * PAGE).fill(3), 7 * PAGE)
    expect(await asleep(rig.workers[2], 'read', write)).toBe(2 * PAGE)
    await cut
    expect(rig.file.size).toBe(9 * PAGE)
    expect([rig.map.getUint32(6 * PAGE), rig.map.getUint32(7 * PAGE)]).toEqual([0, 0x03030303])
  })

  test('populate, and madvise that populates, end at what was cut meanwhile', async () => {
    const first = await cutting('truncate', 2 * PAGE)
    expect(await asleep(first.rig.workers[2], 'read', () => first.rig.map.populateSync())).toBe(2)
    await first.cut
    const { rig, cut } = await cutting('truncate', 2 * PAGE)
    const advice = (): number => sys_madvise(rig.space.mm, rig.map.address + 8 * PAGE, PAGE, MADV_POPULATE_WRITE)
    expect(await asleep(rig.workers[2], 'read', advice)).toBeLessThan(0)
    await cut
  })

  test('read ahead that is under way ends when the file is to be cut', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    rig.hold('read')
    const cut = a.do('callWhenHeld', 'read', a.file, 'truncate', 2 * PAGE)
    const opened = b.do('openWhenWaiting', 'read', a.row)
    rig.map.advise('willneed')
    expect(await opened).toBe(true)
    await cut
    expect(rig.calls('read')).toBe(1)
    expect(rig.map.getUint32(PAGE)).toBe(2)
    expect(errorFrom(() => rig.map.getUint32(9 * PAGE))).toMatchObject({ code: 'SIGBUS' })
  })

  test('another cut, a sync, and the close of the memory', async () => {
    for (const act of [(rig: ThreadRig) => rig.file.truncate(50 * PAGE), (rig: ThreadRig) => rig.file.sync()]) {
      const { rig, cut } = await cutting('punch', 4 * PAGE, PAGE)
      await asleep(rig.workers[2], 'read', () => act(rig))
      await cut
      expect(rig.memory.check()).toEqual([])
    }
  })
})
