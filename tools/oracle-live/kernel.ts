/**
 * The running Linux as a machine for operations of traces: files, and an arena of this process's own memory.
 *
 * The arena is where traces have it (quantity.ts) and is empty at the start; every address is checked to lie in it, so
 * that an operation can neither unmap nor change what the process itself needs.
 *
 * Loads and stores are done by the kernel: a word goes from memory into a pipe (a load) or out of it (a store). The
 * copy takes the same page faults as an instruction would, respects protection, and gives EFAULT for what would be a
 * signal. Which signal is told from /proc/self/maps: no mapping, no permission, or else the end of the file.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { errnoName } from '../../src/abi/errno.ts'
import { MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE } from '../../src/abi/mman.ts'
import { ARENA_PAGES, BASE, BASE_PAGE, PAGE } from '../oracle/quantity.ts'
import { type Libc, openLibc, type Unavailable } from './libc.ts'

export type Kind = 'shmem' | 'disk'

export interface LiveFile {
  readonly id: number
  readonly kind: Kind
  readonly fd: number
}

export interface MapsLine {
  /** Pages, relative to the arena. */
  readonly start: number
  readonly end: number
  readonly perms: string
  readonly pgoff: number
  /** `device:inode`, or '' for private anonymous memory. */
  readonly inode: string
}

const ARENA_BYTES = BigInt(ARENA_PAGES) * PAGE
const NO_FD = 2n ** 64n - 1n
const MAPS_LINE = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)/

export class LiveKernel {
  readonly libc: Libc
  readonly files: Map<number, LiveFile> = new Map()
  /** What a mapping's file is called in results. */
  readonly names: Map<string, number | string> = new Map()
  readonly mem: number
  readonly #folder: string
  readonly #pipe: [number, number]
  #lockedAtStart = 0
  readonly #opened: Map<string, number> = new Map()
  readonly #word: Uint8Array = new Uint8Array(4)

  /** `folder` is on the disk that files of kind disk are made on. */
  constructor(libc: Libc, folder: string) {
    this.libc = libc
    this.#folder = folder
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    if (libc.call('mmap', BASE, ARENA_BYTES, 0, flags, NO_FD, 0) !== Number(BASE)) {
      throw new Error('the addresses of the arena are in use in this process')
    }
    this.clear()
    this.#pipe = libc.pipe()
    this.mem = fs.openSync('/proc/self/mem', 'r+')
  }

  /** Pages that count as locked since the arena was emptied. */
  get nrLocked(): number {
    return lockedPages() - this.#lockedAtStart
  }

  /** The address if the range lies in the arena; throws otherwise, before anything is harmed. */
  guard(address: bigint, len: bigint): bigint {
    if (address < BASE || len > ARENA_BYTES || address + len > BASE + ARENA_BYTES) {
      throw new Error(`0x${address.toString(16)}, ${len} bytes, is outside the arena`)
    }
    return address
  }

  /** Empties the arena and closes all files. */
  clear(): void {
    const error = this.libc.call('munmap', BASE, ARENA_BYTES)
    if (error !== 0) throw new Error(`the arena could not be emptied: ${errnoName(error)}`)
    for (const fd of this.#opened.values()) fs.closeSync(fd)
    for (const { fd } of this.files.values()) fs.closeSync(fd)
    this.#opened.clear()
    this.files.clear()
    this.names.clear()
    this.#lockedAtStart = lockedPages()
  }

  dispose(): void {
    this.clear()
    for (const fd of [...this.#pipe, this.mem]) fs.closeSync(fd)
  }

  /** A new, empty file without a name. */
  create(id: number, kind: Kind): number {
    const path = join(this.#folder, `live-${process.pid}-${id}`)
    const fd = kind === 'disk' ? fs.openSync(path, 'wx+') : this.libc.memfd(`file ${id}`)
    if (fd < 0) throw new Error(`no memory file: ${errnoName(fd)}`)
    if (kind === 'disk') fs.unlinkSync(path)
    this.files.set(id, { id, kind, fd })
    return fd
  }

  file(id: number): LiveFile {
    const found = this.files.get(id)
    if (found === undefined) throw new Error(`no file ${id}`)
    return found
  }

  /** The descriptor for mappings of a file, opened on first use or afresh. */
  descriptor(id: number, mode: 'r' | 'w' | 'rw', use: 'first' | 'fresh'): number {
    const key = use === 'first' ? `${id} ${mode}` : `fresh ${this.#opened.size}`
    const known = this.#opened.get(key)
    if (known !== undefined) return known
    const flags = { r: fs.constants.O_RDONLY, w: fs.constants.O_WRONLY, rw: fs.constants.O_RDWR }[mode]
    const fd = fs.openSync(`/proc/self/fd/${this.file(id).fd}`, flags)
    this.#opened.set(key, fd)
    return fd
  }

  /** → value, or the name of the fault. */
  load(address: bigint): number | string {
    const got = this.libc.call('write', this.#pipe[1], this.guard(address, 4n), 4)
    if (got < 0) return this.#faultName(address, got, /r|w|x/)
    fs.readSync(this.#pipe[0], this.#word, 0, 4, null)
    return wordOf(this.#word)
  }

  /** → '' or the name of the fault. */
  store(address: bigint, value: bigint): string {
    this.guard(address, 4n)
    fs.writeSync(this.#pipe[1], bytesOfWord(value))
    const got = this.libc.call('read', this.#pipe[0], address, 4)
    if (got === 4) return ''
    fs.readSync(this.#pipe[0], this.#word, 0, 4, null)
    return this.#faultName(address, got, /w/)
  }

  /** The mappings of the arena. */
  maps(): MapsLine[] {
    const lines: MapsLine[] = []
    for (const line of fs.readFileSync('/proc/self/maps', 'latin1').split('\n')) {
      const parts = MAPS_LINE.exec(line)
      if (parts === null) continue
      const start = pageOf(parts[1])
      const end = pageOf(parts[2])
      if (end <= 0 || start >= ARENA_PAGES) continue
      const inode = parts[6] === '0' ? '' : `${parts[5]}:${parts[6]}`
      lines.push({ start, end, perms: parts[3], pgoff: Number(BigInt(`0x${parts[4]}`) / PAGE), inode })
    }
    return lines
  }

  #faultName(address: bigint, error: number, permission: RegExp): string {
    if (errnoName(error) !== 'EFAULT') return errnoName(error)
    const page = Number((address - BASE) / PAGE)
    const line = this.maps().find(({ start, end }) => start <= page && page < end)
    if (line === undefined) return 'SEGV_MAPERR'
    return permission.test(line.perms.slice(0, 3)) ? 'BUS' : 'SEGV_ACCERR'
  }
}

/** A kernel to run operations on, or why there is none. */
export async function openKernel(folder: string): Promise<LiveKernel | Unavailable> {
  const libc = await openLibc()
  return 'reason' in libc ? libc : new LiveKernel(libc, folder)
}

export function wordOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
}

export function bytesOfWord(value: bigint): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, Number(value & 0xffffffffn), true)
  return bytes
}

function pageOf(hex: string): number {
  return Number(BigInt(`0x${hex}`) / PAGE) - BASE_PAGE
}

function lockedPages(): number {
  const kb = /^VmLck:\s*(\d+) kB/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1]
  return Number(kb ?? 0) / 4
}
