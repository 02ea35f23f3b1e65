/**
 * Random programs over one file: stores through a nonlinear window and a linear one, remaps, file writes, truncates,
 * punches and syncs. A program is plain data, so that it can be cut down and printed.
 *
 * `Source` is the only chance in it: the same seed gives the same program everywhere.
 */

export interface Config {
  readonly pageShift: number
  readonly nrFrames: number
  /** The file never grows beyond. */
  readonly maxPages: number
  readonly windowPages: number
  readonly initialBytes: number
  readonly readaheadPages: number
  readonly faultAroundPages: number
  /** Whether the store can punch; else the machine writes zeros. */
  readonly punch: 'punch' | 'zeros'
}

export type Op =
  | {
      readonly op: 'store'
      readonly page: number
      readonly offset: number
      readonly length: number
      readonly value: number
    }
  | {
      readonly op: 'storeLinear'
      readonly page: number
      readonly offset: number
      readonly length: number
      readonly value: number
    }
  | { readonly op: 'write'; readonly position: number; readonly length: number; readonly value: number }
  | { readonly op: 'load'; readonly page: number }
  | { readonly op: 'remap'; readonly at: number; readonly page: number; readonly count: number }
  | { readonly op: 'remapVector'; readonly at: number; readonly pages: readonly number[] }
  | { readonly op: 'truncate'; readonly size: number }
  | { readonly op: 'punch'; readonly position: number; readonly length: number }
  | { readonly op: 'fsync' }
  | { readonly op: 'msync'; readonly at: number; readonly count: number }
  | { readonly op: 'msyncWindow'; readonly at: number; readonly count: number }
  | { readonly op: 'evict' }
  | { readonly op: 'reopen' }
  /** The `call`-th write (or flush) from now fails once, or tears after some sectors. */
  | { readonly op: 'fail'; readonly what: 'write' | 'torn' | 'flush'; readonly call: number; readonly sectors: number }

/** 32 bits of state: a Weyl sequence through a multiply-xor finalizer. */
export class Source {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** An integer from 0 to `n` - 1. */
  below(n: number): number {
    this.#state = (this.#state + 0x9e3779b9) | 0
    let h = this.#state
    h = Math.imul(h ^ (h >>> 16), 0x21f0aaad)
    h = Math.imul(h ^ (h >>> 15), 0x735a2d97)
    h = (h ^ (h >>> 15)) >>> 0
    return Math.floor((h / 2 ** 32) * n)
  }

  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]
  }
}

export function randomConfig(seed: number): Config {
  const chance = new Source(seed * 2 + 1)
  const pageShift = chance.pick([9, 10, 12])
  const maxPages = chance.between(4, 20)
  return {
    pageShift,
    nrFrames: chance.between(20, 40),
    maxPages,
    windowPages: chance.between(2, 12),
    initialBytes: chance.below(maxPages * 2 ** pageShift),
    readaheadPages: chance.pick([0, 4, 8]),
    faultAroundPages: chance.pick([1, 4, 16]),
    punch: chance.pick(['punch', 'zeros'])
  }
}

export type Faults = 'with faults' | 'without faults'

/** Operation `i` of the program of a seed is the same however many are made. */
export function randomProgram(config: Config, seed: number, nrOps: number, faults: Faults): Op[] {
  const chance = new Source(seed * 2)
  return Array.from({ length: nrOps }, (_, i) => randomOp(config, chance, i + 1, faults))
}

/** How often each comes, of 100. */
const SHARES: readonly (readonly [Op['op'], number])[] = [
  ['store', 24],
  ['storeLinear', 12],
  ['write', 14],
  ['load', 10],
  ['remap', 9],
  ['remapVector', 3],
  ['truncate', 6],
  ['punch', 3],
  ['fsync', 5],
  ['msync', 4],
  ['msyncWindow', 3],
  ['evict', 2],
  ['reopen', 1],
  ['fail', 4]
]

function randomOp(config: Config, chance: Source, value: number, faults: Faults): Op {
  const { maxPages, windowPages } = config
  const pageSize = 2 ** config.pageShift
  const maxBytes = maxPages * pageSize
  let share = chance.below(faults === 'with faults' ? 100 : 96)
  let kind: Op['op'] = 'load'
  for (const [op, part] of SHARES) {
    if ((share -= part) >= 0) continue
    kind = op
    break
  }
  const at = chance.below(windowPages)
  const count = chance.between(1, windowPages - at)
  const page = chance.below(maxPages)
  const offset = chance.below(pageSize)
  const length = chance.below(4) === 0 ? pageSize - offset : chance.between(1, Math.min(64, pageSize - offset))
  const position = chance.below(3) === 0 ? chance.below(maxPages) * pageSize : chance.below(maxBytes)
  const bytes = Math.min(maxBytes - position, chance.pick([1, 100, 512, pageSize, 3 * pageSize]))
  switch (kind) {
    case 'store':
      return { op: kind, page: at, offset, length, value }
    case 'storeLinear':
      return { op: kind, page, offset, length, value }
    case 'write':
      return { op: kind, position, length: bytes, value }
    case 'remap':
      return { op: kind, at, page, count }
    case 'remapVector':
      return { op: kind, at, pages: Array.from({ length: count }, () => chance.below(maxPages)) }
    case 'truncate':
      return { op: kind, size: position }
    case 'punch':
      return { op: kind, position, length: chance.between(1, 4 * pageSize) }
    case 'msync':
      return { op: kind, at: page, count: chance.between(1, maxPages - page) }
    case 'msyncWindow':
      return { op: kind, at, count }
    case 'fail':
      return {
        op: kind,
        what: chance.pick(['write', 'torn', 'flush']),
        call: chance.between(1, 3),
        sectors: chance.below(6)
      }
    case 'load':
      return { op: kind, page: at }
    default:
      return { op: kind }
  }
}

/** The bytes that `value` stands for. */
export function pattern(value: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = (Math.imul(value, 0x9e3779b1) >>> 24) + i * 7 + value * 3 + (i >>> 8)
  return bytes
}
