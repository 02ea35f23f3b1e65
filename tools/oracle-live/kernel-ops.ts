/** The operations of traces on the running Linux. Results have the shapes that tools/oracle replays. */
import * as fs from 'node:fs'
import { MAP_ANONYMOUS, MAP_FIXED } from '../../src/abi/mman.ts'
import { addressOf, bytesOf, flagsOf, PAGE, protOf, rawOf, resultPage } from '../oracle/quantity.ts'
import { type Args, returned } from '../oracle/result.ts'
import type { Op, Result } from '../oracle/trace.ts'
import { bytesOfWord, type Kind, type LiveKernel, type MapsLine, wordOf } from './kernel.ts'
import type { CallName } from './libc.ts'

type Run = (kernel: LiveKernel, args: Args) => Result

const PAGE_SIZE = Number(PAGE)
const PUNCH_KEEP_SIZE = 3
const NO_FD = 2n ** 64n - 1n

const OPS: Readonly<Record<string, Run>> = {
  file: createFile,
  truncate: (k, a) => done(() => fs.ftruncateSync(fdOf(k, a), Number(bytesOf(a.size)))),
  punch: (k, a) => returned(k.libc.call('fallocate', fdOf(k, a), PUNCH_KEEP_SIZE, bytesOf(a.off), bytesOf(a.len))),
  falloc: (k, a) => returned(k.libc.call('fallocate', fdOf(k, a), a.mode as number, bytesOf(a.off), bytesOf(a.len))),
  pread: (k, a) => {
    const buffer = new Uint8Array(4)
    const got = fs.readSync(fdOf(k, a), buffer, 0, 4, Number(bytesOf(a.off)))
    return got === 4 ? { val: wordOf(buffer) } : { ret: got, val: wordOf(buffer) }
  },
  pwrite: (k, a) => ({ ret: fs.writeSync(fdOf(k, a), bytesOfWord(rawOf(a.value)), 0, 4, Number(bytesOf(a.off))) }),
  fdump,
  stat: (k, a) => {
    const { size, blocks } = fs.fstatSync(fdOf(k, a))
    return k.file(a.file as number).kind === 'shmem' ? { size, pages: blocks / 8 } : { size }
  },
  fsync: (k, a) => done(() => fs.fsyncSync(fdOf(k, a))),
  mmap,
  munmap: (k, a) => ranged(k, 'munmap', a),
  mprotect: (k, a) => ranged(k, 'mprotect', a, protOf(a.prot)),
  mlock: (k, a) => ranged(k, 'mlock', a),
  munlock: (k, a) => ranged(k, 'munlock', a),
  munlockall: k => returned(k.libc.call('munlockall')),
  msync: (k, a) => ranged(k, 'msync', a, flagsOf(a.flags)),
  madvise: (k, a) => ranged(k, 'madvise', a, flagsOf(a.advice)),
  mremap,
  remap: (k, a) => {
    const at = k.guard(addressOf(a.at), bytesOf(a.size))
    const prot = rawOf(a.prot ?? 0)
    return returned(k.libc.call('remap_file_pages', at, bytesOf(a.size), prot, rawOf(a.pgoff), flagsOf(a.flags)))
  },
  read: (k, a) => {
    const got = k.load(addressOf(a.at))
    return typeof got === 'number' ? { val: got } : { fault: got }
  },
  write: (k, a) => {
    const fault = k.store(addressOf(a.at), rawOf(a.value))
    return fault === '' ? { ok: true } : { fault }
  },
  scan: (k, a) => ({ v: wordsOf(a).map(at => k.load(at)) }),
  fill: (k, a) => ({ v: wordsOf(a).map((at, i) => k.store(at, rawOf(a.value) + BigInt(i)) || 1) }),
  mincore: (k, a) => {
    const at = k.guard(addressOf(a.at), bytesOf(a.len))
    const vec = new Uint8Array(Number((bytesOf(a.len) + PAGE - 1n) / PAGE))
    const ret = k.libc.mincore(at, bytesOf(a.len), vec)
    return ret < 0 ? returned(ret) : { ret, vec: vec.map(bits => bits & 1).join('') }
  },
  maps: k => ({ m: k.maps().map(line => [line.start, line.end, line.perms, line.pgoff, nameOf(k, line)]) }),
  rss: k => ({ lck: k.nrLocked }),
  copyin: (k, a) => copy(k, 'pread64', a),
  copyout: (k, a) => copy(k, 'pwrite64', a),
  memread: (k, a) => {
    const buffer = new Uint8Array(4)
    fs.readSync(k.mem, buffer, 0, 4, Number(k.guard(addressOf(a.at), 4n)))
    return { val: wordOf(buffer) }
  },
  memwrite: (k, a) => {
    const at = Number(k.guard(addressOf(a.at), 4n))
    return { ret: fs.writeSync(k.mem, bytesOfWord(rawOf(a.value)), 0, 4, at) }
  }
}

