/**
 * The flags of the memory calls, with Linux's values (include/uapi/asm-generic/mman-common.h, mman.h, mlock.h).
 *
 * One flag here is ours: MAP_PAGE_PROT, which lets remap_file_pages take a protection for its pages.
 */
export const PROT_NONE = 0 as const
export const PROT_READ = 1 as const
export const PROT_WRITE = 2 as const
export const PROT_EXEC = 4 as const
export const PROT_SEM = 8 as const
export const PROT_GROWSDOWN = 0x01000000 as const
export const PROT_GROWSUP = 0x02000000 as const

export const MAP_SHARED = 1 as const
export const MAP_PRIVATE = 2 as const
export const MAP_SHARED_VALIDATE = 3 as const
export const MAP_TYPE = 0xf as const
export const MAP_FIXED = 0x10 as const
export const MAP_ANONYMOUS = 0x20 as const
export const MAP_32BIT = 0x40 as const
export const MAP_GROWSDOWN = 0x100 as const
export const MAP_DENYWRITE = 0x800 as const
export const MAP_EXECUTABLE = 0x1000 as const
export const MAP_LOCKED = 0x2000 as const
export const MAP_NORESERVE = 0x4000 as const
export const MAP_POPULATE = 0x8000 as const
export const MAP_NONBLOCK = 0x10000 as const
export const MAP_STACK = 0x20000 as const
export const MAP_HUGETLB = 0x40000 as const
/** Bits from here on are the size of huge pages, as the exponent of a power of two; 0 is the usual one. */
export const MAP_HUGE_SHIFT = 26 as const
export const MAP_FIXED_NOREPLACE = 0x100000 as const

/**
 * Ours, for remap_file_pages only: `prot` is the protection of the remapped pages (any mix of PROT_READ and
 * PROT_WRITE, or PROT_NONE), kept in each entry until the next remap or mprotect of the page.
 * Without this flag a `prot` other than 0 stays EINVAL, as on Linux.
 */
export const MAP_PAGE_PROT = 0x1000000 as const

export const MS_ASYNC = 1 as const
export const MS_INVALIDATE = 2 as const
export const MS_SYNC = 4 as const

export const MADV_NORMAL = 0 as const
export const MADV_RANDOM = 1 as const
export const MADV_SEQUENTIAL = 2 as const
export const MADV_WILLNEED = 3 as const
export const MADV_DONTNEED = 4 as const
export const MADV_FREE = 8 as const
export const MADV_REMOVE = 9 as const
export const MADV_DONTFORK = 10 as const
export const MADV_DOFORK = 11 as const
export const MADV_MERGEABLE = 12 as const
export const MADV_UNMERGEABLE = 13 as const
export const MADV_HUGEPAGE = 14 as const
export const MADV_NOHUGEPAGE = 15 as const
export const MADV_DONTDUMP = 16 as const
export const MADV_DODUMP = 17 as const
export const MADV_WIPEONFORK = 18 as const
export const MADV_KEEPONFORK = 19 as const
export const MADV_COLD = 20 as const
export const MADV_PAGEOUT = 21 as const
export const MADV_POPULATE_READ = 22 as const
export const MADV_POPULATE_WRITE = 23 as const
export const MADV_DONTNEED_LOCKED = 24 as const
export const MADV_HWPOISON = 100 as const
export const MADV_SOFT_OFFLINE = 101 as const

export const MREMAP_MAYMOVE = 1 as const
export const MREMAP_FIXED = 2 as const
export const MREMAP_DONTUNMAP = 4 as const

export const MCL_CURRENT = 1 as const
export const MCL_FUTURE = 2 as const
export const MCL_ONFAULT = 4 as const
export const MLOCK_ONFAULT = 1 as const

export const FALLOC_FL_KEEP_SIZE = 1 as const
export const FALLOC_FL_PUNCH_HOLE = 2 as const
export const FALLOC_FL_ZERO_RANGE = 0x10 as const

export const POSIX_FADV_NORMAL = 0 as const
export const POSIX_FADV_RANDOM = 1 as const
export const POSIX_FADV_SEQUENTIAL = 2 as const
export const POSIX_FADV_WILLNEED = 3 as const
export const POSIX_FADV_DONTNEED = 4 as const
export const POSIX_FADV_NOREUSE = 5 as const
