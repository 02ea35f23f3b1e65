/** Stores of one file in two threads: each has its own, found by name and handle (cache/store-table). */
import { describe, expect, test } from 'vitest'
import { ENXIO } from '../../src/abi/errno.ts'
import { Memory } from '../../src/api/memory.ts'
import { fileOf } from '../../src/mm/files.ts'
import type { Store, StoreHandle, StoreOpener } from '../../src/store/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { errorOf, PAGE, useAttached } from './support.ts'

const attached = useAttached()

/** Stores over bytes that are found by key; `open` counts those that are open. */
class Shelf implements StoreOpener {
  readonly kind = 'shelf'
  readonly #bytes = new Map<string, Uint8Array>()
  readonly log: string[] = []

  constructor(contents: Record<string, Uint8Array>) {
    for (const [key, bytes] of Object.entries(contents)) this.#bytes.set(key, bytes)
  }

  open(handle: StoreHandle): Store {
    const key = String(handle.key)
    const bytes = this.#bytes.get(key)
    if (bytes === undefined) throw new Error(`no ${key} on this shelf`)
    const inner = memoryStore({ contents: bytes, name: String(handle.name ?? key), readOnly: handle.readOnly === true })
    this.log.push(`open ${key}`)
    const { log } = this
    return Object.assign(inner, {
      handle: { ...handle, kind: 'shelf', key },
      close: () => {
        log.push(`close ${key}`)
        return 0
      }
    })
  }
}

function shelf(): Shelf {
  return new Shelf({ a: new Uint8Array(4 * PAGE).fill(1), b: new Uint8Array(4 * PAGE).fill(2) })
}

function pair(theirs: StoreOpener[]): { mine: Memory; theirs: Memory } {
  const mine = new Memory({ size: '1MiB', threads: 2, readahead: 0, debug: true })
  return { mine, theirs: Memory.attach(structuredClone(mine.handle), { stores: theirs }) }
}

describe('a file that another thread opened', () => {
  test('is read by a store of this thread’s own, opened when it is first needed', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const file = mine.open(here.open({ kind: 'shelf', key: 'b', name: 'the file' }))
    const theirFile = theirs.adopt(file.handle)
    expect(there.log).toEqual([])
    const bytes = new Uint8Array(8)
    expect(theirFile.read(bytes, 0)).toBe(8)
    expect(bytes).toEqual(new Uint8Array(8).fill(2))
    expect(there.log).toEqual(['open b'])
    theirFile.read(bytes, PAGE)
    expect(there.log).toEqual(['open b'])
    const space = mine.space()
    space.map(file)
    expect(theirs.adopt(space.handle).maps()).toContain('the file')
    // The last close is this thread's: its own store is closed at once, theirs when they look again.
    space.close()
    file.close()
    expect([here.log, there.log]).toEqual([['open b', 'close b'], ['open b']])
    const next = mine.open(here.open({ kind: 'shelf', key: 'a' }))
    expect(theirs.adopt(next.handle).read(bytes, 0)).toBe(8)
    expect(bytes[0]).toBe(1)
    expect(there.log).toEqual(['open b', 'close b', 'open a'])
    theirs.detach()
    expect(there.log).toEqual(['open b', 'close b', 'open a', 'close a'])
    mine.close()
    expect(here.log).toEqual(['open b', 'close b', 'open a', 'close a'])
  })

  test('whose row is a new file’s in this thread: the old store is closed', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const file = mine.open(here.open({ kind: 'shelf', key: 'b' }))
    theirs.adopt(file.handle).read(new Uint8Array(8), 0)
    file.close()
    expect(there.log).toEqual(['open b'])
    const own = theirs.open(there.open({ kind: 'shelf', key: 'a' }))
    expect(there.log).toEqual(['open b', 'open a', 'close b'])
    own.close()
    expect(there.log).toEqual(['open b', 'open a', 'close b', 'close a'])
    theirs.detach()
    mine.close()
    expect(there.log).toHaveLength(4)
  })

  test('and that is gone: its store is closed when this thread closes the memory', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const theirFile = theirs.open(there.open({ kind: 'shelf', key: 'b' }))
    mine.machine.inodes.stores.addOpener(here)
    const file = mine.adopt(theirFile.handle)
    file.read(new Uint8Array(8), 0)
    theirFile.close()
    expect([here.log, there.log]).toEqual([['open b'], ['open b', 'close b']])
    theirs.detach()
    mine.close()
    expect(here.log).toEqual(['open b', 'close b'])
  })

  test('has no name and no store once it is gone', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const file = mine.open(here.open({ kind: 'shelf', key: 'b', name: 'short-lived' }))
    const inode = mine.machine.files.inode[mine.machine.fds[file.fd]]
    const { stores } = theirs.machine.inodes
    const before = stores.generation(inode)
    expect(stores.name(inode)).toBe('short-lived')
    expect(stores.get(inode)?.name).toBe('short-lived')
    file.close()
    expect(mine.machine.inodes.stores.name(inode)).toBe('')
    expect(mine.machine.inodes.stores.get(inode)).toBeUndefined()
    expect(stores.generation(inode)).toBe(before + 1)
    const memory = mine.shared(PAGE, 'memory of mine')
    expect(stores.name(inode)).toBe('memory of mine')
    expect(stores.get(inode)).toBeUndefined()
    expect(there.log).toEqual(['open b', 'close b'])
    memory.close()
    theirs.detach()
    mine.close()
  })

  test('that was opened for writing after it was for reading: the other store in both threads', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const identity = { identity: 'one and the same' }
    const read = mine.open(Object.assign(here.open({ kind: 'shelf', key: 'b', readOnly: true }), identity))
    const theirFile = theirs.adopt(read.handle)
    theirFile.read(new Uint8Array(8), 0)
    const written = mine.open(Object.assign(here.open({ kind: 'shelf', key: 'a' }), identity))
    expect(here.log).toEqual(['open b', 'open a', 'close b'])
    theirFile.read(new Uint8Array(8), 2 * PAGE)
    expect(there.log).toEqual(['open b', 'close b', 'open a'])
    expect(theirs.adopt(written.handle).write(new Uint8Array(4), 0)).toBe(4)
    theirs.detach()
    mine.close()
  })
})

