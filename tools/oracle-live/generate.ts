/**
 * Programs by chance: files, mappings of them within a small window, and operations where something was mapped.
 *
 * A program depends on the seed alone: not on what the operations before did. Where things are is remembered roughly.
 * What one process in one arena cannot show is not made: fork, limits, reclaim. Neither is what would harm the process
 * that runs it (mlockall) or what depends on chance there (MADV_FREE).
 */
import { Prng } from '../fuzz/prng.ts'
import type { Program } from './judge.ts'
import type { Step } from './kernel-ops.ts'

type Args = Step['args']

interface Zone {
  readonly at: number
  readonly len: number
}

/** Pages. */
const WINDOW = 64
const MAX_FILE = 24
const FIRST_VALUE = 1001

const WEIGHTS: Readonly<Record<string, number>> = {
  mmap: 14,
  remap: 30,
  read: 10,
  write: 16,
  scan: 8,
  fill: 6,
  truncate: 7,
  punch: 5,
  falloc: 6,
  pwrite: 6,
  pread: 2,
  fdump: 3,
  stat: 3,
  fsync: 1,
  munmap: 4,
  mprotect: 8,
  madvise: 10,
  msync: 4,
  mremap: 9,
  mlock: 4,
  munlock: 3,
  munlockall: 1,
  mincore: 4,
  maps: 2,
  rss: 2,
  memread: 4,
  memwrite: 4,
  copyin: 4,
  copyout: 4
}

export function generate(seed: number, nrOps: number, kernel: string): Program {
  const rng = new Prng(seed)
  const generator = new Generator(rng)
  const steps = generator.files()
  while (steps.length < nrOps) steps.push(generator.next())
  steps.push(...generator.last())
  const policy = rng.oneIn(2) ? ({ policy: 'nonlinear' } as const) : {}
  const header = { script: `live-${seed}`, purpose: 'random program', kernel, seed, fa: rng.pick([1, 16]), ...policy }
  return { header, steps }
}

class Generator {
  readonly #rng: Prng
  readonly #names: string[] = []
  readonly #zones: Zone[] = []
  #nrFiles = 0
  #nrAnonymous = 0
  #value = FIRST_VALUE

  /** First page of the window: at the arena's start, or across the end of a page table. */
  readonly #base: number

  /** Each program prefers some operations, so that programs differ in more than order. */
  constructor(rng: Prng) {
    this.#rng = rng
    this.#base = rng.pick([0, 0, 512 - 32, 1024 - 20])
    for (const [name, weight] of Object.entries(WEIGHTS)) {
      const times = Math.ceil(weight * rng.pick([0.2, 1, 1, 1, 3]))
      for (let i = 0; i < times; i++) this.#names.push(name)
    }
  }

  files(): Step[] {
    const rng = this.#rng
    this.#nrFiles = rng.between(1, 3)
    return Array.from({ length: this.#nrFiles }, (_, i) => {
      const pages = rng.between(1, MAX_FILE)
      const args: Record<string, unknown> = { id: i + 1, kind: rng.oneIn(3) ? 'disk' : 'shmem', pages }
      const content = rng.pick(['all', 'all', 'some', 'holes'])
      if (content === 'holes') args.holes = true
      if (content === 'some') args.data = Array.from({ length: pages }, (_, page) => page).filter(() => rng.oneIn(2))
      if (rng.oneIn(4)) args.size = `${rng.below(pages)}+${rng.between(1, 4095)}`
      return { op: 'file', args }
    })
  }

