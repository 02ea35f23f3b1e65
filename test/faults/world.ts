/**
 * A machine whose stores and allocations fail on plan, beside a model of what programs may see of it.
 *
 * Each verb makes one system call and judges the result: an error must have a cause (something failed in this very
 * step, or a write failed since the file's last sync), and must have done what it says and no more. What was read or is
 * compared at the end must be the model's. `guard` runs a step and looks at the machine and the stores after it.
 */
import { MAP_ANONYMOUS, MAP_NONBLOCK, MAP_PRIVATE, MAP_SHARED, MREMAP_MAYMOVE, MS_SYNC } from '../../src/abi/mman.ts'
import { createKernel } from '../../src/kernel.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { checkMachine } from '../../src/observe/check.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Mm } from '../../src/syscall/args.ts'
import * as f from '../../src/syscall/file.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { sys_madvise, sys_mmap, sys_mremap, sys_msync, sys_munmap } from '../../src/syscall/memory.ts'
import { sys_mlock, sys_munlock } from '../../src/syscall/mlock.ts'
import { sys_exit, sys_fork, sys_mm_create } from '../../src/syscall/process.ts'
import { DurableModel, SECTOR_BYTES } from '../../tools/crash/durable-model.ts'
import { pattern } from '../../tools/crash/program.ts'
import { InjectingStore, type Injector } from './injector.ts'
import { bytesOf, compare, forgetCopies, isPastEnd, PAGE, type Window, type WorldFile, Wrong } from './model.ts'

const MAX_PAGES = 48
const NR_FRAMES = 48
const NR_SLOTS = 96

export class World {
  readonly injector: Injector
  readonly m: Machine
  readonly files: Map<string, WorldFile> = new Map()
  readonly spaces: Map<string, Mm> = new Map()
  readonly windows: Map<string, Window> = new Map()
  readonly #swap: InjectingStore
  readonly #punches: 'punch' | 'zeros'
  readonly #freeAtStart: number
  #value = 0
  /** Whether the step under way told of its failed writes. */
  #reported: 'no' | 'perhaps' | 'yes' = 'no'
  /** Errors that a verb gave back. */
  nrErrors = 0

