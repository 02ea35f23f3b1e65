/**
 * What the page does, one exported function a test. Each answers with plain data; the expectations are in
 * browser.test.ts.
 */
import { blobStore, blobStoreSync, blobUrlStore } from '/dist/blob.js'
import { Memory, memoryStore } from '/dist/fremap.js'
import { httpRange } from '/dist/http.js'

const PAGE = 4096

/** What an access ends in: its value, or its error's code. */
function outcome(act) {
  try {
    return act()
  } catch ({ code, fault, message }) {
    return { code, fault, message }
  }
}

class Thread {
  constructor(memory, number) {
    this.number = number
    this.worker = new Worker('/page/worker.mjs', { type: 'module' })
    this.pending = new Map()
    this.worker.onmessage = ({ data }) => {
      this.pending.get(data.id)?.(data)
      this.pending.delete(data.id)
    }
    this.worker.onerror = event => console.error(`worker: ${event.message}`)
    this.next = 1
    this.attached = this.do('attach', memory.handle, number)
  }

  async do(call, ...args) {
    const id = this.next++
    const answer = new Promise(resolve => this.pending.set(id, resolve))
    this.worker.postMessage({ id, call, args })
    const { value, error } = await answer
    if (error !== undefined) throw Object.assign(new Error(error.message), error)
    return value
  }
}

/** How long the page goes without a turn while `work` is under way, at most. */
async function longestPause(work) {
  let longest = 0
  let last = performance.now()
  let isOver = false
  const watch = async () => {
    while (!isOver) {
      await new Promise(resolve => setTimeout(resolve, 0))
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }
  }
  const watching = watch()
  const result = await work()
  isOver = true
  await watching
  return { result, longest }
}

export async function isolated() {
  return {
    isolated: crossOriginIsolated,
    mayWait: !outcome(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0))?.message
  }
}

export async function singleThread() {
  const memory = new Memory({ size: '1MiB' })
  const file = memory.open(memoryStore({ sizeBytes: 1000 * PAGE }))
  const map = memory.space().map(file, { writable: true })
  for (let page = 0; page < 1000; page++) map.setUint32(page * PAGE, page + 1)
  map.remap({ at: 0, page: 990, count: 10 })
  const seen = [map.getUint32(0), map.getUint32(9 * PAGE), map.getUint32(500 * PAGE)]
  map.sync()
  const evicted = memory.stats().counters.pgsteal
  const wrong = memory.check()
  memory.close()
  return { seen, evicted, wrong }
}

export async function overHttp() {
  const memory = new Memory({ size: '1MiB' })
  const file = await memory.openAsync(await httpRange(new URL('/file', location.href)))
  const map = memory.space().map(file)
  const before = outcome(() => map.getUint32(77 * PAGE))
  await map.ready({ offset: 77 * PAGE, length: 2 * PAGE })
  const after = map.getUint32(77 * PAGE)
  const bytes = new Uint8Array(file.size)
  await map.readAsync(bytes, 0)
  const words = new Uint32Array(bytes.buffer, 0, bytes.length >>> 2)
  const inOrder = words.every((word, i) => i % 1024 !== 0 || word === i / 1024 + 1)
  const aborted = await map.ready({ signal: AbortSignal.abort() }).catch(error => error.name)
  const wrong = memory.check()
  await memory.closeAsync()
  return { before, after, inOrder, size: bytes.length, aborted, wrong }
}

export async function withWorker() {
  const memory = new Memory({ size: 64 * (PAGE + 44), threads: 3, thread: 1 })
  const space = memory.space()
  const map = space.map(await memory.openAsync(await httpRange(new URL('/file', location.href))))
  const own = space.map(memory.shared(4 * PAGE), { writable: true })
  const thread = new Thread(memory, 2)
  await thread.attached
  await thread.do('adopt', 'map', map.handle)
  await thread.do('adopt', 'own', own.handle)
  // The worker blocks at each page; this thread, which may not block, brings them.
  const { result: sum, longest } = await longestPause(() => thread.do('sum'))
  own.setUint32(8, 4711)
  const theySee = await thread.do('load', 'own', 8)
  await thread.do('store', 'own', 3 * PAGE, 42)
  const weSee = own.getUint32(3 * PAGE)
  const wrong = memory.check()
  await thread.do('detach')
  const threads = memory.stats().threads.length
  await memory.closeAsync()
  return { sum, theySee, weSee, wrong, threads, longest }
}

