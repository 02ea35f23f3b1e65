/**
 * msync (Linux: mm/msync.c, 3.19): with MS_SYNC the dirty pages of each shared mapping reach the store and are flushed
 * before it returns; MS_ASYNC checks its arguments and does nothing, as since 2.6.19.
 *
 * A nonlinear mapping's range says nothing about which file pages it shows, so its whole file is synced.
 */
import { EBUSY, ENOMEM } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { MS_INVALIDATE, MS_SYNC } from '../abi/mman.ts'
import { IN_WINDOWS } from '../cache/writeback.ts'
import { VM_LOCKED, VM_NONLINEAR, VM_SHARED } from '../vma/flags.ts'
import { holdFile, leaveFile } from './files.ts'
import type { Machine } from './machine.ts'
import { VmaParts } from './vma-parts.ts'

/**
 * Syncs [start, end), with the mmap lock held for reading but for the syncs themselves: then the file is held, and what
 * comes after is looked up again. → 0; -ENOMEM if part was unmapped (the rest is done); or the store's error.
 */
export function doMsync(m: Machine, mm: number, generation: number, start: number, end: number, flags: number): number {
  if (!m.lockMmRead(mm, generation)) return -m.refused
  try {
    return msyncLocked(m, mm, generation, start, end, flags)
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

function msyncLocked(m: Machine, mm: number, generation: number, start: number, end: number, flags: number): number {
  const { vmas } = m
  const parts = new VmaParts(m, mm, start, end)
  while (parts.next()) {
    const { vma } = parts
    const vmFlags = vmas.flags[vma]
    if ((flags & MS_INVALIDATE) !== 0 && (vmFlags & VM_LOCKED) !== 0) {
      m.unlockMmRead(mm)
      return -EBUSY
    }
    const file = vmas.file[vma]
    if ((flags & MS_SYNC) !== 0 && file !== 0 && (vmFlags & VM_SHARED) !== 0) {
      const whole = (vmFlags & VM_NONLINEAR) !== 0
      const first = whole ? 0 : vmas.linearIndex(vma, parts.start)
      const last = whole ? MAX_FILE_PAGES : vmas.linearIndex(vma, parts.stop) - 1
      holdFile(m, file)
      m.unlockMmRead(mm)
      if (!m.reenter()) return -m.refused
      const error = leaveFile(m, file, m.writeback.syncFile(file, first, last))
      if (error < 0) return error
      if (!m.lockMmRead(mm, generation)) return -m.refused
    }
  }
  m.unlockMmRead(mm)
  return parts.hasHoles ? -ENOMEM : 0
}

/** fsync on an open file. → 0 or -errno: this sync's error, or one recorded since the file's last sync. */
export function fileSync(m: Machine, file: number): number {
  return m.writeback.syncFile(file, 0, MAX_FILE_PAGES)
}

/**
 * Writes an open file's dirty pages of [first, last], without a flush; errors are recorded in the inode. → 0 or -errno.
 */
export function fileWriteback(m: Machine, file: number, first: number, last: number): number {
  const inode = m.files.inode[file]
  const error = m.inodes.acquire(inode)
  if (error !== 0) return -error
  const result = m.writeback.writeRange(inode, first, last, IN_WINDOWS)
  m.inodes.release(inode)
  return result
}
