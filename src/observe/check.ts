/**
 * The consistency checker: walks the whole machine and compares every structure with every other one.
 *
 *  checkMachine    the list of what is wrong, empty when nothing is
 *  assertMachine   throws an Error that lists it
 *
 * It derives each counter, list and hash a second time, from the page tables, the frame table and the vmas alone, and
 * so finds what a test of one call's result cannot: a leaked frame, a stale node, a count that drifts. It changes
 * nothing. Its time is proportional to the size of the machine, so it is for tests, fuzzing and a suspicious operator.
 *
 * The machine must be at rest: not within a system call (a store's or notifier's callback), and with no frame taken
 * from the allocator by hand.
 *
 * Rules, by file: check-spaces (address spaces, vmas, page tables, entries), check-frames (frames, LRU, reverse map),
 * check-files (page cache, inodes, open files, swap).
 */
import type { Machine } from '../mm/machine.ts'
import { checkFiles, checkSwap } from './check-files.ts'
import { checkAllocator, checkFrames, checkLru, checkNodes } from './check-frames.ts'
import { checkEntries, checkSpaces } from './check-spaces.ts'

/** Violations listed before the rest is only counted. */
const MAX_LISTED = 100

/** What the walk over the page tables and vmas counted, for the rules about frames and files to compare with. */
export class Census {
  readonly machine: Machine
  readonly violations: string[] = []
  /** Present entries that map a frame; those of them that need a reverse-map node; and whether it is a page table. */
  readonly mapped: Int32Array
  readonly offLinear: Int32Array
  readonly isTable: Uint8Array
  /** Swap entries by slot. */
  readonly swapEntries: Int32Array
  /** Vmas that hold each file. */
  readonly fileVmas: Int32Array
  /** Pages by inode that are on their way from the store. */
  readonly filling: Map<number, number> = new Map()
  nrOffLinear = 0
  /** Frames with at least one node: the first of each list is in no hash. */
  nrShownOff = 0
  nrVmas = 0
  nrViolations = 0

  constructor(machine: Machine) {
    this.machine = machine
    this.mapped = new Int32Array(machine.ram.nrFrames)
    this.offLinear = new Int32Array(machine.ram.nrFrames)
    this.isTable = new Uint8Array(machine.ram.nrFrames)
    this.swapEntries = new Int32Array(machine.swap.nrSlots + 1)
    this.fileVmas = new Int32Array(machine.files.capacity + 1)
  }

  /** Notes a violation unless `holds`. The message is made only when it is needed. */
  expect(holds: boolean, message: () => string): void {
    if (holds) return
    this.nrViolations++
    if (this.violations.length < MAX_LISTED) this.violations.push(message())
  }

  equal(found: number, expected: number, what: string): void {
    if (found !== expected) this.expect(false, () => `${what} is ${found}, but ${expected} were counted`)
  }
}

/** Everything that is wrong with the machine, in words. */
export function checkMachine(machine: Machine): string[] {
  const census = new Census(machine)
  checkSpaces(census)
  checkEntries(census)
  checkAllocator(census)
  checkFrames(census)
  checkLru(census)
  checkNodes(census)
  checkFiles(census)
  checkSwap(census)
  checkSecondaryMmus(census)
  const { violations, nrViolations } = census
  if (nrViolations > violations.length) violations.push(`and ${nrViolations - violations.length} more`)
  return violations
}

/** No translation of a secondary MMU says more than the page tables. */
function checkSecondaryMmus(census: Census): void {
  const { notifiers, tables } = census.machine
  for (const wrong of notifiers.verify((mm, vpn) => tables.get(mm, vpn))) census.expect(false, () => wrong)
}

/** Throws an Error that lists what is wrong, if anything is. */
export function assertMachine(machine: Machine): void {
  const violations = checkMachine(machine)
  if (violations.length > 0) throw new Error(`the machine is inconsistent:\n  ${violations.join('\n  ')}`)
}
