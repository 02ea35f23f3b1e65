/**
 * Two machines of one memory in one thread: what takes two threads, in an order that the test sets, with nothing to
 * wait for.
 *
 *     const attached = useAttached()                   once a test file
 *     const rig = attached({ pages: 64 })              a memory (`rig.mine`), attached to once more (`rig.theirs`),
 *                                                      with a window over a marked file
 *     rig.during('read', () => ...)                    in the middle of the store's next read, whoever's it is
 *     rig.asleep(() => ...)                            when one of the two would go to sleep: what wakes it
 *     rig.diesIn('read', () => rig.theirs.load(4))     ends within the store's next read, as a thread does: nothing of
 *                                                      it runs any more
 *
 * A call that sleeps with nothing left to be done fails the test: nobody else would wake it. Page i of the file begins
 * with the 32-bit word i + 1. After each test the machine is checked, unless it is broken, and all frames must have
 * come back.
 */
import { Script } from 'node:vm'
import { afterEach, beforeEach, expect } from 'vitest'
import type { MappedFile } from '../../src/api/file.ts'
import type { Mapping } from '../../src/api/mapping.ts'
import { Memory } from '../../src/api/memory.ts'
import type { AddressSpace } from '../../src/api/space.ts'
import { openFds } from '../../src/mm/files.ts'
import type { Machine } from '../../src/mm/machine.ts'
import type { Store, StoreHandle } from '../../src/store/store.ts'
import { sharedStore, sharedStoreBuffer } from '../../src/stores/shared.ts'
import { Mm } from '../../src/syscall/args.ts'
import { sys_close } from '../../src/syscall/file.ts'
import { sys_exit } from '../../src/syscall/process.ts'

export const PAGE = 4096
const FRAME_BYTES = PAGE + 44
/** The number that the second thread attaches with. */
export const THEIR_NUMBER = 7

/** 'answer': a read, when the store has given its bytes. */
export type Call = 'read' | 'answer' | 'write' | 'flush' | 'truncate' | 'punch' | 'size' | 'close'

export interface AttachedOptions {
  readonly frames?: number
  readonly pages?: number
  readonly patienceMs?: number
  readonly readahead?: number
  readonly swapSlots?: number
  /** Whether the first thread sleeps for pages of stores that answer later. Default false. */
  readonly waitForPages?: boolean
  /** Whether the second thread may sleep, as a browser's main thread may not. Default true. */
  readonly maySleep?: boolean
}

/** One of the two, with its own objects for the same things. */
export class Side {
  readonly memory: Memory
  readonly file: MappedFile
  readonly space: AddressSpace
  readonly map: Mapping

  constructor(memory: Memory, file: MappedFile, space: AddressSpace, map: Mapping) {
    this.memory = memory
    this.file = file
    this.space = space
    this.map = map
  }

  get m(): Machine {
    return this.memory.machine
  }

  /** The word at the beginning of a page. */
  load(page: number): number {
    return this.map.getUint32(page * PAGE)
  }

  store(page: number, word: number): void {
    this.map.setUint32(page * PAGE, word)
  }
}

const realWait = Atomics.wait

export class AttachedRig {
  readonly mine: Side
  readonly theirs: Side
  /** The file's bytes, past all caches. */
  readonly stored: Store
  /** Calls of the file's store so far: [call, first byte, bytes]. */
  readonly calls: [Call, number, number][] = []
  readonly #buffers: Record<string, SharedArrayBuffer>
  readonly #freeAtStart: number
  readonly #acts: [Call, () => void][] = []
  readonly #sleeps: { act: () => void; isWoken: boolean }[] = []
  readonly #rests: (() => void)[] = []
  readonly #fails: [Call, number][] = []

