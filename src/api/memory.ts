/**
 * Memory: a machine with a hard budget, the page cache of its files, and address spaces to map them in.
 *
 *     using memory = new Memory({ size: '64MiB' })
 *     const file = memory.open(nodeFile('huge.db', 'r+'))
 *     using map = memory.space().map(file, { writable: true })
 */
import { EINVAL, EIO, ENODEV, EPERM, ESRCH, ETIMEDOUT } from '../abi/errno.ts'
import { isSharedBuffer } from '../base/bytes.ts'
import { defineHidden, inspectedAs, summary } from '../base/printing.ts'
import { ensureStack } from '../base/stack.ts'
import { IN_WINDOWS, UNDER_LOCK } from '../cache/writeback.ts'
import { attachKernel, createKernel, type Kernel } from '../kernel.ts'
import { giveUpReserve } from '../mm/early-read.ts'
import { fileOf, openAgain, openFds, openLater, waitForFileCalls } from '../mm/files.ts'
import type { Machine } from '../mm/machine.ts'
import { Pager } from '../mm/pager.ts'
import { recoverThread } from '../mm/recover.ts'
import { type SalvagedFile, salvageFiles, type TakePage } from '../mm/salvage.ts'
import { endMm } from '../mm/space.ts'
import { checkMachine } from '../observe/check.ts'
import { formatTraceRow, traceRows } from '../observe/trace.ts'
import { answerOf, WrongAnswer } from '../store/answer.ts'
import type { AsyncStore } from '../store/async-store.ts'
import { GuardedStore } from '../store/guard.ts'
import type { Store, StoreOpener } from '../store/store.ts'
import { T_PLATFORM_ID } from '../sync/threads.ts'
import { Mm } from '../syscall/args.ts'
import { MEMORY_SHMEM, O_COORDINATED, O_RDONLY, O_RDWR, sys_close, sys_memory, sys_open } from '../syscall/file.ts'
import { sys_mm_create } from '../syscall/process.ts'
import { checkAttached, checkFile, checkMemory } from './belongs.ts'
import { type FremapError, orThrow, systemError } from './errors.ts'
import { describeSalvaged, forget, remember, type Unclosed } from './exit.ts'
import { MappedFile } from './file.ts'
import type { FileHandle, MappingHandle, MemoryHandle, SpaceHandle } from './handles.ts'
import { openHint, spacesHint } from './limits.ts'
import type { Mapping } from './mapping.ts'
import { type MemoryOptions, machineOptionsOf } from './memory-options.ts'
import { type MemoryStats, memoryStats } from './memory-stats.ts'
import { hasOsThreadEnded, osThread } from './os-thread.ts'
import { pagerHost, unlessAborted } from './pager-host.ts'
import { tried, turn } from './ready.ts'
import { formatSize, parseSize } from './size.ts'
import { AddressSpace } from './space.ts'

export interface AttachOptions {
  /** How to open, in this thread, the stores that other threads opened: `nodeFiles` of 'fremap/node', for example. */
  readonly stores?: readonly StoreOpener[]
  /**
   * The platform's number for this thread (Node: `threadId`), by which `watch` finds what to give back when the thread
   * ends.
   */
  readonly thread?: number
  /** Whether accesses of this thread block while another one brings their page; else they give EAGAIN. Default true. */
  readonly waitForPages?: boolean
}

export interface OpenAsyncOptions {
  /** Gives up opening. */
  readonly signal?: AbortSignal
  /**
   * A read of the store that takes longer is given up, and those who wait for its pages get ETIMEDOUT. A read may be of
   * several megabytes. Default 0: reads take as long as the store lets them.
   */
  readonly timeoutMs?: number
}

/** What `watch` needs of a worker; Node's Worker is one. */
export interface WatchedWorker {
  readonly threadId: number
  once(event: 'exit', listener: () => void): unknown
}

