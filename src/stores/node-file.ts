/**
 * A store over a real file, through Node's synchronous file calls.
 *
 * Offers
 *  - `nodeFile(path, mode)`: opens or creates a file, owns the descriptor.
 *  - `nodeFileFromDescriptor(fd, name)`: a store over a descriptor somebody else opened and will close, such as
 *    one that several worker threads share (descriptors belong to the process, not to the thread).
 *
 * Both throw Node's own errors when the file can't be used; the store they return never throws. Positions and sizes
 * go up to 2^53 - 1. Arguments outside their range give -EINVAL, and a write that would end past 2^53 - 1 -EFBIG.
 * Errors of the system keep their number where `abi/errno` knows it; the others become -EIO.
 *
 * The caller must not
 *  - hand in a descriptor opened for appending: the system then writes at the end, whatever the position. This is
 *    why there is no mode `'a+'`; `'c+'` is what it is usually wanted for;
 *  - take a flush that failed for one that may be tried again. After a failed fsync Linux drops the pages it could
 *    not write from its duties and lets the next fsync succeed, so the store repeats the first error for good.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { EAGAIN, EBADF, EFBIG, EINTR, EINVAL, EIO, EOPNOTSUPP, errnoFromName } from '../abi/errno.ts'
import type { Store, StoreHandle, StoreOpener } from '../store/store.ts'

/**
 * How to open a file.
 *
 * | mode  | the file exists      | it does not | writes |
 * |-------|----------------------|-------------|--------|
 * | `r`   | opened               | ENOENT      | -EBADF |
 * | `r+`  | opened               | ENOENT      | yes    |
 * | `c+`  | opened, bytes kept   | created     | yes    |
 * | `w+`  | cut to size 0        | created     | yes    |
 * | `wx+` | EEXIST               | created     | yes    |
 */
export type NodeFileMode = 'r' | 'r+' | 'c+' | 'w+' | 'wx+'

export interface NodeFileOptions {
  /** What maps, errors and reports call the file. The path as given when absent. */
  readonly name?: string
  /** Permission bits of a file that is created, less the umask. 0o666 when absent. */
  readonly permissions?: number
}

export interface NodeFile extends Store {
  /** The open descriptor, for `nodeFileFromDescriptor` in another thread; -1 once closed. */
  readonly fd: number
}

const MODES: ReadonlyMap<string, number> = new Map([
  ['r', fs.constants.O_RDONLY],
  ['r+', fs.constants.O_RDWR],
  ['c+', fs.constants.O_RDWR | fs.constants.O_CREAT],
  ['w+', fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC],
  ['wx+', fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL]
])

/** Most bytes asked of one system call. Node takes an int32 as the length: it refuses more, or wraps it around. */
const MAX_CALL_BYTES = 0x4000_0000

/** How often one step of a call that makes no progress is tried again. Progress starts the count anew. */
const MAX_RETRIES = 100

/**
 * Opens the regular file at `filePath`. Closing the store closes the file.
 *
 * A file that this call creates has its directory entry flushed as well, so that a later `flush` keeps its promise
 * for the whole file (not on Windows, where directories can't be flushed).
 *
 * @throws what `fs.statSync`, `fs.openSync` and `fs.fsyncSync` throw; in the same shape EISDIR for a directory, ESPIPE
 * for a pipe or socket, EINVAL for a device (its size can't be asked for); TypeError for a mode not in the table.
 */
