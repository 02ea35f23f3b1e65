/**
 * The memory system calls, with Linux's names, arguments, checks and order of checks (3.19 unless said otherwise).
 *
 * Numbers in, a number or -errno out, as for all of syscall/. They sleep only where threads share the machine, and
 * throw only the engine's own RangeError, before anything is done, where the stack is full. A handle that is not an
 * address space of a living machine gives -ESRCH; a call from within another one (from a notifier or a store) gives
 * -EDEADLK.
 */
import { EBADF, EFAULT, EINVAL, ENOMEM, EPERM, ESRCH } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import {
  MADV_HWPOISON,
  MADV_SOFT_OFFLINE,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_HUGE_SHIFT,
  MAP_HUGETLB,
  MAP_NONBLOCK,
  MAP_POPULATE,
  MREMAP_DONTUNMAP,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  MS_ASYNC,
  MS_INVALIDATE,
  MS_SYNC,
  PROT_EXEC,
  PROT_GROWSDOWN,
  PROT_GROWSUP,
  PROT_READ,
  PROT_SEM,
  PROT_WRITE
} from '../abi/mman.ts'
import { asBytes } from '../base/bytes.ts'
import { INODE_NOREMAP } from '../cache/inodes.ts'
import { MM_BRK_OFF, MM_BRK_PAGE } from '../frame/mm-table.ts'
import { fileOf } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { doMadvise, isAdvice } from '../mm/madvise.ts'
import { doMincore } from '../mm/mincore.ts'
import { doMmap } from '../mm/mmap.ts'
import { doMprotect } from '../mm/mprotect.ts'
import { doMremap, MremapResult } from '../mm/mremap.ts'
import { doMsync } from '../mm/msync.ts'
import { doMunmap } from '../mm/munmap.ts'
import { mmPopulate } from '../mm/populate.ts'
import { doBrk } from '../mm/space.ts'
import { VM_LOCKED } from '../vma/flags.ts'
import { BAD, intOf, type Mm, machineOf, offOf, pageOf, pagesIn64Bits, pagesUp, type Quantity } from './args.ts'

/**
 * Maps `len` bytes of the file `fd` from byte `off` (or anonymous memory). → address, or -errno:
 * EINVAL (arguments), EBADF, EACCES (file mode), ENOMEM (no room, map count), EEXIST (FIXED_NOREPLACE), EOVERFLOW,
 * EAGAIN and EPERM (locked memory). Linux: mmap(2).
 */
export function sys_mmap(
  mm: Mm,
  addr: Quantity,
  len: Quantity,
  prot: Quantity,
  flags: Quantity,
  fd: number,
  off: Quantity
): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  const p = intOf(prot)
  const vpn = pageOf(m, addr)
  const pgoff = pageOf(m, off)
  const lenPages = pageOf(m, len)
  if (Number.isNaN(f) || Number.isNaN(p) || vpn === BAD || pgoff === BAD || lenPages === BAD) return -EINVAL
  if (offOf(m, off) !== 0) return -EINVAL
  const anonymous = (f & MAP_ANONYMOUS) !== 0
  const file = anonymous ? 0 : fileOf(m, fd)
  if (!anonymous && file === 0) return -EBADF
  if ((f & MAP_HUGETLB) !== 0 && !hasHugePages(m, f, file)) return -EINVAL
  const pages = pagesUp(m, len)
  if (pages === 0) return lenPages === 0 && offOf(m, len) === 0 ? -EINVAL : -ENOMEM
  if ((f & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0 && offOf(m, addr) !== 0 && vpn <= TASK_PAGES - pages) return -EINVAL
  let locked = false
  const at = m.runOn(mm.id, mm.generation, () => {
    // Another thread may have closed it while this one waited.
    if (!anonymous && fileOf(m, fd) !== file) return -EBADF
    const vpnMapped = doMmap(m, mm.id, vpn, pages, p, f, file, anonymous ? 0 : pgoff)
    locked = vpnMapped >= 0 && (m.vmas.flags[m.vmas.at(mm.id, vpnMapped)] & VM_LOCKED) !== 0
    return vpnMapped
  })
  if (at < 0) return at
  if (locked || (f & (MAP_POPULATE | MAP_NONBLOCK)) === MAP_POPULATE) {
    mmPopulate(m, mm.id, at, at + pages, m.vmas.clock)
  }
  return at * m.ram.pageSize
}

