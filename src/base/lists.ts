/**
 * Doubly linked lists over rows of words: many lists, each element on at most one of those that share the link words.
 *
 * Elements are numbers from 1; 0 ends a list. Row `id` begins at word `id << shift`; its links are the words `nextWord`
 * and `prevWord` of it. Nothing is checked: adding an element that is on a list, or removing one from a list it is not
 * on, breaks both lists (observe/check finds it).
 */

/** Words that a list's ends take; the last one is free for whoever has the list, to keep what changes with it. */
const LIST_SHIFT = 2
const HEAD = 0
const TAIL = 1
const COUNT = 2
const SPARE = 3

export class Lists {
  /** Head, tail and count of each list: together, because a change of the list touches all three. */
  readonly ends: Int32Array
  readonly #w: Int32Array
  readonly #shift: number
  readonly #nextWord: number
  readonly #prevWord: number

  /** `ends` has `Lists.words(n)` words for n lists. */
  constructor(words: Int32Array, shift: number, nextWord: number, prevWord: number, ends: Int32Array) {
    this.#w = words
    this.#shift = shift
    this.#nextWord = nextWord
    this.#prevWord = prevWord
    this.ends = ends
  }

  static words(nrLists: number): number {
    return nrLists << LIST_SHIFT
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
    return this.ends[(list << LIST_SHIFT) + COUNT]
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
    ends[at + COUNT]++
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
    ends[at + COUNT]++
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
    ends[at + COUNT]--
  }
}
