/**
 * What threads that share a machine wait on beside the machine lock: queues of sleepers, and stores that are on their
 * way.
 *
 *  openWindow, closeWindow gives the machine lock back while a store works, and takes it again
 *  waitFor(kind, id)       gives the machine lock back, sleeps until somebody wakes the queue, takes it again
 *  wakeAll(kind, id)       wakes a queue; the sleepers look at what they wait for again
 *  changed()               loads that began before are made again (T_CHANGES)
 *  settle(frame)           returns when no other thread's store is on its way to the frame
 *  settleAll()             the same for all frames
 *
 * Nobody waits without end. Every sleep is cut into slices; after each one the thread looks whether the machine was
 * declared broken, and whether whoever it waits for still exists, where the operating system tells (`hasEnded`). If
 * that has ended, what it held is given back there and then (mm/recover.ts), or the machine is broken if that was the
 * machine lock (-EOWNERDEAD for all). If it lives, the wait goes on. Where the system does not tell, a thread counts on
 * signs of life (T_PROGRESS): if there is none for `patienceMs`, ten times as long for one that is in a store, it is
 * taken for dead and the machine is declared broken. Ends that the platform reports are dealt with at once.
 *
 * A verb that comes back from a window or a wait and finds the machine broken has no lock any more: it is ended where
 * it stands, by a BrokenMachine that is thrown through it (`Machine.abandon` catches it), and changes nothing.
 *
 * A machine of one thread never comes here: `isShared` is false and callers ask first.
 */
import { EAGAIN, EOWNERDEAD } from '../abi/errno.ts'
import { FrameLine } from './frame-line.ts'
import { READ_LOCKED, UNLOCKED, WAIT_FRAME, WAITS_TO_WRITE, WRITE_LOCKED } from './lock-order.ts'
import { MachineLock } from './machine-lock.ts'
import {
  IO_NONE,
  NR_QUEUES,
  S_BROKEN,
  S_LINE,
  S_QUEUES,
  S_ROOM,
  S_SLEEPERS,
  T_CHANGES,
  T_HAZARD,
  T_IN_IO,
  T_IO_FIRST,
  T_IO_INODE,
  T_IO_KIND,
  T_IO_PAGES,
  T_MMAP,
  T_MMAP_MODE,
  T_PROGRESS,
  T_STATE,
  T_WAITS,
  THREAD_ATTACHED,
  THREAD_FREE,
  THREAD_SHIFT,
  type ThreadTable
} from './threads.ts'
import { SLICE_MS, Vigil, Watch } from './vigil.ts'

/** Looks at a hazard before going to sleep: some 20 µs. */
const LOOKS = 20_000
export const DEFAULT_PATIENCE_MS = 20_000 as const

/** Ends a verb that has come back to a broken machine. `errno` is what it answers. */
export class BrokenMachine extends Error {
  readonly errno: number

  constructor(errno: number) {
    super('the memory is broken')
    this.name = 'BrokenMachine'
    this.errno = errno
  }
}

export class Sync extends MachineLock {
  /** Gives back what a thread that has ended held; called with the machine lock held. Set by `kernel`. */
  recover: (thread: number) => void = () => {}
  /** Who waits for a page frame. */
  readonly line: FrameLine
  readonly #t: Int32Array
  readonly #vigil: Vigil
  readonly #watch = new Watch()

  constructor(words: Int32Array, threads: ThreadTable, me: number, patienceMs: number) {
    super(words, threads, me, patienceMs)
    this.line = new FrameLine(words, threads, me, thread => this.wakeAll(WAIT_FRAME, thread))
    this.#t = threads.w
    this.#vigil = new Vigil(threads)
  }

  /** Number of the queue for a page, an address space or an inode. */
  queueOf(kind: number, id: number): number {
    return (Math.imul(id, 0x9e3779b1) + kind) & (NR_QUEUES - 1)
  }

