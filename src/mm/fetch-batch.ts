/**
 * Runs of file pages that wait for one read each: what is asked for joins a run that it follows, or that follows it.
 */

export interface Batch {
  first: number
  pages: number
}

/** Adds pages [first, first + pages) to those that wait, oldest first; no run gets longer than `maxPages`. */
export function enqueue(waiting: Batch[], first: number, pages: number, maxPages: number): void {
  const batch = { first, pages }
  const at = waiting.findIndex(other => join(other, batch, maxPages))
  if (at < 0) {
    waiting.push(batch)
    return
  }
  // What came in between may have closed a gap.
  const next = waiting.findIndex((other, i) => i > at && join(waiting[at], other, maxPages))
  if (next > 0) waiting.splice(next, 1)
}

/** Takes `other` into `batch`, if they are neighbours and not too long together. */
function join(batch: Batch, other: Batch, maxPages: number): boolean {
  const areNeighbours = batch.first + batch.pages === other.first || other.first + other.pages === batch.first
  if (!areNeighbours || batch.pages + other.pages > maxPages) return false
  batch.first = Math.min(batch.first, other.first)
  batch.pages += other.pages
  return true
}
