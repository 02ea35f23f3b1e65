/**
 * fork of an address space (Linux: dup_mmap, copy_page_range, 3.19).
 *
 * Copied entry by entry: nonlinear vmas (file entries verbatim, so the child shows what the parent showed) and private
 * ones that were ever stored to (present pages become read-only in both: copy-on-write). Other file mappings start
 * empty and fault. VM_DONTCOPY parts are left out, VM_WIPEONFORK parts start empty; locks are not inherited.
 *
 * A private page that is pinned (borrowed, for one) is copied for the child at once, and the parent keeps its own,
 * writable: what is stored through the pin belongs to the parent (Linux 5.9, copy_present_page, commit 70e806e4e645).
 */
import { ENOMEM } from '../abi/errno.ts'
import { F_FLAGS, FRAME_SHIFT, PG_EXCLUSIVE } from '../frame/frame-table.ts'
import {
  MM_BRK_OFF,
  MM_BRK_PAGE,
  MM_FREE_HINT,
  MM_RLIMIT_AS,
  MM_RLIMIT_MEMLOCK,
  MM_SHIFT,
  MM_START_BRK,
  MM_SWAPENTS
} from '../frame/mm-table.ts'
import {
  mkMigrationPte,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  PTE_YOUNG,
  pteFrame,
  pteFromMigration,
  pteMigration,
  pteSwap,
  pteSwapOffset
} from '../pgtable/pte.ts'
import { VM_DONTCOPY, VM_LOCKED, VM_LOCKONFAULT, VM_NONLINEAR, VM_SHARED, VM_WIPEONFORK } from '../vma/flags.ts'
import { installAnon, pteOfCopy } from './anon.ts'
import { getFile } from './files.ts'
import type { Machine } from './machine.ts'
import { addTotalVm } from './mmap.ts'
import { exitMmap } from './munmap.ts'
import { NEEDS_NODE, prepareEntry } from './prepare-entry.ts'

const INHERITED = [MM_START_BRK, MM_BRK_PAGE, MM_BRK_OFF, MM_FREE_HINT, MM_RLIMIT_AS, MM_RLIMIT_MEMLOCK]

/** → the child's row, or -errno with no child. */
export function doFork(m: Machine, parent: number): number {
  const child = m.mms.alloc()
  if (child === 0) return -ENOMEM
  for (const word of INHERITED) m.mms.w[(child << MM_SHIFT) + word] = m.mms.row(parent, word)
  for (let vma = m.vmas.first(parent); vma !== 0; vma = m.vmas.next[vma]) {
    if ((m.vmas.flags[vma] & VM_DONTCOPY) !== 0) continue
    const error = copyVma(m, parent, child, vma)
    if (error === 0) continue
    exitMmap(m, child)
    m.mms.free(child)
    m.nodes.trim()
    return error
  }
  // A node was made ready for each entry, needed or not.
  m.nodes.trim()
  return child
}

function copyVma(m: Machine, parent: number, child: number, vma: number): number {
  const { vmas } = m
  const copy = vmas.alloc()
  if (copy === 0) return -ENOMEM
  vmas.mm[copy] = child
  vmas.start[copy] = vmas.start[vma]
  vmas.end[copy] = vmas.end[vma]
  vmas.pgoff[copy] = vmas.pgoff[vma]
  vmas.flags[copy] = vmas.flags[vma] & ~(VM_LOCKED | VM_LOCKONFAULT)
  vmas.file[copy] = vmas.file[vma]
  vmas.inode[copy] = vmas.inode[vma]
  vmas.birth[copy] = vmas.birth[vma]
  const wipes = (vmas.flags[vma] & VM_WIPEONFORK) !== 0
  if (vmas.anon[vma] !== 0 && !wipes) {
    // The child's own identity, inheriting from the parent's.
    vmas.anon[copy] = vmas.newAnonId()
    vmas.anonChain[copy] = vmas.anonChain[vma] + 1
  }
  if (vmas.file[copy] !== 0) getFile(m, vmas.file[copy])
  vmas.link(copy)
  addTotalVm(m, child, vmas.end[copy] - vmas.start[copy])
  const copies = !wipes && ((vmas.flags[vma] & VM_NONLINEAR) !== 0 || vmas.anon[vma] !== 0)
  return copies ? copyEntries(m, parent, child, vma, copy) : 0
}