export async function pagerInWorker() {
  const memory = new Memory({ size: '1MiB', threads: 3, thread: 1, waitForPages: true })
  const thread = new Thread(memory, 2)
  await thread.attached
  const map = memory.space().map(memory.adopt(await thread.do('open', new URL('/file', location.href).href)))
  const before = outcome(() => map.getUint32(9 * PAGE))
  const ready = await map.ready({ offset: 9 * PAGE, length: PAGE })
  const after = map.getUint32(9 * PAGE)
  thread.worker.terminate()
  memory.ended(2)
  const gone = outcome(() => map.getUint32(300 * PAGE))
  const rejected = await map.ready({ offset: 300 * PAGE, length: PAGE }).catch(error => error.code)
  const wrong = memory.check()
  await memory.closeAsync()
  return { before, ready, after, gone, rejected, wrong }
}

export async function lockedByWorker() {
  const memory = new Memory({ size: '1MiB', threads: 3, thread: 1 })
  const space = memory.space()
  const map = space.map(memory.open(memoryStore({ sizeBytes: 64 * PAGE })))
  const later = space.map(await memory.openAsync(await httpRange(new URL('/file', location.href))))
  const thread = new Thread(memory, 2)
  await thread.attached
  const gate = new Int32Array(new SharedArrayBuffer(8))
  const held = thread.do('holdLock', gate)
  await Atomics.waitAsync(gate, 1, 0).value
  const busy = outcome(() => map.getUint32(5 * PAGE))
  let isReady = false
  const { longest } = await longestPause(async () => {
    const ready = Promise.all([later.ready({ offset: 0, length: PAGE }), map.ready({ offset: 0, length: PAGE })])
    void ready.then(() => {
      isReady = true
    })
    await new Promise(resolve => setTimeout(resolve, 300))
  })
  const readyTooEarly = isReady
  Atomics.store(gate, 0, 1)
  Atomics.notify(gate, 0)
  await held
  await later.ready({ offset: 0, length: PAGE })
  const after = later.getUint32(0)
  await thread.do('detach')
  await memory.closeAsync()
  return { busy, readyTooEarly, after, longest }
}

/** A page that has no shared memory. */
export function notIsolated() {
  return { isolated: crossOriginIsolated, memory: outcome(() => new Memory({ size: '1MiB' })).message }
}

/** What opening and reading a file of another origin ends in. */
export async function otherOrigin(url) {
  try {
    const store = await httpRange(url, { retries: 0 })
    return await store.read(0, new Uint8Array(8), 0, 8)
  } catch ({ code, message }) {
    return `${code} ${message}`
  }
}

export async function relative() {
  const base = document.head.appendChild(document.createElement('base'))
  base.href = '/below/'
  const store = await httpRange('file')
  base.remove()
  return [store.name, new URL((await httpRange('file')).handle.url).pathname]
}

/** A file as a user chooses it, and its URL; a worker reads it at once. */
export async function blobs() {
  const contents = Uint8Array.from({ length: 100 * PAGE + 5 }, (_, i) => i % 251)
  const file = new File([contents], 'chosen.bin')
  const memory = new Memory({ size: '256KiB', threads: 2, thread: 1 })
  const space = memory.space()
  const sums = []
  for (const store of [blobStore(file), await blobUrlStore(URL.createObjectURL(file))]) {
    const bytes = new Uint8Array(contents.length)
    await space.map(await memory.openAsync(store)).readAsync(bytes, 0)
    sums.push(bytes.every((byte, i) => byte === i % 251))
  }
  const refused = outcome(() => blobStoreSync(file)).message
  const thread = new Thread(memory, 2)
  await thread.attached
  const wrong = await thread.do('readBlob', file)
  await thread.do('detach')
  await memory.closeAsync()
  return { name: blobStore(file).name, sums, refused, wrong }
}

/** The worker is ended while it waits for a page, and another one while it has the machine lock. */
export async function endedWorkers() {
  const memory = new Memory({ size: '1MiB', threads: 3, thread: 1 })
  const space = memory.space()
  const file = await memory.openAsync(await httpRange(new URL('/slow', location.href)))
  const map = space.map(file)
  const first = new Thread(memory, 2)
  await first.attached
  await first.do('adopt', 'map', map.handle)
  void first.do('load', 'map', 0)
  while (memory.stats().pagesUnderWay === 0) await new Promise(resolve => setTimeout(resolve, 1))
  first.worker.terminate()
  memory.ended(2)
  const wrong = memory.check()
  const threads = memory.stats().threads.length
  const second = new Thread(memory, 3)
  await second.attached
  const gate = new Int32Array(new SharedArrayBuffer(8))
  void second.do('holdLock', gate)
  await Atomics.waitAsync(gate, 1, 0).value
  second.worker.terminate()
  memory.ended(3)
  const broken = outcome(() => map.getUint32(0))
  const rejected = await map.ready().catch(error => error.code)
  await memory.closeAsync().catch(() => {})
  return { wrong, threads, broken, rejected }
}
