/**
 * What must not stay behind: temporary files and half-made outputs, undone at the end of the process however it comes
 * (return, error, SIGINT, SIGTERM, SIGHUP), unless they were kept.
 *
 * A signal only gets through when the event loop turns: long loops must wait for `Progress.add`.
 */
const undos = new Set<() => void>()
let installed = false

/** Has `undo` run at the end of the process. It must be synchronous. → a function that calls it off. */
export function undoAtExit(undo: () => void): () => void {
  catchSignals()
  undos.add(undo)
  return () => {
    undos.delete(undo)
  }
}

/**
 * Has signals wait for the event loop from now on. To be called before something is made that must not stay: a signal
 * between the making and `undoAtExit` would otherwise end the process with nothing undone.
 */
export function catchSignals(): void {
  if (installed) return
  installed = true
  process.once('exit', undoAll)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      undoAll()
      // Without a handler now: the process ends by the signal, and its parent sees that.
      process.kill(process.pid, signal)
    })
  }
}

function undoAll(): void {
  // Last made, first undone: a file before its directory.
  for (const undo of [...undos].reverse()) {
    undos.delete(undo)
    try {
      undo()
    } catch {
      // The rest must still be undone, and the exit code is settled already.
    }
  }
}
