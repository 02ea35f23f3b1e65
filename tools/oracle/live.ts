/**
 * Replaying traces of a kernel that emulates remap_file_pages by one mapping for each run of pages (Linux after 4.0).
 *
 * What the emulation changes by design is not compared: borders of mappings, resident pages, shares, flags, soft-dirty,
 * page numbers of mappings. What is: results, values, faults, mincore, file contents, locked memory, and which pages
 * are mapped with which permission and file.
 *
 * Where the two kernels are known to behave differently, the states drift apart, and what follows cannot be compared:
 * the trace counts as passed up to there, and the difference as met. A mismatch that no rule here explains fails.
 */
import { F_INDEX, F_MAPPING } from '../../src/frame/frame-table.ts'
import { MM_DEF_FLAGS, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import {
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_LOCKED,
  VM_NONLINEAR,
  VM_NORESERVE,
  VM_RAND_READ,
  VM_SEQ_READ
} from '../../src/vma/flags.ts'
import { addressOf, bytesOf, PAGE } from './quantity.ts'
import type { Session } from './session.ts'
import type { Op, Result } from './trace.ts'

export interface LiveDifference {
  readonly name: string
  readonly what: string
}

export const LIVE_DIFFERENCES: readonly LiveDifference[] = [
  {
    name: 'several-mappings',
    what: 'remap over several mappings: EINVAL until 4.6, then allowed if they are of one file'
  },
  { name: 'fresh-attributes', what: 'remapped parts lose NORESERVE, DONTFORK and other advice in the emulation' },
  { name: 'future-lock', what: 'remap after mlockall(MCL_FUTURE) locks the remapped part in the emulation' },
  {
    name: 'exec-personality',
    what: 'remap after personality(READ_IMPLIES_EXEC) makes the part executable in the emulation'
  },
  { name: 'error-number', what: 'the same call fails with another errno' },
  { name: 'remove', what: 'MADV_REMOVE: EINVAL on nonlinear mappings, EACCES on those not writable; later allowed' },
  { name: 'cut-mapping', what: 'mremap: EFAULT where the emulation has cut a mapping' },
  { name: 'several-moved', what: 'mremap over several mappings: EFAULT, later allowed' },
  {
    name: 'target-first',
    what: 'a failing mremap to a fixed place has unmapped it, and a shrinking tail, until it was fixed'
  },
  { name: 'grown-part', what: 'what mremap adds continues the linear pages, or the last run of the emulation' },
  { name: 'private-copy', what: 'mremap with old size 0 of a private mapping: a copy, later EINVAL' },
  { name: 'partial-copy', what: 'read() and write() with a faulting buffer: how many bytes' },
  {
    name: 'self-read',
    what: 'read() into a mapping of the page that is read zeroes its first byte, until it was fixed'
  },
  { name: 'readahead', what: 'mincore: read-ahead, and MADV_WILLNEED on ramfs' },
  { name: 'segments', what: 'SysV segments: EINVAL, later remapped' },
  { name: 'huge-advice', what: 'MADV_HUGEPAGE on shared mappings: EINVAL, later accepted' },
  { name: 'lock-limit', what: 'remap of a locked mapping at its limit: works, EAGAIN in the emulation' }
]

/** The second table of docs/conformance.md. */
export function liveTable(): string {
  const rows = LIVE_DIFFERENCES.map(d => `| \`${d.name}\` | ${d.what} |\n`)
  return `| name | what differs |\n|---|---|\n${rows.join('')}`
}

export interface Verdict {
  readonly name: string
  /** Whether what follows can still be compared. */
  readonly state: 'same' | 'apart'
}

const ATTRIBUTES = VM_NORESERVE | VM_DONTCOPY | VM_RAND_READ | VM_SEQ_READ | VM_DONTDUMP
const CALLS_IN_PAGES = new Set(['rss', 'stat'])

/** The part of a result that both kernels should agree on. */
export function liveView(op: Op, result: Result): Result {
  if (op.op === 'smaps' || op.op === 'pagemap' || op.op === 'nrmlock') return {}
  if (op.op === 'maps') return Array.isArray(result.m) ? { m: coverage(result.m) } : result
  if (!CALLS_IN_PAGES.has(op.op)) return result
  return Object.fromEntries(Object.entries(result).filter(([key]) => key === 'lck' || key === 'size'))
}

type MapsEntry = [start: number, end: number, perms: string, pgoff: number, file: unknown]

/** Runs of pages with equal permissions and file. */
function coverage(rows: readonly MapsEntry[]): unknown[] {
  const runs: [number, number, string, unknown][] = []
  for (const [start, end, perms, , file] of rows) {
    const last = runs.at(-1)
    if (last !== undefined && last[1] === start && last[2] === perms && last[3] === file) last[1] = end
    else runs.push([start, end, perms, file])
  }
  return runs
}

/** What an operation found before it ran, for rules about what it did. */
export interface Before {
  readonly totalVm: number
  /** Vmas that the range began in and after which it ended; 0 for none. */
  readonly vma: number
  readonly lastVma: number
  readonly flags: number
  readonly linear: boolean
  readonly defFlags: number
}

export function lookBefore(s: Session, op: Op): Before {
  const { vmas, mms } = s.machine
  const mm = s.processes.get((op.args.p as number | undefined) ?? 0)?.mm.id ?? 0
  if (mm === 0 || op.args.at === undefined) {
    return { totalVm: 0, vma: 0, lastVma: 0, flags: 0, linear: true, defFlags: 0 }
  }
  const first = pageOf(addressOf(op.args.at))
  const pages = pageOf(bytesOf(op.args.size ?? op.args.old ?? op.args.len ?? 1))
  const vma = vmas.at(mm, first)
  return {
    totalVm: mms.row(mm, MM_TOTAL_VM),
    vma,
    lastVma: pages === 0 ? vma : vmas.at(mm, Math.min(first + pages - 1, 0x7ffffffe)),
    flags: vmas.flags[vma],
    linear: vma === 0 || (vmas.flags[vma] & VM_NONLINEAR) === 0,
    defFlags: mms.row(mm, MM_DEF_FLAGS)
  }
}

function pageOf(bytes: bigint): number {
  return Math.min(Number(bytes / PAGE), 0x7ffffffe)
}

/** Why a result differs, or undefined when nothing explains it. */
export function explainMismatch(s: Session, op: Op, got: Result, before: Before): Verdict | undefined {
  const { expected } = op
  // Part of the range may have been punched before the error.
  if (op.op === 'madvise') return explainAdvice(op)
  if (expected.errno !== undefined && got.errno !== undefined) {
    // Either kernel may have unmapped the target of a fixed move before it failed.
    return op.op === 'mremap' && op.args.to !== undefined ? apart('target-first') : same('error-number')
  }
  switch (op.op) {
    case 'remap':
      return explainRemap(s, op, got, before)
    case 'mremap':
      return explainMremap(op, got, before)
    case 'mincore':
      return expected.vec !== undefined && got.vec !== undefined ? same('readahead') : undefined
    case 'copyin':
    case 'copyout':
      return apart('partial-copy')
    case 'mmap':
      return expected.errno === 'EOVERFLOW' ? apart('error-number') : undefined
    default:
      return undefined
  }
}

function explainRemap(s: Session, op: Op, got: Result, before: Before): Verdict | undefined {
  if (got.errno === 'EINVAL' && op.expected.ret === 0) {
    if (before.vma !== before.lastVma) return apart('several-mappings')
    return before.vma !== 0 && !s.machine.inodes.isShmem(s.machine.vmas.inode[before.vma])
      ? undefined
      : apart('segments')
  }
  if (got.ret !== 0) return undefined
  if (op.expected.errno === 'EAGAIN' || op.expected.errno === 'EPERM') return apart('lock-limit')
  const unequal = op.expected.errno === 'EINVAL' && (before.flags & ATTRIBUTES) !== 0
  return unequal ? apart('fresh-attributes') : undefined
}

function explainAdvice(op: Op): Verdict | undefined {
  const advice = String(op.args.advice)
  if (advice === 'REMOVE') return apart('remove')
  return advice === 'HUGEPAGE' || advice === 'NOHUGEPAGE' ? apart('huge-advice') : undefined
}

function explainMremap(op: Op, got: Result, before: Before): Verdict | undefined {
  if (op.expected.errno === 'EINVAL' && pageOf(bytesOf(op.args.old)) === 0) return apart('private-copy')
  if (op.expected.errno === 'EFAULT') return apart('cut-mapping')
  if (got.errno === 'EFAULT') return before.vma === before.lastVma ? apart('cut-mapping') : apart('several-moved')
  return undefined
}

/** Why the states drift apart although the result is the same, or undefined. */
export function explainDrift(s: Session, op: Op, got: Result, before: Before): Verdict | undefined {
  if (op.op === 'mremap') return mremapDrift(s, op, got, before)
  if (op.op === 'remap' && got.ret === 0) return remapDrift(s, op, before)
  if (op.op === 'copyin' && readsItself(s, op)) return apart('self-read')
  return undefined
}

function mremapDrift(s: Session, op: Op, got: Result, before: Before): Verdict | undefined {
  if (got.errno !== undefined) return totalVm(s, op) === before.totalVm ? undefined : apart('target-first')
  const grows = pageOf(bytesOf(op.args.new)) > pageOf(bytesOf(op.args.old))
  return grows && !before.linear ? apart('grown-part') : undefined
}

function remapDrift(s: Session, op: Op, before: Before): Verdict | undefined {
  if (s.process((op.args.p as number | undefined) ?? 0).readImpliesExec) return apart('exec-personality')
  if ((before.defFlags & VM_LOCKED) !== 0 && (before.flags & VM_LOCKED) === 0) return apart('future-lock')
  // Of the attributes that the part lost this one shows: a child sees it. The others show when a range over unequal
  // parts is refused, which explainRemap finds.
  return (before.flags & VM_DONTCOPY) !== 0 ? apart('fresh-attributes') : undefined
}

/** Whether the first byte of some page that was read into lies in the very page that was read. */
function readsItself(s: Session, op: Op): boolean {
  const { tables, frames, files, fds } = s.machine
  const mm = s.process((op.args.p as number | undefined) ?? 0).mm.id
  const inode = files.inode[fds[s.file(op.args.file as number).fd]]
  const from = pageOf(bytesOf(op.args.off))
  const pages = pageOf(bytesOf(op.args.len) + 2n * PAGE)
  const first = pageOf(addressOf(op.args.at))
  for (let vpn = first; vpn < first + pages; vpn++) {
    const pte = tables.get(mm, vpn)
    const frame = pte >>> 8
    if ((pte & 1) === 0 || frame === 0 || frames.row(frame, F_MAPPING) !== inode) continue
    if (frames.row(frame, F_INDEX) >= from && frames.row(frame, F_INDEX) < from + pages) return true
  }
  return false
}

function totalVm(s: Session, op: Op): number {
  const process = s.processes.get((op.args.p as number | undefined) ?? 0)
  return process === undefined ? 0 : s.machine.mms.row(process.mm.id, MM_TOTAL_VM)
}

function same(name: string): Verdict {
  return { name, state: 'same' }
}

function apart(name: string): Verdict {
  return { name, state: 'apart' }
}
