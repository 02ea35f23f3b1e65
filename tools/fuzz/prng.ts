/** The fuzzer's own source of chance: 32 bits of state, the same numbers everywhere for the same seed. */

export class Prng {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** An integer from 0 to 2^32 - 1: a Weyl sequence through the finalizer of MurmurHash3 (Austin Appleby). */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0
    let h = this.#state
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    return (h ^ (h >>> 16)) >>> 0
  }

  /** An integer from 0 to `n` - 1. */
  below(n: number): number {
    return n <= 1 ? 0 : Math.floor((this.next() / 2 ** 32) * n)
  }

  /** An integer from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]
  }
}
