/**
 * One file of pages through each of what a user could take in our place, behind one interface of whole pages.
 *
 * Where a package keeps pages but knows no files, or the other way round, the few lines that a user would have to add
 * are here, written as well as they can be in a few lines.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import type { Context } from './context.ts'
import { PageLru } from './lru.ts'
import { type Mapping, PAGE, type Store, type Subject } from './subject.ts'

const MIB = 2 ** 20

/** An open file. */
export interface PageFile {
  /** The bytes of a page, until the next call. */
  page(index: number): Uint8Array
  /** Stores a page; `bytes` are the caller's, and change after the call. */
  write(index: number, bytes: Uint8Array): void
  /** Runs `work`, which writes, and returns when it is on the disk. */
  commit(work: () => void): void
  /** Drops what is kept of the file; buffers for it may be kept as they are. The next pages are cold again. */
  forget(): void
  close(): void | Promise<void>
}

/** A budget of Infinity: all may be kept. */
export interface Opening {
  readonly path: string
  readonly mode: 'r' | 'r+'
  readonly budgetBytes: number
}

export interface Peer {
  readonly name: string
  readonly what: string
  /** True if it can be held to a budget that is smaller than the file. */
  readonly budgeted: boolean
  /** Turns the file at `path` into what the peer keeps, if it keeps another format; → where that is. */
  prepare?(context: Context, path: string): string | Promise<string>
  /** Throws Skip where it cannot be had. */
  open(context: Context, opening: Opening): PageFile
}

/** Our side, as one more of them. */
export function openMapping(subject: Subject, { path, mode, budgetBytes }: Opening): PageFile {
  const store = subject.nodeFile(path, mode)
  const sizeBytes = store.size()
  const size = Number.isFinite(budgetBytes) ? budgetBytes : Math.ceil(sizeBytes * 1.125) + 16 * MIB
  const memory = new subject.Memory({ size })
  const space = memory.space()
  const open = (opened: Store): Mapping => {
    using file = memory.open(opened)
    return space.map(file, { writable: mode === 'r+' })
  }
  let map = open(store)
  return {
    page: index => map.page(index),
    write: (index, bytes) => map.write(bytes, index * PAGE),
    commit: work => {
      work()
      map.sync()
    },
    forget: () => {
      map.unmap()
      map = open(subject.nodeFile(path, mode))
    },
    close: () => memory.close()
  }
}

function flushed(fd: number, work: () => void): void {
  work()
  fsyncSync(fd)
}

const fsCalls: Peer = {
  name: 'fs',
  what: 'fs.readSync and fs.writeSync for each page, nothing kept',
  budgeted: true,
  open: (_context, { path, mode }) => {
    const fd = openSync(path, mode)
    const buffer = new Uint8Array(PAGE)
    return {
      page: index => {
        readSync(fd, buffer, 0, PAGE, index * PAGE)
        return buffer
      },
      write: (index, bytes) => {
        writeSync(fd, bytes, 0, PAGE, index * PAGE)
      },
      commit: work => flushed(fd, work),
      forget: () => {},
      close: () => closeSync(fd)
    }
  }
}

const ownLru: Peer = {
  name: 'own-lru',
  what: 'own LRU of page buffers over fs.readSync; it has no dirty pages, writes go through it',
  budgeted: true,
  open: (_context, { path, mode, budgetBytes }) => {
    const fd = openSync(path, mode)
    const cache = new PageLru(fd, Math.min(budgetBytes, fstatSync(fd).size), PAGE)
    return {
      page: index => cache.page(index),
      write: (index, bytes) => {
        cache.page(index).set(bytes)
        writeSync(fd, bytes, 0, PAGE, index * PAGE)
      },
      commit: work => flushed(fd, work),
      forget: () => cache.clear(),
      close: () => closeSync(fd)
    }
  }
}

const wholeFile: Peer = {
  name: 'readFile',
  what: 'the whole file in one Buffer by fs.readFileSync; a sync writes back the pages that were stored to',
  budgeted: false,
  open: (_context, { path, mode }) => {
    const fd = openSync(path, mode)
    let bytes: Buffer | undefined
    const read = (): Buffer => (bytes ??= readFileSync(path))
    const dirty = new Set<number>()
    return {
      page: index => (bytes ?? read()).subarray(index * PAGE, (index + 1) * PAGE),
      write: (index, source) => {
        read().set(source, index * PAGE)
        dirty.add(index)
      },
      commit: work => {
        work()
        for (const index of dirty) writeSync(fd, read(), index * PAGE, PAGE, index * PAGE)
        dirty.clear()
        fsyncSync(fd)
      },
      forget: () => {
        bytes = undefined
      },
      close: () => closeSync(fd)
    }
  }
}

