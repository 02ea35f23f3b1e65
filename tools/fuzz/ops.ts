/**
 * The operations of the fuzzer, as plain data: a list of them, with a configuration, is a test that can be replayed.
 *
 * Spaces and files are small indices; pages are positions in the window that `Config` describes, not addresses. An
 * operation whose space or file does not exist at the moment does nothing, so that any sublist of a list is a list.
 */
export type StoreKind = 'shmem' | 'memory' | 'node'

export interface Config {
  readonly store: StoreKind
  readonly nrFrames: number
  readonly pageShift: number
  /** Swap slots, 0 for none. */
  readonly nrSlots: number
  /** POLICY_NONLINEAR or POLICY_LINUX. */
  readonly policy: number
  readonly faultAroundPages: number
  readonly readaheadPages: number
  /** Largest file, in pages. */
  readonly filePages: number
  /** Whether the operations `nomem` and `ioerror` occur. */
  readonly faults: boolean
  /** Threads that the machine is made for, and how many have attached: one thread drives them in turn. */
  readonly threads: 1 | 2
  readonly attached: 1 | 2
  /** The last file's store answers later, and can only be read. */
  readonly later: boolean
}

/** A part of a space's window: `n` pages from position `p`. */
interface Pages {
  readonly s: number
  readonly p: number
  readonly n: number
}

/** `len` bytes of a space's window from byte `off` of position `p`. */
interface Bytes {
  readonly s: number
  readonly p: number
  readonly off: number
  readonly len: number
}

export type Via = 'mirror' | 'tlb' | 'shadow'
export type Arrival = 'whole' | 'short' | 'fails'

/** `t` is the attached thread that does it, 0 where there is none. */
export type Op = AnyOp & { readonly t?: number }

type AnyOp =
  | { readonly op: 'read' | 'punch' | 'zero'; readonly f: number; readonly pos: number; readonly len: number }
  | { readonly op: 'write'; readonly f: number; readonly pos: number; readonly len: number; readonly fill: number }
  | { readonly op: 'truncate'; readonly f: number; readonly size: number }
  /** `mode` is fallocate's; `advice` posix_fadvise's. */
  | { readonly op: 'falloc'; readonly f: number; readonly pos: number; readonly len: number; readonly mode: number }
  | { readonly op: 'fadvise'; readonly f: number; readonly pos: number; readonly len: number; readonly advice: number }
  | { readonly op: 'fsync' | 'reopen'; readonly f: number }
  /** `f` -1 is anonymous memory; `flags` are MAP_SHARED or MAP_PRIVATE and what goes with them. */
  | {
      readonly op: 'mmap'
      readonly s: number
      readonly p: number
      readonly n: number
      readonly f: number
      readonly pgoff: number
      readonly prot: number
      readonly flags: number
    }
  | ({ readonly op: 'munmap' | 'munlock' | 'mincore' } & Pages)
  /** `flags` -1 is mlock, others are mlock2's. */
  | ({ readonly op: 'mlock'; readonly flags: number } & Pages)
  /** Copies; `mem` is /proc/PID/mem, which does not ask the protection. */
  | ({ readonly op: 'mapread' | 'memread' } & Bytes)
  | ({ readonly op: 'mapwrite' | 'memwrite'; readonly fill: number } & Bytes)
  /** An accessor of a mapping loads or stores a value of `len` bytes, 1, 2, 4 or 8. */
  | ({ readonly op: 'load' } & Bytes)
  | ({ readonly op: 'store'; readonly fill: number } & Bytes)
  /**
   * Borrows a page, for up to so many operations; stores a byte through it when it is given back, if it is for writing.
   */
  | {
      readonly op: 'borrow'
      readonly s: number
      readonly p: number
      readonly off: number
      readonly write: boolean
      readonly ops: number
    }
  /** `prot` -1 is none of its own. */
  | {
      readonly op: 'remap'
      readonly s: number
      readonly p: number
      readonly n: number
      readonly pgoff: number
      readonly prot: number
      readonly flags: number
    }
  | {
      readonly op: 'remapv'
      readonly s: number
      readonly p: number
      readonly pgoffs: readonly number[]
      readonly prot: number
      readonly flags: number
    }
  | ({ readonly op: 'madvise'; readonly advice: number } & Pages)
  | ({ readonly op: 'msync'; readonly flags: number } & Pages)
  | ({ readonly op: 'mprotect'; readonly prot: number } & Pages)
  | {
      readonly op: 'mremap'
      readonly s: number
      readonly p: number
      readonly n: number
      readonly newn: number
      readonly flags: number
      readonly to: number
    }
  | { readonly op: 'munlockall' | 'fork' | 'exit'; readonly s: number }
  | { readonly op: 'mlockall'; readonly s: number; readonly flags: number }
  | { readonly op: 'clearrefs'; readonly s: number; readonly kind: number }
  /** The heap is to end so many bytes after its begin. */
  | { readonly op: 'brk'; readonly s: number; readonly bytes: number }
  /** File and memory, by pread and pwrite with an address. */
  | ({ readonly op: 'readuser' | 'writeuser'; readonly f: number; readonly pos: number } & Bytes)
  /** A secondary MMU reads or writes one byte of a page through its own translations. */
  | {
      readonly op: 'devread' | 'devwrite'
      readonly s: number
      readonly p: number
      readonly off: number
      readonly via: Via
    }
  /** The shadow table is closed, and there is another one, of these pages. */
  | ({ readonly op: 'retable' } & Pages)
  | { readonly op: 'reclaim'; readonly n: number }
  /** The page at a position goes to another frame; with `ops` it is on its way for up to so many operations. */
  | { readonly op: 'migrate'; readonly s: number; readonly p: number; readonly ops: number }
  /** So many neighbouring frames are made free, taken, and given back. */
  | { readonly op: 'run'; readonly n: number }
  /** The `n` oldest reads that the store which answers later was asked for come to their end. */
  | { readonly op: 'arrive'; readonly n: number; readonly how: Arrival }
  /** Pages are awaited; `how` is what the first read comes to. */
  | ({ readonly op: 'ready'; readonly how: Arrival } & Pages)
  /** The n-th frame allocation of the next operation fails. */
  | { readonly op: 'nomem'; readonly n: number }
  /** The n-th read or write of each store in the next operation fails. */
  | { readonly op: 'ioerror'; readonly read: number; readonly write: number }

type Having<T, K> = T extends { readonly op: infer O } ? (K extends O ? T & { readonly op: K } : never) : never

/** The operation of a name. */
export type OpOf<K extends Op['op']> = Having<Op, K>

export interface FuzzCase {
  readonly config: Config
  readonly ops: readonly Op[]
}
