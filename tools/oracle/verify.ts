/** What must hold of a machine whatever Linux says. Each function gives '' or what is wrong. */
import { checkMachine } from '../../src/observe/check.ts'
import type { Session } from './session.ts'

/** After the last operation. */
export function verifyMachine(session: Session): string {
  return checkMachine(session.machine).join('; ')
}

/** After all processes ended and all files were closed: nothing may be left in use. */
export function verifyEnd(session: Session): string {
  const { machine } = session
  // A slab of reverse-map nodes may be kept for the next entry.
  const used = machine.ram.nrFrames - 1 - machine.allocator.nrFree - machine.nodes.nrSlabs
  if (used !== 0) return `${used} frames were leaked`
  if (machine.nodes.nrNodes !== 0) return `${machine.nodes.nrNodes} reverse-map nodes were leaked`
  if (machine.vmas.nrInUse !== 0) return `${machine.vmas.nrInUse} vmas were leaked`
  if (machine.swap.nrUsed !== 0) return `${machine.swap.nrUsed} swap slots were leaked`
  if (session.nrMlocked !== 0) return `${session.nrMlocked} pages are still counted as locked`
  return checkMachine(machine).join('; ')
}
