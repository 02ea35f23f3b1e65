/** Memory that threads can share. */

/**
 * A buffer of so many bytes, all zero.
 *
 * @throws RangeError when so much cannot be had; Error where the platform has no shared memory, which in a browser is the page's own doing.
 */
export function sharedBuffer(lengthBytes: number): SharedArrayBuffer {
  if (typeof SharedArrayBuffer === 'undefined') {
    throw new Error(
      'there is no SharedArrayBuffer here, which a memory is made of: a page must be cross-origin isolated. Serve it over https (or from ' +
        "localhost) with the headers 'Cross-Origin-Opener-Policy: same-origin' and 'Cross-Origin-Embedder-Policy: require-corp'"
    )
  }
  return new SharedArrayBuffer(lengthBytes)
}
