/**
 * What a thread writes when it ends without having closed its memory: the dirty pages of files, without a flush, as a
 * process that ends leaves those of its mmaps to the kernel.
 */
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { INODE_STORE } from '../cache/inodes.ts'
import { IN_WINDOWS } from '../cache/writeback.ts'
import { NR_RECORDED_PINS, T_PINS } from '../sync/threads.ts'
import type { Machine } from './machine.ts'

/** A file of which something could not be written. */
export interface Unwritten {
  readonly name: string
  readonly pages: number
  readonly bytes: number
  readonly errno: number
}

/** Which files: all that this thread can reach, or those that it opened itself. */
export const ALL_FILES = 0 as const
export const OWN_FILES = 1 as const

/**
 * Writes the dirty pages of files of a store, and their sizes. Goes on after a file that cannot be written. → those.
 */
export function writeFiles(m: Machine, which: typeof ALL_FILES | typeof OWN_FILES): Unwritten[] {
  const lost: Unwritten[] = []
  m.giveBack(() => dirtyLentPages(m))
  for (let inode = 1; inode <= m.inodes.capacity; inode++) {
    if (!isWritten(m, inode, which)) continue
    const result = m.run(() => (isWritten(m, inode, which) ? writeFile(m, inode) : 0))
    // Nothing of a broken machine is to be believed (mm/salvage).
    if (m.sync.broken !== 0) return lost
    if (result >= 0 || !isUnwritten(m, inode)) continue
    const pages = m.cache.nrDirty(inode)
    lost.push({ name: m.inodes.stores.name(inode), pages, bytes: pages * m.ram.pageSize, errno: -result })
  }
  return lost
}

function isWritten({ inodes }: Machine, inode: number, which: typeof ALL_FILES | typeof OWN_FILES): boolean {
  if (inodes.kind[inode] !== INODE_STORE || inodes.pager[inode] !== 0) return false
  return which === ALL_FILES || inodes.stores.isOwn(inode)
}

function isUnwritten({ cache, inodes }: Machine, inode: number): boolean {
  return cache.nrDirty(inode) !== 0 || inodes.storeBytes[inode] < inodes.sizeBytes[inode]
}

function writeFile(m: Machine, inode: number): number {
  const { inodes, writeback } = m
  if (!isUnwritten(m, inode)) return 0
  const error = inodes.acquire(inode)
  if (error !== 0) return -error
  let result = writeback.writeRange(inode, 0, MAX_FILE_PAGES, IN_WINDOWS)
  if (result === 0) result = writeback.extendStore(inode, IN_WINDOWS)
  inodes.release(inode)
  return result
}

/** What this thread has borrowed for writing it may have stored to since the page was written last. */
function dirtyLentPages(m: Machine): void {
  const { threads, me } = m.sync
  for (let i = 0; i < NR_RECORDED_PINS; i++) {
    const pin = threads.w[threads.at(me, T_PINS + i)]
    if (pin < 0) m.cache.setDirty(-pin)
  }
}
