/** How requests become reads (mm/fetch-batch), and the buffers that reads use (mm/buffer-pool). */
import { describe, expect, test } from 'vitest'
import { Arena } from '../../src/base/arena.ts'
import { FetchQueue } from '../../src/cache/fetch-queue.ts'
import { BufferPool } from '../../src/mm/buffer-pool.ts'
import { type Batch, enqueue } from '../../src/mm/fetch-batch.ts'

/** [first, pages] of what waits, after these were asked for. */
function joined(asked: readonly (readonly [number, number])[], maxPages = 100): [number, number][] {
  const waiting: Batch[] = []
  for (const [first, pages] of asked) enqueue(waiting, first, pages, maxPages)
  return waiting.map(({ first, pages }) => [first, pages])
}

describe('requests that are neighbours become one read', () => {
  test.each([
    [
      'one behind another',
      [
        [4, 2],
        [6, 3]
      ],
      [[4, 5]]
    ],
    [
      'one before another',
      [
        [4, 2],
        [1, 3]
      ],
      [[1, 5]]
    ],
    [
      'not with a page between them',
      [
        [4, 2],
        [7, 1],
        [2, 1]
      ],
      [
        [4, 2],
        [7, 1],
        [2, 1]
      ]
    ],
    [
      'not those that overlap',
      [
        [4, 2],
        [5, 2]
      ],
      [
        [4, 2],
        [5, 2]
      ]
    ],
    [
      'one that closes a gap joins both',
      [
        [4, 2],
        [9, 1],
        [7, 2],
        [6, 1]
      ],
      [[4, 6]]
    ],
    [
      'the gap is closed with the oldest run in front',
      [
        [9, 2],
        [4, 2],
        [20, 1],
        [6, 3]
      ],
      [
        [4, 7],
        [20, 1]
      ]
    ],
    [
      'an older one further ahead stays where it is',
      [
        [20, 1],
        [4, 2],
        [9, 1],
        [6, 3]
      ],
      [
        [20, 1],
        [4, 6]
      ]
    ]
  ] as [string, [number, number][], [number, number][]][])('%s', (_, asked, expected) => {
    expect(joined(asked)).toEqual(expected)
  })

  test('up to so many pages', () => {
    expect(
      joined(
        [
          [4, 2],
          [6, 2]
        ],
        4
      )
    ).toEqual([[4, 4]])
    expect(
      joined(
        [
          [4, 2],
          [6, 3]
        ],
        4
      )
    ).toEqual([
      [4, 2],
      [6, 3]
    ])
    expect(
      joined(
        [
          [4, 2],
          [8, 2],
          [6, 2]
        ],
        4
      )
    ).toEqual([
      [4, 4],
      [8, 2]
    ])
  })
})

describe('buffers', () => {
  function pool(maxBytes: number): { buffers: BufferPool; bytes: () => number } {
    const measuring = Arena.measuring()
    new FetchQueue(measuring)
    const queue = new FetchQueue(Arena.over(new SharedArrayBuffer(measuring.usedBytes)))
    return { buffers: new BufferPool(queue, 1, maxBytes), bytes: () => queue.bufferBytes }
  }

  test('are used again while reads are under way, and let go with the last one', () => {
    const { buffers, bytes } = pool(1 << 20)
    const a = buffers.take(8192)
    const b = buffers.take(4096)
    expect(bytes()).toBe(12288)
    buffers.giveBack(a)
    expect(bytes()).toBe(12288)
    // It is large enough, though not made for so few.
    expect(buffers.take(4096)).toBe(a)
    buffers.giveBack(b)
    const c = buffers.take(8192)
    expect(c).not.toBe(b)
    expect(bytes()).toBe(20480)
    buffers.giveBack(a)
    expect(bytes()).toBe(20480)
    buffers.giveBack(c)
    expect(bytes()).toBe(0)
    expect(buffers.take(8192)).not.toBe(a)
  })

  test('that nobody uses make room for a larger one, and those in use do not', () => {
    const { buffers, bytes } = pool(16384)
    const held = buffers.take(4096)
    const spare = [buffers.take(4096), buffers.take(4096)]
    for (const one of spare) buffers.giveBack(one)
    expect(bytes()).toBe(12288)
    buffers.take(8192)
    // One of the two spare ones is enough.
    expect(bytes()).toBe(16384)
    expect(buffers.take(4096)).toBe(spare[1])
    buffers.take(16384)
    expect(bytes()).toBe(32768)
    expect(held).toHaveLength(4096)
  })

  test('that a store may write to still are not used again', () => {
    const { buffers, bytes } = pool(1 << 20)
    buffers.take(512)
    const left = buffers.take(4096)
    buffers.leave(left)
    expect(bytes()).toBe(512)
    expect(buffers.take(4096)).not.toBe(left)
  })
})
