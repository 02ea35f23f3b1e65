/**
 * The assembler: makes one machine out of the rooms, and hands the upward hooks down.
 *
 *   frame allocator ── reclaim      needs frames freed
 *   writeback       ── rmap         needs a page's entries made clean and read-only
 *   rmap            ── page cache   an entry that was stored to goes away
 *   reclaim         ── mm           a page of shared memory is held no longer
 *
 * All state lies in two SharedArrayBuffers, of which the first may be given: RAM (the frames; page tables and
 * reverse-map nodes live in frames too) and the arena (columns). `layout` reports both by name.
 */

import { DEFAULT_MAX_MAP_COUNT, DEFAULT_PAGE_SHIFT, MAX_FRAMES, MAX_PAGE_SHIFT, MIN_PAGE_SHIFT } from './abi/limits.ts'
import { Arena, type ArenaPart } from './base/arena.ts'
import { sharedBuffer } from './base/shared-buffer.ts'
import { FetchQueue } from './cache/fetch-queue.ts'
import { Filler } from './cache/fill.ts'
import { FileTable, InodeTable } from './cache/inodes.ts'
import { PageCache } from './cache/page-cache.ts'
import type { HeldStore } from './cache/store-table.ts'
import { Writeback } from './cache/writeback.ts'
import { ALLOCATOR_WORDS, FrameAllocator } from './frame/allocator.ts'
import { F_FLAGS, FrameTable, PG_RESERVED } from './frame/frame-table.ts'
import { Identity, misfit } from './frame/identity.ts'
import { LRU_WORDS, Lru } from './frame/lru.ts'
import { MmTable } from './frame/mm-table.ts'
import { Ram } from './frame/ram.ts'
import { Trace } from './frame/trace.ts'
import { Vmstat } from './frame/vmstat.ts'
import { uncharge } from './mm/filemap.ts'
import { endGoing } from './mm/files.ts'
import { Machine, POLICY_NONLINEAR } from './mm/machine.ts'
import { recoverWaited } from './mm/recover.ts'
import { mmuKinds } from './mmu/kinds.ts'
import { Notifiers } from './notify/notifier.ts'
import { PageTables } from './pgtable/page-tables.ts'
import { Migration } from './reclaim/migrate.ts'
import { Reclaim } from './reclaim/reclaim.ts'
import { RmapNodes } from './rmap/nodes.ts'
import { Rmap } from './rmap/rmap.ts'
import { GuardedStore } from './store/guard.ts'
import type { Store, StoreHandle } from './store/store.ts'
import { SwapArea } from './swap/swap-area.ts'
import { DEFAULT_PATIENCE_MS, Sync } from './sync/sync.ts'
import { MAX_THREADS, NR_SYNC_WORDS, ThreadTable } from './sync/threads.ts'
import { VmaTable } from './vma/vma-table.ts'

/**
 * From so many frames on, threads keep their pages apart on the lists: in a smaller memory the exact order is worth
 * more.
 */
const MIN_FRAMES_APART = 1024
/** Pages of a thread that go next to each other on an LRU list. */
const LRU_BATCH = 15

