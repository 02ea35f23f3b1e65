/**
 * One run's machine beside its model, and the comparison of the two.
 *
 * The window of an address space: `LOW_PAGES` pages that end one page table and begin the next, `HIGH_PAGES` far away,
 * so that trees are deep, and `HEAP_PAGES` where its heap begins. A position p of the window is `vpnOf(p)`.
 *
 * A machine that is made for two threads may have two attached: two Machine objects over the same buffers, which one
 * thread drives in turn. `m` is the one whose turn it is.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pagerHost } from '../../src/api/pager-host.ts'
import { MM_START_BRK } from '../../src/frame/mm-table.ts'
import { attachKernel, createKernel } from '../../src/kernel.ts'
import { giveUpReserve } from '../../src/mm/early-read.ts'
import { fileOf, openLater } from '../../src/mm/files.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { Pager } from '../../src/mm/pager.ts'
import { checkMachine } from '../../src/observe/check.ts'
import type { Store, StoreHandle } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import type { Mm } from '../../src/syscall/args.ts'
import { MEMORY_SHMEM, O_RDWR, sys_close, sys_memory, sys_open } from '../../src/syscall/file.ts'
import { sys_exit, sys_mm_create } from '../../src/syscall/process.ts'
import { FUZZ_STORE, FuzzStore } from './fuzz-store.ts'
import { endAll, type Held } from './held.ts'
import { LaterStore } from './later-store.ts'
import { Mismatch } from './mismatch.ts'
import { bytesOf, knownBytes, ModelFile, type ModelPage, type ModelSpace } from './model.ts'
import type { Config } from './ops.ts'
import { Peeker } from './peek.ts'
import { checkPagemap, isGone, reclaimStamp } from './soft-dirty.ts'
import { FuzzSpace } from './space.ts'

export type { FuzzSpace } from './space.ts'

export const NR_FILES = 3
export const MAX_SPACES = 4
export const LOW_PAGES = 48
export const HIGH_PAGES = 16
export const HEAP_PAGES = 8
export const WINDOW_PAGES: number = LOW_PAGES + HIGH_PAGES + HEAP_PAGES
const HIGH_VPN = 0x30000000
const TABLE_BYTES: number = FuzzSpace.bytesFor(LOW_PAGES)

/** Pages from a position to the end of its part of the window. */
export function roomAt(p: number): number {
  return (p < LOW_PAGES ? LOW_PAGES : p < LOW_PAGES + HIGH_PAGES ? LOW_PAGES + HIGH_PAGES : WINDOW_PAGES) - p
}

export interface FuzzFile {
  fd: number
  readonly store: FuzzStore | undefined
  readonly model: ModelFile
}

export class World {
  readonly config: Config
  readonly machines: readonly Machine[]
  /** Whose turn it is. */
  turn = 0
  readonly peeker: Peeker
  readonly files: FuzzFile[] = []
  readonly spaces: (FuzzSpace | undefined)[] = []
  readonly pageSize: number
  readonly zeros: Uint8Array
  /** Errors of memory or I/O are to be expected of the operation under way. */
  armed = false
  /** A write failed at some time: syncs may report it. */
  writesFailed = false
  nrOutOfMemory = 0
  /** Operations so far, and what lasts for some of them. */
  tick = 0
  readonly held: Held = { moving: undefined, borrowed: [] }
  /** How often reclaim had looked at pages when the operation under way began. */
  stamp = 0
  readonly later: LaterStore | undefined
  readonly #swap: FuzzStore | undefined
  readonly #directory: string | undefined
  readonly #freeAtStart: number

