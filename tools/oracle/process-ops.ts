/** Operations of processes: memory calls, accesses, and what /proc tells. */
import { FAULT_ACCERR, FAULT_BUS, FAULT_MAPERR } from '../../src/abi/fault.ts'
import { TASK_PAGES } from '../../src/abi/limits.ts'
import { MAP_ANONYMOUS, MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ } from '../../src/abi/mman.ts'
import { MM_MAP_COUNT, MM_TOTAL_VM } from '../../src/frame/mm-table.ts'
import * as file from '../../src/syscall/file.ts'
import { sys_remap_file_pages } from '../../src/syscall/fremap.ts'
import * as mem from '../../src/syscall/memory.ts'
import { sys_mlock, sys_mlockall, sys_munlock, sys_munlockall } from '../../src/syscall/mlock.ts'
import { sys_mem_read, sys_mem_write } from '../../src/syscall/proc-mem.ts'
import { RLIMIT_AS, sys_clear_refs, sys_setrlimit } from '../../src/syscall/process.ts'
import { word } from './file-ops.ts'
import {
  ARENA_PAGES,
  addressOf,
  bytesOf,
  flagsOf,
  PAGE,
  protOf,
  quantity,
  rawOf,
  resultPage,
  translated,
  translatedLength
} from './quantity.ts'
import { type Args, failed, type OpTable, returned } from './result.ts'
import type { Process, Session } from './session.ts'
import type { Result } from './trace.ts'

const READ_IMPLIES_EXEC = 0x0400000n
const NR_FAULT: Readonly<Record<number, string>> = {
  [FAULT_BUS]: 'BUS',
  [FAULT_MAPERR]: 'SEGV_MAPERR',
  [FAULT_ACCERR]: 'SEGV_ACCERR'
}

export const PROCESS_OPS: OpTable = {
  mmap,
  shmat,
  munmap: (s, a) => returned(mem.sys_munmap(mmOf(s, a), at(a), len(a))),
  mprotect: (s, a) => returned(mem.sys_mprotect(mmOf(s, a), at(a), len(a), quantity(protWith(processOf(s, a), a)))),
  mlock: (s, a) => returned(sys_mlock(mmOf(s, a), at(a), len(a))),
  munlock: (s, a) => returned(sys_munlock(mmOf(s, a), at(a), len(a))),
  mlockall: (s, a) => returned(sys_mlockall(mmOf(s, a), quantity(flagsOf(a.flags)))),
  munlockall: (s, a) => returned(sys_munlockall(mmOf(s, a))),
  msync: (s, a) => returned(mem.sys_msync(mmOf(s, a), at(a), len(a), quantity(flagsOf(a.flags)))),
  madvise: (s, a) => returned(mem.sys_madvise(mmOf(s, a), at(a), len(a), quantity(flagsOf(a.advice)))),
  mremap,
  remap: (s, a) => returned(remap(s, a, quantity(rawOf(a.pgoff)))),
  read: (s, a) => load(s, a, addressOf(a.at)),
  write: (s, a) => {
    const code = store(s, a, addressOf(a.at), rawOf(a.value))
    return code === 0 ? { ok: true } : { fault: faultName(code) }
  },
  scan,
  fill,
  mincore,
  memread: (s, a) => {
    const buffer = new Uint8Array(4)
    const got = sys_mem_read(mmOf(s, a), at(a), buffer)
    return got < 0 ? failed(got) : { val: new DataView(buffer.buffer).getUint32(0, true) }
  },
  memwrite: (s, a) => returned(sys_mem_write(mmOf(s, a), at(a), word(rawOf(a.value)))),
  copyin: (s, a) => returned(copy(s, a, file.sys_read_user)),
  copyout: (s, a) => returned(copy(s, a, file.sys_write_user)),
  clear_refs: (s, a) => returned(sys_clear_refs(mmOf(s, a), a.v as number)),
  fork: (s, a) => returned(s.fork(processId(a), a.child as number)),
  exit: (s, a) => returned(s.exit(processId(a))),
  rlimit,
  dropcaps: (s, a) => {
    processOf(s, a).privileged = false
    s.applyLimits(processOf(s, a))
    return { ret: 0 }
  },
  personality: (s, a) => {
    processOf(s, a).readImpliesExec = (rawOf(a.v) & READ_IMPLIES_EXEC) !== 0n
    return { ret: 0 }
  },
  maxmaps: (s, a) => {
    const { machine } = s
    const current = machine.mms.row(s.process(0).mm.id, MM_MAP_COUNT)
    machine.maxMapCount = a.extra === -1 ? 65_530 : current + (a.extra as number)
    return { ret: 0 }
  },
  nrmlock: s => ({ pages: s.nrMlocked }),
  reclaim: s => {
    s.reclaimed = true
    s.machine.reclaim.shrinkAll()
    return { ret: 0 }
  }
}

function processId(a: Args): number {
  return (a.p as number | undefined) ?? 0
}

function processOf(s: Session, a: Args): Process {
  return s.process(processId(a))
}

function mmOf(s: Session, a: Args): Process['mm'] {
  return processOf(s, a).mm
}

function at(a: Args): number | bigint {
  return quantity(translated(addressOf(a.at)))
}

/** The length `a.len`, or another, of a range from `a.at`. */
function len(a: Args, x: unknown = a.len): number | bigint {
  return quantity(translatedLength(addressOf(a.at), bytesOf(x)))
}

function protWith(process: Process, a: Args): bigint {
  const prot = protOf(a.prot)
  return process.readImpliesExec && (prot & BigInt(PROT_READ)) !== 0n ? prot | BigInt(PROT_EXEC) : prot
}

