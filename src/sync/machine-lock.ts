/**
 * The machine lock: a mutex on one word, which every verb of every thread takes. Spins for a few microseconds, then
 * sleeps.
 *
 *  lock, unlock    takes it, gives it back
 *  declareBroken   for all threads, and for good: who has it will never give it back, or has left half of a change
 *  abandon         the same by the very thread that was cut off
 *  hasEnded        whether a thread is known to have ended, by the operating system; isAlive: whether it is known to
 *                  live
 *
 * Word of the lock: 0 free, else the owner's number + 1, with SLEEPING set when somebody may sleep on it.
 *
 * Nobody waits without end. A sleep is cut into slices; after each one the thread looks whether the machine was
 * declared broken, and whether the owner still exists, where the operating system tells: then its word counts, and who
 * lives is waited for. Where it does not tell, the thread counts on the owner's signs of life (`Vigil`).
 */
import { EAGAIN, EDEADLK, ENOTRECOVERABLE, EOWNERDEAD } from '../abi/errno.ts'
import {
  NR_QUEUES,
  S_BROKEN,
  S_LOCK,
  S_QUEUES,
  S_STARVING,
  T_GUEST,
  T_LOCK_CONTENDED,
  T_LOCK_TRIES,
  T_LOCK_WAITS,
  T_OS_START,
  T_OS_THREAD,
  T_PROGRESS,
  T_STARVING,
  T_STATE,
  THREAD_ATTACHED,
  THREAD_SHIFT,
  type ThreadTable
} from './threads.ts'
import { nowMs, SLICE_MS, Vigil } from './vigil.ts'

const SLEEPING = 0x100
const OWNER_MASK = 0xff
/** Tries to get the machine lock before going to sleep: some 20 µs, many times as long as it is held. */
const TRIES = 200
/** Loads between two tries, so that the owner keeps its cache line meanwhile; some 50 ns. */
const REST_LOADS = 40
/**
 * A thread that was kept from the lock for so many sleeps asks the others to let it go first: a remap then waits 0.2 ms
 * beside a populate, not 5.
 */
const STARVING_AFTER = 1
/**
 * A thread that is in a guest sleeps no longer, since the owner may wait for it to leave: its program has called the
 * memory from there.
 */
const GUEST_SLEEPS = 20
/** How long a thread that may not sleep spins before it gives up with -EAGAIN. */
const SPIN_LIMIT_MS = 20

export class MachineLock {
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
  /**
   * Whether the operating system has no such thread any more, undefined where it does not tell. Set where it can be
   * asked (`setSystem`).
   */
  #hasEnded: (id: number, start: number | undefined) => boolean | undefined = () => undefined
  readonly #t: Int32Array
  readonly #owner: number
  readonly #vigil: Vigil

  constructor(words: Int32Array, threads: ThreadTable, me: number, patienceMs: number) {
    this.isShared = threads.maxThreads > 1
    this.words = words
    this.threads = threads
    this.me = me
    this.patienceMs = patienceMs
    this.row = me << THREAD_SHIFT
    this.maySleep = canSleep(words)
    this.#t = threads.w
    this.#vigil = new Vigil(threads)
    this.#owner = me + 1
  }

  /** 0, or the errno of what broke the machine. */
  get broken(): number {
    return this.words[S_BROKEN]
  }

  /**
   * Takes the machine lock. → 0; EOWNERDEAD on a broken machine; EAGAIN on a thread that may not sleep, if it is busy.
   */
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
   * A verb of this thread was cut off: declares the machine broken, if it held the machine lock or `errno` is not 0,
   * and gives the lock back. Calls nothing of ours.
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

