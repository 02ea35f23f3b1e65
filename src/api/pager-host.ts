/**
 * What waiting without blocking needs of the platform, Node's or a browser's: timers, signals, and words of shared
 * memory to wait on.
 */
import type { Abortable, PagerHost } from '../mm/pager.ts'

/** How long to wait before looking again where an engine cannot tell that a shared word has changed. */
const LOOK_AGAIN_MS = 5

/** Part of ES2024 that most engines with threads have. */
type WaitAsync = (words: Int32Array, at: number, value: number) => { value: Promise<string> | string }

const { waitAsync } = Atomics as unknown as { waitAsync?: WaitAsync }

/** Resolves once a shared word is not `value` any more, or may not be. */
export function untilChanged(words: Int32Array, at: number, value: number): Promise<unknown> {
  if (waitAsync !== undefined) return Promise.resolve(waitAsync(words, at, value).value)
  return new Promise(resolve => setTimeout(resolve, LOOK_AGAIN_MS))
}

/** `promise`, unless the signal comes first: then its reason. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  if (signal.aborted) {
    promise.catch(() => {})
    return Promise.reject(signal.reason)
  }
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

export const pagerHost: PagerHost = {
  abortable(): Abortable {
    const controller = new AbortController()
    return { signal: controller.signal, abort: reason => controller.abort(reason) }
  },

  after(delayMs: number, act: () => void): () => void {
    const timer = setTimeout(act, delayMs)
    return () => clearTimeout(timer)
  },

  every(intervalMs: number, act: () => void): () => void {
    const timer: unknown = setInterval(act, intervalMs)
    // Node's timers keep the process alive unless told otherwise; browsers' are numbers.
    if (typeof timer === 'object') (timer as { unref?: () => void }).unref?.()
    return () => clearInterval(timer as ReturnType<typeof setInterval>)
  },

  untilChanged
}
