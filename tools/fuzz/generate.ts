/** Makes operations by chance: where something is mapped more often than not, and small more often than large. */
import * as abi from '../../src/abi/mman.ts'
import { POLICY_LINUX, POLICY_NONLINEAR } from '../../src/mm/machine.ts'
import type { Arrival, Config, Op, StoreKind } from './ops.ts'
import type { Prng } from './prng.ts'
import { LOW_PAGES, MAX_SPACES, NR_FILES, roomAt, WINDOW_PAGES, type World } from './world.ts'

export interface Choices {
  readonly stores: readonly StoreKind[]
  /** Frames, or 0 for any number. */
  readonly nrFrames: number
}

export function makeConfig(rng: Prng, choices: Choices): Config {
  const pageShift = rng.pick([9, 9, 9, 12])
  const later = rng.oneIn(6)
  const threads = rng.oneIn(4) ? 2 : 1
  const nrFrames = choices.nrFrames > 0 ? choices.nrFrames : rng.pick([16, 20, 24, 32, 32, 48, 64, 1024])
  return {
    store: rng.pick(choices.stores),
    nrFrames,
    pageShift,
    nrSlots: rng.pick([0, 16, 400, 400, 400]),
    policy: rng.oneIn(6) ? POLICY_LINUX : POLICY_NONLINEAR,
    faultAroundPages: rng.pick([1, 4, 16]),
    readaheadPages: rng.pick([0, 2, 8]),
    filePages: rng.pick([6, 24, 40]),
    faults: rng.oneIn(2),
    threads,
    // What a second thread asks of the store that answers later would reach it at any time.
    attached: threads === 2 && !later && rng.oneIn(2) ? 2 : 1,
    later
  }
}

const ADVICE = [
  abi.MADV_NORMAL,
  abi.MADV_RANDOM,
  abi.MADV_SEQUENTIAL,
  abi.MADV_WILLNEED,
  abi.MADV_DONTNEED,
  abi.MADV_DONTNEED,
  abi.MADV_DONTNEED,
  abi.MADV_FREE,
  abi.MADV_FREE,
  abi.MADV_REMOVE,
  abi.MADV_DONTNEED_LOCKED,
  abi.MADV_COLD,
  abi.MADV_PAGEOUT,
  abi.MADV_PAGEOUT,
  abi.MADV_WIPEONFORK,
  abi.MADV_KEEPONFORK,
  abi.MADV_DONTFORK,
  abi.MADV_DOFORK,
  abi.MADV_DONTDUMP,
  abi.MADV_DODUMP,
  abi.MADV_MERGEABLE,
  abi.MADV_UNMERGEABLE,
  abi.MADV_HUGEPAGE,
  abi.MADV_NOHUGEPAGE,
  abi.MADV_POPULATE_READ,
  abi.MADV_POPULATE_WRITE
]

const FALLOC_MODES = [0, 0, abi.FALLOC_FL_KEEP_SIZE, abi.FALLOC_FL_ZERO_RANGE]
const FILE_ADVICE = [0, 1, 2, 3, 4, 4, 4, 5, 6]

/** How often each operation is chosen, for `weigh` to vary. */
const WEIGHTS: readonly (readonly [Op['op'], number])[] = [
  ['mapread', 60],
  ['mapwrite', 60],
  ['remap', 50],
  ['remapv', 20],
  ['mmap', 25],
  ['read', 15],
  ['write', 25],
  ['truncate', 12],
  ['punch', 8],
  ['zero', 3],
  ['falloc', 8],
  ['fadvise', 4],
  ['fsync', 5],
  ['reopen', 2],
  ['munmap', 8],
  ['madvise', 20],
  ['msync', 5],
  ['mprotect', 12],
  ['mremap', 14],
  ['mlock', 5],
  ['munlock', 5],
  ['mlockall', 1],
  ['munlockall', 3],
  ['fork', 5],
  ['exit', 4],
  ['clearrefs', 6],
  ['readuser', 6],
  ['writeuser', 6],
  ['memread', 3],
  ['memwrite', 5],
  ['load', 25],
  ['store', 25],
  ['borrow', 8],
  ['brk', 5],
  ['mincore', 5],
  ['devread', 18],
  ['devwrite', 18],
  ['retable', 1],
  ['migrate', 10],
  ['run', 3],
  ['arrive', 25],
  ['ready', 12],
  ['reclaim', 10],
  ['nomem', 10],
  ['ioerror', 6]
]