interface MmapIo {
  readonly PROT_READ: number
  readonly PROT_WRITE: number
  readonly MAP_SHARED: number
  map(size: number, protection: number, flags: number, fd: number): Buffer
  sync(buffer: Buffer, offset: number, size: number, blocking: boolean): void
}

const mmapIo: Peer = {
  name: '@riaskov/mmap-io',
  what: 'the file mapped by the kernel, as a Buffer',
  budgeted: false,
  open: (context, { path, mode }) => {
    const loaded = context.peer('@riaskov/mmap-io') as MmapIo & { default?: MmapIo }
    const mmap = loaded.default ?? loaded
    const fd = openSync(path, mode)
    const size = fstatSync(fd).size
    const protection = mode === 'r' ? mmap.PROT_READ : mmap.PROT_READ | mmap.PROT_WRITE
    let bytes = mmap.map(size, protection, mmap.MAP_SHARED, fd)
    return {
      page: index => bytes.subarray(index * PAGE, (index + 1) * PAGE),
      write: (index, source) => {
        bytes.set(source, index * PAGE)
      },
      commit: work => {
        work()
        mmap.sync(bytes, 0, size, true)
      },
      forget: () => {
        bytes = mmap.map(size, protection, mmap.MAP_SHARED, fd) // the other goes when its Buffer is collected
      },
      close: () => closeSync(fd)
    }
  }
}

interface Pager {
  get(index: number, noAllocate: boolean): { buffer: Uint8Array; offset: number } | undefined
  set(index: number, buffer: Uint8Array): void
  updated(page: { buffer: Uint8Array; offset: number }): void
  lastUpdate(): { buffer: Uint8Array; offset: number } | null
}

const memoryPager: Peer = {
  name: 'memory-pager',
  what: 'pages kept in memory-pager, read by fs.readSync where it has none; it never drops one',
  budgeted: false,
  open: (context, { path, mode }) => {
    const create = context.peer('memory-pager') as (pageBytes: number) => Pager
    const fd = openSync(path, mode)
    let pager = create(PAGE)
    const missing = (index: number): Uint8Array => {
      const buffer = Buffer.allocUnsafeSlow(PAGE)
      readSync(fd, buffer, 0, PAGE, index * PAGE)
      pager.set(index, buffer)
      return buffer
    }
    return {
      page: index => pager.get(index, true)?.buffer ?? missing(index),
      write: (index, source) => {
        const page = pager.get(index, false)
        if (page === undefined) throw new Error(`memory-pager gave no page ${index}`)
        page.buffer.set(source)
        pager.updated(page)
      },
      commit: work => {
        work()
        for (let page = pager.lastUpdate(); page !== null; page = pager.lastUpdate()) {
          writeSync(fd, page.buffer, 0, PAGE, page.offset)
        }
        fsyncSync(fd)
      },
      forget: () => {
        pager = create(PAGE)
      },
      close: () => closeSync(fd)
    }
  }
}

interface LmdbDatabase {
  getBinaryFast(key: number): Uint8Array | undefined
  putSync(key: number, value: Uint8Array): unknown
  transactionSync(work: () => void): void
  /** Later reads see what was committed until now. */
  resetReadTxn(): void
  close(): Promise<void>
}

interface Lmdb {
  open(options: Record<string, unknown>): LmdbDatabase
}

function openLmdb(context: Context, path: string, readOnly: boolean): LmdbDatabase {
  const { open } = context.peer('lmdb') as Lmdb
  return open({ path, readOnly, encoding: 'binary' })
}

const lmdb: Peer = {
  name: 'lmdb',
  what: 'the pages as values of an lmdb database, by page number',
  budgeted: false,
  prepare: async (context, path) => {
    const directory = context.scratchDirectory()
    const database = openLmdb(context, directory, false)
    const fd = openSync(path, 'r')
    const page = new Uint8Array(PAGE)
    database.transactionSync(() => {
      for (let index = 0; readSync(fd, page, 0, PAGE, index * PAGE) === PAGE; index++) database.putSync(index, page)
    })
    closeSync(fd)
    await database.close()
    return directory
  },
  open: (context, { path, mode }) => {
    const database = openLmdb(context, path, mode === 'r')
    return {
      page: index => {
        const bytes = database.getBinaryFast(index)
        if (bytes === undefined) throw new Error(`lmdb has no page ${index}`)
        return bytes
      },
      write: (index, bytes) => {
        database.putSync(index, bytes)
      },
      commit: work => {
        database.transactionSync(work)
        database.resetReadTxn()
      },
      forget: () => {},
      close: () => database.close()
    }
  }
}

export const peers: readonly Peer[] = [fsCalls, ownLru, wholeFile, mmapIo, memoryPager, lmdb]
