/** Sequential scans of resident pages, through a window in random page order, against one Uint8Array. */
import type { BenchRow, Context } from '../context.ts'
import { inBlocks, type Side, timed } from '../harness.ts'
import { fold, permutation } from '../random.ts'
import { PAGE, type Subject, type SubjectMapping } from '../subject.ts'

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

function withMapping(subject: Subject, length: number, run: (map: SubjectMapping) => ReturnType<Side['run']>): Side {
  const memory = new subject.Memory({ size: Math.ceil(length * 1.125) + 16 * MIB })
  const shared = memory.shared(length)
  const map = memory.space().map(shared, { writable: true })
  map.remapPages(0, permutation(length / PAGE))
  map.write(filled(length), 0)
  const cleanup = (): void => {
    map.unmap()
    shared.close()
  }
  return { run: () => run(map), cleanup }
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

function viewBlock(map: SubjectMapping, from: number, to: number, start: number): number {
  let sum = start | 0
  for (let i = from; i < to; i++) sum = sumOfView(sum, map.page(i), 0, PAGE)
  return sum
}

function viewScan(subject: Subject, length: number): Side {
  return withMapping(subject, length, map => timed(length / 1024, () => inBlocks(length / PAGE, map, viewBlock)))
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

function bulkRead(subject: Subject, length: number): Side {
  const target = new Uint8Array(BULK)
  return withMapping(subject, length, map =>
    timed(length / 1024, () => {
      let checksum = 0
      for (let offset = 0; offset < length; offset += BULK) {
        map.read(target, offset)
        checksum = fold(checksum, target[(offset >>> 16) & (BULK - 1)])
      }
      return checksum
    })
  )
}

export const scanRows: readonly BenchRow[] = [
  {
    name: 'scan/views',
    what: 'sum of all bytes of 64 MiB through borrowed page views',
    against: 'the same sum over one Uint8Array',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: { ratio: 1.1, better: 'lower' },
    ours: (context, subject) => viewScan(subject, scanBytes(context)),
    theirs: context => arrayScan(scanBytes(context))
  },
  {
    name: 'scan/bulk',
    what: 'bulk reads of 64 KiB over 64 MiB',
    against: 'the same copies out of one Uint8Array',
    unit: 'ns/KiB',
    sense: 'cost',
    reach: { ratio: 1.1, better: 'lower' },
    ours: (context, subject) => bulkRead(subject, scanBytes(context)),
    theirs: context => arrayCopy(scanBytes(context))
  }
]
