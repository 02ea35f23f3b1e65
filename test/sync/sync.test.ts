/**
 * Waiting itself, over words that the test moves: two `Sync` objects over the same words are two threads, of which the
 * one that the test does not run stands still. What it would have done meanwhile, the test does in the clock: each look
 * at the time is a moment that has passed.
 */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { EAGAIN, EOWNERDEAD } from '../../src/abi/errno.ts'
import { Arena } from '../../src/base/arena.ts'
import { READ_LOCKED, WAIT_PAGE, WRITE_LOCKED } from '../../src/sync/lock-order.ts'
import { Sync } from '../../src/sync/sync.ts'
import {
  IO_FILL,
  NR_SYNC_WORDS,
  S_BROKEN,
  S_LOCK,
  S_STARVING,
  T_CHANGES,
  T_HAZARD,
  T_IN_IO,
  T_INODE,
  T_LOCK_CONTENDED,
  T_LOCK_TRIES,
  T_LOCK_WAITS,
  T_MMAP,
  T_MMAP_MODE,
  T_PLATFORM_ID,
  T_PROGRESS,
  T_STATE,
  THREAD_ATTACHED,
  THREAD_DEAD,
  THREAD_FREE,
  ThreadTable
} from '../../src/sync/threads.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

interface Rig {
  readonly words: Int32Array
  readonly threads: ThreadTable
  readonly syncs: Sync[]
}

/** Words for `n` threads, attached under the platform's numbers 100, 101, ... */
function rig(n: number, patienceMs = 1000): Rig {
  const arena = Arena.over(new SharedArrayBuffer(1 << 16))
  const threads = new ThreadTable(arena, n)
  const words = arena.int32('threads', NR_SYNC_WORDS)
  const syncs = Array.from({ length: n }, (_, i) => new Sync(words, threads, threads.attach(100 + i), patienceMs))
  return { words, threads, syncs }
}

/** A thread that may not sleep, as a browser's main thread: Atomics.wait throws there. */
function withoutSleep(make: () => Sync): Sync {
  vi.spyOn(Atomics, 'wait').mockImplementation(() => {
    throw new TypeError('Atomics.wait cannot be called in this context')
  })
  const sync = make()
  expect(sync.maySleep).toBe(false)
  return sync
}

/** From now on a look at the clock, or a sleep, lets `stepMs` pass, and `act` is what others do meanwhile. */
function passTime(stepMs: number, act: (turn: number) => void = () => {}): void {
  let nowMs = performance.now()
  let turn = 0
  const pass = (): void => {
    nowMs += stepMs
    act(++turn)
  }
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs)
  vi.spyOn(Atomics, 'wait').mockImplementation(() => {
    pass()
    return 'timed-out'
  })
}

