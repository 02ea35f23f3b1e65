/**
 * The pager: brings pages of stores that answer later, in the thread that has the stores (Linux: the I/O side of filemap_fault; the
 * name is Mach's).
 *
 *   a fault on such a page    enters it in the cache, locked, asks (cache/fetch-queue), and is parked
 *   the pager                 takes all requests there are, joins neighbours into one read, awaits the store, and delivers: the page
 *                             is unlocked and whoever waits for it looks again
 *   a read that fails         takes its pages out of the cache; the failure is noted for those who waited, with its cause
 *
 * A page is asked for once, however many threads want it. Reads overlap, MAX_READS at a time; what is asked meanwhile is taken together
 * when one ends. The pager runs between the turns of its thread's event loop: a thread that never returns to it brings no pages.
 *
 * Lock: machine lock, for taking requests and for delivering; never while a store works.
 */
import { EIO, errnoFromName } from '../abi/errno.ts'
import { Q_BELL } from '../cache/fetch-queue.ts'
import { TRACE_READ } from '../frame/trace.ts'
import { PGMAJFAULT, PGPGIN, READ_ERRORS, STORE_READS } from '../frame/vmstat.ts'
import type { AsyncStore } from '../store/async-store.ts'
import type { Machine } from './machine.ts'

const MAX_READS = 8
/** One read asks for so many bytes at most. */
const MAX_READ_BYTES = 8 << 20
const MAX_CAUSES = 64

interface PagedStore {
  readonly store: AsyncStore
  readonly generation: number
}

interface Batch {
  readonly inode: number
  readonly first: number
  pages: number
}

/** Part of ES2024 that every engine with threads has. */
type WaitAsync = (words: Int32Array, at: number, value: number) => { async: boolean; value: Promise<string> | string }

export class Pager {
  readonly machine: Machine
  readonly #stores = new Map<number, PagedStore>()
  readonly #waiting: Batch[] = []
  /** What the failures were, by number, for this thread's errors. */
  readonly #causes = new Map<number, unknown>()
  #nrReads = 0
  #isScheduled = false
  #isListening = false
  /** Resolved, and replaced, each time pages were delivered or given up. */
  #change: Promise<void>
  #noteChange: () => void = () => {}

  constructor(machine: Machine) {
    this.machine = machine
    this.#change = this.#nextChange()
    machine.filler.requests.setOnPush(() => this.#schedule())
  }

  /** Serves an inode from now on, until it is closed. */
  add(inode: number, store: AsyncStore): void {
    this.#stores.set(inode, { store, generation: this.machine.inodes.stores.generation(inode) })
    if (this.machine.sync.isShared && !this.#isListening) this.#listen()
  }

  /** The store of an inode that this thread is the pager of. */
  storeOf(inode: number): AsyncStore | undefined {
    return this.#stores.get(inode)?.store
  }

  /** What a failure was, if it happened in this thread. */
  causeOf(failure: number): unknown {
    return this.#causes.get(failure)
  }

  /** Resolves when pages were delivered or given up in this thread; call before looking. */
  get change(): Promise<void> {
    return this.#change
  }

  #nextChange(): Promise<void> {
    return new Promise(resolve => {
      this.#noteChange = resolve
    })
  }

  /** Requests of this thread come in the middle of a fault: they are looked at in the next turn, all together. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    void Promise.resolve().then(() => {
      this.#isScheduled = false
      this.#serve()
    })
  }

  /** Hears requests of other threads. */
  #listen(): void {
    const waitAsync = (Atomics as unknown as { waitAsync?: WaitAsync }).waitAsync
    if (waitAsync === undefined)
      throw new Error('this engine has no Atomics.waitAsync, so a pager cannot serve other threads')
    this.#isListening = true
    const { state } = this.machine.filler.requests
    const listen = async (): Promise<void> => {
      while (this.#stores.size > 0 && this.machine.open && this.machine.sync.broken === 0) {
        const bell = Atomics.load(state, Q_BELL)
        this.#serve()
        const heard = waitAsync(state, Q_BELL, bell)
        if (heard.async) await heard.value
      }
      this.#isListening = false
    }
    void listen()
  }

