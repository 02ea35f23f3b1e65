/** Rules about address spaces: their vmas (list, trees, counts), their page tables, and what each entry says. */

import { PTE_FILE_MAX_PAGES, TASK_PAGES } from '../abi/limits.ts'
import type { IntervalTree } from '../base/interval-tree.ts'
import {
  F_CACHE_NEXT,
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  PG_ANON,
  PG_CACHED,
  PG_DIRTY,
  PG_EXCLUSIVE,
  PG_TABLE
} from '../frame/frame-table.ts'
import {
  MM_ANONPAGES,
  MM_FILEPAGES,
  MM_HEIGHT,
  MM_HIWATER_VM,
  MM_LOCKED_VM,
  MM_MAP_COUNT,
  MM_MMAP_LOCK,
  MM_NOTIFY_COUNT,
  MM_NR_TABLES,
  MM_ROOT,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  MM_VMA_CACHE,
  MM_VMA_ROOT
} from '../frame/mm-table.ts'
import { POLICY_LINUX } from '../mm/machine.ts'
import { TLB_MASK, TLB_SHIFT } from '../pgtable/page-tables.ts'
import {
  PAGE_PROT_DEFAULT,
  PAGE_PROT_WRITE,
  PTE_DIRTY,
  PTE_PAGE_PROT,
  PTE_PAGE_PROT_WRITE,
  PTE_PRESENT,
  PTE_READ,
  PTE_WRITE,
  pteFile,
  pteFrame,
  ptePageProt,
  pteSwap,
  pteSwapOffset,
  pteToPgoff
} from '../pgtable/pte.ts'
import { VM_LOCKED, VM_NONLINEAR, VM_PAGE_PROT, VM_PROT_MASK, VM_SHARED, VM_WRITE } from '../vma/flags.ts'
import type { Census } from './check.ts'

/** Vmas and their containers. */
export function checkSpaces(c: Census): void {
  const { mms, vmas, inodes, sync } = c.machine
  for (let mm = 1; mm <= mms.maxMms; mm++) {
    if (!mms.isAlive(mm)) {
      c.expect(mms.row(mm, MM_ROOT) === 0, () => `space ${mm} has ended but has page tables`)
      c.expect(mms.row(mm, MM_VMA_ROOT) === 0, () => `space ${mm} has ended but has vmas`)
      continue
    }
    c.equal(mms.row(mm, MM_MMAP_LOCK), sync.mmapHolders(mm), `the mmap lock of space ${mm}`)
    c.equal(mms.row(mm, MM_NOTIFY_COUNT), 0, `space ${mm}: ranges being invalidated`)
    checkVmaList(c, mm)
  }
  c.equal(vmas.nrInUse, c.nrVmas, 'vma rows in use')
  let nrFree = 0
  for (let id = vmas.firstFree; id !== 0 && nrFree <= vmas.capacity; id = vmas.next[id]) nrFree++
  c.equal(nrFree, vmas.nrEverUsed - vmas.nrInUse, 'free vma rows')
  for (let inode = 1; inode <= inodes.capacity; inode++) {
    const root = vmas.imapRoot[inode]
    if (root === 0 && vmas.imapCount[inode] === 0) continue
    const nodes = checkTree(c, vmas.imap, root, `i_mmap of inode ${inode}`)
    c.equal(vmas.imapCount[inode], nodes.length, `vmas on i_mmap of inode ${inode}`)
    for (const id of nodes) {
      c.expect(vmas.inode[id] === inode, () => `vma ${id} is on i_mmap of inode ${inode} but maps another`)
      c.expect(
        vmas.imap.start[id] === vmas.pgoff[id] &&
          vmas.imap.last[id] === vmas.pgoff[id] + (vmas.end[id] - vmas.start[id]) - 1,
        () => `vma ${id} is on i_mmap of inode ${inode} with other file pages than its own`
      )
    }
  }
}