export interface MachineOptions {
  /** Page frames of RAM, the zero page included: 8 to 4,194,303. */
  readonly nrFrames: number
  /**
   * Where the frames are to lie, such as the memory of a WebAssembly guest: `nrFrames` pages from `byteOffset` on,
   * which is a multiple of the page size. What stands there is lost. Default: a buffer of their own.
   */
  readonly ram?: { readonly buffer: SharedArrayBuffer; readonly byteOffset: number }
  /** log2 of the page size: 9 (512 B) to 16 (64 KiB). Default 12. */
  readonly pageShift?: number
  /** POLICY_NONLINEAR (default) or POLICY_LINUX. */
  readonly policy?: number
  /** Vmas that one address space may have (Linux: vm.max_map_count). Default 65,530. */
  readonly maxMapCount?: number
  /** Vmas in the machine. Default `maxMapCount` + 1,024. */
  readonly maxVmas?: number
  /** Address spaces, inodes and open files in the machine. Defaults 1,024, 16,384 and 32,768. */
  readonly maxSpaces?: number
  readonly maxInodes?: number
  readonly maxFiles?: number
  /** Pages that a read fault may map around itself: a power of two, 1 = off. Default 16. */
  readonly faultAroundPages?: number
  /** Largest readahead in bytes, 0 = off. Default 1 MiB, at most an eighth of RAM. */
  readonly readaheadBytes?: number
  /** Where anonymous and shared-memory pages go under pressure, and how many pages fit. Default: nowhere. */
  readonly swap?: { readonly store: Store; readonly nrSlots: number }
  /** Threads that may be attached at the same time, this one included: 1 to 64. Default 1: none but this one. */
  readonly threads?: number
  /** How long a thread waits for another one that shows no sign of life, in milliseconds. Default 20,000. */
  readonly patienceMs?: number
  /** Events that the trace ring holds, 0 = off. Default 0. */
  readonly traceEntries?: number
  /** The platform's number for this thread (Node: `threadId`), by which its end is told. */
  readonly platformThread?: number
  /** Fill freed frames with a pattern, to see stale reads. Default off. */
  readonly poison?: boolean
}

/** What another thread needs to attach: structured-cloneable. */
export interface MachineHandle {
  /** Which memory it is (`Machine.id`). */
  readonly id: number
  readonly options: Omit<MachineOptions, 'swap' | 'ram'> & { readonly swapSlots: number }
  readonly ram: SharedArrayBuffer
  /** Where frame 0 begins in it, in bytes. */
  readonly ramOffset: number
  readonly arena: SharedArrayBuffer
  /** What the swap area's store can be opened by in another thread; undefined without swap, or if it can't. */
  readonly swap: StoreHandle | undefined
}

export interface Kernel {
  readonly machine: Machine
  readonly handle: MachineHandle
  /** The arena's parts by name, in bytes: what is beside the frames. */
  readonly layout: readonly ArenaPart[]
  readonly arenaBytes: number
}

/** Bytes of columns that each frame costs, hash buckets included (reverse-map nodes are in RAM). */
export const FRAME_OVERHEAD_BYTES = 44 as const

/** The largest RAM: its 32-bit words, and so the slots of page tables, are numbered by int32. */
export const MAX_RAM_BYTES: number = 2 ** 33 - 2 ** 16

export class OptionError extends Error {
  readonly option: string
  readonly code: string
  constructor(option: string, message: string, code = 'EINVAL') {
    super(message)
    this.name = 'OptionError'
    this.option = option
    this.code = code
  }
}

/** Makes a machine. Throws OptionError for options out of range, RangeError when the memory cannot be had. */
export function createKernel(options: MachineOptions): Kernel {
  const plan = planOf(options)
  const { nrFrames, pageShift } = plan
  const ram = ramFor(options, pageShift, nrFrames)
  const measuring = Arena.measuring()
  build(measuring, ram, plan, undefined, () => 0)
  const arena = Arena.over(sharedBuffer(Math.max(64, measuring.usedBytes)))
  const machine = build(arena, ram, plan, options.swap?.store, threads => threads.attach(options.platformThread ?? -1))
  machine.frames.w[F_FLAGS] = PG_RESERVED
  // A buffer of our own is zero; of one that was given nobody knows.
  machine.allocator.init(options.ram === undefined ? 1 : nrFrames)
  if (options.ram !== undefined) ram.zeroFrame(0)
  machine.swap.init()
  machine.identity.write(layoutOf(plan, ram.byteOffset))
  machine.open = true
  const { swap, ram: _, platformThread: __, ...rest } = options
  const handle: MachineHandle = {
    id: machine.id,
    options: { ...rest, swapSlots: swap?.nrSlots ?? 0 },
    ram: ram.buffer,
    ramOffset: ram.byteOffset,
    arena: arena.buffer as SharedArrayBuffer,
    swap: swap?.store.handle
  }
  return { machine, handle, layout: mergeParts(arena.parts), arenaBytes: arena.usedBytes }
}

