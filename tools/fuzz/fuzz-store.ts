/**
 * The stores that the fuzzer gives to a machine: one inner store each, that stays open when the machine closes it, so
 * that what really reached it can be read back, and so that it can be opened again.
 *
 * `failRead` and `failWrite` count down with each call; the call that brings one to zero fails with EIO.
 */
import { EIO } from '../../src/abi/errno.ts'
import type { Store, StoreHandle } from '../../src/store/store.ts'

/** The kind by which other threads open one. */
export const FUZZ_STORE = 'fuzz'

export class FuzzStore implements Store {
  readonly inner: Store
  readonly name: string
  readonly identity: string
  readonly readOnly = false
  readonly durable = false
  readonly handle: StoreHandle
  failRead = 0
  failWrite = 0
  /** Failures given since the counter was last set to 0. */
  nrFailed = 0

  /** `f` is the number of its file. */
  constructor(inner: Store, name: string, f = -1) {
    this.inner = inner
    this.handle = { kind: FUZZ_STORE, f }
    this.name = name
    this.identity = name
  }

  size(): number {
    return this.inner.size()
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.failRead > 0 && --this.failRead === 0) return this.#fail()
    return this.inner.read(position, buffer, offset, length)
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.failWrite > 0 && --this.failWrite === 0) return this.#fail()
    return this.inner.write(position, buffer, offset, length)
  }

  flush(): number {
    return this.inner.flush()
  }

  truncate(sizeBytes: number): number {
    return this.inner.truncate(sizeBytes)
  }

  punch(position: number, length: number): number {
    return this.inner.punch(position, length)
  }

  close(): number {
    return 0
  }

  #fail(): number {
    this.nrFailed++
    return -EIO
  }
}
