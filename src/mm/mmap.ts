/**
 * mmap (Linux: do_mmap_pgoff, mmap_region). Checks and their order are 3.19's.
 *
 * The caller has decoded the system call's arguments into pages and found the file. What populating there is to do is
 * the caller's, after the lock is dropped.
 */
import { EACCES, EAGAIN, EEXIST, EINVAL, ENFILE, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import {
  MAP_32BIT,
  MAP_ANONYMOUS,
  MAP_DENYWRITE,
  MAP_EXECUTABLE,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_GROWSDOWN,
  MAP_HUGE_SHIFT,
  MAP_HUGETLB,
  MAP_LOCKED,
  MAP_NONBLOCK,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_SHARED_VALIDATE,
  MAP_STACK,
  MAP_TYPE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE
} from '../abi/mman.ts'
import { FILE_READ, FILE_WRITE, INODE_SHMEM } from '../cache/inodes.ts'
import {
  MM_DEF_FLAGS,
  MM_FREE_HINT,
  MM_HIWATER_VM,
  MM_LOCKED_VM,
  MM_MAP_COUNT,
  MM_RLIMIT_AS,
  MM_RLIMIT_MEMLOCK,
  MM_SHIFT,
  MM_TOTAL_VM
} from '../frame/mm-table.ts'
import { WAIT_INODE } from '../sync/lock-order.ts'
import { T_FILE } from '../sync/threads.ts'
import {
  VM_ACCOUNT,
  VM_EXEC,
  VM_LOCKED,
  VM_MAYEXEC,
  VM_MAYREAD,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_NORESERVE,
  VM_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_WRITE
} from '../vma/flags.ts'
import { mergeVma } from '../vma/merge.ts'
import { getFile, putFile } from './files.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'
import { doMunmap, isolateRange } from './munmap.ts'

/**
 * Maps `pages` pages at `vpn` (an address hint, or the place with MAP_FIXED). `file` is 0 for anonymous memory.
 * → first virtual page, or -errno. The mmap lock is held for writing.
 */
export function doMmap(
  m: Machine,
  mm: number,
  vpn: number,
  pages: number,
  prot: number,
  flags: number,
  file: number,
  pgoff: number
): number {
  // Linux 3.19 looks for a wrap of the page number only, which bytes cannot bring about; later ones refuse this too.
  if (m.policy !== POLICY_LINUX && pgoff + pages > m.ram.pagesIn64Bits) return -EOVERFLOW
  if (m.mms.row(mm, MM_MAP_COUNT) > m.maxMapCount) return -ENOMEM
  const at = findPlace(m, mm, vpn, pages, flags)
  if (at < 0) return at
  let vmFlags = protToVm(prot) | m.mms.row(mm, MM_DEF_FLAGS) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
  if ((flags & MAP_LOCKED) !== 0) {
    if (m.mms.row(mm, MM_RLIMIT_MEMLOCK) === 0) return -EPERM
    vmFlags |= VM_LOCKED
  }
  if ((vmFlags & VM_LOCKED) !== 0 && lockedBeyondLimit(m, mm, pages)) return -EAGAIN
  const typed = typeFlags(m, flags, prot, vmFlags, file)
  if (typed < 0) return typed
  vmFlags = typed
  // There are no huge pages. (Linux maps them with MAP_NORESERVE all the same, for the first touch to be a SIGBUS.)
  if ((flags & MAP_HUGETLB) !== 0 && file === 0) return -ENOMEM
  if ((flags & MAP_NORESERVE) !== 0) vmFlags |= VM_NORESERVE
  if ((flags & MAP_ANONYMOUS) === 0) return mmapRegion(m, mm, at, pages, vmFlags, file, pgoff)
  if ((vmFlags & VM_SHARED) === 0) return mmapRegion(m, mm, at, pages, vmFlags, 0, at)
  const memory = newSharedAnonymous(m, pages)
  if (memory < 0) return memory
  const result = mmapRegion(m, mm, at, pages, vmFlags, memory, 0)
  putFile(m, memory)
  return result
}

function protToVm(prot: number): number {
  return (
    ((prot & PROT_READ) === 0 ? 0 : VM_READ) |
    ((prot & PROT_WRITE) === 0 ? 0 : VM_WRITE) |
    ((prot & PROT_EXEC) === 0 ? 0 : VM_EXEC)
  )
}

/** What MAP_SHARED_VALIDATE (Linux 4.15) lets pass; MAP_SHARED ignores what it does not know. */
const VALIDATED_FLAGS =
  MAP_TYPE |
  MAP_FIXED |
  MAP_ANONYMOUS |
  MAP_GROWSDOWN |
  MAP_DENYWRITE |
  MAP_EXECUTABLE |
  MAP_LOCKED |
  MAP_NORESERVE |
  MAP_POPULATE |
  MAP_NONBLOCK |
  MAP_STACK |
  MAP_32BIT |
  MAP_HUGETLB |
  (21 << MAP_HUGE_SHIFT) |
  (30 << MAP_HUGE_SHIFT)

/** The flags that MAP_SHARED or MAP_PRIVATE of this file give, or -errno. Flags are non-negative. */
function typeFlags(m: Machine, flags: number, prot: number, vmFlags: number, file: number): number {
  const type = flags & MAP_TYPE
  const validate = type === MAP_SHARED_VALIDATE && m.policy !== POLICY_LINUX
  const growsDown = (flags & MAP_GROWSDOWN) !== 0
  if (file === 0) {
    if (type === MAP_PRIVATE) return vmFlags
    return type === MAP_SHARED && !growsDown ? vmFlags | VM_SHARED | VM_MAYSHARE : -EINVAL
  }
  if (validate && (flags & ~VALIDATED_FLAGS) !== 0) return -EOPNOTSUPP
  const shared = type === MAP_SHARED || validate
  if (!shared && type !== MAP_PRIVATE) return -EINVAL
  const mode = m.files.mode[file]
  if (shared && (prot & PROT_WRITE) !== 0 && (mode & FILE_WRITE) === 0) return -EACCES
  if ((mode & FILE_READ) === 0) return -EACCES
  if (growsDown) return -EINVAL
  if (!shared) return vmFlags
  const asShared = vmFlags | VM_SHARED | VM_MAYSHARE
  if ((mode & FILE_WRITE) !== 0) return asShared
  // Linux treats a shared mapping that can never be written as private but for its name (VM_MAYSHARE), and so refuses
  // to remap it. Ours stays shared: files that may only be read can be shown in any order.
  return asShared & ~(m.policy === POLICY_LINUX ? VM_MAYWRITE | VM_SHARED : VM_MAYWRITE)
}

function newSharedAnonymous(m: Machine, pages: number): number {
  const inode = m.inodes.alloc(INODE_SHMEM, '/dev/zero (deleted)', undefined)
  if (inode === 0) return -ENFILE
  m.inodes.sizeBytes[inode] = pages * m.ram.pageSize
  const file = m.files.alloc(inode, FILE_READ | FILE_WRITE, 0)
  if (file !== 0) return file
  m.inodes.free(inode)
  return -ENFILE
}

/** Where the mapping goes: exactly at `vpn` if fixed, there if free, else the lowest hole that fits. */
function findPlace(m: Machine, mm: number, vpn: number, pages: number, flags: number): number {
  if (pages > TASK_PAGES) return -ENOMEM
  const { vmas } = m
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0) {
    if (vpn > TASK_PAGES - pages) return -ENOMEM
    // As since 4.17: it forbids replacing also when MAP_FIXED is there.
    if ((flags & MAP_FIXED_NOREPLACE) !== 0) {
      const next = vmas.find(mm, vpn)
      if (next !== 0 && vmas.start[next] < vpn + pages) return -EEXIST
    }
    return vpn
  }
  return placeNear(m, mm, vpn, pages)
}

