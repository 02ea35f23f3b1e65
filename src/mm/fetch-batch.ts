/** Runs of file pages that wait for one read each: what is asked for joins a run that it follows, or that follows it. */

export interface Batch {
  first: number
  pages: number
}

/** Adds pages [first, first + pages) to those that wait, oldest first; no run gets longer than `maxPages`. */
export function enqueue(waiting: Batch[], first: number, pages: number, maxPages: number): void {
  for (const batch of waiting) {
    if (batch.pages + pages > maxPages) continue
    const follows = batch.first + batch.pages === first
    if (!follows && first + pages !== batch.first) continue
    batch.first = Math.min(batch.first, first)
    batch.pages += pages
    return
  }
  waiting.push({ first, pages })
}
