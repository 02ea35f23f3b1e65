/** Rules about frames: what each one is, the allocator's bitmap, the LRU lists, and the slabs of reverse-map nodes. */

import type { Bitmap } from '../base/bitmap.ts'
import { INODE_RAMFS } from '../cache/inodes.ts'
import {
  F_FLAGS,
  F_INDEX,
  F_MAPCOUNT,
  F_MAPPING,
  F_RMAP_HEAD,
  PG_ACTIVE,
  PG_ANON,
  PG_CACHED,
  PG_LOCKED,
  PG_LRU,
  PG_MLOCKED,
  PG_RESERVED,
  PG_SLAB,
  PG_TABLE,
  PG_UNEVICTABLE,
  PG_UPTODATE,
  PG_WRITEBACK,
  PIN_SHIFT
} from '../frame/frame-table.ts'
import { LRU_UNEVICTABLE, NR_LRU } from '../frame/lru.ts'
import { NR_ANON_PAGES, NR_MLOCK } from '../frame/vmstat.ts'
import type { Census } from './check.ts'

/** A bitmap's summary level, and its number of set bits. */
export function checkBitmap(c: Census, map: Bitmap, what: string): number {
  let set = 0
  for (let w = 0; w < map.words.length; w++) {
    let word = map.words[w]
    const summarized = (map.summary[w >>> 5] & (1 << (w & 31))) !== 0
    c.expect(summarized === (word !== 0), () => `${what}: the summary of word ${w} is wrong`)
    for (; word !== 0; word &= word - 1) set++
  }
  return set
}

export function checkAllocator(c: Census): void {
  const { allocator, ram } = c.machine
  c.equal(allocator.nrFree, checkBitmap(c, allocator.freeMap, 'free bitmap'), 'free frames')
  c.expect(!allocator.isFree(0), () => 'the zero page is free')
  c.expect(ram.isZero(0), () => 'the zero page is not zero')
}

export function checkFrames(c: Census): void {
  const { machine } = c
  const { frames, allocator, nodes, inodes, counters, sync } = machine
  let nrSlabs = 0
  let nrNodes = 0
  let nrMlocked = 0
  let nrAnon = 0
  c.expect((frames.row(0, F_FLAGS) & PG_RESERVED) !== 0, () => 'the zero page is not reserved')
  c.equal(frames.row(0, F_MAPCOUNT), 0, 'map count of the zero page')
  for (let f = 1; f < machine.ram.nrFrames; f++) {
    const flags = frames.row(f, F_FLAGS)
    const pins = flags >>> PIN_SHIFT
    const name = `frame ${f} (flags 0x${flags.toString(16)})`
    if (allocator.isFree(f)) {
      c.expect(
        flags === 0 && frames.row(f, F_MAPCOUNT) === 0 && frames.row(f, F_RMAP_HEAD) === 0,
        () => `${name} is free but in use`
      )
      c.expect(c.mapped[f] === 0 && c.isTable[f] === 0, () => `${name} is free but page tables have it`)
      continue
    }
    if ((flags & (PG_CACHED | PG_UPTODATE)) === PG_CACHED) {
      const inode = frames.row(f, F_MAPPING)
      c.filling.set(inode, (c.filling.get(inode) ?? 0) + 1)
      const reader = sync.holderOfPage(inode, frames.row(f, F_INDEX))
      c.expect(inode !== 0 || reader >= 0, () => `${name} is being read from its swap slot by nobody`)
      const isOnItsWay = (flags & PG_LOCKED) !== 0 && (flags & PG_LRU) === 0 && frames.row(f, F_MAPCOUNT) === 0
      c.expect(isOnItsWay && c.mapped[f] === 0, () => `${name} has no contents, but is not being read`)
      continue
    }
    c.expect((flags & PG_LOCKED) === 0, () => `${name} is locked`)
    const written = (flags & PG_WRITEBACK) !== 0
    const isOnItsWayOut = written && sync.threads.writes(f)
    const inode = frames.row(f, F_MAPPING)
    c.expect(
      !written || isOnItsWayOut || (inode > 0 && inodes.lock[inode] !== 0),
      () => `${name} is being written by nobody`
    )
    if ((flags & PG_TABLE) !== 0) {
      c.expect(c.isTable[f] !== 0, () => `${name} is a page table of no tree`)
      c.expect(c.mapped[f] === 0, () => `${name} is a page table but mapped`)
      continue
    }
    c.expect(c.isTable[f] === 0, () => `${name} is used as a page table`)
    if ((flags & PG_SLAB) !== 0) {
      nrSlabs++
      nrNodes += frames.row(f, F_MAPCOUNT)
      c.expect(flags === PG_SLAB, () => `${name} is a slab and something else`)
      c.expect(c.mapped[f] === 0, () => `${name} is a slab but mapped`)
      continue
    }
    c.equal(frames.row(f, F_MAPCOUNT), c.mapped[f], `map count of ${name}`)
    if ((flags & PG_MLOCKED) !== 0) {
      nrMlocked++
      c.expect(frames.row(f, F_MAPCOUNT) > 0, () => `${name} is mlocked but mapped nowhere`)
      c.expect((flags & PG_UNEVICTABLE) !== 0, () => `${name} is mlocked but on reclaim's lists`)
    }
    const list = listLength(c, f, name)
    if (list > 0) c.nrShownOff++
    c.equal(list, c.offLinear[f], `reverse-map nodes of ${name}`)
    if ((flags & PG_ANON) !== 0) {
      if (frames.row(f, F_MAPCOUNT) > 0) nrAnon++
      c.expect(
        (flags & PG_CACHED) !== 0 || frames.row(f, F_MAPCOUNT) > 0 || pins > 0,
        () => `${name} is anonymous and leaked`
      )
      c.expect((flags & PG_CACHED) !== 0 || frames.row(f, F_MAPPING) === -1, () => `${name} is not in the swap cache`)
    } else if ((flags & PG_CACHED) === 0) {
      // Truncated or punched away while somebody held it.
      c.expect(pins > 0 || isOnItsWayOut, () => `${name} is used by nobody and leaked`)
      c.expect(frames.row(f, F_MAPCOUNT) === 0, () => `${name} left its file but is mapped`)
      continue
    }
    c.expect((flags & PG_UPTODATE) !== 0, () => `${name} has no valid contents`)
    c.expect((flags & PG_LRU) !== 0, () => `${name} is on no LRU list`)
    if ((flags & PG_UNEVICTABLE) !== 0) {
      const stays = (flags & PG_ANON) === 0 && inodes.kind[frames.row(f, F_MAPPING)] === INODE_RAMFS
      c.expect(stays || (flags & PG_MLOCKED) !== 0, () => `${name} is unevictable for no reason`)
      c.expect((flags & PG_ACTIVE) === 0, () => `${name} is active and unevictable`)
    } else if ((flags & PG_ANON) === 0) {
      c.expect(
        inodes.kind[frames.row(f, F_MAPPING)] !== INODE_RAMFS,
        () => `${name} is of memory that stays, but evictable`
      )
    }
  }
  c.equal(nodes.nrSlabs, nrSlabs, 'reverse-map slabs')
  c.equal(nodes.nrNodes, nrNodes, 'reverse-map nodes in slabs')
  c.equal(counters.total(NR_MLOCK), nrMlocked, 'mlocked pages')
  c.equal(counters.total(NR_ANON_PAGES), nrAnon, 'anonymous pages')
}

