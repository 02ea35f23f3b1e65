/**
 * Where this machine differs from Linux 3.19 on purpose. Each is known by what the operation is; the replayer checks that
 * our answer is the one described here, and then does what keeps the rest of the trace in step.
 *
 * docs/conformance.md has the same table; a test holds the two together.
 */
import { PTE_FILE_MAX_PAGES } from '../../src/abi/limits.ts'
import { remap } from './process-ops.ts'
import { addressOf, bytesOf, PAGE, rawOf } from './quantity.ts'
import { failed, returned } from './result.ts'
import type { Session } from './session.ts'
import type { Op, Result } from './trace.ts'

export interface Difference {
  readonly name: string
  readonly linux: string
  readonly ours: string
  readonly reason: string
}

export const PGOFF_BITS = 'pgoff-bits'

export const DIFFERENCES: readonly Difference[] = [
  {
    name: PGOFF_BITS,
    linux: 'remap_file_pages takes pgoff up to 2^46 pages, of which an entry keeps 34 bits: page 2^34 + 5 shows page 5',
    ours: 'EINVAL when pgoff + pages reaches 2^28 (1 TiB with 4 KiB pages)',
    reason: 'an entry is one 32-bit word, and remembers every page that it accepts'
  }
]

export interface Answer {
  readonly result: Result
  /** The name of the difference that explains it. */
  readonly difference: string
}

/** Ours for an operation that a difference is about, or undefined for all others. */
export function answerDifferently(s: Session, op: Op): Answer | undefined {
  if (op.op === 'remap') return remapBeyondOurBits(s, op)
  return undefined
}

const LINUX_MAX = 1n << 46n
const LINUX_DECODED = 1n << 34n
const OUR_MAX = BigInt(PTE_FILE_MAX_PAGES)

/** Refused here. In step afterwards: each page is remapped to what Linux shows there, or to one as far past any file. */
function remapBeyondOurBits(s: Session, op: Op): Answer | undefined {
  const { args } = op
  const pgoff = rawOf(args.pgoff)
  const pages = bytesOf(args.size) / PAGE
  const end = pgoff + pages
  if (end < OUR_MAX || end >= LINUX_MAX || op.expected.ret !== 0) return undefined
  const refused = returned(remap(s, args, pgoff <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(pgoff) : pgoff))
  if (refused.errno !== 'EINVAL') return { result: refused, difference: PGOFF_BITS }
  let error = 0
  for (let i = 0n; i < pages && error === 0; i++) {
    const shown = (pgoff + i) % LINUX_DECODED
    const standIn = shown < OUR_MAX / 2n ? shown : OUR_MAX / 2n + (shown % (OUR_MAX / 4n))
    const address = (addressOf(args.at) / PAGE + i) * PAGE
    const one = { ...args, at: `0x${address.toString(16)}`, size: 1 }
    error = remap(s, one, Number(standIn))
  }
  return { result: error < 0 ? failed(error) : { ret: 0 }, difference: PGOFF_BITS }
}
