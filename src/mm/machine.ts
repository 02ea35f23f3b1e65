/**
 * The machine: every room's part, wired together, for the verbs of mm/ to work on. `kernel` assembles one.
 *
 * A verb is a function (machine, mm, ...) over these. What is state here is this thread's: what the last fault came to,
 * and what the verb in hand has begun. Page numbers are virtual (vpn) or file pages (pgoff, index).
 */
import { EAGAIN, EDEADLK, ENODEV, ENOMEM, ENOTRECOVERABLE, EOWNERDEAD, ESRCH, ETIMEDOUT } from '../abi/errno.ts'
import { inspectedAs, summary } from '../base/printing.ts'
import { ensureStack } from '../base/stack.ts'
import { WeakList } from '../base/weak-list.ts'
import { INODE_RAMFS } from '../cache/inodes.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  FRAME_SHIFT,
  PG_ANON,
  PG_CACHED,
  PG_LRU,
  PG_MLOCKED,
  PG_WRITEBACK
} from '../frame/frame-table.ts'
import { MM_ALIVE, MM_GENERATION, MM_MMAP_LOCK, MM_SHIFT, MM_WAITING_WRITERS } from '../frame/mm-table.ts'
import { freeUnused } from '../frame/release.ts'
import { NR_MLOCK } from '../frame/vmstat.ts'
import {
  READ_LOCKED,
  UNLOCKED,
  WAIT_ARRIVALS,
  WAIT_FRAME,
  WAIT_INODE,
  WAIT_MMAP,
  WAIT_PAGE,
  WAITS_TO_WRITE,
  WRITE_LOCKED
} from '../sync/lock-order.ts'
import { BrokenMachine } from '../sync/sync.ts'
import { S_OPEN, T_MMAP, T_MMAP_MODE, T_PAGER } from '../sync/threads.ts'
import { Balance } from './balance.ts'
import { writeFirst } from './dirty-limit.ts'
import { EarlyRead } from './early-read.ts'
import { frameGiver } from './frame-giver.ts'
import { MachineParts, type Reach } from './machine-parts.ts'
import type { Pager } from './pager.ts'

/** True nonlinear mappings of every file, with exact dirty accounting. */
export const POLICY_NONLINEAR = 0 as const
/** As Linux 3.19: files with dirty accounting are remapped by linear vmas, one for each run. */
export const POLICY_LINUX = 1 as const

/** Free frames are few below a 16th of all, and below 32. */
const LOW_SHARE_SHIFT = 4
const MOST_LOW_FRAMES = 32

/** In place of `waitFrame`: any page of a store that answers later; a frame that others work on. */
export const WAIT_FOR_ROOM = -1 as const
export const WAIT_FOR_FRAME = -2 as const
/** The same: pages of `waitInode` have to be written first. */
export const WAIT_TO_WRITE = -3 as const

export class Machine extends MachineParts {
  static {
    inspectedAs(Machine, m =>
      summary('Machine', { frames: m.ram.nrFrames, pageSize: m.ram.pageSize }, m.open ? '' : 'closed')
    )
  }

