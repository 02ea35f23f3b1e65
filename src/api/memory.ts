/**
 * Memory: a machine with a hard budget, the page cache of its files, and address spaces to map them in.
 *
 *     using memory = new Memory({ size: '64MiB' })
 *     const file = memory.open(nodeFile('huge.db', 'r+'))
 *     using map = memory.space().map(file, { writable: true })
 */
import { EDEADLK } from '../abi/errno.ts'
import { MAX_FRAMES } from '../abi/limits.ts'
import { MM_NR_TABLES } from '../frame/mm-table.ts'
import { VMSTAT_NAMES } from '../frame/vmstat.ts'
import { createKernel, FRAME_OVERHEAD_BYTES, type Kernel, MAX_RAM_BYTES, type MachineOptions } from '../kernel.ts'
import { type Machine, POLICY_LINUX, POLICY_NONLINEAR } from '../mm/machine.ts'
import { endMm } from '../mm/space.ts'
import { checkMachine } from '../observe/check.ts'
import { formatTraceRow, traceRows } from '../observe/trace.ts'
import type { Store } from '../store/store.ts'
import { MEMORY_SHMEM, O_RDONLY, O_RDWR, sys_close, sys_memory, sys_open } from '../syscall/file.ts'
import { sys_mm_create } from '../syscall/process.ts'
import { orThrow, systemError } from './errors.ts'
import { MappedFile } from './file.ts'
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
  /**
   * Where the page frames are to lie, from byte `byteOffset` on (a multiple of the page size): in the `buffer` of a shared
   * WebAssembly.Memory, whose guest then reads them in place (`ShadowTable`). They take a little less than `size`. What
   * stands there is lost. Default: a buffer of their own.
   */
  readonly ram?: { readonly buffer: ArrayBufferLike; readonly byteOffset: number }
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

  /** Throws RangeError for sizes out of range, and when the memory cannot be had. */
  constructor(options: MemoryOptions) {
    const pageSize = options.pageSize ?? 4096
    const pageShift = Math.log2(pageSize)
    if (!Number.isInteger(pageShift) || pageSize < 512 || pageSize > 65536) {
      throw new RangeError(`a page of ${pageSize} bytes cannot be; it is a power of two from 512 to 65536`)
    }
    const policy = options.policy ?? 'nonlinear'
    if (policy !== 'nonlinear' && policy !== 'linux') {
      throw new TypeError(`${String(policy)} is no policy; it is 'nonlinear' or 'linux'`)
    }
    this.sizeBytes = parseSize(options.size)
    const nrFrames = Math.floor(this.sizeBytes / (pageSize + FRAME_OVERHEAD_BYTES))
    const maxFrames = Math.min(MAX_FRAMES, Math.floor(MAX_RAM_BYTES / pageSize))
    if (nrFrames < 8 || nrFrames > maxFrames) {
      const [few, many] = [8, maxFrames].map(n => n * (pageSize + FRAME_OVERHEAD_BYTES))
      throw new RangeError(
        `a memory of ${this.sizeBytes} bytes cannot be; with ${pageSize}-byte pages it is ${few} to ${many}`
      )
    }
    const machineOptions: { -readonly [K in keyof MachineOptions]: MachineOptions[K] } = {
      nrFrames,
      pageShift,
      policy: policy === 'linux' ? POLICY_LINUX : POLICY_NONLINEAR,
      poison: options.debug === true
    }
    if (options.ram !== undefined) machineOptions.ram = { ...options.ram, buffer: sharedBuffer(options.ram.buffer) }
    if (options.swap !== undefined) {
      const nrSlots = Math.min(MAX_FRAMES, Math.max(1, Math.floor(parseSize(options.swap.size) / pageSize)))
      machineOptions.swap = { store: options.swap.store, nrSlots }
      this.#swap = options.swap.store
    }
    if (options.faultAroundPages !== undefined) machineOptions.faultAroundPages = options.faultAroundPages
    if (options.readahead !== undefined) machineOptions.readaheadBytes = parseSize(options.readahead)
    if (options.traceEntries !== undefined) machineOptions.traceEntries = options.traceEntries
    if (options.maxMapCount !== undefined) machineOptions.maxMapCount = options.maxMapCount
    this.#kernel = createKernel(machineOptions)
    this.machine = this.#kernel.machine
    this.pageSize = pageSize
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
    if (!machine.enter()) throw systemError(-EDEADLK, 'shrink')
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
    return checkMachine(this.machine)
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
      counters
    }
  }

  /**
   * Ends all address spaces and closes all files, writing what is dirty. Throws the first error of a write after
   * everything is closed. A second close does nothing.
   */
  close(): void {
    const m = this.machine
    if (!m.open) return
    if (!m.enter()) throw systemError(-EDEADLK, 'close')
    let first = 0
    for (let mm = 1; mm <= m.mms.maxMms; mm++) {
      const result = m.mms.isAlive(mm) ? endMm(m, mm) : 0
      if (result < 0 && first === 0) first = result
    }
    m.leave()
    for (let fd = 0; fd < m.fds.length; fd++) {
      if (m.fds[fd] === 0) continue
      const result = sys_close(m, fd)
      if (result < 0 && first === 0) first = result
    }
    m.open = false
    this.#swap?.close()
    orThrow(first, 'close', undefined, 'some changes did not reach their store')
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function sharedBuffer(buffer: ArrayBufferLike): SharedArrayBuffer {
  if (buffer instanceof SharedArrayBuffer) return buffer
  throw new TypeError(
    'ram must be shared memory: a SharedArrayBuffer, or the buffer of a WebAssembly.Memory that is shared'
  )
}
