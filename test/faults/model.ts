/** What programs may see of the files and windows of a fault run: the model's types, and how found bytes compare. */
import type { Mm } from '../../src/syscall/args.ts'
import type { DurableModel } from '../../tools/crash/durable-model.ts'
import type { InjectingStore } from './injector.ts'

export const PAGE = 1024

export class Wrong extends Error {}

export interface WorldFile {
  readonly name: string
  readonly store: InjectingStore | undefined
  readonly model: DurableModel
  fd: number
  /** A write failed that no sync has told of; perhaps, if it may have been one of zeros, which the punch told of. */
  unreported: 'no' | 'perhaps' | 'yes'
}

export interface Window {
  readonly space: Mm
  readonly file: WorldFile | null
  readonly shared: boolean
  address: number
  /** First file page of its linear place. */
  readonly pgoff: number
  /** What each page shows: a file page, or bytes of its own. */
  pages: (number | Uint8Array)[]
  nonlinear: boolean
}

export function isPastEnd(w: Window, page: number): boolean {
  const shown = w.pages[page]
  return typeof shown === 'number' && shown * PAGE >= (w.file as WorldFile).model.size
}

export function bytesOf(w: Window, page: number): Uint8Array {
  const shown = w.pages[page]
  if (typeof shown !== 'number') return shown
  const { bytes } = (w.file as WorldFile).model
  return bytes.subarray(shown * PAGE, (shown + 1) * PAGE)
}

export function compare(found: Uint8Array, expected: Uint8Array, what: string): void {
  for (let i = 0; i < found.length; i++) {
    if (found[i] !== expected[i]) throw new Wrong(`${what}: byte ${i} is ${found[i]}, not ${expected[i]}`)
  }
}

/** Private copies of pages that a file lost are lost too. */
export function forgetCopies(windows: Iterable<Window>, file: WorldFile, firstGone: number): void {
  for (const w of windows) {
    if (w.file !== file || w.shared) continue
    for (let i = 0; i < w.pages.length; i++) if (w.pgoff + i >= firstGone) w.pages[i] = w.pgoff + i
  }
}
