/**
 * What /proc/PID/smaps says: for each mapping, which of its pages are there, shared, dirty, nonlinear, in swap.
 *
 * As Linux 3.19 counts: a page is shared when more than one entry of any address space maps it, dirty when the entry or
 * the page is; Pss divides a page by its entries, in 4096ths of a byte; the zero page is not counted; `Locked` is the
 * Pss of a locked mapping; swapped-out shared memory does not show in `Swap`. `Nonlinear` counts entries, present or
 * remembered, that show another page than the linear one.
 *
 * Lock: the address space's mmap lock for reading. Costs time for page tables, not for the size of the mappings.
 */
import { F_FLAGS, F_INDEX, F_MAPCOUNT, PG_ANON, PG_DIRTY, PG_REFERENCED } from '../frame/frame-table.ts'
import type { Machine } from '../mm/machine.ts'
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_YOUNG,
  pteFile,
  pteFrame,
  pteMigration,
  pteSwap,
  pteSwapOffset,
  pteToPgoff
} from '../pgtable/pte.ts'
import {
  VM_ACCOUNT,
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_DONTEXPAND,
  VM_EXEC,
  VM_GROWSDOWN,
  VM_LOCKED,
  VM_LOCKONFAULT,
  VM_MAYEXEC,
  VM_MAYREAD,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_MERGEABLE,
  VM_NONLINEAR,
  VM_NORESERVE,
  VM_RAND_READ,
  VM_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_WIPEONFORK,
  VM_WRITE
} from '../vma/flags.ts'
import { formatMapsRow, type MapsRow, mapsRow } from './maps.ts'

/** Counts are pages but for `pss` and `locked`. */
export interface SmapsRow extends MapsRow {
  rss: number
  /** Proportional share in bytes, rounded down. */
  pss: number
  sharedClean: number
  sharedDirty: number
  privateClean: number
  privateDirty: number
  referenced: number
  anonymous: number
  swap: number
  /** `pss` of a locked mapping, else 0, in bytes. */
  locked: number
  /** Pages off their linear place; undefined for a linear mapping. */
  nonlinear: number | undefined
  /** VmFlags, such as `rd wr sh mr mw me ms nl sd`. */
  vmFlags: string
}

/** Linux: show_smap_vma_flags, in its order (`lf` and `wf` are later ones). */
const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [VM_READ, 'rd'],
  [VM_WRITE, 'wr'],
  [VM_EXEC, 'ex'],
  [VM_SHARED, 'sh'],
  [VM_MAYREAD, 'mr'],
  [VM_MAYWRITE, 'mw'],
  [VM_MAYEXEC, 'me'],
  [VM_MAYSHARE, 'ms'],
  [VM_GROWSDOWN, 'gd'],
  [VM_LOCKED, 'lo'],
  [VM_SEQ_READ, 'sr'],
  [VM_RAND_READ, 'rr'],
  [VM_DONTCOPY, 'dc'],
  [VM_DONTEXPAND, 'de'],
  [VM_LOCKONFAULT, 'lf'],
  [VM_ACCOUNT, 'ac'],
  [VM_NORESERVE, 'nr'],
  [VM_NONLINEAR, 'nl'],
  [VM_WIPEONFORK, 'wf'],
  [VM_DONTDUMP, 'dd'],
  [VM_SOFTDIRTY, 'sd'],
  [VM_MERGEABLE, 'mg']
]

/** A page's share is kept with this many bits below a byte (Linux: PSS_SHIFT). */
const PSS_SCALE = 4096

export function smaps(m: Machine, mm: number): SmapsRow[] {
  const rows: SmapsRow[] = []
  for (let vma = m.vmas.first(mm); vma !== 0; vma = m.vmas.next[vma]) rows.push(smapsRow(m, vma))
  return rows
}

