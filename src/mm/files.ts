/**
 * Opening and closing: descriptors, open files, inodes (Linux: fs/open.c and the inode cache, as little as needed).
 *
 * Two opens of stores with one identity share an inode, and so one page cache. The last close of an inode writes its
 * dirty pages; what cannot be written then is lost, and the close says so.
 *
 * Where threads share the machine, that is done in windows, when the verb that put the last reference has given its
 * mmap lock back (`endGoing`, called by `Machine.leave` and `unlock`). Until then the inode is going: it stands in a
 * list of the thread's, its row is taken, and who opens the same store waits. Nobody else knows it. If the thread ends,
 * whoever finds that out goes on with it.
 */
import { EAGAIN, EBADF, EBUSY, EINVAL, EMFILE, ENFILE } from '../abi/errno.ts'
import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { FILE_READ, FILE_WRITE, INODE_RAMFS, INODE_STORE } from '../cache/inodes.ts'
import { IN_WINDOWS, UNDER_LOCK } from '../cache/writeback.ts'
import { NR_SHMEM } from '../frame/vmstat.ts'
import type { GuardedStore } from '../store/guard.ts'
import { WAIT_ARRIVALS, WAIT_INODE } from '../sync/lock-order.ts'
import { IO_NONE, T_FILE, T_GOING } from '../sync/threads.ts'
import { makeRoom } from './balance.ts'
import { uncharge } from './filemap.ts'
import type { Machine } from './machine.ts'
import { followStore } from './truncate.ts'

/**
 * Opens a store. → file descriptor, or -errno (the store's own from size()). The store is the machine's from here on:
 * the last close closes it, and so does an open that fails; but not one that gives EAGAIN, since a file with the same
 * store is going.
 * -EBUSY if another memory of this thread has the file open for writing, unless both opens say that they are
 * `coordinated`.
 */
export function openStore(m: Machine, store: GuardedStore, mode: number, coordinated = false): number {
  if ((mode & FILE_WRITE) !== 0 && store.readOnly) return refuse(m, store, -EBADF)
  let inode = m.inodes.stores.find(store)
  if (inode !== 0 && m.inodes.going[inode] !== 0) {
    const error = untilGone(m, store)
    if (error !== 0) return -error
    inode = m.inodes.stores.find(store)
  }
  if (isWrittenElsewhere(m, store, coordinated)) return refuse(m, store, -EBUSY)
  if (inode !== 0) {
    m.inodes.refs[inode]++
    const known = m.inodes.store(inode)
    const isOther = known !== undefined && !known.isSame(store)
    if (isOther) {
      // One store serves the inode; a writable one replaces a read-only one.
      if (known.readOnly && !store.readOnly) {
        m.inodes.stores.set(inode, store.name, store)
        known.close()
      } else store.close()
    }
    const error = isOther ? followStore(m, inode, store.isCut) : 0
    if (error < 0) {
      putInode(m, inode)
      return error
    }
  } else {
    const size = store.size()
    if (size < 0) return refuse(m, store, size)
    inode = m.inodes.alloc(INODE_STORE, store.name, store)
    if (inode === 0) return refuse(m, store, -ENFILE)
    m.inodes.sizeBytes[inode] = Math.min(size, MAX_FILE_PAGES * m.ram.pageSize)
    m.inodes.storeBytes[inode] = m.inodes.sizeBytes[inode]
  }
  noteWriter(m, inode, store, coordinated)
  return install(m, inode, mode)
}

interface Writer {
  readonly machine: WeakRef<Machine>
  readonly inode: number
  readonly seq: number
  readonly coordinated: boolean
}

/**
 * Who has files open for writing in this thread, by the identity of their stores; also what another copy of this code
 * has open.
 */
const WRITERS = Symbol.for('fremap.writers')
const shared = globalThis as { [WRITERS]?: Map<string, Writer> }
const writers: Map<string, Writer> = (shared[WRITERS] ??= new Map<string, Writer>())
const MANY_WRITERS = 4096

function isWriting({ machine, inode, seq }: Writer): boolean {
  const m = machine.deref()
  return m?.open === true && m.inodes.kind[inode] !== 0 && m.inodes.seq[inode] === seq
}

function isWrittenElsewhere(m: Machine, { identity, readOnly }: GuardedStore, coordinated: boolean): boolean {
  const writer = identity === undefined || readOnly ? undefined : writers.get(identity)
  if (writer === undefined || (coordinated && writer.coordinated)) return false
  return isWriting(writer) && writer.machine.deref()?.id !== m.id
}

