/**
 * A bitmap with a summary level, to find the next set bit in a large, mostly clear map.
 *
 * Bit i of the map is bit i % 32 of word i / 32; bit w of the summary says that word w is not 0.
 */
export class Bitmap {
  readonly words: Int32Array
  readonly summary: Int32Array
  readonly nrBits: number

  constructor(words: Int32Array, summary: Int32Array, nrBits: number) {
    this.words = words
    this.summary = summary
    this.nrBits = nrBits
  }

  static nrWords(nrBits: number): number {
    return (nrBits + 31) >>> 5
  }

  static nrSummaryWords(nrBits: number): number {
    return (Bitmap.nrWords(nrBits) + 31) >>> 5
  }

  has(bit: number): boolean {
    return (this.words[bit >>> 5] & (1 << (bit & 31))) !== 0
  }

  set(bit: number): void {
    const word = bit >>> 5
    this.words[word] |= 1 << (bit & 31)
    this.summary[word >>> 5] |= 1 << (word & 31)
  }

  clear(bit: number): void {
    const word = bit >>> 5
    const left = this.words[word] & ~(1 << (bit & 31))
    this.words[word] = left
    if (left === 0) this.summary[word >>> 5] &= ~(1 << (word & 31))
  }

  /** The first set bit at or after `from`, or -1. */
  next(from: number): number {
    if (from >= this.nrBits) return -1
    const word = from >>> 5
    const here = this.words[word] & (-1 << (from & 31))
    if (here !== 0) return (word << 5) + lowestBit(here)
    const nrSummary = this.summary.length
    const after = word + 1
    let s = after >>> 5
    if (s >= nrSummary) return -1
    let bits = this.summary[s] & (-1 << (after & 31))
    for (;;) {
      if (bits !== 0) {
        const found = (s << 5) + lowestBit(bits)
        return (found << 5) + lowestBit(this.words[found])
      }
      if (++s >= nrSummary) return -1
      bits = this.summary[s]
    }
  }
}

/** The number of the lowest set bit of a word that is not 0. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word)
}