export class Generator {
  readonly #rng: Prng
  readonly #config: Config
  readonly #names: Op['op'][] = []
  /**
   * Positions of the window that are used: few of them, and structures that are about to be empty are met more often.
   */
  readonly #places: readonly number[]

  #last: readonly [number, number] = [0, 0]
  /** What comes next, the last one first. */
  readonly #due: Op[] = []

  /** Each run prefers some operations, so that runs differ in more than order. */
  constructor(rng: Prng, config: Config) {
    this.#rng = rng
    this.#config = config
    const all = Array.from({ length: WINDOW_PAGES }, (_, p) => p)
    const first = rng.below(WINDOW_PAGES - 2)
    this.#places = rng.oneIn(4) ? all.slice(first, first + rng.between(1, 3)) : all
    for (const [name, weight] of WEIGHTS) {
      if (!config.faults && (name === 'nomem' || name === 'ioerror')) continue
      if (!config.later && name === 'arrive') continue
      const times = Math.ceil(weight * rng.pick([0.2, 1, 1, 1, 3]))
      for (let i = 0; i < times; i++) this.#names.push(name)
    }
  }

  next(w: World): Op {
    const op = this.#next(w)
    return this.#config.attached === 1 ? op : { ...op, t: this.#rng.below(2) }
  }

  #next(w: World): Op {
    const rng = this.#rng
    const due = this.#due.pop()
    if (due !== undefined) return due
    const name = rng.pick(this.#names)
    switch (name) {
      case 'read':
      case 'write':
      case 'punch':
      case 'zero':
      case 'falloc':
      case 'fadvise':
      case 'truncate':
      case 'fsync':
      case 'reopen':
        return this.#file(name)
      case 'reclaim':
        return { op: name, n: rng.pick([1, 4, 1000]) }
      case 'nomem':
        return { op: name, n: rng.between(1, 6) }
      case 'ioerror':
        return { op: name, read: rng.below(3), write: rng.below(3) }
      case 'run':
        return { op: name, n: rng.between(2, 8) }
      case 'arrive':
        return { op: name, n: rng.pick([1, 1, 2, 9]), how: this.#arrival() }
      default:
        return this.#memory(w, name)
    }
  }

  #file(
    op: Extract<Op['op'], 'read' | 'write' | 'punch' | 'zero' | 'falloc' | 'fadvise' | 'truncate' | 'fsync' | 'reopen'>
  ): Op {
    const rng = this.#rng
    const f = rng.below(NR_FILES)
    const pageSize = 2 ** this.#config.pageShift
    const bytes = this.#config.filePages * pageSize
    if (op === 'fsync' || op === 'reopen') return { op, f }
    if (op === 'truncate') return { op, f, size: this.#position(bytes) }
    const pos = this.#position(bytes - 1)
    const len = Math.min(bytes - pos, rng.oneIn(3) ? rng.between(1, 8) * pageSize : rng.between(1, 3 * pageSize))
    if (op === 'write') return { op, f, pos, len, fill: rng.below(256) }
    if (op === 'falloc') return { op, f, pos, len, mode: rng.pick(FALLOC_MODES) }
    if (op === 'fadvise') return { op, f, pos, len: rng.oneIn(4) ? 0 : len, advice: rng.pick(FILE_ADVICE) }
    return { op, f, pos, len }
  }

  #arrival(): Arrival {
    return this.#rng.pick(['whole', 'whole', 'whole', 'short', 'fails'])
  }

