/**
 * A store that remembers what was done to it, and a generator of every state a crash could have left behind.
 *
 * Offers `recordingStore(inner)`, whose `log` holds the changes in order, and `crashImages(log)`, which a crash
 * checker walks: open each image with `memoryStore({ contents: image.bytes })`, recover, and compare with what must
 * hold. The moments of a test are log lengths: after a sync that was acknowledged, note `store.log.entries.length`,
 * and demand its effects of every image whose `durable` is that or more.
 *
 * The model is obligation 3 of the Store contract, no kinder:
 *  - A flush that returned 0 is a barrier: all before it is in every later image, whole. One that failed is nothing.
 *  - The changes since then survive in any selection and any order. A write or punch is torn at the 512-byte sectors
 *    of the store, each sector by itself; within a sector it is whole. A truncate is whole.
 *  - The growth that a write brings survives by itself as well: the size without the bytes, which read as zero.
 * An epoch is what lies between two barriers. A crash at any moment of an epoch leaves an image that a crash at its
 * end could have left too, so the images are made once per epoch; `issued` says which moments an image belongs to.
 *
 * The caller must not change the inner store around the recorder, nor expect every image of a long epoch: past
 * `exhaustivePieces` the corners come in full (each prefix, each tear of each change, each change missing, each
 * alone) and the rest by seeded chance.
 */
import { EOPNOTSUPP } from '../../src/abi/errno.ts'
import type { Store } from '../../src/store/store.ts'

export type LogEntry =
  /** `grew`: the write ended past the size the store then had. */
  | { readonly op: 'write'; readonly position: number; readonly bytes: Uint8Array; readonly grew: boolean }
  /** Clipped to the size the store then had. */
  | { readonly op: 'punch'; readonly position: number; readonly length: number }
  | { readonly op: 'truncate'; readonly sizeBytes: number }
  /** A flush that returned 0. */
  | { readonly op: 'flush' }

export interface StoreLog {
  /** What the inner store held when the recorder was put around it; taken as durable. */
  readonly base: Uint8Array
  readonly entries: readonly LogEntry[]
}

export interface RecordingStore extends Store {
  readonly inner: Store
  /** Grows with every change. The bytes in it are copies. */
  readonly log: StoreLog
}

export interface CrashOptions {
  /** Epochs of at most so many pieces (sectors, growths, truncates) give every image. 8 when absent. */
  readonly exhaustivePieces?: number
  /** Images by chance for each longer epoch, before equal ones are dropped. 100 when absent. */
  readonly samples?: number
  /** What the chance starts from: an integer. 1 when absent; it stands in the description of each such image. */
  readonly seed?: number
}

export interface CrashImage {
  /** All the bytes of the store; the caller's to keep and to change. */
  readonly bytes: Uint8Array
  /** The first so many log entries are in it for certain: they lie before a flush that returned 0. */
  readonly durable: number
  /** None but the first so many log entries are in it: it can be left from the moment these had begun. */
  readonly issued: number
  /** Which pieces survived and how the image was found, for the message of a failing test. */
  readonly description: string
}

const SECTOR_BYTES = 512
const MAX_IMAGE_BYTES = 64 * 1024 * 1024

/** @throws RangeError when `inner` holds more than 64 MiB; Error when it can't be read. */
export function recordingStore(inner: Store): RecordingStore {
  return new Recorder(inner)
}

class Recorder implements RecordingStore {
  readonly inner: Store
  readonly log: { readonly base: Uint8Array; readonly entries: LogEntry[] }

  constructor(inner: Store) {
    this.inner = inner
    const size = inner.size()
    if (size > MAX_IMAGE_BYTES) throw new RangeError(`recordingStore: ${size} bytes are too many to keep a copy of`)
    const base = new Uint8Array(Math.max(0, size))
    const got = inner.read(0, base, 0, base.length)
    if (size < 0 || got !== size) throw new Error(`recordingStore: cannot read the inner store: ${Math.min(size, got)}`)
    this.log = { base, entries: [] }
  }

  get name(): string {
    return this.inner.name
  }

  get identity(): string | undefined {
    return this.inner.identity
  }

  get readOnly(): boolean {
    return this.inner.readOnly
  }

  get durable(): boolean {
    return this.inner.durable
  }

  size(): number {
    return this.inner.size()
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    return this.inner.read(position, buffer, offset, length)
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const sizeBefore = this.inner.size()
    const result = this.inner.write(position, buffer, offset, length)
    if (result < 0) this.#recordAsFound(sizeBefore, position, length)
    else if (length > 0) {
      const bytes = buffer.slice(offset, offset + length)
      this.log.entries.push({ op: 'write', position, bytes, grew: position + length > sizeBefore })
    }
    return result
  }

  flush(): number {
    const result = this.inner.flush()
    if (result === 0) this.log.entries.push({ op: 'flush' })
    return result
  }

  truncate(sizeBytes: number): number {
    const result = this.inner.truncate(sizeBytes)
    if (result === 0) this.log.entries.push({ op: 'truncate', sizeBytes })
    return result
  }

