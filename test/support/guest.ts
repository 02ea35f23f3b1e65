/**
 * The guest program of guest/ and the memory it runs in:
 *
 *     0x10000    header and entries of its shadow table, for 4 GiB of addresses in pages of 4 KiB
 *     ramAt      the page frames
 *     scratchAt  arrays that a host hands to it
 */

/** What guest/shadow.ts has as SHADOW. */
const SHADOW_AT = 0x10000
const HEADER_BYTES = 64
const NR_ENTRIES = 2 ** 20
const WASM_PAGE = 65536

/** What we use of WebAssembly; Node's types do not have it. */
interface WebAssemblyLike {
  readonly Memory: new (options: { initial: number; maximum: number; shared: boolean }) => GuestBuffer
  readonly Module: new (binary: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown }
}
const wasm = (globalThis as unknown as { readonly WebAssembly: WebAssemblyLike }).WebAssembly

export interface GuestBuffer {
  readonly buffer: SharedArrayBuffer
}

export interface GuestMemory {
  readonly memory: GuestBuffer
  readonly table: { readonly buffer: SharedArrayBuffer; readonly byteOffset: number; readonly nrEntries: number }
  readonly ram: { readonly buffer: SharedArrayBuffer; readonly byteOffset: number }
  readonly scratchAt: number
}

export interface GuestImports {
  fault(page: number, access: number): void
  passed(): void
}

/** The exports of guest/index.ts. */
export interface Guest {
  sum(first: number, length: number): bigint
  rawSum(first: number, length: number): bigint
  rewrite(first: number, length: number, value: number): void
  sumAt(offsets: number, count: number): number
  rawSumAt(base: number, offsets: number, count: number): number
  rewriteAt(offsets: number, count: number, value: number): void
  rawRewriteAt(base: number, offsets: number, count: number, value: number): void
}

/** A memory with room for so many bytes of frames and of arrays. */
export function makeGuestMemory(ramBytes: number, scratchBytes: number): GuestMemory {
  const ramAt = Math.ceil((SHADOW_AT + HEADER_BYTES + NR_ENTRIES * 4) / WASM_PAGE) * WASM_PAGE
  const scratchAt = ramAt + Math.ceil(ramBytes / WASM_PAGE) * WASM_PAGE
  const pages = Math.ceil((scratchAt + scratchBytes) / WASM_PAGE)
  const memory = new wasm.Memory({ initial: pages, maximum: pages, shared: true })
  const { buffer } = memory
  return {
    memory,
    table: { buffer, byteOffset: SHADOW_AT, nrEntries: NR_ENTRIES },
    ram: { buffer, byteOffset: ramAt },
    scratchAt
  }
}

export function startGuest(binary: Uint8Array, memory: GuestBuffer, host: GuestImports): Guest {
  return new wasm.Instance(new wasm.Module(binary), { env: { memory }, host }).exports as Guest
}
