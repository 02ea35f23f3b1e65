/**
 * A secondary MMU after XPMEM: its translations are somewhere else, so each invalidation is a message, and the notifier
 * sleeps until the other side has acknowledged it. The other side is test/support/remote-mirror-worker.mjs.
 *
 * The mailbox, int32 words:
 *
 *     BELL                    the other side sleeps on it; rung for whatever there is for it
 *     SENT, FROM, TO          number of the last invalidation, and its pages [FROM, TO)
 *     ACKED, DROPPED          number of the last one that was acknowledged, and how many translations it took
 *     ANSWERED, FRAME, RIGHTS number of faults answered, and the last answer: a frame or -(fault code); 1 if writable
 *     GONE                    1 once the other side keeps no translations and will not answer any more
 *
 * The other side asks for a page by a message, and sleeps as well. It must serve invalidations while it does, since
 * this side may be sleeping for one; and an answer that one of them has overtaken is void.
 */
import { TASK_PAGES } from '../../src/abi/limits.ts'
import { translate } from '../../src/mm/access.ts'
import type { Machine } from '../../src/mm/machine.ts'
import type { MmuNotifier } from '../../src/notify/notifier.ts'
import { PTE_WRITE } from '../../src/pgtable/pte.ts'

const [BELL, SENT, FROM, TO, ACKED, DROPPED, ANSWERED, FRAME, RIGHTS, GONE] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
const NR_WORDS = 10
const MAX_TRIES = 100

export class RemoteMirror implements MmuNotifier {
  readonly mailbox: Int32Array = new Int32Array(new SharedArrayBuffer(NR_WORDS * 4))
  readonly #machine: Machine
  readonly #mm: number
  /** Invalidations sent, and those of them that this side had to sleep for. */
  nrSent = 0
  nrSleeps = 0

  constructor(machine: Machine, mm: number) {
    this.#machine = machine
    this.#mm = mm
  }

  /** Answers a fault of the other side. */
  answer(vpn: number, access: number): void {
    const { mailbox } = this
    const frame = this.#fault(vpn, access)
    Atomics.store(mailbox, FRAME, frame)
    const writable = frame >= 0 && (this.#machine.tables.get(this.#mm, vpn) & PTE_WRITE) !== 0
    Atomics.store(mailbox, RIGHTS, writable ? 1 : 0)
    Atomics.add(mailbox, ANSWERED, 1)
    this.#ring()
  }

  invalidateRangeStart(_mm: number, start: number, end: number): void {
    this.#send(start, end)
  }

  invalidatePage(_mm: number, vpn: number): void {
    this.#send(vpn, vpn + 1)
  }

  clearFlushYoung(_mm: number, start: number, end: number): boolean {
    return this.#send(start, end) > 0
  }

  release(): void {
    this.#send(0, TASK_PAGES)
  }

  #fault(vpn: number, access: number): number {
    const { notifiers } = this.#machine
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const seq = notifiers.seq(this.#mm)
      const frame = translate(this.#machine, this.#mm, vpn, access)
      if (frame < 0 || (notifiers.count(this.#mm) === 0 && notifiers.seq(this.#mm) === seq)) return frame
    }
    throw new Error(`the fault on page ${vpn} does not come to an end`)
  }

  /** Returns when the other side has dropped what it had of these pages. → how many translations that were. */
  #send(from: number, to: number): number {
    const { mailbox } = this
    if (Atomics.load(mailbox, GONE) !== 0) return 0
    this.nrSent++
    Atomics.store(mailbox, FROM, from)
    Atomics.store(mailbox, TO, to)
    const number = Atomics.add(mailbox, SENT, 1) + 1
    this.#ring()
    for (;;) {
      const acked = Atomics.load(mailbox, ACKED)
      if (acked === number) return Atomics.load(mailbox, DROPPED)
      if (Atomics.load(mailbox, GONE) !== 0) return 0
      if (Atomics.wait(mailbox, ACKED, acked) === 'ok') this.nrSleeps++
    }
  }

  #ring(): void {
    Atomics.add(this.mailbox, BELL, 1)
    Atomics.notify(this.mailbox, BELL)
  }
}
