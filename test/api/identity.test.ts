/**
 * A number is never taken for a thing: every public method of every class, and every system call, is given each kind of
 * thing that is none of its own any more, or never was. It must say so, and reach nothing else.
 *
 * Where rows and descriptors are used again, something else has taken the place of what has ended before the calls are
 * made.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { VERSION } from '../../src/base/version.ts'
import * as fremap from '../../src/index.ts'
import { laterStore } from '../support/later-store.ts'
import { closed, detached, expectAll, marked, outcome, PAGE, type Rig, rig, tryAll } from './ended.ts'

const { Memory, MappedFile, AddressSpace, Mapping, ShadowTable, Tlb, BorrowedPage } = fremap

const fileCalls: Record<string, (file: fremap.MappedFile, rig: Rig) => unknown> = {
  handle: (file, { owner }) => owner.adopt(file.handle).size,
  size: file => file.size,
  dirtyPages: file => file.dirtyPages,
  read: file => file.read(new Uint8Array(8), 0),
  readAsync: file => file.readAsync(new Uint8Array(8), 0),
  write: file => file.write(new Uint8Array(8), 0),
  truncate: file => file.truncate(0),
  punch: file => file.punch(0, PAGE),
  sync: file => file.sync(),
  syncAsync: file => file.syncAsync(),
  close: file => file.close(),
  advise: file => file.advise('dontneed'),
  allocate: file => file.allocate(0, PAGE),
  zero: file => file.zero(0, PAGE),
  isOpen: file => !file.isOpen || 'open',
  toJSON: file => JSON.stringify(file)
}
const fileButs = { dirtyPages: ['done'], isOpen: ['done'], toJSON: ['done'] }

describe('files', () => {
  test('all calls are tried', () => expectAll(MappedFile.prototype, fileCalls, ['orThrow']))

  const byAnother = (rig: Rig): void => {
    rig.owner.adopt(rig.file.handle).close()
    rig.space.close()
  }
  const kinds = [{ name: 'that another object has closed', end: byAnother, codes: ['EBADF'] }, closed]
  tryAll('a file', fileCalls, rig => rig.file, kinds, fileButs)
  // It is open still, for the others.
  tryAll('a file', fileCalls, rig => rig.file, [detached], { ...fileButs, handle: ['done'] })
})

const spaceCalls: Record<string, (space: fremap.AddressSpace, rig: Rig) => unknown> = {
  isAlive: space => !space.isAlive || 'alive',
  map: (space, { file }) => space.map(file),
  view: (space, { map }) => space.view(map),
  handle: (space, { owner }) => owner.adopt(space.handle),
  fork: space => space.fork(),
  maps: space => space.maps(),
  smaps: space => space.smaps(),
  // Zeros once the space has ended.
  status: space => (space.status().size === 0 ? space.close() : 'bytes'),
  close: space => space.close(),
  toJSON: space => JSON.stringify(space)
}

describe('address spaces', () => {
  const internal = ['window', 'checkShown']
  test('all calls are tried', () => expectAll(AddressSpace.prototype, spaceCalls, internal))

  const end = (rig: Rig): void => rig.owner.adopt(rig.space.handle).close()
  const kinds = [{ name: 'that has ended', end, codes: ['ESRCH'] }, closed]
  // A space that has ended is closed already.
  tryAll('a space', spaceCalls, rig => rig.space, kinds, {
    isAlive: ['done'],
    close: ['done'],
    status: ['done'],
    toJSON: ['done']
  })
  const buts = { isAlive: ['done'], close: ['done'], handle: ['done'], status: ['done'], toJSON: ['done'] }
  tryAll('a space', spaceCalls, rig => rig.space, [detached], buts)
})

const mapCalls: Record<string, (map: fremap.Mapping, rig: Rig) => unknown> = {
  isMapped: map => map.isMapped,
  length: map => map.length,
  pageCount: map => map.pageCount,
  pageSize: map => map.pageSize,
  address: map => map.address,
  handle: (map, { owner }) => owner.adopt(map.handle).getUint8(0),
  getUint8: map => map.getUint8(0),
  getInt8: map => map.getInt8(0),
  getUint16: map => map.getUint16(0),
  getInt16: map => map.getInt16(1),
  getUint32: map => map.getUint32(0),
  getInt32: map => map.getInt32(1),
  getFloat32: map => map.getFloat32(0),
  getFloat64: map => map.getFloat64(0),
  getBigUint64: map => map.getBigUint64(0),
  getBigInt64: map => map.getBigInt64(0),
  setUint8: map => map.setUint8(0, 1),
  setInt8: map => map.setInt8(0, 1),
  setUint16: map => map.setUint16(0, 1),
  setInt16: map => map.setInt16(1, 1),
  setUint32: map => map.setUint32(0, 1),
  setInt32: map => map.setInt32(1, 1),
  setFloat32: map => map.setFloat32(0, 1),
  setFloat64: map => map.setFloat64(0, 1),
  setBigUint64: map => map.setBigUint64(0, 1n),
  setBigInt64: map => map.setBigInt64(0, 1n),
  remap: map => map.remap({ at: 0, page: 1 }),
  remapPages: map => map.remapPages(0, Int32Array.of(1)),
  filePage: map => map.filePage(0),
  read: map => map.read(new Uint8Array(8), 0),
  write: map => map.write(new Uint8Array(8), 0),
  fill: map => map.fill(1, 0, 8),
  copyWithin: map => map.copyWithin(0, 8, 8),
  page: map => map.page(0),
  borrow: map => map.borrow(0),
  readAsync: map => map.readAsync(new Uint8Array(8), 0),
  populate: map => map.populate({ offset: 0, length: PAGE }),
  populateSync: map => map.populateSync({ offset: 0, length: PAGE }),
  ready: map => map.ready({ offset: 0, length: PAGE }),
  sync: map => map.sync({ offset: 0, length: PAGE }),
  syncAsync: map => map.syncAsync(),
  protect: map => map.protect('read', { offset: 0, length: PAGE }),
  advise: map => map.advise('dontneed', { offset: 0, length: PAGE }),
  lock: map => map.lock({ offset: 0, length: PAGE }),
  unlock: map => map.unlock({ offset: 0, length: PAGE }),
  residency: map => map.residency({ offset: 0, length: PAGE }),
  resize: map => map.resize(PAGE),
  unmap: map => map.unmap(),
  toJSON: map => JSON.stringify(map)
}
const looks = Object.fromEntries(
  ['toJSON', 'isMapped', 'length', 'pageCount', 'pageSize', 'address'].map(name => [name, ['done']])
)

describe('mappings', () => {
  test('all calls are tried', () => {
    const internal = Object.getOwnPropertyNames(fremap.Accessors.prototype).filter(
      name => !/^[gs]et|^pageSize$/.test(name)
    )
    const more = [
      'lookAt',
      'failAt',
      'populateCursor',
      'bytesOf',
      'checkPages',
      'checkAlive',
      'fail',
      'orThrow',
      'rangeOf'
    ]
    expectAll(Mapping.prototype, mapCalls, [...internal, ...more])
  })

  const unmap = (rig: Rig): void => rig.map.unmap()
  const ends = (rig: Rig): void => {
    rig.owner.adopt(rig.space.handle).close()
    rig.file.close()
  }
  // `unmap` and an asynchronous sync of a file that is open have nothing against that.
  const kinds = [
    { name: 'that is unmapped', end: unmap, codes: ['RangeError', 'EINVAL'] },
    { name: 'whose address space has ended', end: ends, codes: ['ESRCH', 'EBADF'] }
  ]
  tryAll('a mapping', mapCalls, rig => rig.map, kinds, {
    ...looks,
    unmap: ['done'],
    sync: ['done'],
    syncAsync: ['done'],
    resize: ['EFAULT']
  })
  tryAll('a mapping', mapCalls, rig => rig.map, [detached, closed], { ...looks, unmap: ['done'], handle: ['EINVAL'] })
})

const memoryCalls: Record<string, (memory: fremap.Memory, rig: Rig) => unknown> = {
  handle: memory => memory.handle,
  adopt: (memory, { space }) => memory.adopt(space.handle),
  watch: memory => memory.watch({ threadId: 9, once: () => {} }),
  ended: memory => memory.ended(9),
  detach: memory => memory.detach(),
  open: memory => memory.open(marked('C')),
  openAsync: memory => memory.openAsync(laterStore(marked('C'))),
  shared: memory => memory.shared(PAGE),
  space: memory => memory.space(),
  shrink: memory => memory.shrink(),
  trace: memory => memory.trace(),
  check: memory => memory.check(),
  stats: memory => memory.stats(),
  close: memory => memory.close(),
  salvage: memory => memory.salvage(),
  closeAsync: memory => memory.closeAsync(),
  isOpen: memory => !memory.isOpen || 'open',
  toJSON: memory => JSON.stringify(memory)
}

describe('memories', () => {
  test('all calls are tried', () => expectAll(Memory.prototype, memoryCalls, []))

  const done = (...names: string[]) => Object.fromEntries(names.map(name => [name, ['done']]))
  tryAll('a memory', memoryCalls, rig => rig.memory, [detached], {
    ...done('detach', 'close', 'closeAsync', 'isOpen', 'toJSON'),
    salvage: ['EINVAL']
  })
  // It is still there to be looked at, and to be left.
  const looks = ['isOpen', 'toJSON', 'handle', 'watch', 'ended', 'shrink', 'trace', 'check', 'stats']
  tryAll('a memory', memoryCalls, rig => rig.memory, [closed], {
    ...done('detach', 'close', 'closeAsync', ...looks),
    salvage: ['EINVAL']
  })
})

const tableCalls: Record<string, (table: fremap.ShadowTable, rig: Rig) => unknown> = {
  handle: (table, { owner, map }) => ShadowTable.adopt(owner.adopt(map.handle), table.handle),
  nrPresent: table => table.nrPresent === 0 || 'present',
  nrCleared: table => table.nrCleared,
  nrWaits: table => table.nrWaits,
  isOpen: table => !table.isOpen || 'open',
  entry: table => table.entry(0) === 0 || 'an entry',
  guest: table => table.guest().run(() => table.fault(0, fremap.SHADOW_READ)),
  fault: table => table.fault(0, fremap.SHADOW_READ),
  fill: table => -table.fill(0, fremap.ACCESS_READ),
  admit: table => table.admit(),
  expel: table => table.expel(1),
  verify: table => table.verify(),
  close: table => table.close(),
  toJSON: table => JSON.stringify(table)
}
const tlbCalls: Record<string, (tlb: fremap.Tlb, rig: Rig) => unknown> = {
  guest: (tlb, { map }) => tlb.guest().run(() => tlb.translate(map.address / PAGE, fremap.SHADOW_READ)),
  nrDropped: tlb => tlb.nrDropped,
  nrWaits: tlb => tlb.nrWaits,
  translate: tlb => tlb.translate(16, fremap.SHADOW_READ),
  safePoint: tlb => tlb.safePoint(),
  close: tlb => tlb.close(),
  toJSON: tlb => JSON.stringify(tlb)
}
const pageCalls: Record<string, (page: fremap.BorrowedPage) => unknown> = {
  release: page => page.release(),
  toJSON: page => JSON.stringify(page)
}

describe('what stands for pages elsewhere', () => {
  test('all calls are tried', () => {
    expectAll(ShadowTable.prototype, tableCalls, [])
    expectAll(Tlb.prototype, tlbCalls, ['miss', 'leave'])
    expectAll(BorrowedPage.prototype, pageCalls, [])
  })

  const done = (...names: string[]) => Object.fromEntries(names.map(name => [name, ['done']]))
  const codes = ['ENODEV', 'ESRCH', 'EPERM', 'EINVAL', 'RangeError', 'SIGSEGV', `E${fremap.FAULT_MAPERR}`, 'EPERM']
  const kinds = [detached, closed].map(kind => ({ ...kind, codes }))
  const looks = ['toJSON', 'nrPresent', 'nrCleared', 'nrWaits', 'isOpen', 'entry', 'expel', 'verify', 'close']
  // Another thread may have the table on, where only this one has left.
  tryAll('a shadow table', tableCalls, rig => rig.table, kinds, done(...looks, 'handle'))
  tryAll('a TLB', tlbCalls, rig => rig.tlb, kinds, done('nrDropped', 'nrWaits', 'safePoint', 'close', 'toJSON'))
  tryAll('a borrowed page', pageCalls, rig => rig.page, kinds, done('release', 'toJSON'))
})

describe('things of another memory', () => {
  const pair = () => [rig(), rig()] as const

  test.each<[string, (here: Rig, there: Rig) => unknown]>([
    ['map', (here, there) => here.space.map(there.file)],
    ['view', (here, there) => here.space.view(there.map)],
    ['adopt of a file', (here, there) => here.memory.adopt(there.file.handle)],
    ['adopt of a space', (here, there) => here.memory.adopt(there.space.handle)],
    ['adopt of a mapping', (here, there) => here.memory.adopt(there.map.handle)],
    ['adopt of a mapping of two', (here, there) => here.memory.adopt({ ...here.map.handle, file: there.file.handle })],
    ['adopt of a shadow table', (here, there) => ShadowTable.adopt(here.map, there.table.handle)],
    ['attach', ({ owner }, there) => attachWith({ arena: there.owner.handle.machine.arena }, owner)]
  ])('%s: EINVAL', async (_, act) => {
    const [here, there] = pair()
    expect(await outcome(() => act(here, there))).toBe('EINVAL')
    for (const { owner } of [here, there]) {
      expect(owner.check()).toEqual([])
      owner.close()
    }
  })

  test('things of the same memory are good, whoever of its threads has made them', () => {
    const { owner, memory, file, map } = rig()
    expect(owner.space().map(file).getUint8(0)).toBe(65)
    expect(owner.adopt(map.handle).getUint8(0)).toBe(65)
    expect(memory.adopt(owner.adopt(file.handle).handle).size).toBe(4 * PAGE)
    owner.close()
  })

  test('and what is no such thing at all: TypeError', async () => {
    const { owner, space, map } = rig()
    const things: unknown[] = [undefined, 3, 'f', {}, { fd: 3, machine: owner.machine }]
    for (const thing of things) {
      expect(await outcome(() => space.map(thing as fremap.MappedFile))).toBe('TypeError')
      expect(await outcome(() => space.view(thing as fremap.Mapping))).toBe('TypeError')
      expect(await outcome(() => owner.adopt(thing as fremap.FileHandle))).toBe('TypeError')
      expect(await outcome(() => ShadowTable.adopt(map, thing as fremap.ShadowHandle))).toBe('TypeError')
      expect(await outcome(() => Memory.attach(thing as fremap.MemoryHandle))).toBe('TypeError')
    }
    const json = JSON.parse(JSON.stringify(owner.handle)) as fremap.MemoryHandle
    expect(await outcome(() => Memory.attach(json))).toBe('TypeError')
    owner.close()
  })
})

function attachWith(change: object, owner: fremap.Memory): fremap.Memory {
  const { handle } = owner
  return Memory.attach({ ...handle, machine: { ...handle.machine, ...change } })
}

describe('a handle of another layout', () => {
  test('the version is the package’s', () => {
    expect(VERSION).toBe(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version)
  })

  const options = {
    nrFrames: 40,
    pageShift: 9,
    policy: fremap.POLICY_LINUX,
    maxMapCount: 7,
    maxVmas: 700,
    maxSpaces: 8,
    maxInodes: 100,
    maxFiles: 100,
    faultAroundPages: 2,
    readaheadBytes: 0,
    threads: 2,
    patienceMs: 77,
    traceEntries: 64,
    poison: false,
    swapSlots: 3
  }

  test.each(Object.entries(options))('does not attach: %s', (name, value) => {
    const { owner, map } = rig()
    const attach = () => attachWith({ options: { ...owner.handle.machine.options, [name]: value } }, owner)
    const named = { swapSlots: 'nrSlots', readaheadBytes: 'readaheadPages' }[name] ?? name
    expect(attach).toThrow(
      expect.objectContaining({ code: 'EINVAL', message: expect.stringContaining(`${named} is `) })
    )
    expect(owner.check()).toEqual([])
    expect(map.getUint8(3 * PAGE)).toBe(65)
    owner.close()
  })

  test.each([
    ['no memory at all', () => ({ arena: new SharedArrayBuffer(1 << 20) }), /no memory of fremap/],
    ['an arena that is too short', () => ({ arena: new SharedArrayBuffer(8) }), /no memory of fremap/],
    ['the id of another memory', () => ({ id: 5 }), /two memories/],
    ['too few frames', () => ({ ram: new SharedArrayBuffer(PAGE) }), /frames end at byte/],
    ['frames elsewhere', ({ ramOffset }: fremap.MachineHandle) => ({ ramOffset: ramOffset - PAGE }), /ramPage is/],
    [
      'another version',
      ({ arena }: fremap.MachineHandle) => {
        new Int32Array(arena)[1]++
        return {}
      },
      /another version of fremap/
    ]
  ])('does not attach: %s', (_, change, words) => {
    const { owner } = rig()
    expect(() => attachWith(change(owner.handle.machine), owner)).toThrow(
      expect.objectContaining({ code: 'EINVAL', message: expect.stringMatching(words) })
    )
    owner.close()
  })
})

describe('handles of what has ended', () => {
  test('a mapping that was unmapped, where another file is mapped by now: ESTALE', async () => {
    const { owner, memory, file, space, map } = rig()
    const { handle } = map
    const anonymous = space.map(null, { length: PAGE, writable: true })
    map.unmap()
    const other = owner.adopt(space.handle).map(owner.open(marked('B')), { address: handle.vpn * PAGE })
    expect(await outcome(() => memory.adopt(handle))).toBe('ESTALE')
    expect(await outcome(() => memory.adopt(anonymous.handle))).toBe('done')
    // A fork shows what is there now.
    const child = space.fork()
    other.getUint8(0)
    expect(child.view(memory.adopt(other.handle)).getUint8(0)).toBe(66)
    const again = space.map(file)
    expect(await outcome(() => child.view(again))).toBe('done')
    other.unmap()
    expect(await outcome(() => memory.adopt({ ...handle, pages: 0 }))).toBe('EINVAL')
    expect(await outcome(() => memory.adopt({ ...handle, space: { ...handle.space, id: 0.5 } }))).toBe('ESRCH')
    owner.close()
  })

  test('a view of what is not what the mapping shows: ESTALE', async () => {
    const { owner, space, map } = rig()
    const child = space.fork()
    child.view(map).unmap()
    expect(await outcome(() => child.view(map).getUint8(0))).toBe('SIGSEGV')
    child.map(null, { length: PAGE, address: map.address })
    expect(await outcome(() => child.view(map))).toBe('ESTALE')
    owner.close()
  })

  test('a file whose mappings go on: they do, and the file is EBADF', async () => {
    const { owner, memory, file, map } = rig()
    const { handle } = map
    file.close()
    owner.open(marked('B'))
    const again = memory.adopt(handle)
    expect(again.getUint8(0)).toBe(65)
    expect(await outcome(() => again.file?.read(new Uint8Array(1), 0))).toBe('EBADF')
    owner.close()
  })
})

describe('threads', () => {
  test('what is no thread frees nobody, and no thread itself', async () => {
    const { owner, memory } = rig()
    for (const thread of [-1, Number.NaN, 1.5, 2 ** 40, '5' as unknown as number, undefined as unknown as number]) {
      expect(await outcome(() => owner.ended(thread))).toBe('EINVAL')
      expect(await outcome(() => owner.watch({ threadId: thread, once: () => {} }))).toBe('EINVAL')
    }
    expect(await outcome(() => memory.ended(5))).toBe('EINVAL')
    expect(owner.stats().threads?.length ?? 2).toBe(2)
    owner.ended(77)
    for (const thread of [-1, 1.5, '5' as unknown as number]) {
      expect(await outcome(() => Memory.attach(owner.handle, { thread }))).toBe('RangeError')
    }
    const third = Memory.attach(owner.handle)
    expect(third.machine.sync.me).toBe(2)
    expect(await outcome(() => Memory.attach(owner.handle))).toBe('EAGAIN')
    owner.close()
  })

  test('a watched one that ends after this thread has left is nobody’s concern', () => {
    const { owner, memory } = rig()
    let ends = (): void => {}
    memory.watch({ threadId: 9, once: (_, listener) => (ends = listener) })
    memory.detach()
    ends()
    owner.close()
  })

  test('a memory of one thread is closed when that detaches', async () => {
    const memory = new Memory({ size: '256KiB' })
    const file = memory.open(marked('A'))
    const map = memory.space().map(file, { writable: true })
    map.setUint8(0, 66)
    memory.detach()
    memory.detach()
    expect([await outcome(() => memory.space()), await outcome(() => map.getUint8(0))]).toEqual(['ENODEV', 'ESRCH'])
  })
})

describe('system calls', () => {
  const { PROT_READ, MAP_SHARED, MS_SYNC, MADV_NORMAL, O_RDONLY } = fremap
  const bytes = new Uint8Array(8)
  const notifier = {}
  const onSpace: Record<string, (mm: fremap.Mm, at: number, fd: number) => unknown> = {
    sys_fork: mm => fremap.sys_fork(mm),
    sys_exit: mm => fremap.sys_exit(mm),
    sys_setrlimit: mm => fremap.sys_setrlimit(mm, fremap.RLIMIT_AS, 1),
    sys_clear_refs: mm => fremap.sys_clear_refs(mm, 1),
    sys_mmu_notifier_register: mm => fremap.sys_mmu_notifier_register(mm, notifier),
    sys_mmu_notifier_unregister: mm => fremap.sys_mmu_notifier_unregister(mm, notifier),
    sys_mmu_kind_register: mm => fremap.sys_mmu_kind_register(mm, 1, -1, [0, 1, 0, 1]),
    sys_mmu_kind_unregister: mm => fremap.sys_mmu_kind_unregister(mm, 1),
    sys_mmap: (mm, _, fd) => fremap.sys_mmap(mm, 0, PAGE, PROT_READ, MAP_SHARED, fd, 0),
    sys_munmap: (mm, at) => fremap.sys_munmap(mm, at, PAGE),
    sys_mprotect: (mm, at) => fremap.sys_mprotect(mm, at, PAGE, PROT_READ),
    sys_mremap: (mm, at) => fremap.sys_mremap(mm, at, PAGE, PAGE, 0, 0),
    sys_msync: (mm, at) => fremap.sys_msync(mm, at, PAGE, MS_SYNC),
    sys_madvise: (mm, at) => fremap.sys_madvise(mm, at, PAGE, MADV_NORMAL),
    sys_mincore: (mm, at) => fremap.sys_mincore(mm, at, PAGE, bytes),
    sys_brk: mm => fremap.sys_brk(mm, 0),
    sys_mem_read: (mm, at) => fremap.sys_mem_read(mm, at, bytes),
    sys_mem_write: (mm, at) => fremap.sys_mem_write(mm, at, bytes),
    sys_mlock: (mm, at) => fremap.sys_mlock(mm, at, PAGE),
    sys_mlock2: (mm, at) => fremap.sys_mlock2(mm, at, PAGE, 0),
    sys_munlock: (mm, at) => fremap.sys_munlock(mm, at, PAGE),
    sys_mlockall: mm => fremap.sys_mlockall(mm, 1),
    sys_munlockall: mm => fremap.sys_munlockall(mm),
    sys_remap_file_pages: (mm, at) => fremap.sys_remap_file_pages(mm, at, PAGE, 0, 1, 0),
    sys_remap_file_pages_vec: (mm, at) => fremap.sys_remap_file_pages_vec(mm, at, Int32Array.of(1), 0, 0),
    sys_copy_from_user: (mm, at) => fremap.sys_copy_from_user(mm, at, bytes),
    sys_copy_to_user: (mm, at) => fremap.sys_copy_to_user(mm, at, bytes),
    sys_read_user: (mm, at, fd) => fremap.sys_read_user(mm, at, 8, fd, 0),
    sys_write_user: (mm, at, fd) => fremap.sys_write_user(mm, at, 8, fd, 0)
  }
  const onFile: Record<string, (m: fremap.Machine, fd: number) => unknown> = {
    sys_close: (m, fd) => fremap.sys_close(m, fd),
    sys_reopen: (m, fd) => fremap.sys_reopen(m, fd, O_RDONLY),
    sys_ftruncate: (m, fd) => fremap.sys_ftruncate(m, fd, 0),
    sys_fallocate: (m, fd) => fremap.sys_fallocate(m, fd, 3, 0, PAGE),
    sys_pread: (m, fd) => fremap.sys_pread(m, fd, bytes, 0),
    sys_pwrite: (m, fd) => fremap.sys_pwrite(m, fd, bytes, 0),
    sys_fsync: (m, fd) => fremap.sys_fsync(m, fd),
    sys_fsize: (m, fd) => fremap.sys_fsize(m, fd),
    sys_fadvise: (m, fd) => fremap.sys_fadvise(m, fd, 0, PAGE, 4),
    sys_fpages: (m, fd) => fremap.sys_fpages(m, fd)
  }
  const onMachine: Record<string, (m: fremap.Machine) => unknown> = {
    sys_mm_create: m => fremap.sys_mm_create(m),
    sys_open: m => fremap.sys_open(m, marked('C'), O_RDONLY),
    sys_memory: m => fremap.sys_memory(m, 'memory', fremap.MEMORY_SHMEM, PAGE, 0),
    sys_quota: m => fremap.sys_quota(m, 1)
  }

  test('all are tried', () => {
    const names = Object.keys(fremap).filter(name => name.startsWith('sys_'))
    const tried = new Set(Object.keys({ ...onSpace, ...onFile, ...onMachine }))
    expect(names.filter(name => !tried.has(name))).toEqual([])
  })

  const kinds = [
    {
      name: 'after their space and file have ended',
      end: (r: Rig) => {
        r.owner.adopt(r.file.handle).close()
        r.owner.adopt(r.space.handle).close()
      }
    },
    detached,
    closed
  ]
  test.each(kinds)('$name: ESRCH, EBADF or ENODEV, and others are not met', async ({ end, name }) => {
    const r = rig()
    const { mm, at, fd, m } = { mm: r.space.mm, at: r.map.address, fd: r.file.fd, m: r.memory.machine }
    end(r)
    const others = r.owner.machine.open ? r.owner.open(marked('B')) : undefined
    const map = others && r.owner.space().map(others, { writable: true })
    for (const [call, act] of Object.entries(onSpace))
      expect([call, await outcome(() => act(mm, at, fd))]).toEqual([call, 'ESRCH'])
    for (const [call, act] of Object.entries(onFile)) {
      expect(['EBADF', 'ENODEV'], call).toContain(await outcome(() => act(m, fd)))
    }
    if (end !== kinds[0].end) {
      for (const [call, act] of Object.entries(onMachine)) {
        if (call === 'sys_quota' && end === closed.end) continue
        expect([call, await outcome(() => act(m))], name).toEqual([call, 'ENODEV'])
      }
    }
    if (map === undefined) return
    expect([others?.size, map.getUint8(0), map.getUint8(3 * PAGE)]).toEqual([4 * PAGE, 66, 66])
    expect(r.owner.check()).toEqual([])
    r.owner.close()
  })
})
