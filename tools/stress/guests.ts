/**
 * Threads that translate for themselves, as guests do: through one shadow table that all share, and a TLB each, while
 * pages are remapped, protected, dropped, synced and evicted under them.
 *
 *   stage       a window of a few pages with a shadow table. Page q belongs to thread q % threads, which alone changes
 *               it. All load its mark, the first word of the file page that it shows: page i of the file begins with
 *               the word i + 1. Between two equal even values of its sequence it must be what the last change made it
 *               (as in storm)
 *   whole       the file in order, through the TLB; nobody changes what it shows
 *   lanes       bytes of a thread's own in each file page, as in lanes: stored by one way, loaded by another
 *
 *   PLACES + 4 q      sequence of stage page q          + 1   the mark that it shows, 0 where it may not be read
 *
 * Within a guest nothing but a fault may wait for a lock, so changes are made between two blocks of accesses.
 */
import { type Mapping, SHADOW_READ, SHADOW_WRITE, ShadowTable, Tlb } from '../../src/index.ts'
import { codeOf, type Env, isOutOfMemory, PLACES } from './env.ts'
import { LANE_BYTES, type LaneModel, laneAt } from './lanes.ts'

export const STAGE_PAGES = 16
export const STAGE_BYTES: number = ShadowTable.bytesFor(STAGE_PAGES)
const TLB_ENTRIES = 64
export const TLB_BYTES: number = 64 + TLB_ENTRIES * 8

/** Accesses between entering and leaving a guest, and between two safe points. */
const BLOCK = 64
const UNTIL_SAFE = 8
/** Faults on one page without an access in between. */
const MOST_FAULTS = 10_000

export function guests(env: Env): LaneModel {
  const all = new Guests(env)
  while (!env.isOver) all.turn()
  all.end()
  return all.model
}

class Guests {
  readonly model: LaneModel
  readonly #env: Env
  readonly #stage: Mapping
  readonly #wholeVpn: number
  readonly #table: ShadowTable
  readonly #tlb: Tlb
  readonly #u8: Uint8Array
  readonly #u32: Uint32Array
  readonly #pageSize: number
  /** File pages that this thread's pages of the stage show. */
  readonly #shown = new Int32Array(STAGE_PAGES)

  constructor(env: Env) {
    const { task, memory, config, machine } = env
    if (task.guests === undefined) throw new Error('a round of guests needs a stage')
    this.#env = env
    this.#pageSize = config.pageSize
    this.#stage = memory.adopt(task.guests.stage)
    this.#wholeVpn = memory.adopt(task.whole).address / config.pageSize
    this.#table = ShadowTable.adopt(this.#stage, task.guests.table)
    const byteOffset = task.guests.tlbAt + env.me * TLB_BYTES
    this.#tlb = new Tlb(memory.adopt(task.space), { byteOffset, nrEntries: TLB_ENTRIES })
    this.#u8 = new Uint8Array(machine.ram.buffer)
    this.#u32 = new Uint32Array(machine.ram.buffer)
    for (let q = 0; q < STAGE_PAGES; q++) this.#shown[q] = q
    const lanes = new Uint8Array(config.pages * LANE_BYTES)
    this.model = { lanes, own: new Uint8Array(0), borders: new Uint32Array(0), lastPage: -1 }
  }

  turn(): void {
    const { prng, memory } = this.#env
    this.#table.guest().run(() => this.#onStage())
    this.#tlb.guest().run(() => this.#onWhole())
    for (let changes = prng.between(1, 4); changes > 0; changes--) this.#change()
    if (prng.oneIn(30)) this.#env.attempt('sync', () => this.#env.file().sync())
    if (prng.oneIn(30)) this.#env.attempt('shrink', () => memory.shrink())
  }

  end(): void {
    this.#tlb.close()
  }

