/**
 * What is handed in must be of this memory, and this thread attached to it still: else an error that says what does not
 * fit.
 */
import { EBADF, EINVAL, ENODEV, ESRCH } from '../abi/errno.ts'
import { fileOf } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import type { Mm } from '../syscall/args.ts'
import { type FremapError, systemError } from './errors.ts'

const HAS_LEFT = 'this thread has detached from it'

/** Throws ENODEV once this thread has detached. */
export function checkAttached(m: Machine, syscall: string): void {
  if (m.hasLeft) throw systemError(-ENODEV, syscall, undefined, HAS_LEFT)
}

/** Throws ENODEV once this thread has detached, ESRCH when the address space has ended. */
export function checkSpace(mm: Mm, syscall: string, address?: number): void {
  if (!mm.isAlive) throw goneError(mm.machine, syscall, address)
}

/** The error for an address space that is not alive. */
export function goneError(m: Machine, syscall: string, address?: number): FremapError {
  return m.hasLeft ? systemError(-ENODEV, syscall, address, HAS_LEFT) : systemError(-ESRCH, syscall, address)
}

/** Throws EINVAL unless `id` is that of this memory. `what` names what it came with. */
export function checkMemory(m: Machine, id: number, syscall: string, what: string): void {
  if (id !== m.id) throw systemError(-EINVAL, syscall, undefined, `${what} is of another memory`)
}

/** What an EBADF of a file is about; undefined where the descriptor is good. */
export function closedHint(m: Machine, fd: number, name: string): string | undefined {
  if (m.hasLeft) return HAS_LEFT
  if (!m.open) return 'the memory is closed'
  return fileOf(m, fd) === 0 ? `${name} is closed` : undefined
}

/** Throws EBADF unless the descriptor is that of an open file. */
export function checkFile(m: Machine, fd: number, syscall: string, name: string): void {
  const hint = closedHint(m, fd, name)
  if (hint !== undefined) throw systemError(-EBADF, syscall, undefined, hint)
}
