/**
 * fremap: Linux's nonlinear file mappings for JavaScript.
 *
 * Two layers: the everyday classes (Memory, AddressSpace, Mapping, MappedFile) and, for people who know Linux, the system
 * calls as `sys_*`.
 */
export * from './abi/errno.ts'
export * from './abi/fault.ts'
export * from './abi/limits.ts'
export * from './abi/mman.ts'
export { Accessors } from './api/accessors.ts'
export { BorrowedPage } from './api/borrowed-page.ts'
export { FaultError, FremapError } from './api/errors.ts'
export { MappedFile } from './api/file.ts'
export type { FileHandle, MappingHandle, MemoryHandle, SpaceHandle } from './api/handles.ts'
export type { LongOptions, Progress } from './api/long-work.ts'
export { type Advice, Mapping, type Protection, type Range, type RemapOptions } from './api/mapping.ts'
export {
  type AttachOptions,
  Memory,
  type MemoryOptions,
  type MemoryStats,
  type SwapOptions,
  type ThreadStats,
  type WatchedWorker
} from './api/memory.ts'
export { formatSize, parseSize } from './api/size.ts'
export { AddressSpace, type MapOptions } from './api/space.ts'
export * from './kernel.ts'
export { type Machine, POLICY_LINUX, POLICY_NONLINEAR } from './mm/machine.ts'
export type { MmuNotifier } from './notify/notifier.ts'
export { checkMachine } from './observe/check.ts'
export { formatMaps, type MapsRow, maps } from './observe/maps.ts'
export { formatPagemap, PM_FILE, PM_PRESENT, PM_SOFT_DIRTY, PM_SWAP, pagemap } from './observe/pagemap.ts'
export { formatSmaps, type SmapsRow, smaps } from './observe/smaps.ts'
export { formatTraceRow, type TraceRow, traceRows } from './observe/trace.ts'
export type { AsyncStore } from './store/async-store.ts'
export type { Store, StoreHandle, StoreOpener } from './store/store.ts'
export * from './stores/memory.ts'
export { Mm, type Quantity } from './syscall/args.ts'
export * from './syscall/file.ts'
export * from './syscall/fremap.ts'
export * from './syscall/memory.ts'
export * from './syscall/mlock.ts'
export * from './syscall/process.ts'
