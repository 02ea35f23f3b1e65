/**
 * The page-table entry: one int32 word, and the only file that knows its bits.
 *
 * none      the whole word is 0: the linear place
 *
 * present   31 30 | 29 .................. 8 | 7     6    5     4     3     2     1    0
 *            0  0 | frame (22 bits)         | PPW   PP   SOFT  DIRTY YOUNG WRITE READ 1
 *
 *           READ   the entry allows reading (PROT_NONE entries lack it)
 *           WRITE  a store needs no fault: the page is known to be dirty and, if private, ours alone
 *           YOUNG  used since reclaim last looked         DIRTY  stored to through this entry
 *           SOFT   soft-dirty, for /proc's clear_refs     PP     the page has a protection of its own,
 *           PPW    and it allows writing (READ says whether it allows reading)
 *
 * file      31 ................................. 4 | 3 .. 1 | 0
 *           pgoff (28 bits)                        | tag    | 0
 *
 *           tag 2 default protection (the vma's)   tag 3 the same, soft-dirty
 *           tag 4 own protection: read             tag 5 the same, soft-dirty
 *           tag 6 own protection: read and write   tag 7 the same, soft-dirty
 *           tag 0 own protection: none; pgoff + 1 in the upper bits, so that the word is not 0;
 *                 counts as soft-dirty always (three bits have eight values, and swap takes the ninth meaning)
 *
 * swap      31   30 | 29 ............ 8 | 7  6 | 5        4    | 3 .. 1 | 0
 *           PPW  PP | slot or frame     | R  W | MIGRATE  SOFT | tag 1  | 0
 *
 *           MIGRATE  not in swap: the page in that frame is being moved; R, W, PP and PPW keep what the entry allowed
 *
 * A present entry is below 2^30, so the hot path stays within V8's small integers also with compressed pointers.
 * A file entry uses all 32 bits: 28 bits of pgoff (PTE_FILE_MAX_BITS), its soft-dirty bit and its protection.
 * Words are signed; `>>>` extracts.
 */
export const PTE_NONE = 0 as const

export const PTE_PRESENT = 1 as const
export const PTE_READ = 2 as const
export const PTE_WRITE = 4 as const
export const PTE_YOUNG = 8 as const
export const PTE_DIRTY = 0x10 as const
export const PTE_SOFT_DIRTY = 0x20 as const
export const PTE_PAGE_PROT = 0x40 as const
export const PTE_PAGE_PROT_WRITE = 0x80 as const
export const PTE_FRAME_SHIFT = 8 as const
/** All of a present entry but its frame. */
export const PTE_FLAGS_MASK: number = (1 << PTE_FRAME_SHIFT) - 1

/** A load needs no fault when all of these are set. */
export const PTE_READ_HIT: number = PTE_PRESENT | PTE_READ | PTE_YOUNG
/** A store needs no fault when all of these are set. */
export const PTE_WRITE_HIT: number = PTE_PRESENT | PTE_WRITE | PTE_YOUNG

const TAG_MASK = 0xf
const TAG_SWAP = 2
const TAG_FILE = 4
const TAG_SOFT = 2
const FILE_SHIFT = 4

const SWAP_SOFT = 0x10
const SWAP_MIGRATE = 0x20
const SWAP_WRITE = 0x40
const SWAP_READ = 0x80
const SWAP_SHIFT = 8
const SWAP_OFFSET_MASK = 0x3fffff
/** From PTE_PAGE_PROT and PTE_PAGE_PROT_WRITE to bits 30 and 31. */
const SWAP_PROT_SHIFT = 24

/** The protection that an entry carries. DEFAULT is the vma's. */
export const PAGE_PROT_DEFAULT = 0 as const
export const PAGE_PROT_READ = 1 as const
export const PAGE_PROT_WRITE = 2 as const
export const PAGE_PROT_NONE = 3 as const

export function ptePresent(pte: number): boolean {
  return (pte & PTE_PRESENT) !== 0
}

export function mkPte(frame: number, flags: number): number {
  return (frame << PTE_FRAME_SHIFT) | PTE_PRESENT | flags
}

/** A present entry with another frame. */
export function pteWithFrame(pte: number, frame: number): number {
  return (frame << PTE_FRAME_SHIFT) | (pte & PTE_FLAGS_MASK)
}

/** The frame of a present entry. */
export function pteFrame(pte: number): number {
  return pte >>> PTE_FRAME_SHIFT
}

export function pteFile(pte: number): boolean {
  return (pte & PTE_PRESENT) === 0 && pte !== 0 && (pte & TAG_MASK) !== TAG_SWAP
}

/** The file page that a file entry remembers. */
export function pteToPgoff(pte: number): number {
  const upper = pte >>> FILE_SHIFT
  return (pte & TAG_MASK) === 0 ? upper - 1 : upper
}

/** A file entry. `prot` is one of PAGE_PROT_*, `soft` 0 or any other value for soft-dirty. */
export function pgoffToPte(pgoff: number, prot: number, soft: number): number {
  if (prot === PAGE_PROT_NONE) return (pgoff + 1) << FILE_SHIFT
  return (pgoff << FILE_SHIFT) | (TAG_FILE + (prot << 2)) | (soft === 0 ? 0 : TAG_SOFT)
}

/** True for a swapped-out page or a migration entry. */
export function pteSwap(pte: number): boolean {
  return (pte & TAG_MASK) === TAG_SWAP && (pte & SWAP_MIGRATE) === 0
}

