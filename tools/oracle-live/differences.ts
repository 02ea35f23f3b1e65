/**
 * Where the running Linux (6.x) is known to differ from Linux 3.19, which this machine follows.
 *
 * Operations about such a difference are left out of both sides before they run, judged by what is mapped where they
 * would act, so that everything else is compared to the end. They are counted and printed by name. Nothing else is
 * excused. docs/conformance.md has the same table; a test holds the two together.
 */

import { release } from 'node:os'
import { FALLOC_FL_ZERO_RANGE, MADV_PAGEOUT, PROT_WRITE } from '../../src/abi/mman.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { pteFile, pteMappedFrame, pteMaps, pteToPgoff } from '../../src/pgtable/pte.ts'
import * as vmaFlags from '../../src/vma/flags.ts'
import { addressOf, bytesOf, flagsOf, PAGE, protOf } from '../oracle/quantity.ts'
import type { Session } from '../oracle/session.ts'
import type { Step } from './kernel-ops.ts'

export interface LeftOut {
  readonly name: string
  readonly what: string
  readonly why: string
}

export const LEFT_OUT: readonly LeftOut[] = [
  {
    name: 'several-mappings',
    what: 'remap of a range that spans adjacent mappings of one file',
    why: 'EINVAL in 3.19; accepted since 4.6'
  },
  {
    name: 'read-only-file',
    what: 'remap of a shared mapping of a file opened for reading only, with POLICY_NONLINEAR',
    why: 'an accident of all Linux kernels (EINVAL) that this machine has with POLICY_LINUX only'
  },
  {
    name: 'fresh-attributes',
    what: 'remap of a mapping with RANDOM or SEQUENTIAL advice',
    why: 'the emulation makes a fresh mapping, which loses them; the next range over both kinds is refused'
  },
  {
    name: 'remove',
    what: 'MADV_REMOVE of a nonlinear mapping or of a shared one that is not writable',
    why: 'EINVAL and EACCES in 3.19; since then the remapped pages of the file are punched'
  },
  {
    name: 'cut-mapping',
    what: 'mremap of a nonlinear mapping to another size; before 6.17 of more than one page',
    why: 'one mapping in 3.19; the emulation has cut it: EFAULT, or other pages in the part that was added'
  },
  {
    name: 'several-moved',
    what: 'mremap to another place of a range that is not in one mapping',
    why: 'EFAULT in 3.19, which has then unmapped a fixed target; moved since 6.17, with the target left alone on error'
  },
  {
    name: 'private-merge',
    what: 'mremap that grows a range over several private mappings in place',
    why: 'EFAULT in 3.19, which merges such neighbours less often: a copied page in one of them is enough'
  },
  {
    name: 'unmapped-source',
    what: 'mremap in place, not growing, where nothing is mapped',
    why: 'success in 3.19, which has nothing to unmap; EFAULT in later kernels, which look for the mapping first'
  },
  {
    name: 'private-copy',
    what: 'mremap with old size 0 of a private mapping',
    why: 'a copy in 3.19; EINVAL since 4.14'
  },
  {
    name: 'copy-onto-itself',
    what: 'mremap with old size 0 to a place that contains the source',
    why: 'an overlap in 3.19, EINVAL; none in 6.18, which unmaps the source with the target: EFAULT'
  },
  {
    name: 'locked-dontunmap',
    what: 'mremap with DONTUNMAP of a locked mapping',
    why: 'not in 3.19; 6.18 unlocks what stays behind and counts it as locked for ever; here it stays locked'
  },
  {
    name: 'locked-mprotect',
    what: 'mprotect that makes a locked private mapping writable',
    why: 'copies are made at the next store in 3.19, at once since 4.2'
  },
  {
    name: 'partial-copy',
    what: 'read() and write() with a buffer that is not accessible from end to end',
    why: 'how much is copied before the fault differs between kernels'
  },
  {
    name: 'self-copy',
    what: 'read() and write() of a file with a mapping of that file as the buffer',
    why: 'until it was fixed, read() zeroed the first byte of such a buffer; overlapping copies have no order'
  },
  {
    name: 'zero-range',
    what: 'fallocate with ZERO_RANGE of shared memory, with POLICY_NONLINEAR',
    why: 'EOPNOTSUPP on tmpfs, and with POLICY_LINUX; here shared memory can be zeroed as files can'
  },
  {
    name: 'page-out',
    what: 'MADV_PAGEOUT of memory that is not a file on disk',
    why: 'whether it goes depends on the swap of the computer, and mincore tells'
  },
  {
    name: 'allocated',
    what: 'mincore of a memory file after fallocate',
    why: 'Linux has pages there that count as resident once they were used; here they are zeros from the beginning'
  },
  {
    name: 'readahead',
    what: 'mincore of a file on disk',
    why: 'depends on read-ahead and on the sizes of folios'
  }
]

