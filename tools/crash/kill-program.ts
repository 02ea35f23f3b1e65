/** The program that the killed process runs and its parent retraces: long, without planned failures. */
import { type Config, type Op, randomConfig, randomProgram } from './program.ts'

/** Operations until the process ends by itself. */
export const KILL_OPS = 200_000

const CHUNK_OPS = 1000

export interface KillProgram {
  readonly config: Config
  operation(i: number): Op
}

export function killProgram(seed: number): KillProgram {
  const config = { ...randomConfig(seed), pageShift: 12, punch: 'zeros' as const }
  let chunk: Op[] = []
  let first = -1
  return {
    config,
    operation(i) {
      const from = i - (i % CHUNK_OPS)
      if (from !== first) {
        first = from
        chunk = randomProgram(config, (seed * 4096 + from / CHUNK_OPS) | 0, CHUNK_OPS, 'without faults')
      }
      return chunk[i - from]
    }
  }
}
