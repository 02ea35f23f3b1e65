/**
 * What the everyday layer throws.
 *
 * FremapError is shaped like Node's system errors: `code`, `errno` (negative), `syscall`, `address`. FaultError is an
 * access that Linux would kill the process for: its `code` is SIGSEGV or SIGBUS, and it says where and why. Wrong
 * arguments of the wrong type or range throw TypeError and RangeError before anything is done.
 */
import { EAGAIN, EFAULT, EIO, ENOMEM, errnoName } from '../abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OOM } from '../abi/fault.ts'
import { escaped } from '../base/printing.ts'
import { MM_MAP_COUNT } from '../frame/mm-table.ts'
import type { Machine } from '../mm/machine.ts'
import type { Mm } from '../syscall/args.ts'

/** What each error number that can come here means. */
export const MEANINGS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EAGAIN: 'try again',
  EBADF: 'bad file',
  EBUSY: 'in use',
  ECANCELED: 'given up',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection broken off',
  EDEADLK: 'called from within another call',
  EEXIST: 'address range in use',
  EFAULT: 'bad address',
  EFBIG: 'file too large',
  EHOSTUNREACH: 'no route to the host',
  EINTR: 'interrupted',
  EINVAL: 'invalid argument',
  EIO: 'input/output error',
  EISDIR: 'a directory',
  ELOOP: 'too many links or redirects',
  EMFILE: 'too many open files',
  ENETUNREACH: 'network not reachable',
  ENFILE: 'file table full',
  ENODEV: 'the memory is closed',
  ENOENT: 'no such file',
  ENOMEM: 'out of memory',
  ENOSPC: 'no space left',
  ENOTRECOVERABLE:
    'an error of fremap itself ended a change half-way, and the memory is broken (memory.salvage saves its files)',
  ENXIO: 'the store cannot be reached',
  EOPNOTSUPP: 'not supported',
  EOVERFLOW: 'too large a number',
  EOWNERDEAD: 'a thread ended in the middle of a change, and the memory is broken (memory.salvage saves its files)',
  EPERM: 'not permitted',
  EPIPE: 'nobody reads',
  EROFS: 'read-only',
  ESRCH: 'the address space has ended',
  ESTALE: 'it has changed under the reader',
  ETIMEDOUT: 'no answer in time'
}

export class FremapError extends Error {
  /** Such as 'EINVAL'; SIGSEGV or SIGBUS for a FaultError. */
  readonly code: string
  /** The error number, negative as in Node. */
  readonly errno: number
  /** The system call that failed, such as 'mmap'. */
  readonly syscall: string
  /** The virtual address, in bytes, where there is one. */
  readonly address: number | undefined

  constructor(code: string, errno: number, syscall: string, message: string, address?: number) {
    // Names of files may have anything in them, and messages end on terminals.
    super(escaped(message))
    this.name = 'FremapError'
    this.code = code
    this.errno = errno
    this.syscall = syscall
    this.address = address
  }

  /** For loggers: what it says, with its fields. */
  toJSON(): object {
    return { ...this, message: this.message }
  }
}

export class FaultError extends FremapError {
  readonly access: 'read' | 'write'
  /** Name of the file behind the address, undefined for anonymous memory or when nothing is mapped. */
  readonly file: string | undefined
  /** The file page that the address shows, undefined where there is none. */
  readonly page: number | undefined
  /** Bytes that a bulk operation had moved before it met this page. */
  readonly bytesDone: number
  /**
   * With code EAGAIN, the number of the parked fault: the page is on its way, see `mapping.ready`. 0 where there is
   * none.
   */
  fault = 0

  constructor(
    code: 'SIGSEGV' | 'SIGBUS' | 'ENOMEM' | 'EAGAIN',
    errno: number,
    message: string,
    address: number,
    access: 'read' | 'write',
    file: string | undefined,
    page: number | undefined,
    bytesDone: number
  ) {
    super(code, errno, access === 'read' ? 'load' : 'store', message, address)
    this.name = 'FaultError'
    this.access = access
    this.file = file
    this.page = page
    this.bytesDone = bytesDone
  }
}