/** Exactly at the hint if there is one and the range is free, else the lowest hole that fits. → page, or -ENOMEM. */
export function placeNear(m: Machine, mm: number, hint: number, pages: number): number {
  if (hint > 0 && hint <= TASK_PAGES - pages) {
    const next = m.vmas.find(mm, hint)
    if (next === 0 || m.vmas.start[next] >= hint + pages) return hint
  }
  return findHole(m, mm, pages)
}

/** Address space given away without a hint begins here, so that small integers are never good addresses. */
const FIRST_FREE_PAGE = 16

/** The lowest hole of `pages` pages at or after the hint, from the beginning if there is none. → page, or -ENOMEM. */
export function findHole(m: Machine, mm: number, pages: number): number {
  const { vmas } = m
  const hint = (mm << MM_SHIFT) + MM_FREE_HINT
  for (let round = 0; round < 2; round++) {
    let at = round === 0 ? Math.max(FIRST_FREE_PAGE, m.mms.w[hint]) : FIRST_FREE_PAGE
    at = aligned(m, at, pages)
    let vma = vmas.find(mm, at)
    while (vma !== 0 && vmas.start[vma] < at + pages) {
      at = aligned(m, vmas.end[vma], pages)
      vma = vmas.next[vma]
    }
    if (at + pages <= TASK_PAGES) {
      m.mms.w[hint] = at + pages
      return at
    }
  }
  return -ENOMEM
}

