/** Address spaces as processes have them: made, forked, ended, limited, watched. */
import { EINVAL, ENODEV, ENOMEM, ESRCH } from '../abi/errno.ts'
import { MM_RLIMIT_AS, MM_RLIMIT_MEMLOCK, MM_SHIFT } from '../frame/mm-table.ts'
import { doFork } from '../mm/fork.ts'
import type { Machine } from '../mm/machine.ts'
import { CLEAR_REFS_ALL, CLEAR_REFS_MM_HIWATER_RSS, clearRefs } from '../mm/soft-dirty.ts'
import { endMm, newMm } from '../mm/space.ts'
import type { MmuNotifier } from '../notify/notifier.ts'
import { Mm, machineOf } from './args.ts'

export const RLIMIT_MEMLOCK = 8 as const
export const RLIMIT_AS = 9 as const

/** A new, empty address space, or -errno. */
export function sys_mm_create(m: Machine): Mm | number {
  if (!m.open) return -ENODEV
  const id = m.run(() => (m.open ? newMm(m) : -ENODEV))
  return id < 0 ? id : new Mm(m, id)
}

/** A copy of an address space: private pages copy-on-write, nonlinear mappings entry by entry; or -errno. fork(2). */
export function sys_fork(mm: Mm): Mm | number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  let child: number
  let refused: number
  do {
    refused = m.allocator.nrRefused
    child = m.runOn(mm.id, mm.generation, () => (m.open ? doFork(m, mm.id) : -ESRCH))
  } while (m.mayTryAgain(child, refused))
  return child < 0 ? child : new Mm(m, child)
}

/**
 * Ends an address space; its handle is stale afterwards. → 0 or -errno: the first error of writing what was dirty in a
 * file that nothing else had open. The address space has ended all the same.
 */
export function sys_exit(mm: Mm): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => endMm(m, mm.id))
}

/** Limits locked memory (RLIMIT_MEMLOCK) or address space (RLIMIT_AS) to `pages`; -1 is no limit. → 0 or -errno. */
export function sys_setrlimit(mm: Mm, resource: number, pages: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  if (!Number.isInteger(pages) || pages < -1 || pages > 0x7fffffff) return -EINVAL
  if (resource !== RLIMIT_MEMLOCK && resource !== RLIMIT_AS) return -EINVAL
  m.mms.w[(mm.id << MM_SHIFT) + (resource === RLIMIT_MEMLOCK ? MM_RLIMIT_MEMLOCK : MM_RLIMIT_AS)] = pages
  return 0
}

/** Writes `kind` (1-5, see mm/soft-dirty) to the address space's clear_refs. → 0 or -errno. proc(5). */
export function sys_clear_refs(mm: Mm, kind: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  if (!Number.isInteger(kind) || kind < CLEAR_REFS_ALL || kind > CLEAR_REFS_MM_HIWATER_RSS) return -EINVAL
  return m.runOn(mm.id, mm.generation, () => {
    clearRefs(m, mm.id, kind)
    return 0
  })
}

/**
 * Registers a secondary MMU for the address space, under its mmap lock. → 0 or -errno: EOPNOTSUPP where threads share
 * the memory, since another one could not call this thread's object (notify/notifier.ts).
 */
export function sys_mmu_notifier_register(mm: Mm, notifier: MmuNotifier): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => m.notifiers.register(mm.id, notifier))
}

/** Takes a secondary MMU off; its `release` runs first. → 0, -EINVAL if it was not registered, or -errno. */
export function sys_mmu_notifier_unregister(mm: Mm, notifier: MmuNotifier): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => (m.notifiers.unregister(mm.id, notifier) ? 0 : -EINVAL))
}

/**
 * Registers a secondary MMU of a kind that every thread knows (mmu/kinds): all tell it what they change. `thread` is
 * whose it is, -1 for everybody's. → its id, or -errno: ENOMEM when too many are registered.
 */
export function sys_mmu_kind_register(mm: Mm, kind: number, thread: number, own: readonly number[]): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => m.notifiers.registerKind(mm.id, kind, thread, own) || -ENOMEM)
}

/** Takes it off; its `release` runs first. → 0, -EINVAL when it was taken off already, or -errno. */
export function sys_mmu_kind_unregister(mm: Mm, id: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  return m.runOn(mm.id, mm.generation, () => (m.notifiers.unregisterKind(id) ? 0 : -EINVAL))
}
