/**
 * Memories that nobody has closed when their thread ends, or when the program does not refer to them any more: their
 * files are written, as a process that ends leaves those of its mmaps to the kernel. What cannot be written is told on
 * stderr (docs/durability.md).
 *
 * The end of a thread is told by Node's 'exit' event (Deno and Bun have it as well): at its normal end, at
 * process.exit, after an uncaught exception. The main thread then writes all files that it can reach, and so does the
 * last thread that is attached; other threads write the files that they opened, which others may not be able to reach
 * afterwards. One listener a thread, there while a memory is open.
 *
 * What the registry keeps of a memory leads to none of its objects (`Remains`), so these can be collected. Of a memory
 * whose handle was given to other threads it is kept until this thread ends, since nobody knows whether one is about to
 * attach.
 */
import { errnoName } from '../abi/errno.ts'
import { type Kernel, type Remains, remainsOf, remakeKernel } from '../kernel.ts'
import { ALL_FILES, OWN_FILES, type Unwritten, writeFiles } from '../mm/last-write.ts'
import type { Machine } from '../mm/machine.ts'
import { type SalvagedFile, salvageFiles } from '../mm/salvage.ts'
import type { Store } from '../store/store.ts'
import { MEANINGS } from './errors.ts'

export interface Unclosed {
  readonly machine: WeakRef<Machine>
  readonly remains: Remains
  /** Its handle was given away. */
  isGiven: boolean
  /** It broke, and was salvaged. */
  isSalvaged: boolean
}

interface Process {
  on?(event: 'exit', listener: () => void): unknown
  off?(event: 'exit', listener: () => void): unknown
  getBuiltinModule?(name: string): unknown
}

const unclosed = new Set<Unclosed>()
const collected = new FinalizationRegistry<Unclosed>(onCollected)

/** From now on until `forget`, the end of the thread or of the last reference to the machine has its files written. */
export function remember(kernel: Kernel, swap: Store | undefined, isGiven: boolean): Unclosed {
  const entry = { machine: new WeakRef(kernel.machine), remains: remainsOf(kernel, swap), isGiven, isSalvaged: false }
  if (unclosed.size === 0) platform()?.on?.('exit', onExit)
  unclosed.add(entry)
  collected.register(kernel.machine, entry, entry)
  return entry
}

/** The memory was closed, or this thread has left it. */
export function forget(entry: Unclosed): void {
  collected.unregister(entry)
  if (unclosed.delete(entry) && unclosed.size === 0) platform()?.off?.('exit', onExit)
}

function platform(): Process | undefined {
  return (globalThis as { process?: Process }).process
}

function onExit(): void {
  const threads = platform()?.getBuiltinModule?.('node:worker_threads') as { isMainThread?: boolean } | undefined
  for (const entry of [...unclosed]) {
    const machine = machineOf(entry)
    if (!machine.open) continue
    // It may have ended within a guest, which somebody with the machine lock waits for.
    machine.sync.threads.endGuest(machine.sync.me)
    const isLast = threads?.isMainThread !== false || isAlone(machine)
    const lost = machine.inside ? [] : writeFiles(machine, isLast ? ALL_FILES : OWN_FILES)
    // Within a verb: a store, or a notifier, has ended the program. Or it is broken, perhaps as this thread has just
    // found out.
    if (machine.sync.broken === 0 && !machine.inside) tell(lost, 'when the thread ended')
    else if (isLast && !entry.isSalvaged) salvage(machine)
  }
}

function onCollected(entry: Unclosed): void {
  if (!unclosed.has(entry)) return
  const machine = machineOf(entry)
  if (machine.open && machine.sync.broken !== 0) {
    if (isAlone(machine) && !entry.isSalvaged) salvage(machine)
  } else if (machine.open)
    tell(writeFiles(machine, isAlone(machine) ? ALL_FILES : OWN_FILES), 'when nobody referred to the memory any more')
  if (entry.isGiven) return
  machine.open = false
  machine.inodes.stores.closeAll()
  try {
    entry.remains.swap?.close()
  } catch {}
  forget(entry)
}

/**
 * Writes what is whole, and tells of what is not: of a machine that is whole itself but within a verb, of that alone.
 */
function salvage(machine: Machine): void {
  for (const file of salvageFiles(machine)) {
    if (file.errno !== 0 || file.doubtful.length > 0 || machine.sync.broken !== 0)
      warn(`fremap: ${describeSalvaged(file)}\n`)
  }
}

/** What was saved of a file of a broken memory, as one line. */
export function describeSalvaged({ name, pages, bytes, doubtful, unwritten, errno }: SalvagedFile): string {
  const inDoubt = doubtful.length === 0 ? '' : `, ${doubtful.length} in doubt were not (${listed(doubtful)})`
  const code = errno === 0 ? '' : errnoName(errno)
  const failed = errno === 0 ? '' : `, ${unwritten.length} could not be written: ${code}: ${MEANINGS[code] ?? 'error'}`
  return `${pages} changed pages of ${name} (${bytes} bytes) were saved${inDoubt}${failed}`
}

function listed(pages: readonly number[]): string {
  return `file pages ${pages.slice(0, 8).join(', ')}${pages.length > 8 ? ', ...' : ''}`
}

function machineOf({ machine, remains }: Unclosed): Machine {
  return machine.deref() ?? remakeKernel(remains).machine
}

/** Whether no other thread is attached. */
function isAlone({ sync }: Machine): boolean {
  for (let t = 0; t < sync.threads.maxThreads; t++) if (t !== sync.me && sync.isAttached(t)) return false
  return true
}

function tell(lost: readonly Unwritten[], when: string): void {
  for (const { name, pages, bytes, errno } of lost) {
    const code = errnoName(errno)
    const what =
      pages === 0
        ? `the size of ${name}`
        : `${pages} changed ${pages === 1 ? 'page' : 'pages'} of ${name} (${bytes} bytes)`
    warn(`fremap: ${what} could not be written ${when}: ${code}: ${MEANINGS[code] ?? 'error'}\n`)
  }
}

/** At once: a thread that ends has no later turn. */
function warn(text: string): void {
  try {
    const fs = platform()?.getBuiltinModule?.('node:fs') as { writeSync(fd: number, text: string): unknown } | undefined
    if (fs === undefined) console.error(text.trimEnd())
    else fs.writeSync(2, text)
  } catch {}
}
