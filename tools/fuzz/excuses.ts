/**
 * Errors that can be explained: no memory in a small machine, a failure that was planned, a page that is on its way.
 */
import { EAGAIN, EIO, ENOMEM } from '../../src/abi/errno.ts'
import { MM_NR_TABLES } from '../../src/frame/mm-table.ts'
import { Mismatch } from './mismatch.ts'
import type { World } from './world.ts'

/** Bytes that tell where they were written and by which operation. */
export function pattern(fill: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = (fill + i * 7 + (i >>> 8)) | 1
  return bytes
}

/** Whether an error of a call can be explained. */
export function excused(w: World, error: number): boolean {
  if (error === -ENOMEM) {
    if (!w.armed) noteOutOfMemory(w)
    return w.armed || w.isTight
  }
  if (error === -EAGAIN) return mayHaveToWait(w)
  return error === -EIO && w.armed
}

/** Whether some pages are on their way: from a store that answers later, or to another frame. */
export function mayHaveToWait(w: World): boolean {
  return w.later !== undefined || w.held.moving !== undefined
}

/**
 * Frames that one fault or call can need at most: its page, a copy, a slab and paths of tables (three for a fork),
 * pinned ones beside.
 */
const MOST_FRAMES = 20

/**
 * A machine that says it has no memory must have none: what can be freed by force must be less than was needed. Page
 * tables do not count: they may go only now, with the entry of the page that the fault had in hand.
 */
export function noteOutOfMemory(w: World): void {
  w.nrOutOfMemory++
  const before = w.m.allocator.nrFree
  const tables = nrTables(w)
  w.m.quietly(() => w.m.reclaim.shrinkAll())
  const free = w.m.allocator.nrFree - (tables - nrTables(w))
  if (free > MOST_FRAMES) throw new Mismatch(`out of memory with ${before} frames free and ${free - before} to be had`)
}

function nrTables(w: World): number {
  let tables = 0
  for (let mm = 1; mm <= w.m.mms.maxMms; mm++) if (w.m.mms.isAlive(mm)) tables += w.m.mms.row(mm, MM_NR_TABLES)
  return tables
}
