/**
 * Arrays of callers, seen as they are: by what the engine itself knows of them. Their own properties, the methods of a
 * class that extends them, a proxy around them are their author's code, which is not to run where bytes are copied with
 * locks held. And an array of another realm (a vm context, a test runner's, an iframe's) is an array.
 */

const TypedArray = Object.getPrototypeOf(Uint8Array.prototype) as object
/** 'Uint8Array', for example, of a true typed array; undefined of all else, proxies included. */
const tagOf = getterOf(Symbol.toStringTag) as (array: unknown) => string | undefined
const bufferOf = getterOf('buffer') as (array: unknown) => ArrayBuffer
const byteOffsetOf = getterOf('byteOffset') as (array: unknown) => number
const lengthOf = getterOf('length') as (array: unknown) => number
const hasZero = unbound(Reflect.get(TypedArray, 'includes') as () => unknown) as (array: unknown, n: 0) => boolean

function getterOf(key: PropertyKey): unknown {
  return unbound(Object.getOwnPropertyDescriptor(TypedArray, key)?.get as () => unknown)
}

/** A method as a function of its object. */
function unbound(method: () => unknown): unknown {
  return Function.prototype.call.bind(method)
}

function isBytes(given: unknown): boolean {
  const tag = tagOf(given)
  return tag === 'Uint8Array' || tag === 'Uint8ClampedArray' || tag === 'Int8Array'
}

/**
 * The same bytes as a new Uint8Array of this realm and nothing else. Undefined for what is no array of bytes, or has
 * none: its buffer was detached, or cut so that the array lies outside.
 */
export function asBytes(given: unknown): Uint8Array | undefined {
  if (!isBytes(given)) return undefined
  const length = lengthOf(given)
  if (length === 0 && isOutOfReach(given)) return undefined
  return new Uint8Array(bufferOf(given), byteOffsetOf(given), length)
}

/** The same. Throws TypeError where `asBytes` gives undefined. */
export function plainBytes(given: unknown): Uint8Array {
  const bytes = asBytes(given)
  if (bytes !== undefined) return bytes
  if (isBytes(given)) throw outOfReach()
  throw new TypeError('bytes are copied from and to a Uint8Array')
}

/**
 * Throws TypeError where an array of `asBytes` that had `length` bytes has them no more: code of others has run
 * meanwhile.
 */
export function checkReachable(bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) throw outOfReach()
}

function outOfReach(): TypeError {
  return new TypeError('the buffer of these bytes was detached, or is too small for them now')
}

/** How many numbers an Int32Array has; -1 for what is none. */
export function nrPageNumbers(given: unknown): number {
  if (tagOf(given) !== 'Int32Array') return -1
  const length = lengthOf(given)
  return length === 0 && isOutOfReach(given) ? -1 : length
}

/** A copy of an Int32Array that nobody else changes. Undefined for what is none. */
export function asPageNumbers(given: unknown): Int32Array | undefined {
  return nrPageNumbers(given) < 0 ? undefined : new Int32Array(given as Int32Array)
}

/** Whether it is memory that threads share, of whatever realm. */
export function isSharedBuffer(given: unknown): given is SharedArrayBuffer {
  // Pages that are not isolated have none of their own.
  if (typeof SharedArrayBuffer === 'undefined') return false
  try {
    Reflect.get(SharedArrayBuffer.prototype, 'byteLength', given)
    return true
  } catch {
    return false
  }
}

/** Whether an array has no bytes any more, rather than none from the start. */
function isOutOfReach(array: unknown): boolean {
  try {
    // Like all methods of typed arrays, says so by a TypeError.
    hasZero(array, 0)
    return false
  } catch {
    return true
  }
}
