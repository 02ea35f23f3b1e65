/**
 * Pages on their way back from the swap area (Linux: read_swap_cache_async, and shmem_swapin).
 *
 *  swapInAnon      the page of a slot that swap entries name, in the swap cache
 *  swapInShared    the page of a slot that shared memory has, in the page cache
 *  withdrawSwapIn  a page that could not be had, or that nobody wants any more, leaves the swap cache
 *
 * The store is asked in a window, with the frame in the cache already: PG_LOCKED and not PG_UPTODATE, on no list of
 * reclaim's. So a slot is read once, however many want it, and it stays allocated until the read is over, also if the
 * last entry that names it goes meanwhile.
 *
 * Lock: machine lock, given back while the store reads. The caller looks up again what it knew before.
 */
import { ENOMEM } from '../abi/errno.ts'
import { FILL_PARKED } from '../cache/fill.ts'
import { F_FLAGS, F_INDEX, FRAME_SHIFT, PG_ANON, PG_LOCKED, PG_SWAPBACKED, PG_UPTODATE } from '../frame/frame-table.ts'
import { NR_SHMEM, PSWPIN } from '../frame/vmstat.ts'
import { WAIT_PAGE } from '../sync/lock-order.ts'
import { IO_FILL, IO_SWAP_IN } from '../sync/threads.ts'
import type { Machine } from './machine.ts'

/**
 * → frame; 0 when the slot's last entry went meanwhile; FILL_PARKED when another thread is reading the slot; or -errno.
 */
export function swapInAnon(m: Machine, slot: number): number {
  const cached = m.cache.lookup(0, slot)
  if (cached !== 0) return m.frames.isUptodate(cached) ? cached : FILL_PARKED
  const page = m.allocator.alloc()
  if (page === 0) return -ENOMEM
  const { w } = m.frames
  const at = (page << FRAME_SHIFT) + F_FLAGS
  w[at] = PG_ANON | PG_SWAPBACKED | PG_LOCKED
  m.cache.add(page, 0, slot)
  m.sync.openWindow(IO_SWAP_IN, 0, slot, 1)
  const error = m.swap.read(slot, page)
  m.sync.closeWindow()
  if (error < 0 || m.swap.count[slot] === 0) {
    withdrawSwapIn(m, page)
    return error
  }
  w[at] = (w[at] | PG_UPTODATE) & ~PG_LOCKED
  m.lru.add(page)
  m.vmstat[PSWPIN]++
  if (m.sync.isShared) {
    m.sync.wakeAll(WAIT_PAGE, page)
    m.sync.noteRoom()
  }
  return page
}

/** The slot is freed too if no entry names it; else the next access tries again. */
export function withdrawSwapIn(m: Machine, page: number): void {
  const slot = m.frames.row(page, F_INDEX)
  m.cache.remove(page)
  m.allocator.free(page)
  if (m.swap.count[slot] === 0) m.swap.free(slot)
  if (m.sync.isShared) m.sync.wakeAll(WAIT_PAGE, page)
}

/** Page `index` of shared memory, which is in `slot`. Truncation and punches wait for it. → frame, or -errno. */
export function swapInShared(m: Machine, inode: number, index: number, slot: number): number {
  const frame = m.allocator.alloc()
  if (frame === 0) return -ENOMEM
  m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] = PG_LOCKED | PG_SWAPBACKED
  m.cache.add(frame, inode, index)
  m.inodes.addFilling(inode, 1)
  m.sync.openWindow(IO_FILL, inode, index, 1)
  const error = m.swap.read(slot, frame)
  m.sync.closeWindow()
  if (error < 0) {
    m.filler.withdraw(frame)
    return error
  }
  m.swap.free(slot)
  m.filler.arrive(frame)
  m.cache.setDirty(frame)
  m.filler.wake(frame)
  m.vmstat[PSWPIN]++
  m.vmstat[NR_SHMEM]++
  return frame
}