  isAttached(thread: number): boolean {
    if (thread >= this.threads.maxThreads) return false
    return Atomics.load(this.#t, (thread << THREAD_SHIFT) + T_STATE) === THREAD_ATTACHED
  }

  /**
   * The operating system can be asked whether a thread has ended; `start` is undefined where it is not known, and so is
   * the answer then.
   */
  setSystem(hasEnded: (id: number, start: number | undefined) => boolean | undefined): void {
    this.#hasEnded = hasEnded
  }

  /** This thread is known to the operating system by these. */
  knowThread(id: number, start: number): void {
    this.#t[this.row + T_OS_START] = start
    Atomics.store(this.#t, this.row + T_OS_THREAD, id)
  }

  /**
   * Whether a thread that is not attached has ended, by its number in the operating system (0 is none); undefined where
   * that is not known.
   */
  hasSystemThreadEnded(id: number): boolean | undefined {
    return id === 0 ? undefined : this.#hasEnded(id, undefined)
  }

  /**
   * Whether an attached thread is known to live, however long it shows no other sign of that. Costs as much as
   * `hasEnded`.
   */
  isAlive(thread: number): boolean {
    if (thread < 0 || !this.isAttached(thread)) return false
    const row = thread << THREAD_SHIFT
    const id = Atomics.load(this.#t, row + T_OS_THREAD)
    return id !== 0 && this.#hasEnded(id, this.#t[row + T_OS_START]) === false
  }

  /**
   * Whether an attached thread is known to have ended. Costs two reads of files: not to be asked more often than every
   * slice.
   */
  hasEnded(thread: number): boolean {
    if (thread < 0 || !this.isAttached(thread)) return false
    const row = thread << THREAD_SHIFT
    const id = Atomics.load(this.#t, row + T_OS_THREAD)
    if (id === 0 || this.#hasEnded(id, this.#t[row + T_OS_START]) !== true) return false
    // Its row may have been given to another thread meanwhile.
    return Atomics.load(this.#t, row + T_OS_THREAD) === id && this.isAttached(thread)
  }

  #lockSlowly(): number {
    const { words } = this
    this.#t[this.row + T_LOCK_CONTENDED]++
    if (this.#tryHard()) return 0
    this.#t[this.row + T_LOCK_WAITS]++
    if (!this.maySleep) return this.#spinOn()
    this.#vigil.begin()
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
      if (isLong && sleeps >= GUEST_SLEEPS && this.#t[this.row + T_GUEST] !== 0) {
        error = EDEADLK
        break
      }
      // In this order: what is still locked by a thread that has ended was locked by it when it ended.
      if (isLong && this.hasEnded(owner) && this.lockOwner === owner) this.declareBroken(EOWNERDEAD)
      if (++sleeps === STARVING_AFTER) {
        this.#t[this.row + T_STARVING] = 1
        Atomics.add(words, S_STARVING, 1)
      }
      if (!this.#vigil.isHopeful(owner, this.patienceMs) && !this.isAlive(owner)) this.declareBroken(EOWNERDEAD)
    }
    if (this.#t[this.row + T_STARVING] !== 0) {
      this.#t[this.row + T_STARVING] = 0
      Atomics.sub(words, S_STARVING, 1)
      Atomics.notify(words, S_STARVING)
    }
    return error
  }

  /**
   * Spins for the lock. Each try is made at once, without a look whether the lock is free: the look would take the line
   * from the owner as well, and the try then once more.
   */
  #tryHard(): boolean {
    const { words } = this
    let n = 0
    let isMine = false
    for (; n < TRIES && !isMine; n++) {
      for (let i = 0; i < REST_LOADS; i++) Atomics.load(words, S_BROKEN)
      isMine = Atomics.compareExchange(words, S_LOCK, 0, this.#owner) === 0
    }
    this.#t[this.row + T_LOCK_TRIES] += n
    return isMine
  }

  /** For a thread that may not sleep. */
  #spinOn(): number {
    const deadline = nowMs() + SPIN_LIMIT_MS
    do {
      if (this.#tryHard()) return 0
    } while (nowMs() < deadline && this.words[S_BROKEN] === 0)
    // One and the same hold of the lock, however often it was tried to get it meanwhile.
    const owner = (Atomics.load(this.words, S_LOCK) & OWNER_MASK) - 1
    if (owner >= 0 && !this.#vigil.isHopeful(owner, this.patienceMs) && !this.isAlive(owner))
      this.declareBroken(EOWNERDEAD)
    return this.words[S_BROKEN] || EAGAIN
  }

  /**
   * With the lock, that somebody was kept from for long: gives it back and takes it again after a moment's rest. → 0 or
   * an errno.
   */
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
