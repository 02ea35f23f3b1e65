/**
 * A store that answers when the fuzzer says, oldest call first: whole, with too few bytes, or with an error.
 *
 * Offers `arrive`; `nrAsked`, the reads that wait; `bytes`, which never change.
 */
import { EIO } from '../../src/abi/errno.ts'
import type { AsyncStore } from '../../src/store/async-store.ts'
import type { Arrival } from './ops.ts'

interface Asked {
  readonly position: number
  readonly buffer: Uint8Array
  readonly offset: number
  readonly length: number
  readonly resolve: (count: number) => void
  readonly reject: (error: Error) => void
}

export class LaterStore implements AsyncStore {
  readonly bytes: Uint8Array
  readonly name = 'later'
  readonly identity: string = 'later'
  readonly readOnly = true
  readonly durable = false
  #asked: Asked[] = []

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  get nrAsked(): number {
    return this.#asked.length
  }

  /** The oldest `n` reads come to their end. */
  arrive(n: number, how: Arrival): void {
    for (const asked of this.#asked.splice(0, n)) {
      const { position, buffer, offset, length, resolve, reject } = asked
      if (how === 'fails') {
        reject(Object.assign(new Error('EIO: as planned'), { code: 'EIO' }))
        continue
      }
      const count = how === 'short' ? Math.floor(length / 2) : length
      buffer.set(this.bytes.subarray(position, position + count), offset)
      resolve(count)
    }
  }

  async size(): Promise<number> {
    return this.bytes.length
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number, signal?: AbortSignal): Promise<number> {
    return new Promise((resolve, reject) => {
      const asked = { position, buffer, offset, length, resolve, reject }
      const giveUp = (): void => {
        this.#asked = this.#asked.filter(other => other !== asked)
        reject(signal?.reason as Error)
      }
      signal?.addEventListener('abort', giveUp, { once: true })
      this.#asked.push(asked)
    })
  }

  async write(): Promise<number> {
    return -EIO
  }

  async flush(): Promise<number> {
    return 0
  }

  async truncate(): Promise<number> {
    return -EIO
  }

  async punch(): Promise<number> {
    return -EIO
  }

  async close(): Promise<number> {
    return 0
  }
}
