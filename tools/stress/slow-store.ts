/** A store over another one that sleeps for a moment in one call of eight, so that other threads come in between. */
import type { Store, StoreHandle, StoreOpener } from '../../src/index.ts'

const KIND = 'slow'
const CALLS_PER_SLEEP = 8
const SLEEP_MS = 1

const nobody = new Int32Array(new SharedArrayBuffer(4))
let calls = 0

function pause(): void {
  if (++calls % CALLS_PER_SLEEP === 0) Atomics.wait(nobody, 0, 0, SLEEP_MS)
}

export function slowStore(inner: Store): Store {
  return {
    name: inner.name,
    identity: inner.identity,
    readOnly: inner.readOnly,
    durable: inner.durable,
    handle: { kind: KIND, inner: inner.handle },
    size: () => inner.size(),
    read: (position, buffer, offset, length) => {
      pause()
      return inner.read(position, buffer, offset, length)
    },
    write: (position, buffer, offset, length) => {
      pause()
      return inner.write(position, buffer, offset, length)
    },
    flush: () => inner.flush(),
    truncate: sizeBytes => inner.truncate(sizeBytes),
    punch: (position, length) => inner.punch(position, length),
    close: () => inner.close()
  }
}

/** Opens slow stores over what `openers` open. */
export function slowStores(openers: readonly StoreOpener[]): StoreOpener {
  return {
    kind: KIND,
    open: handle => {
      const inner = handle.inner as StoreHandle
      const opener = openers.find(one => one.kind === inner.kind)
      if (opener === undefined) throw new Error(`no opener for '${inner.kind}'`)
      return slowStore(opener.open(inner))
    }
  }
}
