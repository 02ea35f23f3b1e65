/**
 * The frame allocator: a bitmap of free frames, the lowest handed out first.
 *
 * First-fit uses frames that the process has paid for again before it touches new ones, and gives the pages of a file
 * run ascending, mostly neighbouring frames, so that a run is filled by few reads of the store. Where there are several
 * threads, each goes through blocks of its own: neighbouring frames share cache lines, which would go back and forth
 * between the processors (Linux: lists of free pages for each processor). A block belongs to nobody: whoever finds no
 * other frame takes one of it.
 *
 * An allocation fails only when nothing can be reclaimed: `setReclaim` gives the hook, called with the number of
 * frames wanted; it frees what it can. The hook never allocates.
 *
 * With poisoning on, a freed frame is filled with POISON, so that a stale pointer reads nonsense and not yesterday's
 * bytes; frames handed out by `allocZeroed` are zero in any case.
 */
import { broken } from '../base/assert.ts'
import { Bitmap } from '../base/bitmap.ts'
import type { Sync } from '../sync/sync.ts'
import {
  type ColumnSource,
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  FRAME_SHIFT,
  type FrameTable
} from './frame-table.ts'
import type { Ram } from './ram.ts'

export const POISON = 0xa5 as const

const A_FREE = 0
/** No frame below this one is free; with blocks, none but those in blocks that were begun. */
const A_CURSOR = 1
/** Frames from here on were never handed out and are still zero. */
const A_VIRGIN = 2
/** Least free frames so far. */
const A_LEAST = 3
export const ALLOCATOR_WORDS = 4 as const

/** Most frames of the blocks that threads take from: their bits in the map fill a cache line. */
const BLOCK_FRAMES = 512
/**
 * There are at least so many blocks, so that every thread finds some; where they would have less than 32 frames, there
 * are none.
 */
const MIN_BLOCKS = 32

export type ReclaimHook = (wanted: number) => number
/** Called before each allocation when a test injects failures: true makes it fail. */
export type FailHook = () => boolean

export class FrameAllocator {
  readonly ram: Ram
  readonly frames: FrameTable
  readonly #sync: Sync
  readonly #free: Bitmap
  readonly #state: Int32Array
  readonly #poison: Uint8Array | undefined
  /** 0 when the lowest free frame is always the one that is taken. */
  readonly #blockFrames: number
  /** Where this thread goes on in its block, and the end of the block. */
  #next = 0
  #end = 0
  /** Frames that this thread was given so far. */
  nrHanded = 0
  /** Allocations of this thread that failed since nothing could be reclaimed. */
  nrRefused = 0
  #reclaim: ReclaimHook | undefined
  #makeRun: ((n: number) => boolean) | undefined
  #fail: FailHook | undefined

