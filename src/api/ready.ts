/**
 * Waiting, without blocking, for pages of stores that answer later: what `mapping.ready`, `mapping.readAsync` and
 * `file.readAsync` do.
 *
 *  makeReady       has a range of a window brought in and mapped
 *  readLater       copies a range of a window, and waits for its pages
 *  readFileLater   copies a range of a file, and waits for its pages
 *
 * A range is gone through in steps. Pages are asked for up to a window ahead of the step, in the order of the mapping,
 * so that one read is on its way while the pages of another are mapped; a window is half of memory at most, so that
 * what came is not pushed out by what comes. A step is over when its pages are mapped, and copied where that was the
 * aim. What was taken away again meanwhile, by another thread or a full memory, is asked for again.
 *
 * Several waits at once take turns (api/turns), step by step and in order, and ask for nothing ahead: their pages are
 * together a quarter of memory at most.
 */
import { EAGAIN, ENOMEM, ESRCH } from '../abi/errno.ts'
import { FAULT_BUS, FAULT_OOM, FAULT_WAIT } from '../abi/fault.ts'
import { checkReachable } from '../base/bytes.ts'
import { Q_SETTLED } from '../cache/fetch-queue.ts'
import { PAGER_GONE } from '../cache/inodes.ts'
import { fetchError } from '../mm/filemap.ts'
import { fileOf } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { ERROR_ENDS, PopulateCursor, populateStep } from '../mm/populate.ts'
import { PTE_PRESENT, pteFile, pteToPgoff } from '../pgtable/pte.ts'
import { sys_pread } from '../syscall/file.ts'
import { causeOf } from './causes.ts'
import { orThrow, systemError } from './errors.ts'
import type { MappedFile } from './file.ts'
import { type LongOptions, LongWork } from './long-work.ts'
import type { Mapping } from './mapping.ts'
import { unlessAborted, untilChanged } from './pager-host.ts'
import { turnsOf } from './turns.ts'

const STEP_PAGES = 256
const MAX_WINDOW_BYTES = 16 << 20
/** Attempts at a step that bring nothing more into memory: what came went again before all was there. */
const MAX_ATTEMPTS = 100
const NONE_FAILED = -1
/** Pages of a file that are asked for at a time while others wait, too. */
const FEW_PAGES = 16

/**
 * Runs a verb. False where the lock is busy and this thread may not wait for it: to be tried again in a later turn of
 * the event loop (`turn`). Throws where it cannot begin, or was ended.
 */
export function tried(m: Machine, syscall: string, verb: () => void): boolean {
  let hasBegun = false
  const result = m.run(() => {
    hasBegun = true
    verb()
    return 0
  })
  if (result !== 0 && (hasBegun || result !== -EAGAIN)) throw systemError(result, syscall)
  return hasBegun
}

/** Runs a call in which this thread does not sleep for a pager: such an access gives EAGAIN. */
export function unparked<T>(m: Machine, act: () => T): T {
  const { sleepsForPagers } = m
  m.sleepsForPagers = false
  try {
    return act()
  } finally {
    m.sleepsForPagers = sleepsForPagers
  }
}

function windowPagesOf({ ram }: Machine): number {
  return Math.max(2, Math.min(MAX_WINDOW_BYTES / ram.pageSize, ram.nrFrames >>> 1))
}

/** At most the pages that there are turns for. */
function stepPagesOf(m: Machine): number {
  return Math.min(STEP_PAGES, windowPagesOf(m) >>> 1)
}

/**
 * What is done with the pages of a step once all are mapped, in the same turn of the event loop. False if one was gone
 * again.
 */
type Use = () => boolean

/** Window pages [first, end). → how many are mapped. `use` is for a range of one step. */
export async function makeReady(
  mapping: Mapping,
  first: number,
  end: number,
  options: LongOptions,
  use: Use = () => true
): Promise<number> {
  const { machine, pageSize } = mapping
  const work = new LongWork((end - first) * pageSize, options)
  const windowPages = windowPagesOf(machine)
  const stepPages = stepPagesOf(machine)
  const turns = turnsOf(machine)
  const since = machine.filler.requests.nrFailures
  let ready = 0
  let askedTo = first
  for (let at = first; at < end; at += stepPages) {
    const stop = Math.min(end, at + stepPages)
    await turns.take(stop - at, options.signal)
    try {
      // Half a window at a time, so that the store is asked for long runs.
      if (turns.isAlone && askedTo < end && askedTo - stop < windowPages >>> 1) {
        const wanted = Math.min(end, at + windowPages)
        const from = Math.max(at, askedTo)
        const ask = (): void => {
          const base = mapping.address / pageSize
          if (mapping.space.isAlive && mapping.isMapped) askFor(mapping, base + from, base + wanted)
        }
        while (!tried(machine, 'ready', ask)) await unlessAborted(turn(), options.signal)
        askedTo = wanted
      }
      ready += await bringIn(mapping, at, stop, since, options.signal, use)
    } finally {
      turns.giveBack(stop - at)
    }
    await work.step((stop - at) * pageSize)
  }
  return ready
}

