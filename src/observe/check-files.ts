/** Rules about files: the page cache, inodes and their lists, open files and references, quotas, and swap slots. */

import { MAX_FILE_PAGES } from '../abi/limits.ts'
import { CLEAN, DIRTY, INODE_RAMFS, INODE_STORE } from '../cache/inodes.ts'
import { F_CACHE_NEXT, F_FLAGS, F_INDEX, F_MAPPING, PG_ANON, PG_CACHED, PG_DIRTY } from '../frame/frame-table.ts'
import { NR_DIRTY, NR_FILE_PAGES, NR_SHMEM } from '../frame/vmstat.ts'
import { T_GOING } from '../sync/threads.ts'
import type { Census } from './check.ts'

export function checkFiles(c: Census): void {
  checkHash(c)
  const { machine } = c
  const { inodes, cache, swap, counters, quotas, vmas } = machine
  const owned = new Int32Array(inodes.capacity + 1)
  for (let slot = 1; slot <= swap.nrSlots; slot++) if (swap.ownerInode[slot] !== 0) owned[swap.ownerInode[slot]]++
  const inodeRefs = checkOpenFiles(c)
  const going = goingInodes(c)
  const quotaUse = new Int32Array(quotas.length >>> 1)
  let nrPages = 0
  let nrDirty = 0
  let nrShmem = 0
  for (let inode = 1; inode <= inodes.capacity; inode++) {
    const kind = inodes.kind[inode]
    const name = `inode ${inode}`
    if (kind === 0) {
      const empty =
        cache.own.count(inode * 2 + CLEAN) + cache.own.count(inode * 2 + DIRTY) + vmas.imapCount[inode] === 0
      c.expect(empty && owned[inode] === 0 && inodeRefs[inode] === 0, () => `${name} is free but has pages or users`)
      continue
    }
    c.equal(inodes.refs[inode], inodeRefs[inode], `references to ${name}`)
    c.expect((inodes.refs[inode] === 0) === going.has(inode), () => `${name} is going or should`)
    const hasStore = inodes.store(inode) !== undefined || inodes.pager[inode] !== 0
    c.expect((kind === INODE_STORE) === hasStore, () => `${name} has a store or should`)
    c.equal(inodes.nrFilling(inode), c.filling.get(inode) ?? 0, `pages on their way of ${name}`)
    const clean = checkOwnList(c, inode, CLEAN)
    const dirty = checkOwnList(c, inode, DIRTY)
    // On its way from a swap slot, which counts until it is there.
    const held = clean + dirty - inodes.nrFilling(inode)
    nrPages += clean + dirty
    nrDirty += dirty
    if (kind === INODE_STORE) continue
    nrShmem += held
    c.equal(inodes.nrHeld[inode], held + owned[inode], `pages held by ${name}`)
    c.expect(owned[inode] === 0 || kind !== INODE_RAMFS, () => `${name} never leaves RAM but has swap slots`)
    quotaUse[inodes.quota[inode]] += inodes.nrHeld[inode]
  }
  for (let q = 1; q < quotaUse.length; q++) c.equal(quotas[q * 2 + 1], quotaUse[q], `pages of quota ${q}`)
  c.equal(counters.total(NR_FILE_PAGES), nrPages, 'file pages')
  c.equal(counters.total(NR_DIRTY), nrDirty, 'dirty pages')
  c.equal(counters.total(NR_SHMEM), nrShmem, 'shared-memory pages')
}

/** Those that some thread is to write, close and free. */
function goingInodes(c: Census): Set<number> {
  const { inodes, sync } = c.machine
  const going = new Set<number>()
  for (let t = 0; t < sync.threads.maxThreads; t++) {
    let inode = sync.threads.w[sync.threads.at(t, T_GOING)]
    while (inode !== 0 && !going.has(inode)) {
      c.equal(Math.abs(inodes.going[inode]), t + 1, `thread to see to inode ${inode}`)
      going.add(inode)
      inode = inodes.goingNext[inode]
    }
  }
  return going
}