  punch(position: number, length: number): number {
    const result = this.inner.punch(position, length)
    if (result === 0) {
      const end = Math.min(position + length, this.inner.size())
      if (end > position) this.log.entries.push({ op: 'punch', position, length: end - position })
    } else if (result !== -EOPNOTSUPP) this.#recordAsFound(this.inner.size(), position, length)
    return result
  }

  close(): number {
    return this.inner.close()
  }

  /** After a failure any part of the range may have changed: what is found there is recorded as one write. */
  #recordAsFound(sizeBefore: number, position: number, length: number): void {
    const found = Math.min(length, this.inner.size() - position)
    if (this.inner.readOnly || !(found > 0 && found <= MAX_IMAGE_BYTES)) return
    const bytes = new Uint8Array(found)
    if (this.inner.read(position, bytes, 0, found) !== found) return
    this.log.entries.push({ op: 'write', position, bytes, grew: position + found > sizeBefore })
  }
}

/**
 * Every state (of a long epoch: a sample) in which a crash may leave the store, each with what is certain about it.
 * Equal images of one epoch come once.
 *
 * @throws RangeError when an image would exceed 64 MiB, or `exhaustivePieces` 20.
 */
export function* crashImages(log: StoreLog, options: CrashOptions = {}): Generator<CrashImage> {
  const { exhaustivePieces = 8, samples = 100, seed = 1 } = options
  if (!(exhaustivePieces <= 20)) throw new RangeError(`crashImages: exhaustivePieces is too large: ${exhaustivePieces}`)
  const state = new Image(capacityOf(log))
  state.load(log.base, log.base.length)
  for (let start = 0; start <= log.entries.length; ) {
    let end = start
    while (end < log.entries.length && log.entries[end].op !== 'flush') end++
    const epoch = new Epoch(log.entries, start, end, state)
    if (epoch.pieces.length <= exhaustivePieces) yield* epoch.everyImage(epoch.pieces.map(piece => [piece]))
    else yield* epoch.sampledImages(exhaustivePieces, samples, seed)
    for (const piece of epoch.pieces) state.apply(piece)
    start = end + 1
  }
}

/** What survives or doesn't as one. */
interface Piece {
  /** The log entry that it is of. */
  readonly entry: number
  /** `bytes` are put at `position`; `zero`ed is, or `grow`n or cut to a `size` is, what ends at `end`. */
  readonly kind: 'bytes' | 'zero' | 'grow' | 'size'
  readonly position: number
  readonly end: number
  readonly bytes: Uint8Array | undefined
}

function piecesOf(log: LogEntry, entry: number): Piece[] {
  if (log.op === 'flush') return []
  if (log.op === 'truncate') return [{ entry, kind: 'size', position: 0, end: log.sizeBytes, bytes: undefined }]
  const length = log.op === 'write' ? log.bytes.length : log.length
  const pieces: Piece[] = []
  if (log.op === 'write' && log.grew) {
    pieces.push({ entry, kind: 'grow', position: log.position, end: log.position + length, bytes: undefined })
  }
  for (let position = log.position; position < log.position + length; ) {
    const end = Math.min((Math.floor(position / SECTOR_BYTES) + 1) * SECTOR_BYTES, log.position + length)
    const bytes = log.op === 'write' ? log.bytes.subarray(position - log.position, end - log.position) : undefined
    pieces.push({ entry, kind: log.op === 'write' ? 'bytes' : 'zero', position, end, bytes })
    position = end
  }
  return pieces
}

function capacityOf(log: StoreLog): number {
  let capacity = log.base.length
  for (const entry of log.entries) {
    if (entry.op === 'write') capacity = Math.max(capacity, entry.position + entry.bytes.length)
    else if (entry.op === 'truncate') capacity = Math.max(capacity, entry.sizeBytes)
  }
  if (capacity > MAX_IMAGE_BYTES) throw new RangeError(`crashImages: an image of ${capacity} bytes is too large`)
  return capacity
}

/** The bytes of a store under construction. Those past the size are zero. */
class Image {
  readonly bytes: Uint8Array
  size = 0

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity)
  }

  load(bytes: Uint8Array, size: number): void {
    this.bytes.set(bytes)
    this.bytes.fill(0, bytes.length)
    this.size = size
  }

  apply(piece: Piece): void {
    if (piece.kind === 'size') {
      this.bytes.fill(0, Math.min(piece.end, this.size), this.size)
      this.size = piece.end
    } else if (piece.kind === 'zero') {
      this.bytes.fill(0, piece.position, piece.end)
    } else {
      if (piece.bytes !== undefined) this.bytes.set(piece.bytes, piece.position)
      this.size = Math.max(this.size, piece.end)
    }
  }

  /** 53 bits of the bytes and the size: two images of one epoch with one key are taken as equal. */
  key(): number {
    let a = 0x811c9dc5 ^ this.size
    let b = 0x2545f491 + this.size
    for (let i = 0; i < this.size; i++) {
      a = Math.imul(a ^ this.bytes[i], 0x01000193)
      b = Math.imul(b + this.bytes[i], 0x9e3779b1)
      b ^= b >>> 15
    }
    return (a >>> 0) * 0x20_0000 + ((b >>> 0) & 0x1f_ffff)
  }
}

