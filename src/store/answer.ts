/** What stores answer: other people's code, which may answer anything. */

/** A store's answer that is none. Its message says which call of which store gave what. */
export class WrongAnswer extends TypeError {}

/** A result if it is a whole number up to `most`, or an errno. Throws WrongAnswer for all else. */
export function answerOf(name: string, call: string, result: unknown, most: number): number {
  if (Number.isSafeInteger(result) && (result as number) <= most && (result as number) > -4096) return result as number
  const what = `${call}() of ${name} gave`
  if (isThenable(result)) {
    // What becomes of it interests nobody.
    new Promise(resolve => resolve(result)).catch(() => {})
    throw new WrongAnswer(`${what} a promise: a store that answers later is opened by await memory.openAsync(store)`)
  }
  const shown = typeof result === 'bigint' ? `${result}n` : typeof result === 'number' ? result : `a ${typeof result}`
  throw new WrongAnswer(`${what} ${shown}, which is neither a whole number from 0 to ${most} nor -errno`)
}

function isThenable(given: unknown): boolean {
  return typeof (given as { then?: unknown } | null | undefined)?.then === 'function'
}
