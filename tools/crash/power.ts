/**
 * Power loss: a program on a store that remembers its writes, then every state that a crash could have left, each
 * compared with what the program was promised.
 */
import { memoryStore } from '../../src/stores/memory.ts'
import { faultyStore } from '../../test/support/faulty-store.ts'
import { crashImages, recordingStore } from '../../test/support/recording-store.ts'
import { Executor, type Medium, Violation } from './executor.ts'
import { type Config, type Op, pattern } from './program.ts'
import { staysOpen } from './stays-open.ts'

export interface PowerOptions {
  /** Images by chance for each stretch between two flushes. */
  readonly samples: number
  readonly seed: number
}

export interface PowerResult {
  readonly nrImages: number
  readonly nrSyncs: number
  /** What went wrong, or undefined. */
  readonly violation: string | undefined
}

/** Runs the program and checks every image. */
export function losePower(config: Config, program: readonly Op[], options: PowerOptions): PowerResult {
  const recorder = recordingStore(
    memoryStore({ contents: config.initialBytes === 0 ? new Uint8Array(0) : pattern(0, config.initialBytes) })
  )
  const faulty = faultyStore(recorder)
  const medium: Medium = {
    open: () => staysOpen(faulty, config.punch),
    position: () => recorder.log.entries.length,
    fail: ({ what, call, sectors }) => {
      if (what === 'torn') faulty.arm({ kind: 'partial-write', call, sectors })
      else faulty.arm({ kind: 'error-once', op: what, call })
    },
    heal: () => faulty.heal(),
    contents: () => {
      const bytes = new Uint8Array(recorder.size())
      recorder.read(0, bytes, 0, bytes.length)
      return bytes
    }
  }
  let nrImages = 0
  let nrSyncs = 0
  let at = 0
  try {
    const executor = new Executor(config, medium)
    for (; at < program.length; at++) executor.step(program[at])
    executor.finish()
    const { model } = executor
    nrSyncs = model.nrEras - 1
    for (const image of crashImages(recorder.log, options)) {
      nrImages++
      const wrong = model.check(image.bytes, image.durable)
      if (wrong !== undefined) throw new Violation(`${wrong}\n  the image: ${image.description}`)
    }
  } catch (error) {
    const where = at < program.length ? `operation ${at} (${JSON.stringify(program[at])}): ` : ''
    const what = error instanceof Violation ? error.message : String((error as Error).stack)
    return { nrImages, nrSyncs, violation: where + what }
  }
  return { nrImages, nrSyncs, violation: undefined }
}

/** Takes operations out as long as the rest still fails. */
export function shrink(program: readonly Op[], fails: (program: readonly Op[]) => boolean): Op[] {
  let left = [...program]
  for (let size = Math.ceil(left.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < left.length; ) {
      const without = [...left.slice(0, from), ...left.slice(from + size)]
      if (without.length < left.length && fails(without)) left = without
      else from += size
    }
  }
  return left
}
