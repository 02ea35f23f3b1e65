/**
 * The pager: brings pages of stores that answer later, in the thread that has the stores (Linux: the I/O side of filemap_fault; the
 * name is Mach's).
 *
 *   a fault on such a page    enters it in the cache, locked, asks (cache/fetch-queue), and is parked
 *   the pager                 takes all requests there are, joins neighbours into one read, awaits the store, and delivers: the page
 *                             is unlocked and whoever waits for it looks again
 *   a read that fails         takes its pages out of the cache; the failure is noted for those who waited, with its cause
 *
 * A page is asked for once, however many threads want it. Reads of one store overlap, MAX_READS at a time; what is asked meanwhile is
 * joined and waits in order. The pager runs between the turns of its thread's event loop: a thread that never returns to it brings no
 * pages, and those who wait for it give up after a while (ETIMEDOUT). As long as it does return, it shows signs of life, however slow a store is.
 *
 * A read is given up by its signal when it takes longer than the store's `timeoutMs`, and when its file is closed. It is not waited for
 * then: its buffer is left to it.
 *
 * Lock: machine lock, for taking requests and for delivering; never while a store works.
 */
import { EIO, errnoFromName } from '../abi/errno.ts'
import { Q_BELL } from '../cache/fetch-queue.ts'
import { F_FLAGS, PG_READAHEAD } from '../frame/frame-table.ts'
import { TRACE_READ } from '../frame/trace.ts'
import { PGPGIN, READ_ERRORS, READAHEAD_PAGES, STORE_READS } from '../frame/vmstat.ts'
import type { AsyncStore } from '../store/async-store.ts'
import { WAIT_ARRIVALS } from '../sync/lock-order.ts'
import { T_PROGRESS } from '../sync/threads.ts'
import { BufferPool } from './buffer-pool.ts'
import { type Batch, enqueue } from './fetch-batch.ts'
import type { Machine } from './machine.ts'

const MAX_READS = 6
/** One read asks for so many bytes at most, and for no more than an eighth of memory. */
const MAX_READ_BYTES = 8 << 20
const MAX_CAUSES = 64
const BEAT_MS = 1000
const TRY_AGAIN_MS = 1

/** What a pager needs of the platform. */
export interface PagerHost {
  /** A new signal, and what raises it. */
  abortable(): Abortable
  /** Calls once, in a later turn of the event loop. → what prevents it. */
  after(delayMs: number, act: () => void): () => void
  /** Calls again and again, as long as the thread has other things to do. → what ends it. */
  every(intervalMs: number, act: () => void): () => void
  /** Resolves once a shared word is not `value` any more, or may not be. */
  untilChanged(words: Int32Array, at: number, value: number): Promise<unknown>
}

export interface Abortable {
  readonly signal: AbortSignal
  abort(reason: Error): void
}

interface Call {
  readonly result: Promise<number>
  /** Whether the store is done with the buffer. */
  readonly isOver: () => boolean
}

class PagedStore {
  readonly store: AsyncStore
  readonly inode: number
  /** Tells the inode from another one that has its row later. */
  readonly generation: number
  /** A read that takes longer is given up; 0: none is. */
  readonly timeoutMs: number
  readonly waiting: Batch[] = []
  /** Each gives up a read that is under way. */
  readonly reads: Set<(reason: Error) => void> = new Set()
  /** Its file is closed: what still comes is not wanted. */
  isDropped = false

  constructor(store: AsyncStore, inode: number, generation: number, timeoutMs: number) {
    this.store = store
    this.inode = inode
    this.generation = generation
    this.timeoutMs = timeoutMs
  }
}

export class Pager {
  readonly machine: Machine
  readonly #host: PagerHost
  readonly #stores = new Map<number, PagedStore>()
  readonly #buffers: BufferPool
  /** What the failures were, by number, for this thread's errors. */
  readonly #causes = new Map<number, unknown>()
  /** Stores that are being closed. */
  readonly #closing = new Set<Promise<unknown>>()
  #nrReads = 0
  #isScheduled = false
  #isListening = false
  #hasEnded = false
  #endBeat: (() => void) | undefined

