/**
 * mlock, munlock, mlockall, munlockall (Linux: mm/mlock.c, 3.19; MLOCK_ONFAULT as in 4.4).
 *
 * These change vma flags under the lock; making the pages resident is mm_populate's, afterwards, by the caller.
 */
import { ENOMEM } from '../abi/errno.ts'
import { MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT } from '../abi/mman.ts'
import { MM_DEF_FLAGS, MM_LOCKED_VM, MM_SHIFT } from '../frame/mm-table.ts'
import { VM_LOCKED, VM_LOCKONFAULT } from '../vma/flags.ts'
import { changeFlags } from './change-flags.ts'
import type { Machine } from './machine.ts'
import { munlockPages } from './mlock-pages.ts'

/** Sets or clears the lock flags of [start, end), which must be mapped throughout. → 0, or -ENOMEM where it ends. */
export function applyLock(m: Machine, mm: number, start: number, end: number, lockFlags: number): number {
  if (start >= end) return 0
  const { vmas } = m
  let vma = vmas.at(mm, start)
  if (vma === 0) return -ENOMEM
  let at = start
  for (;;) {
    const stop = Math.min(end, vmas.end[vma])
    vma = fixup(m, mm, vma, at, stop, lockFlags)
    if (vma === 0) return -ENOMEM
    at = stop
    if (at >= end) return 0
    vma = vmas.at(mm, at)
    if (vma === 0) return -ENOMEM
  }
}

/** mlockall and munlockall: every vma, errors ignored. */
export function applyLockAll(m: Machine, mm: number, flags: number): 0 {
  const lockFlags = VM_LOCKED | ((flags & MCL_ONFAULT) === 0 ? 0 : VM_LOCKONFAULT)
  m.mms.w[(mm << MM_SHIFT) + MM_DEF_FLAGS] = (flags & MCL_FUTURE) === 0 ? 0 : lockFlags
  if (flags === MCL_FUTURE || flags === (MCL_FUTURE | MCL_ONFAULT)) return 0
  const want = (flags & MCL_CURRENT) === 0 ? 0 : lockFlags
  let vma = m.vmas.first(mm)
  while (vma !== 0) {
    const end = m.vmas.end[vma]
    fixup(m, mm, vma, m.vmas.start[vma], end, want)
    vma = m.vmas.find(mm, end)
  }
  return 0
}

/** One vma's part of a lock or unlock. → the vma that has [start, end) now, or 0 when it could not be split. */
function fixup(m: Machine, mm: number, vma: number, start: number, end: number, lockFlags: number): number {
  const old = m.vmas.flags[vma]
  const flags = (old & ~(VM_LOCKED | VM_LOCKONFAULT)) | lockFlags
  if (flags === old) return vma
  const changed = changeFlags(m, mm, vma, start, end, flags)
  if (changed === 0) return 0
  const row = mm << MM_SHIFT
  const pages = end - start
  if ((old & VM_LOCKED) === 0) m.mms.w[row + MM_LOCKED_VM] += pages
  else if ((lockFlags & VM_LOCKED) === 0) {
    m.mms.w[row + MM_LOCKED_VM] -= pages
    munlockPages(m, mm, start, end)
  }
  return changed
}