  next(): Step {
    const op = this.#zones.length === 0 ? 'mmap' : this.#rng.pick(this.#names)
    return { op, args: this.#args(op) }
  }

  /** Everything that can be seen. */
  last(): Step[] {
    const steps: Step[] = [
      { op: 'maps', args: {} },
      { op: 'rss', args: {} }
    ]
    for (const off of [0, 4092]) steps.push({ op: 'scan', args: { at: this.#base, pages: WINDOW, off } })
    for (let file = 1; file <= this.#nrFiles; file++) {
      for (const off of [0, 4092]) steps.push({ op: 'fdump', args: { file, off } })
      steps.push({ op: 'stat', args: { file } })
    }
    return steps
  }

  get #end(): number {
    return this.#base + WINDOW
  }

  #args(op: string): Args {
    const rng = this.#rng
    switch (op) {
      case 'mmap':
        return this.#mmap()
      case 'remap':
        return this.#remap()
      case 'mremap':
        return this.#mremap()
      case 'read':
      case 'memread':
        return { at: this.#word() }
      case 'write':
      case 'memwrite':
        return { at: this.#word(), value: this.#newValue(1) }
      case 'scan':
      case 'fill': {
        const { at, len } = this.#part()
        const off = rng.oneIn(3) ? { off: rng.pick([4, 2048, 4092]) } : {}
        return { at, pages: len, ...off, ...(op === 'fill' ? { value: this.#newValue(len) } : {}) }
      }
      case 'copyin':
      case 'copyout': {
        const { at, len } = this.#part()
        const file = rng.between(1, this.#nrFiles)
        return { at: this.#wordOf(at), len: this.#bytes(Math.min(len, 4)), file, off: this.#bytes(rng.below(MAX_FILE)) }
      }
      case 'munlockall':
      case 'maps':
      case 'rss':
        return {}
      default:
        return op in FILE_OPS ? this.#fileOp(op) : this.#ranged(op)
    }
  }

  #fileOp(op: string): Args {
    const rng = this.#rng
    const file = rng.between(1, this.#nrFiles)
    switch (op) {
      case 'truncate':
        return { file, size: this.#bytes(rng.below(MAX_FILE + 1)) }
      case 'punch':
        return { file, off: this.#bytes(rng.below(MAX_FILE)), len: this.#bytes(rng.between(1, 8)) }
      case 'falloc': {
        const off = this.#bytes(rng.below(MAX_FILE))
        return { file, mode: rng.pick([0, 0, 1, 0x10, 0x11]), off, len: this.#bytes(rng.between(1, 8)) }
      }
      case 'pread':
        return { file, off: this.#wordOf(rng.below(MAX_FILE)) }
      case 'pwrite':
        return { file, off: this.#wordOf(rng.below(MAX_FILE)), value: this.#newValue(1) }
      default:
        return { file }
    }
  }

  #ranged(op: string): Args {
    const rng = this.#rng
    const part = this.#part()
    const at = rng.oneIn(40) ? `${part.at}+${rng.pick([1, 8, 2048])}` : part.at
    const len = rng.oneIn(20) ? this.#bytes(part.len) : rng.oneIn(60) ? 0 : part.len
    const range = { at, len }
    switch (op) {
      case 'mprotect':
        return { ...range, prot: rng.pick(['', 'r', 'r', 'rw', 'rw', 'rw', 'rwx']) }
      case 'msync':
        return { ...range, flags: rng.pick(['MS_SYNC', 'MS_SYNC', 'MS_ASYNC', 'MS_INVALIDATE', 5, 8]) }
      case 'madvise':
        return { ...range, advice: rng.pick(ADVICE) }
      default:
        return range
    }
  }

  #mmap(): Args {
    const rng = this.#rng
    const at = this.#base + rng.below(WINDOW)
    const len = Math.min(this.#end - at, rng.between(1, 20))
    this.#zones.push({ at, len })
    if (this.#zones.length > 8) this.#zones.shift()
    const flags = [rng.oneIn(4) ? 'PRIVATE' : 'SHARED']
    if (rng.oneIn(5)) flags.push('POPULATE')
    if (rng.oneIn(12)) flags.push('LOCKED')
    if (rng.oneIn(15)) flags.push('FIXED_NOREPLACE')
    const prot = rng.pick(['', 'r', 'rw', 'rw', 'rw', 'rw'])
    const args = { at, len, prot, flags: flags.join('|') }
    if (rng.oneIn(7)) return { ...args, anon: `anonymous ${++this.#nrAnonymous}` }
    // What grows, or has huge pages, is no file.
    if (rng.oneIn(30)) args.flags += rng.pick(['|GROWSDOWN', '|HUGETLB'])
    const open = rng.oneIn(8) ? { open: rng.pick(['r', 'r', 'w']) } : {}
    const reopen = rng.oneIn(8) ? { reopen: true } : {}
    return { ...args, file: rng.between(1, this.#nrFiles), pgoff: rng.below(MAX_FILE), ...open, ...reopen }
  }

  #remap(): Args {
    const rng = this.#rng
    const { at, len } = this.#part()
    const args = {
      at: rng.oneIn(30) ? `${at}+8` : at,
      size: rng.oneIn(30) ? this.#bytes(len) : rng.oneIn(60) ? 0 : len,
      pgoff: rng.below(MAX_FILE + 2)
    }
    const prot = rng.oneIn(40) ? { prot: rng.pick([1, 3]) } : {}
    return { ...args, ...prot, ...(rng.oneIn(2) ? { flags: 'NONBLOCK' } : {}) }
  }

  #mremap(): Args {
    const rng = this.#rng
    const { at, len } = this.#part()
    const old = rng.oneIn(20) ? 0 : len
    const wanted = rng.oneIn(2) ? len : rng.between(1, 12)
    if (rng.oneIn(3)) return { at, old, new: Math.min(wanted, this.#end - at), flags: 0 }
    const to = this.#base + rng.below(WINDOW)
    const size = Math.min(wanted, this.#end - to)
    this.#zones.push({ at: to, len: size })
    const keep = rng.oneIn(8) ? '|MREMAP_DONTUNMAP' : ''
    return { at, old, new: size, flags: rng.oneIn(30) ? 'MREMAP_FIXED' : `MREMAP_MAYMOVE|MREMAP_FIXED${keep}`, to }
  }

  /** A part of the window, mostly of what was mapped. */
  #part(): Zone {
    const rng = this.#rng
    const zone = rng.oneIn(10) ? { at: this.#base, len: WINDOW } : rng.pick(this.#zones)
    const at = zone.at + rng.below(zone.len)
    const room = rng.oneIn(10) ? this.#end - at : zone.at + zone.len - at
    return { at, len: Math.min(room, rng.oneIn(2) ? 1 : rng.between(1, 12)) }
  }

  #word(): string | number {
    return this.#wordOf(this.#part().at)
  }

  #wordOf(page: number): string | number {
    return this.#rng.oneIn(3) ? `${page}+${this.#rng.pick([4, 2048, 4092])}` : page
  }

  /** About so many pages. */
  #bytes(pages: number): string | number {
    const rng = this.#rng
    if (pages > 0 && rng.oneIn(6)) return `${pages}-${rng.pick([1, 4, 100, 4092])}`
    return rng.oneIn(4) ? `${pages}+${rng.pick([1, 4, 100, 4092])}` : pages
  }

  #newValue(n: number): number {
    const value = this.#value
    this.#value += n
    return value
  }
}

const FILE_OPS = {
  truncate: true,
  punch: true,
  falloc: true,
  pread: true,
  pwrite: true,
  fdump: true,
  stat: true,
  fsync: true
}

const ADVICE = [
  'NORMAL',
  'RANDOM',
  'WILLNEED',
  'WILLNEED',
  'DONTNEED',
  'DONTNEED',
  'DONTNEED',
  'DONTNEED',
  'REMOVE',
  'REMOVE',
  'POPULATE_READ',
  'POPULATE_WRITE',
  'WIPEONFORK',
  'KEEPONFORK',
  'COLD',
  'PAGEOUT',
  'PAGEOUT',
  'DONTNEED_LOCKED',
  'DONTNEED_LOCKED',
  99
]
