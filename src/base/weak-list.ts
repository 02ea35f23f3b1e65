/** Objects that can be told something as long as somebody else has them. */

const FIRST_SWEEP = 64

export class WeakList<T extends object> {
  #refs: WeakRef<T>[] = []
  #sweepAt: number = FIRST_SWEEP

  add(object: T): void {
    if (this.#refs.length >= this.#sweepAt) {
      this.#refs = this.#refs.filter(ref => ref.deref() !== undefined)
      this.#sweepAt = Math.max(FIRST_SWEEP, 2 * this.#refs.length)
    }
    this.#refs.push(new WeakRef(object))
  }

  /** Those that are left, and those that nobody has any more as far as they have not been collected. */
  all(): T[] {
    return this.#refs.map(ref => ref.deref()).filter(object => object !== undefined)
  }
}
