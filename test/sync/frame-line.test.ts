/** The line of threads that wait for a frame, by words that the test moves. */
import { expect, test } from 'vitest'
import { Arena } from '../../src/base/arena.ts'
import { WAIT_PAGE } from '../../src/sync/lock-order.ts'
import { Sync } from '../../src/sync/sync.ts'
import { IO_FILL, NR_SYNC_WORDS, S_ROOM, T_PROGRESS, ThreadTable } from '../../src/sync/threads.ts'

const NR = 4

function lines(): Sync[] {
  const arena = Arena.over(new SharedArrayBuffer(1 << 16))
  const threads = new ThreadTable(arena, NR)
  const words = arena.int32('threads', NR_SYNC_WORDS)
  return Array.from({ length: NR }, (_, me) => {
    threads.attach(me)
    return new Sync(words, threads, me, 1000)
  })
}

test('whoever came first is first, and the next one when that has left', () => {
  const [a, b, c] = lines()
  b.line.join()
  a.line.join()
  c.line.join()
  expect(c.line.first).toBe(b.me)
  expect([a, b, c].map(({ line }) => line.mustWait(0))).toEqual([true, false, true])
  b.line.leave()
  expect(c.line.first).toBe(a.me)
  c.line.leave()
  a.line.leave()
  expect(c.line.first).toBe(-1)
  expect(b.line.mustWait(0)).toBe(false)
})

test('nobody has to wait for it where there are frames for all', () => {
  const [a, b] = lines()
  a.line.join()
  expect([b.line.mustWait(NR - 1), b.line.mustWait(NR)]).toEqual([true, false])
})

test('one that goes on to a store lets the next one be first, and has its old place when it comes back', () => {
  const [a, b] = lines()
  a.line.join()
  b.line.join()
  a.lock()
  a.openWindow(IO_FILL, 1, 0, 1)
  expect(b.line.isFirst).toBe(true)
  a.closeWindow()
  expect(a.line.mustWait(0)).toBe(false)
  a.line.join()
  expect(a.line.isFirst).toBe(true)
  a.unlock()
})

test('one that sleeps for something else is not first meanwhile: whoever has that may be behind it', () => {
  const [a, b] = lines()
  a.line.keep()
  b.line.join()
  a.lock()
  a.waitFor(WAIT_PAGE, 1)
  expect(b.line.isFirst).toBe(true)
  a.unlock()
})

test('one that is kept in it stays first through windows and ends of verbs, until it is released', () => {
  const [a, b] = lines()
  a.line.keep()
  b.line.join()
  a.lock()
  a.openWindow(IO_FILL, 1, 0, 1)
  a.closeWindow()
  a.unlock()
  a.line.leave()
  expect(a.line.isFirst).toBe(true)
  a.line.release()
  expect(b.line.isFirst).toBe(true)
})

test('one that has ended is forgotten', () => {
  const [a, b] = lines()
  a.line.join()
  b.line.join()
  b.line.forget(a.me)
  expect(b.line.isFirst).toBe(true)
})

test('room is noted for the first one only, and waits that end without any are futile after a hundred', () => {
  const [a, b] = lines()
  const { words, threads } = a
  a.noteRoom()
  expect(words[S_ROOM]).toBe(0)
  a.line.join()
  const waits = (): number => {
    for (let n = 0; ; n++) {
      if (!a.line.isHopeful(b.me) || n === 1000) return n
      threads.w[threads.at(b.me, T_PROGRESS)]++
    }
  }
  expect(waits()).toBe(100)
  b.noteRoom()
  expect(words[S_ROOM]).toBe(1)
  expect(a.line.isHopeful(b.me)).toBe(true)
  // One that does not come back from its store is waited for.
  for (let n = 0; n < 1000; n++) expect(a.line.isHopeful(b.me)).toBe(true)
})