describe('the machine lock', () => {
  test('that a thread holds which shows no sign of life breaks the machine, for all', () => {
    const { words, syncs } = rig(2)
    const [me, other] = syncs
    expect(other.lock()).toBe(0)
    passTime(60)
    expect(me.lock()).toBe(EOWNERDEAD)
    expect(me.broken).toBe(EOWNERDEAD)
    // What the dead one had is nobody's; giving it back once more does no harm.
    expect(me.isLocked).toBe(false)
    expect(me.lockOwner).toBe(other.me)
    me.unlock()
    expect(words[S_LOCK] & 0xff).toBe(other.me + 1)
    expect(words[S_STARVING], 'nobody is kept from it any more').toBe(0)
    expect(other.lock()).toBe(EOWNERDEAD)
  })

  test('is waited for ten times as long while its owner is in a store, and for ever while it shows signs of life', () => {
    const { threads, syncs } = rig(2, 1000)
    const [me, other] = syncs
    other.lock()
    expect(other.beginStoreCall()).toBe(0)
    let turns = 0
    passTime(60, turn => {
      turns = turn
      // 9.6 s in a store; then back from it, and 0.9 s later the lock is free.
      if (turn === 160) other.endStoreCall(0)
      if (turn === 175) other.unlock()
    })
    expect(me.lock()).toBe(0)
    expect(turns).toBe(175)
    expect(threads.w[threads.at(other.me, T_IN_IO)]).toBe(0)
    expect(me.broken).toBe(0)
    me.unlock()
  })

  test('that somebody was kept from for long is not taken again at once', () => {
    const { words, syncs } = rig(2)
    const [me, other] = syncs
    Atomics.add(words, S_STARVING, 1)
    const wait = vi.spyOn(Atomics, 'wait').mockImplementation(() => {
      // The starving one gets it meanwhile, and gives it back.
      expect(words[S_LOCK]).toBe(0)
      Atomics.sub(words, S_STARVING, 1)
      return 'ok'
    })
    expect(me.lock()).toBe(0)
    expect(wait).toHaveBeenCalledTimes(1)
    me.unlock()
    expect(other.lock()).toBe(0)
    expect(wait).toHaveBeenCalledTimes(1)
    other.unlock()
  })

  test('is free again while one makes ready to sleep: nobody sleeps', () => {
    const { syncs } = rig(2)
    const [me, other] = syncs
    other.lock()
    const wait = vi.spyOn(Atomics, 'wait')
    const exchange = Atomics.compareExchange.bind(Atomics)
    // The first try to leave the mark of a sleeper comes when the owner has just gone.
    vi.spyOn(Atomics, 'compareExchange').mockImplementation(((
      array: Int32Array,
      at: number,
      was: number,
      to: number
    ) => {
      if (to > 0x100 && was !== 0) other.unlock()
      return exchange(array, at, was, to)
    }) as typeof Atomics.compareExchange)
    expect(me.lock()).toBe(0)
    expect(wait).not.toHaveBeenCalled()
    me.unlock()
  })

  test('that is free after a few tries is had without a sleep; takes, tries and sleeps are counted', () => {
    const { threads, syncs } = rig(2)
    const [me, other] = syncs
    const counts = () =>
      [T_PROGRESS, T_LOCK_CONTENDED, T_LOCK_TRIES, T_LOCK_WAITS].map(word => threads.w[threads.at(me.me, word)])
    me.lock()
    me.unlock()
    expect(counts()).toEqual([1, 0, 0, 0])
    other.lock()
    const exchange = Atomics.compareExchange.bind(Atomics)
    let tries = 0
    const spy = vi.spyOn(Atomics, 'compareExchange').mockImplementation(((
      array: Int32Array,
      at: number,
      was: number,
      to: number
    ) => {
      // The first one finds it taken; two more do.
      if (++tries === 4) other.unlock()
      return exchange(array, at, was, to)
    }) as typeof Atomics.compareExchange)
    expect(me.lock()).toBe(0)
    me.unlock()
    expect(counts()).toEqual([2, 1, 3, 0])
    spy.mockRestore()
    other.lock()
    passTime(10, turn => {
      if (turn === 1) other.unlock()
    })
    expect(me.lock()).toBe(0)
    const [takes, contended, spun, waits] = counts()
    expect([takes, contended, waits]).toEqual([3, 2, 1])
    expect(spun).toBeGreaterThan(3)
    me.unlock()
  })

  test('that is snatched away at the last moment is waited for on', () => {
    const { words, syncs } = rig(3)
    const [me, second, third] = syncs
    second.lock()
    let turns = 0
    const exchange = Atomics.compareExchange.bind(Atomics)
    let isSnatched = false
    vi.spyOn(Atomics, 'compareExchange').mockImplementation(((
      array: Int32Array,
      at: number,
      was: number,
      to: number
    ) => {
      // The lock was seen free, and another thread is quicker, once.
      if (was === 0 && to === ((me.me + 1) | 0x100) && !isSnatched) {
        isSnatched = true
        exchange(array, at, 0, third.me + 1)
      }
      return exchange(array, at, was, to)
    }) as typeof Atomics.compareExchange)
    passTime(10, turn => {
      turns = turn
      if (turn === 1) second.unlock()
      if (turn === 2) third.unlock()
    })
    expect(me.lock()).toBe(0)
    expect(isSnatched).toBe(true)
    expect(turns).toBe(2)
    // Others may sleep still, so whoever took it after a sleep wakes one.
    expect(words[S_LOCK] & 0x100).toBe(0x100)
    me.unlock()
  })
})

