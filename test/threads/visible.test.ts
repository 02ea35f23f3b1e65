/**
 * What threads see while others change the mappings: no old page after the change has returned, no store after it, and
 * never the bytes of a page that is none of theirs. Freed frames are poisoned in these memories, so that a load that
 * comes too late shows.
 *
 * These orders cannot be forced, since nothing can be held in the middle of a load. Both sides run at once, some
 * thousand times each, and every test sees to it that both of them moved. There are more threads than processors: what
 * matters is that one is taken off its processor between two instructions, and comes back after the change.
 */
import { describe, expect, test } from 'vitest'
import type { Mapping } from '../../src/index.ts'
import * as fremap from '../../src/index.ts'
import { LIMIT_MS, rounds } from '../support/suite.ts'
import { ROUNDS, SEQ, SHOWN, STOP } from './loops.mjs'
import { errorOf, PAGE, type ThreadRig, type ThreadWorker, useThreads } from './support.ts'

const threads = useThreads()
const RUN_MS = rounds(200, 1000)
const MANY = 4
const still = new Int32Array(new SharedArrayBuffer(4))

interface Seen {
  readonly rounds: number
  readonly bad: number
  readonly checked: number
  readonly example?: string
  readonly stored: Uint32Array
  readonly SIGSEGV?: number
}

function loop(worker: ThreadWorker, name: string, thing: number, ...args: unknown[]): Promise<Seen> {
  return worker.do<Seen>('loop', name, thing, ...args)
}

/**
 * Once all loops go round, runs `change` over and over until time is up and it was `enough`, and stops them. None of
 * them may have seen anything wrong.
 */
async function against(
  rig: ThreadRig,
  loops: readonly Promise<Seen>[],
  change: (round: number) => void,
  enough: () => boolean = () => true
): Promise<{ seen: Seen[]; rounds: number }> {
  for (let me = 0; me < loops.length; me++) await rig.word(ROUNDS + me, rounds => rounds > 0)
  let round = 0
  try {
    const start = performance.now()
    const isOver = (): boolean => {
      const ms = performance.now() - start
      return (ms >= RUN_MS && round > 3 && enough()) || ms >= LIMIT_MS
    }
    for (; !isOver(); round++) change(round)
  } finally {
    rig.setWord(STOP, 1)
  }
  const seen = await Promise.all(loops)
  for (const { bad, example } of seen) expect({ bad, example }).toEqual({ bad: 0, example: undefined })
  expect(round).toBeGreaterThan(3)
  rig.setWord(STOP, 0)
  return { seen, rounds: round }
}

/**
 * Makes a change of which a sequence lock tells when it is made, and that loads give `shown` afterwards (-1: SIGSEGV).
 */
function tell(rig: ThreadRig, shown: number, change: () => void): void {
  Atomics.add(rig.words, SEQ, 1)
  change()
  Atomics.store(rig.words, SHOWN, shown)
  Atomics.add(rig.words, SEQ, 1)
}

/** The words that the loops of all workers store to. */
function sumOf(map: Mapping, first: number, step: number): number {
  let sum = 0
  for (let me = 0; me < MANY; me++) sum += map.getUint32(first + me * step)
  return sum
}

/** Whether a word stays the same for as long as it takes all threads to come back to a processor. */
function isSteadyForLong(load: () => number): boolean {
  const first = load()
  Atomics.wait(still, 0, 0, 3)
  return load() === first
}

/** Loads a word until it is another one. → whether it became one at all. */
function changes(load: () => number): boolean {
  const first = load()
  for (let i = 0; i < 1_000_000; i++) if (load() !== first) return true
  return false
}

/** Loads a word some hundred times, so that other threads get on meanwhile. → whether it was the same all the time. */
function isSteady(load: () => number): boolean {
  const first = load()
  for (let i = 0; i < 300; i++) if (load() !== first) return false
  return true
}

