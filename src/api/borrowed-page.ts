/** A pinned page: its bytes stay where they are until it is disposed of. Made by `mapping.borrow`. */
import { ENOMEM } from '../abi/errno.ts'
import { inspectedAs, summary } from '../base/printing.ts'
import type { Machine } from '../mm/machine.ts'
import { systemError } from './errors.ts'

export class BorrowedPage {
  static {
    inspectedAs(BorrowedPage, page => {
      const state = page.#frame >= 0 ? '' : 'given back'
      return summary('BorrowedPage', { length: page.bytes.length, writable: page.#writes }, state)
    })
  }

  /** The page's bytes, shared with every mapping of it. */
  readonly bytes: Uint8Array
  readonly #machine: Machine
  readonly #writes: boolean
  #frame: number

  /** @internal */
  constructor(machine: Machine, frame: number, access: 'read' | 'write') {
    const { u8, pageSize } = machine.ram
    if (frame !== 0 && !machine.frames.pin(frame)) {
      throw systemError(-ENOMEM, 'pin', undefined, 'this page is borrowed too often; give some back')
    }
    if (frame !== 0) machine.sync.threads.notePin(machine.sync.me, access === 'write' ? -frame : frame)
    this.#machine = machine
    this.#frame = frame
    this.#writes = access === 'write'
    this.bytes = u8.subarray(frame * pageSize, (frame + 1) * pageSize)
  }

  /** What it is, for loggers: a small plain object. */
  toJSON(): object {
    return { kind: 'page', length: this.bytes.length, writable: this.#writes, isHeld: this.#frame >= 0 }
  }

  /** Gives the page back. The view must not be used any more. */
  release(): void {
    const frame = this.#frame
    if (frame <= 0) return
    this.#frame = -1
    const m = this.#machine
    m.giveBack(() => {
      m.sync.threads.forgetPin(m.sync.me, this.#writes ? -frame : frame)
      // Writeback may have cleaned the page while we went on storing to it.
      if (this.#writes) m.cache.setDirty(frame)
      m.frames.unpin(frame)
      m.putFrame(frame)
    })
  }

  [Symbol.dispose](): void {
    this.release()
  }
}
