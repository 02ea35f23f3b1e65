/**
 * madvise (Linux: mm/madvise.c, 3.19; FREE as in 4.5, WIPEONFORK and KEEPONFORK as in 4.14, COLD and PAGEOUT as in 5.4,
 * POPULATE_READ and POPULATE_WRITE as in 5.14, DONTNEED_LOCKED as in 5.18).
 *
 * On nonlinear mappings: DONTNEED keeps what each address shows; WILLNEED reads ahead at the linear place (as Linux
 * does, and says so); REMOVE is refused with EINVAL. COLD and PAGEOUT are about the pages that the entries show,
 * wherever in the file they are.
 */
import { EACCES, EAGAIN, EFAULT, EINVAL, ENOMEM } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE, FAULT_ACCERR, FAULT_BUS, FAULT_OK, FAULT_OOM } from '../abi/fault.ts'
import {
  MADV_COLD,
  MADV_DODUMP,
  MADV_DOFORK,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_HUGEPAGE,
  MADV_KEEPONFORK,
  MADV_MERGEABLE,
  MADV_NOHUGEPAGE,
  MADV_NORMAL,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_RANDOM,
  MADV_REMOVE,
  MADV_SEQUENTIAL,
  MADV_UNMERGEABLE,
  MADV_WILLNEED,
  MADV_WIPEONFORK
} from '../abi/mman.ts'
import { FILL_PARKED } from '../cache/fill.ts'
import { INODE_STORE } from '../cache/inodes.ts'
import {
  F_FLAGS,
  F_MAPCOUNT,
  FRAME_SHIFT,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_LRU,
  PG_SWAPBACKED
} from '../frame/frame-table.ts'
import { PTE_DIRTY, PTE_PRESENT, PTE_WRITE, pteFrame, pteSwap, pteSwapOffset } from '../pgtable/pte.ts'
import {
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_DONTEXPAND,
  VM_LOCKED,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_MERGEABLE,
  VM_NONLINEAR,
  VM_RAND_READ,
  VM_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_WIPEONFORK,
  VM_WRITE
} from '../vma/flags.ts'
import { changeFlags } from './change-flags.ts'
import { faultThrough } from './fault.ts'
import { FILL_HOLES, getPage } from './filemap.ts'
import { holdFile, leaveFile } from './files.ts'
import type { Machine } from './machine.ts'
import { swapInAnon } from './swap-in.ts'
import { punchHole } from './truncate.ts'
import { VmaParts } from './vma-parts.ts'
import { ZAP_REMEMBER, zapEntry, zapRange } from './zap.ts'

export function isAdvice(advice: number): boolean {
  return (advice >= MADV_NORMAL && advice <= MADV_DONTNEED) || (advice >= MADV_FREE && advice <= MADV_DONTNEED_LOCKED)
}

/**
 * Advises [start, end). → 0; the first error of a vma; or -ENOMEM when part was unmapped (the rest is done, but
 * not by POPULATE, which goes page by page and stops there).
 */
export function doMadvise(
  m: Machine,
  mm: number,
  generation: number,
  start: number,
  end: number,
  advice: number
): number {
  const parts = new VmaParts(m, mm, start, end)
  if (advice === MADV_REMOVE) return removeParts(m, mm, generation, parts)
  if (advice === MADV_COLD || advice === MADV_PAGEOUT) return ageParts(m, mm, generation, parts, advice)
  return m.runOn(mm, generation, () => adviseParts(m, mm, parts, advice))
}

function adviseParts(m: Machine, mm: number, parts: VmaParts, advice: number): number {
  const populates = advice === MADV_POPULATE_READ || advice === MADV_POPULATE_WRITE
  while (parts.next()) {
    if (parts.hasHoles && populates) return -ENOMEM
    const error = adviseVma(m, mm, parts.vma, parts.start, parts.stop, advice)
    if (error < 0) return error
  }
  return parts.hasHoles ? -ENOMEM : 0
}

function adviseVma(m: Machine, mm: number, vma: number, start: number, end: number, advice: number): number {
  switch (advice) {
    case MADV_WILLNEED:
      return willNeed(m, mm, vma, start, end)
    case MADV_DONTNEED:
      return (m.vmas.flags[vma] & VM_LOCKED) === 0 ? dontNeed(m, mm, vma, start, end) : -EINVAL
    case MADV_DONTNEED_LOCKED:
      return dontNeed(m, mm, vma, start, end)
    case MADV_FREE:
      return free(m, mm, vma, start, end)
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return populate(m, mm, vma, start, end, advice === MADV_POPULATE_WRITE ? ACCESS_WRITE : ACCESS_READ)
    default:
      return setBehaviour(m, mm, vma, start, end, advice)
  }
}

