/**
 * Time limits for tests that share one process.
 *
 *   timed(limitMs, fn)    runs `fn` and what comes of it. → what it failed with, or undefined
 *   within(limitMs, fn)   calls `fn`, and stops it, loops without an end and sleeps included, after so long; what it
 *                         awaits is not timed
 *   hasEnded(error)       whether this is the error of a test that took too long
 *   spent()               milliseconds of processor time, sleep and idleness so far: what this process had of the time
 *                         that passed
 *
 * A test that awaits what does not come is left alone with what it has under way. So that it does not go on beside the
 * tests after it, its timers and turns of the event loop are not given to it any more: each test has its own context
 * (`AsyncLocalStorage`), by which they are told apart.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import { Script } from 'node:vm'

const contexts = new AsyncLocalStorage()
const TOO_LONG = 'a test that does not end'
const call = new Script('globalThis.__call__()')
const { setTimeout: realSetTimeout, clearTimeout: realClearTimeout } = globalThis

let current
let sleptMs = 0
let asleepSince = 0

const realWait = Atomics.wait
Atomics.wait = (...args) => {
  asleepSince = performance.now()
  const result = realWait(...args)
  woken()
  return result
}

function woken() {
  if (asleepSince !== 0) sleptMs += performance.now() - asleepSince
  asleepSince = 0
}

const promises = createRequire(import.meta.url)('node:timers/promises')
for (const [of, name, left] of [
  [globalThis, 'setImmediate', () => undefined],
  [globalThis, 'setTimeout', () => ({ ref() {}, unref() {}, hasRef: () => false })],
  [promises, 'setImmediate', () => new Promise(() => {})],
  [promises, 'setTimeout', () => new Promise(() => {})]
]) {
  const real = of[name]
  of[name] = (...args) => (contexts.getStore()?.isOver ? left() : real(...args))
}
syncBuiltinESMExports()

process.on('uncaughtException', error => current?.fail(error))

export function spent() {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000 + sleptMs + performance.eventLoopUtilization().idle
}

export async function timed(limitMs, fn) {
  const context = { isOver: false, fail: undefined }
  let timer
  const failed = new Promise((_, reject) => {
    context.fail = reject
    if (limitMs !== Number.POSITIVE_INFINITY) timer = realSetTimeout(() => reject(new Error(TOO_LONG)), limitMs)
  })
  current = context
  try {
    await Promise.race([contexts.run(context, fn), failed])
    return undefined
  } catch (error) {
    context.isOver = true
    return error ?? new Error('undefined was thrown')
  } finally {
    current = undefined
    realClearTimeout(timer)
  }
}

export function within(limitMs, fn) {
  if (limitMs === Number.POSITIVE_INFINITY) return fn()
  globalThis.__call__ = fn
  try {
    return call.runInThisContext({ timeout: Math.ceil(limitMs) })
  } finally {
    woken()
  }
}

export function hasEnded(error) {
  return error?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' || error?.message === TOO_LONG
}
