/** Programs as trace files, which the replayer reads too (`npm run oracle -- FILE --live`). */
import type { Op } from '../oracle/trace.ts'
import type { Program } from './judge.ts'

/** One JSON line each: the header, the operations with Linux's results, the end. */
export function formatTrace({ header }: Program, ran: readonly Op[]): string {
  const lines = ran.map(({ op, args, expected }) => JSON.stringify({ op, ...args, r: expected }))
  return `${[JSON.stringify(header), ...lines, '{"op":"end","r":{}}'].join('\n')}\n`
}
