/** Guests in threads that attached: faults served where they happen, while other threads take the pages away. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { EOPNOTSUPP, SHADOW_READ, ShadowTable, sys_mmu_notifier_register } from '../../src/index.ts'
import { T_OS_THREAD } from '../../src/sync/threads.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { BUDGET, DROPPED, PAGE, STOP, sample, sumOf, type Thread, useWorlds } from '../support/shared-guest.ts'
import { rounds } from '../support/suite.ts'

const world = useWorlds()

const seed = Date.now() % 1_000_000
const TIMES = rounds(8, 100)
test(`a file ${TIMES} times the budget, two guests, a third thread that takes pages away; seed ${seed}`, async () => {
  const rng = new Prng(seed)
  const pages = (TIMES * BUDGET) / PAGE
  const lanePages = Math.floor(pages * 0.45)
  const laneBytes = lanePages * PAGE
  const tail = [pages - 64, 64]
  const own = [2 * lanePages, tail[0] - 2 * lanePages]
  const model = sample(pages)
  model.fill(0, tail[0] * PAGE)
  const w = world(model)
  // Each lane of the window shows its lane of the file in another order.
  const shown = Int32Array.from({ length: pages }, (_, i) => i)
  for (const first of [0, lanePages]) {
    for (let i = lanePages - 1; i > 0; i--) {
      const j = rng.below(i + 1)
      const kept = shown[first + i]
      shown[first + i] = shown[first + j]
      shown[first + j] = kept
    }
  }
  w.map.remapPages(0, shown.subarray(0, 2 * lanePages))
  const disturber = w.thread({ table: false })
  const guests = [w.thread(), w.thread()]
  const disturbed = disturber.do('disturb', { seed, shown: [...shown], own, tail, spare: 2 * lanePages - 1 })
  await w.ready(1)

  const work = async (guest: Thread, lane: number): Promise<void> => {
    const first = lane * laneBytes
    const bytes = model.subarray(first, first + laneBytes)
    for (let round = 0; round < rounds(2, 3); round++) {
      const value = rng.between(1, 255)
      await guest.call('rewrite', first, laneBytes, value)
      for (let i = 0; i < bytes.length; i++) bytes[i] ^= value
      expect(await guest.call('sum', first, laneBytes), `lane ${lane}, round ${round}`).toBe(sumOf(bytes))
    }
  }
  await Promise.all(guests.map(work))

  // Ended while it is in the guest, on a page that stays; the others go on.
  w.map.sync()
  w.map.lock({ length: PAGE })
  void guests[0].do('hot', { first: 0, length: PAGE }).catch(() => {})
  await w.ready(2)
  await guests[0].terminate()
  w.map.unlock({ length: PAGE })
  await Promise.all([work(w.thread(), 0), work(guests[1], 1)])
  while (w.table.nrWaits === 0) await work(guests[1], 1)

  Atomics.store(w.control, STOP, 1)
  const counts = (await disturbed) as Record<string, number>
  expect(Math.min(...Object.values(counts)), JSON.stringify(counts)).toBeGreaterThan(0)
  expect(w.memory.check()).toEqual([])
  expect(w.table.nrWaits).toBeGreaterThan(0)
  expect(w.memory.stats().counters.pgsteal).toBeGreaterThan(pages)
  w.file.sync()
  // A guest saw window pages in their order, the file has its own; sums do not tell them apart, so bytes must.
  const file = readFileSync(w.path)
  for (let at = 0; at < 2 * lanePages; at++) {
    const page = shown[at]
    const found = file.subarray(page * PAGE, (page + 1) * PAGE)
    if (Buffer.compare(found, model.subarray(page * PAGE, (page + 1) * PAGE)) !== 0) {
      expect.unreachable(`file page ${page}, window page ${at}, is not as it was written`)
    }
  }
})

test('a guest whose thread ends while another one waits for it: that one goes on', async () => {
  const w = world(sample(8))
  const [dying, other] = [w.thread(), w.thread()]
  void dying.do('die', { kick: w.place.table.byteOffset / 4, byItself: true }).catch(() => {})
  await w.ready(1)
  const ended = dying.ended()
  const remapped = other.do('remap', { at: 0, page: 3 })
  await Promise.all([ended, remapped])
  expect(await other.call('sum', 0, PAGE)).toBe(sumOf(sample(8).subarray(3 * PAGE, 4 * PAGE)))
  expect(w.table.nrWaits).toBe(1)
})

// Where the operating system tells whether a thread exists.
test.runIf(process.platform === 'linux')('the same with nobody who watches: it is seen all the same', async () => {
  const w = world(sample(8))
  const [dying, other] = [w.thread({ watched: false }), w.thread({ patienceMs: 60_000 })]
  void dying.do('die', { kick: w.place.table.byteOffset / 4 }).catch(() => {})
  await w.ready(1)
  const remapped = other.do('remap', { at: 0, page: 3 })
  await w.reached(DROPPED, 1)
  await dying.terminate()
  await remapped
  expect(await other.call('sum', 0, PAGE)).toBe(sumOf(sample(8).subarray(3 * PAGE, 4 * PAGE)))
})

test('the same with nobody to notice it: the memory is declared broken, and nobody hangs', async () => {
  const w = world(sample(8))
  const [dying, other] = [w.thread({ watched: false }), w.thread({ patienceMs: 100 })]
  void dying.do('die', { kick: w.place.table.byteOffset / 4 }).catch(() => {})
  await w.ready(1)
  // As where the system does not tell.
  const { threads } = w.memory.machine.sync
  for (let t = 0; t < threads.maxThreads; t++) threads.w[threads.at(t, T_OS_THREAD)] = 0
  const remapped = other.do('remap', { at: 0, page: 3 }).catch(() => {})
  await w.reached(DROPPED, 1)
  await dying.terminate()
  await remapped
  await expect(other.call('sum', PAGE, PAGE)).rejects.toMatchObject({ code: 'EOWNERDEAD' })
  expect(() => w.map.remap({ at: 0, page: 1 })).toThrow(/EOWNERDEAD/)
})

test('what another thread changed is what a guest sees from then on', async () => {
  const w = world(sample(8))
  const [guest, other] = [w.thread(), w.thread()]
  const part = (page: number): bigint => sumOf(sample(8).subarray(page * PAGE, (page + 1) * PAGE))
  expect(await guest.call('sum', 0, PAGE)).toBe(part(0))
  await other.do('remap', { at: 0, page: 5 })
  expect(await guest.call('sum', 0, PAGE)).toBe(part(5))
  w.map.remap({ at: 0, page: 6 })
  expect(await guest.call('sum', 0, PAGE)).toBe(part(6))
  await guest.call('rewrite', 0, PAGE, 0xff)
  expect(w.map.getUint8(0)).toBe(sample(8)[6 * PAGE] ^ 0xff)
  await other.do('truncate', { size: 2 * PAGE })
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGBUS' })
  w.map.unmap()
  expect(w.table.nrPresent).toBe(0)
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGSEGV' })
})

test('a thread that never heard of the table tells it all the same', async () => {
  const w = world(sample(8))
  w.table.close()
  const stranger = w.thread({ table: false })
  // It looks whom to tell: nobody.
  await stranger.do('remap', { at: 0, page: 4 })
  w.table = new ShadowTable(w.map, w.place.table)
  const guest = w.thread()
  const part = (page: number): bigint => sumOf(sample(8).subarray(page * PAGE, (page + 1) * PAGE))
  expect(await guest.call('sum', 0, PAGE)).toBe(part(4))
  await stranger.do('remap', { at: 0, page: 5 })
  expect(w.table.nrCleared).toBe(1)
  expect(await guest.call('sum', 0, PAGE)).toBe(part(5))
})

test('a window that grows and moves in one thread takes the guests of all with it', async () => {
  const w = world(sample(8))
  const guest = w.thread()
  w.map.space.map(null, { length: PAGE, address: w.map.address + 8 * PAGE })
  expect(await guest.call('sum', 0, 8 * PAGE)).toBe(sumOf(sample(8)))
  w.file.truncate(12 * PAGE)
  const { address } = w.map
  w.map.resize(12 * PAGE)
  expect(w.map.address).not.toBe(address)
  // The table hears of it with the next fault of the thread that moved the window.
  w.table.guest().run(() => w.table.fault(0, SHADOW_READ))
  expect(await guest.call('sum', 0, 12 * PAGE)).toBe(sumOf(sample(8)))
})

test('refuses what others could not know of', async () => {
  const w = world(sample(8))
  expect(sys_mmu_notifier_register(w.map.space.mm, {})).toBe(-EOPNOTSUPP)
  const guest = w.thread()
  await expect(guest.do('bare', { name: 'sum', args: [0, PAGE] })).rejects.toMatchObject({ code: 'EPERM' })
  expect(() => w.table.fault(0, SHADOW_READ)).toThrow(/guest\(\)\.run/)
  const { handle } = w.table
  w.table.close()
  expect(() => ShadowTable.adopt(w.map, handle)).toThrow(/ESRCH/)
  await expect(guest.call('sum', 0, PAGE)).rejects.toMatchObject({ code: 'SIGSEGV' })
})