function checkVmaList(c: Census, mm: number): void {
  const { mms, vmas, files, inodes } = c.machine
  const inTree = new Set(checkTree(c, vmas.byAddress, mms.row(mm, MM_VMA_ROOT), `vma tree of space ${mm}`))
  let count = 0
  let total = 0
  let locked = 0
  let prev = 0
  let cacheSeen = mms.row(mm, MM_VMA_CACHE) === 0
  for (let id = vmas.first(mm); id !== 0 && count <= vmas.capacity; id = vmas.next[id]) {
    const name = `vma ${id} of space ${mm}`
    const start = vmas.start[id]
    const end = vmas.end[id]
    const flags = vmas.flags[id]
    const file = vmas.file[id]
    count++
    total += end - start
    if ((flags & VM_LOCKED) !== 0) locked += end - start
    if (mms.row(mm, MM_VMA_CACHE) === id) cacheSeen = true
    c.expect(vmas.mm[id] === mm, () => `${name} says it is of space ${vmas.mm[id]}`)
    c.expect(start >= 0 && start < end && end <= TASK_PAGES, () => `${name} is [${start}, ${end})`)
    c.expect(prev === 0 || vmas.end[prev] <= start, () => `${name} overlaps vma ${prev} before it`)
    c.expect(vmas.prev[id] === prev, () => `${name} has vma ${vmas.prev[id]} as the one before, not ${prev}`)
    c.expect(inTree.has(id), () => `${name} is not in the tree`)
    c.expect(
      vmas.byAddress.start[id] === start && vmas.byAddress.last[id] === end - 1,
      () => `${name}: tree has others`
    )
    c.expect((file === 0) === (vmas.inode[id] === 0), () => `${name} has a file without inode or the reverse`)
    c.expect(vmas.pgoff[id] >= 0, () => `${name} begins at file page ${vmas.pgoff[id]}`)
    c.expect(vmas.anon[id] === 0 || vmas.anonChain[id] > 0, () => `${name} has an anonymous identity without a chain`)
    const special = flags & (VM_NONLINEAR | VM_PAGE_PROT)
    c.expect(special === 0 || (flags & VM_SHARED) !== 0, () => `${name} is nonlinear but not shared`)
    c.expect((flags & VM_SHARED) === 0 || file !== 0, () => `${name} is shared but has no file`)
    if (file !== 0) {
      c.fileVmas[file]++
      c.expect(files.refs[file] > 0, () => `${name} holds file ${file}, which is free`)
      c.expect(files.inode[file] === vmas.inode[id], () => `${name} and its file ${file} have different inodes`)
      c.expect(inodes.kind[vmas.inode[id]] !== 0, () => `${name} maps inode ${vmas.inode[id]}, which is free`)
    }
    prev = id
  }
  c.nrVmas += count
  c.expect(cacheSeen, () => `space ${mm} remembers vma ${mms.row(mm, MM_VMA_CACHE)}, which it does not have`)
  c.equal(inTree.size, count, `vmas in the tree of space ${mm}`)
  c.equal(mms.row(mm, MM_MAP_COUNT), count, `map count of space ${mm}`)
  c.equal(mms.row(mm, MM_TOTAL_VM), total, `total pages of space ${mm}`)
  c.equal(mms.row(mm, MM_LOCKED_VM), locked, `locked pages of space ${mm}`)
  c.expect(mms.row(mm, MM_HIWATER_VM) >= total, () => `space ${mm} has more pages than its high-water mark`)
}

/** Order and augmentation of an interval tree. → its nodes in order. */
function checkTree(c: Census, tree: IntervalTree, root: number, what: string): number[] {
  const nodes: number[] = []
  const seen = new Set<number>()
  const visit = (id: number): number => {
    if (id === 0) return -1
    if (seen.has(id)) {
      c.expect(false, () => `${what}: vma ${id} is in it twice`)
      return -1
    }
    seen.add(id)
    const left = visit(tree.left[id])
    nodes.push(id)
    const max = Math.max(left, tree.last[id], visit(tree.right[id]))
    c.expect(
      tree.maxLast[id] === max,
      () => `${what}: vma ${id} says ${tree.maxLast[id]} is the last below, not ${max}`
    )
    return max
  }
  visit(root)
  for (let i = 1; i < nodes.length; i++) {
    const a = nodes[i - 1]
    const b = nodes[i]
    const ordered = tree.start[a] < tree.start[b] || (tree.start[a] === tree.start[b] && a < b)
    c.expect(ordered, () => `${what}: vmas ${a} and ${b} are out of order`)
  }
  return nodes
}

/** Page tables, and every entry in them. */
export function checkEntries(c: Census): void {
  const { machine } = c
  const { mms, tables } = machine
  for (let mm = 1; mm <= mms.maxMms; mm++) {
    const leaves = new Map<number, number>()
    if (mms.isAlive(mm)) new SpaceWalk(c, mm, leaves).run()
    for (let t = mm << TLB_SHIFT; t < (mm + 1) << TLB_SHIFT; t++) {
      const tag = tables.tlbTag[t]
      if (tag === 0) continue
      const leaf = tag - 1
      c.expect((leaf & TLB_MASK) === (t & TLB_MASK), () => `leaf cache of space ${mm}: leaf ${leaf} in a wrong place`)
      c.expect(
        leaves.get(leaf) === tables.tlbBase[t],
        () => `leaf cache of space ${mm}: leaf ${leaf} at slot ${tables.tlbBase[t]}, but it is at ${leaves.get(leaf)}`
      )
    }
  }
}

