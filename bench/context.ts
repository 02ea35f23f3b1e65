/** What rows share: the scale, files in the OS cache, and the C program that measures the live kernel. */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync
} from 'node:fs'
import { createRequire } from 'node:module'
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
  readonly #peersDirectory: string
  #sparse: string | undefined
  #scratchCount = 0
  #program: string | Skip | undefined
  #shell: Shell | undefined

  /** Files go to a new directory inside `parent`; `sources` is the folder of the benchmark's own sources. */
  constructor(options: { quick: boolean; parent?: string | undefined; sources: string; buildDirectory: string }) {
    this.quick = options.quick
    this.buildDirectory = options.buildDirectory
    this.#sourceFile = join(options.sources, 'linux', 'nonlinear.c')
    this.#peersDirectory = join(options.sources, 'peers')
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

  /** A file of holes. There is one, whose size changes: what was opened before shows the new size. */
  sparseFile(sizeBytes: number): string {
    this.#sparse ??= join(this.#directory, 'sparse')
    writeFileSync(this.#sparse, '', { flag: 'a' })
    truncateSync(this.#sparse, sizeBytes)
    return this.#sparse
  }

  /** A copy of `file(sizeBytes)` to write to. */
  scratchFile(sizeBytes: number): string {
    const path = join(this.#directory, `scratch-${this.#scratchCount++}`)
    copyFileSync(this.file(sizeBytes), path)
    return path
  }

  /** A new, empty directory. */
  scratchDirectory(): string {
    const path = join(this.#directory, `scratch-${this.#scratchCount++}`)
    mkdirSync(path)
    return path
  }

  /** A package of `bench/peers`. Throws Skip where it is not installed or does not load. */
  peer(name: string): unknown {
    try {
      return createRequire(join(this.#peersDirectory, 'package.json'))(name)
    } catch (error) {
      const [reason] = (error as Error).message.split('\n')
      throw new Skip(`the package ${name} is not installed or does not load here: ${reason}`)
    }
  }

  /**
   * Runs `bench/linux/nonlinear.c` on the live kernel, compiling it the first time. → the objects it printed.
   * Throws Skip where there is no Linux, no compiler, or the kernel refuses.
   *
   * A shell that was started before anything was measured starts it: a fork of this process would write-protect our
   * memory, and the other side's first store to each page would pay for it.
   */
  async liveKernel(...args: (string | number)[]): Promise<Record<string, unknown>[]> {
    this.#program ??= this.#compile()
    if (this.#program instanceof Skip) throw this.#program
    this.#shell ??= new Shell()
    const { status, stdout, stderr } = await this.#shell.run([this.#program, ...args.map(String)])
    if (status !== 0) throw new Skip(`the live kernel refused: ${stderr || `it ended with ${status}`}`)
    return stdout
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
    this.#shell?.close()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** One shell that runs commands, one at a time. */
class Shell {
  readonly #child: ChildProcessWithoutNullStreams = spawn('sh', [], { stdio: 'pipe' })
  #stdout = ''
  #stderr = ''
  #wake: () => void = () => {}

  constructor() {
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text
      this.#wake()
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
    this.#child.on('exit', () => this.#wake())
  }

  async run(argv: readonly string[]): Promise<{ status: number; stdout: string; stderr: string }> {
    this.#stdout = ''
    this.#stderr = ''
    const quoted = argv.map(word => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
    this.#child.stdin.write(`${quoted}; echo "ended $?"\n`)
    for (;;) {
      const end = /^ended (\d+)\n$/m.exec(this.#stdout)
      if (end !== null)
        return { status: Number(end[1]), stdout: this.#stdout.slice(0, end.index), stderr: this.#stderr.trim() }
      if (this.#child.exitCode !== null) throw new Error(`the shell ended with ${this.#child.exitCode}`)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  close(): void {
    this.#child.stdin.end()
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
