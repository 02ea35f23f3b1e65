/**
 * The page fault: makes the entry of one page allow one access (Linux: handle_mm_fault and below, 3.19).
 *
 *   entry      what happens
 *   none       anonymous: the zero page, or a fresh one for a store · file: the linear page, on a load with cached
 *              neighbours (fault-around)
 *   file       the page that the entry remembers; no fault-around
 *   swap       the page comes back from its slot
 *   present    a store to a shared page makes it dirty and writable; to a private one, a copy; else YOUNG is set
 *
 * A new entry is not YOUNG: the access that faulted is its first use, and only a second one (mm/access sets it) tells
 * reclaim that the page is worth keeping. A file read once through is then evicted in order, without a second look.
 *
 * Everything that can allocate, and so reclaim, comes first; then the entry is looked up again and, if it is still the
 * one we began with, replaced. The page in hand is pinned meanwhile. Results are FAULT_* codes, and the store's errno
 * in `m.lastError`. Lock: `Machine.enter`, for the one fault; whether the page left its file meanwhile is checked once
 * it is in hand.
 */
import { EAGAIN, ENOMEM, ESRCH } from '../abi/errno.ts'
import {
  ACCESS_READ,
  ACCESS_UNSHARE,
  ACCESS_WRITE,
  FAULT_ACCERR,
  FAULT_BUS,
  FAULT_MAPERR,
  FAULT_OK,
  FAULT_OOM,
  FAULT_RETRY,
  FAULT_WAIT
} from '../abi/fault.ts'
import { FILL_CROWDED, FILL_PARKED, RA_NORMAL, RA_RANDOM, RA_SEQUENTIAL } from '../cache/fill.ts'
import { INODE_STORE } from '../cache/inodes.ts'
import {
  F_FLAGS,
  F_MAPPING,
  FRAME_SHIFT,
  PG_ANON,
  PG_DIRTY,
  PG_EXCLUSIVE,
  PG_SWAPBACKED
} from '../frame/frame-table.ts'
import { MM_MAJ_FLT, MM_MIN_FLT, MM_SHIFT, MM_SWAPENTS } from '../frame/mm-table.ts'
import { TRACE_FAULT } from '../frame/trace.ts'
import { COW_COPIES, PGFAULT, PGMAJFAULT } from '../frame/vmstat.ts'
import {
  mkPte,
  PAGE_PROT_DEFAULT,
  PAGE_PROT_NONE,
  PAGE_PROT_WRITE,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_READ,
  PTE_READ_HIT,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  PTE_WRITE_HIT,
  PTE_YOUNG,
  pageProtFlags,
  pteFile,
  pteFrame,
  pteMigration,
  ptePageProt,
  pteSoftDirty,
  pteSwapOffset,
  pteToPgoff
} from '../pgtable/pte.ts'
import {
  VM_NONLINEAR,
  VM_PROT_MASK,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_WRITE
} from '../vma/flags.ts'
import { installAnon, prepareAnon, pteOfCopy, takeAlone } from './anon.ts'
import { makeRoom } from './balance.ts'
import { isHeldBack } from './dirty-limit.ts'
import { readEarly, rememberRead } from './early-read.ts'
import { faultAround, faultAroundFirst } from './fault-around.ts'
import { bringPage, FILL_HOLES, fetchError } from './filemap.ts'
import { waitForTurn } from './frame-giver.ts'
import { type Machine, POLICY_LINUX, WAIT_FOR_ROOM, WAIT_TO_WRITE } from './machine.ts'
import { prefetchAlong, prefetchOn } from './prefetch.ts'
import { NEEDS_NODE, NO_NODE, prepareEntry } from './prepare-entry.ts'
import { swapInAnon } from './swap-in.ts'

/**
 * Handles a fault at a page. FAULT_OK: the access will now succeed (until something else changes the entry). A fault
 * from a store's or notifier's callback is FAULT_BUS with EDEADLK: what it needs may be half changed.
 */
