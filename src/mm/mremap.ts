/**
 * mremap (Linux: mm/mremap.c, 3.19; MREMAP_DONTUNMAP as in 5.7 and, for shared memory, 5.13).
 *
 * Entries are moved, file entries too, and every moved one is soft-dirty afterwards. The linear place of a page moves
 * with the vma, so no entry changes its meaning. The order of checks is Linux's, also where it hurts: with
 * MREMAP_FIXED the target is unmapped, and the tail of a shrinking source cut off, before the source is looked at.
 */
import { EAGAIN, EFAULT, EINVAL, ENOMEM } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import { MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE } from '../abi/mman.ts'
import { F_FLAGS, F_INDEX, PG_ANON } from '../frame/frame-table.ts'
import { MM_LOCKED_VM, MM_MAP_COUNT, MM_SHIFT } from '../frame/mm-table.ts'
import { pteMappedFrame, pteMaps, pteMkSoftDirty } from '../pgtable/pte.ts'
import { VM_DONTEXPAND, VM_LOCKED } from '../vma/flags.ts'
import { mergeVma } from '../vma/merge.ts'
import { getFile } from './files.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'
import { addTotalVm, closeReplaced, findHole, lockedBeyondLimit, mayExpand, placeNear } from './mmap.ts'
import { doMunmap } from './munmap.ts'
import { remembered } from './zap.ts'

/** What the caller populates afterwards: the part that a locked vma grew by. */
export class MremapResult {
  growStart = 0
  growEnd = 0
}

/** All in pages. → the new first page, or -errno. */
export function doMremap(
  m: Machine,
  mm: number,
  start: number,
  oldPages: number,
  newPages: number,
  flags: number,
  target: number,
  result: MremapResult
): number {
  const { vmas } = m
  result.growStart = 0
  result.growEnd = 0
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0) {
    return moveTo(m, mm, start, oldPages, newPages, flags, target, result)
  }
  if (oldPages >= newPages) {
    if (oldPages > newPages) {
      if (start + oldPages > TASK_PAGES) return -EINVAL
      const error = doMunmap(m, mm, start + newPages, start + oldPages)
      if (error < 0) return error
    }
    return start
  }
  const vma = checkSource(m, mm, start, oldPages, newPages, newPages - oldPages)
  if (vma < 0) return vma
  if (oldPages !== 0 && vmas.end[vma] === start + oldPages && canGrow(m, mm, vma, newPages - oldPages)) {
    const more = newPages - oldPages
    vmas.adjust(vma, vmas.start[vma], vmas.end[vma] + more, vmas.pgoff[vma])
    addTotalVm(m, mm, more)
    noteGrowth(m, mm, vma, start + oldPages, start + newPages, result)
    return start
  }
  if ((flags & MREMAP_MAYMOVE) === 0) return -ENOMEM
  const place = findHole(m, mm, newPages)
  return place < 0 ? place : moveVma(m, mm, vma, start, oldPages, newPages, place, flags, result)
}

/** mremap to a given place, or (DONTUNMAP without FIXED) to one near a hint. */
function moveTo(
  m: Machine,
  mm: number,
  start: number,
  oldPages: number,
  newPages: number,
  flags: number,
  target: number,
  result: MremapResult
): number {
  let from = oldPages
  if (newPages > TASK_PAGES || target > TASK_PAGES - newPages) return -EINVAL
  // Page 0 without MREMAP_FIXED is no hint.
  const isGiven = (flags & MREMAP_FIXED) !== 0 || target !== 0
  if (isGiven && target <= start && target + newPages > start) return -EINVAL
  if (start <= target && start + oldPages > target) return -EINVAL
  if ((flags & MREMAP_FIXED) !== 0) {
    const unmapped = doMunmap(m, mm, target, target + newPages) || closeReplaced(m, 0)
    if (unmapped < 0) return unmapped
  }
  if (oldPages >= newPages) {
    if (oldPages > newPages && start + oldPages > TASK_PAGES) return -EINVAL
    if (oldPages > newPages) {
      const error = doMunmap(m, mm, start + newPages, start + oldPages) || closeReplaced(m, 0)
      if (error < 0) return error
    }
    from = newPages
  }
  const more = (flags & MREMAP_DONTUNMAP) === 0 ? newPages - from : newPages
  const vma = checkSource(m, mm, start, from, newPages, more)
  if (vma < 0) return vma
  const place = (flags & MREMAP_FIXED) !== 0 ? target : placeNear(m, mm, target, newPages)
  return place < 0 ? place : moveVma(m, mm, vma, start, from, newPages, place, flags, result)
}

