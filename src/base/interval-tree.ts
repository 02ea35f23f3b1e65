/**
 * Interval tree: a treap over columns, ordered by (start, id), each node knowing the largest `last` below it.
 *
 * Many trees share one set of columns; a tree is the id of its root (0 = empty), which the owner keeps. An id is on
 * at most one of those trees. Intervals are closed, [start, last], of integers up to 2^53.
 *
 * Priorities are a hash of the id, so the shape does not depend on the order of insertion, and depth is
 * logarithmic whatever the keys are.
 */
export class IntervalTree {
  readonly start: Float64Array
  readonly last: Float64Array
  readonly maxLast: Float64Array
  readonly left: Int32Array
  readonly right: Int32Array

  constructor(start: Float64Array, last: Float64Array, maxLast: Float64Array, left: Int32Array, right: Int32Array) {
    this.start = start
    this.last = last
    this.maxLast = maxLast
    this.left = left
    this.right = right
  }

  /** Adds [start, last] as `id` and returns the new root. */
  insert(root: number, id: number, start: number, last: number): number {
    this.start[id] = start
    this.last[id] = last
    this.maxLast[id] = last
    this.left[id] = 0
    this.right[id] = 0
    return this.#insert(root, id)
  }

  /** Takes `id` out and returns the new root. It must be on this tree. */
  remove(root: number, id: number): number {
    if (root === id) return this.#join(this.left[id], this.right[id])
    if (this.#before(id, root)) this.left[root] = this.remove(this.left[root], id)
    else this.right[root] = this.remove(this.right[root], id)
    this.#update(root)
    return root
  }

  /** The first node in order whose interval meets [lo, hi], or 0. */
  first(root: number, lo: number, hi: number): number {
    let node = root
    while (node !== 0) {
      const left = this.left[node]
      if (left !== 0 && this.maxLast[left] >= lo) {
        node = left
        continue
      }
      if (this.start[node] > hi) return 0
      if (this.last[node] >= lo) return node
      node = this.right[node]
      if (node !== 0 && this.maxLast[node] < lo) return 0
    }
    return 0
  }

  /** The first node after `id` in order whose interval meets [lo, hi], or 0. `id` is on the tree. */
  after(root: number, id: number, lo: number, hi: number): number {
    // The answer is in the right subtree of `id`, or it is an ancestor we went left at, or right below that one.
    const below = this.right[id]
    if (below !== 0 && this.maxLast[below] >= lo) {
      const found = this.first(below, lo, hi)
      if (found !== 0) return found
    }
    return this.#afterAbove(root, id, lo, hi)
  }

  #afterAbove(node: number, id: number, lo: number, hi: number): number {
    if (node === 0 || node === id) return 0
    if (!this.#before(id, node)) return this.#afterAbove(this.right[node], id, lo, hi)
    const found = this.#afterAbove(this.left[node], id, lo, hi)
    if (found !== 0) return found
    if (this.start[node] > hi) return 0
    if (this.last[node] >= lo) return node
    const right = this.right[node]
    return right !== 0 && this.maxLast[right] >= lo ? this.first(right, lo, hi) : 0
  }

  #insert(root: number, id: number): number {
    if (root === 0) return id
    if (priority(id) > priority(root)) {
      this.#split(root, id)
      this.#update(id)
      return id
    }
    if (this.#before(id, root)) this.left[root] = this.#insert(this.left[root], id)
    else this.right[root] = this.#insert(this.right[root], id)
    this.#update(root)
    return root
  }

  /** Splits the tree at `node` around `id`, leaving the parts as id's children. */
  #split(node: number, id: number): void {
    if (node === 0) {
      this.left[id] = 0
      this.right[id] = 0
    } else if (this.#before(node, id)) {
      this.#split(this.right[node], id)
      this.right[node] = this.left[id]
      this.left[id] = node
      this.#update(node)
    } else {
      this.#split(this.left[node], id)
      this.left[node] = this.right[id]
      this.right[id] = node
      this.#update(node)
    }
  }

  #join(a: number, b: number): number {
    if (a === 0) return b
    if (b === 0) return a
    if (priority(a) > priority(b)) {
      this.right[a] = this.#join(this.right[a], b)
      this.#update(a)
      return a
    }
    this.left[b] = this.#join(a, this.left[b])
    this.#update(b)
    return b
  }

  #update(node: number): void {
    let max = this.last[node]
    const left = this.left[node]
    const right = this.right[node]
    if (left !== 0 && this.maxLast[left] > max) max = this.maxLast[left]
    if (right !== 0 && this.maxLast[right] > max) max = this.maxLast[right]
    this.maxLast[node] = max
  }

  #before(a: number, b: number): boolean {
    const sa = this.start[a]
    const sb = this.start[b]
    return sa < sb || (sa === sb && a < b)
  }
}

/** A mixing of the bits of `id` (the finalizer of MurmurHash3, Austin Appleby, public domain constants). */
function priority(id: number): number {
  let h = id
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
