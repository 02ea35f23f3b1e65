/**
 * ENOMEM is for memory that cannot be freed: while another thread works on pages, whoever finds no frame waits for it.
 */
import { expect, test } from 'vitest'
import { MAP_FIXED, MAP_NONBLOCK, MAP_SHARED, PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts'
import { T_GOING, T_IN_IO, T_RUN_PAGES } from '../../src/sync/threads.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import { sys_mmap } from '../../src/syscall/memory.ts'
import { type AttachedRig, errorOf, PAGE, useAttached } from './support.ts'

const attached = useAttached()

/** Takes all frames: what is in the cache goes. → gives them back. */
function takeAll({ mine }: AttachedRig): () => void {
  const { allocator, reclaim } = mine.m
  const taken: number[] = []
  mine.m.run(() => reclaim.shrinkAll())
  for (let frame = allocator.allocNoReclaim(); frame !== 0; frame = allocator.allocNoReclaim()) taken.push(frame)
  return () => {
    for (const frame of taken) allocator.free(frame)
  }
}

/** In the middle of a read of the first thread, with no frame left: what the second one does, and what wakes it. */
function whileReading(rig: AttachedRig, act: () => void, page = 10): void {
  rig.during('read', () => {
    const giveBack = takeAll(rig)
    rig.asleep(giveBack)
    act()
  })
  expect(rig.mine.load(page)).toBe(page + 1)
}

test('a load, while another thread reads', () => {
  const rig = attached()
  const seen: number[] = []
  whileReading(rig, () => seen.push(rig.theirs.load(20)))
  expect(seen).toEqual([21])
})

test.each([
  ['a bulk copy', (rig: AttachedRig) => rig.theirs.map.read(new Uint8Array(PAGE), 20 * PAGE)],
  ['a read of the file', (rig: AttachedRig) => rig.theirs.file.read(new Uint8Array(PAGE), 20 * PAGE)],
  ['a write to the file', (rig: AttachedRig) => rig.theirs.file.write(new Uint8Array(PAGE).fill(20), 20 * PAGE)],
  ['a populate', (rig: AttachedRig) => expect(rig.theirs.map.populateSync({ offset: 20 * PAGE, length: 1 })).toBe(1)]
])('%s, while another thread reads', (_, act) => {
  const rig = attached()
  whileReading(rig, () => act(rig))
})

test('fork and remap, while another thread reads', () => {
  const rig = attached()
  const { theirs } = rig
  const space = theirs.memory.space()
  const own = space.map(null, { length: PAGE, writable: true })
  own.setUint8(0, 7)
  // So far away that it needs tables of its own.
  const flags = MAP_SHARED | MAP_FIXED
  const at = sys_mmap(space.mm, 2 ** 38, 64 * PAGE, PROT_READ | PROT_WRITE, flags, theirs.file.fd, 0)
  own.lock()
  let child: typeof space | undefined
  whileReading(rig, () => {
    child = space.fork()
  })
  child?.close()
  const results: number[] = []
  whileReading(rig, () => results.push(sys_remap_file_pages(space.mm, at, PAGE, 0, 9, MAP_NONBLOCK)), 30)
  expect(results).toEqual([0])
  space.close()
})

test('while another thread copies, or ends a file', () => {
  const rig = attached()
  const { sync } = rig.mine.m
  const { w } = sync.threads
  for (const [words, what] of [
    [[T_RUN_PAGES], 'a copy'],
    [[T_GOING, T_IN_IO], 'a last close']
  ] as const) {
    const giveBack = takeAll(rig)
    for (const word of words) w[sync.row + word] = 1
    rig.asleep(() => {
      for (const word of words) w[sync.row + word] = 0
      giveBack()
    })
    expect(rig.theirs.load(20), what).toBe(21)
  }
})

test('when nobody does, it is ENOMEM at once, and a later access has memory', () => {
  const rig = attached()
  const giveBack = takeAll(rig)
  expect(errorOf(() => rig.theirs.load(20)).code).toBe('ENOMEM')
  giveBack()
  expect(rig.theirs.load(20)).toBe(21)
  expect(rig.theirs.m.sync.line.first).toBe(-1)
})

test('when the other one is done and there is still no frame, it is ENOMEM', () => {
  const rig = attached()
  const { sync } = rig.mine.m
  const giveBack = takeAll(rig)
  sync.threads.w[sync.row + T_RUN_PAGES] = 1
  rig.asleepOn(() => {
    sync.threads.w[sync.row + T_RUN_PAGES] = 0
  })
  expect(errorOf(() => rig.theirs.load(20)).code).toBe('ENOMEM')
  expect(sync.line.first).toBe(-1)
  giveBack()
})

test('a thread that may not sleep gets EAGAIN', () => {
  const rig = attached({ maySleep: false })
  const codes: string[] = []
  rig.during('read', () => {
    const giveBack = takeAll(rig)
    codes.push(errorOf(() => rig.theirs.load(20)).code)
    giveBack()
  })
  rig.mine.load(10)
  expect(codes).toEqual(['EAGAIN'])
  expect(rig.theirs.load(20)).toBe(21)
})

test('a thread that comes later lets the one that waits go first', () => {
  const rig = attached()
  const { mine, theirs } = rig
  const giveBack = takeAll(rig)
  theirs.m.run(() => {
    theirs.m.sync.line.keep()
    return 0
  })
  rig.asleep(() => theirs.m.giveBack(() => theirs.m.sync.line.release()))
  giveBack()
  const { allocator } = mine.m
  const taken: number[] = []
  while (allocator.nrFree > 2) taken.push(allocator.allocNoReclaim())
  expect(mine.load(20)).toBe(21)
  for (const frame of taken) allocator.free(frame)
})

test('the end of a thread that waits makes the next one first', () => {
  const rig = attached()
  rig.theirs.m.sync.line.join()
  rig.mine.memory.ended(7)
  expect(rig.mine.m.sync.line.first).toBe(-1)
})
