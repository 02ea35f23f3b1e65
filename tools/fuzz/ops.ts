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
}

export type Op =
  | { readonly op: 'read' | 'punch' | 'zero'; readonly f: number; readonly pos: number; readonly len: number }
  | { readonly op: 'write'; readonly f: number; readonly pos: number; readonly len: number; readonly fill: number }
  | { readonly op: 'truncate'; readonly f: number; readonly size: number }
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
  | { readonly op: 'munmap' | 'mlock' | 'munlock'; readonly s: number; readonly p: number; readonly n: number }
  | { readonly op: 'mapread'; readonly s: number; readonly p: number; readonly off: number; readonly len: number }
  | {
      readonly op: 'mapwrite'
      readonly s: number
      readonly p: number
      readonly off: number
      readonly len: number
      readonly fill: number
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
  | { readonly op: 'madvise'; readonly s: number; readonly p: number; readonly n: number; readonly advice: number }
  | { readonly op: 'msync'; readonly s: number; readonly p: number; readonly n: number; readonly flags: number }
  | { readonly op: 'mprotect'; readonly s: number; readonly p: number; readonly n: number; readonly prot: number }
  | {
      readonly op: 'mremap'
      readonly s: number
      readonly p: number
      readonly n: number
      readonly newn: number
      readonly flags: number
      readonly to: number
    }
  | { readonly op: 'mlockall' | 'munlockall' | 'fork' | 'exit' | 'clearrefs'; readonly s: number }
  /** File and memory, by pread and pwrite with an address. */
  | {
      readonly op: 'readuser' | 'writeuser'
      readonly s: number
      readonly p: number
      readonly off: number
      readonly len: number
      readonly f: number
      readonly pos: number
    }
  /** A secondary MMU reads or writes one byte of a page through its own translations. */
  | { readonly op: 'devread' | 'devwrite'; readonly s: number; readonly p: number; readonly off: number }
  | { readonly op: 'reclaim'; readonly n: number }
  /** The n-th frame allocation of the next operation fails. */
  | { readonly op: 'nomem'; readonly n: number }
  /** The n-th read or write of each store in the next operation fails. */
  | { readonly op: 'ioerror'; readonly read: number; readonly write: number }

export interface FuzzCase {
  readonly config: Config
  readonly ops: readonly Op[]
}
