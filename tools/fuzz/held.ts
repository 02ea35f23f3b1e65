/**
 * What lasts for some operations: a page on its way to another frame, and pages that are borrowed.
 *
 *  startMove, borrow   begin it
 *  endDue              ends what is due; `endAll` everything
 *  cutBorrowed         pages of a file were cut away: who borrowed them keeps them, but they are the file's no more
 *
 * A page that is borrowed for writing is stored to twice: when it is borrowed, and when it is given back.
 */
import type { BorrowedPage } from '../../src/api/borrowed-page.ts'
import { Mismatch } from './mismatch.ts'
import type { ModelFile } from './model.ts'
import type { World } from './world.ts'

export interface Held {
  moving: { readonly frame: number; readonly until: number } | undefined
  readonly borrowed: Loan[]
}

export interface Loan {
  readonly page: BorrowedPage
  /** The shared page of a file that it is, undefined for a private one. */
  readonly of: { readonly file: ModelFile; readonly pgoff: number; readonly frame: number } | undefined
  /**
   * The private page that it is, null for none, and how many of its bytes are known. It goes on being that one's of the
   * model.
   */
  readonly copy: Uint8Array | null
  readonly known: number
  /** The byte that is stored to when it is given back, -1 for none. */
  readonly off: number
  readonly value: number
  readonly until: number
  isCut: boolean
}

/** The page behind an entry begins to move, for `ops` operations. */
export function startMove(w: World, frame: number, ops: number): void {
  if (frame === 0 || w.held.moving !== undefined) return
  if (!w.m.quietly(() => w.m.migration.begin(frame))) return
  w.held.moving = { frame, until: w.tick + ops }
  if (ops === 0) endMove(w)
}

/** Without a frame to go to it goes on. */
function endMove(w: World): void {
  const { moving } = w.held
  if (moving === undefined) return
  w.m.quietly(() => {
    const { allocator, reclaim } = w.m
    if (allocator.nrFree === 0) reclaim.shrink(1)
    // This one does not fail as planned.
    const target = allocator.allocOutside(0, 0)
    if (target === 0) return
    // Borrowed at another address meanwhile: it stays.
    if (!w.m.migration.end(moving.frame, target)) allocator.free(target)
    w.held.moving = undefined
  })
}

export function endDue(w: World): void {
  if (w.held.moving !== undefined && w.held.moving.until <= w.tick) endMove(w)
  for (const loan of w.held.borrowed.filter(({ until }) => until <= w.tick)) giveBack(w, loan)
}

export function endAll(w: World): void {
  endMove(w)
  for (const loan of [...w.held.borrowed]) giveBack(w, loan)
}

export function cutBorrowed(w: World, file: ModelFile): void {
  for (const loan of w.held.borrowed) if (loan.of?.file === file) loan.isCut = true
}

function giveBack(w: World, loan: Loan): void {
  w.held.borrowed.splice(w.held.borrowed.indexOf(loan), 1)
  const { page, of, copy, known, off, value, isCut } = loan
  if (copy !== null) w.compare('borrowed private page', page.bytes, copy, known)
  if (of !== undefined && !isCut) {
    const { file, pgoff, frame } = of
    const now = w.m.cache.lookup(file.inode, pgoff)
    if (now !== frame) throw new Mismatch(`the borrowed page ${pgoff} is in frame ${now}, not ${frame}`)
    w.compare(`borrowed page ${pgoff}`, page.bytes, file.page(pgoff), file.knownLength(pgoff))
    if (off >= 0) {
      page.bytes[off] = value
      file.store(pgoff * w.pageSize + off, Uint8Array.of(value))
    }
  }
  page.release()
}