  constructor(machine: Machine, host: PagerHost) {
    this.machine = machine
    this.#host = host
    this.#buffers = new BufferPool(machine.filler.requests, machine.sync.me)
    machine.filler.requests.setOnPush(() => this.#schedule())
  }

  /** Serves an inode from now on, until it is closed. `timeoutMs` 0: for as long as a read takes. */
  add(inode: number, store: AsyncStore, timeoutMs: number): void {
    const generation = this.machine.inodes.stores.generation(inode)
    this.#stores.set(inode, new PagedStore(store, inode, generation, timeoutMs))
    if (this.machine.sync.isShared && !this.#isListening) void this.#listen()
  }

  /** The inode of a store that this thread is the pager of, or of another one over the same bytes; 0 for none. */
  inodeOf(store: AsyncStore): number {
    for (const known of this.#stores.values()) {
      const same = known.store === store || (store.identity !== undefined && known.store.identity === store.identity)
      if (same && this.#isServed(known)) return known.inode
    }
    return 0
  }

  /** Whether this very object serves an inode. */
  has(store: AsyncStore): boolean {
    return [...this.#stores.values()].some(known => known.store === store)
  }

  /** What a failure was, if it happened in this thread. */
  causeOf(failure: number): unknown {
    return this.#causes.get(failure)
  }

  /** Gives up all reads and closes all stores: the memory is closed, or this thread leaves it. Resolves when they are closed. */
  async end(): Promise<void> {
    this.#hasEnded = true
    for (const known of [...this.#stores.values()]) this.#drop(known)
    await Promise.all(this.#closing)
  }

  /** Requests of this thread come in the middle of a fault: they are looked at once it is over, all together. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    void Promise.resolve().then(() => {
      this.#isScheduled = false
      this.#serve()
    })
  }

  /** Hears requests of other threads. */
  async #listen(): Promise<void> {
    this.#isListening = true
    const { state } = this.machine.filler.requests
    while (this.#stores.size > 0) {
      const bell = Atomics.load(state, Q_BELL)
      this.#serve()
      if (this.#stores.size > 0) await this.#host.untilChanged(state, Q_BELL, bell)
    }
    this.#isListening = false
  }

  /** Takes requests and starts reads. */
  #serve(): void {
    const { machine } = this
    if (this.#hasEnded) return
    if (machine.sync.broken !== 0) {
      void this.end()
      return
    }
    if (!machine.enter()) {
      // The lock is busy, on a thread that may not wait for it. Not in a microtask: others are to have their turn.
      this.#host.after(TRY_AGAIN_MS, () => this.#serve())
      return
    }
    const { requests } = machine.filler
    const { ram } = machine
    const maxPages = Math.max(1, Math.min(MAX_READ_BYTES >>> ram.pageShift, ram.nrFrames >>> 3))
    const isMine = (inode: number): boolean => this.#isMine(inode)
    while (requests.shift(isMine)) {
      const { inode, first, pages } = requests
      enqueue((this.#stores.get(inode) as PagedStore).waiting, first, pages, maxPages)
    }
    const gone = [...this.#stores.values()].filter(known => !this.#isServed(known))
    machine.leave()
    for (const known of gone) this.#drop(known)
    for (const known of this.#stores.values()) this.#start(known)
  }

  #start(known: PagedStore): void {
    while (known.reads.size < MAX_READS) {
      const batch = known.waiting.shift()
      if (batch === undefined) return
      void this.#read(known, batch)
    }
  }

  #isMine(inode: number): boolean {
    const known = this.#stores.get(inode)
    return known !== undefined && this.#isServed(known)
  }

  #isServed({ inode, generation }: PagedStore): boolean {
    return this.machine.inodes.stores.generation(inode) === generation
  }

  /** Nobody wants its pages any more. */
  #drop(known: PagedStore): void {
    if (this.#stores.get(known.inode) === known) this.#stores.delete(known.inode)
    known.waiting.length = 0
    known.isDropped = true
    for (const giveUp of known.reads) giveUp(coded('ECANCELED', `${known.store.name} was closed`))
    // Nobody is there to hear what becomes of it.
    const closing = Promise.resolve()
      .then(() => known.store.close())
      .catch(() => {})
      .finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }

  async #read(known: PagedStore, batch: Batch): Promise<void> {
    const { machine } = this
    const { ram, inodes } = machine
    const position = batch.first * ram.pageSize
    const length = Math.min(batch.pages * ram.pageSize, inodes.sizeBytes[known.inode] - position)
    const buffer = this.#buffers.take(batch.pages * ram.pageSize)
    let cause: unknown
    let errno = 0
    this.#beginRead()
    const call = this.#call(known, position, buffer, length)
    try {
      const result = upTo(await call.result, length)
      if (result < 0) errno = -result
      else if (result < length) cause = new Error(`${known.store.name} ended after ${result} of ${length} bytes`)
      else buffer.fill(0, length, batch.pages * ram.pageSize)
    } catch (thrown) {
      cause = thrown ?? new Error(`${known.store.name} does not say why`)
    }
    if (cause !== undefined) errno = errnoOf(cause)
    this.#endRead()
    while (!known.isDropped && !machine.enter()) {
      if (machine.sync.broken !== 0) break
      await new Promise<void>(resolve => this.#host.after(TRY_AGAIN_MS, resolve))
    }
    if (machine.inside) {
      machine.vmstat[STORE_READS]++
      machine.trace.add(TRACE_READ, known.inode, batch.first, batch.pages, -errno)
      if (this.#isServed(known)) this.#settle(known.inode, batch, buffer, errno, cause)
      machine.leave()
    }
    if (call.isOver()) this.#buffers.giveBack(buffer)
    else this.#buffers.leave(buffer)
    this.#serve()
  }

  /** One read of a store. It ends with the store's answer, or when it is given up, whichever comes first. */
  #call(known: PagedStore, position: number, buffer: Uint8Array, length: number): Call {
    const { store, reads, timeoutMs } = known
    const { signal, abort } = this.#host.abortable()
    let giveUp: (reason: Error) => void = () => {}
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = reason => {
        abort(reason)
        reject(reason)
      }
    })
    reads.add(giveUp)
    const late = (): void => giveUp(coded('ETIMEDOUT', `${store.name} did not answer within ${timeoutMs} ms`))
    const cancel = timeoutMs === 0 ? () => {} : this.#host.after(timeoutMs, late)
    let isOver = false
    // A store that throws at once is taken as one that rejects.
    const answer = new Promise<number>(resolve => resolve(store.read(position, buffer, 0, length, signal)))
    const ended = answer.finally(() => {
      isOver = true
    })
    const result = Promise.race([ended, givenUp]).finally(() => {
      reads.delete(giveUp)
      cancel()
    })
    return { result, isOver: () => isOver }
  }

  /** While reads are under way, those who wait for them see that this thread still turns. */
  #beginRead(): void {
    const { sync } = this.machine
    if (this.#nrReads++ > 0 || !sync.isShared) return
    this.#endBeat ??= this.#host.every(BEAT_MS, () => {
      if (this.#nrReads > 0) sync.threads.w[sync.row + T_PROGRESS]++
    })
  }

  #endRead(): void {
    if (--this.#nrReads > 0) return
    this.#endBeat?.()
    this.#endBeat = undefined
  }

  /** Delivers a batch, or gives it up. */
  #settle(inode: number, batch: Batch, buffer: Uint8Array, errno: number, cause: unknown): void {
    const { machine } = this
    const { ram, cache, filler, frames, vmstat } = machine
    if (errno === 0) vmstat[PGPGIN] += batch.pages
    else {
      vmstat[READ_ERRORS]++
      const why = cause instanceof Error ? cause.message : String(cause ?? '')
      const failure = filler.requests.fail(inode, batch.first, batch.pages, errno, why)
      this.#causes.set(failure, cause)
      this.#causes.delete(failure - MAX_CAUSES)
    }
    for (let i = 0; i < batch.pages; i++) {
      const frame = cache.lookup(inode, batch.first + i)
      if (frame === 0 || frames.isUptodate(frame)) continue
      if (errno !== 0) {
        filler.withdraw(frame)
        continue
      }
      if ((frames.row(frame, F_FLAGS) & PG_READAHEAD) !== 0) vmstat[READAHEAD_PAGES]++
      ram.u8.set(buffer.subarray(i * ram.pageSize, (i + 1) * ram.pageSize), frame * ram.pageSize)
      filler.deliver(frame)
    }
    if (machine.sync.isShared) machine.sync.wakeAll(WAIT_ARRIVALS, 0)
    filler.requests.settled()
  }
}

/** A count of bytes if it is one, up to `most`, or an errno; else -EIO. */
function upTo(result: number, most: number): number {
  return Number.isSafeInteger(result) && result <= most && result > -4096 ? result : -EIO
}

function coded(code: string, text: string): Error {
  return Object.assign(new Error(`${code}: ${text}`), { code })
}

/** The errno that an error of a store names by `code`; EIO where it names none. */
function errnoOf(thrown: unknown): number {
  const { code } = (thrown ?? {}) as { code?: unknown }
  return (typeof code === 'string' ? errnoFromName(code) : undefined) ?? EIO
}