/**
 * Attaches this thread to a machine that another one made. `swap` is this thread's store over the swap area's bytes.
 * Throws OptionError when the handle is not that of this very memory, made by this version of fremap with these options
 * (`code` EINVAL), and when as many threads are attached as the machine was made for (EAGAIN).
 */
export function attachKernel(handle: MachineHandle, swap: Store | undefined, platformThread: number): Kernel {
  const plan = { ...planOf(handle.options), nrSlots: handle.options.swapSlots }
  const ramEnd = handle.ramOffset + plan.nrFrames * 2 ** plan.pageShift
  const why = ramEnd <= handle.ram.byteLength ? '' : `its frames end at byte ${ramEnd} of ${handle.ram.byteLength}`
  const unfit = why || misfit(handle.arena, layoutOf(plan, handle.ramOffset), handle.id)
  if (unfit !== '') throw new OptionError('handle', `the handle does not fit: ${unfit}`)
  const ram = new Ram(handle.ram, plan.pageShift, handle.ramOffset, plan.nrFrames)
  const arena = Arena.over(handle.arena)
  const machine = build(arena, ram, plan, swap, threads => {
    const me = threads.attach(platformThread)
    if (me < 0)
      throw new OptionError(
        'threads',
        `all ${plan.threads} threads of this memory are attached (one that ended without memory.watch or memory.ended counts)`,
        'EAGAIN'
      )
    return me
  })
  return { machine, handle, layout: mergeParts(arena.parts), arenaBytes: arena.usedBytes }
}

/**
 * What a thread's part of a machine can be made of again, when nothing in the program refers to it any more: its
 * buffers and its stores. Leads to no object of the machine itself.
 */
export interface Remains {
  readonly handle: MachineHandle
  readonly me: number
  readonly swap: Store | undefined
  readonly held: ReadonlyMap<number, HeldStore>
}

export function remainsOf(kernel: Kernel, swap: Store | undefined): Remains {
  const { sync, inodes } = kernel.machine
  return { handle: kernel.handle, me: sync.me, swap, held: inodes.stores.held }
}

/** This thread's part of a machine, made of what is left of it. */
export function remakeKernel({ handle, me, swap, held }: Remains): Kernel {
  const plan = { ...planOf(handle.options), nrSlots: handle.options.swapSlots }
  const ram = new Ram(handle.ram, plan.pageShift, handle.ramOffset, plan.nrFrames)
  const arena = Arena.over(handle.arena)
  const machine = build(arena, ram, plan, swap, () => me)
  machine.inodes.stores.adopt(held)
  return { machine, handle, layout: mergeParts(arena.parts), arenaBytes: arena.usedBytes }
}

function ramFor({ ram }: MachineOptions, pageShift: number, nrFrames: number): Ram {
  const lengthBytes = nrFrames * 2 ** pageShift
  if (ram === undefined) return new Ram(sharedBuffer(lengthBytes), pageShift, 0, nrFrames)
  const { buffer, byteOffset } = ram
  const last = buffer.byteLength - lengthBytes
  if (!Number.isInteger(byteOffset / 2 ** pageShift) || byteOffset < 0 || byteOffset > last) {
    const room = `${lengthBytes} bytes from byte ${byteOffset} of ${buffer.byteLength}`
    throw new OptionError('ram', `ram is ${room}, but must lie within, at a multiple of the page size`)
  }
  return new Ram(buffer, pageShift, byteOffset, nrFrames)
}

/**
 * A power of two of hash buckets, at most `share` of the frames: they count into the 64 bytes that a frame may cost.
 */
