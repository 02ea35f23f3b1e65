/**
 * A fresh machine for one trace, with the files and processes that its operations name.
 *
 * File operations work on a descriptor of their own, as a bystander would; processes open each file once per mode and
 * hand their descriptors down to their children.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MM_RLIMIT_MEMLOCK, MM_SHIFT } from '../../src/frame/mm-table.ts'
import { NR_MLOCK } from '../../src/frame/vmstat.ts'
import { createKernel } from '../../src/kernel.ts'
import { openFds } from '../../src/mm/files.ts'
import { type Machine, POLICY_LINUX, POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import type { Mm } from '../../src/syscall/args.ts'
import * as file from '../../src/syscall/file.ts'
import { sys_exit, sys_fork, sys_mm_create } from '../../src/syscall/process.ts'
import type { Header } from './trace.ts'

/** Pages; a script uses a few hundred. */
const NR_FRAMES = 16_384
/** Linux's default RLIMIT_MEMLOCK, 64 KiB. */
const DEFAULT_MEMLOCK_PAGES = 16
const QUOTA_PAGES = 8

export type FileKind = 'shmem' | 'ramfs' | 'disk' | 'quota' | 'huge'

export interface ScriptFile {
  readonly id: number
  readonly kind: FileKind
  readonly fd: number
}

export interface Process {
  readonly mm: Mm
  /** Descriptor by file and mode. */
  readonly fds: Map<string, number>
  privileged: boolean
  memlockPages: number
  /** personality(READ_IMPLIES_EXEC), which belongs to the process and not to its memory. */
  readImpliesExec: boolean
}

export class Session {
  readonly machine: Machine
  readonly files: Map<number, ScriptFile> = new Map()
  readonly processes: Map<number, Process> = new Map()
  /** What a mapping's file is called in results, by inode. */
  readonly names: Map<number, number | string> = new Map()
  readonly header: Header
  /** True once a reclaim operation ran: what depends on its details is compared less strictly. */
  reclaimed = false
  readonly #mlockedAtStart: number
  #quota = 0
  #folder = ''

  constructor(header: Header) {
    this.header = header
    this.machine = createKernel({
      nrFrames: NR_FRAMES,
      policy: header.policy === 'nonlinear' ? POLICY_NONLINEAR : POLICY_LINUX,
      faultAroundPages: header.fa ?? 1,
      readaheadBytes: 0,
      poison: true,
      swap: { store: memoryStore({ name: 'swap' }), nrSlots: NR_FRAMES }
    }).machine
    this.#mlockedAtStart = this.machine.vmstat[NR_MLOCK]
    this.processes.set(0, newProcess(must(sys_mm_create(this.machine))))
  }

  get nrMlocked(): number {
    return this.machine.vmstat[NR_MLOCK] - this.#mlockedAtStart
  }

  process(id: number): Process {
    const found = this.processes.get(id)
    if (found === undefined) throw new Error(`no process ${id}`)
    return found
  }

  fork(parent: number, child: number): number {
    const from = this.process(parent)
    const mm = sys_fork(from.mm)
    if (typeof mm === 'number') return mm
    this.processes.set(child, { ...from, mm, fds: new Map(from.fds) })
    return 0
  }

  exit(id: number): number {
    const result = sys_exit(this.process(id).mm)
    this.processes.delete(id)
    return result
  }

  file(id: number): ScriptFile {
    const found = this.files.get(id)
    if (found === undefined) throw new Error(`no file ${id}`)
    return found
  }

  /** A new, empty file. → descriptor or -errno. */
  create(id: number, kind: FileKind): number {
    const fd = this.#open(id, kind)
    if (fd < 0) return fd
    this.files.set(id, { id, kind, fd })
    this.nameInode(fd, id)
    return fd
  }

  nameInode(fd: number, name: number | string): void {
    const { fds, files } = this.machine
    this.names.set(files.inode[fds[fd]], name)
  }

  /** The process's descriptor of a file: opened on first use, or afresh. → descriptor or -errno. */
  descriptor(process: Process, id: number, mode: 'r' | 'w' | 'rw', use: 'first' | 'fresh'): number {
    const key = `${id} ${mode}`
    const known = process.fds.get(key)
    if (known !== undefined && use === 'first') return known
    const flags = mode === 'r' ? file.O_RDONLY : mode === 'w' ? file.O_WRONLY : file.O_RDWR
    const fd = file.sys_reopen(this.machine, this.file(id).fd, flags)
    if (fd >= 0 && use === 'first') process.fds.set(key, fd)
    return fd
  }

  /** Root is not held to limits on locked memory. */
  applyLimits(process: Process): void {
    const { machine, id } = process.mm
    machine.mms.w[(id << MM_SHIFT) + MM_RLIMIT_MEMLOCK] = process.privileged ? -1 : process.memlockPages
  }

  /** Ends all processes and closes all files: what is still in use afterwards was leaked. */
  end(): void {
    for (const id of [...this.processes.keys()]) this.exit(id)
    const { machine } = this
    for (const fd of openFds(machine)) file.sys_close(machine, fd)
    this.dispose()
  }

  /** Removes temporary files. */
  dispose(): void {
    if (this.#folder !== '') rmSync(this.#folder, { recursive: true, force: true })
    this.#folder = ''
  }

  #open(id: number, kind: FileKind): number {
    const { machine } = this
    if (kind === 'disk') {
      if (this.#folder === '') this.#folder = mkdtempSync(join(tmpdir(), 'fremap-oracle-'))
      return file.sys_open(machine, nodeFile(join(this.#folder, `${id}`), 'wx+'), file.O_RDWR)
    }
    if (kind === 'quota' && this.#quota === 0) this.#quota = file.sys_quota(machine, QUOTA_PAGES)
    const memory = kind === 'huge' ? file.MEMORY_NOREMAP : kind === 'ramfs' ? file.MEMORY_RAMFS : file.MEMORY_SHMEM
    return file.sys_memory(machine, `file ${id}`, memory, 0, kind === 'quota' ? this.#quota : 0)
  }
}

function newProcess(mm: Mm): Process {
  return {
    mm,
    fds: new Map(),
    privileged: true,
    memlockPages: DEFAULT_MEMLOCK_PAGES,
    readImpliesExec: false
  }
}

function must(mm: Mm | number): Mm {
  if (typeof mm === 'number') throw new Error(`no address space: ${mm}`)
  return mm
}