describe('after a change of mappings has returned', () => {
  test('remap: no load of any thread shows the old page', async () => {
    const rig = await threads({ workers: 2, frames: 40 })
    tell(rig, 1, () => rig.map.remap({ at: 0, page: 0 }))
    const loops = rig.workers.map((w, me) => loop(w, 'shown', w.map, me, 0))
    const { seen } = await against(rig, loops, round => {
      const page = (round * 37) % 64
      tell(rig, page + 1, () => rig.map.remap({ at: 0, page }))
      if (round % 3 === 0) isSteady(() => rig.map.getUint32(0))
    })
    for (const { checked } of seen) expect(checked).toBeGreaterThan(0)
  })

  test('munmap and mmap at one place: loads show what is mapped there, SIGSEGV while nothing is', async () => {
    const rig = await threads({ workers: 2 })
    const at = { address: 0x4000000, length: PAGE, writable: true }
    let map = rig.space.map(rig.file, at)
    tell(rig, 1, () => {})
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', map.handle)
      loops.push(loop(w, 'shown', thing, me, 0))
    }
    const { seen } = await against(rig, loops, round => {
      const page = (round * 37) % 64
      tell(rig, -1, () => map.unmap())
      isSteady(() => rig.words[SEQ])
      tell(rig, page + 1, () => {
        map = rig.space.map(rig.file, { ...at, offset: page * PAGE })
      })
      isSteady(() => map.getUint32(0))
    })
    for (const { checked } of seen) expect(checked).toBeGreaterThan(0)
  })

  test('mprotect to read: no store of any thread lands', async () => {
    const rig = await threads({ workers: MANY })
    const loops = rig.workers.map((w, me) => loop(w, 'count', w.map, me, me * 4 + 8))
    let landed = 0
    let moved = 0
    await against(
      rig,
      loops,
      () => {
        rig.map.protect('read')
        if (!isSteadyForLong(() => sumOf(rig.map, 8, 4))) landed++
        rig.map.protect('write')
        if (changes(() => sumOf(rig.map, 8, 4))) moved++
      },
      () => moved > 3
    )
    expect(landed).toBe(0)
    expect(moved).toBeGreaterThan(3)
  })

  test('munmap: no store of any thread lands in the file', async () => {
    const rig = await threads({ workers: MANY })
    const at = { address: 0x4000000, length: PAGE, writable: true }
    let map = rig.space.map(rig.file, at)
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', map.handle)
      loops.push(loop(w, 'count', thing, me, me * 4 + 8))
    }
    let moved = 0
    let landed = 0
    await against(
      rig,
      loops,
      () => {
        map.unmap()
        if (!isSteadyForLong(() => sumOf(rig.map, 8, 4))) landed++
        map = rig.space.map(rig.file, at)
        if (changes(() => sumOf(rig.map, 8, 4))) moved++
      },
      () => moved > 3
    )
    expect(landed).toBe(0)
    expect(moved).toBeGreaterThan(3)
  })

  test('fork: the child never sees a store that was made after it returned', async () => {
    const rig = await threads({ workers: MANY, frames: 512 })
    const memory = rig.space.map(null, { length: 4 * PAGE, writable: true })
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', memory.handle)
      loops.push(loop(w, 'count', thing, me, me * PAGE))
    }
    let later = 0
    let moved = 0
    let last = 0
    await against(
      rig,
      loops,
      () => {
        const child = rig.space.fork()
        const copy = child.view(memory)
        if (!isSteadyForLong(() => sumOf(copy, 0, PAGE))) later++
        expect(copy.getUint32(0)).toBeGreaterThanOrEqual(last)
        last = memory.getUint32(0)
        expect(last).toBeGreaterThanOrEqual(copy.getUint32(0))
        child.close()
        if (changes(() => sumOf(memory, 0, PAGE))) moved++
      },
      () => moved > 3
    )
    expect(later).toBe(0)
    expect(moved).toBeGreaterThan(3)
  })
})

