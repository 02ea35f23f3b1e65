/** The clockwork of a request, with a clock that the test turns. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Watch, whenAborted } from '../../src/stores/http-exchange.ts'

const FACTS = { url: 'http://host/', range: 'bytes=0-0' }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})

afterEach(() => {
  vi.useRealTimers()
})

describe('Watch', () => {
  test('measures silence, and not the whole', () => {
    const watch = new Watch(100, new AbortController().signal)
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(90)
      watch.heard()
    }
    vi.advanceTimersByTime(99)
    expect(watch.signal.aborted).toBe(false)
    vi.advanceTimersByTime(1)
    expect(watch.signal.aborted).toBe(true)
    expect(watch.explain(watch.signal.reason, FACTS)).toMatchObject({ error: { code: 'ETIMEDOUT' }, remedy: 'retry' })
  })

  test('passes on that the caller gives up, with the reason', () => {
    const outer = new AbortController()
    const watches = [new Watch(100, outer.signal)]
    outer.abort('enough')
    watches.push(new Watch(100, outer.signal))
    for (const watch of watches) {
      expect(watch.signal.reason).toBe('enough')
      expect(() => watch.explain(new Error('x'), FACTS)).toThrow('enough')
      watch.end()
    }
    expect(vi.getTimerCount()).toBe(0)
  })

  test('leaves nothing behind', () => {
    const outer = new AbortController()
    const watch = new Watch(100, outer.signal)
    watch.end()
    expect(vi.getTimerCount()).toBe(0)
    outer.abort()
    expect(watch.signal.aborted).toBe(false)
  })
})

describe('whenAborted', () => {
  test('one listener for many, each of which may leave', () => {
    const controller = new AbortController()
    const listen = vi.spyOn(controller.signal, 'addEventListener')
    const called: number[] = []
    const leave = Array.from({ length: 20 }, (_, i) => whenAborted(controller.signal, () => called.push(i)))
    for (const i of [3, 17]) leave[i]()
    controller.abort()
    expect(called).toEqual(Array.from({ length: 20 }, (_, i) => i).filter(i => i !== 3 && i !== 17))
    expect(listen).toHaveBeenCalledTimes(1)
  })
})
