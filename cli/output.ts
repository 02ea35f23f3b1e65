/**
 * Where bytes go: the standard output, or a file that appears whole or not at all.
 *
 * A file is written under another name beside its place, flushed, and renamed at the end; until then what was there before
 * stays. An error or a signal removes it. What is there and is no regular file (a pipe, a terminal) is written to directly.
 */
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { catchSignals, undoAtExit } from './cleanup.ts'
import { UsageError, withPath } from './failure.ts'

export interface Sink {
  /** Takes all of `bytes`, which are the caller's again when the promise resolves. */
  write(bytes: Uint8Array): Promise<void>
  /** Nothing more comes, and all went well. */
  finish(): void
  /** Lets go. Without `finish` before, nothing is left behind. */
  close(): void
}

export const standardOutput: Sink = {
  write: bytes =>
    new Promise((resolve, reject) => {
      process.stdout.write(bytes, error => (error ? reject(error) : resolve()))
    }),
  finish: () => {},
  close: () => {}
}

/** Throws UsageError when the file cannot be made. */
export function fileOutput(path: string): Sink {
  return withPath(path, () => {
    const before = statSync(path, { throwIfNoEntry: false })
    if (before?.isDirectory()) throw new UsageError(`${path}: is a directory`)
    if (before !== undefined && !before.isFile()) return directOutput(path)
    // Through a symbolic link to the file that it names, which the rename would otherwise replace by a file.
    const place = before === undefined ? path : realpathSync(path)
    return replacingOutput(place, before?.mode)
  })
}

function directOutput(path: string): Sink {
  const fd = openSync(path, 'w')
  return { write: async bytes => writeAll(fd, bytes), finish: () => {}, close: () => closeSync(fd) }
}

function replacingOutput(place: string, mode: number | undefined): Sink {
  const temporary = join(dirname(place), `.${basename(place)}.${process.pid}.fremap`)
  catchSignals()
  const fd = openSync(temporary, 'wx')
  const keep = undoAtExit(() => unlinkSync(temporary))
  let open = true
  return {
    write: async bytes => writeAll(fd, bytes),
    finish: () => {
      if (mode !== undefined) fchmodSync(fd, mode & 0o7777)
      fsyncSync(fd)
      open = false
      closeSync(fd)
      renameSync(temporary, place)
      keep()
    },
    close: () => {
      if (open) closeSync(fd)
      open = false
    }
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
}
