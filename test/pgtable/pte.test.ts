/**
 * The entry's word, every kind of it with every combination of its fields: what goes in comes out, and nothing else
 * changes.
 */
import { describe, expect, test } from 'vitest'
import { MAX_FRAMES, PTE_FILE_MAX_PAGES } from '../../src/abi/limits.ts'
import * as p from '../../src/pgtable/pte.ts'

const FRAMES = [0, 1, 0x2aaaa, MAX_FRAMES - 1]
const PROTS = [p.PAGE_PROT_DEFAULT, p.PAGE_PROT_READ, p.PAGE_PROT_WRITE, p.PAGE_PROT_NONE]
const FLAGS = Array.from({ length: 1 << (p.PTE_FRAME_SHIFT - 1) }, (_, i) => i << 1)

/** What every kind of entry answers to. */
function kind(pte: number): Record<string, unknown> {
  return {
    present: p.ptePresent(pte),
    file: p.pteFile(pte),
    swap: p.pteSwap(pte),
    migration: p.pteMigration(pte),
    maps: p.pteMaps(pte)
  }
}

const NOTHING = { present: false, file: false, swap: false, migration: false, maps: false }

test('an empty entry is nothing, and stays so', () => {
  expect(kind(p.PTE_NONE)).toEqual(NOTHING)
  expect([p.pteSoftDirty(0), p.pteMkSoftDirty(0), p.pteClearSoftDirty(0), p.ptePageProt(0)]).toEqual([0, 0, 0, 0])
})

describe('a present entry', () => {
  const words = FRAMES.flatMap(frame => FLAGS.map(flags => ({ frame, flags, pte: p.mkPte(frame, flags) })))

  test('has its frame and its flags, below 2^30', () => {
    for (const { frame, flags, pte } of words) {
      expect(kind(pte)).toEqual({ ...NOTHING, present: true, maps: true })
      expect([p.pteFrame(pte), p.pteMappedFrame(pte), pte & p.PTE_FLAGS_MASK]).toEqual([frame, frame, flags | 1])
      expect(pte).toBeLessThan(2 ** 30)
    }
  })

  test('soft-dirty is one bit; without it a store must fault', () => {
    for (const { flags, pte } of words) {
      expect(p.pteSoftDirty(pte)).toBe(flags & p.PTE_SOFT_DIRTY)
      expect(p.pteMkSoftDirty(pte)).toBe(pte | p.PTE_SOFT_DIRTY)
      expect(p.pteClearSoftDirty(pte)).toBe(pte & ~(p.PTE_SOFT_DIRTY | p.PTE_WRITE))
    }
  })

  test('a protection of its own is what pageProtFlags put there', () => {
    for (const { flags, pte } of words) {
      const bare = flags & ~(p.PTE_READ | p.PTE_PAGE_PROT | p.PTE_PAGE_PROT_WRITE)
      if (bare !== flags) continue
      for (const prot of PROTS) {
        const word = pte | p.pageProtFlags(prot)
        expect(p.ptePageProt(word)).toBe(prot)
        expect((word & p.PTE_READ) !== 0).toBe(prot === p.PAGE_PROT_READ || prot === p.PAGE_PROT_WRITE)
        if (prot === p.PAGE_PROT_DEFAULT) expect(p.ptePageProt(word | p.PTE_READ)).toBe(prot)
      }
    }
  })

  test('goes to another frame and keeps what it allowed', () => {
    for (const { frame, flags, pte } of words) {
      const away = p.mkMigrationPte(pte)
      expect(kind(away)).toEqual({ ...NOTHING, migration: true, maps: true })
      expect([p.pteSwapOffset(away), p.pteMappedFrame(away)]).toEqual([frame, frame])
      expect(p.pteSoftDirty(away)).toBe(p.pteSoftDirty(pte))
      expect(p.ptePageProt(away)).toBe(p.ptePageProt(pte))
      const kept = p.PTE_READ | p.PTE_WRITE | p.PTE_SOFT_DIRTY | p.PTE_PAGE_PROT | p.PTE_PAGE_PROT_WRITE
      const dirty = (flags & p.PTE_WRITE) === 0 ? 0 : p.PTE_DIRTY
      expect(p.pteFromMigration(away, 77)).toBe(p.mkPte(77, (flags & kept) | dirty))
    }
  })
})

describe('a file entry', () => {
  const pages = [0, 1, 12345, PTE_FILE_MAX_PAGES - 2]
  const words = pages.flatMap(pgoff =>
    PROTS.flatMap(prot =>
      [0, 1, p.PTE_SOFT_DIRTY].map(soft => ({ pgoff, prot, soft, pte: p.pgoffToPte(pgoff, prot, soft) }))
    )
  )

  test('has its page and its protection', () => {
    for (const { pgoff, prot, pte } of words) {
      expect(kind(pte)).toEqual({ ...NOTHING, file: true })
      expect([p.pteToPgoff(pte), p.ptePageProt(pte)]).toEqual([pgoff, prot])
    }
  })

  test('is soft-dirty as it was made; always without any right', () => {
    for (const { pgoff, prot, soft, pte } of words) {
      const always = prot === p.PAGE_PROT_NONE
      expect(p.pteSoftDirty(pte)).toBe(always || soft !== 0 ? p.PTE_SOFT_DIRTY : 0)
      expect(p.pteMkSoftDirty(pte)).toBe(p.pgoffToPte(pgoff, prot, 1))
      expect(p.pteClearSoftDirty(pte)).toBe(p.pgoffToPte(pgoff, prot, 0))
    }
  })
})

test('a swap entry has its slot and soft-dirty', () => {
  for (const slot of [1, 2, 4711, MAX_FRAMES - 1]) {
    for (const soft of [0, 1, p.PTE_SOFT_DIRTY]) {
      const pte = p.mkSwapPte(slot, soft)
      expect(kind(pte)).toEqual({ ...NOTHING, swap: true })
      expect([p.pteSwapOffset(pte), p.ptePageProt(pte)]).toEqual([slot, p.PAGE_PROT_DEFAULT])
      expect(p.pteSoftDirty(pte)).toBe(soft === 0 ? 0 : p.PTE_SOFT_DIRTY)
      expect(p.pteMkSoftDirty(pte)).toBe(p.mkSwapPte(slot, 1))
      expect(p.pteClearSoftDirty(pte)).toBe(p.mkSwapPte(slot, 0))
    }
  }
})

test('a migration entry has soft-dirty set and cleared as the others have', () => {
  for (const flags of FLAGS) {
    const away = p.mkMigrationPte(p.mkPte(9, flags))
    expect(p.pteMkSoftDirty(away)).toBe(p.mkMigrationPte(p.mkPte(9, flags | p.PTE_SOFT_DIRTY)))
    expect(p.pteClearSoftDirty(away)).toBe(p.mkMigrationPte(p.mkPte(9, flags & ~(p.PTE_SOFT_DIRTY | p.PTE_WRITE))))
  }
})