describe('a thread that may not sleep', () => {
  test('spins for the lock, gives up with EAGAIN, and has it when it is free', () => {
    const { words, threads, syncs } = rig(3, 60)
    const [, other] = syncs
    const me = withoutSleep(() => new Sync(words, threads, 0, 60))
    other.lock()
    expect(me.lock()).toBe(EAGAIN)
    expect(me.broken).toBe(0)
    other.unlock()
    expect(me.lock()).toBe(0)
    me.unlock()
    // While it spins, the other one may let go.
    other.lock()
    const now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => {
      other.unlock()
      return now
    })
    expect(me.lock()).toBe(0)
    me.unlock()
  })

  test('finds out that the owner is dead over several tries, and that the machine broke while it spun', () => {
    const { words, threads, syncs } = rig(2, 60)
    const [, other] = syncs
    const me = withoutSleep(() => new Sync(words, threads, 0, 60))
    other.lock()
    let nowMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => (nowMs += 15))
    const results: number[] = []
    while (results.at(-1) !== EOWNERDEAD) results.push(me.lock())
    expect(results.length).toBeGreaterThan(2)
    expect(new Set(results.slice(0, -1))).toEqual(new Set([EAGAIN]))
    expect(me.broken).toBe(EOWNERDEAD)
    expect(me.lock(), 'at once').toBe(EOWNERDEAD)
  })

  test('takes the lock though somebody starves, and is told EAGAIN where it would have to sleep', () => {
    const { words, threads, syncs } = rig(2)
    const me = withoutSleep(() => new Sync(words, threads, 0, 1000))
    Atomics.add(words, S_STARVING, 1)
    expect(me.lock()).toBe(0)
    // What it would have to sleep for, it gets EAGAIN for, without the lock.
    expect(me.waitFor(WAIT_PAGE, 5)).toBe(EAGAIN)
    expect(me.isLocked).toBe(false)
    Atomics.sub(words, S_STARVING, 1)
    expect(syncs[1].lock()).toBe(0)
    syncs[1].unlock()
  })
})

describe('waiting for a page or a lock', () => {
  test('ends with EOWNERDEAD when the machine breaks meanwhile, without the lock', () => {
    const { syncs } = rig(2)
    const [me, other] = syncs
    expect(me.lock()).toBe(0)
    passTime(10, () => other.declareBroken(EOWNERDEAD))
    expect(me.waitFor(WAIT_PAGE, 7)).toBe(EOWNERDEAD)
    expect(me.isLocked).toBe(false)
  })

  /** A clock that the test sets. */
  function clock(): { nowMs: number } {
    const time = { nowMs: 5000 }
    vi.spyOn(performance, 'now').mockImplementation(() => time.nowMs)
    return time
  }

  test('for nobody that is known is waited for as long as the patience lasts', () => {
    const [me] = rig(2, 100).syncs
    const time = clock()
    me.beginWait()
    expect(me.isPatient(-1)).toBe(true)
    time.nowMs += 50
    expect(me.isPatient(-1)).toBe(true)
    time.nowMs += 50
    expect(me.isHopeful(-1)).toBe(true)
    time.nowMs += 1
    expect(me.isHopeful(-1), 'this asks, and breaks nothing').toBe(false)
    expect(me.broken).toBe(0)
    expect(me.isPatient(-1)).toBe(false)
    expect(me.broken).toBe(EOWNERDEAD)
  })

  test('a sign of life, or another thread that has it, begins the wait anew', () => {
    const { threads, syncs } = rig(3, 40)
    const [me] = syncs
    const time = clock()
    me.beginWait()
    expect(me.isHopeful(1)).toBe(true)
    time.nowMs += 41
    threads.w[threads.at(1, T_PROGRESS)]++
    expect(me.isHopeful(1)).toBe(true)
    time.nowMs += 41
    expect(me.isHopeful(2)).toBe(true)
    time.nowMs += 41
    expect(me.isHopeful(2)).toBe(false)
  })

  test('time in which nobody of this process ran, or a clock that is set, counts for no more than a sleep', () => {
    const [me] = rig(2, 120).syncs
    const time = clock()
    vi.spyOn(Date, 'now').mockImplementation(() => time.nowMs * 1e6)
    me.beginWait()
    for (let look = 0; look < 3; look++) {
      expect(me.isPatient(1)).toBe(true)
      time.nowMs += 3_600_000
    }
    expect(me.isPatient(1)).toBe(false)
  })

  test('a thread that the operating system knows to live is waited for without end, for whatever it has', () => {
    const { words, threads, syncs } = rig(2, 60)
    const [me, other] = syncs
    other.knowThread(77, 5)
    const asked: unknown[] = []
    let hasEnded: boolean | undefined = false
    me.setSystem((...thread) => {
      asked.push(thread)
      return hasEnded
    })
    me.beginWait()
    let turns = 0
    passTime(60, turn => {
      turns = turn
    })
    const pass = (): boolean => {
      Atomics.wait(words, 0, 0)
      return me.isPatient(1)
    }
    for (let look = 0; look < 100; look++) expect(pass()).toBe(true)
    expect(asked).toContainEqual([77, 5])
    // The machine lock, and a store that is on its way.
    other.lock()
    passTime(60, turn => {
      turns = turn
      if (turn === 300) other.unlock()
    })
    expect(me.lock()).toBe(0)
    expect(turns).toBe(300)
    Atomics.store(threads.w, threads.at(1, T_HAZARD), 9)
    passTime(60, turn => {
      turns = turn
      if (turn === 300) Atomics.store(threads.w, threads.at(1, T_HAZARD), 0)
    })
    me.settleAll()
    expect([turns, me.broken]).toEqual([300, 0])
    // Where it does not tell, patience counts again.
    hasEnded = undefined
    expect([1, 2, 3, 4].map(pass)).toContain(false)
    expect(me.broken).toBe(EOWNERDEAD)
  })
})

