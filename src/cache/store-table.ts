/**
 * Which store keeps an inode's bytes, in this thread: stores are objects, and every thread has its own over the same
 * bytes.
 *
 * A store's name and what it can be opened by (`Store.handle`) lie in shared memory as text. A thread that meets an
 * inode that another one opened makes its own store of it, with the opener for its kind, and keeps it while the inode
 * lives. It must be over the same bytes (`identity`), and not read-only where the other one is not. Where that cannot
 * be done, calls give -ENXIO and `lastThrown` says why.
 *
 * A store is closed by the thread that has it: at the last close of the inode if that is the same one, else when the
 * row is used again or the thread leaves the memory (`closeAll`).
 */
import { readText, textUnits, writeText } from '../base/text.ts'
import type { ColumnSource } from '../frame/frame-table.ts'
import { GuardedStore, type StoreFacts } from '../store/guard.ts'
import type { Store, StoreHandle, StoreOpener } from '../store/store.ts'
import type { Sync } from '../sync/sync.ts'

const TEXT_WORDS = 256

/**
 * A store that a thread has, and whether it opened the inode itself: then another thread may have no other way to it.
 */
export interface HeldStore {
  readonly store: Store
  readonly facts: StoreFacts
  readonly generation: number
  readonly isOwn: boolean
}

interface StoreText {
  readonly name: string
  readonly hasStore?: boolean
  readonly readOnly?: boolean
  readonly identity?: string | undefined
  /** Absent where only the thread that opened the store can reach it. */
  readonly handle?: StoreHandle | undefined
}

export class StoreTable {
  /** Grows each time the inode's row is given away, and each time its store is replaced. */
  readonly #generation: Int32Array
  readonly #text: Int32Array
  /** Inodes by the identity of their stores: chains of those with one bucket, and the hash of each, 0 for none. */
  readonly #buckets: Int32Array
  readonly #next: Int32Array
  readonly #hash: Int32Array
  readonly #isShared: boolean
  readonly #sync: Sync
  readonly #stores: (GuardedStore | undefined)[] = []
  readonly #seen: number[] = []
  readonly #names: string[] = []
  /**
   * The same stores by inode, without anything that leads to the machine: what is left of this thread's part when
   * nobody refers to it any more.
   */
  readonly held: Map<number, HeldStore> = new Map()
  /** The inode that this thread's store was last of. */
  readonly #inodes = new WeakMap<Store, number>()
  readonly #openers = new Map<string, StoreOpener>()

  constructor(columns: ColumnSource, capacity: number, sync: Sync) {
    const n = capacity + 1
    this.#sync = sync
    this.#isShared = sync.isShared
    this.#generation = columns.int32('inodes', n)
    this.#buckets = columns.int32('inodes', 2 ** Math.ceil(Math.log2(n)))
    this.#next = columns.int32('inodes', n)
    this.#hash = columns.int32('inodes', n)
    this.#text = columns.int32('inode names', sync.isShared ? n * TEXT_WORDS : 0)
  }

  /** Lets this thread open stores of one more kind. */
  addOpener(opener: StoreOpener): void {
    this.#openers.set(opener.kind, opener)
  }