function mmap(s: Session, a: Args): Result {
  const process = processOf(s, a)
  let flags = flagsOf(a.flags) | BigInt(MAP_FIXED)
  let fd = -1
  if (a.file === undefined) flags |= BigInt(MAP_ANONYMOUS)
  else {
    const mode = (a.open as 'r' | 'w' | undefined) ?? 'rw'
    fd = s.descriptor(process, a.file as number, mode, a.reopen === true ? 'fresh' : 'first')
    if (fd < 0) return failed(fd)
  }
  const off = (rawOf(a.pgoff ?? 0) * PAGE) & (2n ** 64n - 1n)
  const result = mem.sys_mmap(
    process.mm,
    at(a),
    len(a),
    quantity(protWith(process, a)),
    quantity(flags),
    fd,
    quantity(off)
  )
  if (result < 0) return failed(result)
  if (a.file === undefined && (flags & BigInt(MAP_SHARED)) !== 0n) nameMapping(s, process, result, a.anon as string)
  return { ret: resultOf(result) }
}

/** Traces call what lies outside the arena `elsewhere`. */
function resultOf(address: number): number | string {
  const page = resultPage(address)
  return page >= 0 && page < ARENA_PAGES ? page : 'elsewhere'
}

function nameMapping(s: Session, process: Process, address: number, name: string): void {
  const { vmas } = s.machine
  s.names.set(vmas.inode[vmas.at(process.mm.id, address / Number(PAGE))], name)
}

/** A SysV segment: shared memory whose mappings have no remap operation. */
function shmat(s: Session, a: Args): Result {
  const process = processOf(s, a)
  const name = a.anon as string
  const fd = file.sys_memory(s.machine, name, file.MEMORY_NOREMAP, len(a), 0)
  if (fd < 0) return failed(fd)
  s.nameInode(fd, name)
  const result = mem.sys_mmap(process.mm, at(a), len(a), 3, MAP_SHARED | MAP_FIXED, fd, 0)
  file.sys_close(s.machine, fd)
  return result < 0 ? failed(result) : { ret: resultOf(result) }
}

function mremap(s: Session, a: Args): Result {
  const to = a.to === undefined ? 0n : addressOf(a.to)
  const from = a.to === undefined ? addressOf(a.at) : to
  const result = mem.sys_mremap(
    mmOf(s, a),
    at(a),
    len(a, a.old),
    quantity(translatedLength(from, bytesOf(a.new))),
    quantity(flagsOf(a.flags)),
    quantity(translated(to))
  )
  return result < 0 ? failed(result) : { ret: resultOf(result) }
}

export function remap(s: Session, a: Args, pgoff: number | bigint): number {
  return sys_remap_file_pages(
    mmOf(s, a),
    at(a),
    len(a, a.size),
    quantity(rawOf(a.prot ?? 0)),
    pgoff,
    quantity(flagsOf(a.flags))
  )
}

function faultName(code: number): string {
  return NR_FAULT[code] ?? `fault ${code}`
}

function load(s: Session, a: Args, address: bigint): Result {
  const place = translated(address)
  if (place + 4n > BigInt(TASK_PAGES) * PAGE) return { fault: 'SEGV_MAPERR' }
  const buffer = new Uint8Array(4)
  if (file.sys_copy_from_user(mmOf(s, a), quantity(place), buffer) < 4)
    return { fault: faultName(file.lastCopyFault()) }
  return { val: new DataView(buffer.buffer).getUint32(0, true) }
}

/** → 0 or a fault code. */
function store(s: Session, a: Args, address: bigint, value: bigint): number {
  const place = translated(address)
  if (place + 4n > BigInt(TASK_PAGES) * PAGE) return FAULT_MAPERR
  return file.sys_copy_to_user(mmOf(s, a), quantity(place), word(value)) < 4 ? file.lastCopyFault() : 0
}

function scan(s: Session, a: Args): Result {
  const v: unknown[] = []
  const first = addressOf(a.at) + BigInt((a.off as number | undefined) ?? 0)
  for (let i = 0; i < (a.pages as number); i++) {
    const { val, fault } = load(s, a, first + BigInt(i) * PAGE)
    v.push(val ?? fault)
  }
  return { v }
}

function fill(s: Session, a: Args): Result {
  const v: unknown[] = []
  const first = addressOf(a.at) + BigInt((a.off as number | undefined) ?? 0)
  const value = rawOf(a.value)
  for (let i = 0; i < (a.pages as number); i++) {
    const code = store(s, a, first + BigInt(i) * PAGE, value + BigInt(i))
    v.push(code === 0 ? 1 : faultName(code))
  }
  return { v }
}

function mincore(s: Session, a: Args): Result {
  const length = len(a)
  const pages = Math.min(Math.ceil(Number(length) / Number(PAGE)), 2 ** 20)
  const vec = a.badvec === undefined ? new Uint8Array(pages) : null
  const result = mem.sys_mincore(mmOf(s, a), at(a), length, vec)
  return result < 0 || vec === null ? returned(result) : { ret: result, vec: vec.join('') }
}

function copy(s: Session, a: Args, call: typeof file.sys_read_user): number {
  const fd = s.descriptor(processOf(s, a), a.file as number, 'rw', 'first')
  return fd < 0 ? fd : call(mmOf(s, a), at(a), len(a), fd, quantity(bytesOf(a.off)))
}

function rlimit(s: Session, a: Args): Result {
  const process = processOf(s, a)
  const pages = Number(bytesOf(a.v) / PAGE)
  if (a.res === 'as') {
    const { machine, id } = process.mm
    return returned(sys_setrlimit(process.mm, RLIMIT_AS, machine.mms.row(id, MM_TOTAL_VM) + pages))
  }
  process.memlockPages = pages
  s.applyLimits(process)
  return { ret: 0 }
}