export function handleMmFault(m: Machine, mm: number, vpn: number, access: number): number {
  const code = lockEntry(m, mm, 0, vpn, access)
  if (code === FAULT_OK) m.unlockMmRead(mm)
  return code
}

/**
 * The same, and on FAULT_OK the mmap lock (for reading) and the machine lock are still held: until `unlockMmRead`, the
 * entry allows the access and its frame is the page's. `generation` is the address space's, 0 for any.
 */
export function lockEntry(m: Machine, mm: number, generation: number, vpn: number, access: number): number {
  const since = m.filler.requests.nrFailures
  m.lastFailure = -1
  m.writeRefused = 0
  if (m.sync.isShared) {
    makeRoom(m)
    readEarly(m, mm, vpn)
  }
  for (let round = 0; ; round++) {
    if (!m.lockMmRead(mm, generation)) return refused(m)
    try {
      // Another thread may have made it allow the access by now; and who borrows a page asks at once.
      if (entryAllows(m, mm, vpn, access)) {
        if (m.sync.line.isIn) m.sync.line.leave()
        return FAULT_OK
      }
      const code = m.isOthersTurn ? waitForTurn(m) : faultInside(m, mm, vpn, access)
      // Nobody wanted what was read early: whatever the next guess would go by, it is wrong.
      if (m.early.index >= 0) m.early.forget()
      if (code === FAULT_OK) return FAULT_OK
      if (code !== FAULT_WAIT) {
        m.unlockMmRead(mm)
        return code
      }
      if (round === 0) m.sync.beginWait()
      const inode = m.waitInode
      const index = m.waitIndex
      const error = m.waitForPageOutside(mm)
      if (error === EAGAIN) return parked(m)
      const failed = error !== 0 ? error : fetchError(m, since, inode, index)
      if (failed !== 0) return busError(m, failed)
    } catch (thrown) {
      return busError(m, -m.abandon(thrown))
    }
  }
}

function refused(m: Machine): number {
  const { refused: error } = m
  if (m.sync.line.isIn) m.giveBack(() => m.sync.line.leave())
  return error === ESRCH ? FAULT_MAPERR : busError(m, error)
}

/** Whether the entry allows the access as it is; it counts as used then. */
function entryAllows(m: Machine, mm: number, vpn: number, access: number): boolean {
  const need = (access === ACCESS_WRITE ? PTE_WRITE_HIT : PTE_READ_HIT) & ~PTE_YOUNG
  const slot = m.tables.find(mm, vpn)
  const pte = slot === 0 ? 0 : m.ram.i32[slot]
  if ((pte & need) !== need) return false
  if (access === ACCESS_UNSHARE && mayBecomeAnother(m, m.vmas.at(mm, vpn), pte)) return false
  if ((pte & PTE_YOUNG) === 0) m.tables.rewrite(slot, pte | PTE_YOUNG)
  return true
}

/**
 * `faultInside` that also waits for pages on their way. For verbs that hold the mmap lock anyhow; others let it go
 * (`lockEntry`).
 */
export function faultThrough(m: Machine, mm: number, vpn: number, access: number): number {
  const since = m.filler.requests.nrFailures
  for (let round = 0; ; round++) {
    const code = faultInside(m, mm, vpn, access)
    if (code !== FAULT_WAIT) return code
    if (round === 0) m.sync.beginWait()
    const inode = m.waitInode
    const index = m.waitIndex
    const error = m.waitForPageInside() || fetchError(m, since, inode, index)
    if (error === EAGAIN) return parked(m)
    if (error !== 0) return busError(m, error)
  }
}

