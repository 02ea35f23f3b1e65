/**
 * How far the process grew, as the system sees it.
 *
 * Linux knows the highest resident size of the program itself (VmHWM). Its ru_maxrss will not do: it begins with the
 * size of the process that started this one. Elsewhere the largest of the samples stands in.
 */
import { readFileSync } from 'node:fs'

/** What Node itself may grow by beside the budget: heap, compiled code, buffers of the command line. */
export const NODE_SHARE_BYTES: number = 32 * 2 ** 20

export class PeakRss {
  readonly #start: number = process.memoryUsage.rss()
  #highest: number = this.#start

  sample(): void {
    this.#highest = Math.max(this.#highest, process.memoryUsage.rss())
  }

  /** Bytes that the process grew by at most since this object was made. */
  growth(): number {
    this.sample()
    return Math.max(this.#highest, highWaterMark()) - this.#start
  }
}

/** Bytes, or 0 where the system does not tell. */
function highWaterMark(): number {
  try {
    const found = /^VmHWM:\s*([0-9]+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))
    return found === null ? 0 : Number(found[1]) * 1024
  } catch {
    return 0
  }
}
