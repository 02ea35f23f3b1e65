/**
 * Storms of mmap, munmap, remap and mprotect at fixed places, that all threads read meanwhile and expect to find either
 * what was mapped last or SIGSEGV (after LTP's mmap1 and mtest06).
 *
 * Each thread changes a place of its own and reads the others'. Page i of the file begins with the word i + 1. A
 * sequence lock tells when a place is being changed, and what it shows then: a load between two equal even values must
 * be exactly that.
 *
 *   PLACES + 4 p      sequence          + 1   the word that is shown, 0 where nothing is
 */
import type { AddressSpace, Mapping } from '../../src/index.ts'
import { codeOf, type Env, isOutOfMemory, PLACES } from './env.ts'

const FIRST_ADDRESS = 0x8000000
const PLACE_BYTES = 0x400000

export function storm(env: Env): void {
  const { config, prng, me } = env
  const space = env.memory.adopt(env.task.space)
  const place = new Place(env, space)
  // One window object for each place, whatever is mapped there: an address is an address.
  const windows = Array.from({ length: config.threads }, (_, p) => windowAt(env, p))
  while (!env.isOver) {
    for (let i = 0; i < 64; i++) {
      const p = prng.below(config.threads)
      if (p !== me) read(env, windows[p], p)
    }
    for (let i = 0; i < 4; i++) place.change()
  }
  place.end()
}

function windowAt(env: Env, p: number): Mapping {
  const { config, memory, task } = env
  const vpn = addressOf(p) / config.pageSize
  return memory.adopt({ ...task.whole, vpn, pages: 1 })
}

function addressOf(p: number): number {
  return FIRST_ADDRESS + p * PLACE_BYTES
}

function read(env: Env, window: Mapping, p: number): void {
  const { words, report } = env
  const at = PLACES + p * 4
  const before = Atomics.load(words, at)
  const shown = Atomics.load(words, at + 1)
  let seen = 0
  report.operations++
  try {
    seen = window.getUint32(0) >>> 0
  } catch (error) {
    if (isOutOfMemory(error)) {
      report.outOfMemory++
      return
    }
    if (codeOf(error) !== 'SIGSEGV') env.wrong(`place ${p}: ${(error as Error).stack}`)
  }
  if (seen > env.config.pages) env.wrong(`place ${p} shows ${seen}, which is on no page`)
  if ((before & 1) !== 0 || Atomics.load(words, at) !== before) return
  env.expect(seen, shown, () => `place ${p} at ${before}`)
}

/** This thread's own place. */
class Place {
  readonly #env: Env
  readonly #space: AddressSpace
  readonly #at: number
  readonly #address: number
  readonly #file
  #map: Mapping | undefined
  /** The word of the page that is mapped, and whether it may be read. */
  #word = 0

  constructor(env: Env, space: AddressSpace) {
    this.#env = env
    this.#space = space
    this.#at = PLACES + env.me * 4
    this.#address = addressOf(env.me)
    this.#file = env.file()
  }

  /** One change. */
  change(): void {
    const { prng } = this.#env
    const map = this.#map
    this.#tell(() => {
      if (map === undefined) this.#mapAnew()
      else if (prng.oneIn(3)) this.#unmap(map)
      else if (prng.oneIn(4)) this.#hide(map)
      else this.#remap(map)
    })
  }

  end(): void {
    const map = this.#map
    if (map !== undefined) this.#tell(() => this.#unmap(map))
  }

  #tell(change: () => void): void {
    const { words } = this.#env
    Atomics.add(words, this.#at, 1)
    this.#env.attempt('change of a place', change)
    Atomics.store(words, this.#at + 1, this.#word)
    Atomics.add(words, this.#at, 1)
  }

  #mapAnew(): void {
    const { prng, config } = this.#env
    const page = prng.below(config.pages)
    const { pageSize } = config
    this.#word = 0
    this.#map = this.#space.map(this.#file, {
      address: this.#address,
      offset: page * pageSize,
      length: pageSize,
      writable: true,
      private: prng.oneIn(4),
      populate: prng.oneIn(4)
    })
    this.#word = page + 1
  }

  #unmap(map: Mapping): void {
    map.unmap()
    this.#map = undefined
    this.#word = 0
  }

  /** A remap, of shared mappings only; private ones refuse. */
  #remap(map: Mapping): void {
    const page = this.#env.prng.below(this.#env.config.pages)
    try {
      map.remap({ at: 0, page })
      this.#word = page + 1
    } catch (error) {
      if (codeOf(error) !== 'EINVAL') throw error
      this.#unmap(map)
    }
  }

  /** No access, and access again. */
  #hide(map: Mapping): void {
    map.protect('none')
    this.#env.report.checked++
    try {
      map.getUint32(0)
      this.#env.wrong('a page without access was read')
    } catch (error) {
      if (codeOf(error) !== 'SIGSEGV') throw error
    } finally {
      map.protect('write')
    }
  }
}
