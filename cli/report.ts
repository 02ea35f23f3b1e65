/** What happened, in rows: the counters of the machine beside times and the memory that the process took. */
import { formatSize } from '../src/index.ts'
import { formatCount, formatDuration, plural, printable, type Row, sizeCells, table } from './format.ts'
import { NODE_SHARE_BYTES, type PeakRss } from './peak-rss.ts'
import type { Window } from './window.ts'

const NODE_SHARE = formatSize(NODE_SHARE_BYTES)

/** Something that was done to so many pages. */
export interface Work {
  readonly name: string
  readonly pages: number
  readonly bytes: number
  readonly ms: number
}

/** The report of a command: its work, the machine's counters, its memory. */
export function report(window: Window, works: readonly Work[], peak: PeakRss): string {
  return table([...fileRows(window), ...works.map(workRow), ...counterRows(window), ...memoryRows(window, peak)])
}

export function fileRows(window: Window): Row[] {
  const { filePages, fileBytes, pageSize, order, pages } = window
  const turns = Math.ceil(order.pages / Math.max(1, pages))
  return [
    ['file', formatCount(filePages), noun('page', filePages), `of ${formatSize(pageSize)}: ${formatSize(fileBytes)}`],
    ['window', formatCount(pages), noun('page', pages), `in ${plural(turns, 'turn')}, order ${printable(order.name)}`],
    remapRow(window)
  ]
}

export function remapRow(window: Window): Row {
  const { remap_pages: pages, remap_calls: calls } = window.stats().counters
  const cost = calls === 0 ? '' : `by ${plural(calls, 'call')}, ${each(window.remapMs, pages)}`
  return ['remapped', formatCount(pages), noun('page', pages), cost]
}

export function workRow({ name, pages, bytes, ms }: Work): Row {
  const cost = `${formatDuration(ms)}, ${each(ms, pages)}, ${formatSize((bytes / ms) * 1000)}/s`
  return [name, formatCount(pages), noun('page', pages), pages === 0 ? '' : cost]
}

export function counterRows(window: Window): Row[] {
  const { counters } = window.stats()
  const reads = `by ${plural(counters.store_reads, 'read')}, ${formatCount(counters.readahead_pages)} of them ahead`
  const writes = `by ${plural(counters.store_writes, 'write')}`
  const rows: Row[] = [
    ['faults', formatCount(counters.pgfault), '', `${formatCount(counters.pgmajfault)} had to wait for the file`],
    ['evictions', formatCount(counters.pgsteal), noun('page', counters.pgsteal)],
    ['read from the file', formatCount(counters.pgpgin), noun('page', counters.pgpgin), reads]
  ]
  if (counters.pgpgout > 0) {
    rows.push(['written to the file', formatCount(counters.pgpgout), noun('page', counters.pgpgout), writes])
  }
  return rows
}

export function memoryRows(window: Window, peak: PeakRss): Row[] {
  const stats = window.stats()
  const tables = formatSize(stats.pageTableBytes)
  const growth = peak.growth()
  const within = budgetHeld(window, growth) ? 'within' : 'MORE THAN'
  return [
    ['budget', ...sizeCells(formatSize(window.memory.sizeBytes)), `${tables} of it page tables`],
    ['peak RSS growth', ...sizeCells(formatSize(growth)), `${within} the budget and ${NODE_SHARE} for Node itself`]
  ]
}

/** Whether the process grew by no more than the budget and Node's share. */
export function budgetHeld(window: Window, growthBytes: number): boolean {
  return growthBytes <= window.memory.sizeBytes + NODE_SHARE_BYTES
}

function noun(one: string, n: number): string {
  return n === 1 ? one : `${one}s`
}

function each(ms: number, pages: number): string {
  return `${formatDuration(ms / pages)} a page`
}