describe('who holds what', () => {
  test('is read from the rows of the thread table', () => {
    const { threads, syncs } = rig(4)
    const [me] = syncs
    const set = (thread: number, word: number, value: number): void => {
      threads.w[threads.at(thread, word)] = value
    }
    expect([me.holderOfMmap(3), me.holderOfPage(3, 8)]).toEqual([-1, -1])
    expect(me.mmapHolders(3)).toBe(0)
    set(1, T_MMAP, 3)
    set(1, T_MMAP_MODE, READ_LOCKED)
    set(2, T_MMAP, 3)
    set(2, T_MMAP_MODE, READ_LOCKED)
    set(3, T_MMAP, 4)
    set(3, T_MMAP_MODE, WRITE_LOCKED)
    expect(me.mmapHolders(3)).toBe(2)
    expect(me.mmapHolders(4)).toBe(-1)
    expect([1, 2]).toContain(me.holderOfMmap(3))
    expect(me.holderOfMmap(4)).toBe(3)
    syncs[2].lock()
    syncs[2].openWindow(IO_FILL, 3, 8, 4)
    expect([7, 8, 11, 12].map(index => me.holderOfPage(3, index))).toEqual([-1, 2, 2, -1])
    expect(me.holderOfPage(4, 8)).toBe(-1)
    syncs[2].closeWindow()
    expect(me.holderOfPage(3, 8)).toBe(-1)
    syncs[2].unlock()
    threads.free(3)
    expect(me.holderOfMmap(4)).toBe(-1)
    expect([0, 3, 4, 1000].map(thread => me.isAttached(thread))).toEqual([true, false, false, false])
  })

  test('a row is found by the platform’s number, given up once, and taken again empty', () => {
    const { threads, syncs } = rig(3)
    expect(threads.attach(200), 'all are taken').toBe(-1)
    expect(threads.find(101)).toBe(1)
    threads.w[threads.at(1, T_INODE)] = 5
    expect(threads.declareDead(1, 999), 'another thread’s').toBe(false)
    expect(threads.declareDead(1, 101)).toBe(true)
    expect(threads.declareDead(1, 101), 'it was said already').toBe(false)
    expect(threads.find(101)).toBe(-1)
    expect(syncs[0].isAttached(1)).toBe(false)
    threads.free(1)
    expect(threads.attach(200)).toBe(1)
    expect(threads.w[threads.at(1, T_INODE)]).toBe(0)
    expect(threads.w[threads.at(1, T_PLATFORM_ID)]).toBe(200)
  })

  test('pins are recorded while there is room, and those beyond are not mistaken for others', () => {
    const { threads } = rig(2)
    for (let pin = 1; pin <= 11; pin++) threads.notePin(0, pin)
    threads.notePin(0, 12)
    threads.forgetPin(0, 12)
    threads.forgetPin(0, 3)
    threads.notePin(0, -3)
    const first = threads.at(0, 19)
    expect([...threads.w.subarray(first, first + 11)]).toEqual([1, 2, -3, 4, 5, 6, 7, 8, 9, 10, 11])
  })
})

