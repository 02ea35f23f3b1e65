/**
 * Doubly linked lists over rows of words: many lists, each element on at most one of those that share the link words.
 *
 * Elements are numbers from 1; 0 ends a list. Row `id` begins at word `id << shift`; its links are the words `nextWord`
 * and `prevWord` of it. Nothing is checked: adding an element that is on a list, or removing one from a list it is not
 * on, breaks both lists (observe/check finds it).
 */
export class Lists {
  readonly head: Int32Array
  readonly tail: Int32Array
  readonly count: Int32Array
  readonly #w: Int32Array
  readonly #shift: number
  readonly #nextWord: number
  readonly #prevWord: number

  constructor(
    words: Int32Array,
    shift: number,
    nextWord: number,
    prevWord: number,
    head: Int32Array,
    tail: Int32Array,
    count: Int32Array
  ) {
    this.#w = words
    this.#shift = shift
    this.#nextWord = nextWord
    this.#prevWord = prevWord
    this.head = head
    this.tail = tail
    this.count = count
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
    const row = id << this.#shift
    const first = this.head[list]
    w[row + this.#nextWord] = first
    w[row + this.#prevWord] = 0
    if (first === 0) this.tail[list] = id
    else w[(first << this.#shift) + this.#prevWord] = id
    this.head[list] = id
    this.count[list]++
  }

  addTail(list: number, id: number): void {
    const w = this.#w
    const row = id << this.#shift
    const last = this.tail[list]
    w[row + this.#prevWord] = last
    w[row + this.#nextWord] = 0
    if (last === 0) this.head[list] = id
    else w[(last << this.#shift) + this.#nextWord] = id
    this.tail[list] = id
    this.count[list]++
  }

  remove(list: number, id: number): void {
    const w = this.#w
    const row = id << this.#shift
    const next = w[row + this.#nextWord]
    const prev = w[row + this.#prevWord]
    if (prev === 0) this.head[list] = next
    else w[(prev << this.#shift) + this.#nextWord] = next
    if (next === 0) this.tail[list] = prev
    else w[(next << this.#shift) + this.#prevWord] = prev
    w[row + this.#nextWord] = 0
    w[row + this.#prevWord] = 0
    this.count[list]--
  }
}