export function pteMigration(pte: number): boolean {
  return (pte & TAG_MASK) === TAG_SWAP && (pte & SWAP_MIGRATE) !== 0
}

/** The slot of a swap entry, the frame of a migration entry. */
export function pteSwapOffset(pte: number): number {
  return (pte >>> SWAP_SHIFT) & SWAP_OFFSET_MASK
}

export function mkSwapPte(slot: number, soft: number): number {
  return (slot << SWAP_SHIFT) | TAG_SWAP | (soft === 0 ? 0 : SWAP_SOFT)
}

/** The migration entry that stands for a present one while its page moves. YOUNG and DIRTY are not kept. */
export function mkMigrationPte(pte: number): number {
  const soft = (pte & PTE_SOFT_DIRTY) === 0 ? 0 : SWAP_SOFT
  const write = (pte & PTE_WRITE) === 0 ? 0 : SWAP_WRITE
  const read = (pte & PTE_READ) === 0 ? 0 : SWAP_READ
  const prot = (pte & (PTE_PAGE_PROT | PTE_PAGE_PROT_WRITE)) << SWAP_PROT_SHIFT
  return ((pte >>> PTE_FRAME_SHIFT) << SWAP_SHIFT) | TAG_SWAP | SWAP_MIGRATE | soft | write | read | prot
}

/** The present entry that a migration entry stood for, now of `frame`. */
export function pteFromMigration(pte: number, frame: number): number {
  const soft = (pte & SWAP_SOFT) === 0 ? 0 : PTE_SOFT_DIRTY
  const write = (pte & SWAP_WRITE) === 0 ? 0 : PTE_WRITE | PTE_DIRTY
  const read = (pte & SWAP_READ) === 0 ? 0 : PTE_READ
  const prot = (pte >>> SWAP_PROT_SHIFT) & (PTE_PAGE_PROT | PTE_PAGE_PROT_WRITE)
  return mkPte(frame, soft | write | read | prot)
}

/** True for an entry that counts as mapping a frame: present, or with its page on the way to another frame. */
export function pteMaps(pte: number): boolean {
  return (pte & PTE_PRESENT) !== 0 || pteMigration(pte)
}

/** The frame of an entry that maps one. */
export function pteMappedFrame(pte: number): number {
  return (pte & PTE_PRESENT) !== 0 ? pteFrame(pte) : pteSwapOffset(pte)
}

/** Soft-dirty of any entry, as 0 or PTE_SOFT_DIRTY. */
export function pteSoftDirty(pte: number): number {
  if ((pte & PTE_PRESENT) !== 0) return pte & PTE_SOFT_DIRTY
  if (pte === 0) return 0
  const tag = pte & TAG_MASK
  if (tag === TAG_SWAP) return (pte & SWAP_SOFT) === 0 ? 0 : PTE_SOFT_DIRTY
  return tag === 0 || (tag & TAG_SOFT) !== 0 ? PTE_SOFT_DIRTY : 0
}

/** The entry with soft-dirty set. */
export function pteMkSoftDirty(pte: number): number {
  if ((pte & PTE_PRESENT) !== 0) return pte | PTE_SOFT_DIRTY
  if (pte === 0 || (pte & TAG_MASK) === 0) return pte
  return (pte & TAG_MASK) === TAG_SWAP ? pte | SWAP_SOFT : pte | TAG_SOFT
}

/**
 * The entry with soft-dirty cleared; one that maps a page, be it on its way to another frame, also loses WRITE, so that
 * the next store sets it again.
 */
export function pteClearSoftDirty(pte: number): number {
  if ((pte & PTE_PRESENT) !== 0) return pte & ~(PTE_SOFT_DIRTY | PTE_WRITE)
  if (pte === 0 || (pte & TAG_MASK) === 0) return pte
  if ((pte & TAG_MASK) !== TAG_SWAP) return pte & ~TAG_SOFT
  return (pte & SWAP_MIGRATE) === 0 ? pte & ~SWAP_SOFT : pte & ~(SWAP_SOFT | SWAP_WRITE)
}

/** The protection that an entry carries: PAGE_PROT_DEFAULT unless it is a file or present entry with its own. */
export function ptePageProt(pte: number): number {
  if ((pte & PTE_PRESENT) !== 0) {
    if ((pte & PTE_PAGE_PROT) === 0) return PAGE_PROT_DEFAULT
    if ((pte & PTE_READ) === 0) return PAGE_PROT_NONE
    return (pte & PTE_PAGE_PROT_WRITE) === 0 ? PAGE_PROT_READ : PAGE_PROT_WRITE
  }
  if (pteMigration(pte)) return ptePageProt(pteFromMigration(pte, 0))
  const tag = pte & TAG_MASK
  if (pte === 0 || tag === TAG_SWAP) return PAGE_PROT_DEFAULT
  return tag === 0 ? PAGE_PROT_NONE : (tag - TAG_FILE) >>> 2
}

/** The flags of a present entry that carry `prot` (READ is set by the caller for the default). */
export function pageProtFlags(prot: number): number {
  if (prot === PAGE_PROT_DEFAULT) return 0
  if (prot === PAGE_PROT_NONE) return PTE_PAGE_PROT
  return PTE_PAGE_PROT | PTE_READ | (prot === PAGE_PROT_WRITE ? PTE_PAGE_PROT_WRITE : 0)
}