test('a row that this thread knew as memory takes a store of its own', () => {
  const there = shelf()
  const { mine, theirs } = pair([there])
  const memory = mine.shared(PAGE, 'm'.repeat(600))
  const inode = mine.machine.files.inode[mine.machine.fds[memory.fd]]
  const { stores } = theirs.machine.inodes
  expect([stores.name(inode), stores.get(inode)]).toEqual(['m'.repeat(64), undefined])
  memory.close()
  const own = theirs.open(there.open({ kind: 'shelf', key: 'a' }))
  expect(theirs.machine.files.inode[fileOf(theirs.machine, own.fd)]).toBe(inode)
  expect(own.read(new Uint8Array(4), 0)).toBe(4)
  theirs.detach()
  mine.close()
})

describe('a store that this thread cannot reach', () => {
  const refused = { errno: -ENXIO }

  test.each([
    [
      'without a handle',
      (store: Store) => Object.assign(store, { handle: undefined }),
      /reached only by the thread that opened it/
    ],
    [
      'of another kind',
      (store: Store) => Object.assign(store, { handle: { kind: 'cellar' } }),
      /no opener for stores of kind 'cellar'/
    ],
    [
      'that its opener does not find',
      (store: Store) => Object.assign(store, { handle: { kind: 'shelf', key: 'c' } }),
      /no c on this shelf/
    ],
    [
      'whose handle is too long to be told',
      (store: Store) => Object.assign(store, { handle: { kind: 'shelf', key: 'b', text: 'x'.repeat(600) } }),
      /reached only by the thread that opened it/
    ]
  ])('%s: ENXIO for reads, writes and syncs, with the reason', (_, bend, reason) => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const file = mine.open(bend(here.open({ kind: 'shelf', key: 'b', name: 'n'.repeat(70) })))
    const theirFile = theirs.adopt(file.handle)
    const failure = errorOf(() => theirFile.read(new Uint8Array(8), 0))
    expect(failure).toMatchObject(refused)
    expect(String((failure as Error).cause)).toMatch(reason)
    const inode = mine.machine.files.inode[mine.machine.fds[file.fd]]
    const store = theirs.machine.inodes.store(inode)
    expect(String(store?.lastThrown)).toMatch(reason)
    expect([store?.readOnly, store?.durable, store?.identity]).toEqual([false, false, undefined])
    const name = 'n'.repeat(_.includes('too long') ? 64 : 70)
    expect(store?.name).toBe(name)
    expect([
      store?.size(),
      store?.read(0, new Uint8Array(1), 0, 1),
      store?.write(0, new Uint8Array(1), 0, 1),
      store?.flush(),
      store?.truncate(0),
      store?.punch(0, 1),
      store?.close()
    ]).toEqual([-ENXIO, -ENXIO, -ENXIO, -ENXIO, -ENXIO, -ENXIO, 0])
    expect(errorOf(() => theirFile.sync())).toMatchObject(refused)
    expect(file.read(new Uint8Array(8), 0)).toBe(8)
    theirs.detach()
    mine.close()
  })
})