function bucketsFor(nrFrames: number, share: number): number {
  let buckets = 16
  while (buckets * 2 <= nrFrames * share) buckets *= 2
  return buckets
}

function checked(name: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new OptionError(name, `${name} is ${value}, but must be a whole number from ${min} to ${max}`)
  }
  return value
}

/** The options with defaults filled in, all in range. */
function planOf(options: MachineOptions): Plan {
  const pageShift = checked('pageShift', options.pageShift ?? DEFAULT_PAGE_SHIFT, MIN_PAGE_SHIFT, MAX_PAGE_SHIFT)
  const nrFrames = checked('nrFrames', options.nrFrames, 8, MAX_FRAMES)
  const faultAroundPages = checked('faultAroundPages', options.faultAroundPages ?? 16, 1, 1024)
  if ((faultAroundPages & (faultAroundPages - 1)) !== 0) {
    throw new OptionError('faultAroundPages', `faultAroundPages is ${faultAroundPages}, but must be a power of two`)
  }
  if (nrFrames * 2 ** pageShift > MAX_RAM_BYTES) {
    throw new OptionError(
      'nrFrames',
      `${nrFrames} frames of ${2 ** pageShift} bytes are more than ${MAX_RAM_BYTES} bytes`
    )
  }
  const maxMapCount = checked('maxMapCount', options.maxMapCount ?? DEFAULT_MAX_MAP_COUNT, 1, 0x3fffffff)
  const readaheadBytes = checked('readaheadBytes', options.readaheadBytes ?? 1 << 20, 0, 1 << 30)
  return {
    nrFrames,
    pageShift,
    faultAroundPages,
    maxMapCount,
    policy: options.policy ?? POLICY_NONLINEAR,
    poison: options.poison === true,
    maxVmas: checked('maxVmas', options.maxVmas ?? maxMapCount + 1024, 1, 0x3fffffff),
    maxSpaces: checked('maxSpaces', options.maxSpaces ?? 1024, 1, 0xffff),
    maxInodes: checked('maxInodes', options.maxInodes ?? 16384, 1, 0xfffff),
    maxFiles: checked('maxFiles', options.maxFiles ?? 32768, 1, 0xfffff),
    threads: checked('threads', options.threads ?? 1, 1, MAX_THREADS),
    patienceMs: checked('patienceMs', options.patienceMs ?? DEFAULT_PATIENCE_MS, 1, 0x7fffffff),
    traceEntries: checked('traceEntries', options.traceEntries ?? 0, 0, 1 << 24),
    readaheadPages: Math.max(1, Math.min(readaheadBytes >>> pageShift, nrFrames >>> 3)),
    nrSlots: options.swap === undefined ? 0 : checked('swap.nrSlots', options.swap.nrSlots, 1, MAX_FRAMES)
  }
}

/** What all threads must have alike: where the columns are, and how they are used. */
function layoutOf(plan: Plan, ramOffset: number): Record<string, number> {
  const { poison, ...rest } = plan
  return { ...rest, poison: poison ? 1 : 0, ramPage: ramOffset / 2 ** plan.pageShift }
}

interface Plan {
  readonly nrFrames: number
  readonly pageShift: number
  readonly faultAroundPages: number
  readonly maxMapCount: number
  readonly policy: number
  readonly poison: boolean
  readonly maxVmas: number
  readonly maxSpaces: number
  readonly maxInodes: number
  readonly maxFiles: number
  readonly threads: number
  readonly patienceMs: number
  readonly traceEntries: number
  readonly readaheadPages: number
  readonly nrSlots: number
}

