/** The ring of requests and of failures by itself: order, holes in the middle, what is forgotten. */
import { expect, test } from 'vitest'
import { Arena } from '../../src/base/arena.ts'
import { FetchQueue, Q_BELL, Q_SETTLED } from '../../src/cache/fetch-queue.ts'

function queue(): FetchQueue {
  return new FetchQueue(Arena.over(new SharedArrayBuffer(1 << 20)))
}

/** Takes all that `isMine` wants. */
function taken(q: FetchQueue, isMine: (inode: number) => boolean = () => true): number[][] {
  const requests: number[][] = []
  while (q.shift(isMine)) requests.push([q.inode, q.first, q.pages])
  return requests
}

test('each pager takes its own requests, in order; those taken from the middle leave nothing behind', () => {
  const q = queue()
  for (let i = 0; i < 6; i++) q.push(1 + (i % 2), i * 10, i + 1)
  expect(taken(q, inode => inode === 2)).toEqual([
    [2, 10, 2],
    [2, 30, 4],
    [2, 50, 6]
  ])
  expect(q.length, 'holes at the end go too only with what is before them').toBe(6)
  expect(taken(q, inode => inode === 3)).toEqual([])
  expect(taken(q)).toEqual([
    [1, 0, 1],
    [1, 20, 3],
    [1, 40, 5]
  ])
  expect(q.length).toBe(0)
})

test('requests of a file that is closed go, those of others stay', () => {
  const q = queue()
  q.push(1, 0, 1)
  q.push(2, 5, 1)
  q.push(1, 9, 1)
  q.drop(1)
  expect(taken(q)).toEqual([[2, 5, 1]])
})

test('it is full after 1,024 requests, goes round, and tells of each', () => {
  const q = queue()
  let pushed = 0
  q.setOnPush(() => {
    pushed++
  })
  for (let round = 0; round < 3; round++) {
    const bell = q.state[Q_BELL]
    for (let i = 0; i < 1024; i++) {
      expect(q.isFull).toBe(false)
      q.push(1, i, 1)
    }
    expect(q.isFull).toBe(true)
    expect(q.state[Q_BELL]).toBe(bell + 1024)
    expect(q.shift(() => true)).toBe(true)
    q.push(1, 1024, 1)
    expect(taken(q).map(([, first]) => first)).toEqual(Array.from({ length: 1024 }, (_, i) => i + 1))
  }
  expect(pushed).toBe(3 * 1025)
  q.setOnPush(undefined)
  const settled = q.state[Q_SETTLED]
  q.settled()
  expect(q.state[Q_SETTLED]).toBe(settled + 1)
})

test('a failure is found by its pages and by when it was, and the oldest are forgotten', () => {
  const q = queue()
  const nr = q.fail(3, 10, 4, 5, 'the disk is gone')
  expect([9, 10, 13, 14].map(index => q.failureSince(0, 3, index))).toEqual([-1, nr, nr, -1])
  expect(q.failureSince(0, 4, 10), 'another file').toBe(-1)
  expect(q.failureSince(q.nrFailures, 3, 10), 'before it was asked').toBe(-1)
  expect([q.errnoOf(nr), q.whyOf(nr)]).toEqual([5, 'the disk is gone'])
  for (let i = 0; i < 64; i++) q.fail(7, i, 1, 110, 'x'.repeat(1000))
  expect(q.failureSince(0, 3, 10)).toBe(-1)
  expect(q.whyOf(nr), 'its place is another one’s').toBe('')
  expect(q.whyOf(nr + 64).length).toBeLessThan(300)
  expect(q.whyOf(nr + 64)).toMatch(/^x+$/)
})