/** Unmaps a range. → 0, or EINVAL, ENOMEM (a split would pass the map-count limit). Linux: munmap(2). */
export function sys_munmap(mm: Mm, addr: Quantity, len: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const vpn = pageOf(m, addr)
  const pages = pagesUp(m, len)
  if (vpn === BAD || pages === BAD || offOf(m, addr) !== 0) return -EINVAL
  if (vpn > TASK_PAGES || pages > TASK_PAGES - vpn || pages === 0) return -EINVAL
  return m.runOn(mm.id, mm.generation, () => doMunmap(m, mm.id, vpn, vpn + pages))
}

/** Changes protection. → 0, or EINVAL, ENOMEM (unmapped, wrap, map count), EACCES. Linux: mprotect(2). */
export function sys_mprotect(mm: Mm, addr: Quantity, len: Quantity, prot: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const raw = intOf(prot)
  const vpn = pageOf(m, addr)
  const pages = pagesUp(m, len)
  if (Number.isNaN(raw) || vpn === BAD || pages === BAD) return -EINVAL
  const grows = raw & (PROT_GROWSDOWN | PROT_GROWSUP)
  if (grows === (PROT_GROWSDOWN | PROT_GROWSUP) || offOf(m, addr) !== 0) return -EINVAL
  if (isZero(m, len)) return 0
  if (pages === 0 || vpn + pages >= pagesIn64Bits(m)) return -ENOMEM
  const p = raw & ~grows
  if ((p & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM)) !== 0) return -EINVAL
  if (vpn >= TASK_PAGES) return -ENOMEM
  return m.runOn(mm.id, mm.generation, () =>
    doMprotect(m, mm.id, vpn, vpn + pages, p & (PROT_READ | PROT_WRITE | PROT_EXEC), grows)
  )
}

const mremapResult = new MremapResult()

/**
 * Grows, shrinks or moves a mapping. → new address, or -errno: EINVAL, EFAULT (not one mapping), ENOMEM, EAGAIN.
 * With MREMAP_FIXED the target is unmapped before the source is checked. With MREMAP_DONTUNMAP alone `newAddr` is a
 * hint, which must be aligned and may not lie in the source. Linux: mremap(2).
 */
