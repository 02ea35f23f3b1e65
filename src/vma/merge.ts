/**
 * Splitting and merging vmas (Linux: __split_vma, vma_merge, vma_adjust; rules measured on 3.19).
 *
 * Two neighbours are one vma when they have the same open file description, contiguous file pages, equal flags
 * (soft-dirty aside, which is OR-ed) and compatible anonymous identity. Page tables are not touched here: moving a
 * border between two vmas that agree on all of this changes the meaning of no entry.
 *
 * `onFile(file, delta)` is told when a vma row that holds a file comes or goes.
 */
import { VM_SOFTDIRTY } from './flags.ts'
import type { VmaTable } from './vma-table.ts'

export type FileRefHook = (file: number, delta: number) => void

/** Splits the vma at `vpn` (inside it); the new row is the upper half. 0 when the table is full. */
export function splitVma(t: VmaTable, id: number, vpn: number, onFile: FileRefHook): number {
  const upper = t.alloc()
  if (upper === 0) return 0
  const start = t.start[id]
  const end = t.end[id]
  t.mm[upper] = t.mm[id]
  t.flags[upper] = t.flags[id]
  t.file[upper] = t.file[id]
  t.inode[upper] = t.inode[id]
  t.anon[upper] = t.anon[id]
  t.anonChain[upper] = t.anonChain[id]
  t.birth[upper] = t.birth[id]
  t.start[upper] = vpn
  t.end[upper] = end
  t.pgoff[upper] = t.pgoff[id] + (vpn - start)
  if (t.file[id] !== 0) onFile(t.file[id], 1)
  t.adjust(id, start, vpn, t.pgoff[id])
  t.link(upper)
  return upper
}

/**
 * Looks for neighbours that [start, end) with the given attributes can be one with, and makes it so.
 *
 * The range is either free (a new mapping) or within one vma, of which it may be a part; that part then goes over to
 * the neighbour. Returns the vma that contains the range now, or 0 when nothing merged and nothing changed.
 */
export function mergeVma(
  t: VmaTable,
  mm: number,
  start: number,
  end: number,
  flags: number,
  anon: number,
  file: number,
  inode: number,
  pgoff: number,
  onFile: FileRefHook
): number {
  const area = t.at(mm, start)
  const left = start === 0 ? 0 : t.at(mm, start - 1)
  const right = t.at(mm, end)
  const withLeft =
    left !== 0 &&
    left !== area &&
    t.end[left] === start &&
    sameKind(t, left, flags, file, inode) &&
    t.pgoff[left] + (start - t.start[left]) === pgoff &&
    anonCompatible(t, anon, t.anon[left], left)
  const withRight =
    right !== 0 &&
    right !== area &&
    t.start[right] === end &&
    sameKind(t, right, flags, file, inode) &&
    t.pgoff[right] === pgoff + (end - start) &&
    anonCompatible(t, anon, t.anon[right], right)

  // What was mapped since clear_refs must not be taken for old.
  const soft = flags & VM_SOFTDIRTY
  if (withLeft) {
    t.flags[left] |= soft
    if (withRight && (t.anon[left] === 0 || t.anon[right] === 0 || t.anon[left] === t.anon[right])) {
      const newEnd = t.end[right]
      inherit(t, left, anon === 0 ? right : area)
      t.flags[left] |= t.flags[right] & VM_SOFTDIRTY
      drop(t, right, onFile)
      if (area !== 0) drop(t, area, onFile)
      t.adjust(left, t.start[left], newEnd, t.pgoff[left])
      return left
    }
    inherit(t, left, area)
    if (area !== 0) {
      if (t.end[area] === end) drop(t, area, onFile)
      else t.adjust(area, end, t.end[area], t.pgoff[area] + (end - t.start[area]))
    }
    t.adjust(left, t.start[left], end, t.pgoff[left])
    return left
  }
  if (withRight) {
    t.flags[right] |= soft
    inherit(t, right, area)
    if (area !== 0) {
      if (t.start[area] === start) drop(t, area, onFile)
      else t.adjust(area, t.start[area], start, t.pgoff[area])
    }
    t.adjust(right, start, t.end[right], pgoff)
    return right
  }
  return 0
}

function sameKind(t: VmaTable, id: number, flags: number, file: number, inode: number): boolean {
  return ((t.flags[id] ^ flags) & ~VM_SOFTDIRTY) === 0 && t.file[id] === file && t.inode[id] === inode
}

/** Linux: is_mergeable_anon_vma. A neighbour that takes in an identity must have one, inherited from nobody. */
function anonCompatible(t: VmaTable, a: number, b: number, neighbour: number): boolean {
  if (a === b) return true
  return (a === 0 || b === 0) && t.anonChain[neighbour] === 1
}

/** The neighbour that grows takes over the identity of what it swallows, if it has none itself. */
function inherit(t: VmaTable, into: number, from: number): void {
  if (from === 0 || t.anon[into] !== 0 || t.anon[from] === 0) return
  t.anon[into] = t.anon[from]
  t.anonChain[into] = t.anonChain[from]
}

function drop(t: VmaTable, id: number, onFile: FileRefHook): void {
  const file = t.file[id]
  t.unlink(id)
  t.free(id)
  if (file !== 0) onFile(file, -1)
}
