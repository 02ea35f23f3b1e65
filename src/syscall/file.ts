/**
 * The file system calls that mappings need. Descriptors belong to the machine.
 *
 * Buffers are the caller's own (kernel side); `sys_read_user` and `sys_write_user` move bytes between a file and an
 * address space.
 */
import { EBADF, EFAULT, EFBIG, EINVAL, ENODEV, EOPNOTSUPP, ESRCH } from '../abi/errno.ts'
import { FAULT_MAPERR, FAULT_OK } from '../abi/fault.ts'
import { MAX_FILE_PAGES, TASK_PAGES } from '../abi/limits.ts'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../abi/mman.ts'
import { asBytes } from '../base/bytes.ts'
import { FILE_READ, FILE_WRITE, INODE_NOREMAP, INODE_RAMFS, INODE_SHMEM, INODE_STORE } from '../cache/inodes.ts'
import { type BulkResult, copyFromUser, copyToUser } from '../mm/access.ts'
import { fileAdvise, isFileAdvice } from '../mm/fadvise.ts'
import {
  closeFd,
  endFile,
  enterFile,
  fileOf,
  leaveFile,
  newQuota,
  onFile,
  openMemory,
  openStore,
  reopen
} from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { fileSync } from '../mm/msync.ts'
import { fileRead, fileWriteWhole } from '../mm/rw.ts'
import { allocateRange, punchHole, truncateInode, zeroRange } from '../mm/truncate.ts'
import { readToUser, writeFromUser } from '../mm/user-rw.ts'
import { GuardedStore } from '../store/guard.ts'
import type { Store } from '../store/store.ts'
import { BAD, bytesOf, type Mm, machineOf, offOf, pageOf, positionOf, type Quantity, TWO_63 } from './args.ts'

export const O_RDONLY = 0 as const
export const O_WRONLY = 1 as const
export const O_RDWR = 2 as const
/** Ours, for `sys_open`: another memory may have the file open for writing too, if it says so as well. */
export const O_COORDINATED = 0x1000000 as const

/** Shared memory that may go to swap (tmpfs), that never leaves RAM (ramfs), or that cannot be remapped (hugetlbfs). */
export const MEMORY_SHMEM = 0 as const
export const MEMORY_RAMFS = 1 as const
export const MEMORY_NOREMAP = 2 as const

/**
 * Opens a store with O_RDONLY, O_WRONLY or O_RDWR. → descriptor, or -errno. The machine closes the store, also after an
 * error; but with EINVAL, ENODEV, EDEADLK and EAGAIN it was not looked at.
 */
export function sys_open(m: Machine, store: Store, flags: number): number {
  const coordinated = (flags & O_COORDINATED) !== 0
  const mode = modeOf(coordinated ? flags - O_COORDINATED : flags)
  if (!m.open) return -ENODEV
  const guarded = mode === 0 ? undefined : guard(m, store)
  if (guarded === undefined) return -EINVAL
  return m.run(() => (m.open ? openStore(m, guarded, mode, coordinated) : -ENODEV))
}

/** Undefined for what is no store. */
function guard(m: Machine, store: Store): GuardedStore | undefined {
  try {
    if (store instanceof GuardedStore) return store
    return typeof store?.read === 'function' ? new GuardedStore(store, m.sync) : undefined
  } catch {
    return undefined
  }
}

/** Another open of the same file, with its own mode. → descriptor, or -errno. */
export function sys_reopen(m: Machine, fd: number, flags: number): number {
  const mode = modeOf(flags)
  if (mode === 0) return -EINVAL
  return m.run(() => reopen(m, fd, mode))
}

function modeOf(flags: number): number {
  return flags === O_RDONLY
    ? FILE_READ
    : flags === O_WRONLY
      ? FILE_WRITE
      : flags === O_RDWR
        ? FILE_READ | FILE_WRITE
        : 0
}

/** New memory of `size` bytes that reads as zero. `quota` is 0 or a group from `sys_quota`. → descriptor, or -errno. */
export function sys_memory(m: Machine, name: string, kind: number, size: Quantity, quota: number): number {
  const bytes = bytesOf(size)
  if (!m.open) return -ENODEV
  if (typeof name !== 'string') return -EINVAL
  if (bytes === BAD || !(kind === MEMORY_SHMEM || kind === MEMORY_RAMFS || kind === MEMORY_NOREMAP)) return -EINVAL
  if (bytes > MAX_FILE_PAGES * m.ram.pageSize) return -EFBIG
  if (quota !== 0 && (!Number.isInteger(quota) || !(m.quotas[quota * 2] > 0))) return -EINVAL
  const inodeKind = kind === MEMORY_SHMEM ? INODE_SHMEM : kind === MEMORY_RAMFS ? INODE_RAMFS : INODE_NOREMAP
  return m.run(() => (m.open ? openMemory(m, inodeKind, name, bytes, quota) : -ENODEV))
}

