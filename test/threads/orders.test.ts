/**
 * Orders that matter, forced: a call of the store is held while another thread does the thing that must wait for it, or
 * must not. Each test says why its outcome is the right one.
 */
import { describe, expect, test } from 'vitest'
import { ROUNDS, STOP } from './loops.mjs'
import { errorOf, PAGE, type ThreadRig, until, useThreads } from './support.ts'

const threads = useThreads()

function pages(rig: ThreadRig): number {
  return rig.memory.stats().counters.pgfault
}

describe('a fault, while the store reads its page', () => {
  test('and another fault on the page: it is read once, and both have it', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const first = a.load(4)
    await rig.held('read')
    const [second] = await rig.waiting(b, () => b.load(4, 0))
    rig.release('read')
    expect([await first, await second]).toEqual([5, 5])
    expect(rig.calls('read')).toBe(1)
  })

  test('and one on another page: neither waits for the other', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 4)
    const first = a.load(4)
    await rig.held('read')
    // The machine lock is given back while the store works.
    expect(await b.load(5)).toBe(6)
    rig.release('read')
    expect(await first).toBe(5)
  })

  test('that fails: whoever waited reads the page himself', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    rig.fail('read', 5)
    const first = a.load(4)
    await rig.held('read')
    const [second] = await rig.waiting(b, () => b.load(4))
    rig.release('read')
    expect(await errorOf(first)).toMatchObject({ code: 'SIGBUS', errno: -5 })
    expect(await errorOf(second)).toMatchObject({ code: 'SIGBUS', errno: -5 })
    expect(rig.calls('read')).toBe(2)
    rig.fail('read', 0)
    expect(await b.load(4)).toBe(5)
  })

  test('and truncation below it: truncation waits for the read, the load has the old bytes, the next one SIGBUS', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const load = a.load(9)
    await rig.held('read')
    // The fault began before the truncation did, and maps its page before it lets go of the locks.
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 5 * PAGE))
    rig.release('read')
    expect(await load).toBe(10)
    await cut
    expect(await errorOf(a.load(9))).toMatchObject({ code: 'SIGBUS' })
    expect(await a.load(4)).toBe(5)
  })

  test('and a new fault while truncation waits for it: that one waits too, and is SIGBUS', async () => {
    const rig = await threads({ workers: 3 })
    const [a, b, c] = rig.workers
    rig.hold('read')
    const load = a.load(9)
    await rig.held('read')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 5 * PAGE))
    // No more pages are sent for, else truncation might wait for ever.
    const [late] = await rig.waiting(c, () => c.load(10))
    expect(rig.calls('read')).toBe(1)
    rig.release('read')
    expect(await load).toBe(10)
    await cut
    expect(await errorOf(late)).toMatchObject({ code: 'SIGBUS' })
    expect(rig.calls('read')).toBe(1)
  })

  test('and truncation in the middle of another page: it does not wait', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 4)
    const load = a.load(4)
    await rig.held('read')
    await b.call(b.file, 'truncate', 20 * PAGE + 8)
    expect(await b.call(b.map, 'getUint32', 20 * PAGE + 4)).toBe(0)
    rig.release('read')
    expect(await load).toBe(5)
  })

  test('and a punch over it: the punch waits, and the page is zero afterwards', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const load = a.load(9)
    await rig.held('read')
    const [punch] = await rig.waiting(b, () => b.call(b.file, 'punch', 8 * PAGE, 4 * PAGE))
    rig.release('read')
    expect(await load).toBe(10)
    await punch
    expect(await a.load(9)).toBe(0)
    expect(await a.load(7)).toBe(8)
  })

  test('and a remap of its window page: the remap waits for the fault, then the window shows the new page', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 4)
    const load = a.load(4)
    await rig.held('read')
    // The fault holds the mmap lock for reading, a remap needs it for writing.
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 4, page: 30 }))
    rig.release('read')
    expect(await load).toBe(5)
    await remap
    expect(await a.load(4)).toBe(31)
  })

  test('and a load while a remap waits for it: the load comes after the remap and shows the new page', async () => {
    const rig = await threads({ workers: 3 })
    const [a, b, c] = rig.workers
    rig.hold('read', 4)
    const load = a.load(4)
    await rig.held('read')
    const [remap] = await rig.waiting(b, () => b.call(b.map, 'remap', { at: 5, page: 30 }))
    // New readers of the mmap lock let waiting writers go first.
    const [late] = await rig.waiting(c, () => c.load(5))
    rig.release('read')
    expect(await load).toBe(5)
    await remap
    expect(await late).toBe(31)
  })

  test('and munmap of its page: munmap waits for the read', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const load = a.load(4)
    await rig.held('read')
    const [unmap] = await rig.waiting(b, () => b.call(b.map, 'unmap'))
    rig.release('read')
    expect(await load).toBe(5)
    await unmap
    expect(await errorOf(a.load(4))).toMatchObject({ code: 'SIGSEGV' })
  })

  test('and the end of the address space: it waits, and later loads are refused', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const load = a.load(4)
    await rig.held('read')
    const [exit] = await rig.waiting(b, () => b.call(b.space, 'close'))
    rig.release('read')
    expect(await load).toBe(5)
    await exit
    expect(await errorOf(a.load(4))).toMatchObject({ code: 'ESRCH' })
  })

  test('and fork: the child has the page, read once', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read')
    const load = a.load(4)
    await rig.held('read')
    const [fork] = await rig.waiting(b, () => b.call<number>(b.space, 'fork'))
    rig.release('read')
    expect(await load).toBe(5)
    const child = await fork
    const view = await b.call<number>(child, 'view', { thing: b.map })
    expect(await b.call(view, 'getUint32', 4 * PAGE)).toBe(5)
    expect(rig.calls('read')).toBe(1)
    await b.call(child, 'close')
  })

  test('and reclaim of everything: the page that is being read stays', async () => {
    const rig = await threads({ workers: 2, frames: 16 })
    const [a, b] = rig.workers
    rig.hold('read', 4)
    const load = a.load(4)
    await rig.held('read')
    for (let page = 20; page < 60; page++) expect(await b.load(page)).toBe(page + 1)
    await b.call(b.memory, 'shrink')
    rig.release('read')
    expect(await load).toBe(5)
    expect(await a.load(4)).toBe(5)
  })

  test('and a close of the descriptor: mappings go on, reads of the file that had begun are whole', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 5)
    const read = a.do<Uint8Array>('bytes', a.file, 'read', 3 * PAGE, 4 * PAGE)
    await rig.held('read')
    await b.call(b.file, 'close')
    expect(await errorOf(b.call(b.file, 'read', new Uint8Array(4), 0))).toMatchObject({ code: 'EBADF' })
    rig.release('read')
    const bytes = await read
    expect([0, 1, 2].map(i => bytes[i * PAGE])).toEqual([5, 6, 7])
    expect(await errorOf(a.do('bytes', a.file, 'read', 4, 0))).toMatchObject({ code: 'EBADF' })
    expect(await b.load(8)).toBe(9)
  })

  test('and the close of the memory: it waits, then nothing is left', async () => {
    const rig = await threads({ workers: 2 })
    const [a] = rig.workers
    rig.hold('read')
    const load = a.load(4)
    await rig.held('read')
    rig.release('read')
    rig.memory.close()
    // Either it came first, or it is told.
    const result = await load.catch((error: { code: string }) => error.code)
    expect([5, 'ESRCH', 'SIGSEGV']).toContain(result)
    expect(await errorOf(a.load(4))).toMatchObject({ code: 'ESRCH' })
    expect(await errorOf(a.call(a.memory, 'space'))).toMatchObject({ code: 'ENODEV' })
    expect(await errorOf(a.call(a.memory, 'shared', 4096))).toMatchObject({ code: 'ENODEV' })
    expect(await errorOf(a.do('bytes', a.file, 'read', 4, 0))).toMatchObject({ code: 'EBADF' })
  })

  test('and the close of a file that is about to be mapped: EBADF, and nothing else is mapped', async () => {
    const rig = await threads({ workers: 3 })
    const [a, b, c] = rig.workers
    const shared = rig.memory.shared(4 * PAGE)
    const [here, there] = [await b.do<number>('adopt', shared.handle), await c.do<number>('adopt', shared.handle)]
    rig.hold('read')
    const load = a.load(4)
    await rig.held('read')
    const [map] = await rig.waiting(b, () => b.call(b.space, 'map', { thing: here }, { writable: true }))
    await c.call(there, 'close')
    rig.release('read')
    expect(await load).toBe(5)
    expect(await errorOf(map)).toMatchObject({ code: 'EBADF' })
  })

  test('read ahead that fails: the page alone is tried again, and a death then gives back that one only', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    await a.call(a.map, 'advise', 'sequential')
    rig.hold('read', 0)
    rig.fail('read', 5)
    const load = a.load(0)
    await rig.held('read')
    rig.letOnePass('read')
    await until(() => rig.calls('read') === 2, 'the second try')
    await rig.held('read')
    // Pages 1 to 7 were given up by the first try. They are somebody else's now, who must not lose them.
    rig.fail('read', 0)
    const others = rig.calls('read')
    expect(await b.load(3)).toBe(4)
    expect(rig.calls('read')).toBeGreaterThan(others)
    await a.terminate()
    expect(await errorOf(load)).toBeDefined()
    rig.release('read')
    expect(await b.load(0)).toBe(1)
    expect(pages(rig)).toBeGreaterThan(0)
  })
})

