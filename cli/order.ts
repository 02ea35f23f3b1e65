/**
 * Orders: which file page each page of the window shows.
 *
 *   linear          0, 1, 2, ...
 *   reverse         the last page first
 *   stride:N        0, N, 2N, ..., then 1, N+1, ...
 *   shuffle[:SEED]  a permutation that the seed (0 to 2^32 - 1, default 1) decides
 *   @PLAN           what the file PLAN says, see `plan`
 *
 * An order is a function, not a list: a shuffle of 2^28 pages takes no memory.
 */
import { UsageError } from './failure.ts'
import { type Plan, planOrder, readPlan } from './plan.ts'

export interface Order {
  /** As it was asked for. */
  readonly name: string
  /** Pages of the window. */
  readonly pages: number
  /** Writes the file pages of window pages `first`, `first + 1`, ... to all of `out`. */
  fill(first: number, out: Int32Array): void
  /** How many window pages show a file page. */
  timesShown(page: number): number
}

export type OrderSpec =
  | { readonly kind: 'linear' }
  | { readonly kind: 'reverse' }
  | { readonly kind: 'shuffle'; readonly seed: number }
  | { readonly kind: 'stride'; readonly step: number }
  | { readonly kind: 'plan'; readonly plan: Plan }

const FORMS = 'linear, reverse, shuffle[:SEED], stride:N or @PLAN'

/** Reads an order as written on the command line, and the plan it names. Throws UsageError. */
export function parseOrder(text: string): OrderSpec {
  if (text.startsWith('@')) {
    if (text === '@') throw new UsageError('the order @ names no plan: write @PLAN, with the name of a file')
    return { kind: 'plan', plan: readPlan(text.slice(1)) }
  }
  const [kind, argument, ...more] = text.split(':')
  if (more.length === 0) {
    if ((kind === 'linear' || kind === 'reverse') && argument === undefined) return { kind }
    if (kind === 'shuffle') return { kind, seed: wholeNumber(text, argument ?? '1', 0, 0xffffffff) }
    if (kind === 'stride' && argument !== undefined) return { kind, step: wholeNumber(text, argument, 1, 2 ** 28) }
  }
  throw new UsageError(`the order '${text}' is unknown: it is ${FORMS}`)
}

function wholeNumber(text: string, digits: string, min: number, max: number): number {
  const n = /^[0-9]{1,10}$/.test(digits) ? Number(digits) : Number.NaN
  if (n >= min && n <= max) return n
  throw new UsageError(`the order '${text}' needs a whole number from ${min} to ${max} after the colon`)
}

/** The order for a file of so many pages. `fileName` is for errors. Throws UsageError when a plan does not fit it. */
export function orderFor(spec: OrderSpec, filePages: number, fileName: string): Order {
  if (spec.kind === 'plan') return planOrder(spec.plan, filePages, fileName)
  if (spec.kind === 'linear') return byPage('linear', filePages, at => at)
  if (spec.kind === 'reverse') return byPage('reverse', filePages, at => filePages - 1 - at)
  if (spec.kind === 'stride') return byPage(`stride:${spec.step}`, filePages, strided(filePages, spec.step))
  return byPage(`shuffle:${spec.seed}`, filePages, shuffled(filePages, spec.seed))
}

function byPage(name: string, pages: number, pageAt: (at: number) => number): Order {
  return {
    name,
    pages,
    fill: (first, out) => {
      for (let i = 0; i < out.length; i++) out[i] = pageAt(first + i)
    },
    timesShown: () => 1
  }
}

/**
 * The pages as a table of `step` columns, read down one column after the other. The first columns are longer by one.
 */
function strided(pages: number, step: number): (at: number) => number {
  const rows = Math.floor(pages / step)
  const longColumns = pages % step
  const inLong = longColumns * (rows + 1)
  return at => {
    if (at < inLong) return (at % (rows + 1)) * step + Math.floor(at / (rows + 1))
    const rest = at - inLong
    return (rest % rows) * step + longColumns + Math.floor(rest / rows)
  }
}

const ROUNDS = 4

/**
 * A Feistel network is a permutation of the numbers below 4^h for any round function; numbers beyond the last page are
 * sent through it again until one falls within (fewer than four times on average), which leaves a permutation of the
 * pages.
 */
function shuffled(pages: number, seed: number): (at: number) => number {
  let half = 1
  while (4 ** half < pages) half++
  const mask = 2 ** half - 1
  return at => {
    let n = at
    do {
      let left = n >>> half
      let right = n & mask
      for (let round = 0; round < ROUNDS; round++) {
        const next = left ^ (mix(right, round, seed) & mask)
        left = right
        right = next
      }
      n = ((left << half) | right) >>> 0
    } while (n >= pages)
    return n
  }
}

/** The finalizer of MurmurHash3 over the half, the round and the seed. */
function mix(half: number, round: number, seed: number): number {
  let x = Math.imul(half + 1, 0x9e3779b1) ^ Math.imul(round + 1, 0x85ebca6b) ^ seed
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return x ^ (x >>> 16)
}
