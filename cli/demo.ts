/**
 * `fremap demo`, and `npm start`: everything once, on a file of its own. Makes a sample, shows it shuffled in a memory
 * that is much smaller, reads it all, rewrites a part through the window, syncs, and reads every page back directly.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/index.ts'
import { catchSignals, undoAtExit } from './cleanup.ts'
import { RunError } from './failure.ts'
import { formatCount, formatDuration, plural, table } from './format.ts'
import { DirectFile } from './input.ts'
import { print } from './output.ts'
import { PeakRss } from './peak-rss.ts'
import { picture } from './picture.ts'
import { Progress } from './progress.ts'
import { counterRows, memoryRows, remapRow } from './report.ts'
import { fillPage, isPage, makeSample } from './sample.ts'
import { Window } from './window.ts'

export interface DemoOptions {
  /** Bytes of the sample, rounded up to pages. */
  readonly size: number
  /** The budget in bytes. */
  readonly memory: number
  readonly seed: number
}

const PAGE = 4096
/** Verified in one turn of the event loop. */
const TURN_PAGES = 256
/** Every so many window pages one is rewritten. */
const REWRITE_EVERY = 8

export async function demo(options: DemoOptions): Promise<void> {
  catchSignals()
  const directory = mkdtempSync(join(tmpdir(), 'fremap-'))
  const removed = undoAtExit(() => rmSync(directory, { recursive: true, force: true }))
  try {
    await show(join(directory, 'sample'), options)
  } finally {
    rmSync(directory, { recursive: true, force: true })
    removed()
  }
}

async function show(path: string, { size, memory, seed }: DemoOptions): Promise<void> {
  const filePages = Math.max(1, Math.ceil(size / PAGE))
  const bytes = filePages * PAGE
  say(`A file of ${formatSize(bytes)} in shuffled order, in ${formatSize(memory)} of memory.\n\n`)
  const peak = new PeakRss()

  await step('make a sample file', bytes, progress => makeSample(path, filePages, PAGE, n => progress.add(n * PAGE)))

  const order = { kind: 'shuffle', seed } as const
  const window = Window.open(path, 'r+', { order, memory, pageSize: PAGE, window: bytes })
  try {
    const rewritten = await useWindow(window)
    await verify(window, rewritten)
    const rows = [remapRow(window), ...counterRows(window), ...memoryRows(window, peak)]
    say(`\n${table(rows)}\n`)
    say('  The window over the file: each dot is a window page, at the height of the file page that it shows.\n')
    say(`${picture(window.mapping, filePages)}\n`)
    say(`All ${plural(filePages, 'page')} verified.\n`)
  } finally {
    window.close()
  }
}

/** Remaps, reads, rewrites, syncs. → for each file page, whether it was rewritten. */
async function useWindow(window: Window): Promise<Uint8Array> {
  const { filePages, fileBytes } = window
  const rewritten = new Uint8Array(filePages)
  const rewrites = Math.ceil(filePages / REWRITE_EVERY)

  await step(`show its ${formatCount(filePages)} pages shuffled`, 0, async () => window.show(0))
  await step('read every page', fileBytes, progress => readAll(window, progress))
  await step(`rewrite ${plural(rewrites, 'page')}`, rewrites * PAGE, progress => rewrite(window, rewritten, progress))
  await step('sync', window.dirtyPages * PAGE, async progress => {
    let done = 0
    await window.mapping.syncAsync({
      onProgress: ({ doneBytes }) => {
        progress.note(doneBytes - done)
        done = doneBytes
      }
    })
  })
  return rewritten
}

async function readAll(window: Window, progress: Progress): Promise<void> {
  const { mapping } = window
  for (const chunk of window.chunks(0)) {
    for (let i = 0; i < chunk.pages.length; i++) {
      if (isPage(mapping.page(chunk.at + i), chunk.pages[i], 0)) continue
      throw new RunError(`window page ${chunk.at + i} does not show file page ${chunk.pages[i]}`)
    }
    await progress.add(chunk.bytes)
  }
}

async function rewrite(window: Window, rewritten: Uint8Array, progress: Progress): Promise<void> {
  const bytes = new Uint8Array(PAGE)
  const words = new Uint32Array(bytes.buffer)
  for (const chunk of window.chunks(0)) {
    for (let i = 0; i < chunk.pages.length; i++) {
      if ((chunk.at + i) % REWRITE_EVERY !== 0) continue
      fillPage(words, chunk.pages[i], 1)
      window.mapping.write(bytes, (chunk.at + i) * PAGE)
      rewritten[chunk.pages[i]] = 1
      progress.note(PAGE)
    }
    await progress.add(0)
  }
}

async function verify(window: Window, rewritten: Uint8Array): Promise<void> {
  const direct = new DirectFile(window.path, PAGE)
  try {
    await step('verify by direct reads', window.fileBytes, async progress => {
      for (let page = 0; page < rewritten.length; page++) {
        if (!isPage(direct.page(page), page, rewritten[page])) {
          throw new RunError(`file page ${page} does not hold what was ${rewritten[page] === 0 ? 'made' : 'rewritten'}`)
        }
        progress.note(PAGE)
        if (page % TURN_PAGES === 0) await progress.add(0)
      }
    })
  } finally {
    direct.close()
  }
}

/** Runs a step with a bar, then says how long it took. */
async function step(name: string, bytes: number, run: (progress: Progress) => Promise<void>): Promise<void> {
  const progress = new Progress(name, bytes)
  try {
    await run(progress)
  } finally {
    progress.stop()
  }
  const ms = progress.elapsed
  const rate = bytes === 0 ? '' : `${formatSize((bytes / ms) * 1000)}/s`
  const size = bytes === 0 ? '' : formatSize(bytes)
  say(`  ${name.padEnd(32)}${size.padStart(9)}${formatDuration(ms).padStart(10)}${rate.padStart(13)}\n`)
}

function say(text: string): void {
  print(text)
}