function setBehaviour(m: Machine, mm: number, vma: number, start: number, end: number, advice: number): number {
  const old = m.vmas.flags[vma]
  let flags = old
  if (advice === MADV_NORMAL) flags &= ~(VM_RAND_READ | VM_SEQ_READ)
  else if (advice === MADV_SEQUENTIAL) flags = (flags & ~VM_RAND_READ) | VM_SEQ_READ
  else if (advice === MADV_RANDOM) flags = (flags & ~VM_SEQ_READ) | VM_RAND_READ
  else if (advice === MADV_DONTFORK) flags |= VM_DONTCOPY
  else if (advice === MADV_DOFORK) flags &= ~VM_DONTCOPY
  else if (advice === MADV_DONTDUMP) flags |= VM_DONTDUMP
  else if (advice === MADV_DODUMP) flags &= ~VM_DONTDUMP
  else if (advice === MADV_MERGEABLE) {
    // Only a mark here: equal pages are not looked for. Shared mappings do not get it.
    if ((old & (VM_SHARED | VM_MAYSHARE | VM_DONTEXPAND)) === 0) flags |= VM_MERGEABLE
  } else if (advice === MADV_UNMERGEABLE) flags &= ~VM_MERGEABLE
  else if (advice === MADV_WIPEONFORK) {
    if (m.vmas.inode[vma] !== 0) return -EINVAL
    flags |= VM_WIPEONFORK
  } else if (advice === MADV_KEEPONFORK) flags &= ~VM_WIPEONFORK
  else if (advice === MADV_HUGEPAGE || advice === MADV_NOHUGEPAGE) {
    // There are no huge pages here; 3.19 refuses mappings that were asked to be shared (measured).
    return (old & (VM_SHARED | VM_MAYSHARE)) !== 0 ? -EINVAL : 0
  }
  if (flags === old) return 0
  // As Linux says it: with more mappings allowed, or fewer there, the same call may succeed.
  return changeFlags(m, mm, vma, start, end, flags) === 0 ? -EAGAIN : 0
}

function willNeed(m: Machine, mm: number, vma: number, start: number, end: number): number {
  const inode = m.vmas.inode[vma]
  if (inode === 0) return willNeedAnon(m, mm, start, end)
  const first = m.vmas.linearIndex(vma, start)
  const last = Math.min(m.vmas.linearIndex(vma, end) - 1, m.nrFilePages(inode) - 1)
  if (last < first) return 0
  if (m.inodes.kind[inode] === INODE_STORE) {
    m.filler.readahead(inode, first, last)
    return 0
  }
  // Memory: swapped-out pages come back; ramfs makes its holes pages.
  for (let index = first; index <= last; index++) {
    const isHole = m.cache.lookup(inode, index) === 0 && m.swap.find(inode, index) === 0
    if (isHole && m.inodes.isShmem(inode)) continue
    if (getPage(m, inode, m.vmas.file[vma], index, 0, FILL_HOLES) < 0) return 0
  }
  return 0
}

/** Swapped-out pages come back into the swap cache, as long as there is memory. */
function willNeedAnon(m: Machine, mm: number, start: number, end: number): number {
  const { tables } = m
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++) {
      const pte = tables.get(mm, vpn)
      const page = pteSwap(pte) ? swapInAnon(m, pteSwapOffset(pte)) : 0
      if (page < 0 && page !== FILL_PARKED) return 0
    }
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
  return 0
}

function dontNeed(m: Machine, mm: number, vma: number, start: number, end: number): number {
  m.notifiers.rangeStart(mm, start, end)
  zapRange(m, mm, vma, start, end, ZAP_REMEMBER)
  m.notifiers.rangeEnd(mm, start, end)
  return 0
}

