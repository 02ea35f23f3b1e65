/** More threads than there are frames: they wait for each other, in order, and none fails for want of memory. */
import { expect, test } from 'vitest'
import { PAGE, useThreads } from './support.ts'

const threads = useThreads()

test('loads of more threads than frames, all in a slow read at once', async () => {
  const rig = await threads({ workers: 6, frames: 9 })
  rig.hold('read')
  const loads = rig.workers.map((worker, i) => worker.load(10 * i))
  await rig.held('read', 2)
  // The others sleep for a frame, or are about to.
  rig.release('read')
  expect(await Promise.all(loads)).toEqual(rig.workers.map((_, i) => 10 * i + 1))
})

test('loads, stores, copies and remaps of more threads than frames', async () => {
  const rig = await threads({ workers: 4, frames: 12 })
  const pages = Array.from({ length: 40 }, (_, i) => (i * 29) % 60)
  const results = rig.workers.flatMap((worker, me) =>
    pages.map(async (page, i) => {
      if (i % 4 === 0) return [page, await worker.load(page)]
      if (i % 4 === 1)
        return [
          page,
          new Uint32Array((await worker.do<Uint8Array>('bytes', worker.map, 'read', 2 * PAGE, page * PAGE)).buffer)[0]
        ]
      if (i % 4 === 2) return [page, await worker.store(page, page + 1, 4 * me).then(() => page + 1)]
      await worker.call(worker.map, 'remap', { at: page, page, populate: true })
      return [page, page + 1]
    })
  )
  for (const [page, word] of await Promise.all(results)) expect(word).toBe(page + 1)
})

test('stores across two pages, by more threads than fit', async () => {
  const rig = await threads({ workers: 4, frames: 12 })
  const stores = rig.workers.flatMap((worker, me) =>
    Array.from({ length: 15 }, (_, i) =>
      worker.call(worker.map, 'setUint32', (4 * i + me + 1) * PAGE - 2, 0x00020000 + 0)
    )
  )
  await Promise.all(stores)
  expect(rig.memory.check()).toEqual([])
})