/** The nodes on a frame's list, checked to be linked both ways. */
function listLength(c: Census, frame: number, name: string): number {
  const { nodes } = c.machine
  let n = 0
  let prev = 0
  for (let node = nodes.first(frame); node !== 0; node = nodes.next(node)) {
    if (++n > nodes.nrNodes) {
      c.expect(false, () => `the reverse-map list of ${name} does not end`)
      break
    }
    c.expect(nodes.prev(node) === prev, () => `the reverse-map list of ${name} is not linked both ways`)
    prev = node
  }
  return n
}

export function checkLru(c: Census): void {
  const { lru, frames, ram } = c.machine
  let onLists = 0
  for (let list = 0; list < NR_LRU; list++) {
    let n = 0
    let prev = 0
    for (let f = lru.lists.first(list); f !== 0; f = lru.lists.next(f)) {
      if (++n > ram.nrFrames) {
        c.expect(false, () => `LRU list ${list} does not end`)
        break
      }
      c.expect(lru.lists.prev(f) === prev, () => `LRU list ${list} is not linked both ways at frame ${f}`)
      c.expect((frames.row(f, F_FLAGS) & PG_LRU) !== 0, () => `frame ${f} is on LRU list ${list} without saying so`)
      c.expect(lru.listOf(f) === list, () => `frame ${f} is on LRU list ${list} but belongs on ${lru.listOf(f)}`)
      prev = f
    }
    onLists += n
    c.expect(lru.lists.last(list) === prev, () => `LRU list ${list} has a wrong tail`)
    c.equal(lru.count(list), n, `length of LRU list ${list}${list === LRU_UNEVICTABLE ? ' (unevictable)' : ''}`)
  }
  let flagged = 0
  for (let f = 0; f < ram.nrFrames; f++) if ((frames.row(f, F_FLAGS) & PG_LRU) !== 0) flagged++
  c.equal(flagged, onLists, 'frames that say they are on an LRU list')
}

/** Slabs and the hash of reverse-map nodes. Which entries have one is checked with the entries. */
export function checkNodes(c: Census): void {
  const { nodes, frames } = c.machine
  c.equal(nodes.nrNodes, c.nrOffLinear, 'reverse-map nodes')
  c.equal(nodes.countHashed(), nodes.nrNodes - c.nrShownOff, 'reverse-map nodes in the hash')
  let nrFree = 0
  let nrPartial = 0
  const { partialSlabs } = nodes
  for (let slab = partialSlabs.first(0); slab !== 0; slab = partialSlabs.next(slab)) {
    if (++nrPartial > nodes.nrSlabs) {
      c.expect(false, () => 'the list of partial slabs does not end')
      return
    }
    c.expect((frames.row(slab, F_FLAGS) & PG_SLAB) !== 0, () => `frame ${slab} is listed as a slab`)
    let inSlab = 0
    for (let node = frames.row(slab, F_INDEX); node !== 0 && inSlab <= nodes.perSlab; node = nodes.nextFree(node))
      inSlab++
    c.expect(inSlab > 0, () => `slab ${slab} is full but listed as partial`)
    c.equal(frames.row(slab, F_MAPCOUNT), nodes.perSlab - inSlab, `nodes used in slab ${slab}`)
    nrFree += inSlab
  }
  c.equal(partialSlabs.count(0), nrPartial, 'partial slabs')
  c.equal(nodes.nrFreeNodes, nrFree, 'free reverse-map nodes')
  c.equal(nodes.nrSlabs * nodes.perSlab, nodes.nrNodes + nrFree, 'nodes of all slabs')
}
