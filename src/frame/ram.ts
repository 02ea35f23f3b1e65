/**
 * RAM: the bytes of all page frames, a part of one SharedArrayBuffer, seen through a typed array per width.
 *
 * Frame f holds bytes [f << pageShift, (f + 1) << pageShift) of the views, which begin at byte `byteOffset` of the
 * buffer: 0 for a buffer of its own, elsewhere in the memory of a WebAssembly guest (api/shadow-table). Only who goes
 * past the views, to the buffer itself, has to add it. Frame 0 is the zero page: always zero, never freed,
 * mapped read-only for private anonymous memory that was only read.
 */
export class Ram {
  readonly buffer: SharedArrayBuffer
  /** Where frame 0 begins in the buffer; a multiple of the page size. */
  readonly byteOffset: number
  readonly pageShift: number
  readonly pageSize: number
  /** 1 / pageSize, exact: pages of a byte position are its product with this, rounded down. */
  readonly pagesPerByte: number
  /** Pages in 2^64 bytes. */
  readonly pagesIn64Bits: number
  /** log2 of the 32-bit words in a frame. */
  readonly wordShift: number
  readonly nrFrames: number
  readonly u8: Uint8Array
  readonly i8: Int8Array
  readonly u16: Uint16Array
  readonly i16: Int16Array
  readonly u32: Uint32Array
  readonly i32: Int32Array
  readonly f32: Float32Array
  readonly f64: Float64Array
  readonly i64: BigInt64Array
  readonly u64: BigUint64Array
  readonly view: DataView
  readonly #zeros: Uint8Array

  /** The frames lie in [byteOffset, byteOffset + nrFrames << pageShift) of the buffer. */
  constructor(buffer: SharedArrayBuffer, pageShift: number, byteOffset: number, nrFrames: number) {
    this.buffer = buffer
    this.byteOffset = byteOffset
    this.pageShift = pageShift
    this.pageSize = 1 << pageShift
    this.pagesPerByte = 1 / this.pageSize
    this.pagesIn64Bits = 2 ** (64 - pageShift)
    this.wordShift = pageShift - 2
    this.nrFrames = nrFrames
    const lengthBytes = nrFrames * this.pageSize
    this.u8 = new Uint8Array(buffer, byteOffset, lengthBytes)
    this.i8 = new Int8Array(buffer, byteOffset, lengthBytes)
    this.u16 = new Uint16Array(buffer, byteOffset, lengthBytes / 2)
    this.i16 = new Int16Array(buffer, byteOffset, lengthBytes / 2)
    this.u32 = new Uint32Array(buffer, byteOffset, lengthBytes / 4)
    this.i32 = new Int32Array(buffer, byteOffset, lengthBytes / 4)
    this.f32 = new Float32Array(buffer, byteOffset, lengthBytes / 4)
    this.f64 = new Float64Array(buffer, byteOffset, lengthBytes / 8)
    this.i64 = new BigInt64Array(buffer, byteOffset, lengthBytes / 8)
    this.u64 = new BigUint64Array(buffer, byteOffset, lengthBytes / 8)
    this.view = new DataView(buffer, byteOffset, lengthBytes)
    this.#zeros = new Uint8Array(this.pageSize)
  }

  zeroFrame(frame: number): void {
    // `set` from a plain array is a third of the price of `fill` on shared memory (V8 fills it element by element).
    this.u8.set(this.#zeros, frame * this.pageSize)
  }

  /** Zeroes bytes [from, to) of a frame. */
  zeroPart(frame: number, from: number, to: number): void {
    const base = frame * this.pageSize
    if (from < to) this.u8.set(this.#zeros.subarray(0, to - from), base + from)
  }

  copyFrame(target: number, source: number): void {
    const from = source * this.pageSize
    this.u8.copyWithin(target * this.pageSize, from, from + this.pageSize)
  }

  /** True when all bytes of the frame are zero. */
  isZero(frame: number): boolean {
    const from = frame << this.wordShift
    const end = from + (this.pageSize >>> 2)
    for (let w = from; w < end; w++) if (this.i32[w] !== 0) return false
    return true
  }
}
