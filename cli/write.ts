/**
 * `fremap write`: the standard input into the window, in window order, and so into the file.
 *
 * It is the inverse of `cat`: what `cat --order X` printed, `write --order X` puts back. The file keeps its size. Input
 * shorter than the window changes only as many bytes. Input that does not fit is refused before anything is written
 * when its size is known (a regular file), else after the window is full.
 *
 * The file is changed in place, like the mapping that it is: pages may reach it at any time, and an error leaves those
 * that did. A file that this call makes is removed again unless it is finished.
 */
import { fstatSync, readFileSync, rmSync, statSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { errnoName } from '../src/index.ts'
import { type NodeFile, nodeFile } from '../src/stores/node-file.ts'
import { catchSignals, undoAtExit } from './cleanup.ts'
import { RunError, UsageError, withPath } from './failure.ts'
import { plural } from './format.ts'
import { DirectFile, Portions } from './input.ts'
import { print } from './output.ts'
import { PeakRss } from './peak-rss.ts'
import { Progress } from './progress.ts'
import { report, type Work } from './report.ts'
import { CHUNK_BYTES, Window, type WindowOptions } from './window.ts'

export interface WriteOptions extends WindowOptions {
  /** Make the file, with so many bytes. */
  readonly size?: number
  readonly verify?: boolean
  readonly stats?: boolean
  readonly smaps?: boolean
}

export async function write(path: string, options: WriteOptions): Promise<void> {
  const peak = new PeakRss()
  checkInput(path)
  const { store, keep } = openTarget(path, options.size)
  const window = new Window(path, store, options)
  try {
    const known = inputSize()
    if (known !== undefined && known > window.totalBytes) throw new UsageError(tooLong(known, window))
    const sums = options.verify === true ? new Checksums(window) : undefined
    const works = [await scatter(window, known, sums)]
    const start = performance.now()
    window.sync()
    works.push({ ...works[0], name: 'synced', ms: performance.now() - start })
    if (sums !== undefined) await sums.verify()
    keep()
    if (options.stats === true) print(report(window, works, peak))
    if (options.smaps === true) print(window.smaps())
  } finally {
    // An input that goes on would keep the process alive.
    process.stdin.destroy()
    window.close()
  }
}

function openTarget(path: string, size: number | undefined): { store: NodeFile; keep: () => void } {
  const exists = withPath(path, () => statSync(path, { throwIfNoEntry: false })) !== undefined
  if (exists) {
    if (size !== undefined) throw new UsageError(`${path}: it exists already; --size is for a file to be made`)
    return { store: withPath(path, () => nodeFile(path, 'r+')), keep: () => {} }
  }
  if (size === undefined) throw new UsageError(`${path}: no such file; --size makes one`)
  catchSignals()
  const store = withPath(path, () => nodeFile(path, 'wx+'))
  const keep = undoAtExit(() => rmSync(path, { force: true }))
  const result = store.truncate(size)
  if (result < 0) {
    store.close()
    throw new UsageError(`${path}: cannot be made with ${plural(size, 'byte')}: ${errnoName(result)}`)
  }
  return { store, keep }
}

/** Throws UsageError for an input that cannot be read, or is the file that it would be written to. */
function checkInput(path: string): void {
  const input = fstatSync(0)
  if (input.isDirectory()) throw new UsageError('the input is a directory')
  const target = withPath(path, () => statSync(path, { throwIfNoEntry: false }))
  if (target !== undefined && input.isFile() && input.dev === target.dev && input.ino === target.ino) {
    throw new UsageError(`${path}: it is the input as well`)
  }
}

async function scatter(window: Window, known: number | undefined, sums: Checksums | undefined): Promise<Work> {
  const input = new Portions(process.stdin)
  const buffer = new Uint8Array(Math.max(CHUNK_BYTES, window.pageSize))
  const progress = new Progress('writing', known ?? window.totalBytes)
  let pages = 0
  let bytes = 0
  try {
    for (const turn of window.turns()) {
      for (const chunk of window.chunks(turn)) {
        const got = await input.take(buffer.subarray(0, chunk.bytes))
        const part = buffer.subarray(0, got)
        pages += window.write(chunk, part)
        sums?.note(chunk.pages, part)
        bytes += got
        if (got < chunk.bytes) return { name: 'written', pages, bytes, ms: progress.elapsed }
        await progress.add(got)
      }
    }
    if ((await input.take(new Uint8Array(1))) > 0) {
      window.sync()
      throw new RunError(`${tooLong(undefined, window)}; what fits is written`)
    }
    return { name: 'written', pages, bytes, ms: progress.elapsed }
  } finally {
    progress.stop()
  }
}

function tooLong(known: number | undefined, window: Window): string {
  const bytes = known === undefined ? 'more bytes than' : `${plural(known, 'byte')}, more than`
  return `the input has ${bytes} the ${plural(window.totalBytes, 'byte')} of the window over ${window.path}`
}

/** Bytes that the standard input still has, if it is a regular file and the system tells where it stands. */
function inputSize(): number | undefined {
  try {
    const stat = fstatSync(0)
    if (!stat.isFile()) return undefined
    const position = /^pos:\s*([0-9]+)$/m.exec(readFileSync('/proc/self/fdinfo/0', 'utf8'))
    return position === null ? undefined : Math.max(0, stat.size - Number(position[1]))
  } catch {
    return undefined
  }
}

/** What the input put last into each file page, as checksums: 4 bytes a page, beside the budget. */
class Checksums {
  readonly #window: Window
  readonly #sums: Uint32Array
  /** Bytes from the input in each page, by the end of the input less than all in the last one only. */
  readonly #lengths: Uint32Array

  constructor(window: Window) {
    this.#window = window
    this.#sums = new Uint32Array(window.filePages)
    this.#lengths = new Uint32Array(window.filePages)
  }

  note(pages: Int32Array, bytes: Uint8Array): void {
    let from = 0
    for (let i = 0; i < pages.length && from < bytes.length; i++) {
      const to = Math.min(bytes.length, from + this.#window.bytesOf(pages[i]))
      this.#sums[pages[i]] = crc32(bytes.subarray(from, to))
      this.#lengths[pages[i]] = to - from
      from = to
    }
  }

  /** Throws RunError for the first page that holds something else when read directly. */
  async verify(): Promise<void> {
    const { path, pageSize, fileBytes } = this.#window
    const direct = new DirectFile(path, pageSize)
    const progress = new Progress('verifying', fileBytes)
    try {
      for (let page = 0; page < this.#sums.length; page++) {
        const length = this.#lengths[page]
        if (length > 0 && direct.checksum(page, length) !== this.#sums[page]) {
          throw new RunError(
            `${path}: file page ${page} does not hold what was written: ` +
              'the file was changed meanwhile, or this is a defect of fremap'
          )
        }
        await progress.add(pageSize)
      }
    } finally {
      progress.stop()
      direct.close()
    }
  }
}
