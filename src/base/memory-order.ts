/**
 * Whether this processor keeps the order of loads among themselves and of stores among themselves (x86: total store order), so that
 * plain ones can be relied on where Atomics would cost several times the access.
 *
 * JavaScript does not say on what it runs. An x86 processor makes NaN with the sign bit set out of Infinity - Infinity, an ARM one without;
 * an engine that tidies NaNs up shows no sign bit either, and then the slower way is taken, which is right everywhere.
 */
const value = new Float64Array(1)
const bytes = new Uint8Array(value.buffer)

export function hasTotalStoreOrder(): boolean {
  value[0] = Number.POSITIVE_INFINITY
  value[0] -= value[0]
  return (bytes[7] & 0x80) !== 0
}
