/**
 * A guest program: works on a mapped file of any size through the shadow table, a page at a time or at random.
 *
 *  sum, rewrite            over a range, translating once a page
 *  sumAt, rewriteAt        over words anywhere, translating each
 *  rawSum, rawSumAt, rawRewriteAt   the same work on plain addresses of this memory, to compare with
 *
 * Offsets and lengths are bytes. Words are 32 bits, little-endian, at offsets that are multiples of 4.
 */
import { entryOf, forLoad, forStore, PAGE_SIZE, place, READ, refill, safePoint, WRITE } from './shadow'

/** Bytes of offsets between two safe points: one at each access would cost as much as the access. */
const BLOCK: usize = 256 * 4

/** The sum of the bytes [first, first + length) of the window. */
export function sum(first: u32, length: u32): i64 {
  let total: i64 = 0
  let at = first
  let left = length
  while (left !== 0) {
    const n = min(left, leftInPage(at))
    total += sumOf(forLoad(at), n)
    at += n
    left -= n
    safePoint()
  }
  return total
}

/** The sum of bytes that lie here. */
export function rawSum(first: u32, length: u32): i64 {
  let total: i64 = 0
  let at = first
  let left = length
  while (left !== 0) {
    const n = min(left, leftInPage(at))
    total += sumOf(at, n)
    at += n
    left -= n
  }
  return total
}

function leftInPage(at: u32): u32 {
  return PAGE_SIZE - (at & (PAGE_SIZE - 1))
}

function sumOf(from: usize, length: u32): i64 {
  let total: u32 = 0
  const end = from + length
  do {
    total += load<u8>(from)
  } while (++from !== end)
  return total
}

/** Each byte of [first, first + length) becomes itself xor `value`. */
export function rewrite(first: u32, length: u32, value: u32): void {
  let at = first
  let left = length
  while (left !== 0) {
    const n = min(left, leftInPage(at))
    let byte = forStore(at)
    for (const end = byte + n; byte !== end; byte++) store<u8>(byte, load<u8>(byte) ^ value)
    at += n
    left -= n
    safePoint()
  }
}

/** The sum of the words at the `count` offsets that lie at `offsets`. */
export function sumAt(offsets: usize, count: u32): u32 {
  let total: u32 = 0
  const last = offsets + (count << 2)
  while (offsets !== last) {
    const end = min(offsets + BLOCK, last)
    do {
      const at = load<u32>(offsets)
      const entry = entryOf(at)
      if ((entry & READ) === 0) break
      total += load<u32>(place(entry, at))
      offsets += 4
    } while (offsets !== end)
    if (offsets !== end) refill(load<u32>(offsets), READ)
    safePoint()
  }
  return total
}

/** The same of words that lie at `base` plus the offsets. */
export function rawSumAt(base: usize, offsets: usize, count: u32): u32 {
  let total: u32 = 0
  const last = offsets + (count << 2)
  for (; offsets !== last; offsets += 4) total += load<u32>(base + load<u32>(offsets))
  return total
}

/** Each of the words at the offsets becomes itself xor `value`. */
export function rewriteAt(offsets: usize, count: u32, value: u32): void {
  const last = offsets + (count << 2)
  while (offsets !== last) {
    const end = min(offsets + BLOCK, last)
    do {
      const at = load<u32>(offsets)
      const entry = entryOf(at)
      if ((entry & WRITE) === 0) break
      const word = place(entry, at)
      store<u32>(word, load<u32>(word) ^ value)
      offsets += 4
    } while (offsets !== end)
    if (offsets !== end) refill(load<u32>(offsets), WRITE)
    safePoint()
  }
}

/** The same of words that lie at `base` plus the offsets. */
export function rawRewriteAt(base: usize, offsets: usize, count: u32, value: u32): void {
  const last = offsets + (count << 2)
  for (; offsets !== last; offsets += 4) {
    const word = base + load<u32>(offsets)
    store<u32>(word, load<u32>(word) ^ value)
  }
}
