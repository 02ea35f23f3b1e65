/** Gives part of a vma other flags: merges with a neighbour that has them, else splits (mprotect, madvise, mlock). */
import { MM_MAP_COUNT } from '../frame/mm-table.ts'
import { VM_SOFTDIRTY } from '../vma/flags.ts'
import { mergeVma, splitVma } from '../vma/merge.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'

/** [start, end) lies in `vma`. → the vma that has the range now, or 0 when the map-count limit forbids a split. */
export function changeFlags(m: Machine, mm: number, vma: number, start: number, end: number, flags: number): number {
  const { vmas } = m
  const pgoff = vmas.linearIndex(vma, start)
  const merged = mergeVma(vmas, mm, start, end, flags, vmas.anon[vma], vmas.file[vma], vmas.inode[vma], pgoff, m.onFile)
  if (merged !== 0) {
    // In Linux 3.19 the part that changed says for the whole whether it is soft-dirty.
    const soft = m.policy === POLICY_LINUX ? 0 : vmas.flags[merged] & VM_SOFTDIRTY
    vmas.flags[merged] = flags | soft
    return merged
  }
  let id = vma
  if (vmas.start[id] !== start) {
    if (m.mms.row(mm, MM_MAP_COUNT) >= m.maxMapCount) return 0
    id = splitVma(vmas, id, start, m.onFile)
    if (id === 0) return 0
  }
  if (vmas.end[id] !== end) {
    if (m.mms.row(mm, MM_MAP_COUNT) >= m.maxMapCount) return 0
    if (splitVma(vmas, id, end, m.onFile) === 0) return 0
  }
  vmas.flags[id] = flags
  return id
}