  /** The store's errno behind the last FAULT_BUS or FAULT_OOM, 0 when it was the end of the file. */
  lastError = 0
  /** Number of the failure behind the last FAULT_BUS on a store that answers later, -1 when it was none. */
  lastFailure = -1
  /** The store's errno if the last FAULT_BUS is for that it refused to write what is dirty, else 0. */
  writeRefused = 0
  /** Grows with each access that was parked; 0 while the last FAULT_BUS was not for that. */
  parkedFault = 0
  nrParked = 0
  /** Brings pages of stores that answer later and that this thread has; made with the first one. */
  pager: Pager | undefined
  /** The page that this thread has read before it took the locks, and how it foretells the next one. */
  readonly early: EarlyRead = new EarlyRead()
  /**
   * The frame that the last FAULT_WAIT is to wait for, 0 for the inode's lock, or WAIT_FOR_*; and the file page that it
   * is about.
   */
  waitFrame = 0
  waitInode = 0
  waitIndex = 0
  /**
   * What the entry that the fault in hand makes may have: all bits but the rights that a forced access must not give to
   * its owner.
   */
  grants = -1
  /** How this thread makes room before it is short of frames. */
  readonly balance: Balance
  /**
   * This thread sleeps while another one brings a page from a store that answers later; else such an access gives
   * EAGAIN.
   */
  sleepsForPagers = false
  /** This thread is within a verb that changes the machine. */
  inside = false
  /** It holds a file for a call in several parts, so there was room on the stack when that began. */
  holdsFile = false
  /** Inodes in this thread's list `T_GOING`: seen to at the end of the verb, when no mmap lock is held. */
  nrGoing = 0
  /** The errno of what went wrong with one of them, until the verb's result is made. */
  closeError = 0
  /** What a thread that has ended held is being given back: errors of that are nobody's. */
  recovers = false
  /** Sees to them, in windows. → 0 or -errno. Set by `kernel` (`endGoing` of mm/files). */
  endGoing: () => number = () => 0
  /** This thread has detached: its row may be another one's, so nothing here is used any more (`leaveForGood`). */
  hasLeft = false
  /** What this thread reaches memory by without asking the machine. */
  readonly reaches: WeakList<Reach> = new WeakList()
  /** Why the last `enter`, `lockMm` or `lockMmRead` gave false: EDEADLK, EOWNERDEAD, EAGAIN, ESRCH or ENODEV. */
  refused = 0
  /** Adds to or takes from a file's references; bound once, for the vma room. */
  readonly onFile: (file: number, delta: number) => void

  constructor(parts: MachineParts) {
    super(parts)
    const { sync, ram } = parts
    this.balance = new Balance(sync.isShared ? Math.min(MOST_LOW_FRAMES, 1 + (ram.nrFrames >>> LOW_SHARE_SHIFT)) : 0)
    this.onFile = (file, delta) => {
      this.files.refs[file] += delta
    }
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    return { kind: 'machine', frames: this.ram.nrFrames, pageSize: this.ram.pageSize, isOpen: this.open }
  }

  /** Gives a data frame back if nothing holds it any more. */
  putFrame(frame: number): void {
    // Also one that stays: it is pinned no longer.
    if (frame !== 0 && !freeUnused(this.allocator, this.lru, frame)) this.sync.noteRoom()
  }

  /** An entry of the frame went away: forgets its lock and its swap slot with the last one, and frees it. */
  afterUnmap(frame: number): void {
    const { frames } = this
    if (frames.row(frame, F_MAPCOUNT) !== 0) return
    // A page of a file stays in the cache.
    if ((frames.row(frame, F_FLAGS) & (PG_CACHED | PG_ANON | PG_MLOCKED)) !== PG_CACHED) this.#afterLastUnmap(frame)
  }