  /** The inode's store; undefined for memory that has none. */
  get(inode: number): GuardedStore | undefined {
    if (this.#isShared && this.#seen[inode] !== this.#generation[inode]) this.#learn(inode)
    return this.#stores[inode]
  }

  /** The inode's store if this thread has it open already. Opens and closes nothing, and so needs no lock. */
  known(inode: number): GuardedStore | undefined {
    return this.#seen[inode] === this.#generation[inode] ? this.#stores[inode] : undefined
  }

  name(inode: number): string {
    if (this.#isShared && this.#seen[inode] !== this.#generation[inode]) this.#learn(inode)
    return this.#names[inode] ?? ''
  }

  /** Whether this thread opened the inode, and has its store still. */
  isOwn(inode: number): boolean {
    const held = this.held.get(inode)
    return held?.isOwn === true && held.generation === this.#generation[inode]
  }

  /** Takes over what a thread held that is gone from the program; its row is this one's. */
  adopt(held: ReadonlyMap<number, HeldStore>): void {
    for (const [inode, one] of held) {
      if (one.generation !== this.#generation[inode]) continue
      this.#keep(inode, new GuardedStore(one.store, this.#sync, one.facts), one.isOwn)
      this.#names[inode] = one.facts.name
      this.#seen[inode] = one.generation
    }
  }

  /** The inode that has this store, or one over the same bytes; 0 for none. */
  find(store: GuardedStore): number {
    const own = this.#inodes.get(store.inner) ?? 0
    if (own !== 0 && this.get(own)?.isSame(store) === true) return own
    const { identity } = store
    if (identity === undefined) return 0
    const hash = hashOf(identity)
    for (let i = this.#buckets[hash & (this.#buckets.length - 1)]; i !== 0; i = this.#next[i]) {
      if (this.#hash[i] === hash && this.get(i)?.identity === identity) return i
    }
    return 0
  }

  /** Puts the inode under an identity, out of the one that it was under. */
  #index(inode: number, identity: string | undefined): void {
    const old = this.#hash[inode]
    const hash = identity === undefined ? 0 : hashOf(identity)
    if (old === hash) return
    const buckets = this.#buckets
    const mask = buckets.length - 1
    if (old !== 0) {
      if (buckets[old & mask] === inode) buckets[old & mask] = this.#next[inode]
      else {
        let before = buckets[old & mask]
        while (this.#next[before] !== inode) before = this.#next[before]
        this.#next[before] = this.#next[inode]
      }
    }
    this.#hash[inode] = hash
    if (hash === 0) return
    this.#next[inode] = buckets[hash & mask]
    buckets[hash & mask] = inode
  }

  #keep(inode: number, store: GuardedStore | undefined, isOwn: boolean): void {
    this.#stores[inode] = store
    if (store !== undefined) this.#inodes.set(store.inner, inode)
    if (store?.isReachable !== true) this.held.delete(inode)
    else {
      const { inner, facts } = store
      this.held.set(inode, { store: inner, facts, generation: this.#generation[inode], isOwn })
    }
  }

  /** Tells one inode from another one that has its row later. */
  generation(inode: number): number {
    return this.#generation[inode]
  }

  /** The row is that of a new inode, or its store is another one from now on. */
  set(inode: number, name: string, store: GuardedStore | undefined): void {
    const generation = this.#generation[inode] + 1
    const stale = this.#stores[inode]
    if (this.#seen[inode] !== undefined && this.#seen[inode] !== this.#generation[inode]) stale?.close()
    this.#generation[inode] = generation
    this.#keep(inode, store, true)
    this.#names[inode] = name
    this.#seen[inode] = generation
    this.#index(inode, store?.identity)
    if (this.#isShared) this.#write(inode, name, store)
  }

  /** The inode is gone. Its store was closed by this thread, if this thread had one. */
  forget(inode: number): void {
    this.#generation[inode]++
    this.#keep(inode, undefined, false)
    this.#names[inode] = ''
    this.#seen[inode] = this.#generation[inode]
    this.#index(inode, undefined)
    // Another thread that only asks what the row is called must not open the store of what is gone.
    if (this.#isShared) writeText(this.#text, inode * TEXT_WORDS, '')
  }

  /** Closes all of this thread's stores: it detaches. */
  closeAll(): void {
    for (let i = 1; i < this.#stores.length; i++) {
      this.#stores[i]?.close()
      this.#keep(i, undefined, false)
      this.#seen[i] = -1
    }
  }

  #learn(inode: number): void {
    this.#stores[inode]?.close()
    const text = this.#read(inode)
    this.#names[inode] = text.name
    this.#keep(inode, text.hasStore === true ? this.#open(text) : undefined, false)
    this.#seen[inode] = this.#generation[inode]
  }

  #open(text: StoreText): GuardedStore {
    const { name, identity } = text
    const handle = text.handle && { name, identity, ...text.handle }
    const unreachable = (why: unknown) => GuardedStore.unreachable(name, why, this.#sync)
    if (handle === undefined) return unreachable(new Error(`${name} can be reached only by the thread that opened it`))
    const opener = this.#openers.get(handle.kind)
    if (opener === undefined)
      return unreachable(
        new Error(
          `no opener for stores of kind '${handle.kind}' was given to Memory.attach: name it in its option stores`
        )
      )
    const outer = this.#sync.beginStoreCall()
    try {
      const store = new GuardedStore(opener.open(handle), this.#sync)
      const why = misfit(text, store)
      if (why === '') return store
      store.close()
      return unreachable(new Error(why))
    } catch (thrown) {
      return unreachable(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  #read(inode: number): StoreText {
    const json = readText(this.#text, inode * TEXT_WORDS)
    return json === '' ? { name: '' } : (JSON.parse(json) as StoreText)
  }

  #write(inode: number, name: string, store: GuardedStore | undefined): void {
    const { readOnly, identity } = store ?? {}
    const hasStore = store !== undefined
    // What the handle has of these is not written twice: a path may be long.
    const given: Record<string, unknown> = { name, identity }
    const own = Object.entries(store?.handle ?? {}).filter(([field, value]) => given[field] !== value)
    const handle = store?.handle === undefined ? undefined : Object.fromEntries(own)
    let json = JSON.stringify({ name, hasStore, readOnly, identity, handle })
    if (json.length > textUnits(TEXT_WORDS)) json = JSON.stringify({ name: name.slice(0, 64), hasStore })
    writeText(this.#text, inode * TEXT_WORDS, json)
  }
}

/** Never 0 (FNV-1a). */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash | 0 || 1
}

/** Why a store that an opener gave is not the one that was asked for; '' if it is. */
function misfit({ name, readOnly, identity, handle }: StoreText, store: GuardedStore): string {
  const what = `the opener for stores of kind '${handle?.kind}' gave`
  if (identity !== store.identity && identity !== undefined && store.identity !== undefined)
    return `${what} another file than ${name} (ESTALE)`
  if (store.readOnly && readOnly === false)
    return `${what} a store that cannot be written, but ${name} is open for writing`
  return ''
}
