/**
 * The seeded inputs of the benchmark: what is read, in which order, and what the pages hold.
 *
 * `bench/linux/nonlinear.c` makes the same permutation, calls, stamps and checksums from the same seed; its head
 * describes them. A change here is a change there.
 */

/** The seed of every input. Any non-zero 32-bit number would do. */
export const SEED = 20020514

/** xorshift32. Gives the next unsigned 32-bit number at each call. */
export function xorshift32(seed: number): () => number {
  let x = seed | 0
  if (x === 0) throw new RangeError('xorshift32 needs a seed other than 0')
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return x >>> 0
  }
}

/** A permutation of 0 .. n-1. */
export function permutation(n: number, seed: number = SEED): Int32Array {
  const next = xorshift32(seed)
  const p = new Int32Array(n)
  for (let i = 0; i < n; i++) p[i] = i
  for (let i = n - 1; i > 0; i--) {
    const j = next() % (i + 1)
    const t = p[i]
    p[i] = p[j]
    p[j] = t
  }
  return p
}

/** `count` numbers below `bound`, with repetition. */
export function uniform(count: number, bound: number, seed: number = SEED): Int32Array {
  const next = xorshift32(seed)
  const values = new Int32Array(count)
  for (let i = 0; i < count; i++) values[i] = next() % bound
  return values
}

/** Random one-page remap calls: window page `at[k]` is to show file page `page[k]`. */
export function remapCalls(pages: number, calls: number, seed: number = SEED): { at: Int32Array; page: Int32Array } {
  const drawn = uniform(calls * 2, pages, seed)
  const at = new Int32Array(calls)
  const page = new Int32Array(calls)
  for (let k = 0; k < calls; k++) {
    at[k] = drawn[2 * k]
    page[k] = drawn[2 * k + 1]
  }
  return { at, page }
}

/** The word that stands at the start of file page `page`, and word `page` of a file of words. */
export function stamp(page: number): number {
  return (Math.imul(page, 0x9e3779b1) + 1) >>> 0
}

/** One step of the order-sensitive checksum, on int32; show it with `>>> 0`. */
export function fold(checksum: number, word: number): number {
  return (Math.imul(checksum, 31) + (word | 0)) | 0
}