class Epoch {
  readonly pieces: readonly Piece[]
  readonly #entries: readonly (readonly Piece[])[]
  readonly #start: number
  readonly #base: Uint8Array
  readonly #baseSize: number
  readonly #scratch: Image
  readonly #seen = new Set<number>()

  constructor(log: readonly LogEntry[], start: number, end: number, state: Image) {
    this.#entries = log.slice(start, end).map((entry, i) => piecesOf(entry, start + i))
    this.pieces = this.#entries.flat()
    this.#start = start
    this.#base = state.bytes.slice(0, state.size)
    this.#baseSize = state.size
    this.#scratch = new Image(state.bytes.length)
  }

  /**
   * The images of every selection of `units` in every order. Orders that come to the same image after the same
   * selection are followed once, so units that have nothing to do with each other cost 2^n steps, not n!.
   */
  *everyImage(units: readonly (readonly Piece[])[]): Generator<CrashImage> {
    interface Found {
      readonly used: number
      readonly order: readonly number[]
    }
    const visited = new Set<string>()
    const found: Found[] = [{ used: 0, order: [] }]
    for (let i = 0; i < found.length; i++) {
      const { used, order } = found[i]
      for (let unit = 0; unit < units.length; unit++) {
        if ((used & (1 << unit)) !== 0) continue
        const next: Found = { used: used | (1 << unit), order: [...order, unit] }
        this.#build(next.order.flatMap(u => units[u]))
        const state = `${next.used}:${this.#scratch.key()}`
        if (visited.has(state)) continue
        visited.add(state)
        found.push(next)
      }
    }
    // The one that needs the fewest entries speaks for its equals.
    const survivors = found.map(({ order }) => order.flatMap(unit => units[unit]))
    survivors.sort((a, b) => this.#issued(a) - this.#issued(b))
    for (const pieces of survivors) yield* this.#image(pieces, 'all')
  }

  /** The corners, whole entries in every selection if they are few, and `samples` by chance. */
  *sampledImages(exhaustivePieces: number, samples: number, seed: number): Generator<CrashImage> {
    const entries = this.#entries
    for (let i = 0; i <= entries.length; i++) yield* this.#image(entries.slice(0, i).flat(), 'prefix')
    for (let i = 0; i < entries.length; i++) {
      const before = entries.slice(0, i).flat()
      for (let cut = 1; cut < entries[i].length; cut++) {
        yield* this.#image([...before, ...entries[i].slice(0, cut)], 'torn, first part')
        yield* this.#image([...before, ...entries[i].slice(cut)], 'torn, last part')
      }
      yield* this.#image(entries[i], 'alone')
      yield* this.#image(entries.toSpliced(i, 1).flat(), 'all but one')
    }
    if (entries.length <= exhaustivePieces) yield* this.everyImage(entries)
    const chance = randomFrom(seed)
    for (let i = 0; i < samples; i++) {
      const share = [0.1, 0.5, 0.9][i % 3]
      const issued = entries.slice(0, Math.ceil(chance() * entries.length))
      // By turns whole entries and single pieces, in order and out of order.
      const units = (i & 1) === 0 ? issued.flat().map(piece => [piece]) : issued
      const kept = units.filter(() => chance() < share)
      if ((i & 2) !== 0) shuffle(kept, chance)
      yield* this.#image(kept.flat(), `seed ${seed}, sample ${i}`)
    }
  }

  #build(survivors: readonly Piece[]): void {
    this.#scratch.load(this.#base, this.#baseSize)
    for (const piece of survivors) this.#scratch.apply(piece)
  }

  #issued(survivors: readonly Piece[]): number {
    return survivors.reduce((most, piece) => Math.max(most, piece.entry + 1), this.#start)
  }

  *#image(survivors: readonly Piece[], how: string): Generator<CrashImage> {
    this.#build(survivors)
    const key = this.#scratch.key()
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    yield {
      bytes: this.#scratch.bytes.slice(0, this.#scratch.size),
      durable: this.#start,
      issued: this.#issued(survivors),
      description: `${how}: entries before ${this.#start}, then ${describe(survivors)}`
    }
  }
}

/** Such as `#4 grow 8192, #4 bytes 4096-4608`. */
function describe(survivors: readonly Piece[]): string {
  if (survivors.length === 0) return 'nothing'
  const words = survivors.slice(0, 16).map(({ entry, kind, position, end }) => {
    return kind === 'grow' || kind === 'size' ? `#${entry} ${kind} ${end}` : `#${entry} ${kind} ${position}-${end}`
  })
  if (survivors.length > words.length) words.push(`and ${survivors.length - words.length} more`)
  return words.join(', ')
}

function shuffle(items: unknown[], chance: () => number): void {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(chance() * (i + 1))
    const item = items[i]
    items[i] = items[j]
    items[j] = item
  }
}

/** mulberry32: numbers from 0 to 1, the same for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
