/** AddressSpace: where mappings live; what a process has one of. Made by `memory.space()` and `space.fork()`. */
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
import type { Machine } from '../mm/machine.ts'
import { formatMaps, maps } from '../observe/maps.ts'
import { formatSmaps, smaps } from '../observe/smaps.ts'
import type { Mm } from '../syscall/args.ts'
import { sys_mmap } from '../syscall/memory.ts'
import { sys_exit, sys_fork } from '../syscall/process.ts'
import { orThrow, systemError } from './errors.ts'
import type { MappedFile } from './file.ts'
import type { SpaceHandle } from './handles.ts'
import { Mapping } from './mapping.ts'
import { SharedMapping } from './shared-mapping.ts'

export interface MapOptions {
  /** First byte of the file that the window shows, a multiple of the page size. Default 0. */
  readonly offset?: number
  /** Bytes of the window. Default: from `offset` to the end of the file. */
  readonly length?: number
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
   * Throws EACCES (file mode), ENOMEM, EINVAL, EEXIST.
   */
  map(file: MappedFile | null, options: MapOptions = {}): Mapping {
    const { offset = 0, writable = false, address = 0 } = options
    const length = options.length ?? (file === null ? 0 : file.size - offset)
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
      (options.address === undefined ? 0 : MAP_FIXED_NOREPLACE)
    const prot = writable ? PROT_READ | PROT_WRITE : PROT_READ
    const at = sys_mmap(this.mm, address, length, prot, flags, file === null ? -1 : file.fd, offset)
    orThrow(at, 'mmap', address, file === null || file.fd >= 0 ? undefined : `${file.name} is closed`)
    const { pageSize } = this.machine.ram
    return this.window(file ?? undefined, writable, at / pageSize, Math.ceil(length / pageSize))
  }

  /**
   * The same window in another address space, such as a fork: the mapping object for what is at the same address there.
   */
  view(mapping: Mapping): Mapping {
    if (this.machine.inside) throw systemError(-this.machine.whyInside, 'view')
    return this.window(mapping.file, mapping.writable, mapping.address / mapping.pageSize, mapping.pageCount)
  }

  /** @internal The mapping object for pages that are mapped. */
  window(file: MappedFile | undefined, writable: boolean, vpn: number, pages: number): Mapping {
    const Kind = this.machine.sync.isShared ? SharedMapping : Mapping
    return new Kind(this, file, writable, vpn, pages)
  }

  /** What another thread adopts this address space by (`memory.adopt`): structured-cloneable. */
  get handle(): SpaceHandle {
    return { kind: 'space', id: this.mm.id, generation: this.mm.generation }
  }

  /** A copy: private pages copy-on-write, nonlinear mappings entry by entry, file mappings fault afresh. */
  fork(): AddressSpace {
    const child = sys_fork(this.mm)
    if (typeof child === 'number') throw systemError(child, 'fork')
    return new AddressSpace(child)
  }

  /** The mappings, a line each, as in /proc/PID/maps. */
  maps(): string {
    return this.machine.quietly(() => formatMaps(this.machine, maps(this.machine, this.mm.id)))
  }

  /** The mappings in detail, as in /proc/PID/smaps, with `Nonlinear:`. */
  smaps(): string {
    return this.machine.quietly(() => formatSmaps(this.machine, smaps(this.machine, this.mm.id)))
  }

  /** Unmaps everything. The space cannot be used any more. */
  close(): void {
    if (this.isAlive) orThrow(sys_exit(this.mm), 'exit')
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