  /**
   * With the machine lock held: gives it back, sleeps until the queue is woken or a slice has passed, and takes it
   * again. The caller then looks once more at what it waits for. → 0, or EOWNERDEAD, EAGAIN with the lock not held.
   */
  waitFor(kind: number, id: number): number {
    const { words } = this
    if (!this.maySleep) {
      this.unlock()
      return EAGAIN
    }
    if (kind !== WAIT_FRAME) this.line.stepOut()
    const queue = this.queueOf(kind, id)
    const seq = Atomics.load(words, S_QUEUES + queue)
    words[S_SLEEPERS + queue]++
    this.#t[this.row + T_WAITS]++
    this.unlock()
    Atomics.wait(words, S_QUEUES + queue, seq, SLICE_MS)
    const error = this.lock()
    if (error === 0) words[S_SLEEPERS + queue]--
    return error
  }

  /** `waitFor` in the middle of a verb, of a thread that may sleep. Throws BrokenMachine. */
  waitWithin(kind: number, id: number): void {
    const error = this.waitFor(kind, id)
    if (error !== 0) throw new BrokenMachine(error)
  }

  /** Begins a wait for another thread: `isPatient` counts from here. */
  beginWait(): void {
    this.#vigil.begin()
  }

  /**
   * Whether to go on waiting for what `thread` has (-1: nobody is known to have it). With the machine lock held. If
   * that thread has ended, what it had is given back. Declares the machine broken when it has shown no sign of life for
   * too long, unless the operating system says that it lives.
   */
  isPatient(thread: number): boolean {
    if (this.isHopeful(thread) || this.isAlive(thread)) return true
    this.declareBroken(EOWNERDEAD)
    return false
  }

