/** Why a store could not do what it was asked for: what errors carry as their `cause`. */
import { EBADF, EIO, ENXIO, EOWNERDEAD } from '../abi/errno.ts'
import { fileOf } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { closedHint } from './belongs.ts'
import { type FremapError, systemError } from './errors.ts'

/**
 * Of a failure of a store that answers later: the store's error in the thread that had it, its message in others.
 * `failure` is -1 for none.
 */
export function causeOf(m: Machine, failure: number, errno: number): unknown {
  if (failure < 0) {
    const isGone = errno === EOWNERDEAD && m.sync.broken === 0
    return isGone ? new Error('the thread that brought the pages of this file has ended') : undefined
  }
  const known = m.pager?.causeOf(failure)
  if (known !== undefined) return known
  const why = m.filler.requests.whyOf(failure)
  return why === '' ? undefined : new Error(why)
}

/**
 * Of an `errno` that a store which answers at once has given this thread just now: what it threw, or why this thread
 * cannot reach it. Undefined where the errno was its answer.
 */
export function thrownBy(m: Machine, inode: number, errno: number): unknown {
  return errno === EIO || errno === ENXIO ? m.inodes.stores.known(inode)?.lastThrown : undefined
}

/** The error for the negative result of a system call on an open file, with its cause. */
export function fileError(
  m: Machine,
  fd: number,
  name: string,
  result: number,
  syscall: string,
  hint: string | undefined = result === -EBADF ? closedHint(m, fd, name) : undefined
): FremapError {
  const error = systemError(result, syscall, undefined, hint)
  const inode = m.files.inode[fileOf(m, fd)]
  const cause = causeOf(m, m.lastFailure, -result) ?? thrownBy(m, inode, -result)
  m.lastFailure = -1
  if (cause !== undefined) error.cause = cause
  return error
}
