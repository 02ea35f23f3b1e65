/**
 * What an arena begins with: which memory it is, of which fremap, and the options that decide how it is laid out.
 *
 *   word 0    MAGIC
 *        1    a hash of the version
 *        2-3  the memory's id: random, so that no other memory of the process has it
 *        4    how many options
 *        5-   their values, by name in the order of `Plan` (kernel)
 *
 * A number, such as that of a descriptor or of an address space, means something in one memory only. So whatever
 * carries one carries the id as well. A thread that attaches lays its columns by the options in the handle; they must
 * be those that the arena was made with.
 */
import type { Arena } from '../base/arena.ts'
import { VERSION } from '../base/version.ts'

export const IDENTITY_WORDS = 32 as const
const MAGIC = 0x66726d70
const W_MAGIC = 0
const W_VERSION = 1
const W_ID = 2
const W_COUNT = 4
const W_OPTIONS = 5
/** Bits of the id in its upper word: it is a whole number that a double holds. */
const ID_HIGH_BITS = 21

export class Identity {
  readonly #words: Int32Array

  constructor(columns: Pick<Arena, 'int32'>) {
    this.#words = columns.int32('identity', IDENTITY_WORDS)
  }

  /** Tells this memory from all others. */
  get id(): number {
    return (this.#words[W_ID + 1] >>> 0) * 2 ** 32 + (this.#words[W_ID] >>> 0)
  }

  /** Says what the arena is, once. `options` are named numbers. */
  write(options: Readonly<Record<string, number>>): void {
    const values = Object.values(options)
    this.#words[W_MAGIC] = MAGIC
    this.#words[W_VERSION] = hash(VERSION)
    this.#words[W_ID] = Math.floor(Math.random() * 2 ** 32)
    this.#words[W_ID + 1] = Math.floor(Math.random() * 2 ** ID_HIGH_BITS)
    this.#words[W_COUNT] = values.length
    this.#words.set(values, W_OPTIONS)
  }
}

/** Why what an arena says it is does not fit a handle with these options and this id; '' if it does. */
export function misfit(arena: ArrayBufferLike, options: Readonly<Record<string, number>>, id: number): string {
  const names = Object.keys(options)
  if (arena.byteLength < IDENTITY_WORDS * 4) return 'its arena is no memory of fremap'
  const words = new Int32Array(arena, 0, IDENTITY_WORDS)
  if (words[W_MAGIC] !== MAGIC) return 'its arena is no memory of fremap'
  if (words[W_VERSION] !== hash(VERSION) || words[W_COUNT] !== names.length) {
    return `it was made by another version of fremap than this, ${VERSION}`
  }
  const differs = names.findIndex((name, i) => words[W_OPTIONS + i] !== options[name])
  if (differs >= 0) {
    const name = names[differs]
    return `${name} is ${options[name]} in it, but ${words[W_OPTIONS + differs]} in the memory`
  }
  const identity = new Identity({ int32: () => words })
  return identity.id === id ? '' : 'it is put together from those of two memories'
}

/** FNV-1a. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h | 0
}
