/** Reads a machine's trace ring: the last events as rows, and as text. */
import { errnoName } from '../abi/errno.ts'
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR, FAULT_OOM } from '../abi/fault.ts'
import {
  TRACE_EVICT,
  TRACE_FAULT,
  TRACE_READ,
  TRACE_REMAP,
  TRACE_TRUNCATE,
  TRACE_WORDS,
  TRACE_WRITEBACK
} from '../frame/trace.ts'
import type { Machine } from '../mm/machine.ts'

/** One event; the arguments mean what frame/trace.ts says. */
export interface TraceRow {
  readonly seq: number
  readonly event: number
  readonly args: readonly [number, number, number, number]
}

/** The last `most` events, oldest first. None when the machine was made without `traceEntries`. */
export function traceRows(m: Machine, most: number = m.trace.nrEntries): TraceRow[] {
  const { nrEntries, next, ring } = m.trace
  const rows: TraceRow[] = []
  for (let seq = Math.max(0, next - Math.min(most, nrEntries)); seq < next; seq++) {
    const at = (seq % nrEntries) * TRACE_WORDS
    rows.push({ seq, event: ring[at + 1], args: [ring[at + 2], ring[at + 3], ring[at + 4], ring[at + 5]] })
  }
  return rows
}

const FAULTS: Readonly<Record<number, string>> = {
  [FAULT_MAPERR]: 'SIGSEGV (nothing mapped)',
  [FAULT_ACCERR]: 'SIGSEGV (protection)',
  [FAULT_BUS]: 'SIGBUS',
  [FAULT_OOM]: 'out of memory'
}

/** An event as a line. */
export function formatTraceRow(m: Machine, { seq, event, args }: TraceRow): string {
  return `${String(seq).padStart(8)}  ${describe(m, event, args)}`
}

function describe(m: Machine, event: number, [a, b, c, d]: TraceRow['args']): string {
  const outcome = d < 0 ? `  ${errnoName(d)}` : ''
  switch (event) {
    case TRACE_FAULT:
      return `fault      space ${a} page ${b} ${c === 0 ? 'load' : 'store'}${d === 0 ? '' : `  ${FAULTS[d] ?? d}`}`
    case TRACE_REMAP:
      return `remap      space ${a} page ${b} +${c} ${d < 0 ? 'by a vector' : `to file page ${d}`}`
    case TRACE_EVICT:
      return `evict      ${fileName(m, a)} page ${b} frame ${c}`
    case TRACE_WRITEBACK:
      return `writeback  ${fileName(m, a)} page ${b} +${c}${outcome}`
    case TRACE_READ:
      return `read       ${fileName(m, a)} page ${b} +${c}${outcome}`
    case TRACE_TRUNCATE:
      return `truncate   ${fileName(m, a)} from ${b} to ${c} pages`
    default:
      return `event ${event}  ${a} ${b} ${c} ${d}`
  }
}

/** What an inode is called; what is gone by now has no name. */
function fileName(m: Machine, inode: number): string {
  return inode === 0 ? 'anonymous' : m.inodes.stores.name(inode) || `inode ${inode}`
}