  constructor(options: AttachedOptions) {
    const { frames = 128, pages = 64, swapSlots = 0, patienceMs = 60_000, maySleep = true } = options
    this.#buffers = { data: sharedStoreBuffer(pages * PAGE * 2), swap: sharedStoreBuffer(swapSlots * PAGE) }
    this.stored = sharedStore(this.#buffers.data, { name: 'data', sizeBytes: pages * PAGE })
    for (let page = 0; page < pages; page++) this.putStored(page, page + 1)
    const memory = new Memory({
      size: frames * FRAME_BYTES,
      threads: 4,
      patienceMs,
      readahead: options.readahead ?? 0,
      faultAroundPages: 1,
      waitForPages: options.waitForPages ?? false,
      debug: true,
      ...(swapSlots === 0 ? {} : { swap: { store: this.#open('swap'), size: swapSlots * PAGE } })
    })
    this.#freeAtStart = memory.stats().freeFrames
    const file = memory.open(this.#open('data'))
    const space = memory.space()
    this.mine = new Side(memory, file, space, space.map(file, { writable: true }))
    this.theirs = this.attach(THEIR_NUMBER, { maySleep })
    Atomics.wait = ((words: Int32Array, at: number, value: number, timeoutMs?: number) => {
      if (timeoutMs === 0) return realWait(words, at, value, 0)
      // A moment's rest, while another thread's store is on its way.
      if (timeoutMs === 1) this.#rests.shift()?.()
      if (timeoutMs === 1) return realWait(words, at, value, 0)
      const sleep = this.#sleeps.shift()
      if (sleep === undefined) throw new Error('a thread went to sleep, and nobody would wake it')
      sleep.act()
      const result = realWait(words, at, value, 0)
      if ((result === 'not-equal') !== sleep.isWoken) throw new Error('it was woken, or was not')
      return result
    }) as typeof Atomics.wait
  }

  /** One more thread, under this number. */
  attach(number: number, options: { waitForPages?: boolean; maySleep?: boolean } = {}): Side {
    const { wait } = Atomics
    const stores = [{ kind: 'acting', open: (handle: StoreHandle) => this.#open(String(handle.name)) }]
    if (options.maySleep === false) Atomics.wait = mayNotSleep
    const memory = Memory.attach(structuredClone(this.mine.memory.handle), { stores, thread: number, ...options })
    Atomics.wait = wait
    const { file, space, map } = this.mine
    return new Side(memory, memory.adopt(file.handle), memory.adopt(space.handle), memory.adopt(map.handle))
  }

  /** A second file over the same bytes, whose calls are acted upon too. */
  another(): Store {
    return Object.assign(this.#open('data'), { identity: undefined, handle: undefined })
  }

  /** In the middle of the store's next call of this kind. */
  during(call: Call, act: () => void): void {
    this.#acts.push([call, act])
  }

  /** Instead of the next sleep, and of those after it: each is to wake the sleeper. */
  asleep(...acts: (() => void)[]): void {
    for (const act of acts) this.#sleeps.push({ act, isWoken: true })
  }

  /** The same for something that does not. */
  asleepOn(...acts: (() => void)[]): void {
    for (const act of acts) this.#sleeps.push({ act, isWoken: false })
  }

  /** Instead of the next rest of a thread that waits for another one's store. */
  resting(act: () => void): void {
    this.#rests.push(act)
  }

  /** The store's next call of this kind fails with this errno. */
  fail(call: Call, errno: number): void {
    this.#fails.push([call, errno])
  }

  /** Runs `act` up to the store's next call of this kind, and no further: no `finally`, no unlocking. */
  diesIn(call: Call, act: () => void): void {
    this.during(call, () => {
      process.kill(process.pid, 'SIGINT')
      for (;;);
    })
    this.dies(act)
  }

  /** The same for an `act` that ends by itself: `process.kill(process.pid, 'SIGINT')`, and a loop. */
  dies(act: () => void): void {
    Object.assign(globalThis, { __dying__: act })
    let code = 'it lives'
    try {
      new Script('globalThis.__dying__()').runInThisContext({ breakOnSigint: true })
    } catch (error) {
      code = (error as { code: string }).code
    }
    expect(code).toBe('ERR_SCRIPT_EXECUTION_INTERRUPTED')
  }

  /** The word at the beginning of a page in the store itself. */
  storedWord(page: number, offset = 0): number {
    const bytes = new Uint8Array(4)
    this.stored.read(page * PAGE + offset, bytes, 0, 4)
    return new DataView(bytes.buffer).getUint32(0, true)
  }

  putStored(page: number, word: number): void {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, word, true)
    this.stored.write(page * PAGE, bytes, 0, 4)
  }

  finish(): void {
    const { memory, m } = this.mine
    expect([this.#sleeps.length, this.#rests.length], 'sleeps and rests that did not come').toEqual([0, 0])
    if (m.sync.broken !== 0) return
    expect(memory.check()).toEqual([])
    // Frames that each has in reserve.
    memory.ended(THEIR_NUMBER)
    memory.shrink()
    for (let mm = 1; mm <= m.mms.maxMms; mm++) if (m.mms.isAlive(mm)) sys_exit(new Mm(m, mm))
    for (const fd of openFds(m)) sys_close(m, fd)
    expect(memory.check()).toEqual([])
    expect(this.#freeAtStart - memory.stats().freeFrames, 'frames that did not come back').toBe(0)
    memory.close()
  }

  #open(name: string): Store {
    const inner = sharedStore(this.#buffers[name], { name })
    const call = name === 'data' ? this.#call.bind(this) : () => 0
    const answered = (done: number, call: Call): number => {
      if (name === 'data') this.#act(call)
      return done
    }
    return {
      name,
      identity: inner.identity,
      readOnly: false,
      durable: false,
      handle: { kind: 'acting', name },
      size: () => answered(inner.size(), 'size'),
      read: (position, buffer, offset, length) =>
        call('read', position, length) || answered(inner.read(position, buffer, offset, length), 'answer'),
      write: (position, buffer, offset, length) =>
        call('write', position, length) || inner.write(position, buffer, offset, length),
      flush: () => call('flush', 0, 0) || inner.flush(),
      truncate: size => call('truncate', size, 0) || inner.truncate(size),
      punch: (position, length) => call('punch', position, length) || inner.punch(position, length),
      close: () => answered(inner.close(), 'close')
    }
  }

  #act(call: Call): void {
    const at = this.#acts.findIndex(([kind]) => kind === call)
    if (at >= 0) this.#acts.splice(at, 1)[0][1]()
  }

  #call(call: Call, position: number, length: number): number {
    this.calls.push([call, position, length])
    this.#act(call)
    const failing = this.#fails.findIndex(([kind]) => kind === call)
    return failing < 0 ? 0 : -this.#fails.splice(failing, 1)[0][1]
  }
}

const mayNotSleep: typeof Atomics.wait = () => {
  throw new TypeError('Atomics.wait cannot be called in this context')
}

/** Call at the top of a test file. → `attached(options)`. */
export function useAttached(): (options?: AttachedOptions) => AttachedRig {
  const rigs: AttachedRig[] = []
  beforeEach(() => {
    rigs.length = 0
  })
  afterEach(() => {
    try {
      for (const rig of rigs.splice(0)) rig.finish()
    } finally {
      Atomics.wait = realWait
    }
  })
  return (options = {}) => {
    const rig = new AttachedRig(options)
    rigs.push(rig)
    return rig
  }
}

/** The error that a call ends in. */
export function errorOf(act: () => unknown): Error & { code: string; errno: number } {
  try {
    act()
  } catch (error) {
    return error as Error & { code: string; errno: number }
  }
  throw new Error('no error came')
}
