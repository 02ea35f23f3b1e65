/**
 * One round of the stress: a memory, its threads let loose on it, and what must be true while they run and afterwards.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import {
  type AddressSpace,
  type MappedFile,
  type Mapping,
  Memory,
  type MemoryOptions,
  Mm,
  ShadowTable,
  type Store,
  sharedStore,
  sharedStoreBuffer,
  sys_exit
} from '../../src/index.ts'
import { nodeFile } from '../../src/stores/node-file.ts'
import { T_STATE, THREAD_FREE, THREAD_SHIFT } from '../../src/sync/threads.ts'
import { Prng } from '../fuzz/prng.ts'
import {
  type Backing,
  NR_WORDS,
  PLACES,
  READY,
  type Report,
  type RoundConfig,
  type RoundTask,
  type Scenario,
  STOP
} from './env.ts'
import { STAGE_BYTES, STAGE_PAGES, TLB_BYTES } from './guests.ts'
import type { HoleModel } from './holes.ts'
import { LANE_BYTES, type LaneModel, laneAt } from './lanes.ts'
import { slowStore } from './slow-store.ts'

const FRAME_BYTES = 44
/** A thread that has not come back this long after it was told to stop hangs. */
const HANG_MS = 60_000
const MOST_WRONG = 10

export interface RoundResult {
  readonly config: RoundConfig
  readonly wrong: readonly string[]
  readonly reports: readonly Report[]
  readonly checks: number
  readonly counters: Readonly<Record<string, number>>
  /** The thread that was ended held the machine lock. */
  readonly isBroken: boolean
  /** Pages of a broken memory that were in doubt. */
  readonly inDoubt: number
}

export function configOf(seed: number, round: number, scenario: Scenario, threads: number): RoundConfig {
  const prng = new Prng(Math.imul(seed, 0x01000193) ^ Math.imul(round + 1, 0x9e3779b1))
  const frames = prng.pick([8, 12, 16, 24, 40, 64, 2000])
  const backing: Backing = prng.pick(['file', 'buffer', 'buffer', 'memory'])
  // Shared memory without swap has to fit.
  const needsSwap = backing === 'memory' && frames < 2000
  // Page tables, the reverse map and two pages of its own are all that 8 frames hold.
  const hasSwap = needsSwap || frames === 8 || prng.oneIn(2)
  return {
    round,
    seed: prng.next(),
    scenario,
    backing,
    threads,
    frames,
    pageSize: prng.pick([512, 4096]),
    pages: prng.pick([24, 64, 200]),
    swapSlots: hasSwap ? 2048 : 0,
    readaheadPages: prng.pick([0, 4, 16]),
    faultAroundPages: prng.pick([1, 4, 16]),
    sliceMs: prng.between(300, 1500),
    isSlow: prng.oneIn(2)
  }
}

