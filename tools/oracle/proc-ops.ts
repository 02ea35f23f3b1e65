/** Operations that read what /proc tells about a process. */
import { MM_ANONPAGES, MM_FILEPAGES, MM_LOCKED_VM, MM_SWAPENTS } from '../../src/frame/mm-table.ts'
import { maps } from '../../src/observe/maps.ts'
import { formatPagemap, pagemap } from '../../src/observe/pagemap.ts'
import { type SmapsRow, smaps } from '../../src/observe/smaps.ts'
import { ARENA_PAGES, addressOf, BASE_PAGE, PAGE, resultPage, translated } from './quantity.ts'
import type { Args, OpTable } from './result.ts'
import type { Session } from './session.ts'
import type { Result } from './trace.ts'

const PAGE_KB = 4

/** The field of a smaps result for each name that `f` may list. */
const SMAPS_FIELDS: Readonly<Record<string, (row: SmapsRow) => number | string | undefined>> = {
  Rss: row => row.rss * PAGE_KB,
  Pss: row => Math.floor(row.pss / 1024),
  ShC: row => row.sharedClean * PAGE_KB,
  ShD: row => row.sharedDirty * PAGE_KB,
  PrC: row => row.privateClean * PAGE_KB,
  PrD: row => row.privateDirty * PAGE_KB,
  Anon: row => row.anonymous * PAGE_KB,
  Swap: row => row.swap * PAGE_KB,
  Lck: row => Math.floor(row.locked / 1024),
  NL: row => (row.nonlinear === undefined ? undefined : row.nonlinear * PAGE_KB),
  fl: row => row.vmFlags
}

export const PROC_OPS: OpTable = {
  maps: mapsOp,
  smaps: smapsOp,
  rss,
  pagemap: (s, a) => {
    const vpn = Number(translated(addressOf(a.at)) / PAGE)
    return { pm: formatPagemap(pagemap(s.machine, mmId(s, a), vpn, a.pages as number)) }
  }
}

function mmId(s: Session, a: Args): number {
  return s.process((a.p as number | undefined) ?? 0).mm.id
}

function inArena(row: { start: number; end: number }): boolean {
  return row.end > BASE_PAGE && row.start < BASE_PAGE + ARENA_PAGES
}

function pageOf(vpn: number): number {
  return resultPage(vpn * Number(PAGE))
}

function mapsOp(s: Session, a: Args): Result {
  const rows = maps(s.machine, mmId(s, a)).filter(inArena)
  return {
    m: rows.map(row => [pageOf(row.start), pageOf(row.end), row.perms, row.pgoff, s.names.get(row.inode) ?? null])
  }
}

function smapsOp(s: Session, a: Args): Result {
  const fields = a.f === undefined ? Object.keys(SMAPS_FIELDS) : (a.f as string).split(' ')
  const rows = smaps(s.machine, mmId(s, a)).filter(inArena)
  return {
    v: rows.map(row => {
      const out: Record<string, unknown> = { s: pageOf(row.start), e: pageOf(row.end) }
      for (const field of fields) {
        const value = SMAPS_FIELDS[field](row)
        if (value !== undefined) out[field] = value
      }
      return out
    })
  }
}

function rss(s: Session, a: Args): Result {
  const { mms } = s.machine
  const mm = mmId(s, a)
  const all = smaps(s.machine, mm)
  const sum = (rows: SmapsRow[], count: (row: SmapsRow) => number): number => rows.reduce((n, row) => n + count(row), 0)
  const arena = all.filter(inArena)
  const ok =
    sum(all, row => row.rss) === mms.row(mm, MM_FILEPAGES) + mms.row(mm, MM_ANONPAGES) &&
    sum(all, row => row.anonymous) === mms.row(mm, MM_ANONPAGES) &&
    sum(all, row => row.swap) === mms.row(mm, MM_SWAPENTS)
  return {
    rss: sum(arena, row => row.rss),
    nl: sum(arena, row => row.nonlinear ?? 0),
    swap: sum(arena, row => row.swap),
    lck: mms.row(mm, MM_LOCKED_VM),
    ok
  }
}
