/**
 * The build being measured, and the part of its interface that the benchmark uses.
 *
 * What is measured is what ships: the flattened `dist/fremap.js` and `dist/node.js`, loaded at run time, never the
 * modules of `src/`, whose constants V8 does not fold across files.
 */
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** A window. Offsets are bytes, `at`, `page` and `count` are pages. Words are little-endian. */
export interface SubjectMapping {
  /** The first byte's address, for the system calls. */
  readonly address: number
  remap(options: { at: number; page: number; count: number }): void
  remapPages(at: number, pages: Int32Array): void
  getUint32(offset: number): number
  setUint32(offset: number, value: number): void
  read(target: Uint8Array, offset: number): unknown
  write(source: Uint8Array, offset: number): unknown
  /** Borrowed: valid until the next call on the machine. */
  page(index: number): Uint8Array
  unmap(): void
}

/** A file or shared memory opened in a memory. Closing the last mapping and the file drops its clean pages. */
export interface SubjectFile {
  close(): void
}

export interface SubjectSpace {
  /** The address space as the system calls name it. */
  readonly mm: unknown
  map(file: SubjectFile, options?: { length?: number; offset?: number; writable?: boolean }): SubjectMapping
}

/** What the machine keeps beside the bytes of its pages. */
export interface SubjectStats {
  /** Frames of the pool. */
  readonly frames: number
  /** Bytes of all that describes frames: the frame table, the page cache's index, the reverse map. */
  readonly frameOverheadBytes: number
  /** Bytes of page tables, all levels. */
  readonly pageTableBytes: number
}

export interface SubjectMemory {
  open(store: unknown): SubjectFile
  shared(lengthBytes: number): SubjectFile
  space(): SubjectSpace
  stats(): SubjectStats
}

export interface Subject {
  readonly Memory: new (options: { size: string | number; pageSize?: number }) => SubjectMemory
  readonly nodeFile: (path: string, flags: 'r' | 'r+') => unknown
  /** remap_file_pages(2): 0 or -errno. Sizes in bytes, `pgoff` in pages. */
  readonly sys_remap_file_pages: (
    mm: unknown,
    start: number,
    size: number,
    prot: number,
    pgoff: number,
    flags: number
  ) => number
}

/** Linux's value; the system call's only flag. */
export const MAP_NONBLOCK = 0x10000
export const PAGE = 4096

/** Loads the build in `directory`, or says what is missing. */
export async function loadSubject(directory: string): Promise<Subject> {
  const found: Record<string, unknown> = {}
  for (const name of ['fremap.js', 'node.js']) {
    const path = join(directory, name)
    await access(path).catch(() => {
      throw new Error(`no ${name} in the build to measure; run npm run build first`)
    })
    Object.assign(found, await import(pathToFileURL(path).href))
  }
  for (const name of ['Memory', 'nodeFile', 'sys_remap_file_pages']) {
    if (typeof found[name] !== 'function') throw new Error(`the build to measure does not export ${name}`)
  }
  return found as unknown as Subject
}
