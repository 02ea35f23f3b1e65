/**
 * The word that a page of a secondary MMU's guest is reached by: where its frame begins in the buffer that the frames
 * are in, in bytes, and in the low bits what is allowed. 0 is none.
 *
 *  mkTranslation    from an entry that is present
 *  isTranslation    whether a word says of an entry's page nothing that the entry does not
 */
import type { Ram } from '../frame/ram.ts'
import { PTE_PRESENT, PTE_READ, PTE_WRITE, pteFrame } from '../pgtable/pte.ts'

export const SHADOW_READ = 1 as const
/** Never without SHADOW_READ. */
export const SHADOW_WRITE = 2 as const

/** → a signed word. */
export function mkTranslation(ram: Ram, pte: number): number {
  return addressOf(ram, pte) | ((pte & PTE_WRITE) !== 0 ? SHADOW_READ | SHADOW_WRITE : SHADOW_READ)
}

export function isTranslation(ram: Ram, word: number, pte: number): boolean {
  const need = PTE_PRESENT | PTE_READ | ((word & SHADOW_WRITE) !== 0 ? PTE_WRITE : 0)
  return (pte & need) === need && (word & -ram.pageSize) === addressOf(ram, pte)
}

function addressOf(ram: Ram, pte: number): number {
  return (ram.byteOffset + pteFrame(pte) * ram.pageSize) | 0
}