/** Every cached frame is found under its key, and the chains hold nothing else. */
function checkHash(c: Census): void {
  const { cache, frames, ram, swap, inodes } = c.machine
  let nrCached = 0
  for (let f = 1; f < ram.nrFrames; f++) {
    if ((frames.row(f, F_FLAGS) & PG_CACHED) === 0) continue
    nrCached++
    const inode = frames.row(f, F_MAPPING)
    const index = frames.row(f, F_INDEX)
    const anon = (frames.row(f, F_FLAGS) & PG_ANON) !== 0
    c.expect(anon === (inode === 0), () => `frame ${f} is cached as page ${index} of inode ${inode}`)
    if (inode === 0) {
      c.expect(
        index > 0 && index <= swap.nrSlots && !swap.isFree(index),
        () => `frame ${f} has free swap slot ${index}`
      )
    } else {
      const known = inode > 0 && inode <= inodes.capacity && inodes.kind[inode] !== 0
      c.expect(known, () => `frame ${f} is cached for inode ${inode}, which is free`)
      // Shared memory may have been given pages past its end (fallocate with KEEP_SIZE).
      const size = known ? (inodes.isShmem(inode) ? MAX_FILE_PAGES : c.machine.nrFilePages(inode)) : 0
      c.expect(index >= 0 && index < size, () => `frame ${f} is page ${index} of inode ${inode}, which has ${size}`)
    }
    c.expect(cache.lookup(inode, index) === f, () => `frame ${f} is not found as page ${index} of inode ${inode}`)
  }
  let inChains = 0
  for (const first of cache.buckets) {
    for (let f = first; f !== 0; f = frames.row(f, F_CACHE_NEXT)) {
      if (++inChains > ram.nrFrames) {
        c.expect(false, () => 'a chain of the page cache does not end')
        return
      }
      c.expect(
        (frames.row(f, F_FLAGS) & PG_CACHED) !== 0,
        () => `frame ${f} is in a chain of the page cache without saying so`
      )
    }
  }
  c.equal(inChains, nrCached, 'frames in the page cache')
}

function checkOwnList(c: Census, inode: number, which: typeof CLEAN | typeof DIRTY): number {
  const { cache, frames, ram } = c.machine
  const list = inode * 2 + which
  const what = `the ${which === DIRTY ? 'dirty' : 'clean'} list of inode ${inode}`
  let n = 0
  let prev = 0
  for (let f = cache.own.first(list); f !== 0; f = cache.own.next(f)) {
    if (++n > ram.nrFrames) {
      c.expect(false, () => `${what} does not end`)
      return n
    }
    c.expect(cache.own.prev(f) === prev, () => `${what} is not linked both ways at frame ${f}`)
    c.expect(frames.row(f, F_MAPPING) === inode, () => `${what} has frame ${f} of inode ${frames.row(f, F_MAPPING)}`)
    c.expect((frames.row(f, F_FLAGS) & PG_CACHED) !== 0, () => `${what} has frame ${f}, which is not cached`)
    c.expect(((frames.row(f, F_FLAGS) & PG_DIRTY) !== 0) === (which === DIRTY), () => `frame ${f} is on ${what}`)
    prev = f
  }
  c.expect(cache.own.last(list) === prev, () => `${what} has a wrong tail`)
  c.equal(cache.own.count(list), n, `the length of ${what}`)
  return n
}

/** References to open files. → those that they hold to inodes. */
function checkOpenFiles(c: Census): Int32Array {
  const { files, fds, inodes, sync } = c.machine
  const byFd = new Int32Array(files.capacity + 1)
  const inodeRefs = new Int32Array(inodes.capacity + 1)
  for (let fd = 0; fd < fds.length; fd++) if (fds[fd] !== 0) byFd[fds[fd]]++
  for (let file = 1; file <= files.capacity; file++) {
    const inCalls = sync.threads.holdersOfFile(file)
    c.equal(files.refs[file], byFd[file] + c.fileVmas[file] + inCalls, `references to file ${file}`)
    if (files.refs[file] > 0) inodeRefs[files.inode[file]]++
  }
  c.equal(inodeRefs[0], 0, 'open files without an inode')
  return inodeRefs
}

export function checkSwap(c: Census): void {
  const { swap, cache, frames, inodes, sync } = c.machine
  let used = 0
  let nrOwned = 0
  for (let slot = 1; slot <= swap.nrSlots; slot++) {
    const name = `swap slot ${slot}`
    c.equal(swap.count[slot], c.swapEntries[slot], `entries that name ${name}`)
    const owner = swap.ownerInode[slot]
    const cached = cache.lookup(0, slot) !== 0
    const held = swap.count[slot] !== 0 || cached || sync.threads.writesTo(slot)
    c.expect(
      swap.isFree(slot) === (!held && owner === 0),
      () => `${name} is ${swap.isFree(slot) ? 'free but held' : 'leaked'}`
    )
    if (!swap.isFree(slot)) used++
    if (owner === 0) continue
    nrOwned++
    const index = swap.ownerIndex[slot]
    c.expect(!held, () => `${name} has an owner and anonymous users`)
    c.expect(inodes.isShmem(owner), () => `${name} is owned by inode ${owner}, which is no shared memory`)
    c.expect(swap.find(owner, index) === slot, () => `${name} is not found as page ${index} of inode ${owner}`)
    const frame = cache.lookup(owner, index)
    const isInBoth = frame !== 0 && frames.isUptodate(frame)
    c.expect(!isInBoth, () => `page ${index} of inode ${owner} is in memory and in ${name}`)
  }
  c.equal(swap.nrUsed, used, 'swap slots in use')
  c.equal(swap.countHashed(), nrOwned, 'swap slots in the hash')
}
