/** Orders as functions: each is a permutation, plans are what their lines say. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { type Order, orderFor, parseOrder } from '../../cli/order.ts'

const folder = mkdtempSync(join(tmpdir(), 'fremap-order-'))
afterAll(() => rmSync(folder, { recursive: true }))

function all(order: Order): number[] {
  const pages = new Int32Array(order.pages)
  order.fill(0, pages)
  return [...pages]
}

function listed(text: string, pages: number): number[] {
  return all(orderFor(parseOrder(text), pages, 'file'))
}

function plan(text: string): string {
  const path = join(folder, 'plan')
  writeFileSync(path, text)
  return `@${path}`
}

const inOrder = (pages: number) => Array.from({ length: pages }, (_, i) => i)

test('orders of seven pages', () => {
  expect(listed('linear', 7)).toEqual([0, 1, 2, 3, 4, 5, 6])
  expect(listed('reverse', 7)).toEqual([6, 5, 4, 3, 2, 1, 0])
  expect(listed('stride:3', 7)).toEqual([0, 3, 6, 1, 4, 2, 5])
  expect(listed('stride:1', 7)).toEqual(inOrder(7))
  expect(listed('stride:100', 7)).toEqual(inOrder(7))
})

test('every order shows every page once, for any number of pages, in parts as in one', () => {
  const orders = fc.oneof(
    fc.constantFrom('linear', 'reverse', 'shuffle'),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(seed => `shuffle:${seed}`),
    fc.integer({ min: 1, max: 600 }).map(step => `stride:${step}`)
  )
  fc.assert(
    fc.property(orders, fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 50 }), (text, pages, part) => {
      const order = orderFor(parseOrder(text), pages, 'file')
      const whole = all(order)
      expect([...whole].sort((a, b) => a - b)).toEqual(inOrder(pages))
      const parts: number[] = []
      for (let first = 0; first < pages; first += part) {
        const out = new Int32Array(Math.min(part, pages - first))
        order.fill(first, out)
        parts.push(...out)
      }
      expect(parts).toEqual(whole)
    })
  )
})

test('a shuffle is another order for another seed, and the same for the same', () => {
  expect(listed('shuffle', 1000)).toEqual(listed('shuffle:1', 1000))
  expect(listed('shuffle:2', 1000)).not.toEqual(listed('shuffle:1', 1000))
  // Few pages stay where they were, and few neighbours stay neighbours: about one of each is to be expected.
  const shuffled = listed('shuffle:7', 10_000)
  expect(shuffled.filter((page, i) => page === i).length).toBeLessThan(10)
  expect(shuffled.filter((page, i) => shuffled[i + 1] === page + 1).length).toBeLessThan(10)
})

describe('plans', () => {
  test('lines apply in turn; what no line names is linear; comments and blank lines do not count', () => {
    const text = '# a plan\n\n1 5 3\n 2\t0   # one page\n6 4 2\n'
    expect(listed(plan(text), 8)).toEqual([0, 5, 0, 7, 4, 5, 4, 5])
  })

  test('lines of Windows, and a last line without an end', () => {
    expect(listed(plan('0 3 1\r\n1 2 1'), 8)).toEqual([3, 2])
  })

  test('any plan is what a mapping would be after remapping line by line', () => {
    const line = fc.record({
      at: fc.integer({ min: 0, max: 60 }),
      page: fc.integer({ min: 0, max: 40 }),
      count: fc.integer({ min: 1, max: 30 })
    })
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 12 }), fc.integer({ min: 0, max: 20 }), (lines, first) => {
        const model: number[] = []
        for (const { at, page, count } of lines) for (let i = 0; i < count; i++) model[at + i] = page + i
        const expected = Array.from(model, (page, i) => page ?? i)
        const order = orderFor(
          parseOrder(plan(lines.map(({ at, page, count }) => `${at} ${page} ${count}\n`).join(''))),
          200,
          'file'
        )
        expect(all(order)).toEqual(expected)
        const out = new Int32Array(Math.max(0, expected.length - first))
        order.fill(first, out)
        expect([...out]).toEqual(expected.slice(first))
        for (const page of [0, 7, 41]) {
          expect(order.timesShown(page)).toBe(expected.filter(shown => shown === page).length)
        }
      })
    )
  })

  test.each([
    ['', /: the plan has no lines$/],
    ['# nothing\n', /: the plan has no lines$/],
    ['0 0\nfoo bar\n', /plan:2: "foo bar" is not/],
    ['0\n', /plan:1: "0" is not/],
    ['0 0 1 2\n', /plan:1: "0 0 1 2" is not/],
    ['0 -1 1\n', /plan:1: "0 -1 1" is not/],
    ['0 1.5\n', /plan:1: "0 1.5" is not/],
    ['\n0 0 0\n', /plan:2: a count of 0 shows nothing$/],
    ['0 5 6\n', /plan:1: file page 10 is beyond the end of file, which has 10 pages$/],
    ['0 0\n0 99\n', /plan:2: file page 99 is beyond the end/],
    ['12 0\n', /plan: window page 10 is on no line, so it shows file page 10, beyond the end/],
    ['268435455 0\n', /plan:1: window pages go up to 268435454$/],
    ['0 268435455\n', /plan:1: file pages go up to 268435454$/],
    ['99999999999999999999 0\n', /plan:1: window pages go up to/]
  ])('%j is refused', (text, message) => {
    expect(() => listed(plan(text), 10)).toThrow(message)
  })

  test('window pages beyond the file are fine when lines name them all', () => {
    expect(listed(plan('0 0 10\n10 0 3\n13 9\n'), 10)).toEqual([...inOrder(10), 0, 1, 2, 9])
  })
})

test.each([
  '',
  'sideways',
  'linear:1',
  'reverse:2',
  'shuffle:',
  'shuffle:-1',
  'shuffle:4294967296',
  'shuffle:1:2',
  'stride',
  'stride:0',
  'stride:x',
  '@'
])('the order %j is refused', text => {
  expect(() => parseOrder(text)).toThrow(/order/)
})