  /** The same, for waits that may end without the machine being broken. */
  isHopeful(thread: number): boolean {
    const isHopeful = this.#vigil.isHopeful(thread, this.patienceMs)
    if (!this.#vigil.isTime() || !this.hasEnded(thread)) return isHopeful
    this.recover(thread)
    return true
  }

  /** A thread that has the address space's mmap lock, or -1. */
  holderOfMmap(mm: number): number {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      const row = t << THREAD_SHIFT
      const mode = this.#t[row + T_MMAP_MODE]
      if (this.#t[row + T_STATE] === THREAD_FREE || mode === UNLOCKED || mode === WAITS_TO_WRITE) continue
      if (this.#t[row + T_MMAP] === mm) return t
    }
    return -1
  }

  /** What the word of an address space's mmap lock must be by what the threads say they hold. */
  mmapHolders(mm: number): number {
    let holders = 0
    for (let t = 0; t < this.threads.maxThreads; t++) {
      const row = t << THREAD_SHIFT
      if (this.#t[row + T_MMAP] !== mm) continue
      if (this.#t[row + T_MMAP_MODE] === WRITE_LOCKED) return -1
      if (this.#t[row + T_MMAP_MODE] === READ_LOCKED) holders++
    }
    return holders
  }

  /** The thread that fills or writes the page, or -1. */
  holderOfPage(inode: number, index: number): number {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      const row = t << THREAD_SHIFT
      if (this.#t[row + T_STATE] === THREAD_FREE || this.#t[row + T_IO_KIND] === IO_NONE) continue
      const offset = index - this.#t[row + T_IO_FIRST]
      if (this.#t[row + T_IO_INODE] === inode && offset >= 0 && offset < this.#t[row + T_IO_PAGES]) return t
    }
    return -1
  }

  /** Whether code of a store runs in this thread, or a window is open. */
  get isInStore(): boolean {
    return this.#t[this.row + T_IN_IO] !== 0
  }

  /** Tells the others that this thread is in a store from here on, and may take long. → what to give `endStoreCall`. */
  beginStoreCall(): number {
    const outer = this.#t[this.row + T_IN_IO]
    this.#t[this.row + T_IN_IO] = 1
    return outer
  }

  /** It came back, which is a sign of life. */
  endStoreCall(outer: number): void {
    this.#t[this.row + T_IN_IO] = outer
    this.#t[this.row + T_PROGRESS]++
  }

  /** Gives the machine lock back for a call of a store on these pages, which this thread has locked or is writing. */
  openWindow(kind: number, inode: number, first: number, pages: number): void {
    if (!this.isShared) return
    const { row } = this
    this.line.goOn()
    this.#t[row + T_IO_INODE] = inode
    this.#t[row + T_IO_FIRST] = first
    this.#t[row + T_IO_PAGES] = pages
    this.#t[row + T_IO_KIND] = kind
    this.#t[row + T_IN_IO] = 1
    this.unlock()
  }

  /** Takes the machine lock again. Throws BrokenMachine. */
  closeWindow(): void {
    if (!this.isShared) return
    let error = this.lock()
    while (error === EAGAIN) error = this.lock()
    // Also on a broken machine: the store is not called any more.
    this.#t[this.row + T_IN_IO] = 0
    if (error !== 0) throw new BrokenMachine(error)
    this.#t[this.row + T_IO_KIND] = IO_NONE
  }

  /** Wakes all that wait for it. With the machine lock held. */
  wakeAll(kind: number, id: number): void {
    const { words } = this
    const queue = this.queueOf(kind, id)
    // Who will sleep says so under the machine lock first.
    if (words[S_SLEEPERS + queue] === 0) return
    Atomics.add(words, S_QUEUES + queue, 1)
    Atomics.notify(words, S_QUEUES + queue)
  }

  /**
   * A frame is free, or reclaim can take one that it could not: whoever waits for one looks. With the machine lock
   * held.
   */
  noteRoom(): void {
    const { words } = this
    if (words[S_LINE] === 0) return
    words[S_ROOM]++
    this.wakeAll(WAIT_FRAME, words[S_LINE] - 1)
  }

  /**
   * Entries changed, or a frame is about to be used for something else: loads that are under way are made again. Of
   * this thread, too: what it remembers may be another thread's by the next time. With the machine lock held, as what
   * follows.
   */
  changed(): void {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      const row = t << THREAD_SHIFT
      if (this.#t[row + T_STATE] !== THREAD_FREE) Atomics.add(this.#t, row + T_CHANGES, 1)
    }
  }

  /** Waits for stores of other threads that found the frame writable before its entry changed. After `changed`. */
  settle(frame: number): void {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      if (t !== this.me && this.#hazardOf(t) === frame + 1) this.#outlast(t, frame + 1)
    }
  }

  settleAll(): void {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      const hazard = t === this.me ? 0 : this.#hazardOf(t)
      if (hazard !== 0) this.#outlast(t, hazard)
    }
  }

  /**
   * Read by a read-modify-write, as its thread changes it by one: what was done before either happens before the later
   * one's thread goes on.
   */
  #hazardOf(thread: number): number {
    const row = thread << THREAD_SHIFT
    return this.#t[row + T_STATE] === THREAD_FREE ? 0 : Atomics.add(this.#t, row + T_HAZARD, 0)
  }

  /**
   * Waits until a thread's hazard is another one. A store takes nanoseconds, unless the thread is off its processor, or
   * dead: then it will never come.
   */
  #outlast(thread: number, hazard: number): void {
    const at = (thread << THREAD_SHIFT) + T_HAZARD
    for (let look = 0; look < LOOKS; look++) if (Atomics.load(this.#t, at) !== hazard) return
    this.#watch.begin()
    while (Atomics.load(this.#t, at) === hazard) {
      if (this.#t[(thread << THREAD_SHIFT) + T_STATE] !== THREAD_ATTACHED) return
      if (this.words[S_BROKEN] !== 0) return
      const isLong = this.#watch.look() > this.patienceMs
      if (this.#watch.isTime() && this.hasEnded(thread)) return
      if (isLong && !this.isAlive(thread)) {
        this.declareBroken(EOWNERDEAD)
        return
      }
      if (this.maySleep) Atomics.wait(this.#t, at, hazard, 1)
    }
  }
}
