/** Who will make frames free by going on, and waiting for it (`Machine.mayWaitForFrame`). Lock: machine lock. */
import { FAULT_WAIT } from '../abi/fault.ts'
import { CUT_NONE } from '../cache/inodes.ts'
import {
  IO_NONE,
  T_GOING,
  T_IN_IO,
  T_INODE,
  T_IO_KIND,
  T_RUN_PAGES,
  T_STATE,
  THREAD_ATTACHED
} from '../sync/threads.ts'
import type { Machine } from './machine.ts'

/** A thread that reads, writes, copies or drops pages: once it has gone on, they can be taken. -1 for none. */
export function frameGiver(m: Machine): number {
  const { threads, me } = m.sync
  const { w } = threads
  for (let t = 0; t < threads.maxThreads; t++) {
    const row = threads.at(t, 0)
    if (t === me || w[row + T_STATE] !== THREAD_ATTACHED) continue
    if (w[row + T_IO_KIND] !== IO_NONE || w[row + T_RUN_PAGES] !== 0) return t
    if (w[row + T_IN_IO] === 0) continue
    if (w[row + T_GOING] !== 0 || m.inodes.cutting[w[row + T_INODE]] !== CUT_NONE) return t
  }
  return -1
}

/** What a fault gives while it is another thread's turn. */
export function waitForTurn(m: Machine): number {
  m.queueForFrame()
  return FAULT_WAIT
}