/** The same, within a verb. May give FAULT_WAIT. */
export function faultInside(m: Machine, mm: number, vpn: number, access: number): number {
  m.vmstat[PGFAULT]++
  const majorBefore = m.vmstat[PGMAJFAULT]
  let code: number = FAULT_RETRY
  let rounds = 0
  for (; code === FAULT_RETRY; rounds++) code = faultOnce(m, mm, vpn, access)
  // An earlier round may have made a node ready that the last one had no use for.
  if (rounds > 1 || code !== FAULT_OK) m.nodes.trim()
  m.trace.add(TRACE_FAULT, mm, vpn, access, code)
  m.mms.w[(mm << MM_SHIFT) + (m.vmstat[PGMAJFAULT] > majorBefore ? MM_MAJ_FLT : MM_MIN_FLT)]++
  return code
}

function faultOnce(m: Machine, mm: number, vpn: number, access: number): number {
  const vma = m.vmas.at(mm, vpn)
  if (vma === 0) return FAULT_MAPERR
  const flags = m.vmas.flags[vma]
  const slot = m.tables.find(mm, vpn)
  const pte = m.ram.i32[slot]
  if (!permits(flags, ptePageProt(pte), access)) return FAULT_ACCERR
  return resolveFault(m, mm, vma, vpn, slot, pte, access)
}

/** One round of a fault that is allowed; also for accesses that ask nobody (forced.ts). May give FAULT_RETRY. */
export function resolveFault(
  m: Machine,
  mm: number,
  vma: number,
  vpn: number,
  slot: number,
  pte: number,
  access: number
): number {
  if ((pte & PTE_PRESENT) !== 0) return presentFault(m, mm, vma, vpn, slot, pte, access)
  if (access === ACCESS_UNSHARE) {
    const code = resolveFault(m, mm, vma, vpn, slot, pte, ACCESS_READ)
    return code === FAULT_OK ? FAULT_RETRY : code
  }
  if (pte === 0) {
    if (m.vmas.inode[vma] === 0) return anonFault(m, mm, vma, vpn, access)
    return fileFault(m, mm, vma, vpn, m.vmas.linearIndex(vma, vpn), slot, pte, access)
  }
  if (pteFile(pte)) {
    if ((m.vmas.flags[vma] & VM_NONLINEAR) === 0) return busError(m, 0)
    return fileFault(m, mm, vma, vpn, pteToPgoff(pte), slot, pte, access)
  }
  // Its page is between two frames: whoever moves it will be done.
  if (pteMigration(pte)) return busError(m, EAGAIN)
  return swapFault(m, mm, vma, vpn, pte, access)
}

/** Whether the vma, or the page's own protection, allows the access. On x86 any right makes a page readable. */
function permits(vmFlags: number, pageProt: number, access: number): boolean {
  if (pageProt !== PAGE_PROT_DEFAULT) {
    return access === ACCESS_WRITE ? pageProt === PAGE_PROT_WRITE : pageProt !== PAGE_PROT_NONE
  }
  return (vmFlags & (access === ACCESS_WRITE ? VM_WRITE : VM_PROT_MASK)) !== 0
}

function busError(m: Machine, errno: number): number {
  m.parkedFault = 0
  m.lastError = errno
  return FAULT_BUS
}

/** The fault code for what getPage gave instead of a frame. */
function pageError(m: Machine, error: number): number {
  if (error === -ENOMEM) return outOfMemory(m)
  m.parkedFault = 0
  m.lastError = -error
  return FAULT_BUS
}

/** `frame` is the page that is on its way; 0 when the inode's lock has to be free first. */
function waitFor(m: Machine, inode: number, index: number, frame: number): number {
  m.waitInode = inode
  m.waitIndex = index
  m.waitFrame = frame
  return FAULT_WAIT
}

/** This thread may not wait for the page: the access is to be made again once it is there. */
function parked(m: Machine): number {
  m.parkedFault = ++m.nrParked
  m.lastError = EAGAIN
  return FAULT_BUS
}

/** Unless there will be a frame in a moment. */
function outOfMemory(m: Machine): number {
  if (m.mayWaitForFrame()) return FAULT_WAIT
  m.parkedFault = 0
  m.lastError = ENOMEM
  return FAULT_OOM
}

