/**
 * What a store that answers later owes: all that every store does (conformance.ts), and the obligations that come with
 * promises (`src/store/async-store.ts`).
 *
 * Offers `asyncStoreConformance(name, subject)`, called at the top level of a store's own test file. For the second
 * part a subject has `openHeld`: a store on which a read has to wait until the test lets it go.
 */
import { afterEach, describe, expect, test } from 'vitest'
import type { AsyncStore } from '../../src/store/async-store.ts'
import { type AnySubject, expectBytes, laterStoreConformance, pattern } from './conformance.ts'

export interface Held {
  readonly store: AsyncStore
  /** Resolves when a read has got as far as it can. */
  readonly asked: Promise<void>
  /** Lets all reads go on, those to come as well. */
  release(): void
}

export interface AsyncStoreSubject extends Omit<AnySubject, 'openAgain' | 'reopen'> {
  open?(): AsyncStore | Promise<AsyncStore>
  openReadOnly?(contents: Uint8Array): AsyncStore | Promise<AsyncStore>
  openAgain?(store: AsyncStore): AsyncStore | Promise<AsyncStore>
  reopen?(store: AsyncStore): AsyncStore | Promise<AsyncStore>
  /** A store that holds `contents`. */
  openHeld(contents: Uint8Array): Held | Promise<Held>
}

export function asyncStoreConformance(name: string, subject: AsyncStoreSubject): void {
  laterStoreConformance(name, subject)

  const opened: Held[] = []
  const open = async (contents: Uint8Array): Promise<Held> => {
    const held = await subject.openHeld(contents)
    opened.push(held)
    return held
  }

  afterEach(async () => {
    for (const { store, release } of opened.splice(0)) {
      release()
      await store.close()
    }
  })

  describe(`${name} keeps the contract of a store that answers later`, () => {
    test('a call that is given up rejects with the reason, and leaves the buffer alone from then on', async () => {
      const { store, asked, release } = await open(pattern(1000))
      const giveUp = new AbortController()
      const buffer = new Uint8Array(1000)
      const reading = store.read(0, buffer, 0, 1000, giveUp.signal)
      await asked
      const reason = new Error('given up')
      giveUp.abort(reason)
      await expect(reading).rejects.toBe(reason)
      buffer.fill(7)
      release()
      const other = new Uint8Array(1000)
      expect(await store.read(0, other, 0, 1000)).toBe(1000)
      expectBytes(other, pattern(1000))
      expectBytes(buffer, new Uint8Array(1000).fill(7))
    })

    test('a signal that was aborted before is obeyed; one that is aborted after changes nothing', async () => {
      const { store, release } = await open(pattern(100))
      release()
      const buffer = new Uint8Array(100)
      await expect(store.read(0, buffer, 0, 100, AbortSignal.abort('before'))).rejects.toBe('before')
      await expect(store.size(AbortSignal.abort('before'))).rejects.toBe('before')
      expectBytes(buffer, new Uint8Array(100))
      const giveUp = new AbortController()
      expect(await store.read(0, buffer, 0, 100, giveUp.signal)).toBe(100)
      giveUp.abort()
      expectBytes(buffer, pattern(100))
    })

    test('one call given up does not take the others with it', async () => {
      const { store, asked, release } = await open(pattern(1000))
      const giveUp = new AbortController()
      const buffers = [0, 1, 2].map(() => new Uint8Array(300))
      const reads = buffers.map((buffer, i) => store.read(i * 300, buffer, 0, 300, i === 1 ? giveUp.signal : undefined))
      const refused = expect(reads[1]).rejects.toBe('one')
      await asked
      giveUp.abort('one')
      await refused
      release()
      expect([await reads[0], await reads[2]]).toEqual([300, 300])
      expectBytes(buffers[0], pattern(1000).slice(0, 300))
      expectBytes(buffers[2], pattern(1000).slice(600, 900))
    })

    test('calls may overlap, in time and in the bytes they ask for', async () => {
      const { store, release } = await open(pattern(10_000))
      const reads = Array.from({ length: 20 }, async (_, i) => {
        const buffer = new Uint8Array(3000)
        const got = await store.read(i * 450, buffer, 0, 3000)
        expectBytes(buffer.slice(0, got), pattern(10_000).slice(i * 450, i * 450 + 3000))
        return got
      })
      release()
      expect(await Promise.all(reads)).toEqual(Array.from({ length: 20 }, (_, i) => Math.min(3000, 10_000 - i * 450)))
    })

    test('closing does not wait for a call that is under way for ever', async () => {
      const { store, asked } = await open(pattern(100))
      const reading = store.read(0, new Uint8Array(100), 0, 100).then(
        got => got,
        (error: unknown) => error
      )
      await asked
      expect(await store.close()).toBe(0)
      expect(await reading).not.toBe(100)
    })
  })
}
