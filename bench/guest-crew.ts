/**
 * Worker threads that run the guest of guest/ on one memory at the same time: each attaches, waits for a round, and
 * sums the words at its part of the offsets that lie in the guest's memory.
 *
 * The time of a round is from the first thread's start to the last one's end, by clocks that all threads of the process
 * share. The thread that asks sleeps meanwhile.
 */
import type { MappingHandle, MemoryHandle, ShadowHandle } from '../src/index.ts'
import type { GuestMemory } from '../test/support/guest.ts'
import { allAttached, beginRound, endRound, ROLL_CALL_WORDS, startThread } from './roll-call.ts'

/** The word that the crew shares behind those of the roll call: 1 when there is no more to do. */
export const OVER: number = ROLL_CALL_WORDS

export interface GuestCrewData {
  readonly build: string
  readonly binary: Uint8Array
  readonly memory: MemoryHandle
  readonly mapping: MappingHandle
  readonly table: ShadowHandle
  readonly wasm: GuestMemory['memory']
  /** Address of the thread's offsets in the guest's memory, and how many. */
  readonly offsetsAt: number
  readonly count: number
  readonly control: Int32Array
  /** Sum, start and end of the round in ms, for each thread. */
  readonly results: Float64Array
  readonly slot: number
}

type Shared = Omit<GuestCrewData, 'control' | 'results' | 'slot' | 'offsetsAt' | 'count'>

export class GuestCrew {
  readonly #control = new Int32Array(new SharedArrayBuffer((ROLL_CALL_WORDS + 1) * 4))
  readonly #results: Float64Array
  readonly #size: number
  readonly #failures: Error[] = []

  private constructor(size: number) {
    this.#size = size
    this.#results = new Float64Array(new SharedArrayBuffer(size * 3 * 8))
  }

  /** Starts so many threads on equal parts of `count` offsets and waits until all have attached. */
  static async start(size: number, shared: Shared, offsetsAt: number, count: number): Promise<GuestCrew> {
    const crew = new GuestCrew(size)
    const part = count / size
    for (let slot = 0; slot < size; slot++) {
      const place = { offsetsAt: offsetsAt + slot * part * 4, count: part, slot }
      const workerData: GuestCrewData = { ...shared, ...place, control: crew.#control, results: crew.#results }
      startThread('./guest-crew-worker.js', workerData, crew.#failures)
    }
    await allAttached(crew.#control, size, crew.#failures)
    return crew
  }

  /** → the time that the round took, and the sum of what the threads found. */
  run(): { elapsedNs: number; sum: number } {
    beginRound(this.#control)
    endRound(this.#control, this.#size)
    let sum = 0
    let start = Number.POSITIVE_INFINITY
    let end = 0
    for (let at = 0; at < this.#results.length; at += 3) {
      sum = (sum + this.#results[at]) | 0
      start = Math.min(start, this.#results[at + 1])
      end = Math.max(end, this.#results[at + 2])
    }
    return { elapsedNs: (end - start) * 1e6, sum }
  }

  /** Sends the threads home. */
  leave(): void {
    this.#control[OVER] = 1
    beginRound(this.#control)
  }
}