/** Large mappings begin with a page table, so that theirs are their own (`PageTables.addWindow`). */
function aligned(m: Machine, vpn: number, pages: number): number {
  const tablePages = m.tables.leafMask + 1
  return pages < tablePages ? vpn : Math.ceil(vpn / tablePages) * tablePages
}

export function lockedBeyondLimit(m: Machine, mm: number, morePages: number): boolean {
  const limit = m.mms.row(mm, MM_RLIMIT_MEMLOCK)
  return limit >= 0 && m.mms.row(mm, MM_LOCKED_VM) + morePages > limit
}

/** Whether the address space may grow by so many pages (RLIMIT_AS). */
export function mayExpand(m: Machine, mm: number, morePages: number): boolean {
  const limit = m.mms.row(mm, MM_RLIMIT_AS)
  return limit < 0 || m.mms.row(mm, MM_TOTAL_VM) + morePages <= limit
}

export function addTotalVm(m: Machine, mm: number, pages: number): void {
  const row = mm << MM_SHIFT
  const w = m.mms.w
  w[row + MM_TOTAL_VM] += pages
  if (w[row + MM_TOTAL_VM] > w[row + MM_HIWATER_VM]) w[row + MM_HIWATER_VM] = w[row + MM_TOTAL_VM]
}

/**
 * Makes [vpn, vpn + pages) a mapping of `file` from `pgoff`, over whatever was there. Takes its own reference to the
 * file. → vpn, or -errno; after an error past the checks the old range is unmapped, as on Linux.
 */
export function mmapRegion(
  m: Machine,
  mm: number,
  vpn: number,
  pages: number,
  flags: number,
  file: number,
  pgoff: number
): number {
  const end = vpn + pages
  if (!mayExpand(m, mm, pages - mappedPages(m, mm, vpn, end))) return -ENOMEM
  // A mapping held by the caller only through what is about to be unmapped must not die of it.
  if (file !== 0) getFile(m, file)
  const cut = isolateRange(m, mm, vpn, end)
  if (cut < 0) {
    putFile(m, file)
    return cut
  }
  // An error of it now is a store's that could not write at its last close: who replaces the mapping has to know.
  const closed = doMunmap(m, mm, vpn, end) || closeReplaced(m, file)
  if (closed < 0) {
    putFile(m, file)
    return closed
  }
  let vmFlags = flags
  if ((vmFlags & (VM_NORESERVE | VM_SHARED | VM_WRITE)) === VM_WRITE) vmFlags |= VM_ACCOUNT
  const inode = file === 0 ? 0 : m.files.inode[file]
  let vma = mergeVma(m.vmas, mm, vpn, end, vmFlags, 0, file, inode, pgoff, m.onFile)
  if (vma === 0) {
    vma = m.vmas.alloc()
    if (vma === 0) {
      putFile(m, file)
      return -ENOMEM
    }
    m.vmas.mm[vma] = mm
    m.vmas.start[vma] = vpn
    m.vmas.end[vma] = end
    m.vmas.pgoff[vma] = pgoff
    m.vmas.flags[vma] = vmFlags
    m.vmas.file[vma] = file
    m.vmas.inode[vma] = inode
    m.vmas.link(vma)
    m.vmas.stamp(vma)
  } else putFile(m, file)
  m.vmas.flags[vma] |= VM_SOFTDIRTY
  addTotalVm(m, mm, pages)
  if ((vmFlags & VM_LOCKED) !== 0) m.mms.w[(mm << MM_SHIFT) + MM_LOCKED_VM] += pages
  return vpn
}

/**
 * Ends the files whose last mapping was replaced, here rather than at the end of the verb: with the mmap lock, in
 * windows. `file`, whose reference the verb has, is held. → 0 or -errno.
 */
export function closeReplaced(m: Machine, file: number): number {
  if (m.nrGoing === 0) return 0
  const { sync } = m
  sync.threads.w[sync.row + T_FILE] = file
  const error = m.endGoing()
  sync.threads.w[sync.row + T_FILE] = 0
  sync.wakeAll(WAIT_INODE, m.files.inode[file])
  return error
}

/** Pages of [start, end) that some vma covers. */
export function mappedPages(m: Machine, mm: number, start: number, end: number): number {
  const { vmas } = m
  let pages = 0
  for (let vma = vmas.find(mm, start); vma !== 0 && vmas.start[vma] < end; vma = vmas.next[vma]) {
    pages += Math.min(end, vmas.end[vma]) - Math.max(start, vmas.start[vma])
  }
  return pages
}