const ATTRIBUTES = vmaFlags.VM_SEQ_READ | vmaFlags.VM_RAND_READ
/** Since 6.17 a move takes several mappings, so also the runs that the emulation cut one into. */
const MOVES_SEVERAL = isSince(6, 17)
const KEEPS_SOURCE = flagsOf('MREMAP_DONTUNMAP')
const MADV_REMOVE = flagsOf('REMOVE')

/** Programs that have called fallocate. */
const allocated = new WeakSet<Session>()

interface Range {
  /** Vmas that intersect, in order. */
  readonly vmas: readonly number[]
  readonly isCovered: boolean
}

/** The name of the difference that an operation is about, or undefined. To be asked before the operation runs. */
export function leftOut(s: Session, { op, args }: Step): string | undefined {
  const { vmas, inodes } = s.machine
  switch (op) {
    case 'remap': {
      // Sizes are rounded down here, and up by all other calls.
      const range = rangeOf(s, args.at, Number(bytesOf(args.size) / PAGE))
      if (range.vmas.some(vma => (vmas.flags[vma] & ATTRIBUTES) !== 0)) return 'fresh-attributes'
      if (range.vmas.some(vma => isReadOnlyFile(vmas.flags[vma]))) return 'read-only-file'
      // Both refuse a range with a hole, or over mappings of different files or flags.
      const sameFile = range.vmas.every(vma => vmas.inode[vma] === vmas.inode[range.vmas[0]])
      return range.vmas.length > 1 && range.isCovered && sameFile ? 'several-mappings' : undefined
    }
    case 'falloc': {
      allocated.add(s)
      const isZeroed = ((args.mode as number) & FALLOC_FL_ZERO_RANGE) !== 0 && s.machine.policy !== POLICY_LINUX
      return isZeroed && s.file(args.file as number).kind !== 'disk' ? 'zero-range' : undefined
    }
    case 'madvise': {
      const range = rangeOf(s, args.at, args.len)
      const isDisk = (vma: number): boolean => vmas.inode[vma] !== 0 && inodes.store(vmas.inode[vma]) !== undefined
      if (flagsOf(args.advice) === BigInt(MADV_PAGEOUT) && !range.vmas.every(isDisk)) return 'page-out'
      return flagsOf(args.advice) === MADV_REMOVE && range.vmas.some(vma => isRemoveApart(vmas.flags[vma]))
        ? 'remove'
        : undefined
    }
    case 'mprotect': {
      const writes = (protOf(args.prot) & BigInt(PROT_WRITE)) !== 0n
      const range = rangeOf(s, args.at, args.len)
      return writes && range.vmas.some(vma => isLockedPrivate(vmas.flags[vma])) ? 'locked-mprotect' : undefined
    }
    case 'copyin':
      return copyDifference(s, args, vmaFlags.VM_WRITE)
    case 'copyout':
      return copyDifference(s, args, vmaFlags.VM_READ)
    case 'mremap':
      return mremapDifference(s, args)
    case 'mincore': {
      const onDisk = (vma: number): boolean => vmas.inode[vma] !== 0 && inodes.store(vmas.inode[vma]) !== undefined
      const { vmas: shown } = rangeOf(s, args.at, args.len)
      if (shown.some(onDisk)) return 'readahead'
      return allocated.has(s) && shown.some(vma => vmas.inode[vma] !== 0) ? 'allocated' : undefined
    }
    default:
      return undefined
  }
}

/** With POLICY_LINUX such a mapping does not count as shared. */
function isReadOnlyFile(flags: number): boolean {
  return (flags & (vmaFlags.VM_SHARED | vmaFlags.VM_MAYWRITE)) === vmaFlags.VM_SHARED
}

function isLockedPrivate(flags: number): boolean {
  return (flags & (vmaFlags.VM_LOCKED | vmaFlags.VM_SHARED | vmaFlags.VM_WRITE)) === vmaFlags.VM_LOCKED
}

function isRemoveApart(flags: number): boolean {
  if ((flags & vmaFlags.VM_NONLINEAR) !== 0) return true
  return (flags & vmaFlags.VM_MAYSHARE) !== 0 && (flags & vmaFlags.VM_WRITE) === 0
}

