/**
 * Whether a thread of this process still exists, as the operating system says: the one sound sign that it has ended
 * which a thread can look for while it blocks. (Node tells the end of a worker through the event loop of the thread
 * that started it, which may be the very one that waits.)
 *
 * Linux with Node, where /proc is that of this process: a thread's number, and when it started, so that a number that
 * is used again is not taken for it. Elsewhere nothing is known, and threads count on signs of life (sync/vigil).
 */

/** What is used of Node's `fs`. */
interface Files {
  readFileSync(path: string, encoding: 'latin1'): string
}

export interface OsThread {
  readonly id: number
  /** Clock ticks from the start of the system to that of the thread: the low 32 bits. */
  readonly start: number
}

/** This thread; undefined where that is not known. */
export function osThread(): OsThread | undefined {
  return threadAt('/proc/thread-self/stat')
}

/** Whether a thread has ended: nothing of it runs any more. Undefined where that is not known. */
export function hasOsThreadEnded(id: number, start: number | undefined): boolean | undefined {
  const there = threadAt(`/proc/self/task/${id}/stat`)
  if (there !== undefined) return there.id !== id || (start !== undefined && there.start !== start)
  // It is gone, unless nothing can be read at all.
  return osThread() === undefined ? undefined : true
}

/**
 * The thread that a stat file is about (proc_pid_stat(5)): number, name in parentheses, state, ...; the 22nd is its
 * start.
 */
function threadAt(path: string): OsThread | undefined {
  try {
    const text = files()?.readFileSync(path, 'latin1')
    if (text === undefined) return undefined
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const id = Number.parseInt(text, 10)
    const start = Number(fields[22 - 3])
    // Dead, and not put away yet.
    const hasEnded = fields[0] === 'Z' || fields[0] === 'X'
    return Number.isSafeInteger(id) && Number.isSafeInteger(start) && !hasEnded ? { id, start: start | 0 } : undefined
  } catch {
    return undefined
  }
}

function files(): Files | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } }
  return process?.getBuiltinModule?.('node:fs') as Files | undefined
}