  constructor(injector: Injector, punches: 'punch' | 'zeros') {
    this.injector = injector
    this.#punches = punches
    this.#swap = new InjectingStore('swap', memoryStore(), injector)
    this.m = createKernel({
      nrFrames: NR_FRAMES,
      pageShift: 10,
      maxVmas: 64,
      maxSpaces: 4,
      maxInodes: 8,
      maxFiles: 8,
      faultAroundPages: 4,
      poison: true,
      swap: { store: this.#swap, nrSlots: NR_SLOTS }
    }).machine
    this.#freeAtStart = this.m.allocator.nrFree
    this.m.allocator.setFail(() => injector.meet('frame') !== undefined)
    this.spaces.set('main', sys_mm_create(this.m) as Mm)
  }

  /** Runs one step, then checks everything that must hold at any moment. */
  guard(name: string, step: () => void): void {
    const { injector } = this
    injector.firedInStep.clear()
    this.#reported = 'no'
    try {
      step()
      if (injector.firedInStep.has('file.write')) this.#noteUnreported()
      // Until something fails the run is the one without failures, which is looked at step by step.
      if (injector.plan !== undefined && injector.fired === 0) return
      const wrong = checkMachine(this.m)
      if (wrong.length > 0) throw new Wrong(`the machine is inconsistent: ${wrong.slice(0, 4).join('; ')}`)
      for (const { name: file, store, model } of this.files.values()) {
        const lost = store === undefined ? undefined : model.check(store.contents(), model.nrEras - 1)
        if (lost !== undefined) throw new Wrong(`the store of ${file} ${lost}`)
      }
    } catch (error) {
      throw new Wrong(`${name}: ${error instanceof Wrong ? error.message : (error as Error).stack}`)
    }
  }

  open(name: string, pages: number): void {
    let file = this.files.get(name)
    if (file === undefined) {
      const contents = pattern(200, pages * PAGE - 300)
      const store = new InjectingStore('file', memoryStore({ contents }), this.injector, this.#punches)
      file = { name, store, model: new DurableModel(MAX_PAGES * PAGE, PAGE, contents), fd: -1, unreported: 'no' }
      file.model.growthUnit = SECTOR_BYTES
    }
    const { store } = file
    if (store === undefined) throw new Wrong('memory is not opened')
    store.nrOpen++
    file.fd = f.sys_open(this.m, store, f.O_RDWR)
    if (this.#judge(file.fd, 'open', ['file.size']) < 0) return
    file.unreported = 'no'
    this.files.set(name, file)
  }

  memory(name: string, pages: number): void {
    const fd = f.sys_memory(this.m, name, f.MEMORY_SHMEM, pages * PAGE, 0)
    if (this.#judge(fd, 'memory') < 0) return
    const model = new DurableModel(MAX_PAGES * PAGE, PAGE, new Uint8Array(pages * PAGE))
    this.files.set(name, { name, store: undefined, model, fd, unreported: 'no' })
  }

  map(name: string, where: string, what: string | null, how: 'shared' | 'private', pgoff: number, pages: number): void {
    const space = this.spaces.get(where)
    const file = what === null ? null : this.#openFile(what)
    if (space === undefined || file === undefined) return
    const flags = (how === 'shared' ? MAP_SHARED : MAP_PRIVATE) | (file === null ? MAP_ANONYMOUS : 0)
    const address = sys_mmap(space, 0, pages * PAGE, 3, flags, file?.fd ?? -1, pgoff * PAGE)
    if (this.#judge(address, 'mmap') < 0) return
    const shown = Array.from({ length: pages }, (_, i) => (file === null ? new Uint8Array(PAGE) : pgoff + i))
    this.windows.set(name, { space, file, shared: how === 'shared', address, pgoff, pages: shown, nonlinear: false })
  }

  remap(name: string, at: number, page: number, pages: number, populate: 'populate' | 'later'): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    const flags = populate === 'later' ? MAP_NONBLOCK : 0
    const result = sys_remap_file_pages(w.space, w.address + at * PAGE, pages * PAGE, 0, page, flags)
    // The tables of a window this small are one: no entry is written when it cannot be made.
    if (this.#judge(result, 'remap_file_pages') < 0) return
    for (let i = 0; i < pages; i++) w.pages[at + i] = page + i
    w.nonlinear = true
  }

  remapVector(name: string, at: number, pages: readonly number[]): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    const result = sys_remap_file_pages_vec(w.space, w.address + at * PAGE, Int32Array.from(pages), 0, MAP_NONBLOCK)
    if (this.#judge(result, 'remap vector') < 0) return
    for (const [i, page] of pages.entries()) w.pages[at + i] = page
    w.nonlinear = true
  }

  store(name: string, page: number, offset = 0, length = 16): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    const data = pattern(++this.#value, length)
    const n = f.sys_copy_to_user(w.space, w.address + page * PAGE + offset, data)
    if (isPastEnd(w, page)) {
      if (n >= 0) throw new Wrong(`a store past the end of the file gives ${n}`)
      return
    }
    if (this.#judge(n, `a store to page ${page} of ${name}`) < 0) return
    if (n !== length) throw new Wrong(`a store of ${length} bytes gives ${n}`)
    const shown = w.pages[page]
    if (typeof shown !== 'number') shown.set(data, offset)
    else if (w.shared) w.file?.model.write(shown * PAGE + offset, data)
    else {
      const copy = bytesOf(w, page).slice()
      copy.set(data, offset)
      w.pages[page] = copy
    }
  }

  load(name: string, page: number): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    const bytes = new Uint8Array(PAGE)
    const n = f.sys_copy_from_user(w.space, w.address + page * PAGE, bytes)
    if (isPastEnd(w, page)) {
      if (n >= 0) throw new Wrong(`a load past the end of the file gives ${n}`)
      return
    }
    if (this.#judge(n, `a load of page ${page} of ${name}`) < 0) return
    const shown = w.pages[page]
    const length = typeof shown === 'number' ? Math.min(PAGE, (w.file as WorldFile).model.size - shown * PAGE) : PAGE
    compare(bytes.subarray(0, length), bytesOf(w, page), `page ${page} of ${name}`)
  }

  write(name: string, position: number, length: number): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    const data = pattern(++this.#value, length)
    const n = f.sys_pwrite(this.m, file.fd, data, position)
    if (n < length) this.#judge(n < 0 ? n : -1, 'pwrite')
    if (n > 0) file.model.write(position, data.subarray(0, n))
  }

  read(name: string, position: number, length: number): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    const bytes = new Uint8Array(length)
    const n = f.sys_pread(this.m, file.fd, bytes, position)
    const expected = Math.max(0, Math.min(length, file.model.size - position))
    if (n < expected) this.#judge(n < 0 ? n : -1, 'pread')
    if (n > 0) compare(bytes.subarray(0, n), file.model.bytes.subarray(position, position + n), `pread of ${name}`)
  }

  truncate(name: string, size: number): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    if (this.#judge(f.sys_ftruncate(this.m, file.fd, size), 'ftruncate', ['file.truncate']) < 0) return
    if (size < file.model.size) forgetCopies(this.windows.values(), file, Math.ceil(size / PAGE))
    file.model.truncate(size)
  }

  punch(name: string, position: number, length: number): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    const { model } = file
    const hides = this.injector.plan?.kind === 'EOPNOTSUPP'
    const result = f.sys_fallocate(this.m, file.fd, 3, position, length)
    if (this.#judge(result, 'punch', hides ? [] : ['file.punch']) === 0) {
      model.zero(position, position + length)
      return
    }
    this.#reported = 'perhaps'
    // Each byte is old or zero; what it is now it stays.
    const found = new Uint8Array(Math.min(length, model.size - position))
    const n = this.injector.suspended(() => f.sys_pread(this.m, file.fd, found, position))
    if (n !== found.length) throw new Wrong(`pread gives ${n} after a failed punch`)
    for (let i = 0; i < n; i++) {
      if (found[i] !== 0 && found[i] !== model.bytes[position + i]) throw new Wrong('a failed punch made other bytes')
    }
    model.zero(position, position + n)
    model.write(position, found)
  }

  fsync(name: string): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    if (this.#judgeSync(file, f.sys_fsync(this.m, file.fd))) this.#synced(file, 0, MAX_PAGES)
  }

  msync(name: string, at: number, pages: number): void {
    const w = this.windows.get(name)
    if (w?.file === undefined || w.file === null) return
    const result = sys_msync(w.space, w.address + at * PAGE, pages * PAGE, MS_SYNC)
    if (!this.#judgeSync(w.file, result)) return
    if (w.nonlinear) this.#synced(w.file, 0, MAX_PAGES)
    else this.#synced(w.file, w.pgoff + at, pages)
  }

  /** Memory of its own reads as zero again. */
  dontNeed(name: string, at: number, pages: number): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    if (this.#judge(sys_madvise(w.space, w.address + at * PAGE, pages * PAGE, 4), 'madvise') < 0) return
    for (let i = at; i < at + pages; i++) {
      if (typeof w.pages[i] !== 'number') w.pages[i] = w.file === null ? new Uint8Array(PAGE) : w.pgoff + i
    }
  }

  lock(name: string, at: number, pages: number): void {
    const w = this.windows.get(name)
    if (w !== undefined) this.#judge(sys_mlock(w.space, w.address + at * PAGE, pages * PAGE), 'mlock')
  }

  unlock(name: string, at: number, pages: number): void {
    const w = this.windows.get(name)
    if (w !== undefined) this.#judge(sys_munlock(w.space, w.address + at * PAGE, pages * PAGE), 'munlock')
  }

  fork(child: string): void {
    const parent = this.spaces.get('main') as Mm
    const mm = sys_fork(parent)
    if (typeof mm === 'number') {
      this.#judge(mm, 'fork')
      return
    }
    this.spaces.set(child, mm)
    for (const [name, w] of [...this.windows]) {
      if (w.space !== parent) continue
      const pages = w.pages.map(page => (typeof page === 'number' ? page : page.slice()))
      this.windows.set(`${child}:${name}`, { ...w, space: mm, pages })
    }
  }

  resize(name: string, pages: number): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    const address = sys_mremap(w.space, w.address, w.pages.length * PAGE, pages * PAGE, MREMAP_MAYMOVE, 0)
    if (this.#judge(address, 'mremap') < 0) return
    w.address = address
    const before = w.pages.length
    w.pages.length = pages
    for (let i = before; i < pages; i++) w.pages[i] = w.file === null ? new Uint8Array(PAGE) : w.pgoff + i
  }

  unmap(name: string): void {
    const w = this.windows.get(name)
    if (w === undefined) return
    this.windows.delete(name)
    const file = w.file
    const result = sys_munmap(w.space, w.address, w.pages.length * PAGE)
    this.#judge(result, 'munmap', ['file.write', 'file.close'])
    if (file !== null) this.#afterClose(file)
  }

  close(name: string): void {
    const file = this.#openFile(name)
    if (file === undefined) return
    const { fd } = file
    file.fd = -1
    this.#judge(f.sys_close(this.m, fd), 'close', ['file.write', 'file.close'])
    this.#afterClose(file)
  }

  exit(where: string): void {
    const space = this.spaces.get(where)
    if (space === undefined) return
    this.spaces.delete(where)
    for (const [name, w] of [...this.windows]) if (w.space === space) this.windows.delete(name)
    this.#judge(sys_exit(space), 'exit', ['file.write', 'file.close'])
    for (const file of this.files.values()) this.#afterClose(file)
  }

  /** Nothing fails any more: all that was stored is still there, syncs succeed, and the stores have it. */
  settle(): void {
    this.injector.lift()
    for (const file of this.files.values()) {
      if (file.store === undefined || file.fd < 0) continue
      let result = f.sys_fsync(this.m, file.fd)
      if (result === 0 && file.unreported === 'yes') throw new Wrong('a sync succeeds though a write failed')
      if (result < 0 && file.unreported !== 'no') result = f.sys_fsync(this.m, file.fd)
      if (result !== 0) throw new Wrong(`fsync of ${file.name} gives ${result} after all is well`)
      file.unreported = 'no'
      file.model.syncedAll(file.model.nrEras)
      const { model } = file
      const stored = file.store.contents()
      if (stored.length !== model.size) throw new Wrong(`the store has ${stored.length} bytes, not ${model.size}`)
      compare(stored, model.bytes.subarray(0, model.size), `the store of ${file.name}`)
    }
    for (const file of this.files.values()) if (file.fd >= 0) this.read(file.name, 0, file.model.size)
    for (const [name, w] of this.windows) for (let i = 0; i < w.pages.length; i++) this.load(name, i)
  }

  /** Everything is given back. */
  end(): void {
    for (const where of [...this.spaces.keys()]) this.exit(where)
    for (const [name, file] of this.files) if (file.fd >= 0) this.close(name)
    const { m } = this
    const leaked = this.#freeAtStart - m.allocator.nrFree
    if (leaked !== 0 || m.swap.nrUsed !== 0) throw new Wrong(`${leaked} frames and ${m.swap.nrUsed} slots leaked`)
    for (const { name, store } of this.files.values()) {
      if (store !== undefined && store.nrOpen !== 0) throw new Wrong(`${name} is open ${store.nrOpen} times`)
    }
    if (m.fds.some(fd => fd !== 0)) throw new Wrong('descriptors leaked')
  }

  #noteUnreported(): void {
    if (this.#reported === 'yes') return
    for (const file of this.files.values()) {
      if (file.unreported !== 'yes') file.unreported = this.#reported === 'no' ? 'yes' : 'perhaps'
    }
  }

  /** If the file let its inode go, what could not be written is lost; the error said so. */
  #afterClose(file: WorldFile): void {
    const { store, model } = file
    if (store === undefined || store.nrOpen > 0 || file.fd >= 0) return
    const found = store.contents()
    const wrong = model.check(found, model.nrEras - 1)
    if (wrong !== undefined) throw new Wrong(`closed, the store of ${file.name} ${wrong}`)
    if (this.injector.firedInStep.has('file.write') || this.injector.firedInStep.has('file.truncate')) {
      model.adopt(found)
      file.unreported = 'no'
      this.#reported = 'yes'
    } else if (found.length !== model.size) throw new Wrong(`${file.name} was closed with ${found.length} bytes`)
    else compare(found, model.bytes.subarray(0, found.length), `the closed store of ${file.name}`)
  }

  #synced({ model }: WorldFile, first: number, pages: number): void {
    model.syncedRange(model.nrEras, first * PAGE, (first + pages) * PAGE)
  }

  #openFile(name: string): WorldFile | undefined {
    const file = this.files.get(name)
    return file === undefined || file.fd < 0 ? undefined : file
  }

  #judgeSync(file: WorldFile, result: number): boolean {
    const { firedInStep } = this.injector
    const failedNow = ['file.write', 'file.flush', 'file.truncate'].some(target => firedInStep.has(target))
    if (result < 0) {
      this.nrErrors++
      this.#reported = 'yes'
      if (!failedNow && file.unreported === 'no') throw new Wrong(`a sync gives ${result} for no reason`)
    } else if (failedNow || file.unreported === 'yes') throw new Wrong('a sync succeeds though a write failed')
    file.unreported = 'no'
    return result === 0
  }

  /** An error needs a cause in this step; and a call that depends on `targets` must say when one of them failed. */
  #judge(result: number, what: string, targets: readonly string[] = []): number {
    const { firedInStep } = this.injector
    if (result < 0) this.nrErrors++
    if (result < 0 && firedInStep.size === 0) throw new Wrong(`${what} gives ${result} for no reason`)
    const silent = result >= 0 && targets.find(target => firedInStep.has(target))
    if (silent) throw new Wrong(`${what} gives ${result}, though ${silent} failed`)
    return result
  }
}
