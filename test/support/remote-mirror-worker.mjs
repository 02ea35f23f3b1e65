/**
 * The other side of remote-mirror.ts: keeps translations of its own and counts up words of random pages through them.
 *
 * workerData: `mailbox`, `ram` (buffer and byteOffset), `pageSize`, `firstVpn`, `pages`, `steps`, `limitMs`, `seed`. It
 * ends after so many steps or milliseconds: the more it asks for, the more often the other side's event loop turns and
 * takes pages away. Messages out: `{ vpn, access }` for a fault; at the end `{ counts }`, how often the word of each
 * page was counted up, or `{ error }`.
 */
import { parentPort, workerData } from 'node:worker_threads'

const { mailbox, ram, pageSize, firstVpn, pages, steps, limitMs, seed } = workerData
const [BELL, SENT, FROM, TO, ACKED, DROPPED, ANSWERED, FRAME, RIGHTS, GONE] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
const words = new Int32Array(ram.buffer, ram.byteOffset)
/** By virtual page: `{ frame, writable }`. */
const translations = new Map()
/** The page that is being asked for, and whether an invalidation of it came meanwhile. */
let asked = -1
let overtaken = false

/** Between two steps: whoever invalidates sleeps until this has run. */
function serve() {
  const sent = Atomics.load(mailbox, SENT)
  if (Atomics.load(mailbox, ACKED) === sent) return
  const from = Atomics.load(mailbox, FROM)
  const to = Atomics.load(mailbox, TO)
  let dropped = 0
  if (to - from === 1) dropped = translations.delete(from) ? 1 : 0
  else for (const vpn of [...translations.keys()]) if (vpn >= from && vpn < to && translations.delete(vpn)) dropped++
  if (asked >= from && asked < to) overtaken = true
  Atomics.store(mailbox, DROPPED, dropped)
  Atomics.store(mailbox, ACKED, sent)
  Atomics.notify(mailbox, ACKED)
}

function fault(vpn, access) {
  for (;;) {
    const answered = Atomics.load(mailbox, ANSWERED)
    asked = vpn
    overtaken = false
    parentPort.postMessage({ vpn, access })
    for (;;) {
      const bell = Atomics.load(mailbox, BELL)
      serve()
      if (Atomics.load(mailbox, ANSWERED) !== answered) break
      Atomics.wait(mailbox, BELL, bell)
    }
    asked = -1
    const frame = Atomics.load(mailbox, FRAME)
    if (frame < 0) throw new Error(`fault ${-frame} on page ${vpn - firstVpn}`)
    if (overtaken) continue
    const made = { frame, writable: Atomics.load(mailbox, RIGHTS) === 1 }
    translations.set(vpn, made)
    return made
  }
}

/** Index of the word of a page that is counted. Good until the next `serve`. */
function wordOf(vpn, access) {
  let found = translations.get(vpn)
  if (found === undefined || (access === 1 && !found.writable)) found = fault(vpn, access)
  return (found.frame * pageSize) / 4 + 1
}

let state = seed | 1
function below(n) {
  state ^= state << 13
  state ^= state >>> 17
  state ^= state << 5
  return (state >>> 0) % n
}

const counts = new Int32Array(pages)
try {
  const end = Date.now() + limitMs
  for (let step = 0; step < steps && ((step & 1023) !== 0 || Date.now() < end); step++) {
    serve()
    const page = below(pages)
    const seen = words[wordOf(firstVpn + page, 0)]
    if (seen !== counts[page]) throw new Error(`step ${step}: page ${page} shows ${seen}, not ${counts[page]}`)
    // What the load was translated by may be gone, if the store had to ask.
    words[wordOf(firstVpn + page, 1)]++
    counts[page]++
  }
  parentPort.postMessage({ counts })
} catch (error) {
  parentPort.postMessage({ error: error.message })
} finally {
  Atomics.store(mailbox, GONE, 1)
  Atomics.notify(mailbox, ACKED)
}
