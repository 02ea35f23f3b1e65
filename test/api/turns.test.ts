/** Turns of those who wait for pages: in order, and no more pages at a time than there are. */
import { expect, test } from 'vitest'
import { Turns } from '../../src/api/turns.ts'

const settled = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await Promise.resolve()
}

function ask(turns: Turns, got: string[], name: string, pages: number, signal?: AbortSignal): Promise<void> {
  return turns.take(pages, signal).then(
    () => void got.push(name),
    () => void got.push(`${name} aborted`)
  )
}

test('as many pages as there are, and then in order', async () => {
  const turns = new Turns(4)
  const got: string[] = []
  for (const [name, pages] of Object.entries({ a: 2, b: 2, c: 3, d: 1 })) void ask(turns, got, name, pages)
  await settled()
  expect(got).toEqual(['a', 'b'])
  turns.giveBack(2)
  await settled()
  // One that wants fewer does not overtake.
  expect(got).toEqual(['a', 'b'])
  turns.giveBack(2)
  await settled()
  expect(got).toEqual(['a', 'b', 'c', 'd'])
  turns.giveBack(3)
  expect([turns.isIdle, turns.isAlone]).toEqual([false, true])
  turns.giveBack(1)
  expect(turns.isIdle).toBe(true)
})

test('one that wants more than there are goes alone', async () => {
  const turns = new Turns(4)
  const got: string[] = []
  void ask(turns, got, 'a', 9)
  void ask(turns, got, 'b', 1)
  await settled()
  expect(got).toEqual(['a'])
  turns.giveBack(9)
  await settled()
  expect(got).toEqual(['a', 'b'])
})

test('one that is aborted lets the next one go', async () => {
  const turns = new Turns(4)
  const got: string[] = []
  const controller = new AbortController()
  void ask(turns, got, 'a', 4)
  void ask(turns, got, 'b', 4, controller.signal)
  void ask(turns, got, 'c', 1)
  controller.abort()
  await settled()
  turns.giveBack(4)
  await settled()
  expect(got).toEqual(['a', 'b aborted', 'c'])
})
