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

/** What an answer says that its body is: `bytes` in all, of which the first `skip` are none of those asked for. */
export interface Body {
  readonly skip: number
  readonly bytes: number
}

/**
 * Takes what the body has of the bytes behind those that `read` has, and lets go of what follows them. → `whole`, or
 * whether the body was shorter or longer than it should be; what goes beyond is not taken. Rejects when the body breaks
 * off, with what came until then taken and counted.
 */
export async function receive(
  response: Response,
  read: RangeRead,
  { skip, bytes }: Body,
  watch: Watch
): Promise<'whole' | 'short' | 'long'> {
  const wanted = Math.min(bytes - skip, read.length - read.done)
  const end = read.done + wanted
  const goesOn = bytes > skip + wanted
  if (response.body === null) return bytes === 0 ? 'whole' : 'short'
  const reader = response.body.getReader()
  for (let before = skip; ; ) {
    const { done, value } = await reader.read()
    watch.heard()
    if (done) return read.done === end && !goesOn ? 'whole' : 'short'
    const from = Math.min(before, value.length)
    before -= from
    const to = Math.min(value.length, from + end - read.done)
    if (to < value.length && !goesOn) {
      reader.cancel().catch(ignore)
      return 'long'
    }
    const piece = from === 0 && to === value.length ? value : value.subarray(from, to)
    if (piece.length > 0) read.take(piece, read.done)
    read.done += piece.length
    if (goesOn && read.done === end) {
      reader.cancel().catch(ignore)
      return 'whole'
    }
  }
}

/** Lets go of an answer whose body nobody wants. */
export function discard(response: Response): void {
  response.body?.cancel().catch(ignore)
}

function ignore(): void {}
