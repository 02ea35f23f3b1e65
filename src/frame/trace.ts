/**
 * The trace ring: the last events of a machine, to see what it did (Linux: ftrace, as little as needed).
 *
 * One event is six words in a ring: sequence number · event · four arguments. Off unless the machine was made with
 * `traceEntries`; then an event costs six stores. `observe/trace` reads it, also from a live machine.
 *
 *  event            arguments
 *  TRACE_FAULT      mm · vpn · access (0 load, 1 store) · fault code (0: done)
 *  TRACE_REMAP      mm · vpn · pages · file page of the first, -1 for a vector
 *  TRACE_EVICT      inode (0: anonymous) · file page or swap slot · frame · -
 *  TRACE_WRITEBACK  inode · first file page · pages · 0 or -errno
 *  TRACE_READ       inode · first file page · pages · 0 or -errno
 *  TRACE_TRUNCATE   inode · pages before · pages after · -
 */
import type { ColumnSource } from './frame-table.ts'

export const TRACE_FAULT = 1 as const
export const TRACE_REMAP = 2 as const
export const TRACE_EVICT = 3 as const
export const TRACE_WRITEBACK = 4 as const
export const TRACE_READ = 5 as const
export const TRACE_TRUNCATE = 6 as const

export const TRACE_WORDS = 6 as const

const T_NEXT = 0

export class Trace {
  /** Events that the ring holds; 0 when tracing is off. */
  readonly nrEntries: number
  readonly isOn: boolean
  readonly ring: Int32Array
  readonly #state: Int32Array

  constructor(columns: ColumnSource, nrEntries: number) {
    this.nrEntries = nrEntries
    this.isOn = nrEntries > 0
    this.ring = columns.int32('trace', nrEntries * TRACE_WORDS)
    this.#state = columns.int32('trace', 1)
  }

  /** Number of the next event; the ring holds the `nrEntries` before it. */
  get next(): number {
    return this.#state[T_NEXT] >>> 0
  }

  add(event: number, a: number, b: number, c: number, d: number): void {
    if (!this.isOn) return
    const seq = this.#state[T_NEXT] >>> 0
    this.#state[T_NEXT] = seq + 1
    const at = (seq % this.nrEntries) * TRACE_WORDS
    this.ring[at] = seq
    this.ring[at + 1] = event
    this.ring[at + 2] = a
    this.ring[at + 3] = b
    this.ring[at + 4] = c
    this.ring[at + 5] = d
  }
}
