/**
 * Worker threads that run the guest of guest/ on one memory at the same time: each attaches, waits for a round, and sums the words at its
 * part of the offsets that lie in the guest's memory.
 *
 * The time of a round is from the first thread's start to the last one's end, by clocks that all threads of the process share. The
 * thread that asks sleeps meanwhile.
 */
import { Worker } from 'node:worker_threads'
import type { MappingHandle, MemoryHandle, ShadowHandle } from '../src/index.ts'
import type { GuestMemory } from '../test/support/guest.ts'

/** Words that the crew shares: the round (-1 ends it), how many are done. */
export const ROUND = 0
export const DONE = 1
const WAIT_MS = 120_000

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
  readonly #control = new Int32Array(new SharedArrayBuffer(8))
  readonly #results: Float64Array
  readonly #size: number
  #failure: Error | undefined

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
      const worker = new Worker(new URL('./guest-crew-worker.js', import.meta.url), { workerData })
      worker.once('error', error => {
        crew.#failure = error as Error
      })
    }
    const deadline = Date.now() + WAIT_MS
    // The event loop must turn: it is what starts workers and brings their errors.
    while (Atomics.load(crew.#control, DONE) < size) {
      if (crew.#failure !== undefined) throw crew.#failure
      if (Date.now() > deadline) throw new Error('the threads of the benchmark did not start')
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    return crew
  }

  /** → the time that the round took, and the sum of what the threads found. */
  run(): { elapsedNs: number; sum: number } {
    const control = this.#control
    Atomics.store(control, DONE, 0)
    Atomics.add(control, ROUND, 1)
    Atomics.notify(control, ROUND)
    for (let done = 0; done < this.#size; done = Atomics.load(control, DONE)) {
      if (Atomics.wait(control, DONE, done, WAIT_MS) === 'timed-out') throw new Error('a thread of the benchmark hangs')
    }
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
    Atomics.store(this.#control, ROUND, -1)
    Atomics.notify(this.#control, ROUND)
  }
}
