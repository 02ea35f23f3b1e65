/** Things that have ended, or are left, and calls on them: for identity.test.ts. */
import { describe, expect, test } from 'vitest'
import * as fremap from '../../src/index.ts'

export const PAGE = 4096
const { Memory, ShadowTable, Tlb, memoryStore } = fremap

/** What a call ends in: the code of its error, its class where it has none, or 'done'. */
export async function outcome(act: () => unknown): Promise<string> {
  try {
    const result = await act()
    return typeof result === 'number' && result < 0 ? fremap.errnoName(result) : 'done'
  } catch (error) {
    const { code, name } = error as { code?: string; name: string }
    return code ?? name
  }
}

export const marked = (mark: string): fremap.Store =>
  memoryStore({ contents: new Uint8Array(4 * PAGE).fill(mark.charCodeAt(0)), name: mark })

export interface Rig {
  readonly owner: fremap.Memory
  readonly memory: fremap.Memory
  readonly file: fremap.MappedFile
  readonly space: fremap.AddressSpace
  readonly map: fremap.Mapping
  readonly table: fremap.ShadowTable
  readonly tlb: fremap.Tlb
  readonly page: fremap.BorrowedPage
}

/** A memory, and a second user of it in this thread, whose objects are the ones to be tried. */
export function rig(): Rig {
  const buffer = new SharedArrayBuffer(2 << 20)
  const owner = new Memory({ size: '1MiB', threads: 3, ram: { buffer, byteOffset: 512 * 1024 }, debug: true })
  const memory = Memory.attach(structuredClone(owner.handle), { thread: 5 })
  const file = memory.shared(4 * PAGE, 'A')
  const space = memory.space()
  const map = space.map(file, { writable: true })
  map.fill(65)
  const table = new ShadowTable(map, { byteOffset: 0, nrEntries: 4 })
  const tlb = new Tlb(space, { byteOffset: 4096, nrEntries: 4 })
  return { owner, memory, file, space, map, table, tlb, page: map.borrow(0) }
}

export interface Kind {
  readonly name: string
  /** Ends what is tried. */
  end(rig: Rig): void
  /** What calls may end in. */
  readonly codes: readonly string[]
}

export const detached: Kind = {
  name: 'after detach',
  end: rig => rig.memory.detach(),
  codes: ['ENODEV', 'EBADF', 'ESRCH']
}
export const closed: Kind = { name: 'after close', end: rig => rig.memory.close(), codes: ['ENODEV', 'EBADF', 'ESRCH'] }

/** Checks that a table of calls has one for every public name of a class. */
export function expectAll(of: object, calls: object, internal: readonly string[]): void {
  const names = new Set<string>()
  for (let at = of; at !== Object.prototype && at !== null; at = Object.getPrototypeOf(at) as object) {
    for (const name of Object.getOwnPropertyNames(at)) names.add(name)
  }
  for (const name of ['constructor', ...internal]) names.delete(name)
  expect(Object.keys(calls).sort()).toEqual([...names].sort())
}

/** Tries all calls on a thing of each kind. `but` has what else a call may end in: those that have nothing to do. */
export function tryAll<T>(
  what: string,
  calls: Readonly<Record<string, (thing: T, rig: Rig) => unknown>>,
  pick: (rig: Rig) => T,
  kinds: readonly Kind[],
  but: Readonly<Record<string, readonly string[]>>
): void {
  describe.each(kinds)(`${what} $name`, ({ end, codes }) => {
    test.each(Object.entries(calls))('%s', async (name, call) => {
      const r = rig()
      const thing = pick(r)
      end(r)
      const others = r.owner.machine.open ? r.owner.open(marked('B')) : undefined
      const space = r.owner.machine.open ? r.owner.space() : undefined
      const map = others && space?.map(others, { writable: true })
      const got = await outcome(() => call(thing, r))
      expect([...codes, ...(but[name] ?? [])]).toContain(got)
      if (others === undefined || map === undefined) return
      const bytes = new Uint8Array(4 * PAGE)
      expect([others.size, others.read(bytes, 0), map.length]).toEqual([4 * PAGE, 4 * PAGE, 4 * PAGE])
      expect(bytes.every(byte => byte === 66)).toBe(true)
      expect(r.owner.check()).toEqual([])
      r.owner.close()
    })
  })
}