describe('a sync, while the store writes or flushes', () => {
  test('and a store to the page that is written: the page is dirty again, and the next sync writes it', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('write')
    const sync = a.call(a.map, 'sync')
    await rig.held('write')
    // The entry was write-protected before the write began: this store faults, and makes the page dirty.
    await b.store(4, 200)
    expect(rig.file.dirtyPages).toBe(1)
    rig.release('write')
    await sync
    expect(rig.file.dirtyPages).toBe(1)
    await b.call(b.map, 'sync')
    expect(rig.storedWord(4)).toBe(200)
    expect(rig.file.dirtyPages).toBe(0)
  })

  test('and a bulk write to the page, and one by the file: neither is lost', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('write')
    const sync = a.call(a.file, 'sync')
    await rig.held('write')
    await b.call(b.map, 'write', Uint8Array.of(1, 2, 3, 4), 4 * PAGE + 16)
    await b.call(b.file, 'write', Uint8Array.of(5, 6, 7, 8), 4 * PAGE + 32)
    rig.release('write')
    await sync
    await b.call(b.file, 'sync')
    expect(rig.storedWord(4, 16)).toBe(0x04030201)
    expect(rig.storedWord(4, 32)).toBe(0x08070605)
  })

  test('and a write that fails: the page stays dirty, each open file is told once', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('write')
    rig.fail('write', 28)
    const sync = a.call(a.file, 'sync')
    await rig.held('write')
    rig.release('write')
    expect(await errorOf(sync)).toMatchObject({ code: 'ENOSPC' })
    expect(rig.file.dirtyPages).toBe(1)
    rig.fail('write', 0)
    await b.call(b.file, 'sync')
    expect(rig.storedWord(4)).toBe(100)
  })

  test('and eviction of the page that is written: it stays until the write is done', async () => {
    const rig = await threads({ workers: 2, frames: 16 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('write', 4)
    const sync = a.call(a.map, 'sync')
    await rig.held('write')
    for (let page = 20; page < 60; page++) expect(await b.load(page)).toBe(page + 1)
    expect(await b.load(4)).toBe(100)
    rig.release('write')
    await sync
    expect(rig.storedWord(4)).toBe(100)
  })

  test('and another sync of the file: it waits for the first one, and both have the flush after their writes', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('flush')
    const first = a.call(a.file, 'sync')
    await rig.held('flush')
    await b.store(5, 200)
    const [second] = await rig.waiting(b, () => b.call(b.file, 'sync'))
    // It must not return before a flush that began after its own write.
    expect(rig.storedWord(5)).toBe(6)
    rig.release('flush')
    await Promise.all([first, second])
    expect(rig.storedWord(5)).toBe(200)
    expect(rig.calls('flush')).toBe(2)
  })

  test('and truncation: it waits until the pages are written', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(9, 100)
    rig.hold('write')
    const sync = a.call(a.map, 'sync')
    await rig.held('write')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 5 * PAGE))
    expect(rig.stored.size()).toBe(64 * PAGE)
    rig.release('write')
    await sync
    await cut
    // Written after the cut, the page would have made the file long again.
    expect(rig.stored.size()).toBe(5 * PAGE)
    expect(await errorOf(a.load(9))).toMatchObject({ code: 'SIGBUS' })
  })

  test('and truncation while it flushes: it waits as well', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(9, 100)
    rig.hold('flush')
    const sync = a.call(a.map, 'sync')
    await rig.held('flush')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 5 * PAGE))
    rig.release('flush')
    await Promise.all([sync, cut])
    expect(rig.stored.size()).toBe(5 * PAGE)
  })

  test('and remap, munmap, mprotect of the same window: none waits for the disk', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('flush')
    const sync = a.call(a.map, 'sync')
    await rig.held('flush')
    // msync lets go of the mmap lock while it syncs: the file is held, not the mapping.
    await b.call(b.map, 'remap', { at: 4, page: 30 })
    expect(await b.load(4)).toBe(31)
    await b.call(b.map, 'protect', 'read')
    await b.call(b.map, 'unmap')
    rig.release('flush')
    await sync
    expect(rig.storedWord(4)).toBe(100)
  })

  test('and the last close of the file: what was dirty is written all the same', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    await a.store(4, 100)
    rig.hold('flush')
    const sync = a.call(a.file, 'sync')
    await rig.held('flush')
    await b.store(5, 200)
    await b.call(b.map, 'unmap')
    await b.call(b.file, 'close')
    rig.release('flush')
    await sync
    // The sync held the file: its end was the last close.
    expect(rig.storedWord(4)).toBe(100)
    expect(rig.storedWord(5)).toBe(200)
  })
})