  #onStage(): void {
    const { prng, config, me } = this.#env
    for (let i = 0; i < BLOCK; i++) {
      const q = prng.below(STAGE_PAGES)
      if (q % config.threads === me && prng.oneIn(2)) {
        this.#lane(this.#shown[q], access => this.#onTable(q, access))
      } else this.#mark(q)
      if (i % UNTIL_SAFE === 0) this.#table.guest().passed()
    }
  }

  #onWhole(): void {
    const { prng, config } = this.#env
    for (let i = 0; i < BLOCK; i++) {
      const page = prng.below(config.pages)
      this.#lane(page, access => this.#tlb.translate(this.#wholeVpn + page, access))
      if (i % UNTIL_SAFE === 0) this.#tlb.safePoint()
    }
  }

  /** A load of a mark, of any thread's page of the stage. */
  #mark(q: number): void {
    const { words, report, config } = this.#env
    const at = PLACES + q * 4
    const before = Atomics.load(words, at)
    const shown = Atomics.load(words, at + 1)
    let seen = 0
    report.operations++
    try {
      seen = this.#u32[this.#onTable(q, SHADOW_READ) >>> 2]
    } catch (error) {
      if (isOutOfMemory(error)) {
        report.outOfMemory++
        return
      }
      if (codeOf(error) !== 'SIGSEGV') this.#env.wrong(`stage page ${q}: ${(error as Error).stack}`)
    }
    if (seen > config.pages) this.#env.wrong(`stage page ${q} shows ${seen}, which is on no page`)
    if ((before & 1) !== 0 || Atomics.load(words, at) !== before) return
    this.#env.expect(seen, shown, () => `the mark of stage page ${q} at ${before}`)
  }

  /** A load or store of this thread's own in a file page. */
  #lane(page: number, translate: (access: number) => number): void {
    const { prng, me } = this.#env
    const at = prng.below(LANE_BYTES)
    const inModel = page * LANE_BYTES + at
    const stores = prng.oneIn(2)
    this.#env.attempt('access of a guest', () => {
      const byte = translate(stores ? SHADOW_WRITE : SHADOW_READ) + laneAt(me) + at
      this.#env.expect(this.#u8[byte], this.model.lanes[inModel], () => `byte ${at} of file page ${page}`)
      if (stores) this.model.lanes[inModel] = this.#u8[byte] = prng.below(256)
    })
  }

  /** As a guest does it. → the address of the frame. */
  #onTable(q: number, access: number): number {
    for (let faults = 0; faults < MOST_FAULTS; faults++) {
      const entry = this.#table.entry(q)
      if ((entry & access) !== 0) return (entry & -this.#pageSize) >>> 0
      this.#table.fault(q, access)
    }
    throw new Error(`faults on stage page ${q} do not come to an end`)
  }

  /** Changes a page of this thread's. */
  #change(): void {
    const { prng, config, me, words } = this.#env
    const q = me + config.threads * prng.below(Math.ceil((STAGE_PAGES - me) / config.threads))
    const range = { offset: q * this.#pageSize, length: this.#pageSize }
    const what = prng.below(6)
    Atomics.add(words, PLACES + q * 4, 1)
    this.#env.attempt('change of the stage', () => {
      if (what === 0) this.#stage.advise('dontneed', range)
      else if (what === 1) this.#hide(q, range)
      else this.#remap(q)
    })
    Atomics.store(words, PLACES + q * 4 + 1, this.#shown[q] + 1)
    Atomics.add(words, PLACES + q * 4, 1)
  }

  #remap(q: number): void {
    const page = this.#env.prng.below(this.#env.config.pages)
    this.#stage.remap({ at: q, page })
    this.#shown[q] = page
  }

  /** No access, which the guests must find for as long as it lasts, and access again. */
  #hide(q: number, range: { offset: number; length: number }): void {
    this.#stage.protect('none', range)
    try {
      if (this.#table.entry(q) !== 0) this.#env.wrong(`stage page ${q} has an entry though nobody may read it`)
      this.#table.guest().run(() => this.#onTable(q, SHADOW_READ))
      this.#env.wrong(`stage page ${q} was read without access`)
    } catch (error) {
      if (codeOf(error) !== 'SIGSEGV') throw error
    } finally {
      this.#stage.protect('write', range)
    }
  }
}
