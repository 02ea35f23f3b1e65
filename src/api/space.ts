/** AddressSpace: where mappings live; what a process has one of. Made by `memory.space()` and `space.fork()`. */
import { EACCES, EBADF, EINVAL, ENOMEM, ESTALE } from '../abi/errno.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import {
  MAP_ANONYMOUS,
  MAP_FIXED_NOREPLACE,
  MAP_LOCKED,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE
} from '../abi/mman.ts'
import { defineHidden, inspectedAs, summary } from '../base/printing.ts'
import { MM_MAP_COUNT, MM_TOTAL_VM } from '../frame/mm-table.ts'
import type { Machine } from '../mm/machine.ts'
import { formatMaps, maps } from '../observe/maps.ts'
import { formatSmaps, smaps } from '../observe/smaps.ts'
import { type SpaceStatus, spaceStatus } from '../observe/status.ts'
import type { Mm } from '../syscall/args.ts'
import { sys_mmap } from '../syscall/memory.ts'
import { sys_exit, sys_fork } from '../syscall/process.ts'
import { checkMemory, checkSpace, closedHint } from './belongs.ts'
import { mapCountHint, orThrow, systemError, vmasHint } from './errors.ts'
import { MappedFile } from './file.ts'
import type { SpaceHandle } from './handles.ts'
import { spacesHint } from './limits.ts'
import { Mapping } from './mapping.ts'
import { SharedMapping } from './shared-mapping.ts'
import { bytesIn } from './size.ts'

export interface MapOptions {
  /** First byte of the file that the window shows, a multiple of the page size. Default 0. */
  readonly offset?: number | string
  /** Bytes of the window, or like '8KiB'. Default: from `offset` to the end of the file. */
  readonly length?: number | string
  /** Allow stores. Default false. */
  readonly writable?: boolean
  /** Keep stores from the file: pages are copied when first stored to. Default false: shared. */
  readonly private?: boolean
  /** Bring all pages in at once. */
  readonly populate?: boolean
  /** Bring all pages in and keep them. */
  readonly locked?: boolean
  /** Map exactly at this address; EEXIST if something is there. Default: anywhere. */
  readonly address?: number
}

export class AddressSpace {
  static {
    inspectedAs(AddressSpace, space => {
      return summary('AddressSpace', { id: space.mm.id }, space.isAlive ? '' : 'ended')
    })
  }

  /** The handle for the system-call layer. */
  readonly mm: Mm
  /** @internal */
  declare readonly machine: Machine

  /** @internal */
  constructor(mm: Mm) {
    this.mm = mm
    defineHidden(this, { machine: mm.machine })
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    return { kind: 'space', id: this.mm.id, isAlive: this.isAlive }
  }

  get isAlive(): boolean {
    return this.mm.isAlive
  }

  /**
   * A window over a file; over memory that reads as zero when `file` is null (`length` is needed then).
   * Throws EACCES (file mode), ENOMEM, EINVAL (also for a file of another memory), EEXIST, EBADF (the file is closed).
   */
  map(file: MappedFile | null, options: MapOptions = {}): Mapping {
    checkSpace(this.mm, 'mmap')
    if (file !== null) {
      if (!(file instanceof MappedFile)) {
        throw new TypeError('map takes a file of memory.open or memory.shared, or null for memory of its own')
      }
      checkMemory(this.machine, file.machine.id, 'mmap', file.name)
    }
    const { writable = false, address } = options
    const offset = bytesIn(options.offset ?? 0)
    const length = bytesIn(options.length ?? (file === null ? 0 : file.size - offset))
    if (!(length > 0)) {
      throw new RangeError(
        file === null ? 'memory of its own needs a length' : `there is nothing to map at byte ${offset} of ${file.name}`
      )
    }
    const isPrivate = options.private ?? file === null
    const flags =
      (isPrivate ? MAP_PRIVATE : MAP_SHARED) |
      (file === null ? MAP_ANONYMOUS : 0) |
      (isPrivate ? 0 : MAP_NORESERVE) |
      (options.populate === true ? MAP_POPULATE : 0) |
      (options.locked === true ? MAP_LOCKED : 0) |
      (address === undefined ? 0 : MAP_FIXED_NOREPLACE)
    const prot = writable ? PROT_READ | PROT_WRITE : PROT_READ
    const { pageSize } = this.machine.ram
    const pages = Math.ceil(length / pageSize)
    const at = sys_mmap(this.mm, address ?? 0, length, prot, flags, file === null ? -1 : file.fd, offset)
    if (at < 0) throw systemError(at, 'mmap', address, this.#whyNot(at, file, offset, pages, writable && !isPrivate))
    return this.window(file ?? undefined, writable, at / pageSize, pages)
  }

  /** What there is to say about an error of `map`. */
  #whyNot(
    error: number,
    file: MappedFile | null,
    offset: number,
    pages: number,
    storesToFile: boolean
  ): string | undefined {
    const { machine, mm } = this
    const { pageSize } = machine.ram
    if (error === -EINVAL && offset % pageSize !== 0) {
      return `a window begins at a page of its file: offset ${offset} is no multiple of the page size, ${pageSize}`
    }
    if (error === -EACCES && storesToFile && file !== null && !file.writable) {
      return `${file.name} is open for reading: open it for writing, or map it with private: true`
    }
    if (error === -EBADF && file !== null) return closedHint(machine, file.fd, file.name)
    const hint = mapCountHint(mm, error)
    if (error !== -ENOMEM || hint !== undefined) return hint
    const isFull = pages + machine.mms.row(mm.id, MM_TOTAL_VM) > TASK_PAGES
    return isFull ? `an address space has ${TASK_PAGES} pages; unmap something, or use another space` : undefined
  }

