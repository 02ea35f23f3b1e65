/**
 * What a thread of a test does over and over, until word STOP says otherwise. Each loop gets `{ thing, words, fremap }`
 * and its own arguments, looks at every result, and returns what it saw; what must not be seen is counted as `bad`,
 * with an example.
 *
 * SEQ and SHOWN are a sequence lock over a change of mappings: SEQ is odd while one is made, and SHOWN says what the
 * last one left. A load between two equal even values of SEQ began after that change returned and ended before the next
 * one began.
 */
export const STOP = 0
export const SEQ = 1
export const SHOWN = 2
/** How often a store that never answers was asked to read. */
export const ASKED = 4
/** Rounds that a loop has done so far: word ROUNDS + its argument `me`. */
export const ROUNDS = 8

const PAGE = 4096

class Seen {
  rounds = 0
  bad = 0
  example = undefined

  wrong(what) {
    this.bad++
    this.example ??= what
  }
}

/** Runs `round` until told to stop. Errors with other codes than these end it. */
function repeat({ words }, me, seen, allowed, round) {
  while (words[STOP] === 0) {
    for (let i = 0; i < 64; i++) {
      try {
        round()
      } catch (error) {
        if (!allowed.includes(error.code)) throw error
        seen[error.code] = (seen[error.code] ?? 0) + 1
      }
    }
    seen.rounds += 64
    Atomics.store(words, ROUNDS + me, seen.rounds)
  }
  return { ...seen }
}

/** A stream of numbers that looks random. */
export function random(seed) {
  let state = seed | 0
  return n => {
    state = (state + 0x9e3779b9) | 0
    let h = state
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    return Math.floor((((h ^ (h >>> 16)) >>> 0) / 2 ** 32) * n)
  }
}

export const loops = {
  /**
   * Opens the rig's other file, finds its last count in two pages of it, stores the next one, and lets go of the file,
   * in some order.
   */
  openAndClose(env, me) {
    const seen = { ...new Seen(), count: 0 }
    const below = random(me)
    const memory = env.thing
    let space = memory.space()
    const places = [2 * PAGE + 8 * me, (8 + me) * PAGE + 8 * me]
    const bytes = new Uint8Array(4)
    const result = repeat(env, me, seen, [], () => {
      const file = env.other()
      const map = below(4) === 0 ? undefined : space.map(file, { writable: true })
      for (const at of places) {
        if (map === undefined) file.read(bytes, at)
        const word = map?.getUint32(at) ?? new DataView(bytes.buffer).getUint32(0, true)
        if (word !== seen.count) {
          seen.bad++
          seen.example ??= `${word} in place of ${seen.count}`
        }
      }
      seen.count++
      new DataView(bytes.buffer).setUint32(0, seen.count, true)
      for (const at of places) {
        if (map === undefined || below(4) === 0) file.write(bytes, at)
        else map.setUint32(at, seen.count)
      }
      if (below(8) === 0) file.sync()
      if (below(8) === 0) memory.shrink()
      const order = below(3)
      if (order === 0) map?.unmap()
      file.close()
      if (order === 1) map?.unmap()
      if (order === 2 && map !== undefined) {
        space.close()
        space = memory.space()
      }
    })
    space.close()
    return result
  },
  /** Loads of one word that a sequence lock guards: SHOWN is what it must be, -1 for SIGSEGV. */
  shown(env, me, offset) {
    const { thing: map, words } = env
    const seen = new Seen()
    seen.checked = 0
    return repeat(env, me, seen, [], () => {
      const before = Atomics.load(words, SEQ)
      const expected = Atomics.load(words, SHOWN)
      let value
      try {
        value = map.getUint32(offset)
      } catch (error) {
        if (error.code !== 'SIGSEGV') throw error
        value = -1
      }
      if ((before & 1) !== 0 || Atomics.load(words, SEQ) !== before) return
      seen.checked++
      if (value !== expected) seen.wrong(`${value} in place of ${expected} at ${before}`)
    })
  },

  /** Loads of the word that each page begins with, at random, which is the page's number + 1. */
  marks(env, me, pages, seed) {
    const { thing: map } = env
    const seen = new Seen()
    const below = random(seed)
    return repeat(env, me, seen, [], () => {
      const page = below(pages)
      const value = map.getUint32(page * PAGE)
      if (value !== page + 1) seen.wrong(`${value} on page ${page}`)
    })
  },

  /** Stores to a word of its own of random pages, and loads of what it stored last. */
  lane(env, me, pages, seed) {
    const { thing: map } = env
    const seen = new Seen()
    const below = random(seed)
    const stored = new Uint32Array(pages)
    const at = 64 + me * 4
    repeat(env, me, seen, [], () => {
      const page = below(pages)
      const value = map.getUint32(page * PAGE + at)
      if (value !== stored[page]) seen.wrong(`${value} in place of ${stored[page]} on page ${page}`)
      stored[page] = below(0x7fffffff)
      map.setUint32(page * PAGE + at, stored[page])
    })
    return { ...seen, stored }
  },

  /** Loads of a word that can only be one of these. */
  oneOf(env, me, offset, values) {
    const { thing: map } = env
    const seen = new Seen()
    return repeat(env, me, seen, ['SIGSEGV', 'SIGBUS', 'ESRCH'], () => {
      const value = map.getUint32(offset)
      if (!values.includes(value)) seen.wrong(`0x${value.toString(16)}`)
    })
  },

  /** Stores of 1, 2, 3 ... to one word. */
  count(env, me, offset) {
    const { thing: map } = env
    const seen = new Seen()
    let next = 1
    return repeat(env, me, seen, ['SIGSEGV', 'SIGBUS', 'ESRCH'], () => {
      map.setUint32(offset, next)
      next++
    })
  },

  /** An accessor that must fail each time. */
  forbidden({ thing, words }, me, method, ...args) {
    const seen = new Seen()
    return repeat({ words }, me, seen, ['SIGSEGV'], () => {
      thing[method](...args)
      seen.wrong(method)
    })
  },

  /** Stores of one value. */
  storing(env, me, offset, value) {
    const { thing: map } = env
    return repeat(env, me, new Seen(), ['SIGSEGV', 'SIGBUS', 'ESRCH'], () => map.setUint32(offset, value))
  },

  /** Loads of page after page, and gives the memory no rest. */
  touching(env, me, first, pages) {
    const { thing: map } = env
    let page = 0
    return repeat(env, me, new Seen(), ['SIGBUS'], () => {
      map.getUint32((first + page) * PAGE)
      page = (page + 1) % pages
    })
  },

  /** One call over and over. */
  calling(env, me, method, ...args) {
    const { thing } = env
    return repeat(env, me, new Seen(), [], () => thing[method](...args))
  }
}
