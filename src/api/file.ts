/**
 * MappedFile: an open file of a Memory, to map, and to read and write by position. Both agree at every moment.
 *
 * Made by `memory.open(store)` and `memory.shared(bytes)`. Mappings keep working after `close`.
 */

import { EAGAIN } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  POSIX_FADV_DONTNEED,
  POSIX_FADV_NORMAL,
  POSIX_FADV_RANDOM,
  POSIX_FADV_SEQUENTIAL,
  POSIX_FADV_WILLNEED
} from '../abi/mman.ts'
import { checkReachable, plainBytes } from '../base/bytes.ts'
import { defineHidden, inspectedAs, summary } from '../base/printing.ts'
import { DIRTY } from '../cache/inodes.ts'
import { F_INDEX } from '../frame/frame-table.ts'
import { fileOf, onFile } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { fileWriteback } from '../mm/msync.ts'
import {
  sys_close,
  sys_fadvise,
  sys_fallocate,
  sys_fsize,
  sys_fsync,
  sys_ftruncate,
  sys_pread,
  sys_pwrite
} from '../syscall/file.ts'
import { checkFile } from './belongs.ts'
import { fileError } from './causes.ts'
import { orThrow } from './errors.ts'
import type { FileHandle } from './handles.ts'
import { type LongOptions, LongWork } from './long-work.ts'
import type { Range } from './mapping.ts'
import { readFileLater } from './ready.ts'
import { bytesIn, parseSize } from './size.ts'

export type FileAdvice = 'normal' | 'random' | 'sequential' | 'willneed' | 'dontneed'

const ADVICE: Readonly<Record<FileAdvice, number>> = {
  normal: POSIX_FADV_NORMAL,
  random: POSIX_FADV_RANDOM,
  sequential: POSIX_FADV_SEQUENTIAL,
  willneed: POSIX_FADV_WILLNEED,
  dontneed: POSIX_FADV_DONTNEED
}

export class MappedFile {
  static {
    inspectedAs(MappedFile, file => {
      const { name, writable, isOpen } = file
      return summary('MappedFile', { name, size: isOpen ? file.size : undefined, writable }, isOpen ? '' : 'closed')
    })
  }

  /** The store's name, such as its path. */
  readonly name: string
  readonly writable: boolean
  /** The descriptor, for the system-call layer; -1 once closed. The number is never given to another file. */
  fd: number
  /** @internal */
  declare readonly machine: Machine

  /** @internal Use `memory.open` or `memory.shared`. */
  constructor(machine: Machine, fd: number, name: string, writable: boolean) {
    defineHidden(this, { machine })
    this.fd = fd
    this.name = name
    this.writable = writable
  }

  /** What another thread adopts this file by (`memory.adopt`): structured-cloneable. */
  get handle(): FileHandle {
    return { kind: 'file', memory: this.machine.id, fd: this.fd, name: this.name, writable: this.writable }
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    const { name, writable, isOpen } = this
    return { kind: 'file', name, size: isOpen ? this.size : null, writable, isOpen }
  }

  /** False once it is closed, or its memory is. */
  get isOpen(): boolean {
    return this.fd >= 0 && sys_fsize(this.machine, this.fd) >= 0
  }

  /** Size in bytes. Throws EBADF when the file is closed, by whatever object or thread. */
  get size(): number {
    return this.orThrow(sys_fsize(this.machine, this.fd), 'fstat')
  }

  /** Pages with changes that the store does not have yet; 0 when it is closed. */
  get dirtyPages(): number {
    const file = fileOf(this.machine, this.fd)
    return file === 0 ? 0 : this.machine.cache.nrDirty(this.machine.files.inode[file])
  }

  /**
   * Copies bytes from `position` on into `target`. → bytes read: fewer than `target.length` at the end of the file
   * only. Throws EBADF, or the store's error; what lies before the page that failed has been copied then.
   */
  read(target: Uint8Array, position: number | bigint): number {
    const bytes = plainBytes(target)
    const { length } = bytes
    let done = 0
    // A part may end at the end of the file, or before a page that failed: the next one tells.
    for (;;) {
      const rest = done === 0 ? bytes : bytes.subarray(done)
      const got = sys_pread(this.machine, this.fd, rest, done === 0 ? position : after(position, done))
      checkReachable(bytes, length)
      const hint = got === -EAGAIN ? 'the page is on its way: await file.readAsync() instead' : undefined
      if (got < 0) throw fileError(this.machine, this.fd, this.name, got, 'pread', hint)
      done += got
      if (got === 0 || done === length) return done
    }
  }

  /**
   * `read` that waits, without blocking, for pages of a store that answers later. Rejects with the store's error as
   * `cause`, or with the signal's reason.
   */
  async readAsync(target: Uint8Array, position: number | bigint, options: LongOptions = {}): Promise<number> {
    return readFileLater(this, plainBytes(target), position, options)
  }

