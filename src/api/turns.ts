/**
 * Turns of those who wait in one thread for pages of stores that answer later (api/ready): together they have no more
 * pages on their way, or just come and not used yet, than a quarter of memory. Who wants more than is left waits, in
 * order, until others are done with theirs. So what one brings does not push out what another one is about to use, and
 * each page is read once.
 */
import type { Machine } from '../mm/machine.ts'
import { unlessAborted } from './pager-host.ts'

interface Waiting {
  readonly pages: number
  readonly go: () => void
}

export class Turns {
  readonly #most: number
  #taken = 0
  #nrHolders = 0
  readonly #waiting: Waiting[] = []

  /** `most`: pages that all have together. */
  constructor(most: number) {
    this.#most = most
  }

  get isIdle(): boolean {
    return this.#nrHolders === 0 && this.#waiting.length === 0
  }

  /** Whether nobody else waits, or has pages: for one that has its turn. */
  get isAlone(): boolean {
    return this.#nrHolders <= 1 && this.#waiting.length === 0
  }

  /**
   * Resolves when these pages may be brought in; `giveBack` follows. More than all are as many as all. Rejects with the
   * signal's reason.
   */
  async take(pages: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#waiting.length === 0 && this.#fits(pages)) {
      this.#add(pages, 1)
      return
    }
    let waiting: Waiting | undefined
    const turn = new Promise<void>(go => {
      waiting = { pages, go }
      this.#waiting.push(waiting)
    })
    try {
      await unlessAborted(turn, signal)
    } catch (reason) {
      const at = this.#waiting.indexOf(waiting as Waiting)
      if (at >= 0) this.#waiting.splice(at, 1)
      else this.#add(pages, -1)
      this.#next()
      throw reason
    }
  }

  giveBack(pages: number): void {
    this.#add(pages, -1)
    this.#next()
  }

  #fits(pages: number): boolean {
    return this.#nrHolders === 0 || this.#taken + pages <= this.#most
  }

  #add(pages: number, sign: 1 | -1): void {
    this.#taken += sign * pages
    this.#nrHolders += sign
  }

  #next(): void {
    while (this.#waiting.length > 0 && this.#fits(this.#waiting[0].pages)) {
      const { pages, go } = this.#waiting.shift() as Waiting
      this.#add(pages, 1)
      go()
    }
  }
}

const known = new WeakMap<Machine, Turns>()

/** This thread's turns on a memory. */
export function turnsOf(m: Machine): Turns {
  const turns = known.get(m) ?? new Turns(Math.max(1, m.ram.nrFrames >>> 2))
  known.set(m, turns)
  return turns
}
