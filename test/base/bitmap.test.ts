/** The next set bit of a map, whatever lies between: within a word, words further on, behind the last one. */
import { expect, test } from 'vitest'
import { Bitmap } from '../../src/base/bitmap.ts'

function bitmap(nrBits: number, ...bits: number[]): Bitmap {
  const map = new Bitmap(new Int32Array(Bitmap.nrWords(nrBits)), new Int32Array(Bitmap.nrSummaryWords(nrBits)), nrBits)
  for (const bit of bits) map.set(bit)
  return map
}

/** All set bits, by asking for the next one. */
function all(map: Bitmap): number[] {
  const found: number[] = []
  for (let bit = map.next(0); bit >= 0; bit = map.next(bit + 1)) found.push(bit)
  return found
}

test.each([1, 31, 32, 33, 1024, 1025, 5000, 32 * 1024])('in a map of %d bits', nrBits => {
  expect(bitmap(nrBits).next(0)).toBe(-1)
  expect(all(bitmap(nrBits, 0))).toEqual([0])
  const last = bitmap(nrBits, nrBits - 1)
  for (const from of [0, nrBits >>> 1, nrBits - 1]) expect(last.next(from)).toBe(nrBits - 1)
  expect(last.next(nrBits)).toBe(-1)
  expect(bitmap(nrBits, 0).next(1), 'nothing but what lies before').toBe(-1)
  const bits = [0, 1, 31, 32, 63, 1023, 1024, 1055, 3000, 4999].filter(bit => bit < nrBits)
  const map = bitmap(nrBits, ...bits)
  expect(all(map)).toEqual(bits)
  for (const bit of bits) map.clear(bit)
  expect(map.next(0)).toBe(-1)
  expect(map.summary.every(word => word === 0)).toBe(true)
})
