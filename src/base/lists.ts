/**
 * Doubly linked lists over columns: many lists, each element on at most one of those that share the columns.
 *
 * Elements are numbers from 1; 0 ends a list. Nothing is checked: adding an element that is on a list, or removing
 * one from a list it is not on, breaks both lists (observe/check finds it).
 */
export class Lists {
  readonly next: Int32Array
  readonly prev: Int32Array
  readonly head: Int32Array
  readonly tail: Int32Array
  readonly count: Int32Array

  constructor(next: Int32Array, prev: Int32Array, head: Int32Array, tail: Int32Array, count: Int32Array) {
    this.next = next
    this.prev = prev
    this.head = head
    this.tail = tail
    this.count = count
  }

  addHead(list: number, id: number): void {
    const first = this.head[list]
    this.next[id] = first
    this.prev[id] = 0
    if (first === 0) this.tail[list] = id
    else this.prev[first] = id
    this.head[list] = id
    this.count[list]++
  }

  addTail(list: number, id: number): void {
    const last = this.tail[list]
    this.prev[id] = last
    this.next[id] = 0
    if (last === 0) this.head[list] = id
    else this.next[last] = id
    this.tail[list] = id
    this.count[list]++
  }

  remove(list: number, id: number): void {
    const next = this.next[id]
    const prev = this.prev[id]
    if (prev === 0) this.head[list] = next
    else this.next[prev] = next
    if (next === 0) this.tail[list] = prev
    else this.prev[next] = prev
    this.next[id] = 0
    this.prev[id] = 0
    this.count[list]--
  }
}