  /**
   * Copies all of `source` to the file at `position`, extending it. → `source.length`. Throws EBADF, EFBIG, ENOSPC, the
   * store's error; what lies before the page that failed has been written then.
   */
  write(source: Uint8Array, position: number | bigint): number {
    const bytes = plainBytes(source)
    const { length } = bytes
    let done = 0
    for (;;) {
      const rest = done === 0 ? bytes : bytes.subarray(done)
      const put = sys_pwrite(this.machine, this.fd, rest, done === 0 ? position : after(position, done))
      checkReachable(bytes, length)
      done += this.orThrow(put, 'pwrite')
      if (put === 0 || done === length) return done
    }
  }

  /** Sets the size, in bytes or like '8KiB'. Mapped pages beyond it fault with SIGBUS until the file grows back. */
  truncate(size: number | bigint | string): void {
    this.orThrow(sys_ftruncate(this.machine, this.fd, quantityOf(size)), 'ftruncate')
  }

  /** Makes a range of bytes read as zero and gives its pages back; the size stays. */
  punch(position: number | bigint, length: number | bigint | string): void {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    this.orThrow(sys_fallocate(this.machine, this.fd, mode, position, quantityOf(length)), 'fallocate')
  }

  /**
   * Takes room for a range of bytes: the file grows to its end, unless `keepSize` is there, and shared memory gets its
   * pages. (A store is not asked for room: a file of one grows.) What is there stays. Throws ENOSPC (quota), ENOMEM,
   * EFBIG, EBADF, the store's error.
   */
  allocate(position: number | bigint, length: number | bigint | string, options: { keepSize?: boolean } = {}): void {
    const mode = options.keepSize === true ? FALLOC_FL_KEEP_SIZE : 0
    this.orThrow(sys_fallocate(this.machine, this.fd, mode, position, quantityOf(length)), 'fallocate')
  }

  /**
   * Makes a range of bytes read as zero; the file grows to its end, unless `keepSize` is there. Throws as `allocate`.
   */
  zero(position: number | bigint, length: number | bigint | string, options: { keepSize?: boolean } = {}): void {
    const mode = FALLOC_FL_ZERO_RANGE | (options.keepSize === true ? FALLOC_FL_KEEP_SIZE : 0)
    this.orThrow(sys_fallocate(this.machine, this.fd, mode, position, quantityOf(length)), 'fallocate')
  }

  /**
   * Tells how the file will be used. 'random', 'sequential', 'normal': by reads, and by mappings without an advice of
   * their own, all of it. 'willneed': bytes [offset, offset + length), to the end without a length, are read ahead.
   * 'dontneed': they are written if they are dirty, and leave memory where nobody has them mapped. Throws EBADF,
   * EINVAL.
   */
  advise(advice: FileAdvice, range: Range = {}): void {
    const code = ADVICE[advice]
    if (code === undefined)
      throw new TypeError(`${String(advice)} is no advice; it is one of ${Object.keys(ADVICE).join(', ')}`)
    this.orThrow(
      sys_fadvise(this.machine, this.fd, bytesIn(range.offset ?? 0), bytesIn(range.length ?? 0), code),
      'fadvise'
    )
  }

  /**
   * Writes all changes and returns when the store has flushed them. Throws the store's error, or one from an earlier
   * background write, once. Pages that could not be written stay dirty, so a later sync can succeed.
   */
  sync(): void {
    this.orThrow(sys_fsync(this.machine, this.fd), 'fsync')
  }

  /** `sync` in steps that leave the event loop free, with progress in bytes. An abort leaves the rest dirty. */
  async syncAsync(options: LongOptions = {}): Promise<void> {
    const { machine, fd } = this
    const file = fileOf(machine, fd)
    if (file === 0) return this.sync()
    const inode = machine.files.inode[file]
    const { pageSize } = machine.ram
    const work = new LongWork(machine.cache.nrDirty(inode) * pageSize, options)
    const pages = machine.cache
      .collect(inode, 0, MAX_FILE_PAGES, DIRTY)
      .map(frame => machine.frames.row(frame, F_INDEX))
    const stepPages = Math.max(1, (4 << 20) / pageSize)
    for (let i = 0; i < pages.length && fileOf(machine, fd) === file; i += stepPages) {
      const last = pages[Math.min(i + stepPages, pages.length) - 1]
      // Errors are recorded in the inode; the sync at the end reports them.
      onFile(machine, fd, file, () => fileWriteback(machine, file, pages[i], last))
      await work.step(Math.min(stepPages, pages.length - i) * pageSize)
    }
    this.sync()
  }

  /**
   * Closes the file; the last close of it writes what is dirty, and throws if that fails. A second close by this object
   * does nothing; EBADF if another object or thread has closed it.
   */
  close(): void {
    if (this.fd < 0) return
    const { machine, fd } = this
    this.fd = -1
    checkFile(machine, fd, 'close', this.name)
    orThrow(sys_close(machine, fd), 'close')
  }

  [Symbol.dispose](): void {
    this.close()
  }

  private orThrow(result: number, syscall: string): number {
    if (result < 0) throw fileError(this.machine, this.fd, this.name, result, syscall)
    return result
  }
}

function after(position: number | bigint, bytes: number): number | bigint {
  return typeof position === 'bigint' ? position + BigInt(bytes) : position + bytes
}

function quantityOf(size: number | bigint | string): number | bigint {
  return typeof size === 'string' ? parseSize(size) : size
}
