/**
 * What threads that share a machine wait on: the machine lock, queues of sleepers, and stores that are on their way.
 *
 *  lock, unlock            the machine lock: a mutex on one word. Spins for a few microseconds, then sleeps
 *  openWindow, closeWindow gives the machine lock back while a store works, and takes it again
 *  waitFor(kind, id)       gives the machine lock back, sleeps until somebody wakes the queue, takes it again
 *  wakeAll(kind, id)       wakes a queue; the sleepers look at what they wait for again
 *  changed()               reads that began before are made again (S_EPOCH)
 *  settle(frame)           returns when no other thread's store is on its way to the frame
 *  settleAll()             the same for all frames
 *
 * Word of the machine lock: 0 free, else the owner's number + 1, with SLEEPING set when somebody may sleep on it.
 *
 * Nobody waits without end. Every sleep is cut into slices; after each one the thread looks whether the machine was declared
 * broken, and whether whoever it waits for still exists, where the operating system tells (`hasEnded`). If that has ended, what it held is
 * given back there and then (mm/recover.ts), or the machine is broken if that was the machine lock (-EOWNERDEAD for all). Where the
 * system does not tell, a thread counts on signs of life (T_PROGRESS): if there is none for `patienceMs`, ten times as long for one
 * that is in a store, it is taken for dead and the machine is declared broken. Ends that the platform reports are dealt with at once.
 *
 * A verb that comes back from a window or a wait and finds the machine broken has no lock any more: it is ended where it stands, by a
 * BrokenMachine that is thrown through it (`Machine.abandon` catches it), and changes nothing.
 *
 * A machine of one thread never comes here: `isShared` is false and callers ask first.
 */
import { EAGAIN, ENOTRECOVERABLE, EOWNERDEAD } from '../abi/errno.ts'
import { READ_LOCKED, UNLOCKED, WAITS_TO_WRITE, WRITE_LOCKED } from './lock-order.ts'
import {
  IO_NONE,
  NR_QUEUES,
  S_BROKEN,
  S_EPOCH,
  S_LOCK,
  S_QUEUES,
  S_SLEEPERS,
  S_STARVING,
  T_HAZARD,
  T_IN_IO,
  T_IO_FIRST,
  T_IO_INODE,
  T_IO_KIND,
  T_IO_PAGES,
  T_LOCK_WAITS,
  T_MMAP,
  T_MMAP_MODE,
  T_OS_START,
  T_OS_THREAD,
  T_PROGRESS,
  T_STARVING,
  T_STATE,
  T_WAITS,
  THREAD_ATTACHED,
  THREAD_FREE,
  THREAD_SHIFT,
  type ThreadTable
} from './threads.ts'
import { Vigil } from './vigil.ts'

const SLEEPING = 0x100
const OWNER_MASK = 0xff
/** Tries to get the machine lock before going to sleep: some 20 µs, many times as long as it is held. */
const TRIES = 200
/** Loads between two tries, so that the owner keeps its cache line meanwhile; some 50 ns. */
const REST_LOADS = 40
/** Looks at a hazard before going to sleep: some 20 µs. */
const LOOKS = 20_000
/** A thread that was kept from the lock for so many sleeps asks the others to let it go first: a remap then waits 0.2 ms beside a populate, not 5. */
const STARVING_AFTER = 1
const SLICE_MS = 50
/** How long a thread that may not sleep spins before it gives up with -EAGAIN. */
const SPIN_LIMIT_MS = 20
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

export class Sync {
  /** False on a machine of one thread: nothing below is called then. */
  readonly isShared: boolean
  /** Words shared by all threads: S_*. */
  readonly words: Int32Array
  readonly threads: ThreadTable
  /** This thread's number and the index of its row. */
  readonly me: number
  readonly row: number
  /** False where sleeping is forbidden (a browser's main thread). */
  readonly maySleep: boolean
  /** How long a thread without a sign of life is waited for. */
  readonly patienceMs: number
  /** Gives back what a thread that has ended held; called with the machine lock held. Set by `kernel`. */
  recover: (thread: number) => void = () => {}
  /** Whether the operating system has no such thread any more. Set where it can be asked (`setSystem`). */
  #hasEnded: (id: number, start: number | undefined) => boolean = () => false
  readonly #t: Int32Array
  readonly #owner: number
  readonly #lockVigil: Vigil
  readonly #waitVigil: Vigil