test('the close of the memory waits for a sync that has begun, and what was stored meanwhile is written', async () => {
  const rig = await threads({ workers: 2 })
  const [a, b] = rig.workers
  await a.store(4, 400)
  rig.hold('flush')
  const sync = a.call(a.file, 'sync')
  await rig.held('flush')
  await b.store(5, 500)
  const opened = b.do('openWhenWaiting', 'flush', 0)
  rig.memory.close()
  expect(await opened).toBe(true)
  await sync
  expect([rig.storedWord(4), rig.storedWord(5)]).toEqual([400, 500])
})

describe('truncation and punching', () => {
  test('read ahead that is asked for while truncation reads its last page brings no page past the new end', async () => {
    const rig = await threads({ workers: 2, readahead: 8 * PAGE })
    const [a, b] = rig.workers
    // Truncation reads page 5, in the middle of which the file is to end.
    rig.hold('read')
    const cut = a.call(a.file, 'truncate', 5 * PAGE + 100)
    await rig.held('read')
    // From here on reads of page 12 are held, and this one goes on once that has come, or will not come.
    const advice = b.call(b.map, 'advise', 'willneed', { offset: 12 * PAGE, length: 4 * PAGE })
    await Promise.race([advice, until(() => rig.calls('read') > 1 || rig.waits(b) > 0, 'read ahead')])
    rig.hold('read', 12)
    await cut
    rig.release('read')
    await advice
    expect(rig.memory.check()).toEqual([])
    expect(await errorOf(b.load(12))).toMatchObject({ code: 'SIGBUS' })
  })

  test('a file that shrinks under a read of it: the read ends at the new end, and no page past it is kept', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 0)
    const read = a.do<number>('call', a.file, 'read', new Uint8Array(64 * PAGE), 0)
    await rig.held('read')
    await b.call(b.file, 'truncate', 2 * PAGE)
    rig.release('read')
    expect(await read).toBe(2 * PAGE)
    expect(rig.memory.check()).toEqual([])
  })

  test('a file that shrinks under a write to it: what is written lies where it belongs, zeros before it', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    rig.hold('read', 8)
    // Parts of pages 8 and 9, which must be read first.
    const write = a.call<number>(a.file, 'write', new Uint8Array(PAGE).fill(7), 8 * PAGE + 100)
    await rig.held('read')
    const [cut] = await rig.waiting(b, () => b.call(b.file, 'truncate', 8 * PAGE))
    rig.release('read')
    expect(await write).toBe(PAGE)
    await cut
    expect(rig.memory.check()).toEqual([])
    const size = rig.file.size
    // As one after the other: the write before the cut, or after it, or (as it is not atomic) the cut between its two
    // pages.
    expect([8 * PAGE, 9 * PAGE + 100]).toContain(size)
    if (size > 8 * PAGE) expect(await b.call(b.map, 'getUint8', 9 * PAGE)).toBe(7)
  })

  test('a punch ends while two threads never stop faulting in its range', async () => {
    // In Linux 3.16, shmem's punch chased such faults for good. Here they wait for whoever is about to cut.
    const rig = await threads({ workers: 3, frames: 128 })
    const shared = rig.space.map(rig.memory.shared(32 * PAGE, 'shmem'), { writable: true })
    const [a, b, c] = rig.workers
    for (const [handle, file] of [
      [rig.map.handle, c.file],
      [shared.handle, -1]
    ] as const) {
      const loops = [a, b].map(async (w, me) =>
        w.do('loop', 'touching', await w.do<number>('adopt', handle), me, 0, 32)
      )
      for (let me = 0; me < 2; me++) await rig.word(ROUNDS + me, rounds => rounds > 0)
      const target = file >= 0 ? file : await c.do<number>('adopt', shared.file?.handle)
      for (let i = 0; i < 100; i++) await c.call(target, 'punch', 0, 32 * PAGE)
      rig.setWord(STOP, 1)
      await Promise.all(loops)
      rig.setWord(STOP, 0)
      rig.words.fill(0, ROUNDS)
    }
    expect(await a.load(3)).toBe(0)
    expect(await a.load(33)).toBe(34)
  })
})

