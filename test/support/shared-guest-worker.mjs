/**
 * A thread that attaches to a memory: runs the guest of guest/ and serves its faults, works through a TLB,
 * or disturbs those that do.
 *
 * workerData: `modules` (src/index and src/stores/node-file as JavaScript), `memory`, `mapping`, `table` (handles, the
 * last one only for a thread with a guest), `wasm` (the memory), `binary`, `control` (int32 words: STOP ends `disturb`,
 * READY tells that a command has begun, DROPPED that a TLB has lost an entry), `thread` and `patienceMs` if it is to be
 * another. Messages in: one command with its arguments; out: `{ result }` or `{ error, code }`.
 */
import { parentPort, threadId, workerData } from 'node:worker_threads'

const { modules, memory: memoryHandle, mapping, table: tableHandle, wasm, binary, control, patienceMs } = workerData
const { Memory, SHADOW_READ, SHADOW_WRITE, ShadowTable, Tlb } = await import(modules.index)
const { nodeFiles } = await import(modules.nodeFile)
const [STOP, READY, DROPPED] = [0, 1, 2]
const PAGE = 4096

const memory = Memory.attach(memoryHandle, { stores: [nodeFiles], thread: threadId })
if (patienceMs !== undefined) memory.machine.sync.patienceMs = patienceMs
const map = memory.adopt(mapping)
/** Without one this thread knows nothing of a guest. */
const table = tableHandle === undefined ? undefined : ShadowTable.adopt(map, tableHandle)
const guest = table?.guest()
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary), {
  env: { memory: wasm },
  host: { fault: (page, access) => table.fault(page, access), passed: () => guest.passed() }
})

function ready() {
  tell(READY)
}

function tell(word) {
  Atomics.add(control, word, 1)
  Atomics.notify(control, word)
}

const commands = {
  /** Calls the guest. */
  call: ({ name, args }) => guest.run(() => exports[name](...args)),
  /** Calls it without saying so to anybody. */
  bare: ({ name, args }) => exports[name](...args),
  /** Is in the guest until this thread is ended. */
  hot: ({ first, length }) => {
    guest.run(() => {
      ready()
      for (;;) exports.sum(first, length)
    })
  },
  /**
   * Ends this thread in the middle of the guest, once somebody waits for it (KICK is `kick`); or says so by DROPPED, to
   * be ended.
   */
  die: ({ kick, byItself }) => {
    const words = new Int32Array(wasm.buffer)
    guest.run(() => {
      exports.sum(0, PAGE)
      ready()
      while (Atomics.load(words, kick) === 0);
      if (byItself) process.exit(0)
      tell(DROPPED)
      for (;;);
    })
  },
  remap: options => {
    ready()
    map.remap(options)
  },
  count,
  truncate: ({ size }) => map.file.truncate(size),
  disturb
}

function randomFrom(seed) {
  let state = seed | 1
  return n => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % n
  }
}

/**
 * Until STOP, and until it has done each of its things: takes pages of all lanes away under the guests, and works on a
 * lane of its own, whose words and order it knows. `shown` is the file page of each window page, `own` and `tail` are
 * [first, count] in window pages; the file ends with `tail`.
 */
function disturb({ seed, shown, own, tail, spare }) {
  const below = randomFrom(seed)
  const [first, count] = own
  const counts = { steps: 0, remaps: 0, shrinks: 0, truncates: 0 }
  /** The second word of each file page of the own lane. */
  const words = new Map()
  for (let i = first; i < first + count; i++) words.set(shown[i], map.getUint32(i * PAGE + 4))
  const size = shown.length * PAGE
  const tailBytes = tail[1] * PAGE
  ready()
  while (Atomics.load(control, STOP) === 0 || Object.values(counts).includes(0)) {
    counts.steps++
    const what = below(1000)
    const page = first + below(count)
    if (what < 500) {
      const value = below(2 ** 31)
      map.setUint32(page * PAGE + 4, value)
      words.set(shown[page], value)
    } else if (what < 900) {
      const found = map.getUint32(page * PAGE + 4)
      if (found !== words.get(shown[page]))
        throw new Error(`page ${page} shows ${found}, not ${words.get(shown[page])}`)
    } else if (what < 940) {
      const to = first + below(count)
      const swapped = shown[page]
      shown[page] = shown[to]
      shown[to] = swapped
      map.remap({ at: page, page: shown[page] })
      map.remap({ at: to, page: shown[to] })
      counts.remaps++
    } else if (what < 980) {
      // What a guest looks at goes away, and comes back when it is touched.
      const at = below(spare) + 1
      map.remap({ at, page: shown[at] })
      counts.remaps++
    } else if (what < 990) {
      const other = map.space.map(map.file, { writable: true, length: 64 * PAGE })
      other.getUint8(below(64) * PAGE)
      other.unmap()
    } else if (what < 995) map.sync({ offset: page * PAGE, length: PAGE })
    else if (what < 998) {
      memory.shrink()
      counts.shrinks++
    } else {
      map.file.truncate(size - tailBytes)
      map.file.truncate(size)
      const at = tail[0] + below(tail[1])
      if (map.getUint32(at * PAGE) !== 0) throw new Error(`page ${at} was cut away, but is there`)
      map.setUint32(at * PAGE, 7)
      counts.truncates++
    }
  }
  return counts
}

/**
 * Counts up the second words of random pages [first, first + pages) of the window, for `steps` steps at least and until
 * STOP, through a TLB at byte `at` of the memory. Knows them all. This thread ends at step `endsAt`; one that does not
 * tells when its TLB first lost an entry. → `counts`, and what the TLB counted.
 */
function count({ seed, first, pages, at, nrEntries, steps, endsAt }) {
  const below = randomFrom(seed)
  const words = new Int32Array(wasm.buffer)
  const tlb = new Tlb(map.space, { byteOffset: at, nrEntries })
  const counts = new Int32Array(pages)
  const vpn = map.address / PAGE + first
  let hasLost = false
  tlb.guest().run(() => {
    for (let step = 0; step < steps || Atomics.load(control, STOP) === 0; step++) {
      const page = below(pages)
      const seen = words[(tlb.translate(vpn + page, SHADOW_READ) >>> 2) + 1]
      if (seen !== counts[page]) throw new Error(`step ${step}: page ${page} shows ${seen}, not ${counts[page]}`)
      words[(tlb.translate(vpn + page, SHADOW_WRITE) >>> 2) + 1]++
      counts[page]++
      tlb.safePoint()
      if (step === endsAt) process.exit(0)
      if (endsAt === undefined && !hasLost && tlb.nrDropped > 0) {
        hasLost = true
        tell(DROPPED)
      }
    }
  })
  const { nrMisses, nrDropped, nrWaits } = tlb
  tlb.close()
  return { counts, nrMisses, nrDropped, nrWaits }
}

parentPort.on('message', ({ command, ...options }) => {
  try {
    parentPort.postMessage({ result: commands[command](options) })
  } catch (error) {
    parentPort.postMessage({ error: error.message, code: error.code })
  }
})