  /** `state` has ALLOCATOR_WORDS words. */
  constructor(
    columns: ColumnSource,
    ram: Ram,
    frames: FrameTable,
    state: Int32Array,
    poison: 'poison' | 'plain',
    sync: Sync
  ) {
    const n = ram.nrFrames
    this.ram = ram
    this.frames = frames
    this.#sync = sync
    this.#free = new Bitmap(
      columns.int32('free bitmap', Bitmap.nrWords(n)),
      columns.int32('free bitmap', Bitmap.nrSummaryWords(n)),
      n
    )
    this.#state = state
    this.#blockFrames = sync.isShared ? blockFrames(n) : 0
    this.#poison = poison === 'poison' ? new Uint8Array(ram.pageSize).fill(POISON) : undefined
  }

  /** Makes all frames but the zero page free. Once, for a new machine. Frames from `virgin` on are known to be zero. */
  init(virgin: number): void {
    for (let f = 1; f < this.ram.nrFrames; f++) this.#free.set(f)
    this.#state[A_FREE] = this.ram.nrFrames - 1
    this.#state[A_CURSOR] = 1
    this.#state[A_VIRGIN] = virgin
    this.#state[A_LEAST] = this.ram.nrFrames - 1
  }

  setReclaim(hook: ReclaimHook): void {
    this.#reclaim = hook
  }

  setMakeRun(hook: (n: number) => boolean): void {
    this.#makeRun = hook
  }

  setFail(hook: FailHook | undefined): void {
    this.#fail = hook
  }

  /** Whether other threads use the memory, too. */
  get isShared(): boolean {
    return this.#sync.isShared
  }

  get nrFree(): number {
    return this.#state[A_FREE]
  }

  /** The free bitmap, for checks and reports: read only. */
  get freeMap(): Bitmap {
    return this.#free
  }

  /** Most frames in use at any time, the zero page included. */
  get peakUsed(): number {
    return this.ram.nrFrames - this.#state[A_LEAST]
  }

  isFree(frame: number): boolean {
    return this.#free.has(frame)
  }

  /**
   * A frame with unspecified bytes, or 0 when none can be had. Its first five words are 0, from F_FLAGS to F_RMAP_HEAD.
   */
  alloc(): number {
    if (this.#fail?.()) return 0
    if (this.#state[A_FREE] === 0 && !this.ensureFree(1)) return 0
    return this.#take()
  }

  /** The same, without reclaiming. */
  allocNoReclaim(): number {
    if (this.#state[A_FREE] === 0 || this.#fail?.()) return 0
    return this.#take()
  }

  /** A free frame that is not in [from, to), or 0. Does not reclaim. */
  allocOutside(from: number, to: number): number {
    let frame = this.#free.next(this.#lowest)
    if (frame >= from && frame < to) frame = this.#free.next(to)
    return frame < 0 ? 0 : this.#hand(frame)
  }

  /** The first of `n` neighbouring frames, zeroed, or 0. May reclaim, and move pages out of the way. */
  allocRun(n: number): number {
    if (this.#fail?.()) return 0
    let first = this.#findRun(n)
    if (first < 0 && this.#makeRun?.(n)) first = this.#findRun(n)
    if (first < 0) return 0
    for (let f = first; f < first + n; f++) this.ram.zeroFrame(this.#hand(f))
    return first
  }

  #findRun(n: number): number {
    let first = this.#free.next(this.#lowest)
    let length = 0
    while (first >= 0 && length < n) {
      if (this.#free.has(first + length)) length++
      else {
        first = this.#free.next(first + length + 1)
        length = 0
      }
    }
    return first
  }

  /** A frame whose bytes are all zero, or 0. */
  allocZeroed(): number {
    const virgin = this.#state[A_VIRGIN]
    const frame = this.alloc()
    if (frame !== 0 && frame < virgin) this.ram.zeroFrame(frame)
    return frame
  }

  /** Tries to have `wanted` frames free. True when they are. */
  ensureFree(wanted: number): boolean {
    const missing = wanted - this.#state[A_FREE]
    if (missing > 0 && this.#reclaim !== undefined) this.#reclaim(missing)
    if (this.#state[A_FREE] >= wanted) return true
    this.nrRefused++
    return false
  }

  free(frame: number): void {
    if (frame <= 0 || this.#free.has(frame)) broken(`frame ${frame} freed twice`)
    if (this.#sync.isShared) {
      // No entry has the frame any more. Whoever found it in one before: loads are made again, stores are waited for.
      this.#sync.changed()
      this.#sync.settle(frame)
    }
    const { w } = this.frames
    const row = frame << FRAME_SHIFT
    w[row + F_FLAGS] = 0
    w[row + F_MAPCOUNT] = 0
    w[row + F_MAPPING] = 0
    w[row + F_INDEX] = 0
    w[row + F_RMAP_HEAD] = 0
    if (this.#poison !== undefined) this.ram.u8.set(this.#poison, frame * this.ram.pageSize)
    this.#free.set(frame)
    this.#state[A_FREE]++
    if (frame < this.#state[A_CURSOR]) this.#state[A_CURSOR] = frame
    if (this.#sync.isShared) this.#sync.noteRoom()
  }

  /** No frame below this one is free. */
  get #lowest(): number {
    return this.#blockFrames > 0 ? 1 : this.#state[A_CURSOR]
  }

  #take(): number {
    if (this.#blockFrames > 0) return this.#takeOfBlock()
    const frame = this.#free.next(this.#state[A_CURSOR])
    this.#state[A_CURSOR] = frame + 1
    return this.#hand(frame)
  }

  #takeOfBlock(): number {
    let frame = this.#free.next(this.#next)
    if (frame < 0 || frame >= this.#end) {
      frame = this.#free.next(this.#state[A_CURSOR])
      // What is left lies in blocks that others have begun.
      if (frame < 0) frame = this.#free.next(1)
      this.#end = frame - (frame % this.#blockFrames) + this.#blockFrames
      this.#state[A_CURSOR] = this.#end
    }
    this.#next = frame + 1
    return this.#hand(frame)
  }

  #hand(frame: number): number {
    const state = this.#state
    this.#free.clear(frame)
    this.nrHanded++
    const left = --state[A_FREE]
    if (left < state[A_LEAST]) state[A_LEAST] = left
    if (frame >= state[A_VIRGIN]) state[A_VIRGIN] = frame + 1
    return frame
  }
}

function blockFrames(nrFrames: number): number {
  const frames = 2 ** Math.floor(Math.log2(nrFrames / MIN_BLOCKS))
  return frames < 32 ? 0 : Math.min(BLOCK_FRAMES, frames)
}
