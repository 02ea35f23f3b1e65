/**
 * What an entry needs before it is written: its page tables, and a reverse-map node. Lock: machine lock, which reclaim
 * may yield.
 */
import type { Machine } from './machine.ts'

const MAX_ROUNDS = 4

/** Whether `prepareEntry` is to have a reverse-map node ready. */
export const NO_NODE = 0 as const
export const NEEDS_NODE = 1 as const

/**
 * The slot of a page with its tables made and, if asked for, a reverse-map node ready; 0 without memory. Each of the
 * two may reclaim, and so take back what the other made: a table without entries, or an empty slab.
 */
export function prepareEntry(m: Machine, mm: number, vpn: number, node: typeof NO_NODE | typeof NEEDS_NODE): number {
  let slot = 0
  for (let round = 0; round < MAX_ROUNDS; round++) {
    if (node === NEEDS_NODE && !m.nodes.prepare()) break
    slot = m.tables.ensure(mm, vpn)
    if (slot === 0) break
    if (node === NO_NODE || m.nodes.isPrepared) return slot
  }
  // What was made for nothing goes back. Reclaim may have freed the table of an earlier round, so it is looked up.
  slot = m.tables.find(mm, vpn)
  if (slot !== 0) m.tables.releaseIfEmpty(slot)
  m.nodes.trim()
  return 0
}