function copyEntries(m: Machine, parent: number, child: number, vma: number, copy: number): number {
  const { tables, vmas } = m
  const end = vmas.end[vma]
  const shared = (vmas.flags[vma] & VM_SHARED) !== 0
  if (!shared) m.notifiers.rangeStart(parent, vmas.start[vma], end)
  let error = 0
  let vpn = tables.nextLeaf(parent, vmas.start[vma], end)
  while (vpn < end && error === 0) {
    const stop = tables.leafEnd(vpn, end)
    for (; vpn < stop && error === 0; vpn++) error = copyEntry(m, parent, child, copy, vpn, shared)
    if (vpn < end) vpn = tables.nextLeaf(parent, vpn, end)
  }
  if (!shared) m.notifiers.rangeEnd(parent, vmas.start[vma], end)
  return error
}

function copyEntry(m: Machine, parent: number, child: number, copy: number, vpn: number, shared: boolean): number {
  const { tables } = m
  const { i32 } = m.ram
  const before = tables.get(parent, vpn)
  if (before === 0) return 0
  if (!shared && isPinnedOwn(m, before)) return copyPinned(m, child, copy, vpn, before)
  // This may reclaim: the parent's entry is read after it.
  const target = prepareEntry(m, child, vpn, NEEDS_NODE)
  if (target === 0) return -ENOMEM
  const source = tables.find(parent, vpn)
  let pte = source === 0 ? 0 : i32[source]
  if (pte === 0) {
    tables.releaseIfEmpty(target)
    return 0
  }
  if ((pte & PTE_PRESENT) !== 0) {
    const frame = pteFrame(pte)
    if (!shared) {
      pte &= ~PTE_WRITE
      tables.rewrite(source, pte)
      m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_EXCLUSIVE
    } else pte &= ~(PTE_WRITE | PTE_DIRTY | PTE_YOUNG)
    tables.set(target, pte)
    if (frame !== 0) m.rmap.addRmap(frame, child, copy, vpn)
    return 0
  }
  if (pteSwap(pte)) {
    m.swap.count[pteSwapOffset(pte)]++
    m.mms.w[(child << MM_SHIFT) + MM_SWAPENTS]++
  } else if (pteMigration(pte)) {
    const frame = pteSwapOffset(pte)
    pte = mkMigrationPte(pteFromMigration(pte, frame) & ~PTE_WRITE)
    if (!shared) {
      i32[source] = pte
      m.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_EXCLUSIVE
    }
    m.rmap.addRmap(frame, child, copy, vpn)
  }
  tables.set(target, pte)
  return 0
}

function isPinnedOwn(m: Machine, pte: number): boolean {
  if ((pte & PTE_PRESENT) === 0) return false
  const frame = pteFrame(pte)
  return (m.frames.row(frame, F_FLAGS) & PG_EXCLUSIVE) !== 0 && m.frames.pins(frame) > 0
}

/** Reclaim leaves a pinned page and its entry alone, so `pte` stays the parent's across the allocations. */
function copyPinned(m: Machine, child: number, copy: number, vpn: number, pte: number): number {
  const frame = m.allocator.alloc()
  if (frame === 0) return -ENOMEM
  const target = prepareEntry(m, child, vpn, NEEDS_NODE)
  if (target === 0) {
    m.allocator.free(frame)
    return -ENOMEM
  }
  m.ram.copyFrame(frame, pteFrame(pte))
  installAnon(m, child, copy, vpn, target, frame, 0)
  m.tables.rewrite(target, pteOfCopy(pte, frame))
  return 0
}