/** The error for a negative result of a system call. `hint` says what to do about it. */
export function systemError(result: number, syscall: string, address?: number, hint?: string): FremapError {
  const code = errnoName(result)
  const where = address === undefined ? '' : ` at address 0x${address.toString(16)}`
  const advice = hint === undefined ? '' : `; ${hint}`
  return new FremapError(
    code,
    result,
    syscall,
    `${code}: ${MEANINGS[code] ?? 'error'}, ${syscall}${where}${advice}`,
    address
  )
}

/** What to say of -ENOMEM where the address space, or all of them together, have as many mappings as they may have. */
export function mapCountHint({ machine, id }: Mm, result: number): string | undefined {
  const { maxMapCount, mms } = machine
  if (result !== -ENOMEM) return undefined
  return mms.row(id, MM_MAP_COUNT) < maxMapCount - 3
    ? vmasHint(machine, 3)
    : `the address space has all the ${maxMapCount} mappings that it may have: see the option maxMapCount`
}

/** What to say where `more` mappings were wanted than there can be. */
export function vmasHint({ vmas }: Machine, more: number): string | undefined {
  if (vmas.nrInUse + more <= vmas.capacity) return undefined
  return `the address spaces have all the ${vmas.capacity} mappings that they may have together: see the option maxVmas`
}

/** Gives a result back if it is not negative, else throws. */
export function orThrow(result: number, syscall: string, address?: number, hint?: string): number {
  if (result < 0) throw systemError(result, syscall, address, hint)
  return result
}

/**
 * The error for an access that this thread would have to wait for: its page is on its way from a store that answers
 * later (`fault` is the number of the parked fault), or another thread is in the middle of a change (0).
 */
export function parkedError(
  fault: number,
  address: number,
  access: 'read' | 'write',
  file: string | undefined,
  page: number | undefined,
  bytesDone: number
): FaultError {
  const what = file === undefined ? '' : ` (page ${page ?? '?'} of ${file})`
  const why = fault === 0 ? 'another thread has it locked' : 'the page is on its way'
  const text = `EAGAIN: ${why}, ${access} at address 0x${address.toString(16)}${what}; await mapping.ready() and try again`
  const error = new FaultError('EAGAIN', -EAGAIN, text, address, access, file, page, bytesDone)
  error.fault = fault
  return error
}

/** The error for a fault code. `storeErrno` is the errno behind a SIGBUS, 0 for the end of the file. */
export function faultError(
  fault: number,
  storeErrno: number,
  address: number,
  access: 'read' | 'write',
  file: string | undefined,
  page: number | undefined,
  bytesDone: number,
  isWriteRefused = false
): FaultError {
  const at = `${access} at address 0x${address.toString(16)}`
  const what = file === undefined ? '' : ` (page ${page ?? '?'} of ${file})`
  if (fault === FAULT_BUS) {
    const doing = isWriteRefused
      ? 'while writing earlier changes of the file, which have to go before there are more; none is lost: mend the store and try again'
      : 'while getting the page'
    const why = storeErrno === 0 ? 'beyond the end of the file' : `${errnoName(storeErrno)} ${doing}`
    const errno = storeErrno === 0 ? -EFAULT : -storeErrno
    return new FaultError('SIGBUS', errno, `SIGBUS: ${why}, ${at}${what}`, address, access, file, page, bytesDone)
  }
  if (fault === FAULT_OOM) {
    const why = 'no frame can be freed: all memory is locked, pinned, or cannot be written back'
    const text = `ENOMEM: ${why}, ${at}${what}; unlock or sync something, or give the memory a larger size or swap`
    return new FaultError('ENOMEM', -ENOMEM, text, address, access, file, page, bytesDone)
  }
  const why = fault === FAULT_MAPERR ? 'nothing is mapped there' : 'the protection forbids it'
  const errno = fault === FAULT_MAPERR || fault === FAULT_ACCERR ? -EFAULT : -EIO
  return new FaultError('SIGSEGV', errno, `SIGSEGV: ${why}, ${at}${what}`, address, access, file, page, bytesDone)
}
