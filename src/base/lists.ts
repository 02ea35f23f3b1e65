/**
 * Doubly linked lists over rows of words: many lists, each element on at most one of those that share the link words.
 *
 * Elements are numbers from 1; 0 ends a list. Row `id` begins at word `id << shift`; its links are the words `nextWord`
 * and `prevWord` of it. Each thread counts in a row of its own what it added and removed: a list is as long as the sum
 * says.
 *
 * Nothing is checked: adding an element that is on a list, or removing one from a list it is not on, breaks both lists
 * (observe/check finds it).
 */

/** Words that a list's ends take; the last one is free for whoever has the list, to keep what changes with it. */
const LIST_SHIFT = 2
/** The counts of one thread fill whole cache lines. */
const COUNTS_ALIGN = 16
const HEAD = 0
const TAIL = 1
const SPARE = 3

export class Lists {
  /** Head and tail of each list. */
  readonly ends: Int32Array
  readonly #w: Int32Array
  readonly #shift: number
  readonly #nextWord: number
  readonly #prevWord: number
  /** Counts, a row for each thread; `stride` words a row. */
  readonly counts: Int32Array
  readonly #stride: number
  readonly #mine: number

  /**
   * For n lists, `ends` has `Lists.words(n)` words, `counts` `Lists.countWords(n, threads)`; `thread` is whose counts
   * change.
   */
  constructor(
    words: Int32Array,
    shift: number,
    nextWord: number,
    prevWord: number,
    ends: Int32Array,
    counts: Int32Array,
    thread: number
  ) {
    this.#w = words
    this.#shift = shift
    this.#nextWord = nextWord
    this.#prevWord = prevWord
    this.ends = ends
    this.counts = counts
    this.#stride = strideOf(ends.length >>> LIST_SHIFT)
    this.#mine = thread * this.#stride
  }

  static words(nrLists: number): number {
    return nrLists << LIST_SHIFT
  }

  static countWords(nrLists: number, threads: number): number {
    return strideOf(nrLists) * threads
  }

  /** Index in `ends` of the word of a list that is not used here. */
  static spare(list: number): number {
    return (list << LIST_SHIFT) + SPARE
  }

  /** The first element of a list, or 0; the last one; and how many there are. */
  first(list: number): number {
    return this.ends[(list << LIST_SHIFT) + HEAD]
  }

  last(list: number): number {
    return this.ends[(list << LIST_SHIFT) + TAIL]
  }

  count(list: number): number {
    let sum = 0
    for (let at = list; at < this.counts.length; at += this.#stride) sum += this.counts[at]
    return sum
  }

  /** The element after one that is on a list, or 0; and the one before it. */
  next(id: number): number {
    return this.#w[(id << this.#shift) + this.#nextWord]
  }

  prev(id: number): number {
    return this.#w[(id << this.#shift) + this.#prevWord]
  }

  addHead(list: number, id: number): void {
    const w = this.#w
    const { ends } = this
    const at = list << LIST_SHIFT
    const row = id << this.#shift
    const first = ends[at + HEAD]
    w[row + this.#nextWord] = first
    w[row + this.#prevWord] = 0
    if (first === 0) ends[at + TAIL] = id
    else w[(first << this.#shift) + this.#prevWord] = id
    ends[at + HEAD] = id
    this.counts[this.#mine + list]++
  }

  /** Adds right behind `near`, which is on the list. */
  addAfter(list: number, near: number, id: number): void {
    const w = this.#w
    const row = id << this.#shift
    const at = (near << this.#shift) + this.#nextWord
    const next = w[at]
    w[at] = id
    w[row + this.#prevWord] = near
    w[row + this.#nextWord] = next
    if (next === 0) this.ends[(list << LIST_SHIFT) + TAIL] = id
    else w[(next << this.#shift) + this.#prevWord] = id
    this.counts[this.#mine + list]++
  }

  addTail(list: number, id: number): void {
    const w = this.#w
    const { ends } = this
    const at = list << LIST_SHIFT
    const row = id << this.#shift
    const last = ends[at + TAIL]
    w[row + this.#prevWord] = last
    w[row + this.#nextWord] = 0
    if (last === 0) ends[at + HEAD] = id
    else w[(last << this.#shift) + this.#nextWord] = id
    ends[at + TAIL] = id
    this.counts[this.#mine + list]++
  }

  remove(list: number, id: number): void {
    const w = this.#w
    const { ends } = this
    const at = list << LIST_SHIFT
    const row = id << this.#shift
    const next = w[row + this.#nextWord]
    const prev = w[row + this.#prevWord]
    if (prev === 0) ends[at + HEAD] = next
    else w[(prev << this.#shift) + this.#nextWord] = next
    if (next === 0) ends[at + TAIL] = prev
    else w[(next << this.#shift) + this.#prevWord] = prev
    w[row + this.#nextWord] = 0
    w[row + this.#prevWord] = 0
    this.counts[this.#mine + list]--
  }
}

function strideOf(nrLists: number): number {
  return Math.ceil(nrLists / COUNTS_ALIGN) * COUNTS_ALIGN
}