/**
 * The vma that has the whole source and may be that large, or -errno (Linux: vma_to_resize). `more`: pages that the
 * address space has in the end beyond those of now: all of the new ones if the source stays.
 */
function checkSource(m: Machine, mm: number, start: number, oldPages: number, newPages: number, more: number): number {
  const { vmas } = m
  const vma = vmas.at(mm, start)
  if (vma === 0 || oldPages > vmas.end[vma] - start) return -EFAULT
  if (newPages > oldPages) {
    // As for mmap: Linux 3.19 does not see offsets that pass 2^64 bytes.
    const pastOffsets = vmas.linearIndex(vma, start) + newPages > m.ram.pagesIn64Bits
    if (m.policy !== POLICY_LINUX && vmas.inode[vma] !== 0 && pastOffsets) return -EINVAL
    if ((vmas.flags[vma] & VM_DONTEXPAND) !== 0) return -EFAULT
  }
  if ((vmas.flags[vma] & VM_LOCKED) !== 0 && lockedBeyondLimit(m, mm, more)) return -EAGAIN
  return mayExpand(m, mm, more) ? vma : -ENOMEM
}

function canGrow(m: Machine, mm: number, vma: number, more: number): boolean {
  const end = m.vmas.end[vma]
  if (end > TASK_PAGES - more) return false
  const next = m.vmas.find(mm, end)
  return next === 0 || m.vmas.start[next] >= end + more
}

function noteGrowth(m: Machine, mm: number, vma: number, from: number, to: number, result: MremapResult): void {
  if ((m.vmas.flags[vma] & VM_LOCKED) === 0) return
  m.mms.w[(mm << MM_SHIFT) + MM_LOCKED_VM] += to - from
  result.growStart = from
  result.growEnd = to
}

function moveVma(
  m: Machine,
  mm: number,
  vma: number,
  start: number,
  oldPages: number,
  newPages: number,
  target: number,
  flags: number,
  result: MremapResult
): number {
  const { vmas } = m
  if (m.mms.row(mm, MM_MAP_COUNT) >= m.maxMapCount - 3) return -ENOMEM
  // One for the target, and two for what is left of the source on both sides until its middle is gone: past this
  // nothing can fail for them.
  if (vmas.capacity - vmas.nrInUse < 3) return -ENOMEM
  const linear = vmas.linearIndex(vma, start)
  // All that can fail comes before the target changes: it could not always be changed back.
  const pieces = prepareTables(m, mm, start, target, oldPages)
  if (pieces === undefined) return -ENOMEM
  // Looked at once more: others may have taken some while frames were waited for.
  if (vmas.capacity - vmas.nrInUse < 3) {
    for (const piece of pieces) unpinTable(m, mm, target + (piece - start))
    return -ENOMEM
  }
  const created = copyVma(m, mm, vma, start, target, newPages)
  const kept = (flags & MREMAP_DONTUNMAP) !== 0 ? vmas.at(mm, start) : 0
  moveTables(m, mm, pieces, start, target, oldPages, linear, kept)
  const vmFlags = vmas.flags[created]
  addTotalVm(m, mm, newPages)
  if ((vmFlags & VM_LOCKED) !== 0) m.mms.w[(mm << MM_SHIFT) + MM_LOCKED_VM] += newPages
  if ((vmFlags & VM_LOCKED) !== 0 && newPages > oldPages) {
    result.growStart = target + oldPages
    result.growEnd = target + newPages
  }
  if ((flags & MREMAP_DONTUNMAP) !== 0) releaseTables(m, mm, start, start + oldPages)
  else if (oldPages > 0) doMunmap(m, mm, start, start + oldPages)
  return target
}

/**
 * A vma at the target with the source's file pages and flags, merged with a neighbour if it can be; a row for it is
 * free. → vma.
 */
