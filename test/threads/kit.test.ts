/** The kit itself: threads that attach, calls that are held, waits that are seen. */
import { expect, test } from 'vitest'
import { useThreads } from './support.ts'

const threads = useThreads()

test('a worker sees what the main thread stores, and the other way round', async () => {
  const rig = await threads()
  const [w] = rig.workers
  rig.map.setUint32(3 * 4096 + 8, 77)
  expect(await w.load(3, 8)).toBe(77)
  await w.store(5, 99)
  expect(rig.map.getUint32(5 * 4096)).toBe(99)
  expect(await w.load(9)).toBe(10)
})

test('a held read keeps the access until it is released', async () => {
  const rig = await threads({ workers: 2 })
  const [a, b] = rig.workers
  rig.hold('read')
  const first = a.load(4)
  await rig.held('read')
  const [second] = await rig.waiting(b, () => b.load(4))
  rig.release('read')
  expect(await first).toBe(5)
  expect(await second).toBe(5)
})
