/** mlock, mlock2, munlock, mlockall, munlockall (Linux 3.19; mlock2 and MCL_ONFAULT 4.4). */
import { EAGAIN, EINVAL, ENOMEM, EPERM, ESRCH } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import { MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT } from '../abi/mman.ts'
import { MM_RLIMIT_MEMLOCK, MM_TOTAL_VM } from '../frame/mm-table.ts'
import type { Machine } from '../mm/machine.ts'
import { applyLock, applyLockAll } from '../mm/mlock.ts'
import { lockedBeyondLimit } from '../mm/mmap.ts'
import { ERROR_ENDS, mmPopulate } from '../mm/populate.ts'
import { VM_LOCKED, VM_LOCKONFAULT } from '../vma/flags.ts'
import { BAD, intOf, type Mm, machineOf, offOf, pageOf, pagesIn64Bits, type Quantity } from './args.ts'

/** Locks whole pages around [addr, addr + len) and makes them resident. → 0, or EINVAL, ENOMEM, EAGAIN, EPERM. */
export function sys_mlock(mm: Mm, addr: Quantity, len: Quantity): number {
  return lock(mm, addr, len, VM_LOCKED)
}

/** mlock with flags: MLOCK_ONFAULT locks pages as they are touched. Linux: mlock2(2). */
export function sys_mlock2(mm: Mm, addr: Quantity, len: Quantity, flags: Quantity): number {
  const f = intOf(flags)
  if (Number.isNaN(f) || (f & ~MLOCK_ONFAULT) !== 0) return -EINVAL
  return lock(mm, addr, len, VM_LOCKED | ((f & MLOCK_ONFAULT) === 0 ? 0 : VM_LOCKONFAULT))
}

/** Unlocks whole pages around the range. → 0, or EINVAL, ENOMEM. */
export function sys_munlock(mm: Mm, addr: Quantity, len: Quantity): number {
  return lock(mm, addr, len, 0)
}

function lock(mm: Mm, addr: Quantity, len: Quantity, lockFlags: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const vpn = pageOf(m, addr)
  const lenPages = pageOf(m, len)
  if (vpn === BAD || lenPages === BAD) return -EINVAL
  if (lockFlags !== 0 && m.mms.row(mm.id, MM_RLIMIT_MEMLOCK) === 0) return -EPERM
  const pages = pagesAround(m, addr, len)
  if (lockFlags !== 0 && lockedBeyondLimit(m, mm.id, pages)) return -ENOMEM
  if (vpn + pages >= pagesIn64Bits(m)) return -EINVAL
  if (pages === 0) return 0
  if (vpn >= TASK_PAGES) return -ENOMEM
  const result = m.runOn(mm.id, mm.generation, () => applyLock(m, mm.id, vpn, vpn + pages, lockFlags))
  if (result < 0 || lockFlags === 0) return result
  const error = mmPopulate(m, mm.id, vpn, vpn + pages, m.vmas.clock, ERROR_ENDS)
  if (m.sync.broken !== 0) return -m.sync.broken
  // POSIX wants other numbers for these than a page fault gives.
  return error === 0 ? 0 : error === -ENOMEM || error === -EAGAIN ? -EAGAIN : -ENOMEM
}

/** Whole pages that [addr, addr + len) touches; 0 when that passes 2^64, as in C. */
function pagesAround(m: Machine, addr: Quantity, len: Quantity): number {
  const more = Math.ceil((offOf(m, addr) + offOf(m, len)) / m.ram.pageSize)
  const pages = pageOf(m, len) + more
  return pages >= pagesIn64Bits(m) ? pages - pagesIn64Bits(m) : pages
}

/** Locks all mappings, of now (MCL_CURRENT) and later (MCL_FUTURE). → 0, or EINVAL, ENOMEM, EPERM. */
export function sys_mlockall(mm: Mm, flags: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  if (Number.isNaN(f) || (f & (MCL_CURRENT | MCL_FUTURE)) === 0) return -EINVAL
  if ((f & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) !== 0) return -EINVAL
  const limit = m.mms.row(mm.id, MM_RLIMIT_MEMLOCK)
  if (limit === 0) return -EPERM
  if ((f & MCL_CURRENT) !== 0 && limit > 0 && m.mms.row(mm.id, MM_TOTAL_VM) > limit) return -ENOMEM
  const result = m.runOn(mm.id, mm.generation, () => applyLockAll(m, mm.id, f))
  if (result < 0) return result
  if ((f & MCL_CURRENT) !== 0) mmPopulate(m, mm.id, 0, TASK_PAGES, m.vmas.clock)
  return 0
}

/** Unlocks all mappings, and those to come. → 0. */
export function sys_munlockall(mm: Mm): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => applyLockAll(m, mm.id, 0))
}
