/** Memory that threads can share. */

/**
 * A buffer of so many bytes, all zero, that one typed array can cover.
 *
 * @throws RangeError when so much cannot be had, or no typed array of this platform has so many bytes; Error where the
 * platform has no shared memory, which in a browser is the page's own doing.
 */
export function sharedBuffer(lengthBytes: number): SharedArrayBuffer {
  if (typeof SharedArrayBuffer === 'undefined') {
    throw new Error(
      'there is no SharedArrayBuffer here, which a memory is made of: a page must be cross-origin isolated. Serve it over https (or from ' +
        "localhost) with the headers 'Cross-Origin-Opener-Policy: same-origin' and 'Cross-Origin-Embedder-Policy: require-corp'"
    )
  }
  const buffer = allocated(lengthBytes)
  const most = largestView(buffer)
  if (most === lengthBytes) return buffer
  throw new RangeError(
    `a memory would need a buffer of ${lengthBytes} bytes, but typed arrays have at most ${most} here: make its size smaller, or use a ` +
      'later version of the platform (Node 20 ends at 4 GiB, later ones do not)'
  )
}

function allocated(lengthBytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(lengthBytes)
  } catch (thrown) {
    if (!(thrown instanceof RangeError)) throw thrown
    throw new RangeError(
      `a memory would need a buffer of ${lengthBytes} bytes, which this platform does not give: make its size smaller`,
      { cause: thrown }
    )
  }
}

/** Bytes of the largest typed array over the buffer from its begin on. */
function largestView(buffer: SharedArrayBuffer): number {
  let most = 0
  let tooMany = buffer.byteLength + 1
  for (let length = tooMany - 1; most + 1 < tooMany; length = Math.floor((most + tooMany) / 2)) {
    try {
      new Uint8Array(buffer, 0, length)
      most = length
    } catch {
      tooMany = length
    }
  }
  return most
}
