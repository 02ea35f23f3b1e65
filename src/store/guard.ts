/**
 * Holds a store to its contract: whatever it throws, or answers that is no answer, becomes -EIO.
 *
 * A store is other people's code, called in the middle of a fault or of reclaim, where an exception would leave half of
 * the work done. What was thrown, or what is wrong about the answer, is kept in `lastThrown`: it is the cause of the
 * error that the call ends with. What a store is (its name, handle and the like) is read once, when it is guarded:
 * before a verb begins, so what its getters throw comes up there.
 *
 * Other threads are told that this one is in a store, also where it holds the machine lock meanwhile: it may take long,
 * and is not dead.
 */
import { EIO, ENXIO } from '../abi/errno.ts'
import type { Sync } from '../sync/sync.ts'
import { answerOf } from './answer.ts'
import type { Store, StoreHandle } from './store.ts'

/** What a store is, without what it does. */
export type StoreFacts = Pick<Store, 'name' | 'identity' | 'readOnly' | 'durable' | 'isCut' | 'handle'>

export class GuardedStore implements Store {
  readonly name: string
  readonly identity: string | undefined
  readonly readOnly: boolean
  readonly durable: boolean
  readonly isCut: boolean
  readonly handle: StoreHandle | undefined
  /**
   * What the store threw in the last call that failed, or a WrongAnswer; undefined where it answered an errno itself.
   */
  lastThrown: unknown = undefined
  /** The store itself. */
  readonly inner: Store
  readonly #sync: Sync
  /** `lastThrown` says why there is no store behind this, and goes on saying so. */
  #isUnreachable = false

  /** `facts`: as they were read when the store was guarded before. */
  constructor(inner: Store, sync: Sync, facts: StoreFacts = inner) {
    const { identity } = facts
    this.inner = inner
    this.#sync = sync
    this.name = String(facts.name)
    this.identity = identity === undefined || identity === null ? undefined : String(identity)
    this.readOnly = Boolean(facts.readOnly)
    this.durable = Boolean(facts.durable)
    this.isCut = facts.isCut === true
    this.handle = plainHandle(facts.handle)
  }

  /** Leads neither to the machine nor to the store. */
  get facts(): StoreFacts {
    const { name, identity, readOnly, durable, isCut, handle } = this
    return { name, identity, readOnly, durable, isCut, handle }
  }

  /** False for what stands for a store that this thread cannot reach. */
  get isReachable(): boolean {
    return !this.#isUnreachable
  }

  /**
   * Stands for a store that this thread cannot reach: every call gives -ENXIO. It is not read-only, so that no sync
   * succeeds.
   */
  static unreachable(name: string, why: unknown, sync: Sync): GuardedStore {
    const refuse = () => -ENXIO
    const store = new GuardedStore(
      {
        name,
        identity: undefined,
        readOnly: false,
        durable: false,
        size: refuse,
        read: refuse,
        write: refuse,
        flush: refuse,
        truncate: refuse,
        punch: refuse,
        close: () => 0
      },
      sync
    )
    store.#isUnreachable = true
    store.lastThrown = why
    return store
  }

  size(): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('size', this.inner.size(), Number.MAX_SAFE_INTEGER)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  read(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('read', this.inner.read(position, buffer, offset, length), length)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  write(position: number, buffer: Uint8Array, offset: number, length: number): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('write', this.inner.write(position, buffer, offset, length), length)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  flush(): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('flush', this.inner.flush(), 0)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  truncate(sizeBytes: number): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('truncate', this.inner.truncate(sizeBytes), 0)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  punch(position: number, length: number): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('punch', this.inner.punch(position, length), 0)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  close(): number {
    const outer = this.#sync.beginStoreCall()
    try {
      return this.#answer('close', this.inner.close(), 0)
    } catch (thrown) {
      return this.#note(thrown)
    } finally {
      this.#sync.endStoreCall(outer)
    }
  }

  /** Whether both guard one store. */
  isSame(other: GuardedStore): boolean {
    return other.inner === this.inner
  }

  /** A result if it is a whole number up to `most`, or an errno. Throws what is wrong about it. */
  #answer(call: string, result: number, most: number): number {
    const answer = answerOf(this.name, call, result, most)
    if (answer < 0 && !this.#isUnreachable) this.lastThrown = undefined
    return answer
  }

  #note(thrown: unknown): number {
    this.lastThrown = thrown
    return -EIO
  }
}

/** A copy without code of its author's, as far as it goes into JSON; what does not cannot be sent to other threads. */
function plainHandle(handle: StoreHandle | undefined): StoreHandle | undefined {
  if (handle === undefined) return undefined
  try {
    return JSON.parse(JSON.stringify(handle)) as StoreHandle
  } catch {
    return undefined
  }
}