export async function runRound(config: RoundConfig, workers: readonly Worker[]): Promise<RoundResult> {
  const folder = mkdtempSync(join(tmpdir(), 'fremap-stress-'))
  try {
    return await new Round(config, folder).run(workers)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Memory for the frames, behind room for the tables of guests. */
function besideTables({ pageSize, frames, threads }: RoundConfig): NonNullable<MemoryOptions['ram']> {
  const byteOffset = Math.ceil((STAGE_BYTES + threads * TLB_BYTES) / pageSize) * pageSize
  return { buffer: new SharedArrayBuffer(byteOffset + frames * pageSize), byteOffset }
}

/** Whether what a thread stored to a page is to be there. */
const everywhere = (_page: number, _model: LaneModel): boolean => true

class Round {
  readonly #config: RoundConfig
  readonly #path: string
  readonly #wrong: string[] = []
  readonly #prng: Prng
  readonly #words = new SharedArrayBuffer(NR_WORDS * 4)
  readonly #buffers: Record<string, SharedArrayBuffer>
  readonly #memory: Memory
  readonly #freeAtStart: number
  readonly #file: MappedFile
  readonly #space: AddressSpace
  readonly #whole: Mapping
  readonly #own: Mapping
  readonly #guests: RoundTask['guests']
  #checks = 0
  #inDoubt = 0

  constructor(config: RoundConfig, folder: string) {
    const { pages, pageSize, frames, swapSlots, threads } = config
    this.#config = config
    this.#path = join(folder, 'data')
    this.#prng = new Prng(config.seed)
    this.#buffers = { data: sharedStoreBuffer(pages * pageSize), swap: sharedStoreBuffer(swapSlots * pageSize) }
    this.#memory = new Memory({
      size: frames * (pageSize + FRAME_BYTES),
      pageSize,
      threads: threads + 1,
      readahead: config.readaheadPages * pageSize,
      faultAroundPages: config.faultAroundPages,
      debug: true,
      ...(config.scenario === 'guests' ? { ram: besideTables(config) } : {}),
      patienceMs: config.scenario === 'deaths' ? 2000 : 20_000,
      ...(swapSlots === 0
        ? {}
        : {
            swap: { store: this.#slowed(sharedStore(this.#buffers.swap, { name: 'swap' })), size: swapSlots * pageSize }
          })
    })
    this.#freeAtStart = this.#memory.stats().freeFrames
    const size = pages * pageSize
    this.#file = config.backing === 'memory' ? this.#memory.shared(size) : this.#memory.open(this.#store(size))
    this.#space = this.#memory.space()
    this.#whole = this.#space.map(this.#file, { writable: true })
    this.#own = this.#space.map(null, { length: (swapSlots === 0 ? 2 : 16) * pageSize, writable: true })
    if (config.scenario === 'guests') this.#guests = this.#raiseStage()
    if (config.scenario === 'storm' || config.scenario === 'guests') {
      for (let page = 0; page < pages; page++) this.#whole.setUint32(page * pageSize, page + 1)
    }
  }

  /** The window that is changed under guests, in file order as yet. */
  #raiseStage(): RoundTask['guests'] {
    const words = new Int32Array(this.#words)
    const stage = this.#space.map(this.#file, { length: STAGE_PAGES * this.#config.pageSize, writable: true })
    for (let q = 0; q < STAGE_PAGES; q++) words[PLACES + q * 4 + 1] = q + 1
    const table = new ShadowTable(stage, { byteOffset: 0, nrEntries: STAGE_PAGES })
    return { stage: stage.handle, table: table.handle, tlbAt: STAGE_BYTES }
  }

  #store(size: number): Store {
    const store =
      this.#config.backing === 'file' ? nodeFile(this.#path, 'w+') : sharedStore(this.#buffers.data, { name: 'data' })
    store.truncate(size)
    return this.#slowed(store)
  }

  #slowed(store: Store): Store {
    return this.#config.isSlow ? slowStore(store) : store
  }

  async run(workers: readonly Worker[]): Promise<RoundResult> {
    const words = new Int32Array(this.#words)
    const reports = workers.map((worker, me) => reportOf(worker, this.#task(me)))
    if (this.#dies) for (const worker of workers) this.#memory.watch(worker)
    while (Atomics.load(words, READY) < workers.length) await sleep(1)
    const { sliceMs } = this.#config
    const start = performance.now()
    let dying: Promise<unknown> | undefined
    while (performance.now() - start < sliceMs) {
      if (this.#dies && performance.now() - start > sliceMs / 2) dying ??= workers[this.#victim].terminate()
      this.#disturb()
      await sleep(this.#prng.below(20))
    }
    await dying
    Atomics.store(words, STOP, 1)
    Atomics.notify(words, STOP)
    const done = await Promise.race([Promise.all(reports), sleep(HANG_MS, undefined, { ref: false })])
    if (done === undefined) return this.#result([], [`a thread hangs:\n${this.#threadTable()}`])
    for (const report of done) this.#wrong.push(...report.wrong)
    const { counters } = this.#memory.stats()
    const isBroken = this.#isBroken
    if (!isBroken) this.#verify(done)
    else this.#verifySalvaged(done)
    return { ...this.#result(done, this.#wrong), counters, isBroken, inDoubt: this.#inDoubt }
  }

  get #dies(): boolean {
    return this.#config.scenario === 'deaths'
  }

  get #isBroken(): boolean {
    return this.#dies && this.#memory.machine.sync.broken !== 0
  }

  /** The thread that is ended. */
  get #victim(): number {
    return this.#config.seed % this.#config.threads
  }

  #task(me: number): RoundTask {
    return {
      config: this.#config,
      me,
      memory: this.#memory.handle,
      file: this.#file.handle,
      space: this.#space.handle,
      whole: this.#whole.handle,
      own: this.#own.handle,
      guests: this.#guests,
      buffers: this.#buffers,
      words: this.#words
    }
  }

  #result(reports: readonly Report[], wrong: readonly string[]): RoundResult {
    const none = { counters: {}, isBroken: false, inDoubt: 0 }
    return { config: this.#config, wrong: wrong.slice(0, MOST_WRONG), reports, checks: this.#checks, ...none }
  }

  /** What the main thread does meanwhile. */
  #disturb(): void {
    try {
      const what = this.#prng.below(6)
      if (what === 0) this.#memory.shrink()
      else if (what === 1) this.#space.smaps()
      else if (what === 2) this.#space.maps()
      else this.#check('while threads work')
    } catch (error) {
      if (this.#isBroken) return
      this.#wrong.push(`main thread: ${(error as Error).stack}`)
    }
  }

  #check(when: string): void {
    this.#checks++
    const lines = this.#memory.check()
    // The end of a thread with the lock is found out by those who wait for it, such as this one.
    if (this.#isBroken) return
    for (const line of lines) this.#wrong.push(`check ${when}: ${line}`)
  }

  /** All is quiet: the bytes are what the threads stored last, here and in the store, and everything comes back. */
  #verify(reports: readonly Report[]): void {
    this.#check('when all are done')
    if (this.#wrong.length > 0) return
    // What the ended thread had in a space of its own may be all there is of a small memory.
    if (this.#dies) this.#closeSpacesOfOthers()
    try {
      this.#verifyBytes(reports, 'in memory', (page, at, bytes) => {
        this.#whole.read(bytes, page * this.#config.pageSize + at)
      })
      this.#file.sync()
      this.#verifyBytes(reports, 'by read', (page, at, bytes) => {
        this.#file.read(bytes, page * this.#config.pageSize + at)
      })
      this.#space.close()
      this.#file.close()
      if (this.#config.backing !== 'memory') this.#verifyStore(reports)
    } catch (error) {
      this.#wrong.push(`at the end: ${(error as Error).stack}`)
      return
    }
    this.#check('when all is closed')
    // This thread's own frame in reserve.
    this.#memory.shrink()
    const free = this.#memory.stats().freeFrames
    if (free !== this.#freeAtStart) this.#wrong.push(`${this.#freeAtStart - free} frames did not come back`)
    this.#memory.close()
  }

  /** What the threads that are left stored is in the store, but for the pages that the memory is in doubt about. */
  #verifySalvaged(reports: readonly Report[]): void {
    try {
      const files = this.#memory.salvage()
      const doubtful = new Set(files.flatMap(file => file.doubtful))
      this.#inDoubt += doubtful.size
      for (const { name, errno } of files)
        this.#expect(errno === 0, () => `what was whole of ${name} could not be saved: errno ${errno}`)
      const sure = (page: number, model: LaneModel): boolean =>
        !doubtful.has(page) && !doubtful.has(page + 1) && model.lastPage !== page
      if (this.#config.backing !== 'memory') this.#verifyStore(reports, sure)
    } catch (error) {
      this.#wrong.push(`salvaging: ${(error as Error).stack}`)
    }
    try {
      this.#memory.close()
    } catch {}
  }

  /** A thread that was ended leaves its address space. */
  #closeSpacesOfOthers(): void {
    const { machine } = this.#memory
    for (let mm = 1; mm <= machine.mms.maxMms; mm++) {
      if (machine.mms.isAlive(mm) && mm !== this.#space.mm.id) sys_exit(new Mm(machine, mm))
    }
  }

  #verifyStore(reports: readonly Report[], sure = everywhere): void {
    const { backing, pages, pageSize } = this.#config
    const bytes = new Uint8Array(pages * pageSize)
    if (backing === 'file') bytes.set(readFileSync(this.#path))
    else sharedStore(this.#buffers.data).read(0, bytes, 0, bytes.length)
    this.#verifyBytes(
      reports,
      'in the store',
      (page, at, target) => {
        const start = page * pageSize + at
        target.set(bytes.subarray(start, start + target.length))
      },
      sure
    )
  }

  #verifyBytes(
    reports: readonly Report[],
    where: string,
    read: (page: number, at: number, bytes: Uint8Array) => void,
    sure = everywhere
  ): void {
    const { scenario, pages, pageSize, threads } = this.#config
    const bytes = new Uint8Array(LANE_BYTES)
    const word = new DataView(bytes.buffer)
    for (let page = 0; page < pages; page++) {
      if (scenario === 'storm') {
        read(page, 0, bytes)
        this.#expect(word.getUint32(0, true) === page + 1, () => `the mark of page ${page} ${where}`)
        continue
      }
      for (const { me, model } of reports) {
        if (model === undefined) continue
        read(page, laneAt(me), bytes)
        if (scenario === 'holes') {
          const stored = (model as HoleModel).stored[page]
          const seen = word.getUint32(0, true)
          this.#expect(
            seen === stored || seen === 0,
            () => `page ${page} of thread ${me} ${where}: ${seen}, not ${stored}`
          )
          continue
        }
        if (!sure(page, model as LaneModel)) continue
        const lane = (model as LaneModel).lanes.subarray(page * LANE_BYTES, (page + 1) * LANE_BYTES)
        this.#expect(
          lane.every((byte, i) => byte === bytes[i]),
          () => `page ${page} of thread ${me} ${where}`
        )
      }
      const owner = reports[page % threads].model as LaneModel | undefined
      if (scenario === 'guests') {
        read(page, 0, bytes)
        this.#expect(word.getUint32(0, true) === page + 1, () => `the mark of page ${page} ${where}`)
      }
      if (scenario === 'holes' || scenario === 'guests' || page === pages - 1 || owner === undefined) continue
      if (!sure(page, owner)) continue
      const { borders } = owner
      const half = new Uint8Array(4)
      read(page, pageSize - 4, half)
      bytes.set(half)
      read(page + 1, 0, half)
      bytes.set(half, 4)
      this.#expect(word.getFloat64(0, true) === borders[page], () => `the border after page ${page} ${where}`)
    }
    if (!this.#isBroken && (scenario === 'lanes' || scenario === 'deaths')) this.#verifyOwn(reports)
  }

  #verifyOwn(reports: readonly Report[]): void {
    if (!this.#own.isMapped || !this.#space.isAlive) return
    const bytes = new Uint8Array(LANE_BYTES)
    for (const { me, model } of reports) {
      if (model === undefined) continue
      const { own } = model as LaneModel
      for (let page = 0; page * LANE_BYTES < own.length; page++) {
        this.#own.read(bytes, page * this.#config.pageSize + laneAt(me))
        const lane = own.subarray(page * LANE_BYTES, (page + 1) * LANE_BYTES)
        this.#expect(
          lane.every((byte, i) => byte === bytes[i]),
          () => `private page ${page} of thread ${me}`
        )
      }
    }
  }

  #expect(holds: boolean, what: () => string): void {
    if (!holds) this.#wrong.push(what())
  }

  /** For a report of threads that hang: all rows in use, and the lock. */
  #threadTable(): string {
    const { sync } = this.#memory.machine
    const rows: string[] = [`machine lock of thread ${sync.lockOwner}, broken ${sync.broken}`]
    for (let t = 0; t < sync.threads.maxThreads; t++) {
      const row = sync.threads.w.subarray(t << THREAD_SHIFT, (t + 1) << THREAD_SHIFT)
      if (row[T_STATE] !== THREAD_FREE) rows.push(`${t}: ${row.join(' ')}`)
    }
    return rows.join('\n')
  }
}

function reportOf(worker: Worker, task: RoundTask): Promise<Report> {
  return new Promise((resolve, reject) => {
    worker.removeAllListeners()
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.once('exit', code => {
      if (task.config.scenario === 'deaths')
        resolve({ me: task.me, operations: 0, checked: 0, outOfMemory: 0, wrong: [] })
      else reject(new Error(`a worker ended with ${code}`))
    })
    worker.postMessage(task)
  })
}
