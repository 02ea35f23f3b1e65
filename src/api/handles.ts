/**
 * What threads send each other to share a memory: plain objects that structured clone takes (`postMessage`, `workerData`).
 *
 * A handle names a thing; it holds nothing and keeps nothing alive. Adopting one whose thing has ended gives ESRCH or EBADF.
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
  readonly fd: number
  readonly name: string
  readonly writable: boolean
}

/** An address space. */
export interface SpaceHandle {
  readonly kind: 'space'
  readonly id: number
  readonly generation: number
}

/** A mapping: its address space, where it is, and its file. */
export interface MappingHandle {
  readonly kind: 'mapping'
  readonly space: SpaceHandle
  readonly file: FileHandle | undefined
  readonly writable: boolean
  /** First page and pages of the window. */
  readonly vpn: number
  readonly pages: number
}