describe('while mappings change', () => {
  test('MADV_DONTNEED: loads of private memory give what was stored or zero, nothing else', async () => {
    const rig = await threads({ workers: MANY })
    const memory = rig.space.map(null, { length: 4 * PAGE, writable: true })
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', memory.handle)
      loops.push(loop(w, 'oneOf', thing, me, 0, [0, 0x1234]))
    }
    await against(rig, loops, () => {
      memory.setUint32(0, 0x1234)
      isSteady(() => memory.getUint32(0))
      memory.advise('dontneed')
    })
  })

  test('MADV_DONTNEED: a store lands in the page or in none', async () => {
    const rig = await threads({ workers: MANY, frames: 64 })
    const memory = rig.space.map(null, { length: 4 * PAGE, writable: true })
    const other = rig.space.map(null, { length: 4 * PAGE, writable: true })
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', memory.handle)
      loops.push(loop(w, 'storing', thing, me, me * 4, 0x7e57))
    }
    let strayed = 0
    await against(rig, loops, () => {
      memory.advise('dontneed')
      // The frames that came free are taken at once.
      other.setUint32(2 * PAGE, 1)
      if (!isSteadyForLong(() => sumOf(other, 2 * PAGE, 4))) strayed++
      other.advise('dontneed')
    })
    expect(strayed).toBe(0)
  })

  test('truncation of a file with private copies: loads give the copy, the file, or SIGBUS', async () => {
    const rig = await threads({ workers: MANY })
    const copy = rig.space.map(rig.file, { private: true, writable: true })
    const loops: Promise<Seen>[] = []
    for (const [me, w] of rig.workers.entries()) {
      const thing = await w.do<number>('adopt', copy.handle)
      loops.push(loop(w, 'oneOf', thing, me, 7 * PAGE, [8, 0, 0x1234]))
    }
    await against(rig, loops, () => {
      copy.setUint32(7 * PAGE, 0x1234)
      isSteady(() => copy.getUint32(7 * PAGE))
      rig.file.truncate(7 * PAGE)
      rig.file.truncate(64 * PAGE)
    })
  })

  test('eviction: loads give the page, whatever comes and goes; stores are not lost', async () => {
    const rig = await threads({ workers: 3, frames: 24 })
    const order = Int32Array.from({ length: 64 }, (_, i) => 63 - i)
    const backwards = rig.space.map(rig.file, { writable: true })
    backwards.remapPages(0, order)
    const [a, b, c] = rig.workers
    const loops = [
      loop(a, 'marks', a.map, 0, 64, 1),
      loop(b, 'lane', b.map, 1, 64, 2),
      loop(c, 'lane', c.map, 2, 64, 3)
    ]
    const { seen } = await against(rig, loops, round => {
      const page = (round * 29) % 64
      expect(backwards.getUint32(page * PAGE)).toBe(64 - page)
      if (round % 16 === 0) rig.memory.shrink()
    })
    rig.map.sync()
    for (let me = 1; me < 3; me++) {
      for (let page = 0; page < 64; page++) {
        expect(rig.storedWord(page, 64 + me * 4)).toBe(seen[me].stored[page])
      }
    }
  })

  test('eviction to swap: private and shared memory come back as they were', async () => {
    const rig = await threads({ workers: 2, frames: 24, swapSlots: 256 })
    const own = rig.space.map(null, { length: 64 * PAGE, writable: true })
    const shared = rig.space.map(rig.memory.shared(64 * PAGE), { writable: true })
    const [a, b] = rig.workers
    const loops = [
      loop(a, 'lane', await a.do<number>('adopt', own.handle), 0, 64, 4),
      loop(b, 'lane', await b.do<number>('adopt', shared.handle), 1, 64, 5)
    ]
    const { seen } = await against(rig, loops, round => {
      expect(own.getUint32(((round * 29) % 64) * PAGE)).toBe(0)
      if (round % 16 === 0) rig.memory.shrink()
    })
    for (let page = 0; page < 64; page++) {
      expect(own.getUint32(page * PAGE + 64)).toBe(seen[0].stored[page])
      expect(shared.getUint32(page * PAGE + 68)).toBe(seen[1].stored[page])
    }
  })

  test('a borrowed page is never given to anybody else', async () => {
    const rig = await threads({ workers: 2, frames: 24 })
    const [a, b] = rig.workers
    const loops = [loop(a, 'marks', a.map, 0, 64, 1), loop(b, 'lane', b.map, 1, 64, 2)]
    await against(rig, loops, round => {
      const page = (round * 29) % 64
      using borrowed = rig.map.borrow(page)
      const word = new DataView(borrowed.bytes.buffer, borrowed.bytes.byteOffset, 4)
      if (round % 8 === 0) rig.memory.shrink()
      expect(isSteady(() => word.getUint32(0, true))).toBe(true)
      expect(word.getUint32(0, true)).toBe(page + 1)
    })
  })

  test('the end of the address space: other threads get an error, and the rest works on', async () => {
    const rig = await threads({ workers: 2 })
    const [a, b] = rig.workers
    let ended: unknown
    for (let i = 0; i < 8; i++) {
      const space = rig.memory.space()
      ended = space.handle
      const map = space.map(rig.file, { writable: true })
      const loops = [
        loop(a, 'oneOf', await a.do<number>('adopt', map.handle), 0, 0, [1]),
        loop(b, 'count', await b.do<number>('adopt', map.handle), 1, 8)
      ]
      await rig.word(ROUNDS, rounds => rounds > 0)
      await rig.word(ROUNDS + 1, rounds => rounds > 0)
      space.close()
      expect(rig.memory.check()).toEqual([])
      // A new one takes its row.
      const next = rig.memory.space()
      next.map(rig.file).getUint32(0)
      rig.setWord(STOP, 1)
      const [reader] = await Promise.all(loops)
      expect(reader.bad).toBe(0)
      rig.setWord(STOP, 0)
      rig.words.fill(0, ROUNDS)
      next.close()
    }
    expect(await errorOf(a.do('adopt', ended))).toMatchObject({ code: 'ESRCH' })
    expect(await a.load(3)).toBe(4)
  })

  test('a store across two pages whose first one is evicted meanwhile goes to no other page', async () => {
    const rig = await threads({ workers: 1, frames: 24 })
    const [a] = rig.workers
    const order = Int32Array.from({ length: 64 }, (_, i) => 63 - i)
    rig.map.remapPages(0, order)
    const loops = [loop(a, 'touching', a.map, 0, 0, 64)]
    let stored = 0
    await against(rig, loops, round => {
      const page = (round * 29) % 63
      rig.map.setUint32((page + 1) * PAGE - 2, 0xdeadbeef)
      stored++
    })
    expect(stored).toBeGreaterThan(0)
    for (let page = 0; page < 64; page++) expect(rig.map.getUint32(page * PAGE + 4)).toBe(0)
    for (let page = 0; page < 64; page++) expect(rig.map.getUint32(page * PAGE + PAGE / 2)).toBe(0)
  })
})

