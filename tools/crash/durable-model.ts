/**
 * What a file may hold after a crash, by the promises alone: a model that sees the program's operations and its
 * acknowledged syncs, never the machine.
 *
 * An era begins with a successful sync and lasts to the next one. In an era
 *  - a 512-byte sector has the bytes it had at the sync or any that it was given since, whole: never else;
 *  - after a range sync (msync of a linear window) that holds for the sectors of the range; the others keep the choice
 *    that they had;
 *  - a sector that the file ended in is not written whole: the parts on both sides of that end are each old or new, or
 *    zero;
 *  - the size is the acknowledged one, one that was set since, or, while the file grows by writing, one at the end of a
 *    page on the way there.
 *
 * `mark` begins an era at a log length; `check` compares the bytes of a crash image (or of the file after a kill, or
 * of the store at any moment) with the era that it falls into.
 */

export const SECTOR_BYTES = 512

interface Sector {
  /** The bytes it may have; each is `SECTOR_BYTES` long, zero past the end of the file. */
  readonly values: Uint8Array[]
  /** Offsets within the sector where the file ended during the era. */
  readonly ends: number[]
}

interface Era {
  /** Images whose certain part is at least so long belong here, until the next era's begin. */
  readonly from: number
  readonly sectors: Map<number, Sector>
  /** The bytes at its beginning, for the sectors that nobody wrote since. */
  readonly base: Uint8Array
  readonly sizes: Set<number>
  low: number
  high: number
}

export class DurableModel {
  /** The file as a reader sees it now; zero past `size`. */
  readonly bytes: Uint8Array
  size = 0
  /** The page size; with torn writes, a sector. */
  growthUnit: number
  readonly #eras: Era[] = []

  /** `maxBytes` is a multiple of the sector; `contents` counts as synced. */
  constructor(maxBytes: number, pageSize: number, contents: Uint8Array) {
    this.bytes = new Uint8Array(maxBytes)
    this.bytes.set(contents)
    this.size = contents.length
    this.growthUnit = pageSize
    this.#begin(0)
  }

  get nrEras(): number {
    return this.#eras.length
  }

  /** Bytes [from, from + data.length) were stored; the file grows if they end past it. */
  write(from: number, data: Uint8Array): void {
    this.bytes.set(data, from)
    if (from + data.length > this.size) this.#setSize(from + data.length)
    this.#touched(from, from + data.length)
  }

  /** Bytes [from, end) read as zero now. */
  zero(from: number, end: number): void {
    const stop = Math.min(end, this.size)
    if (from >= stop) return
    this.bytes.fill(0, from, stop)
    this.#touched(from, stop)
  }

  truncate(size: number): void {
    const before = this.size
    if (size < before) this.bytes.fill(0, size, before)
    this.#setSize(size)
    this.#touched(Math.min(size, before), Math.max(size, before))
  }

  /** A sync of the whole file was acknowledged when the store's log had `at` entries. */
  syncedAll(at: number): void {
    this.#begin(at)
  }

  /** A sync of bytes [from, end) was acknowledged, and with it the size. The others are as uncertain as before. */
  syncedRange(at: number, from: number, end: number): void {
    const old = this.#era()
    const era = this.#begin(at)
    for (const [sector, { values, ends }] of old.sectors) {
      if (sector * SECTOR_BYTES >= from && sector * SECTOR_BYTES < end) continue
      era.sectors.set(sector, { values: [...values], ends: [...ends] })
    }
  }

  /** The file was found to have these bytes, which `check` allows; what was not synced is lost. */
  adopt(found: Uint8Array): void {
    const end = Math.max(this.size, found.length)
    this.bytes.fill(0, 0, end)
    this.bytes.set(found)
    this.#setSize(found.length)
    this.#touched(0, end)
  }

  /** What is wrong with a file of these bytes, certain up to log entry `durable`; undefined when nothing is. */
  check(image: Uint8Array, durable: number): string | undefined {
    let e = this.#eras.length - 1
    while (e > 0 && this.#eras[e].from > durable) e--
    const era = this.#eras[e]
    const name = `after sync ${e} of ${this.#eras.length - 1}`
    const size = image.length
    const onTheWay = size % this.growthUnit === 0 && size > era.low && size < era.high
    if (!era.sizes.has(size) && !onTheWay) {
      return `${name}: the size is ${size}, not one of ${[...era.sizes].sort((a, b) => a - b).join(', ')}`
    }
    for (let sector = 0; sector * SECTOR_BYTES < size; sector++) {
      if (this.#allows(era, sector, image)) continue
      const at = sector * SECTOR_BYTES
      const known = era.sectors.get(sector)
      const expected = known?.values ?? [era.base.subarray(at, at + SECTOR_BYTES)]
      const heads = expected.map(v => [...v.subarray(0, 4)].join(' ')).join(' | ')
      const kind = known === undefined ? 'not written since' : `one of ${expected.length} values`
      const found = [...image.subarray(at, at + 4)].join(' ')
      return `${name}: sector ${sector} (${kind}) begins with ${found}, but may be ${heads}`
    }
    return undefined
  }

  #allows(era: Era, sector: number, image: Uint8Array): boolean {
    const at = sector * SECTOR_BYTES
    const length = Math.min(SECTOR_BYTES, image.length - at)
    const known = era.sectors.get(sector)
    if (known === undefined) return equal(image, at, era.base, at, length)
    if (known.values.some(value => equal(image, at, value, 0, length))) return true
    if (known.ends.length === 0) return false
    const ends = [...new Set([0, ...known.ends.filter(end => end < length), length])].sort((a, b) => a - b)
    for (let i = 1; i < ends.length; i++) {
      const from = ends[i - 1]
      const n = ends[i] - from
      const fits = known.values.some(value => equal(image, at + from, value, from, n))
      if (!fits && !isZero(image, at + from, n)) return false
    }
    return true
  }

  #era(): Era {
    return this.#eras[this.#eras.length - 1]
  }

  #begin(from: number): Era {
    const era: Era = {
      from,
      sectors: new Map(),
      base: this.bytes.slice(),
      sizes: new Set([this.size]),
      low: this.size,
      high: this.size
    }
    this.#eras.push(era)
    this.#noteEnd(era, this.size)
    return era
  }

  #setSize(size: number): void {
    const era = this.#era()
    this.size = size
    era.sizes.add(size)
    era.low = Math.min(era.low, size)
    era.high = Math.max(era.high, size)
    this.#noteEnd(era, size)
  }

  #noteEnd(era: Era, size: number): void {
    const end = size % SECTOR_BYTES
    if (end !== 0) this.#sector(era, Math.floor(size / SECTOR_BYTES)).ends.push(end)
  }

  #sector(era: Era, sector: number): Sector {
    let found = era.sectors.get(sector)
    if (found === undefined) {
      const at = sector * SECTOR_BYTES
      found = { values: [era.base.slice(at, at + SECTOR_BYTES)], ends: [] }
      era.sectors.set(sector, found)
    }
    return found
  }

  #touched(from: number, end: number): void {
    const era = this.#era()
    for (let sector = Math.floor(from / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector++) {
      const at = sector * SECTOR_BYTES
      const { values } = this.#sector(era, sector)
      if (!values.some(value => equal(this.bytes, at, value, 0, SECTOR_BYTES))) {
        values.push(this.bytes.slice(at, at + SECTOR_BYTES))
      }
    }
  }
}

function equal(a: Uint8Array, aFrom: number, b: Uint8Array, bFrom: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aFrom + i] !== b[bFrom + i]) return false
  return true
}

function isZero(bytes: Uint8Array, from: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[from + i] !== 0) return false
  return true
}
