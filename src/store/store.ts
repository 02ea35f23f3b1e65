/**
 * The contract of a backing store: what the page cache, and a swap area, ask of the thing that keeps the bytes.
 *
 * A store never throws: a result below zero is `-errno`. It never keeps the buffer it was given: the bytes are
 * in the buffer, or taken from it, when the call returns. Buffers are views of shared memory (SharedArrayBuffer).
 *
 * Obligations
 *  1. `read` fills `length` bytes or, at the end of the store only, fewer; holes read as zero.
 *  2. `write` takes all `length` bytes or fails; on failure any part of the range may hold old or new bytes, and
 *     nothing outside the range changes. Writing past the end extends the store; the gap reads as zero.
 *  3. What was written before a `flush` that returned 0 survives a crash of the process and, if `durable`, of the
 *     machine. What was not flushed may survive in any order, torn at any 512-byte sector.
 *  4. `truncate` cuts or extends to exactly `sizeBytes`; the extension reads as zero, also where there once was data.
 *  5. `punch` makes `[position, position + length)` read as zero and leaves the size; -EOPNOTSUPP when it can't
 *     (the page cache then writes zeros instead).
 *  6. Two stores with the same `identity` are the same bytes: the machine gives them one page cache.
 *  7. After `close` every call gives -EBADF; a second `close` too.
 *  8. A transient interruption (EINTR, a short write that can go on) is retried inside, a bounded number of times.
 *  9. Where threads share a machine, their stores over the same bytes are called at the same time. Calls on different
 *     bytes do not disturb each other; a `truncate` changes nothing below the smaller of both sizes, nor what is
 *     written below `sizeBytes` meanwhile.
 */
/**
 * What a store can be opened by once more in another thread of the process: an object that structured clone takes. An
 * opener that knows the kind makes a store over the same bytes of it.
 */
export interface StoreHandle {
  /** Such as 'node-file'. */
  readonly kind: string
  readonly [field: string]: unknown
}

/** Opens the stores of one kind in this thread. Given to `Memory.attach`. */
export interface StoreOpener {
  readonly kind: string
  /** Throws when it can't. */
  open(handle: StoreHandle): Store
}

export interface Store {
  /** What maps, errors and reports call it, such as a path. */
  readonly name: string
  /** Equal for two stores over the same bytes (`dev:ino` of a file), or undefined when it is the only one. */
  readonly identity: string | undefined
  /** True when `write`, `truncate` and `punch` give -EBADF. */
  readonly readOnly: boolean
  /** True when `flush` reaches storage that survives the machine. */
  readonly durable: boolean
  /** True when opening it has cut off all bytes (O_TRUNC): what a memory still knew of them is gone. Default false. */
  readonly isCut?: boolean
  /** What other threads open it by. Absent when only this thread can reach the bytes. */
  readonly handle?: StoreHandle | undefined
  /** The size in bytes now, as the storage says it (another program may have changed it), or -errno. */
  size(): number
  /** Reads into `buffer[offset, offset + length)` from byte `position`. → bytes read, or -errno. */
  read(position: number, buffer: Uint8Array, offset: number, length: number): number
  /** Writes `buffer[offset, offset + length)` at byte `position`. → `length`, or -errno. */
  write(position: number, buffer: Uint8Array, offset: number, length: number): number
  /** Makes what was written durable. → 0 or -errno. */
  flush(): number
  /** Sets the size. → 0 or -errno. */
  truncate(sizeBytes: number): number
  /** Makes a range read as zero, size unchanged. → 0 or -errno. */
  punch(position: number, length: number): number
  /** Gives the resources back. → 0 or -errno. */
  close(): number
}
