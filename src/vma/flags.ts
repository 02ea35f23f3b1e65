/** Flags of a vma. Values as in Linux 3.19 (include/linux/mm.h) where it has them. */
export const VM_READ = 1 as const
export const VM_WRITE = 2 as const
export const VM_EXEC = 4 as const
export const VM_SHARED = 8 as const
export const VM_MAYREAD = 0x10 as const
export const VM_MAYWRITE = 0x20 as const
export const VM_MAYEXEC = 0x40 as const
export const VM_MAYSHARE = 0x80 as const
export const VM_GROWSDOWN = 0x100 as const
export const VM_LOCKED = 0x2000 as const
/** Ours (Linux keeps it from 4.4 on, with another value): pages are locked when they are faulted in, not before. */
export const VM_LOCKONFAULT = 0x4000 as const
export const VM_SEQ_READ = 0x8000 as const
export const VM_RAND_READ = 0x10000 as const
export const VM_DONTCOPY = 0x20000 as const
export const VM_DONTEXPAND = 0x40000 as const
export const VM_ACCOUNT = 0x100000 as const
export const VM_NORESERVE = 0x200000 as const
/** Ours: some entries have a protection of their own (MAP_PAGE_PROT). */
export const VM_PAGE_PROT = 0x400000 as const
export const VM_NONLINEAR = 0x800000 as const
/** Since 4.14: a forked address space has zeros there. */
export const VM_WIPEONFORK = 0x2000000 as const
export const VM_DONTDUMP = 0x4000000 as const
export const VM_SOFTDIRTY = 0x8000000 as const
export const VM_MERGEABLE = 0x20000000 as const

export const VM_PROT_MASK: number = VM_READ | VM_WRITE | VM_EXEC