describe('a store of another thread that is on its way', () => {
  /** Two threads, of which the second one is storing to frame 5. */
  function storing(patienceMs = 1000): Rig {
    const r = rig(3, patienceMs)
    r.threads.w[r.threads.at(1, T_HAZARD)] = 6
    // This thread's own is none to wait for.
    r.threads.w[r.threads.at(0, T_HAZARD)] = 6
    return r
  }

  test('to another frame is not waited for', () => {
    const { syncs } = storing()
    passTime(100, () => expect.fail('it waited'))
    syncs[0].settle(4)
    expect(syncs[0].broken).toBe(0)
  })

  test('is waited for until it is done, by whoever changes this frame or any', () => {
    for (const wait of [(sync: Sync) => sync.settle(5), (sync: Sync) => sync.settleAll()]) {
      const { threads, syncs } = storing()
      let turns = 0
      passTime(1, turn => {
        turns = turn
        if (turn === 3) threads.w[threads.at(1, T_HAZARD)] = 0
      })
      wait(syncs[0])
      expect(turns).toBe(3)
      vi.restoreAllMocks()
    }
  })

  test('that never ends: its thread died, and is known to have', () => {
    const { threads, syncs } = storing()
    passTime(1, turn => {
      if (turn === 2) threads.w[threads.at(1, T_STATE)] = THREAD_DEAD
      expect(turn).toBeLessThan(3)
    })
    syncs[0].settle(5)
    expect(syncs[0].broken).toBe(0)
  })

  test('that never ends: the machine broke, which is enough', () => {
    const { words, threads, syncs } = storing()
    passTime(1, () => syncs[2].declareBroken(EOWNERDEAD))
    syncs[0].settleAll()
    expect(words[S_BROKEN]).toBe(EOWNERDEAD)
    expect(threads.w[threads.at(1, T_STATE)]).toBe(THREAD_ATTACHED)
  })

  test('that never ends breaks the machine when patience does, also on a thread that may not sleep', () => {
    const sleeping = storing(50)
    passTime(10)
    sleeping.syncs[0].settle(5)
    expect(sleeping.syncs[0].broken).toBe(EOWNERDEAD)
    vi.restoreAllMocks()
    const { words, threads } = storing(50)
    const me = withoutSleep(() => new Sync(words, threads, 0, 50))
    let nowMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => (nowMs += 10))
    me.settle(5)
    expect(me.broken).toBe(EOWNERDEAD)
  })

  test('a change is told to the loads of all attached threads, before stores are waited for; both by read-modify-writes', () => {
    const { threads, syncs } = rig(2)
    const told = () => [0, 1].map(t => threads.w[threads.at(t, T_CHANGES)])
    const before = told()
    const calls: [number, number][] = []
    const add = Atomics.add as (words: Int32Array, at: number, value: number) => number
    vi.spyOn(Atomics, 'add').mockImplementation(((words: Int32Array, at: number, value: number) => {
      calls.push([at, value])
      return add(words, at, value)
    }) as typeof Atomics.add)
    syncs[0].changed()
    expect(told()).toEqual(before.map(n => n + 1))
    syncs[0].settle(5)
    syncs[0].settleAll()
    const [own, other] = [0, 1].map(t => threads.at(t, T_CHANGES))
    const hazard = threads.at(1, T_HAZARD)
    expect(calls).toEqual([
      [own, 1],
      [other, 1],
      [hazard, 0],
      [hazard, 0]
    ])
  })

  test('a row without a thread is nobody’s', () => {
    const { threads, syncs } = storing()
    threads.w[threads.at(1, T_STATE)] = THREAD_FREE
    passTime(100, () => expect.fail('it waited'))
    const before = threads.w[threads.at(1, T_CHANGES)]
    syncs[0].changed()
    syncs[0].settle(5)
    syncs[0].settleAll()
    expect(threads.w[threads.at(1, T_CHANGES)]).toBe(before)
  })
})
