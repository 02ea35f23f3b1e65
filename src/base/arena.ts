/**
 * Arena: hands out the typed arrays of a machine from one SharedArrayBuffer, in a fixed order.
 *
 * Every room takes its columns here by name. The same sequence of requests gives the same layout, which is how a
 * second thread attaches to a machine: it replays the requests over the buffer it was sent. The sequence is run
 * once with no buffer to learn the size.
 *
 * Alignment is 64 bytes (a cache line), so that no two columns share one.
 */
const ALIGN = 64

export interface ArenaPart {
  readonly name: string
  readonly bytes: number
}

export class Arena {
  readonly parts: ArenaPart[] = []
  readonly buffer: SharedArrayBuffer | undefined
  #cursorBytes = 0

  private constructor(buffer: SharedArrayBuffer | undefined) {
    this.buffer = buffer
  }

  /** An arena that only counts: its arrays have no elements. */
  static measuring(): Arena {
    return new Arena(undefined)
  }

  /** An arena over a buffer of at least the bytes that a measuring run counted. */
  static over(buffer: SharedArrayBuffer): Arena {
    return new Arena(buffer)
  }

  get usedBytes(): number {
    return this.#cursorBytes
  }

  int32(name: string, length: number): Int32Array {
    const at = this.#take(name, length * 4)
    return this.buffer === undefined ? new Int32Array(0) : new Int32Array(this.buffer, at, length)
  }

  float64(name: string, length: number): Float64Array {
    const at = this.#take(name, length * 8)
    return this.buffer === undefined ? new Float64Array(0) : new Float64Array(this.buffer, at, length)
  }

  #take(name: string, bytes: number): number {
    const at = this.#cursorBytes
    this.#cursorBytes = at + Math.ceil(bytes / ALIGN) * ALIGN
    this.parts.push({ name, bytes })
    return at
  }
}
