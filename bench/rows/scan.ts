/** Scans of resident pages against one Uint8Array: a window in file order, and one that shows its pages shuffled. */
import type { BenchRow, Context } from '../context.ts'
import { inBlocks, type Sample, type Side, timed } from '../harness.ts'
import { fold, permutation } from '../random.ts'
import { type Mapping, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20
const BULK = 64 * 1024

function scanBytes(context: Context): number {
  return context.size(64 * MIB, 16 * MIB)
}

/** Byte i of what is scanned. */
function byteAt(i: number): number {
  return (i * 7 + (i >>> 11)) & 0xff
}

function filled(length: number): Uint8Array {
  const array = new Uint8Array(length)
  for (let i = 0; i < length; i++) array[i] = byteAt(i)
  return array
}

type Order = 'linear' | 'shuffled'

interface Scan {
  readonly subject: Subject
  readonly lengthBytes: number
  readonly order: Order
}

function withMapping({ subject, lengthBytes, order }: Scan, run: (map: Mapping) => Sample): Side {
  const memory = new subject.Memory({ size: Math.ceil(lengthBytes * 1.125) + 16 * MIB })
  const map = memory.space().map(memory.shared(lengthBytes), { writable: true })
  if (order === 'shuffled') map.remapPages(0, permutation(lengthBytes / PAGE))
  map.write(filled(lengthBytes), 0)
  return { run: () => run(map), cleanup: () => memory.close() }
}

// The next two loops are one text on purpose: each side's copy sees only its own types. The array's side is called
// for 64 KiB at a time, so that a call costs it nothing.

function sumOfArray(start: number, bytes: Uint8Array, from: number, to: number): number {
  let sum = start | 0
  for (let i = from; i < to; i++) sum = (sum + bytes[i]) | 0
  return sum
}

function sumOfView(start: number, bytes: Uint8Array, from: number, to: number): number {
  let sum = start | 0
  for (let i = from; i < to; i++) sum = (sum + bytes[i]) | 0
  return sum
}

function arrayScan(length: number): Side {
  const array = filled(length)
  const run = () =>
    timed(length / 1024, () => {
      let sum = 0
      for (let offset = 0; offset < length; offset += BULK) sum = sumOfArray(sum, array, offset, offset + BULK)
      return sum
    })
  return { run, cleanup: () => {} }
}

function viewBlock(map: Mapping, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let i = from; i < to; i++) sum = sumOfView(sum, map.page(i), 0, PAGE)
  return sum
}

function viewScan(scan: Scan): Side {
  const { lengthBytes } = scan
  return withMapping(scan, map => timed(lengthBytes / 1024, () => inBlocks(lengthBytes / PAGE, map, viewBlock)))
}

function arrayCopy(length: number): Side {
  const array = filled(length)
  const target = new Uint8Array(BULK)
  const run = () =>
    timed(length / 1024, () => {
      let checksum = 0
      for (let offset = 0; offset < length; offset += BULK) {
        target.set(array.subarray(offset, offset + BULK))
        checksum = fold(checksum, target[(offset >>> 16) & (BULK - 1)])
      }
      return checksum
    })
  return { run, cleanup: () => {} }
}

function bulkRead(scan: Scan): Side {
  const target = new Uint8Array(BULK)
  const { lengthBytes } = scan
  return withMapping(scan, map =>
    timed(lengthBytes / 1024, () => {
      let checksum = 0
      for (let offset = 0; offset < lengthBytes; offset += BULK) {
        map.read(target, offset)
        checksum = fold(checksum, target[(offset >>> 16) & (BULK - 1)])
      }
      return checksum
    })
  )
}

function scanRow(
  name: string,
  what: string,
  against: string,
  order: Order,
  ours: (scan: Scan) => Side,
  theirs: (lengthBytes: number) => Side
): BenchRow {
  return {
    name,
    what,
    against,
    unit: 'ns/KiB',
    sense: 'cost',
    reach: order === 'linear' ? { ratio: 1.1, better: 'lower' } : undefined,
    ours: (context, subject) => ours({ subject, lengthBytes: scanBytes(context), order }),
    theirs: context => theirs(scanBytes(context))
  }
}

const VIEWS = 'sum of all bytes of 64 MiB through borrowed page views'
const SUM = 'the same sum over one Uint8Array'
const BULK_READS = 'bulk reads of 64 KiB over 64 MiB'
const COPIES = 'the same copies out of one Uint8Array'
const SHUFFLED = 'of a window in random page order; the array is in order'

export const scanRows: readonly BenchRow[] = [
  scanRow('scan/views', VIEWS, SUM, 'linear', viewScan, arrayScan),
  scanRow('scan/bulk', BULK_READS, COPIES, 'linear', bulkRead, arrayCopy),
  scanRow('scan/views-shuffled', `${VIEWS} ${SHUFFLED}`, SUM, 'shuffled', viewScan, arrayScan),
  scanRow('scan/bulk-shuffled', `${BULK_READS} ${SHUFFLED}`, COPIES, 'shuffled', bulkRead, arrayCopy)
]
