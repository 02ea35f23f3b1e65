/**
 * Carries out a program on a machine and on the model, and throws Violation where they disagree.
 *
 * What fails must have a cause: an error is accepted only while a planned failure may be behind it (`trouble`), and
 * then only in the ways that the calls promise. Program parts that make no sense at the moment (a store past the end of
 * the file) are carried out and have to be refused.
 */
import { MAP_SHARED, MS_SYNC, PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts'
import { createKernel, type Kernel } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { checkMachine } from '../../src/observe/check.ts'
import type { Store } from '../../src/store/store.ts'
import type { Mm } from '../../src/syscall/args.ts'
import {
  O_RDWR,
  sys_close,
  sys_copy_from_user,
  sys_copy_to_user,
  sys_fallocate,
  sys_fsize,
  sys_fsync,
  sys_ftruncate,
  sys_open,
  sys_pread,
  sys_pwrite
} from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { sys_mmap, sys_msync, sys_munmap } from '../../src/syscall/memory.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'
import { DurableModel, SECTOR_BYTES } from './durable-model.ts'
import { type Config, type Op, pattern } from './program.ts'

export class Violation extends Error {}

/** Where the program's file lies. */
export interface Medium {
  /** A store over the file, for the machine to close. */
  open(): Store
  /** Length of the store's log: what an acknowledgement is bound to. */
  position(): number
  /** Plans a failure; not there when nothing is to fail. */
  readonly fail?: (op: Op & { op: 'fail' }) => void
  readonly heal?: () => void
  /** All bytes of the file as they are now. */
  contents(): Uint8Array
  /** Called after each acknowledged sync, with how many there were. */
  readonly acknowledged?: (syncs: number) => void
}

export class Executor {
  readonly model: DurableModel
  readonly kernel: Kernel
  readonly machine: Machine
  readonly config: Config
  readonly #medium: Medium
  readonly #mm: Mm
  readonly #pageSize: number
  /** File page that each window page shows. */
  #shown: number[] = []
  #fd = -1
  #window = 0
  #linear = 0
  #trouble = false
  #syncs = 0
  readonly #freeAtStart: number

  constructor(config: Config, medium: Medium) {
    this.config = config
    this.#medium = medium
    this.#pageSize = 2 ** config.pageShift
    const maxBytes = config.maxPages * this.#pageSize
    this.model = new DurableModel(maxBytes, this.#pageSize, medium.contents())
    if (medium.fail !== undefined) this.model.growthUnit = SECTOR_BYTES
    this.kernel = createKernel({
      nrFrames: config.nrFrames,
      pageShift: config.pageShift,
      faultAroundPages: config.faultAroundPages,
      readaheadBytes: config.readaheadPages * this.#pageSize,
      maxVmas: 64,
      maxSpaces: 2,
      maxInodes: 4,
      maxFiles: 8,
      poison: true
    })
    this.machine = this.kernel.machine
    this.#freeAtStart = this.machine.allocator.nrFree
    this.#mm = sys_mm_create(this.machine) as Mm
    this.#openAll()
  }

  step(op: Op): void {
    const { model, machine, config } = this
    const pageSize = this.#pageSize
    switch (op.op) {
      case 'store':
        this.#store(this.#window + op.page * pageSize, this.#shown[op.page], op.offset, op.length, op.value)
        break
      case 'storeLinear':
        this.#store(this.#linear + op.page * pageSize, op.page, op.offset, op.length, op.value)
        break
      case 'write': {
        const data = pattern(op.value, op.length)
        const n = sys_pwrite(machine, this.#fd, data, op.position)
        if (n < data.length) this.#mayFail(n, 'pwrite')
        if (n > 0) model.write(op.position, data.subarray(0, n))
        break
      }
      case 'load':
        this.#load(op.page)
        break
      case 'remap': {
        const count = Math.min(op.count, config.maxPages - op.page)
        const at = this.#window + op.at * pageSize
        if (this.#must(sys_remap_file_pages(this.#mm, at, count * pageSize, 0, op.page, 0), 'remap') < 0) break
        for (let i = 0; i < count; i++) this.#shown[op.at + i] = op.page + i
        break
      }
      case 'remapVector': {
        const at = this.#window + op.at * pageSize
        if (this.#must(sys_remap_file_pages_vec(this.#mm, at, Int32Array.from(op.pages), 0, 0), 'remap') < 0) break
        for (const [i, page] of op.pages.entries()) this.#shown[op.at + i] = page
        break
      }
      case 'truncate':
        if (this.#must(sys_ftruncate(machine, this.#fd, op.size), 'ftruncate') === 0) model.truncate(op.size)
        break
      case 'punch':
        this.#punch(op.position, op.length)
        break
      case 'fsync':
        if (this.#sync(sys_fsync(machine, this.#fd))) this.#acknowledged(() => model.syncedAll(this.#medium.position()))
        break
      case 'msync':
        this.#msync(op.at, op.count)
        break
      case 'msyncWindow':
        this.#msyncWindow(op.at, op.count)
        break
      case 'evict':
        machine.reclaim.shrinkAll()
        break
      case 'reopen':
        this.#reopen()
        break
      case 'fail':
        this.#medium.fail?.(op)
        if (this.#medium.fail !== undefined) this.#trouble = true
        break
    }
  }

  /** Ends failures, syncs, compares everything that can be read, closes, and looks for what leaked. */
  finish(): void {
    this.#medium.heal?.()
    let error = sys_fsync(this.machine, this.#fd)
    if (error < 0 && this.#trouble) error = sys_fsync(this.machine, this.#fd)
    if (error < 0) throw new Violation(`the last fsync gives ${error}`)
    this.#trouble = false
    this.model.syncedAll(this.#medium.position())
    this.#compareStore('after the last fsync')
    for (let page = 0; page < this.config.windowPages; page++) this.#load(page)
    this.#comparePread()
    this.#checkMachine()
    const ended = sys_exit(this.#mm)
    const closed = sys_close(this.machine, this.#fd)
    if (ended < 0 || closed < 0) throw new Violation(`exit gives ${ended}, close ${closed}`)
    this.#checkMachine()
    const leaked = this.#freeAtStart - this.machine.allocator.nrFree
    if (leaked !== 0) throw new Violation(`${leaked} frames leaked`)
    this.#compareStore('after close')
  }

  #checkMachine(): void {
    const wrong = checkMachine(this.machine)
    if (wrong.length > 0) throw new Violation(`the machine is inconsistent: ${wrong.slice(0, 5).join('; ')}`)
  }

  #comparePread(): void {
    const { model } = this
    const size = sys_fsize(this.machine, this.#fd)
    if (size !== model.size) throw new Violation(`the file has ${size} bytes, not ${model.size}`)
    const found = new Uint8Array(size)
    const n = sys_pread(this.machine, this.#fd, found, 0)
    if (n !== size) throw new Violation(`pread of ${size} bytes gives ${n}`)
    this.#compare(found, 0, 'pread')
  }

  #compareStore(when: string): void {
    const stored = this.#medium.contents()
    if (stored.length !== this.model.size) {
      throw new Violation(`${when} the store has ${stored.length} bytes, not ${this.model.size}`)
    }
    this.#compare(stored, 0, `the store ${when}`)
  }

  #compare(found: Uint8Array, from: number, what: string): void {
    const { bytes } = this.model
    for (let i = 0; i < found.length; i++) {
      if (found[i] === bytes[from + i]) continue
      throw new Violation(`${what}: byte ${from + i} is ${found[i]}, not ${bytes[from + i]}`)
    }
  }

  #openAll(): void {
    const { machine, config } = this
    const pageSize = this.#pageSize
    this.#fd = sys_open(machine, this.#medium.open(), O_RDWR)
    if (this.#fd < 0) throw new Violation(`open gives ${this.#fd}`)
    const prot = PROT_READ | PROT_WRITE
    this.#window = sys_mmap(this.#mm, 0, config.windowPages * pageSize, prot, MAP_SHARED, this.#fd, 0)
    this.#linear = sys_mmap(this.#mm, 0, config.maxPages * pageSize, prot, MAP_SHARED, this.#fd, 0)
    if (this.#window < 0 || this.#linear < 0) throw new Violation('mmap fails')
    this.#shown = Array.from({ length: config.windowPages }, (_, i) => i)
    // Off its linear place once, so that the window is nonlinear from the beginning.
    this.#must(sys_remap_file_pages(this.#mm, this.#window, pageSize, 0, 1, 0), 'remap')
    this.#shown[0] = 1
  }

  #reopen(): void {
    const { machine, config, model } = this
    const pageSize = this.#pageSize
    let error = sys_munmap(this.#mm, this.#window, config.windowPages * pageSize)
    error ||= sys_munmap(this.#mm, this.#linear, config.maxPages * pageSize)
    if (error < 0) throw new Violation(`munmap gives ${error}, though the file is open`)
    const closed = sys_close(machine, this.#fd)
    if (closed < 0) this.#mayFail(closed, 'close')
    this.#medium.heal?.()
    if (closed < 0) {
      // Whatever was not written is lost, and the close said so.
      const found = this.#medium.contents()
      const wrong = model.check(found, this.#medium.position())
      if (wrong !== undefined) throw new Violation(`after a failed close, ${wrong}`)
      model.adopt(found)
    } else this.#compareStore('after close')
    this.#trouble = false
    this.#openAll()
  }

  #store(address: number, page: number, offset: number, length: number, value: number): void {
    const { model } = this
    const data = pattern(value, length)
    const n = sys_copy_to_user(this.#mm, address + offset, data)
    const at = page * this.#pageSize
    if (at >= model.size) {
      if (n >= 0) throw new Violation(`a store to page ${page}, past the end of the file, gives ${n}`)
      return
    }
    if (n < 0) {
      this.#mayFail(n, `a store to page ${page}`)
      return
    }
    if (n !== length) throw new Violation(`a store within page ${page} stored ${n} of ${length} bytes`)
    const kept = Math.min(length, model.size - at - offset)
    if (kept > 0) model.write(at + offset, data.subarray(0, kept))
  }

  #load(page: number): void {
    const { model } = this
    const bytes = new Uint8Array(this.#pageSize)
    const n = sys_copy_from_user(this.#mm, this.#window + page * this.#pageSize, bytes)
    const at = this.#shown[page] * this.#pageSize
    if (at >= model.size) {
      if (n >= 0) throw new Violation(`a load of page ${this.#shown[page]}, past the end of the file, gives ${n}`)
      return
    }
    if (n < 0) {
      this.#mayFail(n, `a load of page ${this.#shown[page]}`)
      return
    }
    this.#compare(bytes.subarray(0, model.size - at), at, `window page ${page}`)
  }

  #punch(position: number, length: number): void {
    const { model, machine } = this
    const result = sys_fallocate(machine, this.#fd, 3, position, length)
    if (result === 0) {
      model.zero(position, position + length)
      return
    }
    this.#mayFail(result, 'punch')
    this.#medium.heal?.()
    // Each byte is old or zero; what was found stays.
    const n = Math.max(0, Math.min(length, model.size - position))
    const found = new Uint8Array(n)
    const got = sys_pread(machine, this.#fd, found, position)
    if (got !== n) throw new Violation(`pread gives ${got} after a failed punch`)
    for (let i = 0; i < n; i++) {
      if (found[i] === 0 || found[i] === model.bytes[position + i]) continue
      throw new Violation(`after a failed punch byte ${position + i} is ${found[i]}`)
    }
    model.zero(position, position + n)
    model.write(position, found)
  }

  #msync(page: number, count: number): void {
    const pageSize = this.#pageSize
    const result = sys_msync(this.#mm, this.#linear + page * pageSize, count * pageSize, MS_SYNC)
    if (!this.#sync(result)) return
    const end = (page + count) * pageSize
    this.#acknowledged(() => this.model.syncedRange(this.#medium.position(), page * pageSize, end))
  }

  #msyncWindow(at: number, count: number): void {
    const pageSize = this.#pageSize
    const result = sys_msync(this.#mm, this.#window + at * pageSize, count * pageSize, MS_SYNC)
    if (this.#sync(result)) this.#acknowledged(() => this.model.syncedAll(this.#medium.position()))
  }

  /** Whether a sync was acknowledged. After a failed one the failures end, so that the next can succeed. */
  #sync(result: number): boolean {
    if (result === 0) return true
    this.#mayFail(result, 'sync')
    this.#medium.heal?.()
    return false
  }

  #acknowledged(note: () => void): void {
    note()
    this.#syncs++
    this.#medium.acknowledged?.(this.#syncs)
  }

  /** An error that must not be, unless a planned failure may be behind it. */
  #must(result: number, what: string): number {
    if (result < 0) this.#mayFail(result, what)
    return result
  }

  #mayFail(result: number, what: string): void {
    if (!this.#trouble) throw new Violation(`${what} gives ${result} for no reason`)
  }
}
