/** What rows share: the scale, files in the OS cache, and the C program that measures the live kernel. */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Row, Skip } from './harness.ts'
import { stamp } from './random.ts'
import type { Subject } from './subject.ts'

export type BenchRow = Row<Context, Subject>

const CHUNK = 1 << 20

/** One run's surroundings. `close` removes all files it made. */
export class Context {
  readonly quick: boolean
  /** Where the build being measured lies. */
  readonly buildDirectory: string
  readonly #directory: string
  readonly #sourceFile: string
  readonly #files: Map<number, string> = new Map()
  #program: string | Skip | undefined

  /** Files go to a new directory inside `parent`; `sourceFile` is the C program's source. */
  constructor(options: { quick: boolean; parent?: string | undefined; sourceFile: string; buildDirectory: string }) {
    this.quick = options.quick
    this.buildDirectory = options.buildDirectory
    this.#sourceFile = options.sourceFile
    this.#directory = mkdtempSync(join(options.parent ?? tmpdir(), 'fremap-bench-'))
  }

  /** A size of a row: the second in a quick run. */
  size(full: number, quick: number): number {
    return this.quick ? quick : full
  }

  /** A file of whole MiB whose little-endian word i is `stamp(i)`, flushed, and in the OS cache. */
  file(sizeBytes: number): string {
    const known = this.#files.get(sizeBytes)
    if (known !== undefined) return known
    const path = join(this.#directory, `words-${sizeBytes}`)
    const fd = openSync(path, 'w+')
    try {
      const chunk = new DataView(new ArrayBuffer(CHUNK))
      for (let position = 0; position < sizeBytes; position += CHUNK) {
        for (let i = 0; i < CHUNK; i += 4) chunk.setUint32(i, stamp((position + i) >>> 2), true)
        if (writeSync(fd, chunk, 0, CHUNK, position) !== CHUNK) throw new Error('short write of a benchmark file')
      }
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    this.#files.set(sizeBytes, path)
    return path
  }

  /**
   * Runs `bench/linux/nonlinear.c` on the live kernel, compiling it the first time. → the objects it printed.
   * Throws Skip where there is no Linux, no compiler, or the kernel refuses.
   */
  liveKernel(...args: (string | number)[]): Record<string, unknown>[] {
    this.#program ??= this.#compile()
    if (this.#program instanceof Skip) throw this.#program
    const child = spawnSync(this.#program, args.map(String), { encoding: 'utf8' })
    if (child.error !== undefined) throw new Skip(`the live-kernel program did not start: ${child.error.message}`)
    if (child.status !== 0) {
      throw new Skip(`the live kernel refused: ${child.stderr.trim() || `ended by ${child.signal ?? child.status}`}`)
    }
    return child.stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>)
  }

  #compile(): string | Skip {
    if (process.platform !== 'linux') return new Skip('it needs a Linux kernel')
    const program = join(this.#directory, 'nonlinear')
    const tried = process.env.CC === undefined ? ['cc', 'gcc', 'clang'] : [process.env.CC]
    for (const compiler of tried) {
      try {
        execFileSync(compiler, ['-O2', '-o', program, this.#sourceFile], { stdio: ['ignore', 'ignore', 'pipe'] })
        return program
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
        return new Skip(`${compiler} did not compile bench/linux/nonlinear.c: ${(error as Error).message}`)
      }
    }
    return new Skip(`no C compiler to build bench/linux/nonlinear.c with (tried ${tried.join(', ')})`)
  }

  close(): void {
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** Bytes this process has asked of read calls so far, or undefined where the kernel does not say. */
export function bytesReadSoFar(): number | undefined {
  try {
    return Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? Number.NaN)
  } catch {
    return undefined
  }
}
