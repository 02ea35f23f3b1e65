/** What a Memory is made with, and the machine's options for it. */
import { MAX_FRAMES } from '../abi/limits.ts'
import { isSharedBuffer } from '../base/bytes.ts'
import { FRAME_OVERHEAD_BYTES, MAX_RAM_BYTES, type MachineOptions } from '../kernel.ts'
import { POLICY_LINUX, POLICY_NONLINEAR } from '../mm/machine.ts'
import type { Store } from '../store/store.ts'
import { parseSize } from './size.ts'

export interface SwapOptions {
  /** Where swapped-out pages go: a file of its own, or `memoryStore()`, which lies outside the budget. */
  readonly store: Store
  /** How much fits, in bytes or like '1GiB'. */
  readonly size: number | string
}

export interface MemoryOptions {
  /** The budget: page frames and their table together, in bytes or like '64MiB'. Page tables come out of the frames. */
  readonly size: number | string
  /** Bytes in a page, or like '64KiB': a power of two from 512 to 65,536. Default 4,096. */
  readonly pageSize?: number | string
  /**
   * Where the page frames are to lie, from byte `byteOffset` on (a multiple of the page size): in the `buffer` of a
   * shared WebAssembly.Memory, whose guest then reads them in place (`ShadowTable`). They take a little less than
   * `size`. What stands there is lost. Default: a buffer of their own.
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
  /**
   * Mappings that all address spaces have together. Default 1,024 more than `maxMapCount`. Each costs 0.1 KiB beside
   * `size` once it was used.
   */
  readonly maxVmas?: number
  /**
   * Files, shared memories included, that are open or mapped at the same time. Default 16,384. Each costs 0.2 KiB
   * beside `size`, with threads 1.2.
   */
  readonly maxInodes?: number
  /** Opens of them at the same time. Default 32,768. */
  readonly maxFiles?: number
  /** Address spaces. Default 1,024. */
  readonly maxSpaces?: number
  /** Fill freed frames with a pattern, to find uses of stale views. Default false. */
  readonly debug?: boolean
  /** Events that the trace ring keeps (`memory.trace()`). Default 0: none. */
  readonly traceEntries?: number
  /**
   * Threads that may be attached at the same time, this one included: 1 to 64. Default 1: `handle` is not to be had
   * then.
   */
  readonly threads?: number
  /**
   * How long a thread waits for another one that shows no sign of life, in milliseconds, before the memory is declared
   * broken (EOWNERDEAD); ten times as long for one that is in a call of a store. Default 20,000. On Linux with Node
   * threads see whether another one has ended, and wait for one that lives for as long as it takes. Also how long
   * `closeAsync` waits for the stores that answer later.
   */
  readonly patienceMs?: number
  /** The platform's number for this thread (Node: `threadId`). Default: none. */
  readonly thread?: number
  /**
   * Whether an access of this thread to a page that another thread has to bring (`openAsync` there) blocks until it is
   * there, as it does in threads that attach. Default false: EAGAIN. Ignored where a thread may not block (the main
   * thread of a browser).
   */
  readonly waitForPages?: boolean
}

/** The machine's options for those of a memory. */
export function machineOptionsOf(options: MemoryOptions): { machineOptions: MachineOptions; sizeBytes: number } {
  const pageSize = parseSize(options.pageSize ?? 4096)
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
  if (options.ram !== undefined) machineOptions.ram = { ...options.ram, buffer: sharedBuffer(options.ram.buffer) }
  if (options.swap !== undefined) {
    const nrSlots = Math.min(MAX_FRAMES, Math.max(1, Math.floor(parseSize(options.swap.size) / pageSize)))
    machineOptions.swap = { store: options.swap.store, nrSlots }
  }
  if (options.faultAroundPages !== undefined) machineOptions.faultAroundPages = options.faultAroundPages
  if (options.readahead !== undefined) machineOptions.readaheadBytes = parseSize(options.readahead)
  if (options.traceEntries !== undefined) machineOptions.traceEntries = options.traceEntries
  if (options.maxInodes !== undefined) machineOptions.maxInodes = options.maxInodes
  if (options.maxFiles !== undefined) machineOptions.maxFiles = options.maxFiles
  if (options.maxSpaces !== undefined) machineOptions.maxSpaces = options.maxSpaces
  if (options.maxMapCount !== undefined) machineOptions.maxMapCount = options.maxMapCount
  if (options.maxVmas !== undefined) machineOptions.maxVmas = options.maxVmas
  if (options.threads !== undefined) machineOptions.threads = options.threads
  if (options.patienceMs !== undefined) machineOptions.patienceMs = options.patienceMs
  if (options.thread !== undefined) machineOptions.platformThread = options.thread
  return { machineOptions, sizeBytes }
}

function sharedBuffer(buffer: ArrayBufferLike): SharedArrayBuffer {
  if (isSharedBuffer(buffer)) return buffer
  throw new TypeError(
    'ram must be shared memory: a SharedArrayBuffer, or the buffer of a WebAssembly.Memory that is shared'
  )
}
