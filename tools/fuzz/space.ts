/**
 * One address space of a run: its model, what each attached thread reaches it by, and the secondary MMUs that watch it.
 */
import type { Mapping } from '../../src/api/mapping.ts'
import { ShadowTable } from '../../src/api/shadow-table.ts'
import { AddressSpace } from '../../src/api/space.ts'
import { Tlb } from '../../src/api/tlb.ts'
import type { Machine } from '../../src/mm/machine.ts'
import { Mm } from '../../src/syscall/args.ts'
import { sys_mmu_notifier_register } from '../../src/syscall/process.ts'
import { MirrorDevice } from '../../test/support/mirror.ts'
import type { ModelSpace } from './model.ts'

const TLB_ENTRIES = 32
const TLB_BYTES: number = 64 + TLB_ENTRIES * 8

/** What the accessors and the shadow table are for: so many pages from `vpn` on. */
export interface Window {
  readonly vpn: number
  readonly pages: number
}

/** One thread's objects. */
interface Side {
  readonly mm: Mm
  readonly api: AddressSpace
  map: Mapping | undefined
  table: ShadowTable | undefined
}

export class FuzzSpace {
  readonly pages: ModelSpace
  /** The model of brk: bytes from the heap's begin to its end. */
  heapBytes: number
  /** Undefined where threads share the machine: it is an object of one thread. */
  readonly mirror: MirrorDevice | undefined
  /** Of the first thread. */
  readonly tlb: Tlb
  readonly #turn: () => number
  readonly #sides: readonly Side[]
  readonly #window: Window
  readonly #tableAt: number

  /** `byteOffset` is where the tables may lie, `bytesFor` of them. */
  constructor(
    machines: readonly Machine[],
    turn: () => number,
    mm: Mm,
    pages: ModelSpace,
    heapBytes: number,
    window: Window,
    byteOffset: number
  ) {
    this.pages = pages
    this.heapBytes = heapBytes
    this.#turn = turn
    this.#window = window
    this.#tableAt = byteOffset + TLB_BYTES
    this.#sides = machines.map(machine => {
      const own = new Mm(machine, mm.id, mm.generation)
      return { mm: own, api: new AddressSpace(own), map: undefined, table: undefined }
    })
    const [first] = this.#sides
    if (!machines[0].sync.isShared) {
      this.mirror = new MirrorDevice(machines[0], mm.id)
      sys_mmu_notifier_register(first.mm, this.mirror)
    }
    this.tlb = new Tlb(first.api, { byteOffset, nrEntries: TLB_ENTRIES })
  }

  static bytesFor(pages: number): number {
    return TLB_BYTES + ShadowTable.bytesFor(pages)
  }

  get mm(): Mm {
    return this.#side.mm
  }

  /** The window, for its accessors. It is there whatever is mapped. */
  get map(): Mapping {
    const side = this.#side
    side.map ??= side.api.window(undefined, true, this.#window.vpn, this.#window.pages)
    return side.map
  }

  /** The shadow table, made when it is first used. */
  get table(): ShadowTable {
    const first = this.#sides[0]
    first.map ??= first.api.window(undefined, true, this.#window.vpn, this.#window.pages)
    first.table ??= this.#makeTable(first.map, this.#window.pages)
    const side = this.#side
    side.table ??= ShadowTable.adopt(this.map, first.table.handle)
    return side.table
  }

  /** Another shadow table in the place of the old one, of the first `nrEntries` pages. */
  retable(nrEntries: number): void {
    this.table.close()
    for (const side of this.#sides) side.table = undefined
    const first = this.#sides[0]
    first.table = this.#makeTable(first.map as Mapping, nrEntries)
  }

  #makeTable(map: Mapping, nrEntries: number): ShadowTable {
    return new ShadowTable(map, { byteOffset: this.#tableAt, nrEntries })
  }

  get #side(): Side {
    return this.#sides[this.#turn()]
  }
}