class SpaceWalk {
  readonly c: Census
  readonly mm: number
  /** Leaf number → slot of its first entry. */
  readonly leaves: Map<number, number>
  nrTables = 0
  filePages = 0
  anonPages = 0
  swapEntries = 0

  constructor(c: Census, mm: number, leaves: Map<number, number>) {
    this.c = c
    this.mm = mm
    this.leaves = leaves
  }

  run(): void {
    const { c, mm } = this
    const { mms } = c.machine
    const root = mms.row(mm, MM_ROOT)
    const height = mms.row(mm, MM_HEIGHT)
    c.expect((root === 0) === (height === 0), () => `space ${mm} has root ${root} but height ${height}`)
    if (root !== 0) this.table(root, height - 1, 0, 0)
    c.equal(mms.row(mm, MM_NR_TABLES), this.nrTables, `page tables of space ${mm}`)
    c.equal(mms.row(mm, MM_FILEPAGES), this.filePages, `file pages of space ${mm}`)
    c.equal(mms.row(mm, MM_ANONPAGES), this.anonPages, `anonymous pages of space ${mm}`)
    c.equal(mms.row(mm, MM_SWAPENTS), this.swapEntries, `swap entries of space ${mm}`)
  }

  table(frame: number, level: number, firstVpn: number, parent: number): void {
    const { c, mm } = this
    const { frames, ram, tables } = c.machine
    const name = `page table ${frame} (space ${mm}, level ${level}, from page ${firstVpn})`
    if (frame <= 0 || frame >= ram.nrFrames || c.isTable[frame] !== 0) {
      c.expect(false, () => `${name} is no frame, or in two places`)
      return
    }
    c.isTable[frame] = 1
    this.nrTables++
    c.expect(
      (frames.row(frame, F_FLAGS) & 0xffff) === PG_TABLE,
      () => `${name} has flags 0x${frames.row(frame, F_FLAGS).toString(16)}`
    )
    c.expect(frames.row(frame, F_MAPPING) === mm, () => `${name} is marked as of space ${frames.row(frame, F_MAPPING)}`)
    c.expect(
      frames.row(frame, F_INDEX) === firstVpn,
      () => `${name} is marked as from page ${frames.row(frame, F_INDEX)}`
    )
    c.expect(
      frames.row(frame, F_CACHE_NEXT) === level,
      () => `${name} is marked as level ${frames.row(frame, F_CACHE_NEXT)}`
    )
    c.expect(
      frames.row(frame, F_RMAP_HEAD) === parent,
      () => `${name} names slot ${frames.row(frame, F_RMAP_HEAD)} as its parent's`
    )
    const base = frame << ram.wordShift
    if (level === 0) this.leaves.set(firstVpn >>> tables.leafShift, base)
    const span = 2 ** (level * tables.leafShift)
    let used = 0
    for (let i = 0; i <= tables.leafMask; i++) {
      const word = ram.i32[base + i]
      if (word === 0) continue
      used++
      if (level > 0) this.table(word, level - 1, firstVpn + i * span, base + i)
      else this.entry(firstVpn + i, word)
    }
    c.equal(frames.row(frame, F_MAPCOUNT), used, `entries of ${name}`)
    // A window may hold its tables, used or not.
    c.expect(used > 0 || frames.pins(frame) > 0, () => `${name} is empty`)
  }

  entry(vpn: number, pte: number): void {
    const { c, mm } = this
    const { vmas, swap } = c.machine
    const name = `entry of page ${vpn} in space ${mm}`
    const vma = vmas.at(mm, vpn)
    if (vma === 0) {
      c.expect(false, () => `${name} is 0x${(pte >>> 0).toString(16)} but no vma is there`)
      return
    }
    const flags = vmas.flags[vma]
    const ownProt = ptePageProt(pte) !== PAGE_PROT_DEFAULT
    c.expect(!ownProt || (flags & VM_PAGE_PROT) !== 0, () => `${name} has its own protection in an ordinary vma`)
    if ((pte & PTE_PRESENT) !== 0) this.present(vpn, pte, vma, name)
    else if (pteFile(pte)) {
      c.expect((flags & VM_NONLINEAR) !== 0, () => `${name} is a file entry in a linear vma`)
      c.expect(pteToPgoff(pte) < PTE_FILE_MAX_PAGES, () => `${name} remembers file page ${pteToPgoff(pte)}`)
    } else if (pteSwap(pte)) {
      const slot = pteSwapOffset(pte)
      this.swapEntries++
      c.expect(slot > 0 && slot <= swap.nrSlots, () => `${name} names swap slot ${slot}`)
      if (slot <= swap.nrSlots) c.swapEntries[slot]++
      c.expect((flags & VM_SHARED) === 0, () => `${name} is a swap entry in a shared vma`)
      c.expect(vmas.anon[vma] !== 0, () => `${name} is a swap entry in a vma without anonymous identity`)
    } else c.expect(false, () => `${name} is 0x${(pte >>> 0).toString(16)}, which is no kind of entry at rest`)
  }

