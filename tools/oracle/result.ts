/** The shapes of results, and of the tables of operations. */
import { errnoName } from '../../src/abi/errno.ts'
import type { Session } from './session.ts'
import type { Result } from './trace.ts'

export type Args = Readonly<Record<string, unknown>>
export type Run = (session: Session, args: Args) => Result
export type OpTable = Readonly<Record<string, Run>>

export function failed(error: number): Result {
  return { errno: errnoName(error) }
}

/** What a system call gave: a number or -errno. */
export function returned(result: number): Result {
  return result < 0 ? failed(result) : { ret: result }
}
