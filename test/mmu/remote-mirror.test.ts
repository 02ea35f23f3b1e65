/** A secondary MMU in another thread that is told by messages and acknowledges them: notifiers that sleep. */
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { type Mapping, Memory, sys_mmu_notifier_register } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { Prng } from '../../tools/fuzz/prng.ts'
import { RemoteMirror } from '../support/remote-mirror.ts'
import { rounds } from '../support/suite.ts'

const PAGE = 4096
const PAGES = 60
const WORKER = fileURLToPath(new URL('../support/remote-mirror-worker.mjs', import.meta.url))

interface World {
  readonly memory: Memory
  readonly map: Mapping
  readonly mirror: RemoteMirror
}

function world(): World {
  const memory = new Memory({ size: 100 * PAGE, debug: true, swap: { store: memoryStore(), size: 200 * PAGE } })
  const map = memory.space().map(memory.open(memoryStore({ sizeBytes: PAGES * PAGE })), { writable: true })
  const mirror = new RemoteMirror(memory.machine, map.mmId)
  expect(sys_mmu_notifier_register(map.space.mm, mirror)).toBe(0)
  return { memory, map, mirror }
}

type Message = { vpn: number; access: number } | { counts: Int32Array } | { error: string }

/** Lets the other side work, and `meanwhile` run in each turn of the event loop. → its counts. */
async function work(w: World, seed: number, steps: number, pages: number, meanwhile: () => void): Promise<Int32Array> {
  const { ram } = w.memory.machine
  let end: Message | undefined
  let failure: Error | undefined
  const worker = new Worker(WORKER, {
    workerData: {
      mailbox: w.mirror.mailbox,
      ram: { buffer: ram.buffer, byteOffset: ram.byteOffset },
      pageSize: PAGE,
      firstVpn: w.map.address / PAGE,
      pages,
      steps,
      limitMs: rounds(3000, 10_000),
      seed
    }
  })
  worker.on('error', error => {
    failure = error
  })
  worker.on('message', (message: Message) => {
    if ('vpn' in message) w.mirror.answer(message.vpn, message.access)
    else end = message
  })
  // Nothing is invalidated before somebody is there to be told.
  await new Promise(resolve => worker.once('online', resolve))
  while (end === undefined) {
    if (failure !== undefined) throw failure
    meanwhile()
    await turn()
  }
  await worker.terminate()
  if ('counts' in end) return end.counts
  throw new Error('error' in end ? end.error : 'it ended with a fault')
}

const seed = Date.now() % 1_000_000
test(`it never loads from or stores to a page that went away; seed ${seed}`, async () => {
  const rng = new Prng(seed)
  const w = world()
  const disturb = (): void => {
    const what = rng.below(1000)
    const page = rng.below(PAGES)
    if (what < 40) w.map.protect('write', { offset: page * PAGE, length: PAGE })
    else if (what < 60) w.map.remap({ at: page, page })
    else if (what < 65) w.map.sync()
    else if (what < 67) w.memory.shrink()
  }
  const counts = await work(w, seed, 2_000_000, PAGES, disturb)
  expect(w.mirror.nrSleeps).toBeGreaterThan(0)
  const found = Int32Array.from({ length: PAGES }, (_, page) => w.map.getInt32(page * PAGE + 4))
  expect(found).toEqual(counts)
  expect(w.memory.check()).toEqual([])
  w.memory.close()
})

test('a page that cannot be had is the other side’s error; what it held goes with its end', async () => {
  const w = world()
  const all = work(w, 1, 10_000, PAGES + 1, () => {})
  await expect(all).rejects.toThrow(`fault 1 on page ${PAGES}`)
  // Nobody is told any more, and nothing waits.
  w.map.unmap()
  w.memory.shrink()
  expect(w.memory.check()).toEqual([])
  w.memory.close()
})