function copyVma(m: Machine, mm: number, vma: number, start: number, target: number, pages: number): number {
  const { vmas } = m
  const file = vmas.file[vma]
  const inode = vmas.inode[vma]
  // Private memory that nobody stored to has no pages yet that could tell where it was: it is renumbered.
  const pgoff = inode === 0 && vmas.anon[vma] === 0 ? target : vmas.linearIndex(vma, start)
  const flags = vmas.flags[vma]
  const merged = mergeVma(vmas, mm, target, target + pages, flags, vmas.anon[vma], file, inode, pgoff, m.onFile)
  if (merged !== 0) return merged
  const created = vmas.alloc()
  vmas.mm[created] = mm
  vmas.start[created] = target
  vmas.end[created] = target + pages
  vmas.pgoff[created] = pgoff
  vmas.flags[created] = flags
  vmas.file[created] = file
  vmas.inode[created] = inode
  vmas.anon[created] = vmas.anon[vma]
  vmas.anonChain[created] = vmas.anonChain[vma]
  if (file !== 0) getFile(m, file)
  vmas.link(created)
  vmas.stamp(created)
  return created
}

/**
 * Makes the target's tables for all entries that will move, and pins them, empty as they are, until then. → the first
 * pages of the pieces to move, each within one table at the source and one at the target; undefined, with nothing left
 * pinned, when there is no memory.
 */
function prepareTables(m: Machine, mm: number, from: number, to: number, pages: number): number[] | undefined {
  const { tables, frames } = m
  const end = from + pages
  const pieces: number[] = []
  let vpn = tables.nextLeaf(mm, from, end)
  while (vpn < end) {
    let slot = tables.ensure(mm, to + (vpn - from))
    while (slot === 0 && m.waitForFrame() === 0) slot = tables.ensure(mm, to + (vpn - from))
    if (slot === 0 || !frames.pin(slot >>> tables.leafShift)) {
      for (const piece of pieces) unpinTable(m, mm, to + (piece - from))
      return undefined
    }
    pieces.push(vpn)
    vpn = pieceEnd(m, vpn, from, to, pages)
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
  return pieces
}

function pieceEnd(m: Machine, vpn: number, from: number, to: number, pages: number): number {
  const atSource = m.tables.leafEnd(vpn, from + pages)
  const atTarget = from + (m.tables.leafEnd(to + (vpn - from), to + pages) - to)
  return Math.min(atSource, atTarget)
}

function unpinTable(m: Machine, mm: number, vpn: number): void {
  const slot = m.tables.find(mm, vpn)
  m.frames.unpin(slot >>> m.tables.leafShift)
  m.tables.releaseIfEmpty(slot)
}

/**
 * Moves the entries of the pieces that `prepareTables` found; `linear` is the linear file page of `from`. `kept` is the
 * source's vma when it stays, or 0: it goes on showing the file pages that it showed. Cannot fail.
 */
function moveTables(
  m: Machine,
  mm: number,
  pieces: readonly number[],
  from: number,
  to: number,
  pages: number,
  linear: number,
  kept: number
): void {
  const { tables } = m
  const { i32 } = m.ram
  m.notifiers.rangeStart(mm, from, from + pages)
  for (const vpn of pieces) {
    const stop = pieceEnd(m, vpn, from, to, pages)
    const target = tables.find(mm, to + (vpn - from))
    // Reclaim, behind the making of a later table, may have emptied this piece and freed its table.
    const source = tables.find(mm, vpn)
    for (let i = 0; source !== 0 && i < stop - vpn; i++) {
      const pte = i32[source + i]
      if (pte === 0) continue
      const at = vpn + i - from
      if (hasNode(m, pte, linear + at)) m.nodes.move(pteMappedFrame(pte), mm, vpn + i, to + at)
      tables.set(source + i, kept === 0 ? 0 : remembered(m, kept, vpn + i, pte))
      tables.set(target + i, pteMkSoftDirty(pte))
    }
    unpinTable(m, mm, to + (vpn - from))
  }
  m.notifiers.rangeEnd(mm, from, from + pages)
}

function hasNode(m: Machine, pte: number, linear: number): boolean {
  if (!pteMaps(pte)) return false
  const frame = pteMappedFrame(pte)
  if (frame === 0) return false
  return (m.frames.row(frame, F_FLAGS) & PG_ANON) !== 0 || m.frames.row(frame, F_INDEX) !== linear
}

/** Gives back the tables that moving emptied, where the range itself stays mapped. */
function releaseTables(m: Machine, mm: number, start: number, end: number): void {
  const { tables } = m
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    const stop = tables.leafEnd(vpn, end)
    tables.releaseIfEmpty(tables.slot)
    vpn = stop < end ? tables.nextLeaf(mm, stop, end) : end
  }
}