  /**
   * The same window in another address space, such as a fork: the mapping object for what is at the same address there.
   * Throws EINVAL for a mapping of another memory, or that is not mapped any more; ESTALE if something else is at its
   * address here.
   */
  view(mapping: Mapping): Mapping {
    checkSpace(this.mm, 'view')
    if (!(mapping instanceof Mapping)) throw new TypeError('view takes a mapping')
    checkMemory(this.machine, mapping.machine.id, 'view', 'the mapping')
    if (!mapping.isMapped) throw systemError(-EINVAL, 'view', undefined, 'the mapping is not mapped any more')
    if (this.machine.inside) throw systemError(-this.machine.whyInside, 'view')
    this.checkShown(mapping.address / mapping.pageSize, mapping.pageCount, mapping.inode, mapping.inodeSeq, 'view')
    return this.window(mapping.file, mapping.writable, mapping.address / mapping.pageSize, mapping.pageCount)
  }

  /** @internal Throws ESTALE when pages of the range show anything but this inode. What is not mapped shows nothing. */
  checkShown(vpn: number, pages: number, inode: number, inodeSeq: number, syscall: string): void {
    const { machine, mm } = this
    const { vmas, inodes } = machine
    const isOther = machine.quietly(() => {
      let vma = vmas.find(mm.id, vpn)
      for (; vma !== 0 && vmas.start[vma] < vpn + pages; vma = vmas.find(mm.id, vmas.end[vma])) {
        const shown = vmas.inode[vma]
        if (shown !== inode || (shown !== 0 && inodes.seq[shown] !== inodeSeq)) return true
      }
      return false
    })
    if (!isOther) return
    const hint = 'the window was unmapped, and something else is at its address'
    throw systemError(-ESTALE, syscall, vpn * machine.ram.pageSize, hint)
  }

  /** @internal The mapping object for pages that are mapped. */
  window(file: MappedFile | undefined, writable: boolean, vpn: number, pages: number): Mapping {
    const Kind = this.machine.sync.isShared ? SharedMapping : Mapping
    return new Kind(this, file, writable, vpn, pages)
  }

  /** What another thread adopts this address space by (`memory.adopt`): structured-cloneable. */
  get handle(): SpaceHandle {
    return { kind: 'space', memory: this.machine.id, id: this.mm.id, generation: this.mm.generation }
  }

  /** A copy: private pages copy-on-write, nonlinear mappings entry by entry, file mappings fault afresh. */
  fork(): AddressSpace {
    checkSpace(this.mm, 'fork')
    const child = sys_fork(this.mm)
    if (typeof child === 'number') throw systemError(child, 'fork', undefined, this.#whyNoFork(child))
    return new AddressSpace(child)
  }

  #whyNoFork(error: number): string | undefined {
    const { machine, mm } = this
    return spacesHint(machine, error) ?? vmasHint(machine, machine.mms.row(mm.id, MM_MAP_COUNT))
  }

  /** The mappings, a line each, as in /proc/PID/maps. */
  maps(): string {
    checkSpace(this.mm, 'maps')
    return this.machine.quietly(() => formatMaps(this.machine, maps(this.machine, this.mm.id)))
  }

  /** The mappings in detail, as in /proc/PID/smaps, with `Nonlinear:`. */
  smaps(): string {
    checkSpace(this.mm, 'smaps')
    return this.machine.quietly(() => formatSmaps(this.machine, smaps(this.machine, this.mm.id)))
  }

  /**
   * How large it is, and what of it is in memory, locked or swapped out, in bytes; its faults. As /proc/PID/status;
   * zeros once it is closed.
   */
  status(): SpaceStatus {
    return this.machine.quietly(() => spaceStatus(this.machine, this.isAlive ? this.mm.id : 0))
  }

  /** Unmaps everything. The space cannot be used any more. */
  close(): void {
    if (this.isAlive) orThrow(sys_exit(this.mm), 'exit')
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
