/** Hands the body of an answer to the reader as it arrives: nothing is kept beside it. */
import type { Watch } from './http-exchange.ts'

/** A read under way: `length` bytes from byte `position`, of which `done` were taken. */
export interface RangeRead {
  readonly position: number
  readonly length: number
  /** Takes the next bytes, which begin `at` bytes into the read. */
  readonly take: (piece: Uint8Array, at: number) => void
  done: number
}

/**
 * Takes `count` bytes of the body behind what `read` has. → whether the body ended there, before, or would have gone on;
 * what goes beyond is not taken. Rejects when the body breaks off, with what came until then taken and counted.
 */
export async function receive(
  response: Response,
  read: RangeRead,
  count: number,
  watch: Watch
): Promise<'whole' | 'short' | 'long'> {
  const end = read.done + count
  if (response.body === null) return count === 0 ? 'whole' : 'short'
  const reader = response.body.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    watch.heard()
    if (done) return read.done === end ? 'whole' : 'short'
    if (value.length > end - read.done) {
      reader.cancel().catch(ignore)
      return 'long'
    }
    read.take(value, read.done)
    read.done += value.length
  }
}

/** Lets go of an answer whose body nobody wants. */
export function discard(response: Response): void {
  response.body?.cancel().catch(ignore)
}

function ignore(): void {}