  constructor(words: Int32Array, threads: ThreadTable, me: number, patienceMs: number) {
    this.isShared = threads.maxThreads > 1
    this.words = words
    this.threads = threads
    this.me = me
    this.patienceMs = patienceMs
    this.row = me << THREAD_SHIFT
    this.maySleep = canSleep(words)
    this.#t = threads.w
    this.#lockVigil = new Vigil(threads)
    this.#waitVigil = new Vigil(threads)
    this.#owner = me + 1
  }

  /** The operating system can be asked whether a thread has ended; `start` is undefined where it is not known. */
  setSystem(hasEnded: (id: number, start: number | undefined) => boolean): void {
    this.#hasEnded = hasEnded
  }

  /** This thread is known to the operating system by these. */
  knowThread(id: number, start: number): void {
    this.#t[this.row + T_OS_START] = start
    Atomics.store(this.#t, this.row + T_OS_THREAD, id)
  }

  /** Whether a thread that is not attached is known to have ended, by its number in the operating system; 0 is none. */
  hasSystemThreadEnded(id: number): boolean {
    return id !== 0 && this.#hasEnded(id, undefined)
  }

  /** Whether an attached thread is known to have ended. Costs two reads of files: not to be asked more often than every slice. */
  hasEnded(thread: number): boolean {
    if (thread < 0 || !this.isAttached(thread)) return false
    const row = thread << THREAD_SHIFT
    const id = Atomics.load(this.#t, row + T_OS_THREAD)
    if (id === 0 || !this.#hasEnded(id, this.#t[row + T_OS_START])) return false
    // Its row may have been given to another thread meanwhile.
    return Atomics.load(this.#t, row + T_OS_THREAD) === id && this.isAttached(thread)
  }

  /** 0, or the errno of what broke the machine. */
  get broken(): number {
    return this.words[S_BROKEN]
  }

  /** Takes the machine lock. → 0; EOWNERDEAD on a broken machine; EAGAIN on a thread that may not sleep, if it is busy. */
  lock(): number {
    const { words } = this
    if (Atomics.compareExchange(words, S_LOCK, 0, this.#owner) !== 0) {
      const error = this.#lockSlowly()
      if (error !== 0) return error
    } else if (words[S_STARVING] !== 0) {
      const error = this.#lockAfterOthers()
      if (error !== 0) return error
    }
    this.#t[this.row + T_PROGRESS]++
    if (words[S_BROKEN] === 0) return 0
    this.unlock()
    return words[S_BROKEN]
  }

  unlock(): void {
    // On a broken machine a verb may have lost the lock.
    if (this.words[S_BROKEN] !== 0 && !this.isLocked) return
    const before = Atomics.exchange(this.words, S_LOCK, 0)
    if ((before & SLEEPING) !== 0) Atomics.notify(this.words, S_LOCK, 1)
  }

  get isLocked(): boolean {
    return (Atomics.load(this.words, S_LOCK) & OWNER_MASK) === this.#owner
  }

  /** The thread that has the machine lock, or -1. */
  get lockOwner(): number {
    return (Atomics.load(this.words, S_LOCK) & OWNER_MASK) - 1
  }

  /** Declares the machine broken, for all threads and for good. */
  declareBroken(errno: number): void {
    Atomics.compareExchange(this.words, S_BROKEN, 0, errno)
    Atomics.notify(this.words, S_LOCK)
    for (let q = 0; q < NR_QUEUES; q++) {
      Atomics.add(this.words, S_QUEUES + q, 1)
      Atomics.notify(this.words, S_QUEUES + q)
    }
  }

  /**
   * A verb of this thread was cut off: declares the machine broken, if it held the machine lock or `errno` is not 0, and gives the lock
   * back. Calls nothing of ours.
   */
  abandon(errno: number): void {
    const { words } = this
    const isMine = (Atomics.load(words, S_LOCK) & OWNER_MASK) === this.#owner
    if (!isMine && errno === 0) return
    Atomics.compareExchange(words, S_BROKEN, 0, errno === 0 ? ENOTRECOVERABLE : errno)
    if (isMine) Atomics.store(words, S_LOCK, 0)
    Atomics.notify(words, S_LOCK)
    for (let q = 0; q < NR_QUEUES; q++) {
      Atomics.add(words, S_QUEUES + q, 1)
      Atomics.notify(words, S_QUEUES + q)
    }
  }

  /** Number of the queue for a page, an address space or an inode. */
  queueOf(kind: number, id: number): number {
    return (Math.imul(id, 0x9e3779b1) + kind) & (NR_QUEUES - 1)
  }

  /**
   * With the machine lock held: gives it back, sleeps until the queue is woken or a slice has passed, and takes it again. The
   * caller then looks once more at what it waits for. → 0, or EOWNERDEAD, EAGAIN with the lock not held.
   */
  waitFor(kind: number, id: number): number {
    const { words } = this
    if (!this.maySleep) {
      this.unlock()
      return EAGAIN
    }
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
    this.#waitVigil.begin()
  }

  /**
   * Whether to go on waiting for what `thread` has (-1: nobody is known to have it). With the machine lock held. If that thread has ended,
   * what it had is given back. Declares the machine broken when it has shown no sign of life for too long.
   */
  isPatient(thread: number): boolean {
    if (this.isHopeful(thread)) return true
    this.declareBroken(EOWNERDEAD)
    return false
  }

  /** The same, for waits that may end without the machine being broken. */
  isHopeful(thread: number): boolean {
    if (!this.#waitVigil.isHopeful(thread, this.patienceMs)) return false
    if (this.#waitVigil.isTime(SLICE_MS) && this.hasEnded(thread)) this.recover(thread)
    return true
  }

  isAttached(thread: number): boolean {
    if (thread >= this.threads.maxThreads) return false
    return Atomics.load(this.#t, (thread << THREAD_SHIFT) + T_STATE) === THREAD_ATTACHED
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
    if (error !== 0) throw new BrokenMachine(error)
    this.#t[this.row + T_IN_IO] = 0
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

  /** Entries changed, or a frame is about to be used for something else. A full fence. With the machine lock held. */
  changed(): void {
    Atomics.add(this.words, S_EPOCH, 1)
  }

  /** Waits for stores of other threads that found the frame writable before its entry changed. After `changed`. */
  settle(frame: number): void {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      if (t !== this.me && Atomics.load(this.#t, (t << THREAD_SHIFT) + T_HAZARD) === frame + 1)
        this.#outlast(t, frame + 1)
    }
  }

  settleAll(): void {
    for (let t = 0; t < this.threads.maxThreads; t++) {
      if (t === this.me) continue
      const hazard = Atomics.load(this.#t, (t << THREAD_SHIFT) + T_HAZARD)
      if (hazard !== 0) this.#outlast(t, hazard)
    }
  }

  /**
   * Waits until a thread's hazard is another one. A store takes nanoseconds, unless the thread is off its processor, or dead:
   * then it will never come.
   */
  #outlast(thread: number, hazard: number): void {
    const at = (thread << THREAD_SHIFT) + T_HAZARD
    for (let look = 0; look < LOOKS; look++) if (Atomics.load(this.#t, at) !== hazard) return
    const begun = Date.now()
    let asked = begun
    while (Atomics.load(this.#t, at) === hazard) {
      if (this.#t[(thread << THREAD_SHIFT) + T_STATE] !== THREAD_ATTACHED) return
      if (this.words[S_BROKEN] !== 0) return
      const now = Date.now()
      if (now - asked > SLICE_MS) {
        asked = now
        if (this.hasEnded(thread)) return
      }
      if (now - begun > this.patienceMs) {
        this.declareBroken(EOWNERDEAD)
        return
      }
      if (this.maySleep) Atomics.wait(this.#t, at, hazard, 1)
    }
  }

  #lockSlowly(): number {
    const { words } = this
    if (this.#tryHard()) return 0
    this.#t[this.row + T_LOCK_WAITS]++
    if (!this.maySleep) return this.#spinOn()
    this.#lockVigil.begin()
    let sleeps = 0
    let error = 0
    for (;;) {
      const value = Atomics.load(words, S_LOCK)
      if (value === 0) {
        // Others may sleep still: keep the mark, so that the next unlock wakes one of them.
        if (Atomics.compareExchange(words, S_LOCK, 0, this.#owner | SLEEPING) === 0) break
        continue
      }
      // A verb of this very thread that was cut off, and where there was no stack left to say so.
      if ((value & OWNER_MASK) === this.#owner) this.abandon(ENOTRECOVERABLE)
      if (words[S_BROKEN] !== 0) {
        error = words[S_BROKEN]
        break
      }
      if ((value & SLEEPING) === 0 && Atomics.compareExchange(words, S_LOCK, value, value | SLEEPING) !== value)
        continue
      const owner = (value & OWNER_MASK) - 1
      const isLong = Atomics.wait(words, S_LOCK, value | SLEEPING, SLICE_MS) === 'timed-out'
      // In this order: what is still locked by a thread that has ended was locked by it when it ended.
      if (isLong && this.hasEnded(owner) && this.lockOwner === owner) this.declareBroken(EOWNERDEAD)
      if (++sleeps === STARVING_AFTER) {
        this.#t[this.row + T_STARVING] = 1
        Atomics.add(words, S_STARVING, 1)
      }
      if (!this.#lockVigil.isHopeful(owner, this.patienceMs)) this.declareBroken(EOWNERDEAD)
    }
    if (this.#t[this.row + T_STARVING] !== 0) {
      this.#t[this.row + T_STARVING] = 0
      Atomics.sub(words, S_STARVING, 1)
      Atomics.notify(words, S_STARVING)
    }
    return error
  }

  /**
   * Spins for the lock. Each try is made at once, without a look whether the lock is free: the look would take the line from the owner as
   * well, and the try then once more.
   */
  #tryHard(): boolean {
    const { words } = this
    for (let n = 0; n < TRIES; n++) {
      if (Atomics.compareExchange(words, S_LOCK, 0, this.#owner) === 0) return true
      for (let i = 0; i < REST_LOADS; i++) Atomics.load(words, S_BROKEN)
    }
    return false
  }

  /** For a thread that may not sleep. */
  #spinOn(): number {
    const deadline = Date.now() + SPIN_LIMIT_MS
    do {
      if (this.#tryHard()) return 0
    } while (Date.now() < deadline && this.words[S_BROKEN] === 0)
    // One and the same hold of the lock, however often it was tried to get it meanwhile.
    const owner = (Atomics.load(this.words, S_LOCK) & OWNER_MASK) - 1
    if (owner >= 0 && !this.#lockVigil.isHopeful(owner, this.patienceMs)) this.declareBroken(EOWNERDEAD)
    return this.words[S_BROKEN] || EAGAIN
  }

  /** With the lock, that somebody was kept from for long: gives it back and takes it again after a moment's rest. → 0 or an errno. */
  #lockAfterOthers(): number {
    const { words } = this
    if (!this.maySleep) return 0
    const starving = words[S_STARVING]
    this.unlock()
    Atomics.wait(words, S_STARVING, starving, 1)
    return Atomics.compareExchange(words, S_LOCK, 0, this.#owner) === 0 ? 0 : this.#lockSlowly()
  }
}

/** Browsers forbid their main thread to sleep: Atomics.wait throws there, even where it would not have to wait. */
function canSleep(words: Int32Array): boolean {
  try {
    Atomics.wait(words, S_BROKEN, 0x7fffffff, 0)
    return true
  } catch {
    return false
  }
}