function noteWriter(m: Machine, inode: number, { identity, readOnly }: GuardedStore, coordinated: boolean): void {
  if (identity === undefined || readOnly) return
  if (writers.size >= MANY_WRITERS) for (const [key, one] of writers) if (!isWriting(one)) writers.delete(key)
  writers.set(identity, { machine: new WeakRef(m), inode, seq: m.inodes.seq[inode], coordinated })
}

/** Another open, for reading, of an inode. → file descriptor, or -errno. */
export function openAgain(m: Machine, inode: number): number {
  m.inodes.refs[inode]++
  return install(m, inode, FILE_READ)
}

/**
 * Opens, for reading, a store of `sizeBytes` that answers later and that this thread is to be the pager of. → file
 * descriptor, or -errno.
 */
export function openLater(m: Machine, name: string, sizeBytes: number): number {
  const inode = m.inodes.alloc(INODE_STORE, name, undefined)
  if (inode === 0) return -ENFILE
  m.inodes.pager[inode] = m.sync.me + 1
  m.inodes.sizeBytes[inode] = Math.min(sizeBytes, MAX_FILE_PAGES * m.ram.pageSize)
  m.inodes.storeBytes[inode] = m.inodes.sizeBytes[inode]
  return install(m, inode, FILE_READ)
}

/** Closes a store that cannot be opened, unless it is open already. */
function refuse(m: Machine, store: GuardedStore, error: number): number {
  if (m.inodes.store(m.inodes.stores.find(store))?.isSame(store) === true) return error
  const { lastThrown } = store
  store.close()
  // Why it was refused, whatever becomes of the close.
  store.lastThrown = lastThrown
  return error
}

/** Opens new memory of `sizeBytes` that reads as zero: kind INODE_SHMEM, INODE_RAMFS or INODE_NOREMAP. */
export function openMemory(m: Machine, kind: number, name: string, sizeBytes: number, quota: number): number {
  const inode = m.inodes.alloc(kind, name, undefined)
  if (inode === 0) return -ENFILE
  m.inodes.sizeBytes[inode] = sizeBytes
  m.inodes.quota[inode] = quota
  return install(m, inode, FILE_READ | FILE_WRITE)
}

/** Another open of what a descriptor has open, with a state of its own (not dup). */
export function reopen(m: Machine, fd: number, mode: number): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  const inode = m.files.inode[file]
  const readOnly = m.inodes.pager[inode] !== 0 || m.inodes.store(inode)?.readOnly === true
  if ((mode & FILE_WRITE) !== 0 && readOnly) return -EBADF
  m.inodes.refs[inode]++
  return install(m, inode, mode)
}

/**
 * The open file behind a descriptor, or 0. A descriptor is its slot plus, for each time that one was closed, the number
 * of slots: unlike Linux's it is never given to another file.
 */
export function fileOf(m: Machine, fd: number): number {
  const slot = slotOf(m, fd)
  return slot < 0 || m.hasLeft ? 0 : m.fds[slot]
}

function slotOf(m: Machine, fd: number): number {
  if (!Number.isSafeInteger(fd) || fd < 0) return -1
  const slot = fd % m.fds.length
  return m.fdSeqs[slot] === (fd - slot) / m.fds.length ? slot : -1
}

/** The descriptors that are open. */
export function openFds(m: Machine): number[] {
  const fds: number[] = []
  for (let slot = 0; slot < m.fds.length; slot++) {
    if (m.fds[slot] !== 0) fds.push(m.fdSeqs[slot] * m.fds.length + slot)
  }
  return fds
}

/**
 * Begins a verb on the open file that was found behind a descriptor, and holds it: another thread may close the
 * descriptor meanwhile. → the file, or -errno (-EBADF when it has been closed).
 */
export function enterFile(m: Machine, fd: number, file: number): number {
  makeRoom(m)
  if (!m.enter()) return -m.refused
  if (fileOf(m, fd) !== file) {
    m.leave()
    return -EBADF
  }
  holdFile(m, file)
  return file
}