function mremapDifference(s: Session, args: Step['args']): string | undefined {
  const { vmas } = s.machine
  const oldPages = pagesUp(args.old)
  const newPages = pagesUp(args.new)
  const isMove = args.to !== undefined
  if (oldPages === 0 && isMove && isWithin(args.at, args.to, args.new)) return 'copy-onto-itself'
  const range = rangeOf(s, args.at, oldPages === 0 ? 1 : args.old)
  const [first] = range.vmas
  if (!isMove && newPages <= oldPages) {
    const isMapped = first !== undefined && vmas.start[first] <= Number(addressOf(args.at) / PAGE)
    return isMapped ? undefined : 'unmapped-source'
  }
  if (range.vmas.length !== 1 || !range.isCovered) {
    const isPrivate = range.vmas.some(vma => (vmas.flags[vma] & vmaFlags.VM_MAYSHARE) === 0)
    return isMove ? 'several-moved' : isPrivate && range.isCovered ? 'private-merge' : undefined
  }
  if ((flagsOf(args.flags) & KEEPS_SOURCE) !== 0n && (vmas.flags[first] & vmaFlags.VM_LOCKED) !== 0) {
    return 'locked-dontunmap'
  }
  if (oldPages === 0 && (vmas.flags[first] & vmaFlags.VM_MAYSHARE) === 0) return 'private-copy'
  const whole = oldPages === newPages && (oldPages === 1 || MOVES_SEVERAL)
  return (vmas.flags[first] & vmaFlags.VM_NONLINEAR) !== 0 && !whole ? 'cut-mapping' : undefined
}

function copyDifference(s: Session, args: Step['args'], permission: number): string | undefined {
  const { vmas, files, fds } = s.machine
  const mm = s.process(0).mm.id
  const inode = files.inode[fds[s.file(args.file as number).fd]]
  const first = addressOf(args.at) / PAGE
  const last = (addressOf(args.at) + bytesOf(args.len) - 1n) / PAGE
  for (let vpn = Number(first); vpn <= Number(last); vpn++) {
    const vma = vmas.at(mm, vpn)
    if (vma === 0 || (vmas.flags[vma] & permission) === 0 || isPastEnd(s, mm, vma, vpn)) return 'partial-copy'
    if (vmas.inode[vma] === inode) return 'self-copy'
  }
  return undefined
}

function isPastEnd({ machine }: Session, mm: number, vma: number, vpn: number): boolean {
  const { vmas, tables } = machine
  const inode = vmas.inode[vma]
  if (inode === 0) return false
  const pte = tables.get(mm, vpn)
  const frame = pteMaps(pte) ? pteMappedFrame(pte) : 0
  if (frame !== 0) return false
  const index = pteFile(pte) ? pteToPgoff(pte) : vmas.linearIndex(vma, vpn)
  return index >= machine.nrFilePages(inode)
}

function isWithin(at: unknown, start: unknown, size: unknown): boolean {
  return addressOf(at) >= addressOf(start) && addressOf(at) < addressOf(start) + bytesOf(size)
}

function rangeOf(s: Session, at: unknown, size: unknown): Range {
  const { vmas } = s.machine
  const { id } = s.process(0).mm
  const start = Number(addressOf(at) / PAGE)
  const end = start + Math.max(1, pagesUp(size))
  const found: number[] = []
  let reached = start
  let isCovered = true
  for (let vma = vmas.first(id); vma !== 0; vma = vmas.next[vma]) {
    if (vmas.end[vma] <= start || vmas.start[vma] >= end) continue
    if (vmas.start[vma] > reached) isCovered = false
    reached = vmas.end[vma]
    found.push(vma)
  }
  return { vmas: found, isCovered: isCovered && reached >= end }
}

function isSince(major: number, minor: number): boolean {
  const [, a, b] = (/^(\d+)\.(\d+)/.exec(release()) ?? []).map(Number)
  return a > major || (a === major && b >= minor)
}

function pagesUp(size: unknown): number {
  return Number((bytesOf(size) + PAGE - 1n) / PAGE)
}

/** The table of docs/conformance.md. */
export function leftOutTable(): string {
  const rows = LEFT_OUT.map(({ name, what, why }) => `| \`${name}\` | ${what} | ${why} |\n`)
  return `| name | what is left out | why |\n|---|---|---|\n${rows.join('')}`
}