  present(vpn: number, pte: number, vma: number, name: string): void {
    const { c } = this
    const { frames, ram, vmas, inodes } = c.machine
    const vmFlags = vmas.flags[vma]
    const frame = pteFrame(pte)
    const write = (pte & PTE_WRITE) !== 0
    if ((pte & PTE_PAGE_PROT) === 0) {
      c.expect((pte & PTE_PAGE_PROT_WRITE) === 0, () => `${name} allows writing by a protection that it does not have`)
      const readable = (vmFlags & VM_PROT_MASK) !== 0
      c.expect(((pte & PTE_READ) !== 0) === readable, () => `${name} does not agree with its vma about reading`)
      c.expect(!write || (vmFlags & VM_WRITE) !== 0, () => `${name} is writable in a read-only vma`)
    } else {
      c.expect(!write || ptePageProt(pte) === PAGE_PROT_WRITE, () => `${name} is writable against its own protection`)
    }
    if (frame >= ram.nrFrames) {
      c.expect(false, () => `${name} maps frame ${frame}`)
      return
    }
    if (frame === 0) {
      c.expect(vmas.inode[vma] === 0 && !write, () => `${name} maps the zero page in a file, or to be written`)
      return
    }
    c.mapped[frame]++
    const pg = frames.row(frame, F_FLAGS)
    // Linux lets shared memory be stored to without a fault; the page learns of it when the entry goes.
    const dirty = (pg & PG_DIRTY) !== 0 || (c.machine.policy === POLICY_LINUX && inodes.isShmem(vmas.inode[vma]))
    c.expect((pte & PTE_DIRTY) === 0 || dirty, () => `${name} is dirty, but its frame ${frame} is not`)
    c.expect(!write || dirty, () => `${name} is writable, but its frame ${frame} is clean`)
    if ((pg & PG_ANON) !== 0) {
      this.anonPages++
      c.offLinear[frame]++
      c.nrOffLinear++
      c.expect((vmFlags & VM_SHARED) === 0, () => `${name} maps anonymous frame ${frame} in a shared vma`)
      c.expect(vmas.anon[vma] !== 0, () => `${name} maps anonymous frame ${frame} in a vma without identity`)
      const own = (pg & PG_EXCLUSIVE) !== 0
      c.expect(!write || own, () => `${name} is writable, but frame ${frame} is not its space's own`)
      c.expect(!own || frames.row(frame, F_MAPCOUNT) === 1, () => `${name}: frame ${frame} has other mappers`)
      c.expect(
        !own || (pg & PG_CACHED) === 0 || c.machine.swap.count[frames.row(frame, F_INDEX)] === 0,
        () => `${name}: swap entries name frame ${frame}, which is its space's own`
      )
    } else {
      this.filePages++
      c.expect(!write || (vmFlags & VM_SHARED) !== 0, () => `${name} is private but would write to the file`)
      const inode = frames.row(frame, F_MAPPING)
      const cached = (pg & PG_CACHED) !== 0 && inode === vmas.inode[vma]
      c.expect(cached, () => `${name} maps frame ${frame}, which is no page of its file`)
      const index = frames.row(frame, F_INDEX)
      const size = inode > 0 && inode <= inodes.capacity ? c.machine.nrFilePages(inode) : 0
      c.expect(index < size, () => `${name} maps file page ${index} of ${size}`)
      if (index !== vmas.linearIndex(vma, vpn)) {
        c.offLinear[frame]++
        c.nrOffLinear++
        c.expect((vmFlags & VM_NONLINEAR) !== 0, () => `${name} maps page ${index} off its place in a linear vma`)
      }
    }
    this.node(vpn, frame, vma, name)
  }

  /** A reverse-map node exactly where the tree does not find the entry. */
  node(vpn: number, frame: number, vma: number, name: string): void {
    const { c, mm } = this
    const { nodes, rmap } = c.machine
    const node = nodes.find(frame, mm, vpn)
    const needed = rmap.needsNode(frame, vma, vpn)
    c.expect((node !== 0) === needed, () => `${name} ${needed ? 'lacks' : 'has'} a reverse-map node`)
    if (node === 0 || !needed) return
    let at = nodes.first(frame)
    for (let i = 0; at !== 0 && at !== node && i <= nodes.nrNodes; i++) at = nodes.next(at)
    c.expect(at === node, () => `${name} has a node that is not on the list of frame ${frame}`)
  }
}
