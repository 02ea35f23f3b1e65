/**
 * `fremap check`: remaps a whole file, touches every page, then visits every page again and compares all its bytes with
 * direct reads. The second round finds pages that were evicted since the first: their entries must have remembered
 * them. At the end the machine checks its own invariants.
 */
import { compare } from './cat.ts'
import { RunError } from './failure.ts'
import { plural, printable } from './format.ts'
import { DirectFile } from './input.ts'
import { print } from './output.ts'
import { PeakRss } from './peak-rss.ts'
import { Progress } from './progress.ts'
import { budgetHeld, report, type Work } from './report.ts'
import { CHUNK_BYTES, Window, type WindowOptions } from './window.ts'

export interface CheckOptions extends WindowOptions {
  readonly smaps?: boolean
}

export async function check(path: string, options: CheckOptions): Promise<void> {
  const peak = new PeakRss()
  const window = Window.open(path, 'r', options)
  const direct = new DirectFile(path, window.pageSize)
  try {
    const works = await visit(window, direct, peak)
    const held = budgetHeld(window, peak.growth())
    print(report(window, works, peak))
    if (options.smaps === true) print(window.smaps())
    const broken = window.memory.check()
    if (broken.length > 0) throw new RunError(`the machine is not sound, a defect of fremap: ${broken[0]}`)
    if (!held) throw new RunError('the budget was not held: the process grew by more than the budget and its own share')
    const pages = plural(window.order.pages, 'page')
    print(`${printable(path)}: verified, ${pages} read as direct reads have them; the budget held\n`)
  } finally {
    direct.close()
    window.close()
  }
}

async function visit(window: Window, direct: DirectFile, peak: PeakRss): Promise<Work[]> {
  const buffer = new Uint8Array(Math.max(CHUNK_BYTES, window.pageSize))
  const total = window.totalBytes
  const progress = new Progress('checking', total * 2)
  let touchMs = 0
  let verifyMs = 0
  try {
    for (const turn of window.turns()) {
      for (const chunk of window.chunks(turn)) {
        const start = performance.now()
        touch(window, chunk.at, chunk.at + chunk.pages.length)
        touchMs += performance.now() - start
        await progress.add(chunk.bytes)
      }
      for (const chunk of window.chunks(turn)) {
        const start = performance.now()
        compare(window, chunk, window.read(chunk, buffer), direct)
        verifyMs += performance.now() - start
        await progress.add(chunk.bytes)
      }
      peak.sample()
    }
  } finally {
    progress.stop()
  }
  const { pages } = window.order
  return [
    { name: 'touched', pages, bytes: total, ms: touchMs },
    { name: 'verified', pages, bytes: total, ms: verifyMs }
  ]
}

/** Loads one byte of each page. */
function touch(window: Window, from: number, end: number): void {
  const { mapping, pageSize } = window
  for (let page = from; page < end; page++) mapping.getUint8(page * pageSize)
}
