/**
 * Waiting, without blocking, for pages of stores that answer later: what `mapping.ready` does.
 *
 * It goes through the range in steps that fit into memory together. In each it asks for all pages that are missing, waits until the
 * last of them is there or was given up, and maps what came.
 */
import { FAULT_BUS } from '../abi/fault.ts'
import { fetchError } from '../mm/filemap.ts'
import type { Machine } from '../mm/machine.ts'
import { PopulateCursor, populateStep } from '../mm/populate.ts'
import { PTE_PRESENT, pteFile, pteToPgoff } from '../pgtable/pte.ts'
import { type LongOptions, LongWork } from './long-work.ts'
import type { Mapping } from './mapping.ts'

const MAX_STEP_PAGES = 2048
/** How long to wait before looking again where another thread's progress cannot be heard. */
const LOOK_AGAIN_MS = 5

/** The cause of a failure: the store's error in the thread that had it, its message in others. */
export function causeOf(m: Machine, failure: number): unknown {
  const known = m.pager?.causeOf(failure)
  if (known !== undefined) return known
  const why = m.filler.requests.whyOf(failure)
  return why === '' ? undefined : new Error(why)
}

export async function makeReady(mapping: Mapping, first: number, end: number, options: LongOptions): Promise<number> {
  const { machine, mmId, pageSize } = mapping
  const work = new LongWork((end - first) * pageSize, options)
  // A quarter of memory, so that what came is not pushed out by what comes.
  const stepPages = Math.max(1, Math.min(MAX_STEP_PAGES, machine.ram.nrFrames >>> 2))
  let ready = 0
  for (let at = first; at < end && mapping.space.isAlive; at += stepPages) {
    const stop = Math.min(end, at + stepPages)
    await bringIn(mapping, at, stop, options)
    const cursor = new PopulateCursor(at, stop, machine.vmas.clock)
    while (!cursor.done) populateStep(machine, mmId, cursor, 256)
    ready += cursor.populated
    await work.step((stop - at) * pageSize)
  }
  return ready
}

/** Resolves when no page that [at, stop) shows is on its way any more. */
async function bringIn(mapping: Mapping, at: number, stop: number, options: LongOptions): Promise<void> {
  const { machine, mmId } = mapping
  const since = machine.filler.requests.nrFailures
  machine.quietly(() => {
    for (const page of missing(machine, mmId, at, stop))
      machine.filler.request(page.inode, page.index, page.index + page.count - 1)
  })
  for (;;) {
    const change = nextChange(machine)
    const state = machine.quietly(() => stateOf(machine, mmId, at, stop, since))
    if (state.failedAt >= 0) mapping.failAt(state.failedAt, FAULT_BUS)
    if (!state.isWaiting) return
    await unlessAborted(change, options)
  }
}

interface Run {
  readonly inode: number
  readonly index: number
  count: number
}

/** File pages that a range shows and that stores which answer later have to bring, as runs in the order of the window. */
function missing(m: Machine, mm: number, at: number, stop: number): Run[] {
  const runs: Run[] = []
  for (let vpn = at; vpn < stop; vpn++) {
    const { inode, index } = shownAt(m, mm, vpn)
    if (inode === 0 || m.cache.lookup(inode, index) !== 0) continue
    const last = runs.at(-1)
    if (last !== undefined && last.inode === inode && last.index + last.count === index) last.count++
    else runs.push({ inode, index, count: 1 })
  }
  return runs
}

function stateOf(
  m: Machine,
  mm: number,
  at: number,
  stop: number,
  since: number
): { isWaiting: boolean; failedAt: number } {
  for (let vpn = at; vpn < stop; vpn++) {
    const { inode, index } = shownAt(m, mm, vpn)
    if (inode === 0) continue
    const frame = m.cache.lookup(inode, index)
    if (frame !== 0 && !m.frames.isUptodate(frame)) return { isWaiting: true, failedAt: -1 }
    if (frame !== 0) continue
    const error = fetchError(m, since, inode, index)
    if (error === 0) continue
    m.lastError = error
    m.parkedFault = 0
    return { isWaiting: false, failedAt: vpn }
  }
  return { isWaiting: false, failedAt: -1 }
}

/** The page of a store that answers later which a virtual page shows and which is not mapped; inode 0 for anything else. */
function shownAt(m: Machine, mm: number, vpn: number): { inode: number; index: number } {
  const nothing = { inode: 0, index: 0 }
  const vma = m.vmas.at(mm, vpn)
  if (vma === 0) return nothing
  const inode = m.vmas.inode[vma]
  const pte = m.tables.get(mm, vpn)
  if (m.inodes.pager[inode] === 0 || (pte & PTE_PRESENT) !== 0) return nothing
  const index = pteFile(pte) ? pteToPgoff(pte) : m.vmas.linearIndex(vma, vpn)
  return index < m.nrFilePages(inode) ? { inode, index } : nothing
}

/** Resolves when something may have changed. To be called before looking. */
function nextChange(m: Machine): Promise<unknown> {
  const own = m.pager?.change
  if (!m.sync.isShared) return own ?? Promise.resolve()
  const later = new Promise(resolve => setTimeout(resolve, LOOK_AGAIN_MS))
  return own === undefined ? later : Promise.race([own, later])
}

function unlessAborted(promise: Promise<unknown>, { signal }: LongOptions): Promise<unknown> {
  if (signal === undefined) return promise
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