export type Step = Pick<Op, 'op' | 'args'>

/** Runs a program on an empty arena, and empties it then. Throws for what is no operation, or outside the arena. */
export function runProgram(kernel: LiveKernel, program: readonly Step[]): Result[] {
  try {
    return program.map(step => runStep(kernel, step))
  } finally {
    kernel.clear()
  }
}

function runStep(kernel: LiveKernel, { op, args }: Step): Result {
  const run = OPS[op]
  if (run === undefined) throw new Error(`unknown operation ${op}`)
  try {
    return run(kernel, args)
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (code === undefined || syscall === undefined) throw error
    return { errno: code }
  }
}

function done(action: () => void): Result {
  action()
  return { ret: 0 }
}

function fdOf(k: LiveKernel, a: Args): number {
  return k.file(a.file as number).fd
}

function ranged(k: LiveKernel, name: CallName, a: Args, ...more: bigint[]): Result {
  const len = bytesOf(a.len)
  return returned(k.libc.call(name, k.guard(addressOf(a.at), len), len, ...more))
}

/** read() or write() of a file with the arena as the buffer. */
function copy(k: LiveKernel, name: CallName, a: Args): Result {
  const len = bytesOf(a.len)
  const fd = k.descriptor(a.file as number, 'rw', 'first')
  return returned(k.libc.call(name, fd, k.guard(addressOf(a.at), len), len, bytesOf(a.off)))
}

/** As the replayer's: page i gets u32 (id << 24) | i at its first and last word. */
function createFile(k: LiveKernel, a: Args): Result {
  const id = a.id as number
  const pages = a.pages as number
  const kind = a.kind as Kind
  const fd = k.create(id, kind)
  fs.ftruncateSync(fd, pages * PAGE_SIZE)
  const data = (a.data as number[] | undefined) ?? (a.holes === true ? [] : Array.from({ length: pages }, (_, i) => i))
  for (const i of data) {
    const bytes = new Uint8Array(PAGE_SIZE)
    const word = bytesOfWord(BigInt(id * 2 ** 24 + i))
    bytes.set(word, 0)
    bytes.set(word, PAGE_SIZE - 4)
    fs.writeSync(fd, bytes, 0, PAGE_SIZE, i * PAGE_SIZE)
  }
  if (a.size !== undefined) fs.ftruncateSync(fd, Number(bytesOf(a.size)))
  if (kind === 'disk') fs.fsyncSync(fd)
  return { ret: 0 }
}

function fdump(k: LiveKernel, a: Args): Result {
  const fd = fdOf(k, a)
  const { size } = fs.fstatSync(fd)
  const v: number[] = []
  for (let at = (a.off as number | undefined) ?? 0; at < size; at += PAGE_SIZE) {
    const buffer = new Uint8Array(4)
    fs.readSync(fd, buffer, 0, 4, at)
    v.push(wordOf(buffer))
  }
  return { size, v }
}

function mmap(k: LiveKernel, a: Args): Result {
  const at = k.guard(addressOf(a.at), bytesOf(a.len))
  const flags = flagsOf(a.flags) | BigInt(a.file === undefined ? MAP_FIXED | MAP_ANONYMOUS : MAP_FIXED)
  const mode = (a.open as 'r' | 'w' | undefined) ?? 'rw'
  const fd = a.file === undefined ? NO_FD : k.descriptor(a.file as number, mode, a.reopen === true ? 'fresh' : 'first')
  const off = (rawOf(a.pgoff ?? 0) * PAGE) & NO_FD
  const got = k.libc.call('mmap', at, bytesOf(a.len), protOf(a.prot), flags, fd, off)
  if (got < 0) return returned(got)
  const page = resultPage(got)
  const line = k.maps().find(({ start, end }) => start <= page && page < end)
  if (line !== undefined && line.inode !== '') k.names.set(line.inode, (a.file ?? a.anon) as number | string)
  return { ret: page }
}

function mremap(k: LiveKernel, a: Args): Result {
  const at = k.guard(addressOf(a.at), bytesOf(a.old))
  const to = a.to === undefined ? 0n : k.guard(addressOf(a.to), bytesOf(a.new))
  if (to === 0n) k.guard(at, bytesOf(a.new))
  const got = k.libc.call('mremap', at, bytesOf(a.old), bytesOf(a.new), flagsOf(a.flags), to)
  return got < 0 ? returned(got) : { ret: resultPage(got) }
}

function wordsOf(a: Args): bigint[] {
  const first = addressOf(a.at) + BigInt((a.off as number | undefined) ?? 0)
  return Array.from({ length: a.pages as number }, (_, i) => first + BigInt(i) * PAGE)
}

function nameOf(k: LiveKernel, line: MapsLine): number | string | null {
  return k.names.get(line.inode) ?? null
}