/** Resolves when window pages [at, stop) are mapped. → how many. */
async function bringIn(
  mapping: Mapping,
  at: number,
  stop: number,
  since: number,
  signal: AbortSignal | undefined,
  use: Use
): Promise<number> {
  const { machine, mmId, pageSize } = mapping
  const turns = turnsOf(machine)
  const { requests } = machine.filler
  let attempts = 0
  /** Window page that the last attempt stopped at. */
  let missing = -1
  for (let best = -1; ; ) {
    const settled = Atomics.load(requests.state, Q_SETTLED)
    let base = 0
    let failed = NONE_FAILED
    let isComing = false
    const look = (): void => {
      // It may have moved.
      base = mapping.address / pageSize
      if (!mapping.space.isAlive || !mapping.isMapped) return
      isComing = missing >= 0 && isOnItsWay(mapping, base + missing)
      failed = firstFailed(mapping, base + at, base + stop, since)
      if (failed === NONE_FAILED) askFor(mapping, base + at, base + stop)
    }
    // Nothing is awaited between the look and the steps below: the window may move in any turn.
    while (!tried(machine, 'ready', look)) await unlessAborted(turn(), signal)
    checkMapped(mapping)
    if (failed !== NONE_FAILED) mapping.failAt(failed, FAULT_BUS)
    const cursor = new PopulateCursor(base + at, base + stop, machine.vmas.clock, ERROR_ENDS)
    cursor.marksUsed = true
    unparked(machine, () => {
      while (!cursor.done) populateStep(machine, mmId, cursor, STEP_PAGES)
    })
    if (cursor.error === 0) {
      if (use()) return cursor.populated
      await unlessAborted(turn(), signal)
      continue
    }
    const isShort = cursor.error === -ENOMEM && !turns.isAlone
    if (cursor.error !== -EAGAIN && !isShort) {
      checkMapped(mapping)
      mapping.failAt(cursor.failedAt, cursor.fault)
    }
    missing = cursor.failedAt - base
    if (cursor.fault === FAULT_WAIT && requests.nrUnderWay > 0) {
      await unlessAborted(untilChanged(requests.state, Q_SETTLED, settled), signal)
    } else await unlessAborted(turn(), signal)
    // A page that is on its way for long is nobody's fault; one that has to be asked for again and again has no room.
    if (cursor.populated > best) attempts = 0
    else if (cursor.fault === FAULT_WAIT && !isComing && turns.isAlone && ++attempts === MAX_ATTEMPTS) {
      mapping.failAt(cursor.failedAt, FAULT_OOM)
    }
    best = Math.max(best, cursor.populated)
  }
}

function checkMapped(mapping: Mapping): void {
  if (!mapping.space.isAlive) throw systemError(-ESRCH, 'ready')
  if (!mapping.isMapped) throw new RangeError('the mapping was unmapped while its pages were on their way')
}

/** Asks for what is missing of [at, stop), in the order of the window, as far as there is room. Within a verb. */
function askFor(mapping: Mapping, at: number, stop: number): void {
  const { machine } = mapping
  for (let vpn = at; vpn < stop; ) {
    if (!lookAt(mapping, vpn) || machine.cache.lookup(shown.inode, shown.index) !== 0) {
      vpn++
      continue
    }
    const { inode, index } = shown
    let pages = 1
    while (vpn + pages < stop && lookAt(mapping, vpn + pages)) {
      if (shown.inode !== inode || shown.index !== index + pages) break
      pages++
    }
    if (machine.filler.request(inode, index, index + pages - 1) < index + pages) return
    vpn += pages
  }
}

/** Whether a virtual page shows one that was asked for and has not come yet. Within a verb. */
function isOnItsWay(mapping: Mapping, vpn: number): boolean {
  if (!lookAt(mapping, vpn)) return false
  const { cache, frames } = mapping.machine
  const frame = cache.lookup(shown.inode, shown.index)
  return frame !== 0 && !frames.isUptodate(frame)
}

/** The first page of [at, stop) that could not be had, with why in `lastError`. Within a verb. */
function firstFailed(mapping: Mapping, at: number, stop: number, since: number): number {
  const { machine } = mapping
  if (machine.filler.requests.nrFailures === since) return NONE_FAILED
  for (let vpn = at; vpn < stop; vpn++) {
    if (!lookAt(mapping, vpn)) continue
    const frame = machine.cache.lookup(shown.inode, shown.index)
    if (frame !== 0 && machine.frames.isUptodate(frame)) continue
    const error = fetchError(machine, since, shown.inode, shown.index)
    if (error === 0) continue
    machine.lastError = error
    return vpn
  }
  return -1
}

