/**
 * Progress of long loops: a bar with rate and time left on a terminal (the standard error), nothing anywhere else.
 *
 * `await progress.add(bytes)` also gives the event loop its turns, which is when signals arrive.
 */
import { SingleBar } from 'cli-progress'
import { formatSize } from '../src/index.ts'
import { undoAtExit } from './cleanup.ts'
import { formatDuration } from './format.ts'

const DRAW_EVERY_MS = 80
const TURN_EVERY_MS = 20

export class Progress {
  readonly #bar: SingleBar | undefined
  readonly #totalBytes: number
  readonly #start: number = performance.now()
  readonly #forget: () => void
  #doneBytes = 0
  #nextDraw: number = this.#start + DRAW_EVERY_MS
  #nextTurn: number = this.#start + TURN_EVERY_MS

  /** Without a label nothing is drawn. */
  constructor(label: string | undefined, totalBytes: number) {
    this.#totalBytes = totalBytes
    this.#bar = label !== undefined && process.stderr.isTTY ? makeBar(label) : undefined
    this.#bar?.start(Math.max(1, totalBytes), 0, this.#payload(0))
    this.#forget = undoAtExit(() => this.#bar?.stop())
  }

  /** So many bytes more are done. */
  note(bytes: number): void {
    this.#doneBytes += bytes
    const now = performance.now()
    if (now < this.#nextDraw) return
    this.#bar?.update(Math.min(this.#doneBytes, this.#totalBytes), this.#payload(now - this.#start))
    this.#nextDraw = now + DRAW_EVERY_MS
  }

  /** The same, and a turn of the event loop when it is time for one. */
  async add(bytes: number): Promise<void> {
    this.note(bytes)
    if (performance.now() < this.#nextTurn) return
    await new Promise<void>(resolve => setImmediate(resolve))
    this.#nextTurn = performance.now() + TURN_EVERY_MS
  }

  /** Time since the start. */
  get elapsed(): number {
    return performance.now() - this.#start
  }

  /** Takes the bar away. */
  stop(): void {
    this.#bar?.stop()
    this.#forget()
  }

  #payload(ms: number): Record<string, string> {
    const perMs = this.#doneBytes / ms
    return {
      size: `${formatSize(this.#doneBytes)} of ${formatSize(this.#totalBytes)}`,
      rate: ms > 0 ? `${formatSize(perMs * 1000)}/s` : '-',
      left: perMs > 0 ? `${formatDuration((this.#totalBytes - this.#doneBytes) / perMs)} left` : ''
    }
  }
}

function makeBar(label: string): SingleBar {
  return new SingleBar({
    format: `${label} {bar} {percentage}% | {size} | {rate} | {left}`,
    stream: process.stderr,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
    clearOnComplete: true,
    gracefulExit: false,
    stopOnComplete: false
  })
}