/** A group of memory files that may hold `maxPages` pages together. → group, or -errno. */
export function sys_quota(m: Machine, maxPages: number): number {
  return m.run(() => newQuota(m, maxPages))
}

/** Closes a descriptor; mappings of the file stay. → 0, -EBADF, or the error of writing what was dirty. */
export function sys_close(m: Machine, fd: number): number {
  return m.run(() => closeFd(m, fd))
}

/** Sets a file's size in bytes. → 0, or EINVAL (size, or not open for writing), EBADF, EFBIG, the store's error. */
export function sys_ftruncate(m: Machine, fd: number, size: Quantity): number {
  const bytes = positionOf(size)
  if (bytes === BAD) return -EINVAL
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  if ((m.files.mode[file] & FILE_WRITE) === 0) return -EINVAL
  return onFile(m, fd, file, () => truncateInode(m, m.files.inode[file], bytes))
}

const FALLOC_MODES: readonly number[] = [
  0,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
]

/**
 * Works on the space of a range: takes it (mode 0), punches holes (PUNCH_HOLE | KEEP_SIZE) or zeroes it (ZERO_RANGE).
 * The file grows to the end of the range unless KEEP_SIZE is there. Taking it gives shared memory its pages; what a
 * store has is not known here, so there the file only grows. → 0, or EBADF, EINVAL, EOPNOTSUPP, EFBIG, ENOSPC (quota),
 * ENOMEM, the store's error. fallocate(2).
 */
export function sys_fallocate(m: Machine, fd: number, mode: number, off: Quantity, len: Quantity): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  const from = positionOf(off)
  const length = positionOf(len)
  if (from === BAD || length === BAD || length === 0) return -EINVAL
  if (!FALLOC_MODES.includes(mode)) return -EOPNOTSUPP
  if ((m.files.mode[file] & FILE_WRITE) === 0) return -EBADF
  if (from + length > MAX_FILE_PAGES * m.ram.pageSize) return -EFBIG
  const inode = m.files.inode[file]
  const grows = (mode & FALLOC_FL_KEEP_SIZE) === 0
  return onFile(m, fd, file, () => {
    if ((mode & FALLOC_FL_PUNCH_HOLE) !== 0) return punchHole(m, inode, from, length)
    return (mode & FALLOC_FL_ZERO_RANGE) === 0
      ? allocateRange(m, inode, file, from, length, grows)
      : zeroRange(m, inode, from, length, grows)
  })
}

/**
 * Tells how a range of an open file will be used (POSIX_FADV_*; `len` 0 is up to the end). RANDOM and SEQUENTIAL are
 * about all reads by this open file, and by mappings of it that have no advice of their own; WILLNEED reads ahead;
 * DONTNEED writes what is dirty, and drops what nobody has mapped. → 0, or EBADF, EINVAL. posix_fadvise(2).
 */
export function sys_fadvise(m: Machine, fd: number, off: Quantity, len: Quantity, advice: number): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  const from = positionOf(off)
  const length = positionOf(len)
  if (from === BAD || length === BAD || !isFileAdvice(advice)) return -EINVAL
  const end = length === 0 ? Number.POSITIVE_INFINITY : from + length
  return onFile(m, fd, file, () => fileAdvise(m, file, from, end, advice))
}

/**
 * Reads at a position into a buffer. → bytes (short at the end of the file), or EINVAL, EBADF, EFAULT, the store's
 * error.
 */
