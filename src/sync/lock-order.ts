/**
 * The one tree of lock order, and the words that say who holds what. A lock may be taken only while holding locks that
 * stand above it on its path. After Linux 3.19 (the comment at the head of mm/rmap.c); docs/locking.md says what each
 * one guards and why some of Linux's locks are one here.
 *
 *   write lock               write, truncate, punch of one file                            sleeps
 *   ├─ inode lock            truncate, punch, fsync and msync of one file                  sleeps
 *   │  └─ page lock
 *   └─ mmap lock             an address space's vmas; readers fault, writers change        sleeps
 *      └─ page lock          PG_LOCKED: one page's contents and place in its file          sleeps
 *         └─ machine lock    every table, list, hash and counter; and the words of the
 *                            locks above                                                   never held across I/O or a
 *                                                                                          wait
 *
 * Nobody takes an inode lock or a write lock while holding an mmap lock: msync and MADV_REMOVE let go of it first. (A
 * fault within a verb waits for the inode lock of a file that is being cut; whoever has that never wants an mmap lock.)
 *
 * The machine lock stands for Linux's page-table lock, i_mmap lock, LRU lock, tree lock, swap lock and the allocator's:
 * they are all held for less than a microsecond at a time, and taking five of them costs more than holding one.
 */

/** Modes of the mmap lock that a thread holds (`T_MMAP_MODE`). */
export const UNLOCKED = 0 as const
export const READ_LOCKED = 1 as const
export const WRITE_LOCKED = 2 as const
/** Not held yet: it is counted among the waiting writers. */
export const WAITS_TO_WRITE = 3 as const

/** What a queue of waiters is for: `Sync.waitFor` and `Sync.wakeAll` make the queue's number from it and an id. */
export const WAIT_PAGE = 1 as const
export const WAIT_MMAP = 2 as const
export const WAIT_INODE = 3 as const
/** Any page of a store that answers later: frames are free again, and there is room for requests. */
export const WAIT_ARRIVALS = 4 as const
/** A frame that is free, or that reclaim can take; the id is the number of the thread that waits for one. */
export const WAIT_FRAME = 5 as const