/** Private anonymous pages may be dropped by reclaim, until something is stored to them again. */
function free(m: Machine, mm: number, vma: number, start: number, end: number): number {
  if (m.vmas.inode[vma] !== 0 || (m.vmas.flags[vma] & VM_LOCKED) !== 0) return -EINVAL
  const { tables, frames, ram } = m
  m.notifiers.rangeStart(mm, start, end)
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    let slot = tables.slot
    const first = slot
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++, slot++) {
      const pte = ram.i32[slot]
      if (pteSwap(pte)) {
        tables.set(slot, 0)
        zapEntry(m, mm, vma, vpn, pte)
        continue
      }
      const frame = pteFrame(pte)
      if ((pte & PTE_PRESENT) === 0 || frame === 0) continue
      // Shared with a forked address space, or with a copy in swap: the others still want it.
      const flags = frames.row(frame, F_FLAGS)
      if (frames.row(frame, F_MAPCOUNT) !== 1 || (flags & (PG_ANON | PG_CACHED)) !== PG_ANON) continue
      tables.rewrite(slot, pte & ~(PTE_DIRTY | PTE_WRITE))
      const onList = (flags & PG_LRU) !== 0
      if (onList) m.lru.remove(frame)
      frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~(PG_DIRTY | PG_SWAPBACKED)
      if (onList) m.lru.addOld(frame)
    }
    tables.releaseIfEmpty(first)
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
  m.notifiers.rangeEnd(mm, start, end)
  return 0
}

/**
 * Pages of the parts that no other entry shows go first when there is need of room (COLD), or at once (PAGEOUT):
 * written, if they are dirty, in windows. Pages that cannot go stay as they are. Vmas stay, since the mmap lock is held
 * for reading.
 */
function ageParts(m: Machine, mm: number, generation: number, parts: VmaParts, advice: number): number {
  if (!m.lockMmRead(mm, generation)) return -m.refused
  try {
    let result = 0
    while (result === 0 && parts.next()) {
      if ((m.vmas.flags[parts.vma] & VM_LOCKED) !== 0) result = -EINVAL
      else agePages(m, mm, parts.start, parts.stop, advice)
    }
    m.unlockMmRead(mm)
    return result < 0 ? result : parts.hasHoles ? -ENOMEM : 0
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

function agePages(m: Machine, mm: number, start: number, end: number, advice: number): void {
  const { tables, frames, reclaim } = m
  let vpn = tables.nextLeaf(mm, start, end)
  while (vpn < end) {
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop; vpn++) {
      // Looked up each time: the table may go while a page is written.
      const pte = tables.get(mm, vpn)
      const frame = (pte & PTE_PRESENT) === 0 ? 0 : pteFrame(pte)
      if (frame === 0 || frames.row(frame, F_MAPCOUNT) !== 1) continue
      if (advice === MADV_COLD) reclaim.makeOld(frame)
      else reclaim.pageOut(frame)
    }
    if (vpn < end) vpn = tables.nextLeaf(mm, vpn, end)
  }
}

/** Punches what the parts show, each without the mmap lock, as Linux does: a punch takes locks that stand above it. */
function removeParts(m: Machine, mm: number, generation: number, parts: VmaParts): number {
  if (!m.lockMm(mm, generation)) return -m.refused
  try {
    let result = 0
    while (result === 0 && parts.next()) {
      const { vma } = parts
      result = mayRemove(m, vma)
      if (result < 0) break
      const { pageSize } = m.ram
      const inode = m.vmas.inode[vma]
      const first = m.vmas.linearIndex(vma, parts.start)
      const file = m.vmas.file[vma]
      holdFile(m, file)
      m.unlock(mm)
      if (!m.reenter()) return -m.refused
      result = leaveFile(m, file, punchHole(m, inode, first * pageSize, (parts.stop - parts.start) * pageSize))
      if (!m.lockMm(mm, generation)) return -m.refused
    }
    m.unlock(mm)
    return result < 0 ? result : parts.hasHoles ? -ENOMEM : 0
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/** 0 for a linear shared writable mapping of a file. */
function mayRemove(m: Machine, vma: number): number {
  const flags = m.vmas.flags[vma]
  if ((flags & (VM_LOCKED | VM_NONLINEAR)) !== 0) return -EINVAL
  if (m.vmas.inode[vma] === 0) return -EINVAL
  const isWritable = (flags & (VM_SHARED | VM_WRITE)) === (VM_SHARED | VM_WRITE) && (flags & VM_MAYWRITE) !== 0
  return isWritable ? 0 : -EACCES
}

function populate(m: Machine, mm: number, vma: number, start: number, end: number, access: number): number {
  // Also what could be read by another right: PROT_READ itself is asked for.
  if ((m.vmas.flags[vma] & (access === ACCESS_WRITE ? VM_WRITE : VM_READ)) === 0) return -EINVAL
  for (let vpn = start; vpn < end; vpn++) {
    const code = faultThrough(m, mm, vpn, access)
    if (code === FAULT_OK) continue
    if (code === FAULT_BUS && m.lastError === EAGAIN) return -EAGAIN
    return code === FAULT_OOM ? -ENOMEM : code === FAULT_ACCERR ? -EINVAL : -EFAULT
  }
  return 0
}
