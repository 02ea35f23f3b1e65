/**
 * A sample file whose pages all differ, and which anyone can tell right from wrong without a copy of it: each page is a
 * sequence of pseudo-random words that its number and its version begin.
 */
import { closeSync, openSync, writeSync } from 'node:fs'

/** Fills `words` with version `version` of page `page`. */
export function fillPage(words: Uint32Array, page: number, version: number): void {
  let x = firstWord(page, version)
  for (let i = 0; i < words.length; i++) {
    words[i] = x
    x = nextWord(x)
  }
}

/** Whether `bytes` are version `version` of page `page`. */
export function isPage(bytes: Uint8Array, page: number, version: number): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
  let x = firstWord(page, version)
  for (let i = 0; i < words.length; i++) {
    if (words[i] !== x) return false
    x = nextWord(x)
  }
  return true
}

/** Makes the file, in version 0. `onPages` is told of every so many pages. */
export async function makeSample(
  path: string,
  pages: number,
  pageSize: number,
  onPages: (pages: number) => Promise<void>
): Promise<void> {
  const fd = openSync(path, 'wx')
  try {
    const step = Math.max(1, Math.floor((1 << 20) / pageSize))
    const bytes = new Uint8Array(step * pageSize)
    for (let first = 0; first < pages; first += step) {
      const count = Math.min(step, pages - first)
      for (let i = 0; i < count; i++)
        fillPage(new Uint32Array(bytes.buffer, i * pageSize, pageSize >>> 2), first + i, 0)
      for (let done = 0; done < count * pageSize; ) done += writeSync(fd, bytes, done, count * pageSize - done)
      await onPages(count)
    }
  } finally {
    closeSync(fd)
  }
}

function firstWord(page: number, version: number): number {
  return (Math.imul(page + 1, 0x9e3779b1) ^ Math.imul(version + 1, 0x85ebca6b)) >>> 0
}

function nextWord(x: number): number {
  return (Math.imul(x, 1664525) + 1013904223) >>> 0
}