export function sys_pread(m: Machine, fd: number, buffer: Uint8Array, position: Quantity): number {
  const at = positionOf(position)
  if (at === BAD) return -EINVAL
  const file = fileOf(m, fd)
  if (file === 0 || (m.files.mode[file] & FILE_READ) === 0) return -EBADF
  const bytes = asBytes(buffer)
  if (bytes === undefined) return -EFAULT
  if (at + bytes.length >= TWO_63) return -EINVAL
  const held = enterFile(m, fd, file)
  if (held < 0) return held
  try {
    return leaveFile(m, file, fileRead(m, file, at, bytes, 0, bytes.length))
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/**
 * Writes a buffer at a position, extending the file. → bytes, or EINVAL, EBADF, EFAULT, EFBIG, ENOSPC, the store's
 * error.
 */
export function sys_pwrite(m: Machine, fd: number, buffer: Uint8Array, position: Quantity): number {
  const at = positionOf(position)
  if (at === BAD) return -EINVAL
  const file = fileOf(m, fd)
  if (file === 0 || (m.files.mode[file] & FILE_WRITE) === 0) return -EBADF
  const bytes = asBytes(buffer)
  if (bytes === undefined) return -EFAULT
  if (at + bytes.length >= TWO_63) return -EINVAL
  const held = enterFile(m, fd, file)
  if (held < 0) return held
  try {
    return leaveFile(m, file, fileWriteWhole(m, file, at, bytes))
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/** Writes dirty pages and flushes the store. → 0, or EBADF, or an error of this or an earlier writeback. */
export function sys_fsync(m: Machine, fd: number): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  return onFile(m, fd, file, () => fileSync(m, file))
}

/** The size of an open file in bytes, or -EBADF. */
export function sys_fsize(m: Machine, fd: number): number {
  const file = fileOf(m, fd)
  return file === 0 ? -EBADF : m.inodes.sizeBytes[m.files.inode[file]]
}

/** Pages of memory that a memory file holds, in RAM or swap; for a store's file the pages cached. Or -EBADF. */
export function sys_fpages(m: Machine, fd: number): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  const inode = m.files.inode[file]
  return m.inodes.kind[inode] === INODE_STORE ? m.cache.nrPages(inode) : m.inodes.nrHeld[inode]
}

const bulk: BulkResult = { fault: FAULT_OK }

/** Where a copy begins, in bytes; BAD, noted as a fault, for what no address space has. */
function addressOf(m: Machine, addr: Quantity): number {
  if (pageOf(m, addr) !== BAD && pageOf(m, addr) < TASK_PAGES) return bytesOf(addr)
  bulk.fault = FAULT_MAPERR
  return BAD
}

/** Reads memory of an address space into a buffer. → bytes, or -EFAULT when not even the first could be read. */
export function sys_copy_from_user(mm: Mm, addr: Quantity, buffer: Uint8Array): number {
  const m = machineOf(mm)
  bulk.fault = FAULT_OK
  if (m === undefined) return -ESRCH
  const bytes = asBytes(buffer)
  if (bytes === undefined) return -EFAULT
  const address = addressOf(m, addr)
  if (address === BAD) return -EFAULT
  const { length } = bytes
  const n = copyFromUser(m, mm.id, mm.generation, address, bytes, 0, length, bulk)
  return n === 0 && length > 0 ? -EFAULT : n
}

/** Writes a buffer into memory of an address space. → bytes, or -EFAULT when not even the first could be written. */
export function sys_copy_to_user(mm: Mm, addr: Quantity, buffer: Uint8Array): number {
  const m = machineOf(mm)
  bulk.fault = FAULT_OK
  if (m === undefined) return -ESRCH
  const bytes = asBytes(buffer)
  if (bytes === undefined) return -EFAULT
  const address = addressOf(m, addr)
  if (address === BAD) return -EFAULT
  const { length } = bytes
  const n = copyToUser(m, mm.id, mm.generation, address, bytes, 0, length, bulk)
  return n === 0 && length > 0 ? -EFAULT : n
}

/**
 * The fault code (FAULT_*) that cut the last sys_copy_*_user short; FAULT_OK when none did. An address outside the
 * space is FAULT_MAPERR.
 */
export function lastCopyFault(): number {
  return bulk.fault
}

/** pread(2) into an address space. → bytes, or EBADF, EINVAL, EFAULT, the store's error. */
export function sys_read_user(mm: Mm, addr: Quantity, len: Quantity, fd: number, position: Quantity): number {
  return transfer(mm, addr, len, fd, position, FILE_READ)
}

/** pwrite(2) from an address space. → bytes, or EBADF, EINVAL, EFAULT, the store's error. */
export function sys_write_user(mm: Mm, addr: Quantity, len: Quantity, fd: number, position: Quantity): number {
  return transfer(mm, addr, len, fd, position, FILE_WRITE)
}

function transfer(mm: Mm, addr: Quantity, len: Quantity, fd: number, position: Quantity, mode: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  const at = positionOf(position)
  if (at === BAD) return -EINVAL
  const file = fileOf(m, fd)
  if (file === 0 || (m.files.mode[file] & mode) === 0) return -EBADF
  const length = bytesOf(len)
  const vpn = pageOf(m, addr)
  if (length === BAD || vpn === BAD || at + length >= TWO_63) return -EINVAL
  const off = offOf(m, addr)
  if (vpn + Math.ceil((off + length) / m.ram.pageSize) > TASK_PAGES) return -EFAULT
  const address = vpn * m.ram.pageSize + off
  const writes = mode === FILE_WRITE
  const begun = beginTransfer(m, fd, file, writes)
  if (begun < 0) return begun
  // Each part of it begins and ends by itself, as the other side's faults do.
  const result = (writes ? writeFromUser : readToUser)(m, mm.id, mm.generation, address, length, file, at)
  if (!m.reenter()) return -m.refused
  if (writes) m.inodes.releaseWrite(m.files.inode[file])
  return endFile(m, file, result)
}

/** Holds the file, and has its write lock if it is to be written, without being within a verb. → 0 or -errno. */
function beginTransfer(m: Machine, fd: number, file: number, writes: boolean): number {
  const held = enterFile(m, fd, file)
  if (held < 0) return held
  try {
    const busy = writes ? m.inodes.acquireWrite(m.files.inode[file]) : 0
    if (busy !== 0) return leaveFile(m, file, -busy)
    m.leave()
    return 0
  } catch (thrown) {
    return m.abandon(thrown)
  }
}
