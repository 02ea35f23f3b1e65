/** `fremap cat`: the window's pages, in window order, to the standard output or a file. */
import { RunError } from './failure.ts'
import { DirectFile } from './input.ts'
import { fileOutput, print, type Sink, standardOutput } from './output.ts'
import { PeakRss } from './peak-rss.ts'
import { Progress } from './progress.ts'
import { report } from './report.ts'
import { CHUNK_BYTES, type Chunk, Window, type WindowOptions } from './window.ts'

export interface CatOptions extends WindowOptions {
  readonly out?: string
  readonly verify?: boolean
  readonly stats?: boolean
  readonly smaps?: boolean
}

export async function cat(path: string, options: CatOptions): Promise<void> {
  const peak = new PeakRss()
  const window = Window.open(path, 'r', options)
  let sink: Sink | undefined
  let direct: DirectFile | undefined
  try {
    if (options.verify === true) direct = new DirectFile(path, window.pageSize)
    sink = options.out === undefined ? standardOutput : fileOutput(options.out)
    // Reports go where the data does not.
    const note = options.out === undefined ? (text: string) => process.stderr.write(text) : print
    const { bytes, ms } = await copy(window, sink, direct, options.out === undefined)
    sink.finish()
    const { pages } = window.order
    if (options.stats === true) note(report(window, [{ name: 'copied', pages, bytes, ms }], peak))
    if (options.smaps === true) note(window.smaps())
  } finally {
    sink?.close()
    direct?.close()
    window.close()
  }
}

async function copy(
  window: Window,
  sink: Sink,
  direct: DirectFile | undefined,
  toStdout: boolean
): Promise<{ bytes: number; ms: number }> {
  const buffer = new Uint8Array(Math.max(CHUNK_BYTES, window.pageSize))
  const total = window.totalBytes
  const quiet = toStdout && process.stdout.isTTY
  const progress = new Progress(quiet ? undefined : 'copying', total)
  try {
    for (const turn of window.turns()) {
      for (const chunk of window.chunks(turn)) {
        const shown = window.read(chunk, buffer)
        if (direct !== undefined) compare(window, chunk, shown, direct)
        await sink.write(shown)
        await progress.add(shown.length)
      }
    }
    return { bytes: total, ms: progress.elapsed }
  } finally {
    progress.stop()
  }
}

/** Throws RunError for the first page that differs from a direct read. */
export function compare(window: Window, chunk: Chunk, shown: Uint8Array, direct: DirectFile): void {
  const wrong = direct.firstDifference(chunk.pages, shown)
  if (wrong < 0) return
  const page = chunk.pages[wrong]
  throw new RunError(
    `${window.path}: window page ${chunk.first + wrong} differs from a direct read of file page ${page}: ` +
      'the file was changed meanwhile, or this is a defect of fremap'
  )
}
