/** All rows, in the order of the report. */
import type { BenchRow } from './context.ts'
import { coldRows } from './rows/cold.ts'
import { evictionRows } from './rows/eviction.ts'
import { httpRows } from './rows/http.ts'
import { httpMappedRows } from './rows/http-mapped.ts'
import { linuxRows } from './rows/linux.ts'
import { memoryRows } from './rows/memory.ts'
import { readRows } from './rows/reads.ts'
import { rmapRows } from './rows/rmap.ts'
import { scanRows } from './rows/scan.ts'
import { threadRows } from './rows/threads.ts'
import { wasmRows } from './rows/wasm.ts'

export { peerRows } from './rows/peers.ts'

// Reads first: rows over huge windows teach V8 about offsets beyond 2^32, which the accessors then pay for in every
// row.
export const ROWS: readonly BenchRow[] = [
  ...readRows,
  ...scanRows,
  ...wasmRows,
  ...coldRows,
  ...evictionRows,
  ...rmapRows,
  ...memoryRows,
  ...threadRows,
  ...httpRows,
  ...httpMappedRows,
  ...linuxRows
]

export const QUICK_ROUNDS = 3
export const ROUNDS = 7
export const WARMUPS = 3

/** How long a row's warm-up takes at least. */
export function warmupMs(quick: boolean): number {
  return quick ? 200 : 1000
}