/** The entry is present but lacks YOUNG, or WRITE for a store. */
function presentFault(
  m: Machine,
  mm: number,
  vma: number,
  vpn: number,
  slot: number,
  pte: number,
  access: number
): number {
  const isEnough = access === ACCESS_UNSHARE ? !mayBecomeAnother(m, vma, pte) : access !== ACCESS_WRITE
  if (isEnough || (pte & PTE_WRITE) !== 0) {
    m.tables.rewrite(slot, pte | PTE_YOUNG)
    return FAULT_OK
  }
  if ((m.vmas.flags[vma] & VM_SHARED) !== 0) {
    const inode = m.vmas.inode[vma]
    if (isHeldBack(m, inode, pteFrame(pte))) return waitFor(m, inode, 0, WAIT_TO_WRITE)
    // Linux: wp_page_shared with page_mkwrite. From here on the page counts as dirty.
    if (!storesUnseen(m, vma)) m.cache.setDirty(pteFrame(pte))
    m.tables.rewrite(slot, pte | ((PTE_WRITE | PTE_DIRTY | PTE_YOUNG | PTE_SOFT_DIRTY) & m.grants))
    return FAULT_OK
  }
  return copyOnWrite(m, mm, vma, vpn, slot, pte, access)
}

/** Whether who keeps the page of this entry could see another space's stores in it, or miss its own space's. */
function mayBecomeAnother(m: Machine, vma: number, pte: number): boolean {
  const flags = m.vmas.flags[vma]
  if ((flags & VM_SHARED) !== 0) return false
  const page = m.frames.row(pteFrame(pte), F_FLAGS)
  return (page & PG_ANON) !== 0 ? (page & PG_EXCLUSIVE) === 0 : (flags & VM_WRITE) !== 0
}

/**
 * Whether Linux would not have faulted: its loads make the entries of shared memory writable at once, unless soft-dirty
 * wants to see the first store. Only the entry is dirty then; the page becomes it when the entry goes (measured on
 * 3.19).
 */
function storesUnseen(m: Machine, vma: number): boolean {
  if (m.policy !== POLICY_LINUX || (m.vmas.flags[vma] & VM_SOFTDIRTY) === 0) return false
  return m.inodes.isShmem(m.vmas.inode[vma])
}

/**
 * A store to a private page: it becomes ours alone, by a copy unless it is already. With ACCESS_UNSHARE without the
 * store.
 */
function copyOnWrite(
  m: Machine,
  mm: number,
  vma: number,
  vpn: number,
  slot: number,
  pte: number,
  access: number
): number {
  const old = pteFrame(pte)
  const { frames } = m
  prepareAnon(m, vma)
  if ((frames.row(old, F_FLAGS) & PG_ANON) !== 0 && takeAlone(m, old)) {
    if (access === ACCESS_UNSHARE) return FAULT_RETRY
    m.tables.rewrite(slot, pte | ((PTE_WRITE | PTE_DIRTY | PTE_YOUNG | PTE_SOFT_DIRTY) & m.grants))
    frames.w[(old << FRAME_SHIFT) + F_FLAGS] |= PG_DIRTY
    // After MADV_FREE: an ordinary page again, and so on another list.
    if ((frames.row(old, F_FLAGS) & PG_SWAPBACKED) === 0) m.lru.setSwapBacked(old)
    return FAULT_OK
  }
  if (old !== 0 && !frames.pin(old)) return outOfMemory(m)
  const copy = old === 0 ? m.allocator.allocZeroed() : m.allocator.alloc()
  const ready = copy !== 0 && ((old !== 0 && m.rmap.needsNode(old, vma, vpn)) || m.nodes.prepare())
  if (old !== 0) frames.unpin(old)
  if (!ready) {
    if (copy !== 0) m.allocator.free(copy)
    return outOfMemory(m)
  }
  const at = m.tables.find(mm, vpn)
  if (at === 0 || m.ram.i32[at] !== pte) {
    m.allocator.free(copy)
    if (old !== 0) m.putFrame(old)
    return FAULT_RETRY
  }
  if (old !== 0) {
    m.ram.copyFrame(copy, old)
    m.vmstat[COW_COPIES]++
  }
  // Not even for a moment: other threads look at the entry.
  if (access === ACCESS_UNSHARE) m.grants = ~PTE_WRITE
  installAnon(m, mm, vma, vpn, at, copy, old)
  m.grants = -1
  if (access === ACCESS_UNSHARE) m.tables.rewrite(at, pteOfCopy(pte, copy))
  // The old page lives on, and others store to it: who found it in this entry must not load from it any more.
  if (m.sync.isShared) m.sync.changed()
  m.notifiers.changePte(mm, vpn, copy)
  if (old !== 0) m.afterUnmap(old)
  return FAULT_OK
}

