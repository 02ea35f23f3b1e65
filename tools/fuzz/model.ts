/**
 * The model that the machine is compared with: what bytes each file has, and what each address shows. No frames, no
 * page tables, no cache; memory is as large as it likes, and all that happens happens at once.
 */

/** A file as bytes. Bytes from `size` to the end of its page are what stores through a mapping left there. */
export class ModelFile {
  readonly bytes: Uint8Array
  readonly pageSize: number
  /** Bytes past the end of a store's file are anybody's guess until the file grows over them: zeros. */
  readonly keepsTail: boolean
  size = 0
  /** Something may be past the end, in the last page. */
  tailUnknown = false
  /** The inode of the machine. */
  inode = 0
  /** Its store answers later, and can only be read. */
  readonly isLater: boolean

  constructor(maxBytes: number, pageSize: number, keepsTail: boolean, kind: 'now' | 'later' = 'now') {
    this.bytes = new Uint8Array(maxBytes)
    this.pageSize = pageSize
    this.keepsTail = keepsTail
    this.isLater = kind === 'later'
  }

  get nrPages(): number {
    return Math.ceil(this.size / this.pageSize)
  }

  page(index: number): Uint8Array {
    return this.bytes.subarray(index * this.pageSize, (index + 1) * this.pageSize)
  }

  /** The bytes of a page that must read as they are here. */
  knownLength(index: number): number {
    return this.tailUnknown ? Math.min(this.pageSize, Math.max(0, this.size - index * this.pageSize)) : this.pageSize
  }

  write(pos: number, data: Uint8Array): void {
    if (data.length === 0) return
    if (pos > this.size) this.#settleTail()
    this.bytes.set(data, pos)
    if (pos + data.length > this.size) {
      this.size = pos + data.length
      if (this.size % this.pageSize === 0) this.tailUnknown = false
    }
  }

  truncate(size: number): void {
    if (size > this.size) this.#settleTail()
    else if (size < this.size) {
      this.bytes.fill(0, size)
      this.tailUnknown = false
    }
    this.size = size
  }

  /** Zeros; a page that is wholly in the range loses what is past the end of the file too. */
  punch(from: number, length: number): void {
    const end = from + length
    const stop = Math.min(end, this.size)
    if (from < stop) this.bytes.fill(0, from, stop)
    const firstWhole = Math.ceil(from / this.pageSize)
    const endWhole = Math.floor(end / this.pageSize)
    if (firstWhole < endWhole) {
      this.bytes.fill(0, firstWhole * this.pageSize, endWhole * this.pageSize)
      if (endWhole * this.pageSize >= this.size && firstWhole * this.pageSize <= this.size) this.tailUnknown = false
    }
  }

  /** A store through a mapping at a byte of the file, maybe past its end. */
  store(pos: number, data: Uint8Array): void {
    this.bytes.set(data, pos)
    if (pos + data.length > this.size && !this.keepsTail) this.tailUnknown = true
  }

  #settleTail(): void {
    if (!this.keepsTail) this.forgetTail()
  }

  /** What was past the end went with the cache. */
  forgetTail(): void {
    this.bytes.fill(0, this.size)
    this.tailUnknown = false
  }
}

/** What one page of an address space is. */
export interface ModelPage {
  /** null for private anonymous memory. */
  readonly file: ModelFile | null
  readonly shared: boolean
  /** The file page at the linear place, and the one that is shown. */
  linear: number
  pgoff: number
  prot: number
  /** The page's own protection, -1 for none. */
  own: number
  /** The private copy, or null: zeros, or the file's page. */
  copy: Uint8Array | null
  /** Bytes of the copy that are known: it may have been made of a file's last page with who knows what past the end. */
  known: number
  /** After MADV_FREE: the copy may turn into zeros at any moment. */
  lazy: boolean
  readonly soft: Soft
}

/** What is known of a page's soft-dirty bits (soft-dirty.ts). */
export interface Soft {
  /** Its entry may, and must, be soft-dirty; since when it must. */
  may: boolean
  must: boolean
  stamp: number
  ofMapping: 'no' | 'may' | 'must'
}

export function notSoft(): Soft {
  return { may: false, must: false, stamp: 0, ofMapping: 'no' }
}

export type ModelSpace = Map<number, ModelPage>

export function clonePage(page: ModelPage): ModelPage {
  return { ...page, copy: page.copy === null ? null : page.copy.slice(), soft: { ...page.soft } }
}

/** The protection that counts: 0 none, PROT_READ (any right reads, as on x86), PROT_WRITE. */
export function mayRead(page: ModelPage): boolean {
  return (page.own >= 0 ? page.own : page.prot) !== 0
}

export function mayWrite(page: ModelPage): boolean {
  return ((page.own >= 0 ? page.own : page.prot) & 2) !== 0
}

/** Beyond the end of its file. */
export function isPastEnd(page: ModelPage): boolean {
  return page.file !== null && page.copy === null && page.pgoff >= page.file.nrPages
}

/** How many bytes of a page must read as `bytesOf` says. */
export function knownBytes(page: ModelPage, pageSize: number): number {
  if (page.copy !== null) return page.known
  return page.file === null ? pageSize : page.file.knownLength(page.pgoff)
}

/** The page's bytes, to compare or copy; undefined past the end. */
export function bytesOf(page: ModelPage, zeros: Uint8Array): Uint8Array | undefined {
  if (page.copy !== null) return page.copy
  if (page.file === null) return zeros
  return page.pgoff < page.file.nrPages ? page.file.page(page.pgoff) : undefined
}