  /** Takes requests and starts reads. */
  #serve(): void {
    const { machine } = this
    if (!machine.enter()) {
      // Within a verb, or the lock is busy on a thread that may not wait for it: in the next turn.
      if (machine.sync.broken === 0) this.#schedule()
      return
    }
    const { requests } = machine.filler
    const isMine = (inode: number): boolean => this.#isMine(inode)
    const taken: Batch[] = []
    while (requests.shift(isMine)) taken.push({ inode: requests.inode, first: requests.first, pages: requests.pages })
    const gone = [...this.#stores].filter(([inode]) => !this.#isMine(inode))
    machine.leave()
    for (const [inode, { store }] of gone) {
      this.#stores.delete(inode)
      // Nobody is there to hear what becomes of it.
      store.close().catch(() => {})
    }
    this.#waiting.push(...joined(taken, Math.max(1, MAX_READ_BYTES >>> machine.ram.pageShift)))
    while (this.#nrReads < MAX_READS && this.#waiting.length > 0) void this.#read(this.#waiting.shift() as Batch)
  }

  #isMine(inode: number): boolean {
    const known = this.#stores.get(inode)
    return known !== undefined && this.machine.inodes.stores.generation(inode) === known.generation
  }

  async #read(batch: Batch): Promise<void> {
    const { machine } = this
    const { ram, inodes } = machine
    const known = this.#stores.get(batch.inode)
    if (known === undefined) return
    this.#nrReads++
    const position = batch.first * ram.pageSize
    const length = Math.min(batch.pages * ram.pageSize, inodes.sizeBytes[batch.inode] - position)
    const buffer = new Uint8Array(batch.pages * ram.pageSize)
    let result = 0
    let cause: unknown
    try {
      result = await known.store.read(position, buffer, 0, length)
      if (result >= 0 && result < length)
        cause = new Error(`${known.store.name} ended after ${result} of ${length} bytes`)
    } catch (thrown) {
      cause = thrown
    }
    const errno = cause === undefined ? Math.max(0, -result) : errnoOf(cause)
    this.#nrReads--
    while (!machine.enter()) {
      if (machine.sync.broken !== 0) return
      await Promise.resolve()
    }
    machine.vmstat[STORE_READS]++
    machine.trace.add(TRACE_READ, batch.inode, batch.first, batch.pages, -errno)
    if (this.#isMine(batch.inode)) this.#settle(batch, buffer, errno, cause)
    machine.leave()
    this.#noteChange()
    this.#change = this.#nextChange()
    this.#serve()
  }

  /** Delivers a batch, or gives it up. */
  #settle(batch: Batch, buffer: Uint8Array, errno: number, cause: unknown): void {
    const { machine } = this
    const { ram, cache, filler, frames, vmstat } = machine
    if (errno === 0) {
      vmstat[PGPGIN] += batch.pages
      vmstat[PGMAJFAULT]++
    } else {
      vmstat[READ_ERRORS]++
      const why = cause instanceof Error ? cause.message : String(cause ?? '')
      const failure = filler.requests.fail(batch.inode, batch.first, batch.pages, errno, why)
      this.#causes.set(failure, cause)
      this.#causes.delete(failure - MAX_CAUSES)
    }
    for (let i = 0; i < batch.pages; i++) {
      const frame = cache.lookup(batch.inode, batch.first + i)
      if (frame === 0 || frames.isUptodate(frame)) continue
      if (errno !== 0) {
        filler.withdraw(frame)
        continue
      }
      ram.u8.set(buffer.subarray(i * ram.pageSize, (i + 1) * ram.pageSize), frame * ram.pageSize)
      filler.deliver(frame)
    }
  }
}

/** Requests in the order of their pages, neighbours joined into runs of at most `maxPages`. */
function joined(requests: Batch[], maxPages: number): Batch[] {
  requests.sort((a, b) => a.inode - b.inode || a.first - b.first)
  const runs: Batch[] = []
  for (const request of requests) {
    const last = runs.at(-1)
    const follows = last !== undefined && last.inode === request.inode && last.first + last.pages === request.first
    if (follows && last.pages + request.pages <= maxPages) last.pages += request.pages
    else runs.push({ ...request })
  }
  return runs
}

/** The errno that an error of a store names by `code`; EIO where it names none. */
function errnoOf(thrown: unknown): number {
  const { code } = (thrown ?? {}) as { code?: unknown }
  return (typeof code === 'string' ? errnoFromName(code) : undefined) ?? EIO
}
