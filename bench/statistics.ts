/** From samples to a verdict. Pure functions; costs (ns, bytes) are better when lower, counts when higher. */

/** `cost`: fewer is better, as in ns per page. `count`: more is better, as in pages. */
export type Sense = 'cost' | 'count'

/**
 * What a row is to reach.
 * - `ratio`, `lower`: within that many times the other side's cost.
 * - `ratio`, `higher`: at least that many times as good (costs: as fast; counts: as many).
 * - `value`: our own figure at most (`lower`) or at least (`higher`) that, in the row's unit.
 */
export type Reach =
  | { readonly ratio: number; readonly better: 'lower' | 'higher' }
  | { readonly value: number; readonly better: 'lower' | 'higher' }

/** How the samples of one side lie. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
  /** First and third quartile, interpolated. */
  readonly q1: number
  readonly q3: number
}

export interface Verdict {
  readonly reached: boolean
  /** 1 when reached, else the factor that is missing: 1.25 means a quarter more is needed. */
  readonly shortBy: number
}

/** The value below which the fraction `q` of the samples lies, interpolated between neighbours. */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError('no samples')
  const sorted = [...samples].sort((a, b) => a - b)
  const position = (sorted.length - 1) * q
  const below = Math.floor(position)
  const above = Math.ceil(position)
  return sorted[below] + (sorted[above] - sorted[below]) * (position - below)
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5)
}

export function spread(samples: readonly number[]): Spread {
  return {
    median: median(samples),
    min: quantile(samples, 0),
    max: quantile(samples, 1),
    q1: quantile(samples, 0.25),
    q3: quantile(samples, 0.75)
  }
}

/**
 * How we compare with the other side, in the direction the reach is given in: with `lower` our figure over
 * theirs; with `higher` how many times better we are.
 */
export function ratio(ours: number, theirs: number, sense: Sense, better: 'lower' | 'higher'): number {
  return better === 'higher' && sense === 'cost' ? theirs / ours : ours / theirs
}

/** The median of the ratios round by round. A machine that drifts moves both sides of a round, so it moves less. */
export function pairwiseRatio(
  ours: readonly number[],
  theirs: readonly number[],
  sense: Sense,
  better: 'lower' | 'higher'
): number {
  if (ours.length !== theirs.length) throw new RangeError('the sides have different numbers of rounds')
  return median(ours.map((value, round) => ratio(value, theirs[round], sense, better)))
}

/** Whether `figure`, a ratio or a value as the reach says, is good enough. */
export function verdict(figure: number, reach: Reach): Verdict {
  const target = 'ratio' in reach ? reach.ratio : reach.value
  const missing = reach.better === 'lower' ? figure / target : target / figure
  return missing <= 1 ? { reached: true, shortBy: 1 } : { reached: false, shortBy: missing }
}