export function sys_mremap(
  mm: Mm,
  addr: Quantity,
  oldLen: Quantity,
  newLen: Quantity,
  flags: Quantity,
  newAddr: Quantity
): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  const vpn = pageOf(m, addr)
  const oldPages = pagesUp(m, oldLen)
  const newPages = pagesUp(m, newLen)
  const target = pageOf(m, newAddr)
  if (Number.isNaN(f) || vpn === BAD || oldPages === BAD || newPages === BAD || target === BAD) return -EINVAL
  if ((f & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0) return -EINVAL
  if ((f & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0 && (f & MREMAP_MAYMOVE) === 0) return -EINVAL
  // Always a move, never a change of size (5.7).
  const resizes = pageOf(m, oldLen) !== pageOf(m, newLen) || offOf(m, oldLen) !== offOf(m, newLen)
  if ((f & MREMAP_DONTUNMAP) !== 0 && resizes) return -EINVAL
  if (offOf(m, addr) !== 0 || newPages === 0) return -EINVAL
  if ((f & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0 && offOf(m, newAddr) !== 0) return -EINVAL
  // Linux 3.19 gives such an address back where a shrinking source wraps around; nothing can be mapped there.
  if (vpn >= TASK_PAGES) return -EFAULT
  const at = m.runOn(mm.id, mm.generation, () => doMremap(m, mm.id, vpn, oldPages, newPages, f, target, mremapResult))
  if (at < 0) return at
  const { growStart, growEnd } = mremapResult
  if (growEnd > growStart) mmPopulate(m, mm.id, growStart, growEnd, m.vmas.clock)
  return at * m.ram.pageSize
}

/** Makes stores durable. → 0, or EINVAL, ENOMEM, EBUSY, or the store's error. Linux: msync(2). */
export function sys_msync(mm: Mm, addr: Quantity, len: Quantity, flags: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const f = intOf(flags)
  const vpn = pageOf(m, addr)
  const pages = pagesUp(m, len)
  if (Number.isNaN(f) || vpn === BAD || pages === BAD) return -EINVAL
  if ((f & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) !== 0 || offOf(m, addr) !== 0) return -EINVAL
  if ((f & MS_ASYNC) !== 0 && (f & MS_SYNC) !== 0) return -EINVAL
  if (vpn + pages >= pagesIn64Bits(m)) return -ENOMEM
  if (pages === 0) return 0
  return doMsync(m, mm.id, mm.generation, vpn, vpn + pages, f)
}

/** Advice about use. → 0 or -errno. Linux: madvise(2), plus FREE, POPULATE_READ and POPULATE_WRITE. */
export function sys_madvise(mm: Mm, addr: Quantity, len: Quantity, advice: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const a = intOf(advice)
  const vpn = pageOf(m, addr)
  const pages = pagesUp(m, len)
  if (a === MADV_HWPOISON || a === MADV_SOFT_OFFLINE) return -EPERM
  if (Number.isNaN(a) || vpn === BAD || pages === BAD || !isAdvice(a)) return -EINVAL
  if (offOf(m, addr) !== 0) return -EINVAL
  if (pages === 0) return isZero(m, len) ? 0 : -EINVAL
  if (vpn + pages >= pagesIn64Bits(m)) return -EINVAL
  return doMadvise(m, mm.id, mm.generation, vpn, vpn + pages, a)
}

/**
 * Which pages are in memory: 1 or 0 a page in `vec`. → 0, or EINVAL, ENOMEM, EFAULT (vec too short). Linux: mincore(2).
 */
export function sys_mincore(mm: Mm, addr: Quantity, len: Quantity, vec: Uint8Array | null): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const vpn = pageOf(m, addr)
  const pages = pagesUp(m, len)
  if (vpn === BAD || pages === BAD || offOf(m, addr) !== 0) return -EINVAL
  if (vpn + pages > TASK_PAGES || (pages === 0 && !isZero(m, len))) return -ENOMEM
  const bytes = asBytes(vec)
  if (bytes === undefined || bytes.length < pages) return -EFAULT
  if (!m.lockMmRead(mm.id, mm.generation)) return -m.refused
  try {
    const result = doMincore(m, mm.id, vpn, vpn + pages, bytes)
    m.unlockMmRead(mm.id)
    return result
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/** Moves the end of the heap. → the end after the call: the one asked for, or the old one. Linux: brk(2). */
export function sys_brk(mm: Mm, addr: Quantity): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const page = pageOf(m, addr)
  if (page === BAD) return -EINVAL
  let end = 0
  let off = 0
  const grown = m.runOn(mm.id, mm.generation, () => {
    const pages = doBrk(m, mm.id, page, offOf(m, addr))
    end = m.mms.row(mm.id, MM_BRK_PAGE)
    off = m.mms.row(mm.id, MM_BRK_OFF)
    return pages
  })
  if (grown < 0) return grown
  const top = end + (off > 0 ? 1 : 0)
  if (grown > 0) mmPopulate(m, mm.id, top - grown, top, m.vmas.clock)
  return end * m.ram.pageSize + off
}

/**
 * Whether MAP_HUGETLB goes with the file (hugetlbfs is memory that cannot be remapped), or with the page size that the
 * flags name.
 */
function hasHugePages(m: Machine, flags: number, file: number): boolean {
  if (file !== 0) return m.inodes.kind[m.files.inode[file]] === INODE_NOREMAP
  const shift = flags >>> MAP_HUGE_SHIFT
  return shift === 0 || shift === 21 || shift === 30
}

function isZero(m: Machine, x: Quantity): boolean {
  return pageOf(m, x) === 0 && offOf(m, x) === 0
}
