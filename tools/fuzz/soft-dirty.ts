/**
 * Which pages pagemap must, and may, call soft-dirty: what was stored to or mapped anew since the last clear_refs.
 *
 * A page has a bit of its own in its entry, and one of its mapping. Both are bounded from below and from above, for
 * where Linux forgets or exaggerates it is allowed to:
 *
 *  own      stored to, remapped, moved: must. Lost where the entry goes and leaves nothing: an evicted, truncated or
 *           dropped page at its linear place. Populating may store to private pages
 *  mapping  mapped since: must. Neighbours that become one mapping share it: may. With the Linux policy a change of
 *           protection or advice that joins two mappings may lose it, as on Linux up to 6.18
 *
 * Evictions are not modelled. So a page that can lose its bit by one must have it only while reclaim has not looked at
 * any page.
 */
import { PGSCAN } from '../../src/frame/vmstat.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { PM_FILE, PM_PRESENT, PM_SOFT_DIRTY, PM_SWAP, pagemap } from '../../src/observe/pagemap.ts'
import { VM_SOFTDIRTY } from '../../src/vma/flags.ts'
import { Mismatch } from './mismatch.ts'
import { type ModelFile, type ModelPage, mayWrite } from './model.ts'
import type { FuzzSpace, World } from './world.ts'

/** How often reclaim has looked at pages, in all threads. */
export function reclaimStamp(w: World): number {
  return w.m.counters.total(PGSCAN)
}

/** A store through the entry, or an entry that was made soft-dirty. */
export function mustBeSoft(w: World, page: ModelPage): void {
  page.soft.may = true
  page.soft.must = true
  page.soft.stamp = w.stamp
}

/** The entry is gone, and nothing in its place. */
export function isGone(page: ModelPage): void {
  page.soft.may = false
  page.soft.must = false
}

/** The entry may be gone: what it knew may be. */
export function mayBeGone(page: ModelPage): void {
  if (!staysKnown(page)) page.soft.must = false
}

/** Pages of a file were taken out of all address spaces, as far as they were mapped. */
export function fileMayBeGone(w: World, file: ModelFile): void {
  for (const space of w.spaces) {
    if (space === undefined) continue
    for (const page of space.pages.values()) if (page.file === file) mayBeGone(page)
  }
}

/** Whether an entry stays that knows, also when the page is taken out of it. */
export function staysKnown(page: ModelPage): boolean {
  return page.copy !== null ? !page.lazy : page.own >= 0 || page.pgoff !== page.linear
}

/** Populating stores to private pages. */
export function notePopulated(space: FuzzSpace): void {
  for (const page of space.pages.values()) if (!page.shared && mayWrite(page)) page.soft.may = true
}

/** Pages [start, start + n) were mapped. */
export function noteMapped(w: World, space: FuzzSpace, start: number, n: number): void {
  for (let vpn = start; vpn < start + n; vpn++) {
    const page = space.pages.get(vpn)
    if (page === undefined) continue
    page.soft.ofMapping = 'must'
  }
  spread(w, space)
}

/** Mappings may have become one by a change of their flags. */
export function noteJoined(w: World, space: FuzzSpace): void {
  if (w.config.policy === POLICY_LINUX) {
    for (const page of space.pages.values()) if (page.soft.ofMapping === 'must') page.soft.ofMapping = 'may'
  }
  spread(w, space)
}

/** What one page of a mapping has, all have. */
function spread(w: World, space: FuzzSpace): void {
  const { vmas } = w.m
  for (let vma = vmas.first(space.mm.id); vma !== 0; vma = vmas.next[vma]) {
    if ((vmas.flags[vma] & VM_SOFTDIRTY) === 0) continue
    let most: ModelPage['soft']['ofMapping'] = 'no'
    for (let vpn = vmas.start[vma]; vpn < vmas.end[vma] && most !== 'must'; vpn++) {
      const ofMapping = space.pages.get(vpn)?.soft.ofMapping ?? 'no'
      if (ofMapping !== 'no') most = ofMapping
    }
    if (most === 'no') continue
    for (let vpn = vmas.start[vma]; vpn < vmas.end[vma]; vpn++) {
      const page = space.pages.get(vpn)
      if (page !== undefined && (page.soft.ofMapping === 'no' || most === 'must')) page.soft.ofMapping = most
    }
  }
}

/** clear_refs 4. A remembered page without access has no room for the bit, and so counts as stored to (pgtable/pte). */
export function clearSoft(space: FuzzSpace): void {
  for (const page of space.pages.values()) {
    page.soft.must = false
    page.soft.may = page.own === 0
    page.soft.ofMapping = 'no'
  }
}

/** Compares what pagemap says of a page with the model. `kind` is `name` for messages. */
export function checkPagemap(w: World, name: string, space: FuzzSpace, vpn: number, page: ModelPage): void {
  const flags = pagemap(w.m, space.mm.id, vpn, 1)[0]
  const isThere = (flags & (PM_PRESENT | PM_SWAP)) !== 0
  if ((flags & PM_PRESENT) !== 0 && (flags & PM_SWAP) !== 0) throw new Mismatch(`${name} is present and in swap`)
  if (page.copy !== null && (flags & PM_FILE) !== 0) throw new Mismatch(`${name}, a private copy, counts as a file's`)
  if (page.copy !== null && !isThere && !page.lazy) throw new Mismatch(`${name}, a private copy, is nowhere`)
  if (page.copy === null && page.file !== null && isThere !== ((flags & PM_FILE) !== 0)) {
    throw new Mismatch(`${name} of a file is 0x${flags.toString(16)} in pagemap`)
  }
  const { may, must, stamp, ofMapping } = page.soft
  if ((flags & PM_SOFT_DIRTY) !== 0) {
    if (!may && ofMapping === 'no') throw new Mismatch(`${name} is soft-dirty, but was not stored to`)
    return
  }
  if (ofMapping === 'must') throw new Mismatch(`${name} was mapped anew, but is not soft-dirty`)
  if (must && isThere && (staysKnown(page) || stamp === reclaimStamp(w))) {
    throw new Mismatch(`${name} was stored to, but is not soft-dirty`)
  }
}
