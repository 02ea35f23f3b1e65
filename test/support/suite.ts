/** The short suite (`npm test`) and the long one (`npm run test:long`, which is all tests). */

const isLong = process.env.SUITE === 'long'

/** How often to do what is done over and over: in the short suite, in the long one. */
export function rounds(short: number, long: number): number {
  return isLong ? long : short
}

/** How long to wait for what must come, before saying that it did not: longer than any machine takes. */
export const LIMIT_MS = 120_000
