/**
 * What threads send each other to share a memory: plain objects that structured clone takes (`postMessage`,
 * `workerData`).
 *
 * A handle names a thing, and the memory that it is of (`Machine.id`); it holds nothing and keeps nothing alive.
 * Adopting one whose thing has ended gives ESRCH (address space), EBADF (file) or ESTALE (mapping); one of another
 * memory EINVAL. Numbers in it are never given to another thing, so what has taken their place is not met by it.
 */
import type { MachineHandle } from '../kernel.ts'

/** A memory: for `Memory.attach`. */
export interface MemoryHandle {
  readonly kind: 'memory'
  readonly machine: MachineHandle
  readonly sizeBytes: number
}

/** An open file of a memory. */
export interface FileHandle {
  readonly kind: 'file'
  readonly memory: number
  readonly fd: number
  readonly name: string
  readonly writable: boolean
}

/** An address space. */
export interface SpaceHandle {
  readonly kind: 'space'
  readonly memory: number
  readonly id: number
  readonly generation: number
}

/** A mapping: its address space, where it is, and its file. */
export interface MappingHandle {
  readonly kind: 'mapping'
  readonly space: SpaceHandle
  readonly file: FileHandle | undefined
  /** The inode that the window shows, and its row's number: 0 and 0 for memory of its own. */
  readonly inode: number
  readonly inodeSeq: number
  readonly writable: boolean
  /** First page and pages of the window. */
  readonly vpn: number
  readonly pages: number
}
