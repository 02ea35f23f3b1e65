/**
 * Things that a caller may hand in where bytes, a number or an object are wanted: by mistake, from another realm, or to
 * do harm.
 */
import vm from 'node:vm'

/** Bytes `0, 1, 2...` in an array of some kind, with what shows the same memory plainly. */
export interface StrangeBytes {
  readonly given: Uint8Array
  /** The bytes of it. */
  readonly plain: Uint8Array
}

/** Throws whatever is asked of it. */
class Hostile extends Uint8Array {
  override set(): never {
    throw new Error('set was called')
  }

  override subarray(): never {
    throw new Error('subarray was called')
  }

  override fill(): never {
    throw new Error('fill was called')
  }

  override slice(): never {
    throw new Error('slice was called')
  }
}

function own(length: number, key: PropertyKey, value: unknown): StrangeBytes {
  const plain = new Uint8Array(length)
  const given = Object.defineProperty(new Uint8Array(plain.buffer), key, { value })
  return { given, plain }
}

function refuses(): never {
  throw new Error('a method of the caller was called')
}

function foreign(program: string, length: number): StrangeBytes {
  const given = vm.runInNewContext(program, { length }) as Uint8Array
  return { given, plain: new Uint8Array(given.buffer, given.byteOffset, length) }
}

/** ES2024, which the compiler's library does not have yet. */
type Resizable = new (
  length: number,
  options: { maxByteLength: number }
) => ArrayBuffer & { resize(length: number): void }
const ResizableBuffer = ArrayBuffer as unknown as Resizable

/** Arrays that are bytes, whatever else they are. */
export const TRUE_BYTES: readonly [string, (length: number) => StrangeBytes][] = [
  ['a Uint8Array', length => own(length, 'note', 'mine')],
  [
    'a class of its own',
    length => {
      const given = new Hostile(length)
      return { given, plain: new Uint8Array(given.buffer) }
    }
  ],
  ['a length of its own, too large', length => own(length, 'length', length * 1000)],
  ['a length of its own, too small', length => own(length, 'length', 1)],
  ['a set of its own', length => own(length, 'set', refuses)],
  ['a subarray of its own', length => own(length, 'subarray', refuses)],
  ['a constructor of its own', length => own(length, 'constructor', { [Symbol.species]: refuses })],
  ['a buffer of its own', length => own(length, 'buffer', new ArrayBuffer(1))],
  ['a byteOffset of its own', length => own(length, 'byteOffset', 77)],
  [
    'no prototype',
    length => {
      const plain = new Uint8Array(length)
      return { given: Object.setPrototypeOf(new Uint8Array(plain.buffer), null), plain }
    }
  ],
  ['one of another realm', length => foreign('new Uint8Array(length)', length)],
  [
    'a part of one of another realm',
    length => foreign('new Uint8Array(new ArrayBuffer(length + 9), 5, length)', length)
  ],
  [
    'a Buffer',
    length => {
      const given = Buffer.alloc(length)
      return { given, plain: given }
    }
  ],
  [
    'clamped bytes',
    length => {
      const plain = new Uint8Array(length)
      return { given: new Uint8ClampedArray(plain.buffer) as unknown as Uint8Array, plain }
    }
  ],
  [
    'signed bytes',
    length => {
      const plain = new Uint8Array(length)
      return { given: new Int8Array(plain.buffer) as unknown as Uint8Array, plain }
    }
  ],
  [
    'shared bytes',
    length => {
      const plain = new Uint8Array(new SharedArrayBuffer(length))
      return { given: new Uint8Array(plain.buffer), plain }
    }
  ],
  [
    'bytes that may change their size',
    length => {
      const plain = new Uint8Array(new ResizableBuffer(length, { maxByteLength: 2 * length }))
      return { given: new Uint8Array(plain.buffer), plain }
    }
  ]
]

/** A view whose buffer was given away. */
export function detached(length: number): Uint8Array {
  const view = new Uint8Array(length)
  structuredClone(view.buffer, { transfer: [view.buffer] })
  return view
}

/** A view that lies outside its buffer, which was cut. */
export function outside(length: number): Uint8Array {
  const buffer = new ResizableBuffer(2 * length, { maxByteLength: 2 * length })
  const view = new Uint8Array(buffer, length, length)
  buffer.resize(length)
  return view
}

/** What is no bytes, or has none any more. */
export const NO_BYTES: readonly [string, () => unknown][] = [
  ['an array', () => [1, 2, 3, 4]],
  ['a string', () => 'four'],
  ['words', () => new Float64Array(4)],
  ['a DataView', () => new DataView(new ArrayBuffer(4))],
  ['a buffer', () => new ArrayBuffer(4)],
  ['something like bytes', () => ({ length: 4, buffer: new ArrayBuffer(4), byteOffset: 0 })],
  ['no array, of that prototype', () => Object.create(Uint8Array.prototype)],
  ['a proxy of bytes', () => new Proxy(new Uint8Array(4), {})],
  ['bytes that were given away', () => detached(4)],
  ['bytes outside their buffer', () => outside(4)],
  ['null', () => null],
  ['undefined', () => undefined]
]

/** An object that answers whatever is asked of it by `answer`. */
function answering(answer: () => unknown): unknown {
  const refuse = (): never => {
    throw new Error('a trap of the caller')
  }
  return new Proxy(() => {}, { get: answer, has: refuse, ownKeys: refuse, getPrototypeOf: refuse, apply: refuse })
}

/** Anything, for any argument. `act` is what code of the caller does when it is called. */
export function strangeThings(act: () => void): [string, unknown][] {
  const turns = [0, 1, 'x', -1, undefined, 4096, Number.NaN]
  let turn = 0
  return [
    ['undefined', undefined],
    ['null', null],
    ['true', true],
    ["'8'", '8'],
    ["'x'", 'x'],
    ['1.5', 1.5],
    ['-1', -1],
    ['NaN', Number.NaN],
    ['Infinity', Number.POSITIVE_INFINITY],
    ['2^53', 2 ** 53],
    ['2^32', 2 ** 32],
    ['5n', 5n],
    ['a symbol', Symbol('mine')],
    ['{}', {}],
    ['[]', []],
    ['[8]', [8]],
    ['an object without a prototype', Object.create(null)],
    ['a function', () => 1],
    [
      'a valueOf that throws',
      {
        valueOf: () => {
          throw new Error('a valueOf of the caller')
        }
      }
    ],
    [
      'a valueOf that acts',
      {
        valueOf: () => {
          act()
          return 8
        }
      }
    ],
    [
      'a toString that acts',
      {
        toString: () => {
          act()
          return '8'
        }
      }
    ],
    ['a proxy that throws', answering(refuses)],
    [
      'a proxy that acts',
      answering(() => {
        act()
        return undefined
      })
    ],
    ['a proxy of other things each time', answering(() => turns[turn++ % turns.length])],
    ['bytes', new Uint8Array(3)],
    ['bytes that were given away', detached(3)]
  ]
}
