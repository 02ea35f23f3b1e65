/**
 * The pager: brings pages of stores that answer later, in the thread that has the stores (Linux: the I/O side of
 * filemap_fault; the name is Mach's).
 *
 *   a fault on such a page    enters it in the cache, locked, asks (cache/fetch-queue), and is parked
 *   the pager                 takes all requests there are, joins neighbours into one read, awaits the store, and
 *                             delivers: the page is unlocked and whoever waits for it looks again
 *   a read that fails         takes its pages out of the cache; the failure is noted for those who waited, with its
 *                             cause
 *
 * A page is asked for once, however many threads want it. Reads of one store overlap, MAX_READS at a time; what is
 * asked meanwhile is joined and waits in order. The pager runs between the turns of its thread's event loop: a thread
 * that never returns to it brings no pages, and those who wait for it give up after a while (ETIMEDOUT). As long as it
 * does return, it shows signs of life, however slow a store is.
 *
 * A store that gives its bytes in pieces (`readPieces`) needs no buffer: they are copied to their frames as they come,
 * and each page is delivered as soon as it is whole.
 *
 * A read is given up by its signal when it takes longer than the store's `timeoutMs`, and when its file is closed. It
 * is not waited for then: its buffer is left to it.
 *
 * Lock: machine lock, for taking requests and for delivering; never while a store works.
 */
import { EIO, errnoFromName } from '../abi/errno.ts'
import { plainBytes } from '../base/bytes.ts'
import { Q_BELL } from '../cache/fetch-queue.ts'
import { TRACE_READ } from '../frame/trace.ts'
import { READ_ERRORS, STORE_READS } from '../frame/vmstat.ts'
import { answerOf } from '../store/answer.ts'
import type { AsyncStore } from '../store/async-store.ts'
import { WAIT_ARRIVALS } from '../sync/lock-order.ts'
import { T_PROGRESS } from '../sync/threads.ts'
import { nowMs } from '../sync/vigil.ts'
import { BufferPool } from './buffer-pool.ts'
import { Delivery } from './delivery.ts'
import { type Batch, enqueue } from './fetch-batch.ts'
import type { Machine } from './machine.ts'

const MAX_READS = 6
/** One read asks for so many bytes at most, and for no more than a quarter of memory. */
const MAX_READ_BYTES = 8 << 20
const MAX_CAUSES = 64
/** What a buffer holds is delivered in parts, with the lock given back in between. */
const PUT_BYTES = 256 << 10
/** How much comes before those who wait without blocking look again. */
const TELL_BYTES = 1 << 20
/** Pieces that come faster wake who waits for them together. */
const WAKE_MS = 1
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

type ReadPieces = NonNullable<AsyncStore['readPieces']>

interface Failure {
  readonly errno: number
  readonly cause: unknown
  /** For threads that cannot be given the cause itself. */
  readonly why: string
}

interface GivenUp {
  readonly signal: AbortSignal
  readonly isUp: boolean
}

interface Call {
  readonly result: Promise<number>
  /** Whether the store is done with the buffer. */
  readonly isOver: () => boolean
}

class PagedStore {
  readonly store: AsyncStore
  readonly name: string
  /** As it was when it was opened. */
  readonly identity: string | undefined
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

