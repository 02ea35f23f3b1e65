/** Runs of frames: pages that follow one another both in an address space and in RAM are copied in one piece. */
import { pteFrame } from '../pgtable/pte.ts'
import type { Machine } from './machine.ts'

/** Pages from `vpn`, `max` at most, whose frames follow one another in RAM after `frame`. Only hits count. */
export function runLength(m: Machine, mm: number, vpn: number, frame: number, max: number, need: number): number {
  let n = 1
  const i32 = m.ram.i32
  while (n < max) {
    const slot = m.tables.find(mm, vpn + n)
    if (slot === 0) break
    const pte = i32[slot]
    if ((pte & need) !== need || pteFrame(pte) !== frame + n) break
    n++
  }
  return n
}