describe('a forced access', () => {
  test('gives no other thread the right to store, or to load, for a moment', async () => {
    const rig = await threads({ workers: 2, frames: 64 })
    const map = rig.space.map(rig.file, { private: true, length: PAGE, writable: true })
    const hidden = rig.space.map(null, { length: PAGE, writable: true })
    map.protect('read')
    hidden.protect('none')
    const [one, other] = rig.workers
    const loops = [
      loop(one, 'forbidden', await one.do<number>('adopt', map.handle), 0, 'setUint32', 8, 0xbad),
      loop(other, 'forbidden', await other.do<number>('adopt', hidden.handle), 1, 'getUint32', 8)
    ]
    const word = new Uint8Array(4)
    const { mm } = rig.space
    const { seen } = await against(rig, loops, round => {
      // The entry is made anew each time.
      map.advise('dontneed')
      hidden.advise('dontneed')
      for (let i = 0; i < 20; i++) {
        expect(fremap.sys_mem_write(mm, map.address, Uint8Array.of(round))).toBe(1)
        expect(fremap.sys_mem_write(mm, hidden.address, Uint8Array.of(round))).toBe(1)
        expect(fremap.sys_mem_read(mm, hidden.address + 8, word)).toBe(4)
      }
      expect(map.getUint32(8)).toBe(0)
    })
    for (const { rounds, SIGSEGV } of seen) expect(SIGSEGV).toBe(rounds)
  })
})
