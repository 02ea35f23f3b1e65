/**
 * How worker threads of the benchmark start and work in rounds, over shared words: ROUND grows when there is something
 * to do, DONE counts the threads that have done it. A crew may have more words behind these.
 *
 *  startThread, allAttached    by who asks, before the first round
 *  beginRound, endRound        by who asks, which sleeps meanwhile, or asks isRoundOver
 *  reportDone, nextRound       by a thread: it has attached or is done; it waits for the next round
 */
import { Worker } from 'node:worker_threads'

const ROUND = 0
const DONE = 1
export const ROLL_CALL_WORDS = 2

const WAIT_MS = 120_000

/** `file` is beside this one. An error of the thread comes out of `allAttached`. */
export function startThread(file: string, workerData: unknown, failures: Error[]): Worker {
  const worker = new Worker(new URL(file, import.meta.url), { workerData })
  worker.once('error', error => failures.push(error as Error))
  return worker
}

export async function allAttached(control: Int32Array, size: number, failures: readonly Error[]): Promise<void> {
  const deadline = Date.now() + WAIT_MS
  // The event loop must turn: it is what starts workers and brings their errors.
  while (Atomics.load(control, DONE) < size) {
    if (failures.length > 0) throw failures[0]
    if (Date.now() > deadline) throw new Error('the threads of the benchmark did not start')
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

export function beginRound(control: Int32Array): void {
  Atomics.store(control, DONE, 0)
  Atomics.add(control, ROUND, 1)
  Atomics.notify(control, ROUND)
}

/** Whether all threads are done. */
export function isRoundOver(control: Int32Array, size: number): boolean {
  return Atomics.load(control, DONE) >= size
}

/** Sleeps until all threads are done. */
export function endRound(control: Int32Array, size: number): void {
  for (let done = 0; done < size; done = Atomics.load(control, DONE)) {
    if (Atomics.wait(control, DONE, done, WAIT_MS) === 'timed-out') throw new Error('a thread of the benchmark hangs')
  }
}

export function reportDone(control: Int32Array): void {
  Atomics.add(control, DONE, 1)
  Atomics.notify(control, DONE)
}

/** Sleeps until there is another round than `last`. → its number. */
export function nextRound(control: Int32Array, last: number): number {
  Atomics.wait(control, ROUND, last)
  return Atomics.load(control, ROUND)
}

/** The clock that all threads of the process share, in ms. */
export function sharedClock(): number {
  return performance.timeOrigin + performance.now()
}
