/** Operations on files, outside the processes. */
import {
  sys_fallocate,
  sys_fpages,
  sys_fsize,
  sys_fsync,
  sys_ftruncate,
  sys_pread,
  sys_pwrite
} from '../../src/syscall/file.ts'
import { bytesOf, PAGE, quantity, rawOf } from './quantity.ts'
import { failed, type OpTable, returned } from './result.ts'
import type { FileKind, Session } from './session.ts'

const PAGE_SIZE = Number(PAGE)
const PUNCH_KEEP_SIZE = 3

type Args = Readonly<Record<string, unknown>>

export const FILE_OPS: OpTable = {
  file: createFile,
  truncate: (s, a) => returned(sys_ftruncate(s.machine, fdOf(s, a), quantity(bytesOf(a.size)))),
  punch: (s, a) =>
    returned(sys_fallocate(s.machine, fdOf(s, a), PUNCH_KEEP_SIZE, quantity(bytesOf(a.off)), quantity(bytesOf(a.len)))),
  falloc: (s, a) =>
    returned(
      sys_fallocate(s.machine, fdOf(s, a), a.mode as number, quantity(bytesOf(a.off)), quantity(bytesOf(a.len)))
    ),
  pread,
  pwrite: (s, a) => returned(sys_pwrite(s.machine, fdOf(s, a), word(rawOf(a.value)), quantity(bytesOf(a.off)))),
  fdump,
  stat: (s, a) => {
    const size = sys_fsize(s.machine, fdOf(s, a))
    const { kind } = s.file(a.file as number)
    return kind === 'shmem' || kind === 'quota' ? { size, pages: sys_fpages(s.machine, fdOf(s, a)) } : { size }
  },
  fsync: (s, a) => returned(sys_fsync(s.machine, fdOf(s, a))),
  // The file's name, its descriptors' number and its readahead are not the memory system's.
  unlink: () => ({ ret: 0 }),
  fclose: () => ({ ret: 0 }),
  fadvise: () => ({ ret: 0 })
}

function fdOf(s: Session, a: Args): number {
  return s.file(a.file as number).fd
}

/** Page i gets u32 (id << 24) | i at its first and last word. Huge pages cannot be written by write(). */
function createFile(s: Session, a: Args): Readonly<Record<string, unknown>> {
  const id = a.id as number
  const pages = a.pages as number
  const fd = s.create(id, a.kind as FileKind)
  if (fd < 0) return failed(fd)
  let error = sys_ftruncate(s.machine, fd, pages * PAGE_SIZE)
  const data =
    (a.data as number[] | undefined) ??
    (a.holes === true || a.kind === 'huge' ? [] : Array.from({ length: pages }, (_, i) => i))
  const bytes = new Uint8Array(PAGE_SIZE)
  const view = new DataView(bytes.buffer)
  for (const i of data) {
    if (error < 0) return failed(error)
    view.setUint32(0, id * 2 ** 24 + i, true)
    view.setUint32(PAGE_SIZE - 4, id * 2 ** 24 + i, true)
    error = Math.min(0, sys_pwrite(s.machine, fd, bytes, i * PAGE_SIZE))
  }
  if (error === 0 && a.size !== undefined) error = sys_ftruncate(s.machine, fd, quantity(bytesOf(a.size)))
  if (error === 0 && a.kind === 'disk') error = sys_fsync(s.machine, fd)
  return returned(error)
}

function pread(s: Session, a: Args): Readonly<Record<string, unknown>> {
  const buffer = new Uint8Array(4)
  const got = sys_pread(s.machine, fdOf(s, a), buffer, quantity(bytesOf(a.off)))
  if (got < 0) return failed(got)
  const val = new DataView(buffer.buffer).getUint32(0, true)
  return got === 4 ? { val } : { ret: got, val }
}

function fdump(s: Session, a: Args): Readonly<Record<string, unknown>> {
  const fd = fdOf(s, a)
  const off = (a.off as number | undefined) ?? 0
  const size = sys_fsize(s.machine, fd)
  const v: number[] = []
  for (let at = off; at < size; at += PAGE_SIZE) {
    const buffer = new Uint8Array(4)
    const got = sys_pread(s.machine, fd, buffer, at)
    if (got < 0) return failed(got)
    v.push(new DataView(buffer.buffer).getUint32(0, true))
  }
  return { size, v }
}

export function word(value: bigint): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, Number(value & 0xffffffffn), true)
  return bytes
}
