/** The fuzzer's operations on files, applied to the machine and the model. */
import { EIO, ENOMEM } from '../../src/abi/errno.ts'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../src/abi/mman.ts'
import { MM_NR_TABLES } from '../../src/frame/mm-table.ts'
import {
  O_RDWR,
  sys_close,
  sys_fallocate,
  sys_fsync,
  sys_ftruncate,
  sys_pread,
  sys_pwrite,
  sys_reopen
} from '../../src/syscall/file.ts'
import type { ModelFile } from './model.ts'
import type { Op } from './ops.ts'
import { type FuzzFile, Mismatch, storedBytes, type World } from './world.ts'

/** Bytes that tell where they were written and by which operation. */
export function pattern(fill: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = (fill + i * 7 + (i >>> 8)) | 1
  return bytes
}

/** Whether an error can be explained: no memory in a small machine, or a failure that was planned. */
export function excused(w: World, error: number): boolean {
  if (error === -ENOMEM) {
    if (!w.armed) noteOutOfMemory(w)
    return w.armed || w.isTight
  }
  return error === -EIO && w.armed
}

/** Frames that one fault or call can need at most: its page, a copy, a slab and a path of tables, pinned ones beside. */
const MOST_FRAMES = 12

/**
 * A machine that says it has no memory must have none: what can be freed by force must be less than was needed. Page
 * tables do not count: they may go only now, with the entry of the page that the fault had in hand.
 */
export function noteOutOfMemory(w: World): void {
  w.nrOutOfMemory++
  const before = w.m.allocator.nrFree
  const tables = nrTables(w)
  w.m.reclaim.shrinkAll()
  const free = w.m.allocator.nrFree - (tables - nrTables(w))
  if (free > MOST_FRAMES) throw new Mismatch(`out of memory with ${before} frames free and ${free - before} to be had`)
}

function nrTables(w: World): number {
  let tables = 0
  for (let mm = 1; mm <= w.m.mms.maxMms; mm++) if (w.m.mms.isAlive(mm)) tables += w.m.mms.row(mm, MM_NR_TABLES)
  return tables
}

export function execFile(w: World, op: Op): void {
  if (!('f' in op) || op.f < 0) return
  const file = w.files[op.f]
  switch (op.op) {
    case 'read':
      read(w, file, op.pos, op.len)
      break
    case 'write':
      write(w, file, op.pos, op.len, op.fill)
      break
    case 'truncate':
      truncate(w, file, op.size)
      break
    case 'punch':
    case 'zero':
      punch(w, file, op.pos, op.len, op.op)
      break
    case 'fsync':
      fsync(w, file)
      break
    case 'reopen':
      reopen(w, op.f)
      break
  }
}

function read(w: World, { fd, model }: FuzzFile, pos: number, len: number): void {
  const buffer = new Uint8Array(len).fill(0xee)
  const got = sys_pread(w.m, fd, buffer, pos)
  const expected = Math.max(0, Math.min(len, model.size - pos))
  if (got < 0 ? !excused(w, got) : got !== expected && !(got < expected && (w.armed || w.isTight))) {
    throw new Mismatch(`read gives ${got}, not ${expected}`)
  }
  if (got > 0) w.compare('what was read', buffer, model.bytes.subarray(pos, pos + got), got)
}

function write(w: World, { fd, model }: FuzzFile, pos: number, len: number, fill: number): void {
  const data = pattern(fill, len)
  const done = sys_pwrite(w.m, fd, data, pos)
  if (done < 0 ? !excused(w, done) : done !== len && !(done < len && (w.armed || w.isTight))) {
    throw new Mismatch(`write gives ${done}, not ${len}`)
  }
  if (done > 0) model.write(pos, data.subarray(0, done))
}

function truncate(w: World, { fd, model }: FuzzFile, size: number): void {
  const result = sys_ftruncate(w.m, fd, size)
  if (result < 0) {
    if (!excused(w, result)) throw new Mismatch(`truncate gives ${result}`)
    return
  }
  const shrinks = size < model.size
  model.truncate(size)
  if (shrinks) dropCopies(w, model, Math.ceil(size / w.pageSize))
}

/** Truncation takes private copies of the pages that are gone, too. */
function dropCopies(w: World, model: ModelFile, first: number): void {
  for (const space of w.spaces) {
    if (space === undefined) continue
    for (const page of space.pages.values()) {
      if (page.file === model && !page.shared && page.linear >= first) page.copy = null
    }
  }
}

function punch(w: World, { fd, model }: FuzzFile, pos: number, len: number, kind: 'punch' | 'zero'): void {
  const mode = (kind === 'punch' ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE
  const result = sys_fallocate(w.m, fd, mode, pos, len)
  if (result === 0) model.punch(pos, len)
  else if (excused(w, result)) settlePunch(w, model, pos, len)
  else throw new Mismatch(`${kind} gives ${result}`)
}

/** A punch that failed half way: each byte of its range is old or zero; the model takes what is there. */
function settlePunch(w: World, model: ModelFile, pos: number, len: number): void {
  const end = Math.min(pos + len, model.nrPages * w.pageSize)
  for (let at = pos; at < end; at++) {
    const index = Math.floor(at / w.pageSize)
    const page = w.peeker.filePage(model.inode, index)
    for (; at < end && at < (index + 1) * w.pageSize; at++) if (page[at % w.pageSize] === 0) model.bytes[at] = 0
    at--
  }
}

function fsync(w: World, { fd, store, model }: FuzzFile): void {
  const result = sys_fsync(w.m, fd)
  if (result !== 0) {
    if (result !== -EIO || !(w.armed || w.writesFailed)) throw new Mismatch(`fsync gives ${result}`)
    return
  }
  if (store !== undefined) compareStore(w, store.inner.size(), storedBytes(store.inner, model.size), model)
}

function compareStore(w: World, size: number, bytes: Uint8Array, model: ModelFile): void {
  if (size !== model.size) throw new Mismatch(`the store has ${size} bytes after a sync, not ${model.size}`)
  w.compare('the store after a sync', bytes, model.bytes, model.size)
}

/** Closes the file, so that only its mappings hold it, and opens it again. */
function reopen(w: World, f: number): void {
  w.heal()
  const file = w.files[f]
  if (file.store === undefined) {
    const fd = sys_reopen(w.m, file.fd, O_RDWR)
    if (fd < 0 || sys_close(w.m, file.fd) !== 0) throw new Mismatch(`reopen of memory gives ${fd}`)
    file.fd = fd
    return
  }
  const before = file.model.inode
  const held = w.m.inodes.refs[before] > 1 || w.m.files.refs[w.m.fds[file.fd]] > 1
  const result = sys_close(w.m, file.fd)
  if (result !== 0) throw new Mismatch(`close gives ${result}`)
  if (!held) compareStore(w, file.store.inner.size(), storedBytes(file.store.inner, file.model.size), file.model)
  w.openStore(f)
  if (held && file.model.inode !== before)
    throw new Mismatch('a mapped file has another inode after it was opened again')
  // What was past the end went with the cache.
  if (!held) file.model.forgetTail()
}