export function nodeFile(filePath: string | URL, mode: NodeFileMode, options: NodeFileOptions = {}): NodeFile {
  const flags = MODES.get(mode)
  if (flags === undefined) {
    throw new TypeError(`nodeFile: the mode must be one of ${[...MODES.keys()].join(', ')}, not '${mode}'`)
  }
  const local = typeof filePath === 'string' ? filePath : fileURLToPath(filePath)
  // Asked before opening, because opening a pipe waits for its other end and opening a device may act on it.
  const before = fs.statSync(local, { throwIfNoEntry: false })
  if (before !== undefined) requireRegular(before, local)
  const fd = fs.openSync(local, flags, options.permissions ?? 0o666)
  try {
    const stat = fs.fstatSync(fd, { bigint: true })
    requireRegular(stat, local)
    if (before === undefined) flushDirectoryOf(local)
    return new NodeFileStore(
      fd,
      options.name ?? local,
      identityOf(stat),
      mode === 'r' ? 'r' : 'r+',
      'owned',
      mode === 'w+'
    )
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
}

/**
 * A store over the open descriptor `fd` of a regular file, readable and not opened for appending. It is read-only
 * when the descriptor is. Closing the store leaves the descriptor open: it stays its opener's, who must not close
 * it before every such store is closed (the system would give the number to another file).
 *
 * A failed fsync is reported to one caller of those who share a descriptor, so one of them should do the flushing.
 *
 * @throws what `fs.fstatSync`, `fs.readSync` and `fs.writeSync` throw (EBADF, ERR_OUT_OF_RANGE); EISDIR, ESPIPE, EINVAL
 * as `nodeFile`.
 */
export function nodeFileFromDescriptor(fd: number, name: string): NodeFile {
  const stat = fs.fstatSync(fd, { bigint: true })
  requireRegular(stat, name)
  fs.readSync(fd, new Uint8Array(1), 0, 1, 0)
  return new NodeFileStore(fd, name, identityOf(stat), accessOf(fd), 'borrowed')
}

const NODE_FILE = 'node-file'

/**
 * Opens, in another thread of the process, files that one thread opened with `nodeFile`: by its descriptor, which
 * belongs to the process. For `Memory.attach(handle, { stores: [nodeFiles] })`. The thread that opened the file closes
 * it, and must live as long as it is used.
 *
 * What the descriptor stands for by then must be the same file, open for the same: `open` throws ESTALE if it is
 * another file, EBADF if it cannot be written though the file was opened for writing, and the system's error if it
 * means nothing here (descriptors are those of one thread in Deno, where `/proc` finds the file all the same).
 */
export const nodeFiles: StoreOpener = {
  kind: NODE_FILE,
  open: handle => {
    const wanted: Wanted = {
      fd: Number(handle.fd),
      name: String(handle.name),
      access: handle.access === 'r' ? 'r' : 'r+',
      identity: String(handle.identity)
    }
    return reopened(wanted) ?? shared(wanted)
  }
}

/** What a handle says of the file. */
interface Wanted {
  readonly fd: number
  readonly name: string
  readonly access: Access
  readonly identity: string
}

/**
 * On Linux, a descriptor of this thread's own for the file behind `fd`: each call counts the users of what its
 * descriptor stands for, and threads that share that one pass the count to and fro between their processors (100 ns of
 * a read of a page, on a Xeon). Undefined where it cannot be had, or is that of another file.
 */
function reopened({ fd, name, access, identity }: Wanted): NodeFile | undefined {
  if (process.platform !== 'linux') return undefined
  let own = -1
  try {
    own = fs.openSync(`/proc/self/fd/${fd}`, access === 'r' ? fs.constants.O_RDONLY : fs.constants.O_RDWR)
    if (identityOf(fs.fstatSync(own, { bigint: true })) === identity) {
      return new NodeFileStore(own, name, identity, access, 'owned')
    }
  } catch {}
  if (own >= 0) fs.closeSync(own)
  return undefined
}

/** The descriptor itself. */
function shared({ fd, name, access, identity }: Wanted): NodeFile {
  const store = nodeFileFromDescriptor(fd, name)
  if (store.identity !== identity) throw refusal('ESTALE', `descriptor ${fd} is that of another file by now`, name)
  if (access === 'r+' && store.readOnly)
    throw refusal('EBADF', `descriptor ${fd} cannot be written in this thread`, name)
  return store
}

type Access = 'r' | 'r+'
type Ownership = 'owned' | 'borrowed'

class NodeFileStore implements NodeFile {
  readonly name: string
  readonly identity: string
  readonly readOnly: boolean
  readonly durable = true
  readonly isCut: boolean
  readonly handle: StoreHandle
  /** -1 once closed. */
  #fd: number
  /** The -errno of the first fsync that failed, or 0. */
  #flushError = 0
  readonly #ownership: Ownership

  constructor(fd: number, name: string, identity: string, access: Access, ownership: Ownership, isCut = false) {
    this.isCut = isCut
    this.#fd = fd
    this.name = name
    this.identity = identity
    this.readOnly = access === 'r'
    this.#ownership = ownership
    this.handle = { kind: NODE_FILE, fd, name, access, identity }
  }

  get fd(): number {
    return this.#fd
  }

  size(): number {
    if (this.#fd < 0) return -EBADF
    try {
      return fs.fstatSync(this.#fd).size
    } catch (error) {
      return negativeErrno(error)
    }
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.#fd < 0) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    let done = 0
    let retries = 0
    while (done < length) {
      const want = Math.min(length - done, MAX_CALL_BYTES)
      try {
        const got = fs.readSync(this.#fd, buffer, offset + done, want, position + done)
        if (got === 0) break
        done += got
        retries = 0
      } catch (error) {
        const result = negativeErrno(error)
        if (!isTransient(result) || ++retries > MAX_RETRIES) return result
      }
    }
    return done
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    if (this.#fd < 0 || this.readOnly) return -EBADF
    if (!isRange(position, buffer, offset, length)) return -EINVAL
    if (position + length > Number.MAX_SAFE_INTEGER) return -EFBIG
    let done = 0
    let retries = 0
    while (done < length) {
      const want = Math.min(length - done, MAX_CALL_BYTES)
      try {
        const put = fs.writeSync(this.#fd, buffer, offset + done, want, position + done)
        done += put
        if (put > 0) retries = 0
        else if (++retries > MAX_RETRIES) return -EIO
      } catch (error) {
        const result = negativeErrno(error)
        if (!isTransient(result) || ++retries > MAX_RETRIES) return result
      }
    }
    return length
  }

  /** Flushes data and size with fsync (F_FULLFSYNC on macOS). The first failure is final: see the head of the file. */
  flush(): number {
    if (this.#fd < 0) return -EBADF
    if (this.#flushError !== 0) return this.#flushError
    for (let retries = 0; ; ) {
      try {
        fs.fsyncSync(this.#fd)
        return 0
      } catch (error) {
        const result = negativeErrno(error)
        if (!isTransient(result)) {
          this.#flushError = result
          return result
        }
        if (++retries > MAX_RETRIES) return result
      }
    }
  }

  truncate(sizeBytes: number): number {
    if (this.#fd < 0 || this.readOnly) return -EBADF
    if (!isSize(sizeBytes)) return -EINVAL
    for (let retries = 0; ; ) {
      try {
        fs.ftruncateSync(this.#fd, sizeBytes)
        return 0
      } catch (error) {
        const result = negativeErrno(error)
        if (!isTransient(result) || ++retries > MAX_RETRIES) return result
      }
    }
  }

  /** -EOPNOTSUPP: Node has no fallocate. */
  punch(position: number, length: number): number {
    if (this.#fd < 0 || this.readOnly) return -EBADF
    if (!isSize(position) || !isSize(length)) return -EINVAL
    return -EOPNOTSUPP
  }

  close(): number {
    if (this.#fd < 0) return -EBADF
    const fd = this.#fd
    this.#fd = -1
    if (this.#ownership === 'borrowed') return 0
    try {
      fs.closeSync(fd)
      return 0
    } catch (error) {
      // Never tried again: whatever the error, the number may already belong to another file.
      return negativeErrno(error)
    }
  }
}

function isSize(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0
}

/** Node takes a position it can't represent for "here, at the file's own offset", so none may get through. */
function isRange(position: number, buffer: Uint8Array, offset: number, length: number): boolean {
  return isSize(position) && isSize(offset) && isSize(length) && length <= buffer.length - offset
}

function isTransient(result: number): boolean {
  return result === -EINTR || result === -EAGAIN
}

function negativeErrno(error: unknown): number {
  const code = (error as NodeJS.ErrnoException).code
  return -((code === undefined ? undefined : errnoFromName(code)) ?? EIO)
}

function identityOf(stat: fs.BigIntStats): string {
  return `file:${stat.dev}:${stat.ino}`
}

/**
 * What a descriptor that was read from allows, found by writing nothing: a read-only one refuses even that (EPERM on
 * Windows).
 */
function accessOf(fd: number): Access {
  try {
    fs.writeSync(fd, new Uint8Array(0), 0, 0, 0)
    return 'r+'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EBADF' || code === 'EPERM') return 'r'
    throw error
  }
}

type Refusal = 'EBADF' | 'EISDIR' | 'EINVAL' | 'ESPIPE' | 'ESTALE'

function requireRegular(stat: fs.StatsBase<number> | fs.StatsBase<bigint>, filePath: string): void {
  if (stat.isFile()) return
  if (stat.isDirectory()) throw refusal('EISDIR', 'illegal operation on a directory', filePath)
  if (stat.isFIFO() || stat.isSocket()) throw refusal('ESPIPE', 'a pipe or socket has no positions', filePath)
  throw refusal('EINVAL', 'a device is not a regular file', filePath)
}

function refusal(code: Refusal, why: string, filePath: string): NodeJS.ErrnoException {
  const error: NodeJS.ErrnoException = new Error(`${code}: ${why}, open '${filePath}'`)
  error.code = code
  error.errno = -os.constants.errno[code]
  error.syscall = 'open'
  error.path = filePath
  return error
}

/** Makes the entry of a new file durable. The path is resolved: it may be a link into another directory. */
function flushDirectoryOf(filePath: string): void {
  if (process.platform === 'win32') return
  const fd = fs.openSync(path.dirname(fs.realpathSync(filePath)), 'r')
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}
