/**
 * The kinds of secondary MMU that every thread of a machine can tell what it changes (notify/notifier.ts). A row's kind
 * number is the place in this list.
 *
 * What stands in mmu/ is the part that any thread runs. The part that asks the page tables, in the thread that uses the
 * translations, is in api/ (shadow-table, tlb).
 */
import type { Ram } from '../frame/ram.ts'
import type { NotifierKind } from '../notify/notifier.ts'
import type { Sync } from '../sync/sync.ts'
import { ShadowMmu } from './shadow-mmu.ts'
import { TlbMmu } from './tlb-mmu.ts'

export const MMU_SHADOW = 1 as const
export const MMU_TLB = 2 as const

export function mmuKinds(ram: Ram, sync: Sync): readonly (NotifierKind | undefined)[] {
  return [undefined, row => new ShadowMmu(ram, sync, row), row => new TlbMmu(ram, sync, row)]
}
