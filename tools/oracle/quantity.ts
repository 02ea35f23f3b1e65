/**
 * Arguments as traces write them, and addresses of Linux's address space in ours.
 *
 * Linux's user space ends at 2^47 - 4096, ours at 2^43 - 4096 (virtual page numbers are int32). What a trace does near
 * the end of the one is done at the same distance from the end of the other. Below 2^42 addresses are the same in both,
 * and so they are past Linux's end. A length moves with the end of its range.
 */
import { TASK_PAGES } from '../../src/abi/limits.ts'
import * as mman from '../../src/abi/mman.ts'
import type { Quantity } from '../../src/syscall/args.ts'

export const PAGE = 4096n
/** The arena of a script begins here. */
export const BASE: bigint = 1n << 36n
export const ARENA_PAGES = 4096
export const BASE_PAGE: number = Number(BASE / PAGE)

const MASK = (1n << 64n) - 1n
const LINUX_TASK = 0x7ffffffff000n
const OUR_TASK = BigInt(TASK_PAGES) * PAGE
const NEAR = 1n << 40n
const COMMON = 1n << 42n

/** n pages, "a+b" and "a-b" pages and bytes, "0x..." bytes. */
export function bytesOf(x: unknown): bigint {
  if (typeof x === 'number' && Number.isInteger(x)) return (BigInt(x) * PAGE) & MASK
  const text = String(x)
  if (text.startsWith('0x')) return BigInt(text) & MASK
  const parts = /^(-?\d+)([+-])(\d+)$/.exec(text)
  if (parts === null) throw new Error(`not a quantity: ${JSON.stringify(x)}`)
  const bytes = BigInt(parts[3])
  return (BigInt(parts[1]) * PAGE + (parts[2] === '+' ? bytes : -bytes)) & MASK
}

/** A quantity that is relative to the arena unless it is written in hex. */
export function addressOf(x: unknown): bigint {
  const bytes = bytesOf(x)
  return typeof x === 'string' && x.startsWith('0x') ? bytes : (bytes + BASE) & MASK
}

/** A plain 64-bit number: pgoff, a stored value, a raw protection. */
export function rawOf(x: unknown): bigint {
  return BigInt(x as number | string) & MASK
}

export function quantity(x: bigint): Quantity {
  return x <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(x) : x
}

/** Where an address of Linux's space lies in ours. */
export function translated(address: bigint): bigint {
  if (address > LINUX_TASK || address < COMMON) return address
  if (address >= LINUX_TASK - NEAR) return address - (LINUX_TASK - OUR_TASK)
  return COMMON + (address & (PAGE - 1n))
}

/** A length from an address of Linux's, in our space. */
export function translatedLength(address: bigint, length: bigint): bigint {
  const end = address + length
  return end > MASK ? length : translated(end) - translated(address)
}

/** The page that Linux would have told for an address of ours, relative to the arena. */
export function resultPage(address: number): number {
  const ours = BigInt(address)
  const linux = ours >= OUR_TASK - NEAR ? ours + (LINUX_TASK - OUR_TASK) : ours
  return Number((linux - BASE) / PAGE)
}

/** A protection as letters out of rwx, or raw. */
export function protOf(x: unknown): bigint {
  if (typeof x === 'number' || String(x).startsWith('0x')) return rawOf(x)
  let prot = 0
  for (const letter of String(x)) prot |= letter === 'r' ? 1 : letter === 'w' ? 2 : letter === 'x' ? 4 : Number.NaN
  return BigInt(prot)
}

const NAMED: ReadonlyMap<string, number> = new Map(
  Object.entries(mman as Readonly<Record<string, number>>).map(([name, value]) => [
    name.replace(/^(MAP|MADV)_/, ''),
    value
  ])
)

/** Flags or advice as names joined with |, or raw. */
export function flagsOf(x: unknown): bigint {
  if (x === undefined) return 0n
  if (typeof x === 'number' || /^(0x|\d)/.test(String(x))) return rawOf(x)
  if (x === '') return 0n
  let flags = 0
  for (const name of String(x).split('|')) {
    const bit = NAMED.get(name)
    if (bit === undefined) throw new Error(`unknown flag ${name}`)
    flags |= bit
  }
  return BigInt(flags)
}
