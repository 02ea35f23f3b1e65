/**
 * A store whose calls can be held: each waits at its gate until that is opened. The gates are words of shared memory,
 * so that one thread holds and releases the calls of all others. Plain JavaScript, for workers.
 *
 * Reads pass two gates: one before they are made, and one ('answer') when the store has given its bytes.
 *
 * For each kind of call: how many are held there now, how many there were, whether they are held, those at which file
 * byte (-1: wherever), an errno that they fail with instead, and how many may pass all the same.
 */
export const CALLS = ['read', 'answer', 'write', 'flush', 'truncate', 'punch', 'size', 'close']
const WORDS = 8
export const G_CLOSED = 0
export const G_HELD = 1
export const G_CALLS = 2
export const G_POSITION = 3
export const G_ERRNO = 4
export const G_TICKETS = 5

export function newGates() {
  const gates = new Int32Array(new SharedArrayBuffer(CALLS.length * WORDS * 4))
  for (const call of CALLS) gates[gateAt(call, G_POSITION)] = -1
  return gates
}

export function gateAt(call, word) {
  const index = CALLS.indexOf(call)
  if (index < 0) throw new TypeError(`${call} has no gate`)
  return index * WORDS + word
}

/** Passes a gate, waiting while it is closed to this call. → 0, or the -errno that the call is to fail with. */
function pass(gates, call, position, length) {
  const closed = gateAt(call, G_CLOSED)
  const isMeant = () => {
    const from = Atomics.load(gates, gateAt(call, G_POSITION))
    return from < 0 || (from >= position && from < position + length)
  }
  const isHeld = () => {
    if (Atomics.load(gates, closed) === 0 || !isMeant()) return false
    const tickets = Atomics.load(gates, gateAt(call, G_TICKETS))
    return tickets === 0 || Atomics.compareExchange(gates, gateAt(call, G_TICKETS), tickets, tickets - 1) !== tickets
  }
  Atomics.add(gates, gateAt(call, G_CALLS), 1)
  if (isHeld()) {
    Atomics.add(gates, gateAt(call, G_HELD), 1)
    do Atomics.wait(gates, closed, 1, 5)
    while (isHeld())
    Atomics.sub(gates, gateAt(call, G_HELD), 1)
  }
  return isMeant() ? -Atomics.load(gates, gateAt(call, G_ERRNO)) : 0
}

export function gatedStore(inner, gates) {
  const answer = (done, position, length) => pass(gates, 'answer', position, length) || done
  return {
    name: inner.name,
    identity: inner.identity,
    readOnly: inner.readOnly,
    durable: inner.durable,
    handle: { kind: 'gated', name: inner.name, readOnly: inner.readOnly },
    size: () => pass(gates, 'size', 0, 0) || inner.size(),
    read: (position, buffer, offset, length) =>
      pass(gates, 'read', position, length) || answer(inner.read(position, buffer, offset, length), position, length),
    write: (position, buffer, offset, length) =>
      pass(gates, 'write', position, length) || inner.write(position, buffer, offset, length),
    flush: () => pass(gates, 'flush', 0, 0) || inner.flush(),
    truncate: size => pass(gates, 'truncate', size, 1) || inner.truncate(size),
    punch: (position, length) => pass(gates, 'punch', position, length) || inner.punch(position, length),
    close: () => {
      const failed = pass(gates, 'close', 0, 0)
      return inner.close() || failed
    }
  }
}

/** Opens gated stores over what `inner` opens. */
export function gatedStores(inner, gates) {
  return { kind: 'gated', open: handle => gatedStore(inner.open({ ...handle, kind: inner.kind }), gates) }
}