/** The first touch of private anonymous memory. */
function anonFault(m: Machine, mm: number, vma: number, vpn: number, access: number): number {
  if (access !== ACCESS_WRITE) {
    const slot = m.tables.ensure(mm, vpn)
    if (slot === 0) return outOfMemory(m)
    m.tables.set(slot, mkPte(0, PTE_READ & m.grants))
    return FAULT_OK
  }
  prepareAnon(m, vma)
  const frame = m.allocator.allocZeroed()
  if (frame === 0) return outOfMemory(m)
  const slot = prepareEntry(m, mm, vpn, NEEDS_NODE)
  if (slot === 0) {
    m.allocator.free(frame)
    return outOfMemory(m)
  }
  installAnon(m, mm, vma, vpn, slot, frame, 0)
  return FAULT_OK
}

/** A fault on file page `pgoff`: linear when the entry is none, else the one that it remembers. */
function fileFault(
  m: Machine,
  mm: number,
  vma: number,
  vpn: number,
  pgoff: number,
  slot: number,
  pte: number,
  access: number
): number {
  const inode = m.vmas.inode[vma]
  const vmFlags = m.vmas.flags[vma]
  const write = access === ACCESS_WRITE
  const copies = write && (vmFlags & VM_SHARED) === 0
  if (copies) prepareAnon(m, vma)
  // After the page itself, so that what was read ahead is mapped with it; Linux's policy keeps Linux's order.
  const around = !write && pte === 0 && m.faultAroundPages > 1
  const aroundFirst = around && m.policy === POLICY_LINUX
  if (aroundFirst && faultAroundFirst(m, mm, vma, vpn)) return FAULT_OK
  if (pgoff >= m.nrFilePages(inode)) return busError(m, 0)

  const own = (vmFlags & VM_RAND_READ) !== 0 ? RA_RANDOM : (vmFlags & VM_SEQ_READ) !== 0 ? RA_SEQUENTIAL : RA_NORMAL
  const advice = own === RA_NORMAL ? m.files.advice[m.vmas.file[vma]] : own
  const cached = m.cache.lookup(inode, pgoff)
  if (write && !copies && isHeldBack(m, inode, cached)) return waitFor(m, inode, 0, WAIT_TO_WRITE)
  if (cached !== 0 && !m.frames.isUptodate(cached)) return waitFor(m, inode, pgoff, cached)
  const page = cached !== 0 ? cached : bringPage(m, inode, m.vmas.file[vma], pgoff, advice, FILL_HOLES)
  const isPaged = m.inodes.pager[inode] !== 0
  if (page <= FILL_PARKED) {
    if (isPaged) {
      m.vmstat[PGMAJFAULT]++
      if (page === FILL_CROWDED) return waitFor(m, inode, pgoff, WAIT_FOR_ROOM)
      prefetchAlong(m, mm, vma, vpn)
    }
    return waitFor(m, inode, pgoff, m.cache.lookup(inode, pgoff))
  }
  if (page <= 0) return pageError(m, page)
  const read = cached === 0 && m.inodes.kind[inode] === INODE_STORE
  if (read) m.vmstat[PGMAJFAULT]++
  else m.filler.noteHit(page)
  // The file is not being read in order, so its neighbours are not there as a rule, and looking for them costs.
  const alone = read && m.files.raPages[m.vmas.file[vma]] === 1
  if (alone && !isPaged) rememberRead(m, mm, vma, advice)

  const needsNode = copies || pgoff !== m.vmas.linearIndex(vma, vpn)
  // With all of this there nothing is allocated, and so nothing reclaimed: the entry is still the one we began with.
  const ready = cached !== 0 && !copies && !aroundFirst && !isPaged && slot !== 0 && (!needsNode || m.nodes.isPrepared)
  if (!ready) {
    const { frames } = m
    if (!frames.pin(page)) return outOfMemory(m)
    if (isPaged) {
      m.filler.readOn(inode, m.vmas.file[vma], pgoff)
      prefetchOn(m, mm, vma, vpn)
    }
    const copy = copies ? m.allocator.alloc() : 0
    slot = copies && copy === 0 ? 0 : prepareEntry(m, mm, vpn, needsNode ? NEEDS_NODE : NO_NODE)
    frames.unpin(page)
    const changed = slot !== 0 && (m.ram.i32[slot] !== pte || frames.row(page, F_MAPPING) !== inode)
    if (slot === 0 || changed) {
      if (copy !== 0) m.allocator.free(copy)
      m.putFrame(page)
      if (!changed) return outOfMemory(m)
      m.tables.releaseIfEmpty(slot)
      return FAULT_RETRY
    }
    if (copies) {
      m.ram.copyFrame(copy, page)
      m.vmstat[COW_COPIES]++
      installAnon(m, mm, vma, vpn, slot, copy, 0)
      return FAULT_OK
    }
  }
  let flags = pteSoftDirty(pte)
  const pageProt = ptePageProt(pte)
  flags |= pageProt === PAGE_PROT_DEFAULT ? PTE_READ : pageProtFlags(pageProt)
  if (write) {
    flags |= PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY
    m.cache.setDirty(page)
  }
  m.rmap.addRmap(page, mm, vma, vpn)
  m.tables.set(slot, mkPte(page, flags & m.grants))
  if (around && !aroundFirst && !alone) faultAround(m, mm, vma, vpn)
  return FAULT_OK
}

