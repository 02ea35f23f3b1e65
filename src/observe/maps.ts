/**
 * What /proc/PID/maps says: the mappings of an address space in address order.
 *
 * A nonlinear mapping is one row with its original offset: remaps do not show here (as in Linux 3.19; smaps has
 * `Nonlinear:`). Rows are copies; lock: the address space's mmap lock for reading.
 */
import { escaped } from '../base/printing.ts'
import type { Machine } from '../mm/machine.ts'
import { VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE } from '../vma/flags.ts'

export interface MapsRow {
  readonly vma: number
  /** First and one-past-last virtual page. */
  readonly start: number
  readonly end: number
  /** Four letters, such as `rw-s`. */
  readonly perms: string
  /** Linear file page of `start`; 0 for private anonymous memory. */
  readonly pgoff: number
  /** 0 for private anonymous memory. */
  readonly inode: number
  readonly name: string
}

export function maps(m: Machine, mm: number): MapsRow[] {
  const rows: MapsRow[] = []
  for (let vma = m.vmas.first(mm); vma !== 0; vma = m.vmas.next[vma]) rows.push(mapsRow(m, vma))
  return rows
}

export function mapsRow(m: Machine, vma: number): MapsRow {
  const { vmas } = m
  const inode = vmas.inode[vma]
  return {
    vma,
    start: vmas.start[vma],
    end: vmas.end[vma],
    perms: permsOf(vmas.flags[vma]),
    pgoff: inode === 0 ? 0 : vmas.pgoff[vma],
    inode,
    name: inode === 0 ? '' : m.inodes.stores.name(inode)
  }
}

function permsOf(flags: number): string {
  return (
    ((flags & VM_READ) === 0 ? '-' : 'r') +
    ((flags & VM_WRITE) === 0 ? '-' : 'w') +
    ((flags & VM_EXEC) === 0 ? '-' : 'x') +
    ((flags & VM_MAYSHARE) === 0 ? 'p' : 's')
  )
}

/** The rows as the lines of /proc/PID/maps; the device is always 00:00. */
export function formatMaps(m: Machine, rows: readonly MapsRow[]): string {
  return rows.map(row => `${formatMapsRow(m, row)}\n`).join('')
}

export function formatMapsRow(m: Machine, row: MapsRow): string {
  const { pageSize } = m.ram
  const range = `${hex(row.start * pageSize)}-${hex(row.end * pageSize)}`
  const line = `${range} ${row.perms} ${hex(row.pgoff * pageSize)} 00:00 ${row.inode}`
  // Names start in the same column, as far as the rest leaves room.
  return row.name === '' ? `${line} ` : `${line.padEnd(72)} ${escaped(row.name)}`
}

/** At least eight digits. A product of doubles: exact, because the page size is a power of two. */
function hex(bytes: number): string {
  return bytes.toString(16).padStart(8, '0')
}
