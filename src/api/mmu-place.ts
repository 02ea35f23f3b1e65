/** What secondary MMUs over a memory's buffer share: where their words may lie, and how a guest of theirs is run. */
import { EPERM } from '../abi/errno.ts'
import type { Ram } from '../frame/ram.ts'
import type { Machine } from '../mm/machine.ts'
import { ShadowGuest } from '../mmu/shadow-guest.ts'
import { T_GUEST } from '../sync/threads.ts'
import { checkAttached } from './belongs.ts'
import { type FremapError, orThrow, systemError } from './errors.ts'

/** Zeroes the place of a table beside the frames. → its first word. Throws RangeError for a place that cannot be. */
export function clearPlace(ram: Ram, byteOffset: number, lengthBytes: number): number {
  const end = byteOffset + lengthBytes
  const ramEnd = ram.byteOffset + ram.nrFrames * ram.pageSize
  if (ramEnd > 2 ** 32) throw new RangeError('the frames must lie below 4 GiB in the guest’s memory')
  if (byteOffset < ramEnd && end > ram.byteOffset) {
    throw new RangeError(`the table at bytes ${byteOffset} to ${end} lies among the frames`)
  }
  const words = new Int32Array(ram.buffer, byteOffset, lengthBytes / 4)
  // Fresh memory is zero, and stays untouched so.
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) words[i] = 0
  return byteOffset / 4
}

/** Runs guests of the secondary MMU `id` in this thread; `words` begin with KICK. */
export function guestOf(machine: Machine, id: number, words: Int32Array): ShadowGuest {
  const { sync } = machine
  return new ShadowGuest({ buffer: words.buffer, byteOffset: words.byteOffset }, 0, {
    words: sync.threads.w,
    at: sync.threads.at(sync.me, T_GUEST),
    inside: id,
    check: () => {
      checkAttached(machine, 'guest')
      orThrow(-sync.broken, 'guest')
    }
  })
}

/** The error for a guest that runs where other threads cannot know of it. */
export function unknownGuest(): FremapError {
  return systemError(-EPERM, 'access', undefined, 'other threads must know of the guest: call it by guest().run()')
}