  #position(bytes: number): number {
    const rng = this.#rng
    const pageSize = 2 ** this.#config.pageShift
    return rng.oneIn(2) ? rng.below(Math.floor(bytes / pageSize) + 1) * pageSize : rng.below(bytes + 1)
  }

  #memory(
    w: World,
    op: Exclude<
      Op['op'],
      | 'read'
      | 'write'
      | 'punch'
      | 'zero'
      | 'falloc'
      | 'fadvise'
      | 'truncate'
      | 'fsync'
      | 'reopen'
      | 'reclaim'
      | 'nomem'
      | 'ioerror'
      | 'run'
      | 'arrive'
    >
  ): Op {
    const rng = this.#rng
    const pageSize = 2 ** this.#config.pageShift
    const { filePages } = this.#config
    const [s, p] = this.#where(w)
    const n = this.#count(p)
    const prot = rng.pick([0, 1, 3, 3, 3, 3])
    const own = rng.oneIn(3) ? rng.pick([0, 1, 2, 3]) : -1
    const flags = rng.oneIn(2) ? abi.MAP_NONBLOCK : 0
    switch (op) {
      case 'mmap':
        return this.#mmap(w, s, rng.pick(this.#places))
      case 'memread':
      case 'mapread':
        return { op, s, p, off: this.#offset(), len: rng.between(1, n * pageSize) }
      case 'memwrite':
      case 'mapwrite':
        return { op, s, p, off: this.#offset(), len: rng.between(1, n * pageSize), fill: rng.below(256) }
      case 'remap':
        return { op, s, p, n, pgoff: rng.below(filePages + 2), prot: own, flags }
      case 'remapv':
        return { op, s, p, pgoffs: Array.from({ length: n }, () => rng.below(filePages + 2)), prot: own, flags }
      case 'madvise':
        return this.#madvise(w, s, p, n)
      case 'msync':
        return {
          op,
          s,
          p,
          n,
          flags: rng.pick([abi.MS_SYNC, abi.MS_SYNC, abi.MS_ASYNC, abi.MS_SYNC | abi.MS_INVALIDATE])
        }
      case 'mprotect':
        return { op, s, p, n, prot }
      case 'mremap':
        return this.#mremap(s, p, n)
      case 'readuser':
      case 'writeuser': {
        const len = rng.between(1, Math.min(3, n) * pageSize)
        const pos = Math.min(this.#position(filePages * pageSize), filePages * pageSize - len)
        return { op, s, p, off: this.#offset(), len, f: rng.below(NR_FILES), pos: Math.max(0, pos) }
      }
      case 'devread':
      case 'devwrite':
        return { op, s, p, off: this.#offset(), via: rng.pick(['mirror', 'tlb', 'shadow']) }
      case 'retable':
        return { op, s, p, n: rng.pick([LOW_PAGES, LOW_PAGES, LOW_PAGES - 9, 7]) }
      case 'load':
        return { op, s, p, ...this.#value() }
      case 'store':
        return { op, s, p, ...this.#value(), fill: rng.below(256) }
      case 'borrow':
        return { op, s, p, off: this.#offset(), write: rng.oneIn(2), ops: rng.between(0, 12) }
      case 'fork':
        if (rng.oneIn(2)) this.#lendAfterFork(w, s, p)
        return { op, s }
      case 'migrate':
        return { op, s, p, ops: rng.oneIn(2) ? 0 : rng.between(1, 8) }
      case 'ready':
        return { op, s, p, n: rng.oneIn(2) ? 1 : Math.min(n, 6), how: this.#arrival() }
      case 'brk':
        return { op, s, bytes: rng.pick([0, pageSize, rng.below(7 * pageSize), rng.below(7 * pageSize)]) }
      case 'clearrefs':
        return { op, s, kind: rng.pick([4, 4, 4, 1, 2, 3, 5]) }
      case 'mlock':
        return { op, s, p, n, flags: rng.pick([-1, -1, 0, abi.MLOCK_ONFAULT]) }
      case 'mlockall':
        return { op, s, flags: rng.pick([abi.MCL_CURRENT, abi.MCL_CURRENT, abi.MCL_CURRENT | abi.MCL_ONFAULT]) }
      case 'munmap':
      case 'munlock':
      case 'mincore':
        return { op, s, p, n }
      default:
        return { op, s }
    }
  }

  /** A page that the fork shares is lent by one side, the other one ends or stores; chance seldom meets that. */
  #lendAfterFork(w: World, parent: number, p: number): void {
    const rng = this.#rng
    const child = w.spaces.indexOf(undefined)
    if (child < 0) return
    const [one, other] = rng.oneIn(2) ? [parent, child] : [child, parent]
    const byte = { p, off: this.#offset(), len: 1 }
    this.#due.push({ op: 'store', s: other, ...byte, fill: rng.below(256) })
    if (rng.oneIn(2)) this.#due.push(rng.oneIn(2) ? { op: 'exit', s: one } : { op: 'store', s: one, ...byte, fill: 7 })
    this.#due.push({ op: 'borrow', s: one, p, off: 0, write: false, ops: rng.between(3, 9) })
  }

  /** MADV_FREE is for private anonymous pages that are in memory, which chance seldom meets. */
  #madvise(w: World, s: number, p: number, n: number): Op {
    const rng = this.#rng
    const advice = rng.pick(ADVICE)
    for (let tries = 0; advice === abi.MADV_FREE && tries < 20; tries++) {
      const place = rng.pick(this.#places)
      const page = w.spaces[s]?.pages.get(w.vpnOf(place))
      if (page?.file === null && page.copy !== null) return { op: 'madvise', s, p: place, n: 1, advice }
    }
    return { op: 'madvise', s, p, n, advice }
  }

  /** A value of an accessor: aligned for the most part, else across the border of two pages at times. */
  #value(): { readonly off: number; readonly len: number } {
    const rng = this.#rng
    const pageSize = 2 ** this.#config.pageShift
    const len = rng.pick([1, 2, 4, 8])
    const off = rng.below(pageSize)
    if (rng.oneIn(3)) return { off: pageSize - rng.between(1, Math.max(1, len - 1)), len }
    return { off: rng.oneIn(5) ? off : off - (off % len), len }
  }

  #offset(): number {
    return this.#rng.oneIn(2) ? 0 : this.#rng.below(2 ** this.#config.pageShift)
  }

  #mmap(w: World, s: number, p: number): Op {
    const rng = this.#rng
    // After what the mapping before shows, at times, so that the two may become one.
    const before = w.spaces[s]?.pages.get(w.vpnOf(p) - 1)
    const same = rng.oneIn(4) ? w.files.findIndex(({ model }) => model === before?.file) : -1
    const f = same >= 0 ? same : rng.oneIn(4) ? -1 : rng.below(NR_FILES)
    const n = Math.min(roomAt(p), rng.between(1, this.#places.length < WINDOW_PAGES ? 3 : 24))
    let flags: number = rng.oneIn(3) ? abi.MAP_PRIVATE : abi.MAP_SHARED
    if (rng.oneIn(4)) flags |= abi.MAP_POPULATE
    if (rng.oneIn(12)) flags |= abi.MAP_LOCKED
    if (rng.oneIn(12)) flags |= abi.MAP_FIXED_NOREPLACE
    return {
      op: 'mmap',
      s,
      p,
      n,
      f,
      pgoff: same >= 0 && before !== undefined ? before.linear + 1 : rng.below(this.#config.filePages),
      prot: rng.pick([0, 1, 3, 3, 3, 3]),
      flags
    }
  }

  #mremap(s: number, p: number, n: number): Op {
    const rng = this.#rng
    const flags = rng.pick([
      0,
      abi.MREMAP_MAYMOVE,
      abi.MREMAP_MAYMOVE,
      abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED,
      abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED,
      abi.MREMAP_MAYMOVE | abi.MREMAP_DONTUNMAP,
      abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED | abi.MREMAP_DONTUNMAP
    ])
    const to = rng.pick(this.#places)
    const newn = rng.oneIn(3) ? n : rng.between(1, 12)
    return { op: 'mremap', s, p, n: rng.oneIn(20) ? 0 : n, newn: Math.min(newn, roomAt(to)), flags, to }
  }

  /** A space and a position: those of the last time, at times, so that one page is met by operations of all kinds. */
  #where(w: World): readonly [number, number] {
    const [last] = this.#last
    if (!this.#rng.oneIn(3) || w.spaces[last] === undefined) {
      const s = this.#space(w)
      this.#last = [s, this.#place(w, s)]
    }
    return this.#last
  }

  #space(w: World): number {
    const alive: number[] = []
    for (let s = 0; s < MAX_SPACES; s++) if (w.spaces[s] !== undefined) alive.push(s)
    return this.#rng.pick(alive)
  }

  /** A position of the window, mostly a mapped one. */
  #place(w: World, s: number): number {
    const rng = this.#rng
    for (let tries = 0; tries < 6; tries++) {
      const p = rng.pick(this.#places)
      if (w.spaces[s]?.pages.has(w.vpnOf(p)) === true) return p
    }
    return rng.pick(this.#places)
  }

  #count(p: number): number {
    const rng = this.#rng
    return Math.min(roomAt(p), rng.oneIn(2) ? 1 : rng.oneIn(2) ? rng.between(1, 4) : rng.between(1, 20))
  }
}
