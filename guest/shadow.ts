/**
 * The guest's half of the shadow MMU: from a byte of the window to a byte of this memory.
 *
 * The table lies at SHADOW. One word a page of a 4 GiB window, so that no address is out of its bounds; the word of a
 * page that is not there is 0, and so is what lies beyond the mapping.
 *
 *     31 ................. 12 | 11 .. 2 |   1     0
 *     frame's address in here |    0    | WRITE READ
 *
 *  forLoad, forStore        an address here for a byte of the window, asking the host if need be
 *  entryOf, place, refill   the same in parts: a loop that leaves itself to refill holds no call, and keeps its
 *                           variables in registers
 *  safePoint                what the host of another thread waits for
 *
 * An address or entry is good until the next call of the host: a fault, or `safePoint`. Nothing may be kept across
 * those.
 */
import { fault, passed } from './host'

export const PAGE_SHIFT: u32 = 12
export const PAGE_SIZE: u32 = 1 << PAGE_SHIFT
const OFFSET_MASK: u32 = PAGE_SIZE - 1

export const SHADOW: usize = 0x10000
const KICK: usize = SHADOW
const ENTRIES: usize = SHADOW + 64

export const READ: u32 = 1
/** A store needs it, so that the host knows that the page is dirty. It never stands without READ. */
export const WRITE: u32 = 2

/**
 * The entry of the page of byte `at`. By Atomics, as another thread's host fills it: what is in the page is seen, too.
 */
// @ts-ignore: AssemblyScript decorates functions
@inline
export function entryOf(at: u32): u32 {
  return atomic.load<u32>((at >>> PAGE_SHIFT) << 2, ENTRIES)
}

/** The address here of byte `at`, whose page has this entry. */
// @ts-ignore: AssemblyScript decorates functions
@inline
export function place(entry: u32, at: u32): usize {
  return (entry & ~OFFSET_MASK) | (at & OFFSET_MASK)
}

/** Asks the host until the entry allows the access, and gives it. What the host filled may be gone when it answers. */
export function refill(at: u32, need: u32): u32 {
  let entry: u32
  do {
    fault(at >>> PAGE_SHIFT, need)
    entry = entryOf(at)
  } while ((entry & need) === 0)
  return entry
}

/** The address here of byte `at`, to load from. */
// @ts-ignore: AssemblyScript decorates functions
@inline
export function forLoad(at: u32): usize {
  let entry = entryOf(at)
  if ((entry & READ) === 0) entry = refill(at, READ)
  return place(entry, at)
}

/** The same to store to. */
// @ts-ignore: AssemblyScript decorates functions
@inline
export function forStore(at: u32): usize {
  let entry = entryOf(at)
  if ((entry & WRITE) === 0) entry = refill(at, WRITE)
  return place(entry, at)
}

/** At least once in any loop, and never while an address or entry is in use. */
// @ts-ignore: AssemblyScript decorates functions
@inline
export function safePoint(): void {
  if (atomic.load<u32>(KICK) !== 0) passed()
}
