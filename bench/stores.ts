/** A store that keeps nothing: what remains of a figure is the machine's own work. */
import type { Store } from './subject.ts'

/** Reads as zero, forgets what is written. */
export class NullStore implements Store {
  readonly name = 'nothing'
  readonly identity: undefined
  readonly readOnly = false
  readonly durable = false
  #sizeBytes: number

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
  }

  size(): number {
    return this.#sizeBytes
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const end = Math.max(offset, Math.min(offset + length, offset + this.#sizeBytes - position))
    buffer.fill(0, offset, end)
    return end - offset
  }

  write(_position: number, _buffer: Uint8Array, _offset: number, length: number): number {
    return length
  }

  flush(): number {
    return 0
  }

  truncate(sizeBytes: number): number {
    this.#sizeBytes = sizeBytes
    return 0
  }

  punch(): number {
    return 0
  }

  close(): number {
    return 0
  }
}