test('pages that one thread has written are the other one’s too, whoever writes them back', () => {
  const rig = attached()
  rig.theirs.store(3, 300)
  expect(rig.mine.load(3)).toBe(300)
  rig.mine.file.sync()
  expect(rig.storedWord(3)).toBe(300)
})

describe('a store that an opener gives is the one that was asked for', () => {
  test.each([
    ['another file', { identity: 'another' }, /another file than the file \(ESTALE\)/],
    ['one that cannot be written', { readOnly: true }, /cannot be written, but the file is open for writing/]
  ])('not %s: reads, syncs and the last unmap say so, and nothing is closed twice', (_, bend, reason) => {
    const [here, there] = [shelf(), shelf()]
    const opener: StoreOpener = {
      kind: 'shelf',
      open: handle => Object.assign(there.open(handle), { identity: 'its own' }, bend)
    }
    const { mine, theirs } = pair([opener])
    const store = Object.assign(here.open({ kind: 'shelf', key: 'b', name: 'the file' }), { identity: 'its own' })
    const file = mine.open(store)
    const map = mine.space().map(file, { writable: true })
    const theirMap = theirs.adopt(map.handle)
    map.getUint8(0)
    theirMap.setUint8(0, 65)
    for (const act of [
      () => theirMap.getUint8(PAGE),
      () => theirMap.sync(),
      () => theirs.adopt(file.handle).sync(),
      () => theirs.adopt(file.handle).truncate(1)
    ]) {
      const error = errorOf(act)
      expect(error.errno).toBe(-ENXIO)
      if (error.cause !== undefined) expect(String(error.cause)).toMatch(reason)
    }
    expect(String(errorOf(() => theirMap.getUint8(PAGE)).cause)).toMatch(reason)
    expect(there.log).toEqual(['open b', 'close b'])
    // Who has the store writes what the other one could not.
    map.sync()
    map.setUint8(1, 66)
    file.close()
    expect(errorOf(() => theirMap.unmap()).errno).toBe(-ENXIO)
    theirs.detach()
    mine.close()
  })

  test('nor does a sync or a last close succeed in a thread that has it for reading alone while pages are dirty', () => {
    const [here, there] = [shelf(), shelf()]
    const { mine, theirs } = pair([there])
    const readOnly = mine.open(here.open({ kind: 'shelf', key: 'b', readOnly: true }))
    const theirFile = theirs.adopt(readOnly.handle)
    theirFile.read(new Uint8Array(1), 0)
    theirFile.sync()
    const { machine } = theirs
    const inode = machine.files.inode[machine.fds[theirFile.fd]]
    // As where another thread has it for writing.
    machine.cache.setDirty(machine.cache.lookup(inode, 0))
    expect(errorOf(() => theirFile.sync())).toMatchObject({ code: 'EROFS', syscall: 'fsync' })
    expect(errorOf(() => theirFile.close())).toMatchObject({ code: 'EROFS', syscall: 'close' })
    theirs.detach()
    mine.close()
  })
})
