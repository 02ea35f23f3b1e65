/** Bytes of callers. */

/**
 * The same bytes as a Uint8Array and nothing else: the methods of a class that extends it are its author's code, which is not to run
 * where bytes are copied, with locks held. (Node's Buffer is one too.) Throws TypeError for what is no bytes.
 */
export function plainBytes(bytes: Uint8Array): Uint8Array {
  if (Object.getPrototypeOf(bytes) === Uint8Array.prototype) return bytes
  const given: unknown = bytes
  if (ArrayBuffer.isView(given) && bytes.BYTES_PER_ELEMENT === 1) {
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  }
  throw new TypeError('bytes are copied from and to a Uint8Array')
}