export class Memory {
  static {
    inspectedAs(Memory, memory => {
      const { pageSize, isOpen } = memory
      const threads = memory.machine.sync.threads.maxThreads
      return summary('Memory', { size: formatSize(memory.sizeBytes), pageSize, threads }, isOpen ? '' : 'closed')
    })
  }

  /** The machine, for the system-call layer. */
  declare readonly machine: Machine
  readonly pageSize: number
  /** The budget in bytes. */
  readonly sizeBytes: number
  readonly #kernel: Kernel
  readonly #swap: Store | undefined
  readonly #isAttached: boolean
  readonly #unclosed: Unclosed
  #isDetached = false
  #isSalvaged = false

  /** Throws RangeError for sizes out of range, and when the memory cannot be had. */
  constructor(options: MemoryOptions)
  /** @internal Use `Memory.attach`. */
  constructor(options: MemoryOptions, attached: Attached | undefined)
  constructor(options: MemoryOptions, attached?: Attached) {
    this.#isAttached = attached !== undefined
    if (attached !== undefined) {
      this.sizeBytes = attached.sizeBytes
      this.#kernel = attached.kernel
      this.#swap = attached.swap
    } else {
      const { machineOptions, sizeBytes } = machineOptionsOf(options)
      this.sizeBytes = sizeBytes
      this.#swap = options.swap?.store
      this.#kernel = createKernel(machineOptions)
      this.#kernel.machine.sleepsForPagers = options.waitForPages ?? false
    }
    defineHidden(this, { machine: this.#kernel.machine })
    const { sync } = this.machine
    const thread = sync.isShared ? osThread() : undefined
    if (thread !== undefined) sync.knowThread(thread.id, thread.start)
    sync.setSystem(hasOsThreadEnded)
    this.pageSize = this.machine.ram.pageSize
    this.#unclosed = remember(this.#kernel, this.#swap, this.#isAttached)
  }

  /**
   * Attaches this thread to a memory that another one made with `threads` above 1 and whose `handle` it sent. Spaces,
   * mappings and files are reached by their own handles (`adopt`). Throws OptionError when as many threads are attached
   * as it was made for (EAGAIN), and when the handle does not fit the memory that it came with, or this version of
   * fremap (EINVAL); ENODEV when it was closed, EOWNERDEAD when it is broken.
   */
  static attach(handle: MemoryHandle, options: AttachOptions = {}): Memory {
    if (handle?.kind !== 'memory') throw new TypeError('Memory.attach takes the handle of a memory')
    const { machine } = handle
    if (!isSharedBuffer(machine?.ram) || !isSharedBuffer(machine.arena)) {
      throw new TypeError(
        'this handle has lost its shared memory, as JSON does: send it by postMessage or workerData, as it is'
      )
    }
    const thread = threadNumber(options.thread)
    const opener = options.stores?.find(one => one.kind === machine.swap?.kind)
    const swap = machine.swap === undefined ? undefined : opener?.open(machine.swap)
    const kernel = attachKernel(machine, swap, thread)
    for (const one of options.stores ?? []) kernel.machine.inodes.stores.addOpener(one)
    // A thread that attached is a worker, as a rule: it may sleep until a pager has brought a page.
    kernel.machine.sleepsForPagers = options.waitForPages ?? true
    const memory = new Memory({ size: handle.sizeBytes }, { kernel, swap, sizeBytes: handle.sizeBytes })
    if (!kernel.machine.enter()) {
      forget(memory.#unclosed)
      kernel.machine.sync.threads.free(kernel.machine.sync.me)
      throw systemError(-kernel.machine.refused, 'attach')
    }
    const { open } = kernel.machine
    kernel.machine.leave()
    if (!open) {
      memory.detach()
      throw systemError(-ENODEV, 'attach')
    }
    return memory
  }

  /**
   * What another thread attaches by (`Memory.attach`): structured-cloneable. Throws if the memory was made for one
   * thread.
   */
  get handle(): MemoryHandle {
    checkAttached(this.machine, 'share')
    if (!this.machine.sync.isShared) {
      throw systemError(-EPERM, 'share', undefined, 'make the memory with the option threads, such as { threads: 4 }')
    }
    this.#unclosed.isGiven = true
    return { kind: 'memory', machine: this.#kernel.handle, sizeBytes: this.sizeBytes }
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    const { pageSize, sizeBytes, isOpen } = this
    return { kind: 'memory', sizeBytes, pageSize, threads: this.machine.sync.threads.maxThreads, isOpen }
  }

  /** False once it is closed, or this thread has left it. */
  get isOpen(): boolean {
    return this.machine.open && !this.#isDetached
  }

  /**
   * The file, address space or mapping that another thread sent the handle of. Throws EBADF for a file that was closed,
   * ESRCH for an address space that has ended, ESTALE for a mapping that was unmapped where something else is mapped by
   * now, EINVAL for a handle of another memory.
   */
  adopt(handle: FileHandle): MappedFile
  adopt(handle: SpaceHandle): AddressSpace
  adopt(handle: MappingHandle): Mapping
  adopt(handle: FileHandle | SpaceHandle | MappingHandle): MappedFile | AddressSpace | Mapping {
    const { machine } = this
    checkAttached(machine, 'adopt')
    if (handle?.kind === 'file') return this.#adoptFile(handle)
    if (handle?.kind === 'space') return this.#adoptSpace(handle)
    if (handle?.kind !== 'mapping')
      throw new TypeError('adopt takes the handle of a file, an address space or a mapping')
    const { file, vpn, pages } = handle
    const space = this.#adoptSpace(handle.space)
    if (!(Number.isSafeInteger(vpn) && Number.isSafeInteger(pages) && vpn >= 0 && pages > 0)) {
      throw systemError(-EINVAL, 'adopt', undefined, 'the mapping was not mapped any more when its handle was made')
    }
    space.checkShown(vpn, pages, handle.inode, handle.inodeSeq, 'adopt')
    // The file may be closed by now: its mappings go on.
    const mapped = file && this.#fileOf(file)
    return space.window(mapped, handle.writable, vpn, pages)
  }

  #adoptFile(handle: FileHandle): MappedFile {
    const file = this.#fileOf(handle)
    checkFile(this.machine, handle.fd, 'adopt', handle.name)
    return file
  }

  #fileOf({ memory, fd, name, writable }: FileHandle): MappedFile {
    const { machine } = this
    checkMemory(machine, memory, 'adopt', `the handle of ${name}`)
    return new MappedFile(machine, fd, name, writable)
  }

  #adoptSpace({ memory, id, generation }: SpaceHandle): AddressSpace {
    const { machine } = this
    checkMemory(machine, memory, 'adopt', 'the handle of the address space')
    const isRow = Number.isSafeInteger(id) && id > 0 && id <= machine.mms.maxMms
    const mm = isRow ? new Mm(machine, id, generation) : undefined
    if (mm?.isAlive !== true) throw systemError(-ESRCH, 'adopt')
    return new AddressSpace(mm)
  }

  /**
   * Watches a worker that attaches: when it ends, however it ends, what it held is given back. Without this, threads
   * that wait for something a dead one held find out by themselves: at once on Linux with Node; elsewhere after 20
   * seconds, and then the memory is declared broken (EOWNERDEAD). Throws EINVAL for a worker that has exited already:
   * it has no number any more.
   */
  watch(worker: WatchedWorker): void {
    checkAttached(this.machine, 'watch')
    const { threadId } = worker
    checkNumber(threadId, 'watch')
    worker.once('exit', () => {
      if (!this.machine.hasLeft) this.ended(threadId)
    })
  }

  /**
   * Says that a thread has ended, by the number that it attached with (`thread`): what it held is given back. For
   * platforms whose workers do not tell, such as browsers: call it after `worker.terminate()`, and never while the
   * thread still runs. Nothing happens where no thread has attached with the number. Throws EINVAL for what is no
   * thread's number (Node's `threadId` is -1 once a worker has exited), and for this thread's own: that is `detach`.
   */
  ended(thread: number): void {
    checkAttached(this.machine, 'ended')
    checkNumber(thread, 'ended')
    const { me, threads } = this.machine.sync
    if (threads.w[threads.at(me, T_PLATFORM_ID)] === thread) {
      throw systemError(-EINVAL, 'ended', undefined, `thread ${thread} is this one, which runs; detach ends its use`)
    }
    for (let t = threads.find(thread); t >= 0; t = threads.find(thread))
      if (recoverThread(this.machine, t, thread) !== 0) return
  }

  /**
   * Ends this thread's use of the memory; it goes on for the others. All that this thread has of it (files, spaces,
   * mappings) is refused from then on, with ENODEV or EBADF. A memory for one thread is closed.
   */
  detach(): void {
    if (!this.machine.sync.isShared) this.close()
    if (this.#isDetached || !this.machine.sync.isShared) return
    this.#isDetached = true
    forget(this.#unclosed)
    void this.machine.pager?.end()
    this.machine.inodes.stores.closeAll()
    if (this.#isAttached) this.#swap?.close()
    const { me, threads } = this.machine.sync
    recoverThread(this.machine, me, threads.w[threads.at(me, T_PLATFORM_ID)])
    this.machine.leaveForGood()
  }

  /**
   * Opens a store, such as `nodeFile(path, 'r+')`. The Memory closes it. Writable if the store is.
   * A file that is open already is open once more, with what its store has by now ('w+' has cut it, for all).
   * Throws the store's error, ENFILE and EMFILE; EBUSY when another memory of this thread has the file open for
   * writing, unless both opens are `coordinated`: each memory then writes back the pages that it has changed, over what
   * the other one wrote there.
   */
  open(store: Store, options: { readonly coordinated?: boolean } = {}): MappedFile {
    if (typeof store?.read !== 'function') {
      const path = typeof store === 'string' ? `'${store}'` : 'path'
      throw new TypeError(
        `memory.open takes a store: memory.open(nodeFile(${path}, 'r')), with nodeFile of 'fremap/node', for a file`
      )
    }
    const { machine } = this
    // What it is is read here, once.
    const guarded = new GuardedStore(store, machine.sync)
    const { name, readOnly } = guarded
    const flags = (readOnly ? O_RDONLY : O_RDWR) + (options.coordinated === true ? O_COORDINATED : 0)
    const fd = sys_open(machine, guarded, flags)
    if (fd < 0) throw openError(machine, fd, name, guarded.lastThrown)
    return new MappedFile(machine, fd, name, !readOnly)
  }

  /**
   * Opens, for reading, a store that answers later, such as `await httpRange(url)`. This thread is its pager from then
   * on: it brings the store's pages between the turns of its event loop, also those that other threads touch. An access
   * whose page is not there gives EAGAIN in this thread (await `mapping.ready` first) and blocks in a thread that
   * attached. The Memory closes the store. Stores with one `identity` share their pages.
   * Rejects with the store's error, with ENFILE, EMFILE, ENODEV (the memory is closed), or the signal's reason.
   */
  async openAsync(store: AsyncStore, options: OpenAsyncOptions = {}): Promise<MappedFile> {
    const { machine } = this
    const { signal, timeoutMs = 0 } = options
    if (!(timeoutMs >= 0 && timeoutMs < 2 ** 31)) throw new RangeError(`a time-out of ${timeoutMs} ms cannot be`)
    if (typeof store?.size !== 'function')
      throw new TypeError('memory.openAsync takes a store that answers later, such as await httpRange(url)')
    let fd = 0
    let name = ''
    try {
      signal?.throwIfAborted()
      name = String(store.name)
      const { identity } = store
      const given = await unlessAborted(Promise.resolve(store.size(signal)), signal)
      const size = sizeOf(machine, name, given)
      const open = (): void => {
        const isClosed = this.#isDetached || !machine.open
        fd = isClosed ? -ENODEV : this.#openLater(store, name, identity, size, timeoutMs)
      }
      while (!tried(machine, 'open', open)) await unlessAborted(turn(), signal)
    } catch (error) {
      await this.#closeUnlessServed(store)
      throw error
    }
    await this.#closeUnlessServed(store)
    if (fd < 0) throw openError(machine, fd, name, undefined)
    return new MappedFile(machine, fd, name, false)
  }

  /** A store that was not opened, or whose twin is open already. What becomes of it interests nobody. */
  async #closeUnlessServed(store: AsyncStore): Promise<void> {
    if (this.machine.pager?.has(store) === true) return
    try {
      await store.close()
    } catch {}
  }

  #openLater(store: AsyncStore, name: string, identity: string | undefined, size: number, timeoutMs: number): number {
    const { machine } = this
    if (size < 0) return size
    machine.pager ??= new Pager(machine, pagerHost)
    const known = machine.pager.inodeOf(store, identity)
    if (known !== 0) return openAgain(machine, known)
    const fd = openLater(machine, name, size)
    if (fd >= 0) machine.pager.add(machine.files.inode[fileOf(machine, fd)], store, name, identity, timeoutMs)
    return fd
  }

  /** New shared memory that reads as zero: a file without a store, gone when it is closed and unmapped everywhere. */
  shared(size: number | string, name = 'shared memory'): MappedFile {
    if (typeof name !== 'string') throw new TypeError('the name of shared memory is a string')
    const fd = sys_memory(this.machine, name, MEMORY_SHMEM, parseSize(size), 0)
    return new MappedFile(
      this.machine,
      orThrow(fd, 'memfd_create', undefined, openHint(this.machine, fd, name)),
      name,
      true
    )
  }

  /** A new, empty address space. */
  space(): AddressSpace {
    const mm = sys_mm_create(this.machine)
    if (typeof mm === 'number') throw systemError(mm, 'mm_create', undefined, spacesHint(this.machine, mm))
    return new AddressSpace(mm)
  }

  /** Evicts what can be evicted, dirty pages by writing them. → pages freed. */
  shrink(): number {
    const { machine } = this
    const shrink = (): number => {
      giveUpReserve(machine)
      return machine.reclaim.shrinkAll(machine.sync.isShared ? IN_WINDOWS : UNDER_LOCK)
    }
    return orThrow(machine.run(shrink), 'shrink')
  }

  /** The last events, oldest first, as lines. Empty without `traceEntries`. */
  trace(most?: number): string[] {
    checkAttached(this.machine, 'trace')
    return traceRows(this.machine, most).map(row => formatTraceRow(this.machine, row))
  }

  /**
   * Walks the whole machine and verifies every invariant: for tests, and for reports of bugs. Takes time in proportion
   * to the memory. → what is wrong, as lines; empty when all is well.
   */
  check(): string[] {
    checkAttached(this.machine, 'check')
    return this.machine.quietly(() => checkMachine(this.machine))
  }

  /** What the machine counts and holds, now. */
  stats(): MemoryStats {
    checkAttached(this.machine, 'stats')
    return this.machine.quietly(() => memoryStats(this.#kernel))
  }

  /**
   * Saves what can be saved of a broken memory (a thread ended in the middle of a change, EOWNERDEAD; an error of
   * fremap itself, ENOTRECOVERABLE): changed pages of files, if they are whole for certain, are written to the stores
   * that this thread can reach, and flushed. With `take` they are handed to that instead, as copies. Pages in doubt are
   * left as the store has them. Any thread may do it, also again; `close` does it unless it was done.
   * → what became of each file with changes. Throws EINVAL when the memory is not broken (`sync` does it then), and
   * what `take` throws.
   */
  salvage(take?: TakePage): SalvagedFile[] {
    const { machine } = this
    if (machine.sync.broken === 0) throw systemError(-EINVAL, 'salvage', undefined, 'the memory is not broken: sync it')
    if (this.#isDetached || !machine.open) throw systemError(-ENODEV, 'salvage')
    this.#isSalvaged = true
    this.#unclosed.isSalvaged = true
    return salvageFiles(machine, take)
  }

  /**
   * Ends all address spaces and closes all files, writing what is dirty. Throws the first error of a write after
   * everything is closed. A second close does nothing. What is whole of a broken memory is saved first (`salvage`).
   */
  close(): void {
    const m = this.machine
    if (!m.open || this.#isDetached) return
    const why = m.inside ? m.whyInside : 0
    ensureStack()
    const saved = m.sync.broken === 0 || this.#isSalvaged ? [] : this.salvage()
    const what = saved.length === 0 ? undefined : saved.map(describeSalvaged).join('; ')
    if (m.inside) throw systemError(-why, 'close', undefined, what)
    forget(this.#unclosed)
    // From here on no thread makes or opens anything that would not be closed below.
    m.open = false
    let first = 0
    for (let mm = 1; mm <= m.mms.maxMms; mm++) {
      if (!m.mms.isAlive(mm)) continue
      const result = m.runOn(mm, 0, () => endMm(m, mm))
      if (result < 0 && result !== -ESRCH && first === 0) first = result
    }
    for (const fd of openFds(m)) {
      const result = sys_close(m, fd)
      if (result < 0 && first === 0) first = result
    }
    // First, so that no thread waits in a call on a file for a page that this one would have to bring.
    void m.pager?.end()
    const waited = waitForFileCalls(m)
    if (waited < 0 && first === 0) first = waited
    m.inodes.stores.closeAll()
    this.#swap?.close()
    orThrow(first, 'close', undefined, what ?? 'some changes did not reach their store')
  }

  /**
   * `close`, and resolves when the stores that answer later are closed too: their reads are given up, not awaited.
   * Rejects with ETIMEDOUT, naming them, when some are not closed within `patienceMs`.
   */
  async closeAsync(): Promise<void> {
    const { patienceMs } = this.machine.sync
    let open: string[] = []
    try {
      this.close()
    } finally {
      open = (await this.machine.pager?.end(patienceMs)) ?? []
    }
    if (open.length === 0) return
    throw systemError(-ETIMEDOUT, 'close', undefined, `${open.join(', ')} did not close within ${patienceMs} ms`)
  }

  /** Closes the memory; in a thread that attached, only detaches. */
  [Symbol.dispose](): void {
    if (this.#isAttached) this.detach()
    else this.close()
  }
}

/** The platform's number for a thread, -1 where none was given. */
function threadNumber(thread: number | undefined): number {
  if (thread === undefined) return -1
  if (isThreadNumber(thread)) return thread
  throw new RangeError(`${thread} is no number of a thread; in Node it is the threadId of node:worker_threads`)
}

function isThreadNumber(thread: number): boolean {
  return Number.isSafeInteger(thread) && thread >= 0 && thread <= 0x7fffffff
}

function checkNumber(thread: number, syscall: string): void {
  if (isThreadNumber(thread)) return
  const hint = `${thread} is no thread's number; a worker's threadId is -1 once it has exited, so read it before`
  throw systemError(-EINVAL, syscall, undefined, hint)
}

interface Attached {
  readonly kernel: Kernel
  readonly swap: Store | undefined
  readonly sizeBytes: number
}

/** The error for an open that gave `result`. `thrown` is what the store threw, or what is wrong about its answer. */
function openError(machine: Machine, result: number, name: string, thrown: unknown): FremapError {
  const hint = openHint(machine, result, name)
  const error = systemError(
    result,
    'open',
    undefined,
    thrown instanceof WrongAnswer ? `${hint}: ${thrown.message}` : hint
  )
  if (result === -EIO && thrown !== undefined) error.cause = thrown
  return error
}

/** What `size` of a store that answers later gave, if it is a size or an errno. */
function sizeOf(machine: Machine, name: string, given: unknown): number {
  try {
    return answerOf(name, 'size', given, Number.MAX_SAFE_INTEGER)
  } catch (thrown) {
    throw openError(machine, -EIO, name, thrown)
  }
}
