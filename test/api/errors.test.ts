/** Errors that calls give: each number has a name and a meaning. */
import { expect, test } from 'vitest'
import * as errno from '../../src/abi/errno.ts'
import { MEANINGS, systemError } from '../../src/api/errors.ts'

const numbers: [string, number][] = Object.entries(errno as Record<string, unknown>).flatMap(([name, value]) =>
  typeof value === 'number' ? [[name, value]] : []
)

test.each(numbers)('%s says what it means', (name, number) => {
  expect(errno.errnoName(-number)).toBe(name)
  expect(errno.errnoFromName(name)).toBe(number)
  expect(MEANINGS).toHaveProperty(name)
  expect(systemError(-number, 'mmap').message).toBe(`${name}: ${MEANINGS[name]}, mmap`)
})

test('no meaning is left over, and no two are the same', () => {
  expect(Object.keys(MEANINGS).sort()).toEqual(numbers.map(([name]) => name).sort())
  expect(new Set(Object.values(MEANINGS)).size).toBe(numbers.length)
})
