/**
 * Memory: a machine with a hard budget, the page cache of its files, and address spaces to map them in.
 *
 *     using memory = new Memory({ size: '64MiB' })
 *     const file = memory.open(nodeFile('huge.db', 'r+'))
 *     using map = memory.space().map(file, { writable: true })
 */
import { EDEADLK, ENODEV, EPERM, ESRCH } from '../abi/errno.ts'
import { MAX_FRAMES } from '../abi/limits.ts'
import { MM_NR_TABLES } from '../frame/mm-table.ts'
import { VMSTAT_NAMES } from '../frame/vmstat.ts'
import {
  attachKernel,
  createKernel,
  FRAME_OVERHEAD_BYTES,
  type Kernel,
  MAX_RAM_BYTES,
  type MachineOptions
} from '../kernel.ts'
import { type Machine, POLICY_LINUX, POLICY_NONLINEAR } from '../mm/machine.ts'
import { recoverThread } from '../mm/recover.ts'
import { endMm } from '../mm/space.ts'
import { checkMachine } from '../observe/check.ts'
import { formatTraceRow, traceRows } from '../observe/trace.ts'
import type { Store, StoreOpener } from '../store/store.ts'
import { T_LOCK_WAITS, T_PLATFORM_ID, T_RETRIES, T_STATE, T_WAITS, THREAD_ATTACHED } from '../sync/threads.ts'
import { Mm } from '../syscall/args.ts'
import { MEMORY_SHMEM, O_RDONLY, O_RDWR, sys_close, sys_fsize, sys_memory, sys_open } from '../syscall/file.ts'
import { sys_mm_create } from '../syscall/process.ts'
import { orThrow, systemError } from './errors.ts'
import { MappedFile } from './file.ts'
import type { FileHandle, MappingHandle, MemoryHandle, SpaceHandle } from './handles.ts'
import type { Mapping } from './mapping.ts'
import { parseSize } from './size.ts'
import { AddressSpace } from './space.ts'

export interface SwapOptions {
  /** Where swapped-out pages go: a file of its own, or `memoryStore()`, which lies outside the budget. */
  readonly store: Store
  /** How much fits, in bytes or like '1GiB'. */
  readonly size: number | string
}

export interface MemoryOptions {
  /** The budget: page frames and their table together, in bytes or like '64MiB'. Page tables come out of the frames. */
  readonly size: number | string
  /** Bytes in a page: a power of two from 512 to 65,536. Default 4,096. */
  readonly pageSize?: number
  /** Lets shared and private memory be evicted too. Without it only file pages can be. */
  readonly swap?: SwapOptions
  /** 'nonlinear' (default), or 'linux': remap disk files by linear mappings, as Linux does. */
  readonly policy?: 'nonlinear' | 'linux'
  /** Pages that one read fault may map around itself, a power of two; 1 = off. Default 16. */
  readonly faultAroundPages?: number
  /** Largest readahead, in bytes or like '1MiB'; 0 = off. Default 1 MiB. */
  readonly readahead?: number | string
  /** Mappings that an address space may have. Default 65,530, as on Linux. */
  readonly maxMapCount?: number
  /** Fill freed frames with a pattern, to find uses of stale views. Default false. */
  readonly debug?: boolean
  /** Events that the trace ring keeps (`memory.trace()`). Default 0: none. */
  readonly traceEntries?: number
  /** Threads that may be attached at the same time, this one included: 1 to 64. Default 1: `handle` is not to be had then. */
  readonly threads?: number
  /** The platform's number for this thread (Node: `threadId`). Default: none. */
  readonly thread?: number
}

export interface AttachOptions {
  /** How to open, in this thread, the stores that other threads opened: `nodeFiles` of 'fremap/node', for example. */
  readonly stores?: readonly StoreOpener[]
  /** The platform's number for this thread (Node: `threadId`), by which `watch` finds what to give back when the thread ends. */
  readonly thread?: number
}

/** What `watch` needs of a worker; Node's Worker is one. */
export interface WatchedWorker {
  readonly threadId: number
  once(event: 'exit', listener: () => void): unknown
}

/** How a thread is getting on. */
export interface ThreadStats {
  /** The platform's number for the thread, -1 if it gave none. */
  readonly thread: number
  /** How often it waited for the machine lock; for another lock or page; and how often a load was made again. */
  readonly lockWaits: number
  readonly waits: number
  readonly retries: number
}