/** What `lookAt` found. */
const shown = { inode: 0, index: 0 }

/**
 * Whether a virtual page shows, without having it mapped, one of a store that answers later: which one is in `shown`.
 */
function lookAt({ machine: m, mmId }: Mapping, vpn: number): boolean {
  const vma = m.vmas.at(mmId, vpn)
  if (vma === 0) return false
  const inode = m.vmas.inode[vma]
  const pager = m.inodes.pager[inode]
  if (pager === 0 || pager === PAGER_GONE) return false
  const pte = m.tables.get(mmId, vpn)
  if ((pte & PTE_PRESENT) !== 0 || (pte !== 0 && !pteFile(pte))) return false
  shown.inode = inode
  shown.index = pte === 0 ? m.vmas.linearIndex(vma, vpn) : pteToPgoff(pte)
  return shown.index < m.nrFilePages(inode)
}

/** Copies from a window, chunk by chunk: each is made ready, and copied before it can be taken away. */
export async function readLater(
  mapping: Mapping,
  target: Uint8Array,
  offset: number,
  options: LongOptions
): Promise<void> {
  const { machine, pageSize } = mapping
  const nrBytes = target.length
  const work = new LongWork(nrBytes, options)
  // With what it has of a page at either end, one step.
  const chunkBytes = Math.max(1, Math.min(machine.ram.nrFrames >>> 4, stepPagesOf(machine) - 1)) * pageSize
  const quiet = options.signal === undefined ? {} : { signal: options.signal }
  for (let done = 0; done < nrBytes; ) {
    const length = Math.min(nrBytes - done, chunkBytes)
    const first = Math.floor((offset + done) / pageSize)
    const copy = (): boolean => {
      checkReachable(target, nrBytes)
      try {
        unparked(machine, () => mapping.read(target.subarray(done, done + length), offset + done))
        return true
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'EAGAIN') throw error
        // Another thread's pages took the place of some of these.
        return false
      }
    }
    await makeReady(mapping, first, Math.ceil((offset + done + length) / pageSize), quiet, copy)
    done += length
    await work.step(length)
  }
}

/** Copies from a file. → bytes, fewer than `target` has only at the end of the file. */
export async function readFileLater(
  file: MappedFile,
  target: Uint8Array,
  position: number | bigint,
  options: LongOptions
): Promise<number> {
  const { machine } = file
  const { ram, filler } = machine
  const { requests } = filler
  const { length } = target
  const work = new LongWork(length, options)
  const windowPages = Math.max(2, Math.min(MAX_WINDOW_BYTES / ram.pageSize, ram.nrFrames >>> 2))
  const since = requests.nrFailures
  const turns = turnsOf(machine)
  /** Pages that it has the turn for. */
  let pages = 0
  try {
    for (let done = 0; ; ) {
      if (pages === 0) {
        const wanted = Math.min(turns.isIdle ? windowPages : FEW_PAGES, Math.ceil((length - done) / ram.pageSize) + 1)
        await turns.take(wanted, options.signal)
        pages = wanted
      }
      checkReachable(target, length)
      const settled = Atomics.load(requests.state, Q_SETTLED)
      const at = typeof position === 'bigint' ? position + BigInt(done) : position + done
      const got = unparked(machine, () => sys_pread(machine, file.fd, target.subarray(done), at))
      if (got >= 0) {
        turns.giveBack(pages)
        pages = 0
        done += got
        await work.step(got)
        if (got === 0 || done === length) return done
        continue
      }
      if (got !== -EAGAIN) orThrow(got, 'pread')
      let error = 0
      const ask = (): void => {
        const inode = machine.files.inode[fileOf(machine, file.fd)]
        const first = Math.floor(Number(at) / ram.pageSize)
        const end = Math.min(Math.ceil((Number(at) + length - done) / ram.pageSize), machine.nrFilePages(inode))
        error = fetchError(machine, since, inode, first)
        if (error === 0) filler.request(inode, first, Math.min(end, first + pages) - 1)
      }
      while (!tried(machine, 'pread', ask)) await unlessAborted(turn(), options.signal)
      if (error !== 0) {
        const failure = systemError(-error, 'pread', undefined, `reading ${file.name}`)
        failure.cause = causeOf(machine, machine.lastFailure, error)
        throw failure
      }
      const change = requests.nrUnderWay > 0 ? untilChanged(requests.state, Q_SETTLED, settled) : turn()
      await unlessAborted(change, options.signal)
    }
  } finally {
    if (pages > 0) turns.giveBack(pages)
  }
}

/** Resolves a little later. */
export function turn(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, 1))
}