describe('populating', () => {
  test('a remap in the middle of populating a locked area waits for one step at most', async () => {
    const rig = await threads({ workers: 2, frames: 512, pages: 256 })
    const [a, b] = rig.workers
    rig.hold('read', 100)
    const lock = a.call(a.map, 'lock')
    await rig.held('read')
    // The fault on page 100 holds the lock; populate asks for it anew every 16 pages, and a writer that waits goes
    // first.
    const remap = { at: 200, page: 0 }
    const [remapped] = await rig.waiting(b, () => b.call(b.map, 'remap', remap))
    rig.release('read')
    await remapped
    const events = rig.memory.trace()
    const isRead = (event: string) => event.includes(' read ')
    const last = events.findIndex(event => event.includes(' remap '))
    const reads = events.slice(0, last).filter(isRead).length
    // Pages 0 to 99 were read when the remap came; 100 was on its way.
    expect(reads).toBeGreaterThan(100)
    expect(reads).toBeLessThanOrEqual(100 + 16)
    await lock
    expect(await b.load(200)).toBe(1)
  })

  test('munmap in the middle of it: the rest is left alone', async () => {
    const rig = await threads({ workers: 2, frames: 512, pages: 256 })
    const [a, b] = rig.workers
    rig.hold('read', 100)
    const populate = a.call<number>(a.map, 'populateSync')
    await rig.held('read')
    const [unmap] = await rig.waiting(b, () => b.call(b.map, 'unmap'))
    rig.release('read')
    await unmap
    expect(await populate).toBeLessThanOrEqual(100 + 16)
    expect(rig.calls('read')).toBeLessThanOrEqual(100 + 16)
  })

  test('what is mapped in the place of a range while it is populated is not populated', async () => {
    const rig = await threads({ workers: 2, frames: 512, pages: 256 })
    const [a, b] = rig.workers
    rig.hold('read', 100)
    const populate = a.call<number>(a.map, 'populateSync')
    await rig.held('read')
    const address = rig.map.address
    const [unmap] = await rig.waiting(b, () => b.call(b.map, 'unmap'))
    const again = b.call<number>(b.space, 'map', { thing: b.file }, { address, length: 256 * PAGE })
    rig.release('read')
    await unmap
    const map = await again
    await populate
    const resident = await b.call<Uint8Array>(map, 'residency')
    expect(resident[255]).toBe(0)
  })
})

describe('borrowed pages', () => {
  test('a page borrowed for writing while it is synced is dirty again when it is given back', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    const page = await a.call<number>(a.map, 'borrow', 4, 'write')
    await a.do('poke', page, 8, 1)
    await b.call(b.map, 'sync')
    expect(rig.storedWord(4, 8)).toBe(1)
    await a.do('poke', page, 8, 2)
    await a.call(page, 'release')
    await b.call(b.map, 'sync')
    expect(rig.storedWord(4, 8)).toBe(2)
  })

  test('truncation takes a borrowed page from the file, and its frame stays until it is given back', async () => {
    const rig = await threads({ workers: 2, frames: 24 })
    const [a, b] = rig.workers
    const page = await a.call<number>(a.map, 'borrow', 9)
    await b.call(b.file, 'truncate', 5 * PAGE)
    await b.call(b.file, 'truncate', 64 * PAGE)
    for (let i = 20; i < 60; i++) await b.load(i)
    expect(await a.do('peek', page, 0)).toBe(10)
    expect(await b.load(9)).toBe(0)
    await a.call(page, 'release')
  })
})