export function smapsRow(m: Machine, vma: number): SmapsRow {
  const flags = m.vmas.flags[vma]
  const row: SmapsRow = {
    ...mapsRow(m, vma),
    rss: 0,
    pss: 0,
    sharedClean: 0,
    sharedDirty: 0,
    privateClean: 0,
    privateDirty: 0,
    referenced: 0,
    anonymous: 0,
    swap: 0,
    locked: 0,
    nonlinear: (flags & VM_NONLINEAR) === 0 ? undefined : 0,
    vmFlags: vmFlagNames(flags)
  }
  const { tables } = m
  const { i32 } = m.ram
  const mm = m.vmas.mm[vma]
  let vpn = tables.nextLeaf(mm, row.start, row.end)
  while (vpn < row.end) {
    let slot = tables.slot
    const stop = tables.leafEnd(vpn, row.end)
    for (; vpn < stop; vpn++, slot++) if (i32[slot] !== 0) countEntry(m, row, vpn, i32[slot])
    if (vpn < row.end) vpn = tables.nextLeaf(mm, vpn, row.end)
  }
  row.pss = Math.floor(row.pss / PSS_SCALE)
  if ((flags & VM_LOCKED) !== 0) row.locked = row.pss
  return row
}

function vmFlagNames(flags: number): string {
  return FLAG_NAMES.filter(([bit]) => (flags & bit) !== 0)
    .map(([, name]) => name)
    .join(' ')
}

function countEntry(m: Machine, row: SmapsRow, vpn: number, pte: number): void {
  const linear = row.pgoff + (vpn - row.start)
  if ((pte & PTE_PRESENT) !== 0) {
    countPage(m, row, pteFrame(pte), pte)
    noteIndex(m, row, linear, pteFrame(pte))
  } else if (pteFile(pte)) {
    if (row.nonlinear !== undefined && pteToPgoff(pte) !== linear) row.nonlinear++
  } else if (pteMigration(pte)) {
    countPage(m, row, pteSwapOffset(pte), 0)
    noteIndex(m, row, linear, pteSwapOffset(pte))
  } else if (pteSwap(pte)) row.swap++
}

function noteIndex(m: Machine, row: SmapsRow, linear: number, frame: number): void {
  if (row.nonlinear === undefined || frame === 0 || (m.frames.row(frame, F_FLAGS) & PG_ANON) !== 0) return
  if (m.frames.row(frame, F_INDEX) !== linear) row.nonlinear++
}

function countPage(m: Machine, row: SmapsRow, frame: number, pte: number): void {
  if (frame === 0) return
  const pg = m.frames.row(frame, F_FLAGS)
  const mapcount = m.frames.row(frame, F_MAPCOUNT)
  const dirty = (pte & PTE_DIRTY) !== 0 || (pg & PG_DIRTY) !== 0
  row.rss++
  if ((pg & PG_ANON) !== 0) row.anonymous++
  if ((pte & PTE_YOUNG) !== 0 || (pg & PG_REFERENCED) !== 0) row.referenced++
  if (mapcount >= 2) {
    if (dirty) row.sharedDirty++
    else row.sharedClean++
    row.pss += Math.floor((m.ram.pageSize * PSS_SCALE) / mapcount)
  } else {
    if (dirty) row.privateDirty++
    else row.privateClean++
    row.pss += m.ram.pageSize * PSS_SCALE
  }
}

/** The rows as /proc/PID/smaps has them. */
export function formatSmaps(m: Machine, rows: readonly SmapsRow[]): string {
  return rows.map(row => formatSmapsRow(m, row)).join('')
}

function formatSmapsRow(m: Machine, row: SmapsRow): string {
  const { pageSize } = m.ram
  const lines = [
    formatMapsRow(m, row),
    kbLine('Size', (row.end - row.start) * pageSize),
    kbLine('Rss', row.rss * pageSize),
    kbLine('Pss', row.pss),
    kbLine('Shared_Clean', row.sharedClean * pageSize),
    kbLine('Shared_Dirty', row.sharedDirty * pageSize),
    kbLine('Private_Clean', row.privateClean * pageSize),
    kbLine('Private_Dirty', row.privateDirty * pageSize),
    kbLine('Referenced', row.referenced * pageSize),
    kbLine('Anonymous', row.anonymous * pageSize),
    kbLine('AnonHugePages', 0),
    kbLine('Swap', row.swap * pageSize),
    kbLine('KernelPageSize', pageSize),
    kbLine('MMUPageSize', pageSize),
    kbLine('Locked', row.locked)
  ]
  if (row.nonlinear !== undefined) lines.push(kbLine('Nonlinear', row.nonlinear * pageSize))
  lines.push(`VmFlags: ${row.vmFlags} `)
  return `${lines.join('\n')}\n`
}

function kbLine(name: string, bytes: number): string {
  return `${`${name}:`.padEnd(16)}${String(Math.floor(bytes / 1024)).padStart(8)} kB`
}
