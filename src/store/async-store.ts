/**
 * The contract of a backing store that answers later: a server, a browser's file system, a database.
 *
 * The same calls as `Store`, with promises, and the same obligations (store.ts). The differences:
 *
 *  1. A call resolves to what the synchronous form returns: a count or 0, or `-errno`. It may also reject; the error's
 *     `code` decides the errno (EIO where it says none), and the error becomes the `cause` of the SIGBUS that an access
 *     ends in.
 *  2. The buffer is plain memory, the store's own until the promise settles.
 *  3. `signal` asks a call to give up. The call rejects then, soon, with the signal's reason; giving up a write may
 *     leave any part of its range old or new.
 *  4. Calls may overlap. A store that cannot have that queues them itself.
 *  5. A store whose bytes turn out to have changed under it (another ETag, another size) answers -ESTALE from then on,
 *     and never a mixture of two versions.
 *  6. `close` ends the calls that are under way: they reject, or give -EBADF, and none is waited for longer than that
 *     takes.
 */

declare global {
  /** The platform's. Named here for floors that compile without its types; they only pass it on. */
  interface AbortSignal {}
}

export interface AsyncStore {
  /** What maps, errors and reports call it, such as a URL. */
  readonly name: string
  /** Equal for two stores over the same bytes, or undefined when it is the only one. */
  readonly identity: string | undefined
  /** True when `write`, `truncate` and `punch` give -EBADF. */
  readonly readOnly: boolean
  /** True when `flush` reaches storage that survives the machine. */
  readonly durable: boolean
  /** The size in bytes now, or -errno. */
  size(signal?: AbortSignal): Promise<number>
  /** Reads into `buffer[offset, offset + length)` from byte `position`. → bytes read, or -errno. */
  read(position: number, buffer: Uint8Array, offset: number, length: number, signal?: AbortSignal): Promise<number>
  /**
   * The same for who does not want them all in one buffer: hands the bytes over as they come, in order and each once. A
   * piece is the taker's own from then on. Optional: a store that has its bytes in pieces anyhow saves a copy by it,
   * and the first pages come sooner. → bytes handed over, or -errno; after an error, those that were are good.
   */
  readPieces?(
    position: number,
    length: number,
    take: (piece: Uint8Array) => void,
    signal?: AbortSignal
  ): Promise<number>
  /** Writes `buffer[offset, offset + length)` at byte `position`. → `length`, or -errno. */
  write(position: number, buffer: Uint8Array, offset: number, length: number, signal?: AbortSignal): Promise<number>
  /** Makes what was written durable. → 0 or -errno. */
  flush(signal?: AbortSignal): Promise<number>
  /** Sets the size. → 0 or -errno. */
  truncate(sizeBytes: number, signal?: AbortSignal): Promise<number>
  /** Makes a range read as zero, size unchanged. → 0 or -errno; -EOPNOTSUPP when it can't. */
  punch(position: number, length: number, signal?: AbortSignal): Promise<number>
  /** Gives the resources back. → 0 or -errno. */
  close(): Promise<number>
}
