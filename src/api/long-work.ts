/** What long calls have in common: progress, abort, and turns of the event loop in between. */
export interface Progress {
  readonly doneBytes: number
  readonly totalBytes: number
}

export interface LongOptions {
  /** Aborts between two steps: the promise rejects with the signal's reason, and what was done stays done. */
  readonly signal?: AbortSignal
  /** Called after each step. */
  readonly onProgress?: (progress: Progress) => void
}

/** Work goes on for this long before the event loop gets a turn. */
const SLICE_MS = 8

export class LongWork {
  readonly totalBytes: number
  readonly #options: LongOptions
  #doneBytes = 0
  #sliceEndMs: number

  constructor(totalBytes: number, options: LongOptions) {
    this.totalBytes = totalBytes
    this.#options = options
    this.#sliceEndMs = performance.now() + SLICE_MS
    options.signal?.throwIfAborted()
  }

  /** Notes that `bytes` more are done; lets others run if it is time; throws if aborted. */
  async step(bytes: number): Promise<void> {
    this.#doneBytes += bytes
    this.#options.onProgress?.({ doneBytes: this.#doneBytes, totalBytes: this.totalBytes })
    if (performance.now() >= this.#sliceEndMs) {
      await new Promise<void>(resolve => setTimeout(resolve, 0))
      this.#sliceEndMs = performance.now() + SLICE_MS
    }
    this.#options.signal?.throwIfAborted()
  }
}