function build(
  arena: Arena,
  ram: Ram,
  plan: Plan,
  swapStore: Store | undefined,
  seat: (threads: ThreadTable) => number
): Machine {
  // First: whoever attaches looks at it before anything else.
  const identity = new Identity(arena)
  const threads = new ThreadTable(arena, plan.threads)
  const syncWords = arena.int32('threads', NR_SYNC_WORDS)
  const sync = new Sync(syncWords, threads, seat(threads), plan.patienceMs)
  const counters = new Vmstat(arena, plan.threads, sync.me)
  const vmstat = counters.mine
  const trace = new Trace(arena, plan.traceEntries)
  const frames = new FrameTable(arena, ram.nrFrames)
  // Allocator, and the lists that pages come to, on one cache line: a thread that brings a page in changes both.
  const hot = arena.int32('allocator', ALLOCATOR_WORDS + LRU_WORDS)
  const poison = plan.poison ? 'poison' : 'plain'
  const allocator = new FrameAllocator(arena, ram, frames, hot.subarray(0, ALLOCATOR_WORDS), poison, sync)
  const keepsApart = plan.threads > 1 && ram.nrFrames >= MIN_FRAMES_APART
  const lru = new Lru(arena, frames, hot.subarray(ALLOCATOR_WORDS), sync, keepsApart ? LRU_BATCH : 0)
  const mms = new MmTable(arena, plan.maxSpaces)
  const tables = new PageTables(arena, ram, frames, allocator, mms)
  const notifiers = new Notifiers(arena, mms, sync.isShared, mmuKinds(ram, sync))
  const vmas = new VmaTable(arena, mms, plan.maxVmas, plan.maxInodes)
  const inodes = new InodeTable(arena, plan.maxInodes, sync)
  const files = new FileTable(arena, plan.maxFiles, sync)
  const order = keepsApart ? 'near' : 'first'
  const cache = new PageCache(arena, frames, inodes, vmstat, bucketsFor(ram.nrFrames, 0.68), sync, order)
  const filler = new Filler(cache, files, allocator, lru, plan.readaheadPages, trace, sync, new FetchQueue(arena))
  const writeback = new Writeback(cache, files, ram, filler.bounce, trace, sync)
  const swap = new SwapArea(
    arena,
    ram,
    swapStore === undefined ? undefined : new GuardedStore(swapStore, sync),
    plan.nrSlots
  )
  const nodes = new RmapNodes(arena, frames, allocator, bucketsFor(ram.nrFrames, 0.25))
  const rmap = new Rmap(frames, mms, tables, vmas, nodes, swap, notifiers, vmstat, frame => cache.setDirty(frame))
  const reclaim = new Reclaim(allocator, lru, cache, writeback, rmap, swap, trace, sync)
  const migration = new Migration(allocator, lru, cache, rmap, sync)
  const fds = arena.int32('files', plan.maxFiles + 3)
  const fdSeqs = arena.int32('files', plan.maxFiles + 3)
  const quotas = arena.int32('files', 128)

  allocator.setReclaim(wanted => reclaim.shrink(wanted))
  allocator.setMakeRun(n => migration.makeRun(n))
  writeback.setClean(frame => {
    rmap.pageMkclean(frame)
  })
  const machine = new Machine({
    identity,
    sync,
    ram,
    frames,
    allocator,
    lru,
    mms,
    counters,
    vmstat,
    tables,
    notifiers,
    vmas,
    inodes,
    files,
    cache,
    filler,
    writeback,
    swap,
    nodes,
    rmap,
    reclaim,
    migration,
    trace,
    fds,
    fdSeqs,
    quotas,
    policy: plan.policy,
    maxMapCount: plan.maxMapCount,
    faultAroundPages: plan.faultAroundPages
  })
  sync.recover = thread => recoverWaited(machine, thread)
  machine.endGoing = () => endGoing(machine)
  reclaim.setUncharge(inode => uncharge(machine, inode, 1))
  return machine
}

function mergeParts(parts: readonly ArenaPart[]): ArenaPart[] {
  const byName = new Map<string, number>()
  for (const { name, bytes } of parts) byName.set(name, (byName.get(name) ?? 0) + bytes)
  return [...byName].map(([name, bytes]) => ({ name, bytes }))
}
