/** A pinned page: its bytes stay where they are until it is disposed of. Made by `mapping.borrow`. */
import { ENOMEM } from '../abi/errno.ts'
import type { Machine } from '../mm/machine.ts'
import { systemError } from './errors.ts'

export class BorrowedPage {
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