  constructor(
    store: AsyncStore,
    name: string,
    identity: string | undefined,
    inode: number,
    generation: number,
    timeoutMs: number
  ) {
    this.store = store
    this.name = name
    this.identity = identity
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
  /** Stores that are being closed, and what they are called. */
  readonly #closing = new Map<Promise<unknown>, string>()
  #nrReads = 0
  #isScheduled = false
  #isListening = false
  #hasEnded = false
  #endBeat: (() => void) | undefined

  constructor(machine: Machine, host: PagerHost) {
    this.machine = machine
    this.#host = host
    this.#buffers = new BufferPool(machine.filler.requests, machine.sync.me, machine.ram.u8.length / 2)
    machine.filler.requests.setOnPush(() => this.#schedule())
  }

  /** Serves an inode from now on, until it is closed. `timeoutMs` 0: for as long as a read takes. */
  add(inode: number, store: AsyncStore, name: string, identity: string | undefined, timeoutMs: number): void {
    const generation = this.machine.inodes.stores.generation(inode)
    this.#stores.set(inode, new PagedStore(store, name, identity, inode, generation, timeoutMs))
    if (this.machine.sync.isShared && !this.#isListening) void this.#listen()
  }

  /** The inode of a store that this thread is the pager of, or of another one over the same bytes; 0 for none. */
  inodeOf(store: AsyncStore, identity: string | undefined): number {
    for (const known of this.#stores.values()) {
      const same = known.store === store || (identity !== undefined && known.identity === identity)
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

  /**
   * Gives up all reads and closes all stores: the memory is closed, or this thread leaves it. Resolves when they are
   * closed, or after `limitMs`, with the names of those that are not.
   */
  async end(limitMs?: number): Promise<string[]> {
    this.#hasEnded = true
    for (const known of [...this.#stores.values()]) this.#drop(known)
    let cancel = (): void => {}
    const limits =
      limitMs === undefined
        ? []
        : [
            new Promise(resolve => {
              cancel = this.#host.after(limitMs, () => resolve(undefined))
            })
          ]
    await Promise.race([Promise.all(this.#closing.keys()), ...limits])
    cancel()
    return [...this.#closing.values()]
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
    let gone: PagedStore[] = []
    const isDone = this.#attempt(() => {
      this.#takeRequests()
      gone = [...this.#stores.values()].filter(known => !this.#isServed(known))
    })
    if (!isDone) {
      // The lock is busy, on a thread that may not wait for it. Not in a microtask: others are to have their turn.
      this.#host.after(TRY_AGAIN_MS, () => this.#serve())
      return
    }
    for (const known of gone) this.#drop(known)
    for (const known of this.#stores.values()) this.#start(known)
  }

  #takeRequests(): void {
    const { filler, ram } = this.machine
    const { requests } = filler
    const maxPages = Math.max(1, Math.min(MAX_READ_BYTES >>> ram.pageShift, ram.nrFrames >>> 2))
    const isMine = (inode: number): boolean => this.#isMine(inode)
    while (requests.shift(isMine)) {
      const { inode, first, pages } = requests
      enqueue((this.#stores.get(inode) as PagedStore).waiting, first, pages, maxPages)
    }
  }

  /** Does something within a verb. False where none can be begun now. */
  #attempt(act: () => void): boolean {
    const { machine } = this
    if (machine.inside || !machine.enter()) return false
    try {
      act()
      machine.leave()
    } catch (thrown) {
      machine.abandon(thrown)
    }
    return true
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
    for (const giveUp of known.reads) giveUp(coded('ECANCELED', `${known.name} was closed`))
    // Nobody is there to hear what becomes of it.
    const closing = Promise.resolve()
      .then(() => known.store.close())
      .catch(() => {})
      .finally(() => this.#closing.delete(closing))
    this.#closing.set(closing, known.name)
  }

  async #read(known: PagedStore, batch: Batch): Promise<void> {
    const { machine } = this
    const { ram, inodes } = machine
    const position = batch.first * ram.pageSize
    const length = Math.min(batch.pages * ram.pageSize, inodes.sizeBytes[known.inode] - position)
    const delivery = new Delivery(machine, known.inode, batch.first, batch.pages, length)
    this.#beginRead()
    const failure = await this.#fetch(known, delivery, position, length)
    this.#endRead()
    await this.#within(known, () => {
      machine.vmstat[STORE_READS]++
      machine.trace.add(TRACE_READ, known.inode, batch.first, batch.pages, failure === undefined ? 0 : -failure.errno)
      if (failure === undefined) delivery.finish()
      else this.#fail(known.inode, batch, delivery, failure)
      this.#tell()
    })
    this.#serve()
  }

  /** Awaits a store, and delivers what it gives. → why not all of it came, if so. */
  async #fetch(known: PagedStore, delivery: Delivery, position: number, length: number): Promise<Failure | undefined> {
    const { store, name } = known
    try {
      const result =
        store.readPieces === undefined
          ? await this.#fetchWhole(known, delivery, position, length)
          : await this.#fetchPieces(known, delivery, position, length)
      if (result < 0) return { errno: -result, cause: undefined, why: '' }
      if (result === length && (delivery.isWhole || known.isDropped)) return undefined
      const cause = new Error(`${name} ended after ${Math.min(result, delivery.doneBytes)} of ${length} bytes`)
      return { errno: EIO, cause, why: cause.message }
    } catch (thrown) {
      return failureOf(thrown ?? new Error(`${name} does not say why`))
    }
  }

  async #fetchWhole(known: PagedStore, delivery: Delivery, position: number, length: number): Promise<number> {
    const { pageSize } = this.machine.ram
    const buffer = this.#buffers.take(Math.ceil(length / pageSize) * pageSize)
    const call = this.#call(known, ({ signal }) => known.store.read(position, buffer, 0, length, signal))
    try {
      const result = answerOf(known.name, 'read', await call.result, length)
      const bytes = this.#buffers.bytesOf(buffer)
      if (bytes === undefined) throw new Error(`${known.name} gave away the buffer that it was lent`)
      for (let at = 0; at < result; at += PUT_BYTES) {
        const piece = bytes.subarray(at, Math.min(at + PUT_BYTES, result))
        if (!(await this.#within(known, () => delivery.put(piece)))) break
      }
      return result
    } finally {
      if (call.isOver()) this.#buffers.giveBack(buffer)
      else this.#buffers.leave(buffer)
    }
  }

  async #fetchPieces(known: PagedStore, delivery: Delivery, position: number, length: number): Promise<number> {
    /** Pieces that came while the lock was busy, on a thread that may not wait for it. */
    const late: Uint8Array[] = []
    let toldBytes = 0
    let wokenMs = 0
    let isWaking = false
    const put = (): void => {
      for (const piece of late.splice(0)) delivery.put(piece)
      if (Math.floor(nowMs()) !== wokenMs) wake()
      else if (!isWaking) {
        isWaking = true
        this.#host.after(WAKE_MS, () => void this.#within(known, wake))
      }
      if (delivery.doneBytes - toldBytes < TELL_BYTES) return
      toldBytes = delivery.doneBytes
      this.#tell()
    }
    const wake = (): void => {
      isWaking = false
      wokenMs = Math.floor(nowMs())
      delivery.wake()
    }
    const call = this.#call(known, given => {
      const take = (piece: Uint8Array): void => {
        // Once it is given up, its pages may be those of another read.
        if (given.isUp || known.isDropped) return
        late.push(plainBytes(piece))
        this.#attempt(put)
      }
      return (known.store.readPieces as ReadPieces)(position, length, take, given.signal)
    })
    const result = answerOf(known.name, 'readPieces', await call.result, length)
    if (late.length > 0) await this.#within(known, put)
    return result
  }

  /**
   * Does something within a verb: at once, or in a later turn where the lock is busy and this thread may not wait for
   * it. False when it was not done, because nobody wants the store's pages any more.
   */
  async #within(known: PagedStore, act: () => void): Promise<boolean> {
    const { machine } = this
    while (!known.isDropped && machine.sync.broken === 0) {
      if (this.#attempt(act)) return true
      await new Promise<void>(resolve => this.#host.after(TRY_AGAIN_MS, resolve))
    }
    return false
  }

  /** One read of a store. It ends with the store's answer, or when it is given up, whichever comes first. */
  #call(known: PagedStore, ask: (given: GivenUp) => Promise<number>): Call {
    const { name, reads, timeoutMs } = known
    const { signal, abort } = this.#host.abortable()
    const given = { signal, isUp: false }
    let giveUp: (reason: Error) => void = () => {}
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = reason => {
        given.isUp = true
        abort(reason)
        reject(reason)
      }
    })
    reads.add(giveUp)
    const late = (): void => giveUp(coded('ETIMEDOUT', `${name} did not answer within ${timeoutMs} ms`))
    const cancel = timeoutMs === 0 ? () => {} : this.#host.after(timeoutMs, late)
    let isOver = false
    // A store that throws at once is taken as one that rejects.
    const answer = new Promise<number>(resolve => resolve(ask(given)))
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

  /** Notes why a read failed, and gives up what did not come. Within a verb. */
  #fail(inode: number, batch: Batch, delivery: Delivery, { errno, cause, why }: Failure): void {
    const { filler, vmstat } = this.machine
    vmstat[READ_ERRORS]++
    const failure = filler.requests.fail(inode, batch.first, batch.pages, errno, why)
    this.#causes.set(failure, cause)
    this.#causes.delete(failure - MAX_CAUSES)
    delivery.giveUp()
  }

  /** Wakes those who wait for any page. Who waits for one of its own is woken when that is unlocked. Within a verb. */
  #tell(): void {
    const { filler, sync } = this.machine
    if (sync.isShared) sync.wakeAll(WAIT_ARRIVALS, 0)
    filler.requests.settled()
  }
}

function coded(code: string, text: string): Error {
  return Object.assign(new Error(`${code}: ${text}`), { code })
}

/**
 * What a store threw: the errno that it names by `code`, EIO where it names none. It may be anything, and throw when it
 * is looked at.
 */
function failureOf(cause: unknown): Failure {
  try {
    const { code } = cause as { code?: unknown }
    const errno = (typeof code === 'string' ? errnoFromName(code) : undefined) ?? EIO
    return { errno, cause, why: String(cause instanceof Error ? cause.message : cause) }
  } catch {
    return { errno: EIO, cause, why: 'what the store threw cannot be looked at' }
  }
}
