/** Runs of frames: pages that follow one another both in an address space and in RAM are copied in one piece. */
import { pteFrame } from '../pgtable/pte.ts'
import type { Machine } from './machine.ts'

/** Pages from `vpn`, `max` at most, whose frames follow one another in RAM after `frame`. Only hits count. */
export function runLength(m: Machine, mm: number, vpn: number, frame: number, max: number, need: number): number {
  const { tables } = m
  const { i32 } = m.ram
  let slot = tables.find(mm, vpn)
  let n = 1
  while (n < max) {
    // The entries of one table follow one another.
    slot = ((vpn + n) & tables.leafMask) === 0 ? tables.find(mm, vpn + n) : slot + 1
    const pte = i32[slot]
    if ((pte & need) !== need || pteFrame(pte) !== frame + n) break
    n++
  }
  return n
}
