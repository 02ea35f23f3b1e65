/**
 * Machines for tests that are sure to be whole afterwards: `useMachines()` at the top of a test file gives
 * `rig(options)`, and after each test every machine that it made is checked by observe/check, closed, and compared with
 * its start: free frames, swap slots, open files, vmas.
 *
 * A rig wraps one machine with one address space and the few verbs that tests repeat. Sizes are in pages, addresses in
 * bytes. Files are marked: page i of a fresh one begins with the 32-bit word i + 1.
 */
import { afterEach, beforeEach, expect } from 'vitest'
import { PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts'
import { createKernel, type MachineOptions } from '../../src/kernel.ts'
import { openFds } from '../../src/mm/files.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { assertMachine } from '../../src/observe/check.ts'
import { type MemoryStore, memoryStore } from '../../src/stores/memory.ts'
import { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_exit, sys_fork, sys_mm_create } from '../../src/syscall/process.ts'
import { type FaultyStore, faultyStore } from './faulty-store.ts'

export const RW: number = PROT_READ | PROT_WRITE

/** A memory store that keeps its bytes when the machine closes it. */
export function keptStore(sizeBytes: number): MemoryStore {
  const store = memoryStore({ sizeBytes })
  store.close = () => 0
  return store
}

export interface RigOptions extends Partial<MachineOptions> {
  /** Slots of a swap area in memory. Default 0. */
  readonly swapSlots?: number
}

export interface RigFile {
  readonly fd: number
  readonly store: FaultyStore
}

export class Rig {
  readonly m: Machine
  readonly mm: Mm
  readonly swapStore: FaultyStore | undefined
  readonly #freeAtStart: number

  constructor(options: RigOptions) {
    const { swapSlots = 0, ...rest } = options
    this.swapStore = swapSlots === 0 ? undefined : faultyStore(memoryStore())
    const swap = this.swapStore === undefined ? {} : { swap: { store: this.swapStore, nrSlots: swapSlots } }
    // test/threads/same runs the tests of one thread on machines for two.
    const threads = Number(process.env.RIG_THREADS ?? 1)
    const defaults = { nrFrames: 64, maxVmas: 512, maxSpaces: 8, maxInodes: 32, maxFiles: 32, poison: true, threads }
    this.m = createKernel({ ...defaults, ...swap, ...rest }).machine
    this.#freeAtStart = this.m.allocator.nrFree
    this.mm = this.space()
  }

  get pageSize(): number {
    return this.m.ram.pageSize
  }

  space(): Mm {
    const mm = sys_mm_create(this.m)
    if (typeof mm === 'number') throw new Error(`no address space: ${mm}`)
    return mm
  }

  fork(mm: Mm = this.mm): Mm {
    const child = sys_fork(mm)
    if (typeof child === 'number') throw new Error(`fork gives ${child}`)
    return child
  }

  /** A marked file of so many pages, on a store that a test can make fail. */
  file(pages: number, flags: number = f.O_RDWR): RigFile {
    const inner = keptStore(pages * this.pageSize)
    const word = new Uint8Array(4)
    for (let i = 0; i < pages; i++) {
      new DataView(word.buffer).setUint32(0, i + 1, true)
      inner.write(i * this.pageSize, word, 0, 4)
    }
    const store = faultyStore(inner)
    const fd = f.sys_open(this.m, store, flags)
    expect(fd).toBeGreaterThanOrEqual(0)
    return { fd, store }
  }

  /** Marked shared memory of so many pages. → descriptor. */
  memory(pages: number, quota = 0, kind: number = f.MEMORY_SHMEM): number {
    const fd = f.sys_memory(this.m, 'memory', kind, pages * this.pageSize, quota)
    expect(fd).toBeGreaterThanOrEqual(0)
    const word = new Uint8Array(4)
    for (let i = 0; i < pages; i++) {
      new DataView(word.buffer).setUint32(0, i + 1, true)
      expect(f.sys_pwrite(this.m, fd, word, i * this.pageSize)).toBe(4)
    }
    return fd
  }

  /** Maps `pages` pages; `fd` -1 is anonymous memory. → address. */
  map(fd: number, pages: number, flags: number, prot: number = RW, pgoff = 0, mm: Mm = this.mm): number {
    const at = mem.sys_mmap(mm, 0, pages * this.pageSize, prot, flags, fd, pgoff * this.pageSize)
    expect(at).toBeGreaterThan(0)
    return at
  }

  remap(at: number, pages: number, pgoff: number, flags = 0, mm: Mm = this.mm): number {
    return sys_remap_file_pages(mm, at, pages * this.pageSize, 0, pgoff, flags)
  }

  /** The word at an address, or -(fault code). */
  load(at: number, mm: Mm = this.mm): number {
    const bytes = new Uint8Array(4)
    const got = f.sys_copy_from_user(mm, at, bytes)
    return got === 4 ? new DataView(bytes.buffer).getUint32(0, true) : -f.lastCopyFault()
  }

  /** Stores a word. → 0, or -(fault code). */
  store(at: number, word: number, mm: Mm = this.mm): number {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, word, true)
    return f.sys_copy_to_user(mm, at, bytes) === 4 ? 0 : -f.lastCopyFault()
  }

  /** The first words of so many pages from an address. */
  loads(at: number, pages: number, mm: Mm = this.mm): number[] {
    return Array.from({ length: pages }, (_, i) => this.load(at + i * this.pageSize, mm))
  }

  /** The first word of a file's page, by pread. */
  fileWord(fd: number, page: number): number {
    const bytes = new Uint8Array(4)
    const got = f.sys_pread(this.m, fd, bytes, page * this.pageSize)
    return got === 4 ? new DataView(bytes.buffer).getUint32(0, true) : got
  }

  /** The first word of a store's page, past the cache. */
  storedWord(store: FaultyStore, page: number): number {
    const bytes = new Uint8Array(4)
    store.inner.read(page * this.pageSize, bytes, 0, 4)
    return new DataView(bytes.buffer).getUint32(0, true)
  }

  /** The entry of an address. */
  pte(at: number, mm: Mm = this.mm): number {
    return this.m.tables.get(mm.id, at / this.pageSize)
  }

  /** A word of the address space's row, such as MM_FILEPAGES. */
  row(word: number, mm: Mm = this.mm): number {
    return this.m.mms.row(mm.id, word)
  }

  vmaFlags(at: number, mm: Mm = this.mm): number {
    const vma = this.m.vmas.at(mm.id, at / this.pageSize)
    return vma === 0 ? 0 : this.m.vmas.flags[vma]
  }

  /** Ends everything and expects the machine to be as it was when it was made. */
  finish(): void {
    const { m } = this
    m.allocator.setFail(undefined)
    assertMachine(m)
    for (let id = 1; id <= m.mms.maxMms; id++) {
      if (m.mms.isAlive(id)) expect(sys_exit(new Mm(m, id))).toBe(0)
    }
    for (const fd of openFds(m)) f.sys_close(m, fd)
    assertMachine(m)
    const left = {
      frames: this.#freeAtStart - m.allocator.nrFree,
      slots: m.swap.nrUsed,
      vmas: m.vmas.nrInUse,
      files: m.files.refs.reduce((sum, refs) => sum + (refs > 0 ? 1 : 0), 0)
    }
    expect(left).toEqual({ frames: 0, slots: 0, vmas: 0, files: 0 })
  }
}

/** Call at the top of a test file. → `rig(options)`, which makes a machine for one test. */
export function useMachines(): (options?: RigOptions) => Rig {
  const rigs: Rig[] = []
  // Where a failed test leaves some, as in a mutation run, they are not the next one's.
  beforeEach(() => {
    rigs.length = 0
  })
  afterEach(() => {
    for (const rig of rigs.splice(0)) rig.finish()
  })
  return (options = {}) => {
    const rig = new Rig(options)
    rigs.push(rig)
    return rig
  }
}