/** The arena's parts that grow with the number of frames. */
const FRAME_PARTS = ['frame table', 'free bitmap', 'page cache', 'reverse map']

/** A snapshot of the counters. Pages unless the name says otherwise. */
export interface MemoryStats {
  readonly pageSize: number
  readonly frames: number
  readonly freeFrames: number
  /** Most frames in use at any time. */
  readonly peakFrames: number
  readonly pageTables: number
  readonly pageTableBytes: number
  readonly reverseMapSlabs: number
  readonly swapUsed: number
  readonly swapSlots: number
  /** Bytes of all that describes frames: their table, the cache's index, the reverse map with its nodes. */
  readonly frameOverheadBytes: number
  /** What lies beside the frames, by name, in bytes; mostly reserved and untouched until used. */
  readonly besideBytes: Readonly<Record<string, number>>
  /** The threads that are attached. */
  readonly threads: readonly ThreadStats[]
  /** pgfault, pgmajfault, pgpgin, pgsteal and the others of vmstat, by name. */
  readonly counters: Readonly<Record<string, number>>
}

export class Memory {
  /** The machine, for the system-call layer. */
  readonly machine: Machine
  readonly pageSize: number
  /** The budget in bytes. */
  readonly sizeBytes: number
  readonly #kernel: Kernel
  readonly #swap: Store | undefined
  readonly #isAttached: boolean
  #isDetached = false

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
      const { machineOptions, sizeBytes } = plan(options)
      this.sizeBytes = sizeBytes
      this.#swap = options.swap?.store
      this.#kernel = createKernel(machineOptions)
    }
    this.machine = this.#kernel.machine
    this.pageSize = this.machine.ram.pageSize
  }

  /**
   * Attaches this thread to a memory that another one made with `threads` above 1 and whose `handle` it sent. Spaces, mappings and files are
   * reached by their own handles (`adopt`). Throws OptionError when as many threads are attached as it was made for, ENODEV when it was
   * closed, EOWNERDEAD when it is broken.
   */
  static attach(handle: MemoryHandle, options: AttachOptions = {}): Memory {
    if (handle?.kind !== 'memory') throw new TypeError('Memory.attach takes the handle of a memory')
    const { machine } = handle
    const opener = options.stores?.find(one => one.kind === machine.swap?.kind)
    const swap = machine.swap === undefined ? undefined : opener?.open(machine.swap)
    const kernel = attachKernel(machine, swap, options.thread ?? -1)
    for (const one of options.stores ?? []) kernel.machine.inodes.stores.addOpener(one)
    // A thread that attached is a worker: it may sleep until a pager has brought a page.
    kernel.machine.sleepsForPagers = true
    const memory = new Memory({ size: handle.sizeBytes }, { kernel, swap, sizeBytes: handle.sizeBytes })
    if (!kernel.machine.enter()) {
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

  /** What another thread attaches by (`Memory.attach`): structured-cloneable. Throws if the memory was made for one thread. */
  get handle(): MemoryHandle {
    if (!this.machine.sync.isShared) {
      throw systemError(-EPERM, 'share', undefined, 'make the memory with the option threads, such as { threads: 4 }')
    }
    return { kind: 'memory', machine: this.#kernel.handle, sizeBytes: this.sizeBytes }
  }

  /** The file, address space or mapping that another thread sent the handle of. Throws ESRCH or EBADF when it has ended. */
  adopt(handle: FileHandle): MappedFile
  adopt(handle: SpaceHandle): AddressSpace
  adopt(handle: MappingHandle): Mapping
  adopt(handle: FileHandle | SpaceHandle | MappingHandle): MappedFile | AddressSpace | Mapping {
    if (handle.kind === 'file') {
      orThrow(sys_fsize(this.machine, handle.fd), 'adopt')
      return new MappedFile(this.machine, handle.fd, handle.name, handle.writable)
    }
    if (handle.kind === 'space') {
      const mm = new Mm(this.machine, handle.id, handle.generation)
      if (!mm.isAlive) throw systemError(-ESRCH, 'adopt')
      return new AddressSpace(mm)
    }
    if (handle?.kind !== 'mapping')
      throw new TypeError('adopt takes the handle of a file, an address space or a mapping')
    const { file } = handle
    const mapped = file && new MappedFile(this.machine, file.fd, file.name, file.writable)
    return this.adopt(handle.space).window(mapped, handle.writable, handle.vpn, handle.pages)
  }

  /**
   * Watches a worker that attaches: when it ends, however it ends, what it held is given back. Without this, threads that wait for
   * something a dead one held find out by themselves, after 20 seconds, and the memory is declared broken (EOWNERDEAD).
   */
  watch(worker: WatchedWorker): void {
    const { threadId } = worker
    worker.once('exit', () => {
      const { threads } = this.machine.sync
      for (let t = threads.find(threadId); t >= 0; t = threads.find(threadId))
        if (recoverThread(this.machine, t) !== 0) return
    })
  }

  /** Ends this thread's use of the memory; it goes on for the others. Mappings of this thread must not be used any more. */
  detach(): void {
    if (this.#isDetached) return
    this.#isDetached = true
    this.machine.inodes.stores.closeAll()
    if (this.#isAttached) this.#swap?.close()
    recoverThread(this.machine, this.machine.sync.me)
  }

  /**
   * Opens a store, such as `nodeFile(path, 'r+')`. The Memory closes it. Writable if the store is.
   * Throws the store's error, ENFILE and EMFILE.
   */
  open(store: Store): MappedFile {
    const writable = !store.readOnly
    const fd = sys_open(this.machine, store, writable ? O_RDWR : O_RDONLY)
    return new MappedFile(this.machine, orThrow(fd, 'open', undefined, `opening ${store.name}`), store.name, writable)
  }

  /** New shared memory that reads as zero: a file without a store, gone when it is closed and unmapped everywhere. */
  shared(size: number | string, name = 'shared memory'): MappedFile {
    const fd = sys_memory(this.machine, name, MEMORY_SHMEM, parseSize(size), 0)
    return new MappedFile(this.machine, orThrow(fd, 'memfd_create'), name, true)
  }

  /** A new, empty address space. */
  space(): AddressSpace {
    const mm = sys_mm_create(this.machine)
    if (typeof mm === 'number') throw systemError(mm, 'mm_create')
    return new AddressSpace(mm)
  }

  /** Evicts what can be evicted, dirty pages by writing them. → pages freed. */
  shrink(): number {
    const { machine } = this
    if (!machine.enter()) throw systemError(-machine.refused, 'shrink')
    const freed = machine.reclaim.shrinkAll()
    machine.leave()
    return freed
  }

  /** The last events, oldest first, as lines. Empty without `traceEntries`. */
  trace(most?: number): string[] {
    return traceRows(this.machine, most).map(row => formatTraceRow(this.machine, row))
  }

  /**
   * Walks the whole machine and verifies every invariant: for tests, and for reports of bugs. Takes time in proportion
   * to the memory. → what is wrong, as lines; empty when all is well.
   */
  check(): string[] {
    return this.machine.quietly(() => checkMachine(this.machine))
  }

  /** What the machine counts and holds, now. */
  stats(): MemoryStats {
    const m = this.machine
    let pageTables = 0
    for (let mm = 1; mm <= m.mms.maxMms; mm++) if (m.mms.isAlive(mm)) pageTables += m.mms.row(mm, MM_NR_TABLES)
    const counters: Record<string, number> = {}
    VMSTAT_NAMES.forEach((name, i) => {
      counters[name] = m.vmstat[i]
    })
    const slabs = m.nodes.nrSlabs
    const besideBytes: Record<string, number> = { 'I/O buffer': m.filler.bounce.length }
    for (const { name, bytes } of this.#kernel.layout) besideBytes[name] = bytes
    return {
      pageSize: this.pageSize,
      frames: m.ram.nrFrames,
      freeFrames: m.allocator.nrFree,
      peakFrames: m.allocator.peakUsed,
      pageTables,
      pageTableBytes: pageTables * this.pageSize,
      reverseMapSlabs: slabs,
      swapUsed: m.swap.nrUsed,
      swapSlots: m.swap.nrSlots,
      frameOverheadBytes: FRAME_PARTS.reduce((sum, part) => sum + (besideBytes[part] ?? 0), 0) + slabs * this.pageSize,
      besideBytes,
      threads: threadStats(m),
      counters
    }
  }

  /**
   * Ends all address spaces and closes all files, writing what is dirty. Throws the first error of a write after
   * everything is closed. A second close does nothing.
   */
  close(): void {
    const m = this.machine
    if (!m.open || this.#isDetached) return
    if (m.inside) throw systemError(-EDEADLK, 'close')
    let first = 0
    for (let mm = 1; mm <= m.mms.maxMms; mm++) {
      if (!m.mms.isAlive(mm) || !m.lockMm(mm, 0)) continue
      const result = endMm(m, mm)
      m.unlock(mm)
      if (result < 0 && first === 0) first = result
    }
    for (let fd = 0; fd < m.fds.length; fd++) {
      if (m.fds[fd] === 0) continue
      const result = sys_close(m, fd)
      if (result < 0 && first === 0) first = result
    }
    m.open = false
    m.inodes.stores.closeAll()
    this.#swap?.close()
    orThrow(first, 'close', undefined, 'some changes did not reach their store')
  }

  /** Closes the memory; in a thread that attached, only detaches. */
  [Symbol.dispose](): void {
    if (this.#isAttached) this.detach()
    else this.close()
  }
}

interface Attached {
  readonly kernel: Kernel
  readonly swap: Store | undefined
  readonly sizeBytes: number
}

/** The machine's options for those of a memory. */
function plan(options: MemoryOptions): { machineOptions: MachineOptions; sizeBytes: number } {
  const pageSize = options.pageSize ?? 4096
  const pageShift = Math.log2(pageSize)
  if (!Number.isInteger(pageShift) || pageSize < 512 || pageSize > 65536) {
    throw new RangeError(`a page of ${pageSize} bytes cannot be; it is a power of two from 512 to 65536`)
  }
  const policy = options.policy ?? 'nonlinear'
  if (policy !== 'nonlinear' && policy !== 'linux') {
    throw new TypeError(`${String(policy)} is no policy; it is 'nonlinear' or 'linux'`)
  }
  const sizeBytes = parseSize(options.size)
  const nrFrames = Math.floor(sizeBytes / (pageSize + FRAME_OVERHEAD_BYTES))
  const maxFrames = Math.min(MAX_FRAMES, Math.floor(MAX_RAM_BYTES / pageSize))
  if (nrFrames < 8 || nrFrames > maxFrames) {
    const [few, many] = [8, maxFrames].map(n => n * (pageSize + FRAME_OVERHEAD_BYTES))
    throw new RangeError(
      `a memory of ${sizeBytes} bytes cannot be; with ${pageSize}-byte pages it is ${few} to ${many}`
    )
  }
  const machineOptions: { -readonly [K in keyof MachineOptions]: MachineOptions[K] } = {
    nrFrames,
    pageShift,
    policy: policy === 'linux' ? POLICY_LINUX : POLICY_NONLINEAR,
    poison: options.debug === true
  }
  if (options.swap !== undefined) {
    const nrSlots = Math.min(MAX_FRAMES, Math.max(1, Math.floor(parseSize(options.swap.size) / pageSize)))
    machineOptions.swap = { store: options.swap.store, nrSlots }
  }
  if (options.faultAroundPages !== undefined) machineOptions.faultAroundPages = options.faultAroundPages
  if (options.readahead !== undefined) machineOptions.readaheadBytes = parseSize(options.readahead)
  if (options.traceEntries !== undefined) machineOptions.traceEntries = options.traceEntries
  if (options.maxMapCount !== undefined) machineOptions.maxMapCount = options.maxMapCount
  if (options.threads !== undefined) machineOptions.threads = options.threads
  if (options.thread !== undefined) machineOptions.platformThread = options.thread
  return { machineOptions, sizeBytes }
}

function threadStats(m: Machine): ThreadStats[] {
  const { threads } = m.sync
  const stats: ThreadStats[] = []
  for (let t = 0; t < threads.maxThreads; t++) {
    const row = threads.at(t, 0)
    if (threads.w[row + T_STATE] !== THREAD_ATTACHED) continue
    const [thread, lockWaits, waits, retries] = [T_PLATFORM_ID, T_LOCK_WAITS, T_WAITS, T_RETRIES].map(
      word => threads.w[row + word]
    )
    stats.push({ thread, lockWaits, waits, retries })
  }
  return stats
}
