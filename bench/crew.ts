/**
 * Worker threads that read one memory at the same time: each attaches, waits for a command, and works on a part of the indexes.
 *
 * The time of a command is from the first thread's start to the last one's end, by clocks that all threads of the process share. The
 * thread that asks sleeps meanwhile.
 */
import { Worker } from 'node:worker_threads'
import type { MappingHandle, MemoryHandle } from '../src/index.ts'

export const READ_WORDS = 1
export const READ_PAGES = 2
export const REMAP_PAGES = 3
export const READ_FILE_PAGES = 4
const LEAVE = -1

/** Words that the crew shares: the round, what to do, how many are done, and from where to where for each. */
export const ROUND = 0
export const COMMAND = 1
export const DONE = 2
export const SPAN = 4

const WAIT_MS = 120_000

export interface CrewData {
  readonly build: string
  readonly memory: MemoryHandle
  readonly mapping: MappingHandle
  readonly indexes: Int32Array
  /** For READ_FILE_PAGES: the file, and where its pages go. */
  readonly plain?: { readonly path: string; readonly pool: SharedArrayBuffer }
  readonly control: Int32Array
  readonly results: Float64Array
  readonly slot: number
}

export interface CrewRun {
  readonly elapsedNs: number
  /** What each thread that had something to do found. */
  readonly results: readonly number[]
}

export class Crew {
  readonly #control: Int32Array
  readonly #results: Float64Array
  readonly #workers: Worker[]
  #failure: Error | undefined

  private constructor(size: number, options: Omit<CrewData, 'control' | 'results' | 'slot'>) {
    this.#control = new Int32Array(new SharedArrayBuffer((SPAN + 2 * size) * 4))
    this.#results = new Float64Array(new SharedArrayBuffer(size * 4 * 8))
    const shared = { ...options, indexes: shareable(options.indexes), control: this.#control, results: this.#results }
    this.#workers = Array.from({ length: size }, (_, slot) => {
      const workerData: CrewData = { ...shared, slot }
      const worker = new Worker(new URL('./crew-worker.js', import.meta.url), { workerData })
      worker.once('error', error => {
        this.#failure = error as Error
      })
      return worker
    })
  }

  /** Starts so many threads and waits until all have attached. */
  static async start(size: number, options: Omit<CrewData, 'control' | 'results' | 'slot'>): Promise<Crew> {
    const crew = new Crew(size, options)
    const deadline = Date.now() + WAIT_MS
    // The event loop must turn: it is what starts workers and brings their errors.
    while (Atomics.load(crew.#control, DONE) < size) {
      if (crew.#failure !== undefined) throw crew.#failure
      if (Date.now() > deadline) throw new Error('the threads of the benchmark did not start')
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    return crew
  }

  /** Has thread i run a command on `spans[i]`; those without one sit the round out. */
  run(command: number, spans: readonly (readonly [from: number, to: number])[]): CrewRun {
    this.begin(command, spans)
    return this.end(spans)
  }

  begin(command: number, spans: readonly (readonly [from: number, to: number])[]): void {
    const control = this.#control
    for (let slot = 0; slot < this.#workers.length; slot++) {
      const [from, to] = spans[slot] ?? [0, 0]
      control[SPAN + 2 * slot] = from
      control[SPAN + 2 * slot + 1] = to
    }
    control[COMMAND] = command
    Atomics.store(control, DONE, 0)
    Atomics.add(control, ROUND, 1)
    Atomics.notify(control, ROUND)
  }

  /** Whether all have done what `begin` told them. */
  get isDone(): boolean {
    return Atomics.load(this.#control, DONE) >= this.#workers.length
  }

  end(spans: readonly (readonly [from: number, to: number])[]): CrewRun {
    const control = this.#control
    for (let done = 0; done < this.#workers.length; done = Atomics.load(control, DONE)) {
      if (Atomics.wait(control, DONE, done, WAIT_MS) === 'timed-out') throw new Error('a thread of the benchmark hangs')
    }
    const busy = spans.map((_, slot) => slot)
    const starts = busy.map(slot => this.#results[slot * 4 + 1])
    const ends = busy.map(slot => this.#results[slot * 4 + 2])
    return {
      elapsedNs: (Math.max(...ends) - Math.min(...starts)) * 1e6,
      results: busy.map(slot => this.#results[slot * 4])
    }
  }

  /** Sends the threads home. */
  leave(): void {
    this.#control[COMMAND] = LEAVE
    Atomics.add(this.#control, ROUND, 1)
    Atomics.notify(this.#control, ROUND)
  }
}

function shareable(indexes: Int32Array): Int32Array {
  const shared = new Int32Array(new SharedArrayBuffer(indexes.byteLength))
  shared.set(indexes)
  return shared
}
