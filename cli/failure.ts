/**
 * What can go wrong, as one line for people and an exit code.
 *
 *   2  the command was not right: flags, sizes, plans, files that are missing or cannot be used. Nothing was changed.
 *   1  the command was right and failed: I/O errors, verification, input that does not fit, defects of the program.
 *   0  everything else, a reader that had enough (`| head`) among it.
 */
import { CommanderError } from 'commander'
import { FremapError } from '../src/index.ts'
import { printable } from './format.ts'

/** The command cannot be carried out as it was given. */
export class UsageError extends Error {
  override readonly name: string = 'UsageError'
}

/** The command was carried out as far as it went, and the outcome is not what was asked for. */
export class RunError extends Error {
  override readonly name: string = 'RunError'
}

/** The error codes that a wrong path gives, in words. */
const PATH_ERRORS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EEXIST: 'it exists already',
  EINVAL: 'is a device, not a regular file',
  EISDIR: 'is a directory',
  ELOOP: 'too many symbolic links',
  ENAMETOOLONG: 'the name is too long',
  ENOENT: 'no such file or directory',
  ENOTDIR: 'a part of the path is not a directory',
  ENXIO: 'no such device',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
  ESPIPE: 'is a pipe or socket, not a regular file'
}

/** The error codes of a write that fails, in words. */
const WRITE_ERRORS: Readonly<Record<string, string>> = {
  EDQUOT: 'the quota is used up',
  EFBIG: 'the file would be too large',
  EIO: 'input/output error',
  ENOSPC: 'no space left on the device'
}

/** For what a write to `path` ended with. A reader that has gone stays one (EPIPE). */
export function writeFailure(path: string, error: unknown): unknown {
  if (codeOf(error) === 'EPIPE' || !isSystemError(error)) return error
  return new RunError(`${path}: ${WRITE_ERRORS[codeOf(error)] ?? error.message}`)
}

/** Calls `open`; what it throws about a path becomes a UsageError, anything else (EMFILE, EIO) passes. */
export function withPath<T>(path: string, open: () => T): T {
  try {
    return open()
  } catch (error) {
    const words = PATH_ERRORS[codeOf(error)]
    throw words === undefined ? error : new UsageError(`${path === '' ? "''" : path}: ${words}`)
  }
}

export function codeOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return typeof code === 'string' ? code : ''
}

/** → the line for stderr, empty when there is nothing to say, and the exit code. */
export function describe(error: unknown): { line: string; exitCode: number } {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return { line: '', exitCode: 0 }
    return { line: oneLine(error.message.replace(/^error: /, '')), exitCode: 2 }
  }
  if (error instanceof UsageError) return { line: oneLine(error.message), exitCode: 2 }
  if (isBrokenPipe(error)) return { line: '', exitCode: 0 }
  if (error instanceof RunError || error instanceof FremapError || isSystemError(error)) {
    return { line: oneLine(error.message), exitCode: 1 }
  }
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return { line: `internal error, please report it: ${what}`, exitCode: 1 }
}

function isBrokenPipe(error: unknown): boolean {
  return codeOf(error) === 'EPIPE' && !(error instanceof FremapError)
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string'
}

function oneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, ' '))
}
