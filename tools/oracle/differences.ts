/**
 * Where this machine differs from Linux 3.19 on purpose. Each is known by what the operation is; the replayer checks
 * that our answer is the one described here, and then does what keeps the rest of the trace in step.
 *
 * docs/conformance.md has the same table; a test holds the two together.
 */
import { PTE_FILE_MAX_PAGES } from '../../src/abi/limits.ts'
import { VM_NONLINEAR } from '../../src/vma/flags.ts'
import { remap } from './process-ops.ts'
import { addressOf, bytesOf, PAGE, rawOf } from './quantity.ts'
import { type Args, failed, returned } from './result.ts'
import type { Session } from './session.ts'
import { isNonlinear, type Op, type Result } from './trace.ts'

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

/** The table of docs/conformance.md. */
export function differencesTable(): string {
  const rows = DIFFERENCES.map(d => `| \`${d.name}\` | ${d.linux} | ${d.ours} | ${d.reason} |\n`)
  return `| name | Linux | here | why |\n|---|---|---|---|\n${rows.join('')}`
}

export interface Answer {
  readonly result: Result
  /** The name of the difference that explains it, if it is one. */
  readonly difference: string | undefined
}

/** Ours for an operation that a difference is about, or undefined for all others. */
export function answerDifferently(s: Session, op: Op): Answer | undefined {
  if (op.op === 'remap') return remapBeyondOurBits(s, op)
  return undefined
}

const LINUX_MAX = 1n << 46n
const LINUX_DECODED = 1n << 34n
const OUR_MAX = BigInt(PTE_FILE_MAX_PAGES)
/** File pages that no script's file reaches. */
const FAR = OUR_MAX / 2n
const FAR_PAGES = OUR_MAX / 4n

/**
 * Refused here. In step afterwards: each page is remapped to what Linux shows there, or to one as far past any file.
 */
function remapBeyondOurBits(s: Session, op: Op): Answer | undefined {
  const { args } = op
  const pgoff = rawOf(args.pgoff)
  const pages = bytesOf(args.size) / PAGE
  const end = pgoff + pages
  const live = !isNonlinear(s.header)
  if (end < OUR_MAX || (end >= LINUX_MAX && !live) || op.expected.ret !== 0) return undefined
  const result = returned(remap(s, args, Number(pgoff)))
  if (result.errno !== 'EINVAL') return { result, difference: undefined }
  const first = addressOf(args.at) / PAGE
  if (isLinear(s, args, Number(first), Number(pgoff))) return { result: { ret: 0 }, difference: PGOFF_BITS }
  let error = 0
  for (let i = 0n; i < pages && error === 0; i++) {
    const shown = live ? pgoff + i : (pgoff + i) % LINUX_DECODED
    const standIn = shown < OUR_MAX / 2n ? shown : FAR + (shown % FAR_PAGES)
    const one = { ...args, at: `0x${((first + i) * PAGE).toString(16)}`, size: 1 }
    // Where Linux shows the linear page by this way round, the mapping becomes nonlinear all the same.
    error = remap(s, { ...one, flags: 'NONBLOCK' }, Number(FAR + FAR_PAGES))
    if (error === 0) error = remap(s, one, Number(standIn))
  }
  return { result: error < 0 ? failed(error) : { ret: 0 }, difference: PGOFF_BITS }
}

/** Linux does nothing for a remap of a linear mapping to where it is. */
function isLinear(s: Session, args: Args, vpn: number, pgoff: number): boolean {
  const { vmas } = s.machine
  const vma = vmas.at(s.process((args.p as number | undefined) ?? 0).mm.id, vpn)
  return vma !== 0 && (vmas.flags[vma] & VM_NONLINEAR) === 0 && vmas.linearIndex(vma, vpn) === pgoff
}