  #afterLastUnmap(frame: number): void {
    const { frames } = this
    const flags = frames.row(frame, F_FLAGS)
    if ((flags & PG_MLOCKED) !== 0) this.clearMlocked(frame)
    // Who writes it to its slot gives the slot back.
    if ((flags & (PG_ANON | PG_CACHED | PG_WRITEBACK)) === (PG_ANON | PG_CACHED)) {
      const slot = frames.row(frame, F_INDEX)
      if (this.swap.count[slot] === 0) {
        this.cache.remove(frame)
        this.swap.free(slot)
      }
    }
    this.putFrame(frame)
  }

  /** The page is in no locked vma any more: back to the lists that reclaim looks at. */
  clearMlocked(frame: number): void {
    this.frames.w[(frame << FRAME_SHIFT) + F_FLAGS] &= ~PG_MLOCKED
    this.vmstat[NR_MLOCK]--
    const flags = this.frames.row(frame, F_FLAGS)
    const stays = (flags & PG_ANON) === 0 && this.inodes.kind[this.frames.row(frame, F_MAPPING)] === INODE_RAMFS
    if (stays || (flags & PG_LRU) === 0) return
    this.lru.setEvictable(frame)
    this.sync.noteRoom()
  }

  /** Which memory this is: no other one of the process has the number. */
  get id(): number {
    return this.identity.id
  }

  /** This thread has detached, and has no row any more. */
  leaveForGood(): void {
    this.hasLeft = true
    this.early.forget()
    for (const reach of this.reaches.all()) reach.leave()
  }

  /** False after the machine was closed, by whatever thread, or this one has detached. */
  get open(): boolean {
    return this.sync.words[S_OPEN] !== 0 && !this.hasLeft
  }

  set open(open: boolean) {
    this.sync.words[S_OPEN] = open ? 1 : 0
  }

  /**
   * Begins a verb that changes the machine, and takes the machine lock if there are other threads. False when this
   * thread is inside one already (a notifier or store that was called in the middle of it calls back), or the lock
   * cannot be had: `refused` says why. Throws RangeError, with nothing done, where the stack is almost full.
   */
  enter(): boolean {
    if (this.hasLeft) return this.#refuse(ENODEV)
    if (this.inside) return this.#refuse(this.whyInside)
    if (!this.holdsFile) ensureStack()
    if (this.sync.isShared) {
      const error = this.sync.lock()
      if (error !== 0) return this.#refuse(error)
    }
    this.inside = true
    return true
  }

  /**
   * Enters, and goes on where `enter` gives up because the lock is busy. → whether to `leave` afterwards: false within
   * a verb, which has what is needed, and on a broken machine, where nobody has.
   */
  reenter(): boolean {
    if (this.inside) return false
    while (!this.enter()) if (this.refused !== EAGAIN) return false
    return true
  }

  /** Gives something back: also within a verb, and where `enter` gives up. Nothing on a broken machine. */
  giveBack(act: () => void): void {
    if (this.inside && this.sync.broken === 0) {
      act()
      return
    }
    if (!this.reenter()) return
    try {
      act()
      this.leave()
    } catch (thrown) {
      this.abandon(thrown)
    }
  }

  /** Looks at the machine while nothing changes. */
  quietly<T>(look: () => T): T {
    const entered = this.reenter()
    try {
      return look()
    } finally {
      if (entered) this.leave()
    }
  }

  /** Runs a verb between `enter` and `leave`. → its result, or -errno. */
  run(verb: () => number): number {
    if (!this.enter()) return -this.refused
    try {
      const result = verb()
      this.leave()
      return this.closeError === 0 ? result : this.withCloseError(result)
    } catch (thrown) {
      return this.abandon(thrown)
    }
  }

  /** The same between `lockMm` and `unlock`. */
  runOn(mm: number, generation: number, verb: () => number): number {
    if (!this.lockMm(mm, generation)) return -this.refused
    try {
      const result = verb()
      this.unlock(mm)
      return this.closeError === 0 ? result : this.withCloseError(result)
    } catch (thrown) {
      return this.abandon(thrown)
    }
  }

  /**
   * What a verb does with an exception. Whatever came up in the middle of it, half of a change may be made and the
   * other half not: the machine is declared broken, the machine lock given back, and the exception thrown on, to
   * whoever made the call. Every other call, of all threads, says ENOTRECOVERABLE. (Foreign code, stores and notifiers,
   * is guarded where it is called: what it throws does not come here.) → -errno when it is that the verb was ended
   * because the machine is broken.
   */
  abandon(thrown: unknown): number {
    const { sync } = this
    // First, and with as few calls as can be: the stack may be full.
    if (!(thrown instanceof BrokenMachine)) {
      sync.abandon(this.inside ? ENOTRECOVERABLE : 0)
      this.inside &&= !sync.isShared
      throw thrown
    }
    // A machine of one thread has no lock to be refused: this thread stays inside.
    this.inside &&= !sync.isShared
    return -thrown.errno
  }

  /**
   * Why nothing can be begun by a thread that is inside: EDEADLK, or what broke a machine of one thread. If no code of
   * others runs in the verb that it is inside of, that verb has ended without `leave`: its exception found a stack too
   * full even for `abandon`.
   */
  get whyInside(): number {
    const { sync } = this
    if (!sync.isInStore && !this.notifiers.areCalled) {
      sync.abandon(ENOTRECOVERABLE)
      this.inside = !sync.isShared
    }
    return sync.broken || EDEADLK
  }

  leave(): void {
    if (this.sync.line.isIn) this.sync.line.leave()
    if (this.nrGoing !== 0) this.#endGoing()
    this.inside = false
    if (this.sync.isShared) this.sync.unlock()
  }

  /** A verb's result, or the error of a last close that came with its end, where the verb had none. */
  withCloseError(result: number): number {
    const error = this.closeError
    this.closeError = 0
    return result < 0 || error === 0 ? result : error
  }

  #endGoing(): void {
    // Stores are called.
    this.inside = true
    try {
      const error = this.endGoing()
      if (this.closeError === 0) this.closeError = error
    } catch (thrown) {
      this.closeError = this.abandon(thrown)
    }
    this.inside = false
  }

  /**
   * Begins a verb that changes mappings: takes the mmap lock for writing, and the machine lock. `generation` is the
   * handle's, 0 for whatever address space has the row. False when they cannot be had, or the address space has ended
   * meanwhile.
   */
  lockMm(mm: number, generation: number): boolean {
    return this.#lockMm(mm, generation, WRITE_LOCKED)
  }

  /** The same for reading: vmas stay, others may fault at the same time. */
  lockMmRead(mm: number, generation: number): boolean {
    return this.#lockMm(mm, generation, READ_LOCKED)
  }

  #lockMm(mm: number, generation: number, mode: typeof READ_LOCKED | typeof WRITE_LOCKED): boolean {
    if (this.hasLeft) return this.#refuse(ENODEV)
    if (this.inside) return this.#refuse(this.whyInside)
    if (!this.holdsFile) ensureStack()
    const { w } = this.mms
    const row = mm << MM_SHIFT
    if (this.sync.isShared) {
      const error = this.#waitForMm(row, mm, mode)
      if (error !== 0) return this.#refuse(error)
      if (w[row + MM_ALIVE] === 0 || (generation !== 0 && w[row + MM_GENERATION] !== generation)) {
        if (this.nrGoing !== 0) this.#endGoing()
        this.sync.unlock()
        return this.#refuse(ESRCH)
      }
      const { threads } = this.sync
      threads.w[this.sync.row + T_MMAP] = mm
      threads.w[this.sync.row + T_MMAP_MODE] = mode
    } else if (w[row + MM_MMAP_LOCK] !== 0) return this.#refuse(EDEADLK)
    if (mode === WRITE_LOCKED) w[row + MM_MMAP_LOCK] = -1
    else w[row + MM_MMAP_LOCK]++
    this.inside = true
    return true
  }

  /**
   * Takes the machine lock when the mmap lock is free for `mode`. Writers come first. → 0 or an errno, without the
   * lock.
   */
  #waitForMm(row: number, mm: number, mode: typeof READ_LOCKED | typeof WRITE_LOCKED): number {
    const { sync } = this
    const error = sync.lock()
    if (error !== 0) return error
    const { w } = this.mms
    if (w[row + MM_MMAP_LOCK] === 0 && w[row + MM_WAITING_WRITERS] === 0) return 0
    try {
      return this.#waitLongForMm(row, mm, mode === WRITE_LOCKED)
    } catch (thrown) {
      return -this.abandon(thrown)
    }
  }

  #isMmHeld(row: number, writes: boolean): boolean {
    const { w } = this.mms
    return writes ? w[row + MM_MMAP_LOCK] !== 0 : w[row + MM_MMAP_LOCK] < 0 || w[row + MM_WAITING_WRITERS] > 0
  }

  #waitLongForMm(row: number, mm: number, writes: boolean): number {
    const { sync } = this
    for (let rounds = 0; this.#isMmHeld(row, writes); rounds++) {
      // One that need not wait begins no wait: it may be in the middle of another one, for a page, whose patience
      // counts.
      if (rounds === 0) sync.beginWait()
      if (sync.maySleep) sync.isPatient(sync.holderOfMmap(mm))
      if (writes) this.#noteWaitingWriter(row, mm, 1)
      const error = sync.waitFor(WAIT_MMAP, mm)
      if (error !== 0) return error
      if (writes) this.#noteWaitingWriter(row, mm, -1)
    }
    return 0
  }

  #noteWaitingWriter(row: number, mm: number, delta: 1 | -1): void {
    const { sync } = this
    if (!sync.maySleep) return
    this.mms.w[row + MM_WAITING_WRITERS] += delta
    sync.threads.w[sync.row + T_MMAP] = mm
    sync.threads.w[sync.row + T_MMAP_MODE] = delta > 0 ? WAITS_TO_WRITE : UNLOCKED
  }

  /** Ends a verb that changed mappings: no thread sees what it took away once this returns (docs/locking.md). */
  unlock(mm: number): void {
    this.mms.w[(mm << MM_SHIFT) + MM_MMAP_LOCK] = 0
    this.inside = false
    const { sync } = this
    if (!sync.isShared) return
    sync.threads.w[sync.row + T_MMAP_MODE] = UNLOCKED
    sync.changed()
    sync.settleAll()
    sync.wakeAll(WAIT_MMAP, mm)
    if (sync.line.isIn) sync.line.leave()
    if (this.nrGoing !== 0) this.#endGoing()
    sync.unlock()
  }

  unlockMmRead(mm: number): void {
    this.#dropMmRead(mm)
    if (this.sync.line.isIn) this.sync.line.leave()
    if (this.nrGoing !== 0) this.#endGoing()
    if (this.sync.isShared) this.sync.unlock()
  }

  #dropMmRead(mm: number): void {
    this.mms.w[(mm << MM_SHIFT) + MM_MMAP_LOCK]--
    this.inside = false
    const { sync } = this
    if (!sync.isShared) return
    sync.threads.w[sync.row + T_MMAP_MODE] = UNLOCKED
    sync.wakeAll(WAIT_MMAP, mm)
  }

  /**
   * With the mmap lock held for reading: gives it back and sleeps until the page of `waitFrame` may be there. Neither
   * lock is held afterwards. → 0 to look again, or an errno.
   */
  waitForPageOutside(mm: number): number {
    this.#dropMmRead(mm)
    const { sync } = this
    const error = this.waitForPageInside()
    if (this.nrGoing !== 0) this.#endGoing()
    if (sync.isShared) sync.unlock()
    return error
  }

  /**
   * Within a verb: sleeps until the page of `waitFrame` may be there; what is locked stays so, but for the machine lock
   * meanwhile. → 0 to look again; EAGAIN where this thread may not sleep, or is itself the one that brings the page in;
   * ETIMEDOUT; EOWNERDEAD when the one that brings it has ended. Throws BrokenMachine.
   */
  waitForPageInside(): number {
    const { sync, frames, waitFrame } = this
    if (waitFrame === WAIT_TO_WRITE) return writeFirst(this)
    if (!sync.isShared || !sync.maySleep) return EAGAIN
    if (waitFrame === WAIT_FOR_ROOM) return this.waitForArrivals()
    if (waitFrame === WAIT_FOR_FRAME) return this.#waitForTurn()
    const inode = this.waitInode
    if (waitFrame === 0) {
      if (this.inodes.lock[inode] === 0) return 0
      sync.isPatient(this.inodes.lock[inode] - 1)
      sync.waitWithin(WAIT_INODE, inode)
      return 0
    }
    const pager = this.inodes.pager[inode] - 1
    if (pager >= 0) return this.#sleepForPager(pager, WAIT_PAGE, waitFrame)
    sync.isPatient(sync.holderOfPage(inode, frames.row(waitFrame, F_INDEX)))
    sync.waitWithin(WAIT_PAGE, waitFrame)
    return 0
  }

  /**
   * Within a verb that found no frame: whether to wait for one, with what for in `waitFrame`. True as long as another
   * thread goes on with pages that reclaim can take afterwards, or pages of a store that answers later are on their
   * way.
   */
  mayWaitForFrame(): boolean {
    const { line, isShared } = this.sync
    this.waitInode = 0
    this.waitIndex = 0
    if (!line.isIn) this.sync.beginWait()
    const giver = isShared ? frameGiver(this) : -1
    if (giver >= 0 && line.isHopeful(giver) && (this.sync.isHopeful(giver) || this.sync.isAlive(giver))) {
      this.queueForFrame()
      return true
    }
    if (line.isIn) line.leave()
    this.waitFrame = WAIT_FOR_ROOM
    return this.filler.requests.nrUnderWay > 0
  }

  /**
   * Whether frames are few and another thread has waited longer for one: then this one waits, too, before it takes any.
   */
  get isOthersTurn(): boolean {
    const { sync } = this
    return sync.isShared && sync.maySleep && sync.line.mustWait(this.allocator.nrFree)
  }

  /** Takes a place in the line for frames, for `waitForPageInside`. */
  queueForFrame(): void {
    this.waitFrame = WAIT_FOR_FRAME
    this.waitInode = 0
    this.waitIndex = 0
    if (this.sync.maySleep) this.sync.line.join()
  }

  /**
   * Within a verb that found no frame: sleeps until there may be one. → 0 to try, ENOMEM, or EAGAIN where this thread
   * may not sleep.
   */
  waitForFrame(): number {
    return this.mayWaitForFrame() ? this.waitForPageInside() : ENOMEM
  }

  /**
   * After a verb that gave -ENOMEM and has left nothing undone, with no lock held: whether to make it again, since it
   * found no frame (`nrRefused` is the allocator's from before) and there may be one now.
   */
  mayTryAgain(result: number, nrRefused: number): boolean {
    if (result !== -ENOMEM || this.allocator.nrRefused === nrRefused || !this.sync.isShared || !this.enter())
      return false
    try {
      const again = this.waitForFrame() === 0
      // Without `leave`: it keeps its place in the line.
      this.inside = false
      if (!again) this.sync.line.leave()
      this.sync.unlock()
      return again
    } catch (thrown) {
      this.abandon(thrown)
      return false
    }
  }

  /** Sleeps until this thread is the first in the line and may find a frame. → 0 to try. */
  #waitForTurn(): number {
    const { sync } = this
    const { line, me } = sync
    if (line.isFirst && frameGiver(this) < 0) return 0
    if (!line.isFirst) sync.isPatient(line.first)
    sync.waitWithin(WAIT_FRAME, me)
    return 0
  }

  /** The same until some page of a store that answers later came, or was given up, so that there is room for others. */
  waitForArrivals(): number {
    const { inodes, sync } = this
    if (!sync.isShared || !sync.maySleep) return EAGAIN
    for (let inode = 1; inode <= inodes.capacity; inode++) {
      const pager = inodes.pager[inode] - 1
      if (inodes.kind[inode] === 0 || inodes.nrFilling(inode) === 0 || pager < 0 || pager === sync.me) continue
      return this.#sleepForPager(pager, WAIT_ARRIVALS, 0)
    }
    return this.filler.requests.nrUnderWay === 0 ? 0 : EAGAIN
  }

  /** Sleeps for what `pager` brings, unless that is this thread, or one that sleeps for this thread in turn. */
  #sleepForPager(pager: number, kind: number, id: number): number {
    const { sync } = this
    const { w } = sync.threads
    if (pager >= sync.threads.maxThreads) return EOWNERDEAD
    if (!this.sleepsForPagers) return EAGAIN
    let t = pager
    for (let n = 0; t >= 0 && n < sync.threads.maxThreads; n++) {
      if (t === sync.me) return EAGAIN
      t = w[sync.threads.at(t, T_PAGER)] - 1
    }
    if (!sync.isAttached(pager)) return EOWNERDEAD
    if (!sync.isHopeful(pager)) return ETIMEDOUT
    w[sync.row + T_PAGER] = pager + 1
    sync.waitWithin(kind, id)
    w[sync.row + T_PAGER] = 0
    return 0
  }

  #refuse(errno: number): false {
    this.refused = errno
    return false
  }

  /** Pages of an inode, the last partial one included. */
  nrFilePages(inode: number): number {
    return Math.ceil(this.inodes.sizeBytes[inode] * this.ram.pagesPerByte)
  }
}