  constructor(config: Config) {
    this.config = config
    this.pageSize = 2 ** config.pageShift
    this.zeros = new Uint8Array(this.pageSize)
    this.#swap = config.nrSlots === 0 ? undefined : new FuzzStore(memoryStore(), 'swap')
    // Before the frames there is room for a TLB and a shadow table for each address space.
    const ramOffset = Math.ceil((MAX_SPACES * TABLE_BYTES) / this.pageSize) * this.pageSize
    const ramBytes = ramOffset + config.nrFrames * this.pageSize
    const { machine, handle } = createKernel({
      nrFrames: config.nrFrames,
      ram: { buffer: new SharedArrayBuffer(ramBytes), byteOffset: ramOffset },
      pageShift: config.pageShift,
      policy: config.policy,
      faultAroundPages: config.faultAroundPages,
      readaheadBytes: config.readaheadPages * this.pageSize,
      maxVmas: 1024,
      maxSpaces: MAX_SPACES,
      maxInodes: 64,
      maxFiles: 64,
      poison: true,
      threads: config.threads,
      ...(this.#swap === undefined ? {} : { swap: { store: this.#swap, nrSlots: config.nrSlots } })
    })
    this.machines = [machine]
    if (config.attached === 2) this.machines = [machine, attachKernel(handle, this.#swap, -1).machine]
    const opener = { kind: FUZZ_STORE, open: (of: StoreHandle) => this.files[Number(of.f)].store as FuzzStore }
    for (const { inodes } of this.machines) inodes.stores.addOpener(opener)
    this.peeker = new Peeker(machine)
    if (config.later) this.later = new LaterStore(laterBytes(config))
    this.#freeAtStart = machine.allocator.nrFree
    if (config.store === 'node') this.#directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-fuzz-'))
    for (let f = 0; f < NR_FILES; f++) this.files.push(this.#makeFile(f))
    for (let s = 0; s < MAX_SPACES; s++) this.spaces.push(undefined)
    this.makeSpace(0)
  }

  get m(): Machine {
    return this.machines[this.turn]
  }

  /** Where heaps begin. */
  heapVpn = 0

  /** Frames so few that a fault may find none. */
  get isTight(): boolean {
    return this.config.nrFrames < 512
  }

  vpnOf(p: number): number {
    const leafPages = this.pageSize / 4
    if (p < LOW_PAGES) return leafPages - LOW_PAGES / 2 + p
    const inHeap = p - LOW_PAGES - HIGH_PAGES
    return inHeap < 0 ? HIGH_VPN + p - LOW_PAGES : this.heapVpn + inHeap
  }

  address(vpn: number): number {
    return vpn * this.pageSize
  }

  makeSpace(s: number): void {
    const mm = sys_mm_create(this.m)
    if (typeof mm === 'number') throw new Mismatch(`an address space cannot be made: ${mm}`)
    this.heapVpn = this.m.mms.row(mm.id, MM_START_BRK)
    this.adopt(s, mm, new Map(), 0)
  }

  adopt(s: number, mm: Mm, pages: ModelSpace, heapBytes: number): void {
    const window = { vpn: this.vpnOf(0), pages: LOW_PAGES }
    const { machines } = this
    this.spaces[s] = new FuzzSpace(machines, () => this.turn, mm, pages, heapBytes, window, s * TABLE_BYTES)
  }

  openStore(f: number): void {
    const file = this.files[f]
    if (file.store === undefined) return
    file.fd = sys_open(this.m, file.store, O_RDWR)
    if (file.fd < 0) throw new Mismatch(`file ${f} cannot be opened: ${file.fd}`)
    file.model.inode = this.m.files.inode[fileOf(this.m, file.fd)]
  }

  #makeFile(f: number): FuzzFile {
    const { config, m, pageSize } = this
    if (this.later !== undefined && f === NR_FILES - 1) return this.#makeLater(this.later)
    const model = new ModelFile((config.filePages + WINDOW_PAGES) * pageSize, pageSize, config.store === 'shmem')
    let store: FuzzStore | undefined
    if (config.store === 'memory') store = new FuzzStore(memoryStore(), `memory ${f}`, f)
    if (this.#directory !== undefined) {
      store = new FuzzStore(nodeFile(path.join(this.#directory, `file${f}`), 'w+'), `file ${f}`, f)
    }
    if (store !== undefined) this.peeker.lookBehind(store)
    const file = { fd: -1, store, model }
    if (store === undefined) {
      file.fd = sys_memory(m, `shared ${f}`, MEMORY_SHMEM, 0, 0)
      if (file.fd < 0) throw new Mismatch(`memory ${f} cannot be made: ${file.fd}`)
      model.inode = m.files.inode[fileOf(m, file.fd)]
      return file
    }
    file.fd = sys_open(m, store, O_RDWR)
    if (file.fd < 0) throw new Mismatch(`file ${f} cannot be opened: ${file.fd}`)
    model.inode = m.files.inode[fileOf(m, file.fd)]
    return file
  }

  /** As `memory.openAsync` does it, but at once. The first thread is the pager. */
  #makeLater(store: LaterStore): FuzzFile {
    const [m] = this.machines
    const { bytes } = store
    const model = new ModelFile((this.config.filePages + WINDOW_PAGES) * this.pageSize, this.pageSize, false, 'later')
    model.bytes.set(bytes)
    model.size = bytes.length
    m.pager = new Pager(m, pagerHost)
    const fd = openLater(m, store.name, bytes.length)
    if (fd < 0) throw new Mismatch(`the store that answers later cannot be opened: ${fd}`)
    model.inode = m.files.inode[fileOf(m, fd)]
    m.pager.add(model.inode, store, store.name, undefined, 0)
    this.peeker.lookAtLater(model.inode, bytes)
    return { fd, store: undefined, model }
  }

  /** Compares everything that can be seen, and every structure with every other. Throws Mismatch. */
  check(): void {
    // A page that moves is at rest nowhere; what can be seen is compared all the same.
    const wrong = this.held.moving === undefined ? this.m.quietly(() => checkMachine(this.m)) : []
    if (wrong.length > 0) throw new Mismatch(`the machine is inconsistent:\n  ${wrong.slice(0, 12).join('\n  ')}`)
    for (let f = 0; f < this.files.length; f++) this.#checkFile(`file ${f}`, this.files[f].model)
    for (let s = 0; s < this.spaces.length; s++) {
      const space = this.spaces[s]
      if (space !== undefined) this.#checkSpace(s, space)
    }
  }

  #checkFile(name: string, model: ModelFile): void {
    const size = this.m.inodes.sizeBytes[model.inode]
    if (size !== model.size) throw new Mismatch(`${name} has ${size} bytes, not ${model.size}`)
    for (let index = 0; index < model.nrPages; index++) {
      const page = this.peeker.filePage(model.inode, index)
      this.compare(`page ${index} of ${name}`, page, model.page(index), model.knownLength(index))
    }
  }

  #checkSpace(s: number, space: FuzzSpace): void {
    const { vmas } = this.m
    const mm = space.mm.id
    let nrMapped = 0
    for (let vma = vmas.first(mm); vma !== 0; vma = vmas.next[vma]) {
      for (let vpn = vmas.start[vma]; vpn < vmas.end[vma]; vpn++, nrMapped++) {
        const page = space.pages.get(vpn)
        if (page === undefined) throw new Mismatch(`space ${s}: page ${vpn} is mapped, but should not be`)
        this.#checkPage(s, space, vma, vpn, page)
      }
    }
    if (nrMapped !== space.pages.size) throw new Mismatch(`space ${s} maps ${nrMapped} pages, not ${space.pages.size}`)
    const stale = space.mirror?.verify() ?? []
    if (stale.length > 0) throw new Mismatch(stale.join('\n'))
  }

  #checkPage(s: number, space: FuzzSpace, vma: number, vpn: number, page: ModelPage): void {
    const { vmas } = this.m
    const mm = space.mm.id
    const name = `page ${vpn} of space ${s}`
    if (vmas.inode[vma] !== (page.file?.inode ?? 0)) throw new Mismatch(`${name} maps inode ${vmas.inode[vma]}`)
    if ((vmas.flags[vma] & 7) !== page.prot) throw new Mismatch(`${name} has protection ${vmas.flags[vma] & 7}`)
    if (page.file !== null) {
      const linear = vmas.linearIndex(vma, vpn)
      if (linear !== page.linear) throw new Mismatch(`${name}: linear place ${linear}, not ${page.linear}`)
      const shown = this.peeker.shownPage(mm, vpn)
      if (shown >= 0 && shown !== page.pgoff) throw new Mismatch(`${name} shows file page ${shown}, not ${page.pgoff}`)
      if (shown < 0 !== (page.copy !== null))
        throw new Mismatch(`${name}: private copy ${shown < 0}, expected otherwise`)
    }
    const own = this.peeker.ownProtection(mm, vpn)
    if (own !== page.own) throw new Mismatch(`${name} has protection ${own} of its own, not ${page.own}`)
    this.settleLazy(mm, vpn, page)
    checkPagemap(this, name, space, vpn, page)
    const expected = bytesOf(page, this.zeros)
    if (expected === undefined) return
    this.compare(name, this.peeker.userPage(mm, vpn), expected, knownBytes(page, this.pageSize))
  }

  /** A page given up by MADV_FREE that reads as zero now will stay so. It may have been brought back as one, too. */
  settleLazy(mm: number, vpn: number, page: ModelPage): void {
    if (!page.lazy || page.copy === null) return
    if (!this.peeker.hasCopy(mm, vpn)) {
      page.copy = null
      page.lazy = false
      isGone(page)
    } else if (Buffer.compare(this.peeker.userPage(mm, vpn), this.zeros) === 0) page.copy.fill(0)
  }

  /** Before an operation. */
  begin(turn: number): void {
    this.turn = turn % this.machines.length
    this.tick++
    this.stamp = reclaimStamp(this)
  }

  compare(name: string, found: Uint8Array, expected: Uint8Array, length: number): void {
    if (Buffer.compare(found.subarray(0, length), expected.subarray(0, length)) === 0) return
    let at = 0
    while (found[at] === expected[at]) at++
    throw new Mismatch(`${name}: byte ${at} is ${found[at]}, not ${expected[at]}`)
  }

  /** Lets I/O work again and disarms planned failures. */
  heal(): void {
    for (const { allocator } of this.machines) allocator.setFail(undefined)
    for (const { store } of this.files) {
      if (store === undefined) continue
      if (store.nrFailed > 0) this.writesFailed = true
      store.failRead = 0
      store.failWrite = 0
      store.nrFailed = 0
    }
    this.armed = false
  }

  /** Ends everything and looks for what leaked. */
  finish(): void {
    this.begin(0)
    this.heal()
    endAll(this)
    const { m } = this
    for (let s = 0; s < this.spaces.length; s++) {
      const space = this.spaces[s]
      if (space === undefined) continue
      const result = sys_exit(space.mm)
      if (result !== 0 || space.mirror?.released === false) throw new Mismatch(`exit of space ${s} gives ${result}`)
      this.spaces[s] = undefined
    }
    endAll(this)
    if (this.held.moving !== undefined) throw new Mismatch('there is no frame for the page that moves')
    this.check()
    for (const [f, { fd, store, model }] of this.files.entries()) {
      const result = sys_close(m, fd)
      if (result !== 0 && !this.writesFailed) throw new Mismatch(`close of file ${f} gives ${result}`)
      if (store === undefined || result !== 0) continue
      const stored = new Uint8Array(model.size)
      if (store.size() !== model.size)
        throw new Mismatch(`file ${f} was closed with ${store.size()} bytes, not ${model.size}`)
      store.inner.read(0, stored, 0, model.size)
      this.compare(`the store of file ${f}`, stored, model.bytes, model.size)
    }
    const wrong = checkMachine(m)
    if (wrong.length > 0) throw new Mismatch(`the machine is inconsistent at the end:\n  ${wrong.join('\n  ')}`)
    for (const machine of this.machines) machine.quietly(() => giveUpReserve(machine))
    const leaked = this.#freeAtStart - m.allocator.nrFree
    if (leaked !== 0 || m.swap.nrUsed !== 0) throw new Mismatch(`${leaked} frames and ${m.swap.nrUsed} slots leaked`)
  }

  /** Removes what the run left in the file system. */
  dispose(): void {
    void this.machines[0].pager?.end()
    // After a failure it has files open still, which the next world is to open.
    for (const machine of this.machines) machine.open = false
    for (const { store } of this.files) store?.inner.close()
    if (this.#directory !== undefined) fs.rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** What the store that answers later has: some pages, and a part of one. */
function laterBytes({ filePages, pageShift }: Config): Uint8Array {
  const bytes = new Uint8Array(filePages * 2 ** pageShift - 100)
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 13 + (i >>> pageShift)) | 1
  return bytes
}

/** The inner store's bytes, for a comparison after a sync. */
export function storedBytes(store: Store, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  store.read(0, bytes, 0, length)
  return bytes
}
