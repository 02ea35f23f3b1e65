/**
 * Where bytes go: the standard output, or a file that appears whole or not at all.
 *
 * A file is written under another name beside its place, flushed, and renamed at the end; until then what was there
 * before stays. An error or a signal removes it. Nobody else can read it before it has the permissions of the file that
 * it replaces, and its place is the one that a shell's redirection would write to. What is there and is no regular file
 * (a pipe, a terminal) is written to directly.
 */
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync
} from 'node:fs'
import { basename, dirname, isAbsolute, sep } from 'node:path'
import { isatty } from 'node:tty'
import { catchSignals, undoAtExit } from './cleanup.ts'
import { codeOf, UsageError, withPath, writeFailure } from './failure.ts'

export interface Sink {
  /** Takes all of `bytes`, which are the caller's again when the promise resolves. */
  write(bytes: Uint8Array): Promise<void>
  /** Nothing more comes, and all went well. */
  finish(): void
  /** Lets go. Without `finish` before, nothing is left behind. */
  close(): void
}

const STDOUT = 'standard output'

export const standardOutput: Sink = {
  write: async bytes => {
    if (isFileOutput()) writeAll(1, bytes, STDOUT)
    else {
      await new Promise<void>((resolve, reject) => {
        process.stdout.write(bytes, error => (error ? reject(writeFailure(STDOUT, error)) : resolve()))
      })
    }
  },
  finish: () => {},
  close: () => {}
}

/** Prints a report. Errors of a pipe come as an event (main.ts), all others from here. */
export function print(text: string): void {
  if (isFileOutput()) writeAll(1, Buffer.from(text), STDOUT)
  else process.stdout.write(text)
}

/**
 * Whether the standard output is a file or a device that takes bytes at once. Node's own stream loses what such a one
 * did not take.
 */
function isFileOutput(): boolean {
  const stat = fstatSync(1)
  return stat.isFile() || (stat.isCharacterDevice() && !isatty(1))
}

/** Throws UsageError when the file cannot be made. */
export function fileOutput(path: string): Sink {
  if (path === '') throw new UsageError('the output has an empty name')
  return withPath(path, () => {
    const before = statSync(path, { throwIfNoEntry: false })
    if (before?.isDirectory()) throw new UsageError(`${path}: is a directory`)
    if (before !== undefined && !before.isFile()) return directOutput(path)
    const place = placeOf(path)
    if (place === undefined) return directOutput(path)
    if (before !== undefined) accessSync(place, constants.W_OK)
    return replacingOutput(path, place, before)
  })
}

function directOutput(path: string): Sink {
  const fd = openSync(path, 'w')
  return { write: async bytes => writeAll(fd, bytes, path), finish: () => {}, close: () => closeSync(fd) }
}

/** Linux follows as many. */
const MAX_LINKS = 40

/**
 * Where a file of that name is or would be made: symbolic links are followed, the last one too where it leads to
 * nothing yet. Undefined for a link of /proc, which stands for an open file and not for a name.
 */
function placeOf(path: string): string | undefined {
  let name = path
  for (let links = 0; links <= MAX_LINKS; links++) {
    if (/[/\\]$/.test(name)) throw new UsageError(`${path}: is the name of a directory`)
    // The system's own, as `..` behind a link is not what it looks like.
    const folder = realpathSync.native(dirname(name))
    if (folder.startsWith('/proc/')) return undefined
    const place = folder.endsWith(sep) ? folder + basename(name) : folder + sep + basename(name)
    if (!lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink()) return place
    const target = readlinkSync(place)
    name = isAbsolute(target) ? target : folder + sep + target
  }
  throw new UsageError(`${path}: too many symbolic links`)
}

function replacingOutput(path: string, place: string, before: Stats | undefined): Sink {
  catchSignals()
  const { fd, temporary } = openTemporary(place)
  const keep = undoAtExit(() => unlinkSync(temporary))
  let open = true
  return {
    write: async bytes => writeAll(fd, bytes, path),
    finish: () => {
      try {
        // Owner first, as a change of owner takes permissions away.
        fchmodSync(fd, before === undefined ? 0o666 & ~process.umask() : takeOwner(fd, before))
        fsyncSync(fd)
        open = false
        closeSync(fd)
        renameSync(temporary, place)
      } catch (error) {
        throw writeFailure(path, error)
      }
      keep()
    },
    close: () => {
      if (open) closeSync(fd)
      open = false
    }
  }
}

/** A new file beside `place` that only this user may read. */
function openTemporary(place: string): { fd: number; temporary: string } {
  // Short enough for any name that is short enough itself.
  const stem = `${dirname(place)}${sep}.${basename(place).slice(0, 40)}.${process.pid}`
  for (let nr = 0; ; nr++) {
    const temporary = nr === 0 ? `${stem}.fremap` : `${stem}.${nr}.fremap`
    try {
      return { fd: openSync(temporary, 'wx', 0o600), temporary }
    } catch (error) {
      // Left by a process that was killed and had the same number.
      if (codeOf(error) !== 'EEXIST' || nr > 100) throw error
    }
  }
}

/**
 * Gives the file the owner and group of the one that it replaces. → its permissions, less the group's where it is
 * another group now.
 */
function takeOwner(fd: number, { uid, gid, mode }: Stats): number {
  const now = fstatSync(fd)
  try {
    if (now.uid !== uid || now.gid !== gid) fchownSync(fd, uid, gid)
  } catch {
    return now.gid === gid ? mode & 0o777 : mode & 0o707
  }
  return mode & 0o777
}

function writeAll(fd: number, bytes: Uint8Array, path: string): void {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
  } catch (error) {
    throw writeFailure(path, error)
  }
}
