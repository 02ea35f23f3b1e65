/** The ring of requests and what became of them (cache/fetch-queue), by itself. */
import { beforeEach, describe, expect, test } from 'vitest'
import { Arena } from '../../src/base/arena.ts'
import { FetchQueue, Q_BELL, Q_SETTLED } from '../../src/cache/fetch-queue.ts'

const NR_REQUESTS = 1024
const NR_FAILURES = 64

let queue: FetchQueue

function newQueue(): FetchQueue {
  const measuring = Arena.measuring()
  new FetchQueue(measuring)
  return new FetchQueue(Arena.over(new SharedArrayBuffer(measuring.usedBytes)))
}

beforeEach(() => {
  queue = newQueue()
})

/** What is taken next of these inodes, or undefined. */
function take(...inodes: number[]): [number, number, number] | undefined {
  const found = queue.shift(inode => inodes.includes(inode))
  return found ? [queue.inode, queue.first, queue.pages] : undefined
}

describe('requests', () => {
  test('are taken oldest first, each once, by whom they are for', () => {
    queue.push(3, 10, 4)
    queue.push(5, 20, 1)
    queue.push(3, 30, 2)
    queue.push(3, 40, 1)
    expect(queue.length).toBe(4)
    expect(take(5)).toEqual([5, 20, 1])
    expect(queue.length).toBe(4)
    expect(take(5)).toBeUndefined()
    expect(take(3)).toEqual([3, 10, 4])
    // The empty one behind it goes with it.
    expect(queue.length).toBe(2)
    expect(take(7, 3)).toEqual([3, 30, 2])
    expect(take(3)).toEqual([3, 40, 1])
    expect(take(3)).toBeUndefined()
    expect(queue.length).toBe(0)
  })

  test('fill the ring, also where it comes round', () => {
    for (let i = 0; i < NR_REQUESTS - 1; i++) queue.push(1, i, 1)
    expect(queue.isFull).toBe(false)
    queue.push(2, 7, 3)
    expect(queue.isFull).toBe(true)
    for (let i = 0; i < 10; i++) expect(take(1)).toEqual([1, i, 1])
    expect(queue.isFull).toBe(false)
    for (let i = 0; i < 10; i++) queue.push(4, i, 2)
    expect(queue.isFull).toBe(true)
    expect(take(4)).toEqual([4, 0, 2])
    expect(take(2)).toEqual([2, 7, 3])
    for (let i = 10; i < NR_REQUESTS - 1; i++) expect(take(1)).toEqual([1, i, 1])
    for (let i = 1; i < 10; i++) expect(take(4)).toEqual([4, i, 2])
    expect(queue.length).toBe(0)
  })

  test('of an inode that nobody will bring are forgotten, and the others stay', () => {
    queue.push(1, 1, 1)
    queue.push(2, 2, 1)
    queue.push(1, 3, 1)
    queue.drop(1)
    expect(queue.length).toBe(2)
    expect(take(1)).toBeUndefined()
    expect(take(2)).toEqual([2, 2, 1])
    expect(queue.length).toBe(0)
    queue.push(1, 5, 1)
    queue.drop(1)
    expect(queue.length).toBe(0)
  })

  test('are looked for no further than the ring goes: what was there once is gone', () => {
    for (let i = 0; i < 5; i++) queue.push(1, i, 1)
    for (let i = 0; i < 5; i++) take(1)
    expect(take(1)).toBeUndefined()
    queue.push(2, 9, 1)
    expect(take(1)).toBeUndefined()
    expect(take(2)).toEqual([2, 9, 1])
  })

  test('ring the bell and call the hook, as looking again does', () => {
    const seen: number[] = []
    queue.setOnPush(() => seen.push(queue.length))
    queue.push(1, 0, 1)
    queue.push(1, 1, 1)
    queue.ring()
    expect(seen).toEqual([1, 2, 2])
    expect(queue.state[Q_BELL]).toBe(3)
    queue.setOnPush(undefined)
    queue.ring()
    expect(seen).toHaveLength(3)
    expect(queue.state[Q_SETTLED]).toBe(0)
    queue.settled()
    expect(queue.state[Q_SETTLED]).toBe(1)
  })
})

describe('failures', () => {
  test('are found by their pages, from a number on', () => {
    expect(queue.nrFailures).toBe(0)
    expect(queue.fail(3, 10, 4, 116, 'stale')).toBe(0)
    expect(queue.fail(3, 12, 1, 5, 'broken')).toBe(1)
    expect(queue.nrFailures).toBe(2)
    expect([9, 10, 12, 13, 14].map(page => queue.failureSince(0, 3, page))).toEqual([-1, 0, 0, 0, -1])
    expect([10, 12, 13].map(page => queue.failureSince(1, 3, page))).toEqual([-1, 1, -1])
    expect(queue.failureSince(2, 3, 12)).toBe(-1)
    expect(queue.failureSince(0, 4, 12)).toBe(-1)
    expect([queue.errnoOf(0), queue.errnoOf(1)]).toEqual([116, 5])
    expect([queue.whyOf(0), queue.whyOf(1)]).toEqual(['stale', 'broken'])
  })

  test('that are old are forgotten, with their words', () => {
    for (let i = 0; i < NR_FAILURES + 2; i++) queue.fail(1, i, 1, i + 1, `failure ${i}`)
    expect([0, 1, 2, 3].map(page => queue.failureSince(0, 1, page))).toEqual([-1, -1, 2, 3])
    // The row that the next one takes has an old one still.
    expect(queue.failureSince(3, 1, 2)).toBe(-1)
    expect([1, 2, NR_FAILURES + 1].map(nr => queue.whyOf(nr))).toEqual(['', 'failure 2', `failure ${NR_FAILURES + 1}`])
    expect(queue.errnoOf(NR_FAILURES + 1)).toBe(NR_FAILURES + 2)
  })

  test('have words that fit: the beginning of long ones, and none of the one before', () => {
    const long = 'äöü😀'.repeat(100)
    queue.fail(1, 0, 1, 5, long)
    for (let i = 1; i < NR_FAILURES; i++) queue.fail(1, 0, 1, 5, 'x')
    expect(queue.whyOf(0)).toBe(long.slice(0, 254))
    expect(queue.whyOf(1)).toBe('x')
    expect(queue.fail(1, 0, 1, 5, 'ab')).toBe(NR_FAILURES)
    expect(queue.whyOf(NR_FAILURES)).toBe('ab')
  })
})

test('what is under way, and the buffers of each thread, are counted', () => {
  queue.noteUnderWay(5)
  queue.noteUnderWay(-2)
  expect(queue.nrUnderWay).toBe(3)
  queue.noteBuffers(1, 4096)
  queue.noteBuffers(2, 8192)
  queue.noteBuffers(1, -1024)
  expect(queue.bufferBytes).toBe(3072 + 8192)
  queue.forgetBuffers(2)
  expect(queue.bufferBytes).toBe(3072)
})
