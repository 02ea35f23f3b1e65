/**
 * Decoding of system-call arguments.
 *
 * A 64-bit argument is a number (a non-negative safe integer) or a BigInt below 2^64; anything else is EINVAL. It is
 * split into pages and bytes within the page, both exact as doubles whatever its size, so that nothing further in needs
 * BigInt. A 32-bit argument (flags, prot, advice) is an integer from -2^31 to 2^32 - 1.
 */

import { defineHidden } from '../base/printing.ts'
import { MM_GENERATION } from '../frame/mm-table.ts'
import type { Machine } from '../mm/machine.ts'

/** An address, length, size or file position, in bytes (or pages, for pgoff). */
export type Quantity = number | bigint

/** What `pageOf` and `intOf` give for something that is no argument. */
export const BAD = -1 as const
export const BAD_INT: number = Number.NaN

const TWO_64 = 2n ** 64n

/** Whole pages in a byte quantity, rounded down; BAD if it is none. */
export function pageOf(m: Machine, x: Quantity): number {
  if (typeof x === 'number') {
    if (!Number.isSafeInteger(x) || x < 0) return BAD
    return Math.floor(x * m.ram.pagesPerByte)
  }
  if (typeof x !== 'bigint' || x < 0n || x >= TWO_64) return BAD
  return Number(x >> BigInt(m.ram.pageShift))
}

/** Bytes beyond the last whole page of a quantity that `pageOf` took. */
export function offOf(m: Machine, x: Quantity): number {
  if (typeof x === 'number') return x % m.ram.pageSize
  return Number(x & BigInt(m.ram.pageSize - 1))
}

/** Pages in a byte quantity, rounded up; 0 when that passes 2^64, as in C; BAD if it is none. */
export function pagesUp(m: Machine, x: Quantity): number {
  const pages = pageOf(m, x)
  if (pages === BAD) return BAD
  const up = offOf(m, x) === 0 ? pages : pages + 1
  return up === pagesIn64Bits(m) ? 0 : up
}

/** 2^64 bytes in pages. */
export function pagesIn64Bits(m: Machine): number {
  return m.ram.pagesIn64Bits
}

/**
 * A count that is not in bytes (pgoff): a number, Infinity for a BigInt that a double cannot hold; BAD if it is none.
 */
export function countOf(x: Quantity): number {
  if (typeof x === 'number') return Number.isSafeInteger(x) && x >= 0 ? x : BAD
  if (typeof x !== 'bigint' || x < 0n || x >= TWO_64) return BAD
  return x > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(x)
}

/** A byte quantity as a number, BAD if it is none or above 2^53 - 1. */
export function bytesOf(x: Quantity): number {
  if (typeof x === 'number') return Number.isSafeInteger(x) && x >= 0 ? x : BAD
  if (typeof x !== 'bigint' || x < 0n || x > BigInt(Number.MAX_SAFE_INTEGER)) return BAD
  return Number(x)
}

/** 2^63: what a file position or length, a signed number of 64 bits, lies below. */
export const TWO_63: number = 2 ** 63

/**
 * A file position or size in bytes, BAD for what is none or negative. A BigInt beyond 2^53 is rounded: it is beyond any
 * file.
 */
export function positionOf(x: Quantity): number {
  if (typeof x === 'number') return Number.isSafeInteger(x) && x >= 0 ? x : BAD
  return typeof x === 'bigint' && x >= 0n && x < 2n ** 63n ? Number(x) : BAD
}

/** A 32-bit argument as int32, or NaN. */
export function intOf(x: Quantity): number {
  const n = typeof x === 'bigint' && x >= 0n && x < TWO_64 ? Number(x) : x
  if (typeof n !== 'number' || !Number.isInteger(n) || n < -0x80000000 || n > 0xffffffff) return BAD_INT
  return n | 0
}

/** A handle of an address space: what system calls take as `mm`. Stale once the space has ended. */
export class Mm {
  /** What only an object that this constructor made has, and no proxy of one. */
  readonly #isTrue = true
  declare readonly machine: Machine
  readonly id: number
  readonly generation: number

  /** `generation` is that of a handle which another thread made; without it, of what has the row now. */
  constructor(machine: Machine, id: number, generation: number = machine.mms.row(id, MM_GENERATION)) {
    defineHidden(this, { machine })
    this.id = id
    this.generation = generation
    Object.freeze(this)
  }

  /** @internal Whether it is an Mm and nothing else: no proxy, no object of a class that extends Mm. */
  static isTrue(given: unknown): given is Mm {
    return (
      typeof given === 'object' && given !== null && #isTrue in given && Object.getPrototypeOf(given) === Mm.prototype
    )
  }

  /** False once the address space has ended or its machine was closed. */
  get isAlive(): boolean {
    const { machine, id } = this
    return machine.open && machine.mms.isAlive(id) && machine.mms.row(id, MM_GENERATION) === this.generation
  }
}

/** The machine behind a handle that is alive, or undefined for anything else. */
export function machineOf(mm: Mm): Machine | undefined {
  return Mm.isTrue(mm) && mm.isAlive ? mm.machine : undefined
}