/** Brings an anonymous page back from its swap slot, or finds it in the swap cache. */
function swapFault(m: Machine, mm: number, vma: number, vpn: number, pte: number, access: number): number {
  const { frames, swap } = m
  const swapSlot = pteSwapOffset(pte)
  let page = m.cache.lookup(0, swapSlot)
  if (page === 0) {
    page = swapInAnon(m, swapSlot)
    if (page < 0) return pageError(m, page)
    m.vmstat[PGMAJFAULT]++
    // Truncation took the last entry while the slot was read.
    if (page === 0) return FAULT_RETRY
  } else if (!frames.isUptodate(page)) return waitFor(m, 0, swapSlot, page)
  if (!frames.pin(page)) return outOfMemory(m)
  const ready = m.nodes.prepare()
  frames.unpin(page)
  if (!ready) return outOfMemory(m)
  const slot = m.tables.find(mm, vpn)
  if (slot === 0 || m.ram.i32[slot] !== pte) return FAULT_RETRY
  m.rmap.addRmap(page, mm, vma, vpn)
  m.mms.w[(mm << MM_SHIFT) + MM_SWAPENTS]--
  swap.count[swapSlot]--
  let flags = PTE_READ | pteSoftDirty(pte)
  const alone = takeAlone(m, page)
  if (alone && access === ACCESS_WRITE) flags |= PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY
  m.tables.set(slot, mkPte(page, flags & m.grants))
  return alone || access !== ACCESS_WRITE ? FAULT_OK : FAULT_RETRY
}
