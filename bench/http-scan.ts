/**
 * A thread that reads a mapping from its first byte to its last, for the row `http/mapped`: accesses simply block until
 * the page is there.
 *
 * For each message, the handles of a memory and of a mapping, it attaches, folds the first byte of each page, detaches,
 * and answers with the checksum.
 */
import { parentPort, workerData } from 'node:worker_threads'
import type * as Fremap from '../src/index.ts'
import type { MappingHandle, MemoryHandle } from '../src/index.ts'
import { fold } from './random.ts'
import { PAGE } from './subject.ts'

export interface ScanTask {
  readonly memory: MemoryHandle
  readonly mapping: MappingHandle
}

const { Memory } = (await import(workerData.build)) as typeof Fremap

parentPort?.on('message', ({ memory, mapping }: ScanTask) => {
  const attached = Memory.attach(memory)
  const map = attached.adopt(mapping)
  let checksum = 0
  for (let at = 0; at < map.length; at += PAGE) checksum = fold(checksum, map.getUint8(at))
  attached.detach()
  parentPort?.postMessage(checksum)
})
