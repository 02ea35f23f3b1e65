/** A store that outlives its closing, as a file does. */
import { EOPNOTSUPP } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'
import type { Config } from './program.ts'

/** Executors of one process have files of their own. */
const identities = new WeakMap<Store, string>()
let nrFiles = 0

/** The store under another handle for each open: closing one leaves the bytes for the next. */
export function staysOpen(store: Store, punch: Config['punch']): Store {
  const identity = identities.get(store) ?? `file ${++nrFiles}`
  identities.set(store, identity)
  return {
    name: 'file',
    identity,
    readOnly: false,
    durable: true,
    size: () => store.size(),
    read: (position, buffer, offset, length) => store.read(position, buffer, offset, length),
    write: (position, buffer, offset, length) => store.write(position, buffer, offset, length),
    flush: () => store.flush(),
    truncate: sizeBytes => store.truncate(sizeBytes),
    punch: (position, length) => (punch === 'punch' ? store.punch(position, length) : -EOPNOTSUPP),
    close: () => 0
  }
}
