/** How many pages can stand alone in one mapping, and what it costs to put them there. */
import { inBlocks, type Sample } from './harness.ts'
import { fold } from './random.ts'
import { type Mapping, type Memory, PAGE, type Subject } from './subject.ts'

const SAMPLE_PAGES = 1000
const VECTOR_PAGES = 65_536

/** A memory for `showBackwards`; it should live as long as what is measured, so that its frames are in use already. */
export function memoryForDiscontinuities(subject: Subject): Memory {
  return new subject.Memory({ size: 2 ** 28 })
}

function foldBlock(map: Mapping, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let i = from; i < to; i++) checksum = fold(checksum, map.getUint32(i * PAGE))
  return checksum
}

/**
 * Shows a file of `pages` backwards, page by page, as the C program does, until all is done or a call throws.
 * → pages that stand alone, ns a page, and the checksum of the first ones, which were stamped i+1.
 */
export function showBackwards(memory: Memory, pages: number): { count: number; nsPerPage: number; checksum: number } {
  using shared = memory.shared(pages * PAGE)
  using space = memory.space()
  const map = space.map(shared, { writable: true })
  const sampled = Math.min(SAMPLE_PAGES, pages)
  for (let i = 0; i < sampled; i++) map.setUint32((pages - 1 - i) * PAGE, i + 1)
  const vector = new Int32Array(Math.min(VECTOR_PAGES, pages))
  let count = 0
  let elapsed = 0
  while (count < pages) {
    const length = Math.min(vector.length, pages - count)
    for (let i = 0; i < length; i++) vector[i] = pages - 1 - count - i
    const chunk = length === vector.length ? vector : vector.subarray(0, length)
    const start = performance.now()
    try {
      map.remapPages(count, chunk)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOMEM') break
      throw error
    }
    elapsed += performance.now() - start
    count += length
  }
  const checksum = inBlocks(sampled, map, foldBlock) >>> 0
  return { count, nsPerPage: (elapsed * 1e6) / count, checksum }
}

/**
 * ns a page, as the mean over as many windows as make a million pages: one small one is over too soon for the clock.
 */
export function meanOfDiscontinuities(memory: Memory, pages: number, totalPages = 1_000_000): Sample {
  const repeats = Math.ceil(totalPages / pages)
  let sum = 0
  let checksum = 0
  for (let i = 0; i < repeats; i++) {
    const shown = showBackwards(memory, pages)
    if (shown.count < pages) throw new Error(`only ${shown.count} of ${pages} discontinuities fit`)
    sum += shown.nsPerPage
    checksum = shown.checksum
  }
  return { value: sum / repeats, checksum }
}
