/**
 * Worker threads that read one memory at the same time: each attaches, waits for a command, and works on a part of the
 * indexes.
 *
 * The time of a command is from the first thread's start to the last one's end, by clocks that all threads of the
 * process share. The thread that asks sleeps meanwhile.
 */
import type { MappingHandle, MemoryHandle } from '../src/index.ts'
import { allAttached, beginRound, endRound, isRoundOver, ROLL_CALL_WORDS, startThread } from './roll-call.ts'

export const READ_WORDS = 1
export const READ_PAGES = 2
export const REMAP_PAGES = 3
export const READ_FILE_PAGES = 4
const LEAVE = -1

/** Words that the crew shares behind those of the roll call: what to do, and from where to where for each. */
export const COMMAND: number = ROLL_CALL_WORDS
export const SPAN: number = ROLL_CALL_WORDS + 2

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
  readonly #size: number
  readonly #failures: Error[] = []

  private constructor(size: number, options: Omit<CrewData, 'control' | 'results' | 'slot'>) {
    this.#control = new Int32Array(new SharedArrayBuffer((SPAN + 2 * size) * 4))
    this.#results = new Float64Array(new SharedArrayBuffer(size * 4 * 8))
    const shared = { ...options, indexes: shareable(options.indexes), control: this.#control, results: this.#results }
    this.#size = size
    for (let slot = 0; slot < size; slot++) {
      const data: CrewData = { ...shared, slot }
      startThread('./crew-worker.js', data, this.#failures)
    }
  }

  /** Starts so many threads and waits until all have attached. */
  static async start(size: number, options: Omit<CrewData, 'control' | 'results' | 'slot'>): Promise<Crew> {
    const crew = new Crew(size, options)
    await allAttached(crew.#control, size, crew.#failures)
    return crew
  }

  /** Has thread i run a command on `spans[i]`; those without one sit the round out. */
  run(command: number, spans: readonly (readonly [from: number, to: number])[]): CrewRun {
    this.begin(command, spans)
    return this.end(spans)
  }

  begin(command: number, spans: readonly (readonly [from: number, to: number])[]): void {
    const control = this.#control
    for (let slot = 0; slot < this.#size; slot++) {
      const [from, to] = spans[slot] ?? [0, 0]
      control[SPAN + 2 * slot] = from
      control[SPAN + 2 * slot + 1] = to
    }
    control[COMMAND] = command
    beginRound(control)
  }

  /** Whether all have done what `begin` told them. */
  get isDone(): boolean {
    return isRoundOver(this.#control, this.#size)
  }

  end(spans: readonly (readonly [from: number, to: number])[]): CrewRun {
    endRound(this.#control, this.#size)
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
    beginRound(this.#control)
  }
}

function shareable(indexes: Int32Array): Int32Array {
  const shared = new Int32Array(new SharedArrayBuffer(indexes.byteLength))
  shared.set(indexes)
  return shared
}