/** Runs a verb between `enterFile` and `leaveFile`. → its result, or -errno. */
export function onFile(m: Machine, fd: number, file: number, verb: () => number): number {
  const held = enterFile(m, fd, file)
  if (held < 0) return held
  try {
    return leaveFile(m, file, verb())
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/** `leaveFile` after a verb that let go of the machine lock in between. */
export function endFile(m: Machine, file: number, result: number): number {
  try {
    return leaveFile(m, file, result)
  } catch (thrown) {
    return m.abandon(thrown)
  }
}

/** Holds an open file for the call that this thread is in, until `leaveFile`. */
export function holdFile(m: Machine, file: number): void {
  const { sync } = m
  getFile(m, file)
  m.holdsFile = true
  if (sync.isShared) sync.threads.w[sync.row + T_FILE] = file
}

/** Ends it. → `result`, or the error of the last close where the verb had none. */
export function leaveFile(m: Machine, file: number, result: number): number {
  const { sync } = m
  m.holdsFile = false
  if (sync.isShared) {
    sync.threads.w[sync.row + T_FILE] = 0
    sync.wakeAll(WAIT_INODE, m.files.inode[file])
  }
  const closed = putFile(m, file)
  m.leave()
  if (closed < 0 && m.closeError === 0) m.closeError = closed
  return m.closeError === 0 ? result : m.withCloseError(result)
}

/**
 * Waits until no other thread is in a call on a file, or lets one go: the end of such a call may be the last close of
 * the file, and needs its store. → 0 or -errno.
 */
export function waitForFileCalls(m: Machine): number {
  const { sync } = m
  return !sync.isShared || !sync.maySleep ? 0 : m.run(() => untilNoCalls(m))
}

function untilNoCalls(m: Machine): number {
  const { sync } = m
  const { threads } = sync
  sync.beginWait()
  // What this thread has to see to itself it does at the end.
  for (let thread = 0; thread < threads.maxThreads; thread++) {
    if (thread === sync.me) continue
    const file = threads.w[threads.at(thread, T_FILE)]
    const inode = file === 0 ? threads.w[threads.at(thread, T_GOING)] : m.files.inode[file]
    if (inode === 0) continue
    sync.isPatient(thread)
    sync.waitWithin(WAIT_INODE, inode)
    // From the first one again: it may have inherited what this one had.
    thread = -1
  }
  return 0
}

/** Closes a descriptor. → 0, -EBADF, or the error of writing what was dirty. */
export function closeFd(m: Machine, fd: number): number {
  const file = fileOf(m, fd)
  if (file === 0) return -EBADF
  const slot = slotOf(m, fd)
  m.fds[slot] = 0
  m.fdSeqs[slot]++
  return putFile(m, file)
}

export function getFile(m: Machine, file: number): void {
  m.files.refs[file]++
}

/** One reference less; the last one lets the inode go. → 0 or -errno. */
export function putFile(m: Machine, file: number): number {
  if (file === 0 || --m.files.refs[file] > 0) return 0
  const inode = m.files.inode[file]
  m.files.free(file)
  return putInode(m, inode)
}

/** Reserves an accounting group of at most `maxPages` pages of shared memory. → id, or -errno. */
export function newQuota(m: Machine, maxPages: number): number {
  if (!Number.isSafeInteger(maxPages) || maxPages < 1 || maxPages > 0x7fffffff) return -EINVAL
  for (let id = 1; id * 2 < m.quotas.length; id++) {
    if (m.quotas[id * 2] !== 0) continue
    m.quotas[id * 2] = maxPages
    return id
  }
  return -ENFILE
}

function putInode(m: Machine, inode: number): number {
  if (--m.inodes.refs[inode] > 0) return 0
  if (!m.sync.isShared || m.inodes.kind[inode] !== INODE_STORE || m.inodes.pager[inode] !== 0) return endInode(m, inode)
  goes(m, inode)
  return 0
}

/** This thread is to see to the inode, at the end of the verb. */
function goes(m: Machine, inode: number): void {
  const { inodes, sync } = m
  const { w } = sync.threads
  inodes.going[inode] = m.recovers ? -(sync.me + 1) : sync.me + 1
  inodes.goingNext[inode] = w[sync.row + T_GOING]
  w[sync.row + T_GOING] = inode
  m.nrGoing++
}

/**
 * Writes, closes and frees the inodes in this thread's list, also those that join it meanwhile. → 0, or -errno of one.
 */
export function endGoing(m: Machine): number {
  const { inodes, sync } = m
  const { w } = sync.threads
  let result = 0
  while (m.nrGoing !== 0) {
    const inode = w[sync.row + T_GOING]
    // Another thread may still write pages of it, to have their frames.
    if (!sync.maySleep) sync.beginWait()
    while (inodes.acquire(inode) !== 0) {
      sync.isPatient(inodes.lock[inode] - 1)
      yieldLock(m)
    }
    const error = endInode(m, inode)
    if (inodes.going[inode] > 0 && result === 0) result = error
    // The list may have grown at its head.
    if (w[sync.row + T_GOING] === inode) w[sync.row + T_GOING] = inodes.goingNext[inode]
    else {
      let before = w[sync.row + T_GOING]
      while (inodes.goingNext[before] !== inode) before = inodes.goingNext[before]
      inodes.goingNext[before] = inodes.goingNext[inode]
    }
    m.nrGoing--
    inodes.going[inode] = 0
    inodes.free(inode)
    inodes.release(inode)
  }
  return result
}

/** What a thread that has ended was to see to, this one does. */
export function inheritGoing(m: Machine, thread: number): void {
  const { inodes, sync } = m
  const head = sync.threads.at(thread, T_GOING)
  if (thread === sync.me) return
  for (let inode = sync.threads.w[head]; inode !== 0; inode = sync.threads.w[head]) {
    sync.threads.w[head] = inodes.goingNext[inode]
    goes(m, inode)
    sync.wakeAll(WAIT_INODE, inode)
  }
}

/** Waits until no inode with this store is going. → 0, or EAGAIN on a thread that may not sleep. */
function untilGone(m: Machine, store: GuardedStore): number {
  const { inodes, sync } = m
  if (!sync.maySleep) return EAGAIN
  sync.beginWait()
  for (let inode = m.inodes.stores.find(store); inodes.going[inode] !== 0; inode = m.inodes.stores.find(store)) {
    const owner = Math.abs(inodes.going[inode]) - 1
    // It has inherited it while it waited.
    if (owner === sync.me) endGoing(m)
    else {
      sync.isPatient(owner)
      if (Math.abs(inodes.going[inode]) - 1 === owner) sync.waitWithin(WAIT_INODE, inode)
    }
  }
  return 0
}

/** Lets go of an inode that nobody has open; `endGoing` frees the row of one that is going. → 0 or -errno. */
function endInode(m: Machine, inode: number): number {
  let result = 0
  const store = m.inodes.store(inode)
  const isGoing = m.inodes.going[inode] !== 0
  const how = isGoing ? IN_WINDOWS : UNDER_LOCK
  if (store !== undefined && !store.readOnly) {
    result = m.writeback.writeRange(inode, 0, MAX_FILE_PAGES, how)
    if (result === 0) result = m.writeback.extendStore(inode, how)
  } else result = m.writeback.unwritten(inode)
  const pages = m.cache.nrPages(inode)
  for (let frame = m.cache.anyPage(inode); frame !== 0; frame = m.cache.anyPage(inode)) {
    if (!m.frames.isUptodate(frame)) {
      m.filler.withdraw(frame)
      continue
    }
    m.cache.remove(frame)
    m.putFrame(frame)
  }
  if (m.inodes.isShmem(inode) || m.inodes.kind[inode] === INODE_RAMFS) {
    m.vmstat[NR_SHMEM] -= pages
    uncharge(m, inode, pages + m.swap.dropRange(inode, 0, MAX_FILE_PAGES))
  }
  if (store !== undefined) {
    if (isGoing) m.sync.openWindow(IO_NONE, inode, 0, 0)
    const closed = store.close()
    if (isGoing) m.sync.closeWindow()
    if (result === 0) result = closed
  }
  if (isGoing) return result
  const answersLater = m.inodes.pager[inode] !== 0
  m.inodes.free(inode)
  if (answersLater) {
    const { requests } = m.filler
    requests.drop(inode)
    if (m.sync.isShared) m.sync.wakeAll(WAIT_ARRIVALS, 0)
    requests.settled()
    // The pager sees that it is not wanted any more, and closes the store.
    requests.ring()
  }
  return result
}

/** For a thread that may not sleep. */
function yieldLock(m: Machine): void {
  m.sync.openWindow(IO_NONE, 0, 0, 0)
  m.sync.closeWindow()
}

function install(m: Machine, inode: number, mode: number): number {
  const file = m.files.alloc(inode, mode, m.inodes.wbErrSeq[inode])
  if (file === 0) {
    putInode(m, inode)
    return -ENFILE
  }
  const slot = m.fds.indexOf(0, 3)
  if (slot < 0) {
    putFile(m, file)
    return -EMFILE
  }
  m.fds[slot] = file
  return m.fdSeqs[slot] * m.fds.length + slot
}
